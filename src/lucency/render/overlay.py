"""The overlay: scan in grey, map in colour, and what is needed to read them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lucency.errors import ParameterError
from lucency.explanation import Explanation, peak_of, place_of
from lucency.render.lettering import FAMILY, cut, font, lines, plain_words, signed
from lucency.render.output import written
from lucency.viewer import palette
from lucency.viewer.maps import Shown, shown, shown_first
from lucency.viewer.palette import Scale, composite, hexed
from lucency.viewer.views import View, resized, views

IMAGES = (".png", ".jpg", ".pdf", ".svg")
DPI = 100
SAVED_DPI = 160
PICTURE = 640
TALLEST = 680
NARROWEST = 520
EDGE = 22
GAP = 18
BAR = 16
PAIRED = 470
"""Width of a picture that has another one beside it."""
NOTICE = "Research software, not a medical device."


@dataclass(frozen=True)
class Block:
    """One map over all planes of the scan, with its colour bar."""

    what: Shown
    planes: list[View]
    sizes: list[tuple[int, int]]
    scale: Scale
    captions: list[str]

    @classmethod
    def of(cls, explanation: Explanation, what: Shown, room: int, *, cells: bool, named: bool) -> Block:
        planes = views(explanation, what.heatmap, cells=cells)
        parts = [(what.name if named else "", plane.name) for plane in planes]
        captions = [" · ".join(text for text in both if text) for both in parts]
        return cls(what, planes, _sizes(planes, room), Scale.of(what.heatmap), captions)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        return _ticks(self.what, self.scale)

    @property
    def labels(self) -> int:
        return max(50, *(math.ceil(font(11).getlength(text)) for _, text in self.ticks))

    @property
    def across(self) -> int:
        return sum(w for _, w in self.sizes) + GAP * (len(self.sizes) - 1) + BAR + 42 + self.labels

    @property
    def above(self) -> int:
        return 20 if any(self.captions) else 0

    @property
    def tall(self) -> int:
        return max(h for h, _ in self.sizes)


@plain_words
def overlay(
    explanation: Explanation, *, which: str | None = None, opacity: float = palette.OPACITY, cells: bool = False
) -> Figure:
    """The map over the scan, with a colour bar, the crosshair of the maximum, and a scale bar where one is possible.

    A volume is shown in its three orthogonal slices through the maximum. A map whose neighbouring pixels say opposite
    things, as those of a gradient do, stands beside its smoothed magnitude, which can be read.

    Args:
        which: a further map by name, ``"strength"`` or ``"standard error"``; the heatmap itself when ``None``.
        opacity: of the colour where it is full, 0..1. Where the map is zero the scan shows unchanged.
        cells: draw patches as they are, instead of interpolating between their middles.

    Raises:
        ParameterError: for a map that is not there, or an opacity outside 0..1.
    """
    if not 0 <= opacity <= 1:
        raise ParameterError(f"The opacity is a number from 0 to 1, not {opacity}.")
    whats = shown_first(explanation) if which is None else [shown(explanation, which)]
    flat = explanation.heatmap.ndim == 2
    room = 3 * 360 if not flat else PAIRED if len(whats) > 1 else PICTURE
    blocks = [Block.of(explanation, what, room, cells=cells, named=len(whats) > 1) for what in whats]
    # Those of a scan side by side, those of a volume one below the other.
    across = sum(b.across for b in blocks) + GAP * (len(blocks) - 1) if flat else max(b.across for b in blocks)
    width = max(NARROWEST, across) + 2 * EDGE
    left = EDGE + (width - 2 * EDGE - across) // 2

    above = _header(explanation, whats, width - 2 * EDGE)
    below = _footer(explanation, blocks, width - 2 * EDGE)
    top = EDGE + sum(line.height for line in above) + 8
    tall = (max if flat else sum)(b.above + b.tall + 10 for b in blocks)
    height = top + tall + sum(line.height for line in below) + EDGE - 6

    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=hexed(palette.BACKGROUND))
    y = float(EDGE)
    for line in above:
        _write(figure, EDGE, y, line)
        y += line.height
    y = top + tall
    for line in below:
        _write(figure, EDGE, y, line)
        y += line.height
    for block in blocks:
        _block(figure, block, opacity, left, top)
        if flat:
            left += block.across + GAP
        else:
            top += block.above + block.tall + 10
    return figure


def _block(figure: Figure, block: Block, opacity: float, left: int, top: int) -> None:
    y = top + block.above
    x = left
    for plane, (h, w), caption in zip(block.planes, block.sizes, block.captions, strict=True):
        if caption:
            _write(figure, x, top, Line(caption, 11, palette.MUTED))
        _picture(figure, plane, block.scale, opacity, (x, y, w, h), signed_map=block.what.signed)
        x += w + GAP
    place = (x - GAP + 14, y, BAR, block.tall)
    _bar(figure, block.what, block.scale, opacity, place, block.ticks, block.labels)


def save_overlay(
    explanation: Explanation,
    path: str | Path,
    *,
    which: str | None = None,
    opacity: float = palette.OPACITY,
    cells: bool = False,
) -> Path:
    """Writes :func:`overlay` as PNG, JPEG, PDF or SVG, told by the suffix.

    Raises:
        OutputError: when the file cannot be written; nothing half-written is left.
        ParameterError: as :func:`overlay` does.
    """
    with written(path, IMAGES) as part:
        figure = overlay(explanation, which=which, opacity=opacity, cells=cells)
        figure.savefig(part, dpi=SAVED_DPI, facecolor=figure.get_facecolor())
    return Path(path)


@dataclass(frozen=True)
class Line:
    """One line of text of ``size`` pixels."""

    text: str
    size: float
    colour: tuple[int, int, int] = palette.TEXT
    bold: bool = False

    @property
    def height(self) -> int:
        return round(self.size * 1.5)


def _header(explanation: Explanation, whats: list[Shown], width: float) -> list[Line]:
    method, question = explanation.provenance.method, explanation.provenance.question
    title = f"{explanation.target}: {explanation.answer}"
    room = width - 80
    found = [Line(text, 20, bold=True) for text in lines(title, 20, room, bold=True)[:2]]
    how = f"{method.title} ({method.paper}), watching the {question.label}"
    if explanation.removal:
        how += f", removal {explanation.removal}"
    if len(whats) == 1 and whats[0].name:
        how = f"{whats[0].name} · {how}"
    found += [Line(text, 12, palette.MUTED) for text in lines(how, 12, width)]
    if not explanation.complete:
        found.append(Line("stopped before its end: this is the map so far", 12, palette.WARNING))
    return found


def _footer(explanation: Explanation, blocks: list[Block], width: float) -> list[Line]:
    said = " ".join(_reading(block, named=len(blocks) > 1) for block in blocks)
    model = explanation.provenance.model.name
    return [Line(text, 11, palette.MUTED) for text in lines(f"{said} Model {model}. {NOTICE}", 11, width)]


def _reading(block: Block, *, named: bool) -> str:
    """How a map is read, in a sentence or two."""
    what, scale = block.what, block.scale
    if not what.heatmap.any():
        return "The map is zero everywhere."
    name = what.name[:1].upper() + what.name[1:] + ": full" if named else "Full"
    said = f"{name} colour at {scale if what.signed else f'{scale.limit:.3g}'} ({what.unit or what.name}), "
    said += f"the {palette.PERCENTILE}th percentile."
    if (peak := peak_of(what.heatmap)) is not None and what.heatmap.max() > 0:
        highest = float(what.heatmap.max())
        said += f" Maximum {signed(highest) if what.signed else f'{highest:.3g}'} at {place_of(peak)}."
    elif what.signed:
        said += " No pixel supports the answer."
    return said


def _sizes(planes: list[View], room: int) -> list[tuple[int, int]]:
    """Height and width in pixels of each plane, at one common scale, together at most ``room`` wide."""
    tall = max(p.extent[0] for p in planes)
    wide = sum(p.extent[1] for p in planes)
    scale = min(room / wide, TALLEST / tall)
    return [(max(1, round(p.extent[0] * scale)), max(1, round(p.extent[1] * scale))) for p in planes]


def _write(figure: Figure, x: float, y: float, line: Line) -> None:
    width, height = figure.get_size_inches() * DPI
    text = cut(line.text, line.size, width - x - EDGE / 2, line.bold)
    figure.text(
        x / width,
        1 - y / height,
        text,
        va="top",
        fontsize=line.size * 72 / DPI,
        family=FAMILY,
        weight="bold" if line.bold else "normal",
        color=hexed(line.colour),
        # A class called $x$ is not a formula.
        parse_math=False,
    )


def _picture(
    figure: Figure,
    plane: View,
    scale: Scale,
    opacity: float,
    place: tuple[int, int, int, int],
    *,
    signed_map: bool,
) -> None:
    x, y, w, h = place
    width, height = figure.get_size_inches() * DPI
    axes = figure.add_axes((x / width, 1 - (y + h) / height, w / width, h / height))
    axes.set_axis_off()
    sharp = SAVED_DPI / DPI
    size = round(h * sharp), round(w * sharp)
    rgb = composite(resized(plane.grey, *size), scale.strength(resized(plane.drawn, *size)), opacity)
    axes.imshow(rgb, extent=(0, w, h, 0), aspect="auto", interpolation="antialiased")
    halo = [withStroke(linewidth=3, foreground="black", alpha=0.75)]
    if plane.peak is not None:
        rows, columns = plane.grey.shape
        py, px = (plane.peak[0] + 0.5) * h / rows, (plane.peak[1] + 0.5) * w / columns
        hole, arm = 7, 24
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            axes.plot(
                [px + dx * hole, px + dx * arm], [py + dy * hole, py + dy * arm], color="white", lw=1.3,
                path_effects=halo, solid_capstyle="butt", scalex=False, scaley=False,
            )  # fmt: skip
        right = px < 0.7 * w
        low = py < 40
        value = float(plane.heatmap[plane.peak])
        axes.text(
            px + (12 if right else -12), py + (12 if low else -12), signed(value) if signed_map else f"{value:.3g}",
            ha="left" if right else "right", va="top" if low else "bottom", color="white",
            fontsize=12 * 72 / DPI, family=FAMILY, path_effects=halo,
        )  # fmt: skip
    if plane.spacing is not None:
        mm = nice_length(plane.extent[1] * 0.3)
        long = mm / plane.extent[1] * w
        axes.plot([14, 14 + long], [h - 14, h - 14], color="white", lw=2.2, path_effects=halo, solid_capstyle="butt")
        axes.text(
            14 + long / 2, h - 19, f"{mm:g} mm", ha="center", va="bottom", color="white",
            fontsize=11 * 72 / DPI, family=FAMILY, path_effects=halo,
        )  # fmt: skip
    axes.set_xlim(0, w)
    axes.set_ylim(h, 0)


def nice_length(at_most: float) -> float:
    """The longest of 1, 2, 5 times a power of ten that is not above ``at_most``."""
    power = 10.0 ** len(str(int(at_most))) if at_most >= 1 else 1.0
    while True:
        for step in (5, 2, 1):
            if step * power <= at_most:
                return step * power
        power /= 10


def _ticks(what: Shown, scale: Scale) -> list[tuple[float, str]]:
    """The values that the colour bar names, and their names."""
    limit = scale.limit
    if not what.signed:
        return [(0.0, "0"), *((t, f"{t:.3g}") for t in (limit / 2, limit))]
    return [(t, "0" if t == 0 else signed(t)) for t in (-limit, -limit / 2, 0.0, limit / 2, limit)]


def _bar(
    figure: Figure,
    what: Shown,
    scale: Scale,
    opacity: float,
    place: tuple[int, int, int, int],
    ticks: list[tuple[float, str]],
    labels: int,
) -> None:
    x, y, w, h = place
    width, height = figure.get_size_inches() * DPI
    axes = figure.add_axes((x / width, 1 - (y + h) / height, w / width, h / height))
    ramp = palette.ramp(256, what.signed)[::-1, None]
    grey = ramp * 0 + 0.5
    low = -scale.limit if what.signed else 0.0
    axes.imshow(
        composite(grey, ramp, opacity), extent=(0, 1, low, scale.limit), aspect="auto", interpolation="bilinear"
    )
    axes.set_xticks([])
    axes.yaxis.tick_right()
    axes.set_yticks([t for t, _ in ticks], [text for _, text in ticks])
    axes.tick_params(colors=hexed(palette.TEXT), labelsize=11 * 72 / DPI, length=3, pad=3, labelfontfamily=FAMILY)
    for spine in axes.spines.values():
        spine.set_color(hexed(palette.LINE))
    aside = x + w + 20 + labels
    ends = 60 if what.signed else 0
    for text, at, va, colour in (
        # Where the bar is too short the footer alone says it.
        (what.unit if cut(what.unit, 11, h - 2 * ends) == what.unit else "", 0.5, "center", palette.MUTED),
        ("supports", 0.0, "top", palette.SUPPORTS),
        ("against", 1.0, "bottom", palette.AGAINST),
    )[: 3 if what.signed else 1]:
        figure.text(
            aside / width, 1 - (y + h * at) / height, text, rotation=270, ha="center", va=va,
            fontsize=11 * 72 / DPI, family=FAMILY, color=hexed(colour), parse_math=False,
        )  # fmt: skip
