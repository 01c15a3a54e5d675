"""Contact sheets: what single feature maps saw.

Each map has three pictures: the scan with the box that its strongest activation depends on, that box, and the
activation led back to pixels, the last two side by side as in figure 2 of Zeiler & Fergus 2014.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from lucency.errors import ParameterError
from lucency.methods.units import Box, Unit
from lucency.render.lettering import cut, font
from lucency.render.output import written
from lucency.render.overlay import NOTICE
from lucency.scan import Scan
from lucency.viewer import palette
from lucency.viewer.palette import Floats

SUFFIXES = (".png", ".jpg", ".pdf")
TILE = 128
GAP = 4
APART = 24
EDGE = 24
CAPTION = 34
PERCENTILE = 99.5
WIDE = 2.0
LEGEND = (
    "Left: the scan, and the box that the activation depends on. Middle: that box.",
    "Right: the activation led back to pixels; grey is no signal, white where brighter fires it, black where darker.",
    NOTICE,
)


def layer_sheet(units: Sequence[Unit], title: str) -> Image.Image:
    """What :func:`~lucency.methods.units.strongest_units` found, layer after layer, as one RGB picture.

    Raises:
        ParameterError: when there is nothing to show.
    """
    named = [(f"{u.layer}", f"map {u.unit} of {_shape(u)} · activation {u.activation:.4g}", u) for u in units]
    together = max((sum(v.layer == u.layer for v in units) for u in units), default=1)
    return _sheet(named, title, together)


def scan_sheet(found: Sequence[tuple[Scan, Unit]], title: str) -> Image.Image:
    """What :func:`~lucency.methods.units.strongest_scans` found, strongest first, as one RGB picture.

    Raises:
        ParameterError: when there is nothing to show.
    """
    return _sheet([(Path(scan.source).name, f"activation {u.activation:.4g}", u) for scan, u in found], title, 1)


def save_sheet(sheet: Image.Image, path: str | Path) -> Path:
    """Writes a sheet as PNG, JPEG or PDF, told by the suffix.

    Raises:
        OutputError: when the file cannot be written; nothing half-written is left.
    """
    with written(path, SUFFIXES) as part:
        sheet.save(part)
    return Path(path)


def _shape(unit: Unit) -> str:
    return " x ".join(map(str, unit.activations.shape))


@dataclass(frozen=True)
class _Plane:
    """A plane of the model's grid through what the unit saw: scan in 0..1, signal in -1..1, the box on it."""

    scan: Floats
    signal: Floats
    box: Box


def _plane(unit: Unit) -> _Plane:
    scan = unit.pixels.mean(0).clamp(0, 1).cpu().numpy()
    signal = unit.projection.cpu().numpy()
    box = unit.box
    if signal.ndim == 3:
        # The slice with most of the signal; the middle of the box where there is none.
        strength = np.abs(signal).sum((1, 2))
        at = int(strength.argmax()) if strength.any() else sum(box[0]) // 2
        scan, signal, box = scan[at], signal[at], box[1:]
    # Few pixels carry most of a deep layer's signal; scaled to their maximum the others would be lost in grey.
    limit = float(np.percentile(np.abs(signal[_inside(box)]), PERCENTILE)) or float(np.abs(signal).max()) or 1.0
    return _Plane(scan, np.clip(signal / np.float32(limit), -1, 1), box)


def _inside(box: Box) -> tuple[slice, ...]:
    return tuple(slice(a, b) for a, b in box)


def _sheet(named: Sequence[tuple[str, str, Unit]], title: str, together: int) -> Image.Image:
    if not named:
        raise ParameterError("There is no feature map to show; ask for at least one layer and one map.")
    wide, tall = 3 * TILE + 2 * GAP, CAPTION + TILE
    columns = math.sqrt(WIDE * len(named) * (tall + APART) / (wide + APART)) / together
    across = min(len(named), together * max(1, round(columns)))
    down = -(-len(named) // across)
    top = EDGE + 44
    bottom = top + down * (tall + APART)
    size = (2 * EDGE + across * (wide + APART) - APART, bottom + EDGE + 18 * len(LEGEND))
    sheet = Image.new("RGB", size, palette.BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((EDGE, EDGE), cut(title, 18, size[0] - 2 * EDGE, bold=True), palette.TEXT, font(18, bold=True))
    for n, line in enumerate(LEGEND):
        draw.text((EDGE, bottom + 18 * n), cut(line, 12, size[0] - 2 * EDGE), palette.MUTED, font(12))
    for n, (name, said, unit) in enumerate(named):
        x, y = EDGE + n % across * (wide + APART), top + n // across * (tall + APART)
        draw.text((x, y), cut(name, 13, wide, bold=True), palette.TEXT, font(13, bold=True))
        draw.text((x, y + 16), cut(said, 12, wide), palette.MUTED, font(12))
        _tiles(sheet, unit, x, y + CAPTION)
    return sheet


def _tiles(sheet: Image.Image, unit: Unit, x: int, y: int) -> None:
    plane = _plane(unit)
    whole, corner, scale = _fitted(plane.scan)
    draw = ImageDraw.Draw(whole)
    (top, bottom), (left, right) = ((a * scale + c, b * scale + c) for (a, b), c in zip(plane.box, corner, strict=True))
    draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=palette.SUPPORTS, width=2)
    patch, _, _ = _fitted(plane.scan[_inside(plane.box)])
    led_back, _, _ = _fitted(0.5 + 0.5 * plane.signal[_inside(plane.box)])
    for i, tile in enumerate((whole, patch, led_back)):
        sheet.paste(tile, (x + i * (TILE + GAP), y))


def _fitted(grey: Floats) -> tuple[Image.Image, tuple[float, float], float]:
    """A plane in 0..1 as a square RGB tile; where its corner (row, column) lies there, and its scale."""
    rows, columns = grey.shape
    scale = TILE / max(rows, columns)
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    image = Image.fromarray(np.rint(np.clip(grey, 0, 1) * 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    corner = (TILE - size[1]) // 2, (TILE - size[0]) // 2
    tile = Image.new("RGB", (TILE, TILE), palette.SURFACE)
    tile.paste(image.convert("RGB"), corner[::-1])
    return tile, corner, scale
