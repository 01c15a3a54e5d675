"""Contact sheets of feature maps: the pictures are where they should be and show what they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lucency import Scan
from lucency.engine import Engine
from lucency.errors import OutputError, ParameterError
from lucency.methods.units import Unit, strongest_scans, strongest_units
from lucency.render.contact import APART, CAPTION, EDGE, GAP, TILE, layer_sheet, save_sheet, scan_sheet
from lucency.viewer.palette import SUPPORTS, SURFACE
from nets import classifier_of
from styles import styled

TOP = EDGE + 44 + CAPTION


def unit(shape: tuple[int, ...] = (64, 64)) -> Unit:
    """A unit that saw a bright square in a dark scan, and whose signal is one positive and one negative half."""
    pixels, projection = torch.zeros(1, *shape), torch.zeros(shape)
    pixels[..., 16:32, 32:48] = 1
    projection[..., 16:32, 32:40], projection[..., 16:32, 40:48] = 2.0, -2.0
    box = (*((0, n) for n in shape[:-2]), (16, 32), (32, 48))
    return Unit("layer", 3, 1.5, (0, 0), box, torch.zeros(4, 4), projection, pixels)


@pytest.mark.parametrize("shape", [(64, 64), (5, 64, 64)])
def test_scan_box_patch_and_signal_stand_side_by_side(shape: tuple[int, ...]) -> None:
    sheet = np.asarray(layer_sheet([unit(shape)], "One"))
    scan, patch, signal = (sheet[TOP : TOP + TILE, x : x + TILE] for x in (EDGE + i * (TILE + GAP) for i in range(3)))
    assert (scan[48, 80] == 255).all()
    assert not scan[100, 20].any()
    assert (scan[32, 64:96] == SUPPORTS).all()
    assert (scan[63, 64:96] == SUPPORTS).all()
    assert (scan[32:64, 95] == SUPPORTS).all()
    assert (patch == 255).all()
    assert (signal[:, :56] > 250).all()
    assert (signal[:, 72:] < 5).all()


def test_a_wide_scan_lies_in_the_middle_of_its_tile() -> None:
    sheet = np.asarray(layer_sheet([unit((32, 64))], "One"))
    scan = sheet[TOP : TOP + TILE, EDGE : EDGE + TILE]
    assert (scan[:32] == SURFACE).all()
    assert (scan[96:] == SURFACE).all()
    assert not scan[40, 20].any()
    # Rows 16 to 32 of 32 fill the lower half of the picture, columns 32 to 48 of 64 its third quarter.
    assert (scan[80, 80] == 255).all()
    assert (scan[64, 64:96] == SUPPORTS).all()


def test_layers_stand_in_rows_of_their_own() -> None:
    engine, scan = Engine(classifier_of(styled("vgg"), 3)), Scan(torch.rand(1, 24, 30))
    sheet = layer_sheet(strongest_units(engine, scan, top=3), "Layers")
    cell = 3 * TILE + 2 * GAP + APART
    assert sheet.width == 2 * EDGE + 3 * cell - APART
    found = strongest_scans(engine, [scan] * 9, "features.3", 2)
    assert scan_sheet(found, "Scans").width == 2 * EDGE + 3 * cell - APART


def test_a_silent_unit_is_grey() -> None:
    dead = unit()
    silent = Unit(dead.layer, 0, 0.0, (0, 0), dead.box, dead.activations, torch.zeros(64, 64), dead.pixels)
    sheet = np.asarray(layer_sheet([silent], "One"))
    assert (sheet[TOP : TOP + TILE, EDGE + 2 * (TILE + GAP) :][:, :TILE] == 128).all()


def test_saving(tmp_path: Path) -> None:
    sheet = layer_sheet([unit()], "One")
    with Image.open(save_sheet(sheet, tmp_path / "sheet.png")) as read:
        assert read.size == sheet.size
    with pytest.raises(OutputError, match="format"):
        save_sheet(sheet, tmp_path / "sheet.gif")
    with pytest.raises(ParameterError, match="no feature map"):
        layer_sheet([], "None")
