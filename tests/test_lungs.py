"""The lung fields of a film, on simulated films whose lungs are known, and on what is no film."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lucency import Scan
from lucency.lungs import LungFields, lung_fields
from lucency.lungs.zones import completed, places
from lucency.phantom import Anatomy
from lucency.phantom.parameters import draw

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))
from train_lungs import visible_lungs

SHARED = Path(os.environ.get("LUCENCY_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize(("seed", "volume", "side"), [(9_000_001, 600, "right"), (9_000_002, 300, "left")])
def test_lungs_of_a_phantom_dry_and_under_fluid(seed: int, volume: float, side: str) -> None:
    anatomy = Anatomy(draw(seed, 160, 0.0, "right", None, None, None, None, None))
    truth = visible_lungs(anatomy)
    phantom = anatomy.render(volume, side)
    for image, least in ((phantom.twin, 0.93), (phantom.image, 0.88)):
        lungs = lung_fields(Scan.from_array(image))
        assert lungs is not None
        assert min(dice(lungs.right, truth[0]), dice(lungs.left, truth[1])) > least


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    return Anatomy(draw(9_000_003, 160, 0.0, "right", None, None, None, None, None)).render(0.0, "right").twin


def test_tone_size_and_shape_do_not_matter(film: np.ndarray) -> None:
    first = lung_fields(Scan.from_array(film))
    assert first is not None
    tone = lung_fields(Scan.from_array(4000 * film**0.5 + 100, value_range=(0, 4200)))
    assert tone is not None
    assert dice(tone.both, first.both) > 0.97
    large = lung_fields(Scan.from_array(np.kron(film, np.ones((3, 3), np.float32))))
    assert large is not None
    assert dice(large.both[1::3, 1::3], first.both) > 0.97
    wide = lung_fields(Scan.from_array(np.pad(film, ((0, 0), (10, 20)))))
    assert wide is not None
    assert wide.both.shape == (160, 190)
    assert dice(wide.both[:, 10:170], first.both) > 0.93
    colour = lung_fields(Scan.from_array(np.stack([film] * 3)))
    assert colour is not None
    assert dice(colour.both, first.both) == 1


@pytest.mark.parametrize("what", ["noise", "flat", "ramp", "turned"])
def test_what_is_no_frontal_film_has_no_lungs(what: str, film: np.ndarray) -> None:
    pictures = {
        "noise": np.random.default_rng(0).random((96, 96)),
        "flat": np.zeros((64, 64)),
        "ramp": np.linspace(0, 1, 96)[None] * np.ones((96, 1)),
        "turned": np.ascontiguousarray(film.T),
    }
    assert lung_fields(Scan.from_array(pictures[what])) is None


def test_a_volume_has_none() -> None:
    assert lung_fields(Scan(torch.rand(1, 4, 32, 32))) is None


@pytest.mark.parametrize("side", ["right", "left"])
def test_what_an_effusion_hides_is_the_base_of_that_lung(side: str) -> None:
    """Lung fields as of a film on which one lung ends half way down; the other one tells where its base would be."""
    whole = visible_lungs(Anatomy(draw(9_000_004, 160, 0.0, "right", None, None, None, None, None)))
    lungs = LungFields(*whole)
    assert completed(lungs) is lungs
    which = 0 if side == "right" else 1
    rows = np.flatnonzero(whole[which].any(1))
    hidden = whole[which] & (np.arange(160)[:, None] > rows[len(rows) // 2])
    cut = [lung & ~hidden if n == which else lung for n, lung in enumerate(whole)]
    (names, known), (same, numbers) = places(lungs), places(LungFields(*cut))
    assert names == same
    agree = float((known == numbers)[hidden].mean())
    assert agree > 0.75
    assert (completed(LungFields(*cut)).left if which == 0 else completed(LungFields(*cut)).right) is cut[1 - which]


@pytest.mark.skipif(not (SHARED / "xrays").is_dir(), reason="needs the real films of shared/xrays beside the checkout")
def test_normal_films_have_two_lungs_of_a_size() -> None:
    with (SHARED / "xrays" / "nih_labels.csv").open() as file:
        names = [
            row["image"] for row in csv.DictReader(file) if row["findings"] == "No Finding" and row["view"] == "PA"
        ]
    found: list[LungFields | None] = []
    for name in names[::20]:
        pixels = np.asarray(Image.open(SHARED / "xrays" / "nih" / name).convert("L"), np.float32) / 255
        found.append(lung_fields(Scan.from_array(pixels[::2, ::2].copy())))
    lungs = [one for one in found if one is not None]
    assert len(lungs) >= len(found) - 1
    for one in lungs:
        assert 0.1 < one.both.mean() < 0.6
        columns = np.arange(256)
        assert one.right.sum(0) @ columns / one.right.sum() < one.left.sum(0) @ columns / one.left.sum()
        assert not (one.right & one.left).any()
