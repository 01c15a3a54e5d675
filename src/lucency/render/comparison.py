"""The comparison: one page with every method's map of one scan, its curves, its cost and how it was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from lucency.errors import ParameterError
from lucency.explanation import Explanation
from lucency.methods import METHODS
from lucency.render.agreement import agreement
from lucency.render.overlay import NOTICE
from lucency.render.page import how_made, layer_uri, png_uri, save_page, scan_uri, size_of, spoken
from lucency.render.player import Player
from lucency.render.report import maximum, warnings
from lucency.viewer.inlined import carried, module
from lucency.viewer.maps import Shown, shown_first
from lucency.viewer.packed import Over, layered
from lucency.viewer.palette import Bytes, Floats, Scale
from lucency.viewer.views import View, resized, views

if TYPE_CHECKING:
    # Statistics take a second to load, and nobody who draws an overlay needs them.
    from lucency.metrics import Curve, Localisation

LINES = ("#e69f00", "#56b4e9", "#2fbf90", "#f0e442", "#5b8ff9", "#f2734c", "#d68ac0", "#b8c4ce")
"""Colours for lines (after Okabe & Ito, lightened where they would drown on a dark page)."""
LIGHT_LINES = ("#a86400", "#1b78b5", "#0f7f5c", "#7d6c00", "#2f5fd0", "#c4421a", "#a0457a", "#5b6773")
"""The same, dark enough for a light page."""
DASHES = ("", "7 3", "2 3")
TRUTH = (128, 226, 140)
SIDE = 640
"""Longest side of a picture in pixels; many stand on the page."""
CHART = (360, 220)


@dataclass(frozen=True, eq=False)
class Compared:
    """What the comparison shows of one method.

    Attributes:
        name: the method's name on the command line.
        explanation: its answer; ``None`` where it failed.
        error: why it failed, in one sentence.
        animation: a GIF, WebP or MP4; a WebP is about a tenth of a GIF.
        curves: of the evaluation of its map (any kinds).
        localisation: its map against the truth, where a truth is known.
    """

    name: str
    explanation: Explanation | None
    error: str = ""
    animation: Path | None = None
    curves: Sequence[Curve] = ()
    localisation: Localisation | None = None

    @property
    def title(self) -> str:
        if self.explanation is not None:
            return self.explanation.provenance.method.title
        return METHODS[self.name].title if self.name in METHODS else self.name


@dataclass(frozen=True)
class Tile:
    """One method's map: a picture for each plane, and before them those of its strength where it is grainy.

    A picture is the number of its plane, the id of its layer in the viewer, a data URI and the place of the maximum.
    """

    name: str
    title: str
    error: str
    pictures: tuple[tuple[int, str, str, tuple[float, float] | None], ...] = ()
    wide: bool = False
    reading: str = ""
    maximum: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """A column of the table: which way is better, and what the number means."""

    name: str
    better: str
    meaning: str


@dataclass(frozen=True)
class Cell:
    text: str
    value: float | None = None


@dataclass(frozen=True)
class Line:
    """One curve as SVG: the mean as a path, its 95 % interval as an area."""

    name: str
    title: str
    colour: str
    dash: str
    path: str
    band: str


@dataclass(frozen=True)
class Chart:
    """All curves of one kind."""

    kind: str
    definition: str
    across: str
    lines: tuple[Line, ...]
    x: tuple[tuple[float, str], ...]
    y: tuple[tuple[float, str], ...]


def save_comparison(
    compared: Sequence[Compared],
    path: str | Path,
    *,
    random: Curve | None = None,
    truth: ArrayLike | None = None,
    command: str | None = None,
) -> Path:
    """Writes the comparison of several methods on one scan; those that failed stand in their place with their error.

    Args:
        random: the curve of the random order, for the chart of the others.
        truth: what should have been found, ``[*spatial]`` on the scan's grid, anything but 0 = truth; it is outlined.
        command: what was typed to make it.

    Raises:
        OutputError: when an animation cannot be read or the page cannot be written.
        ParameterError: when no method succeeded, or they explain different scans.
    """
    explanations = [c.explanation for c in compared if c.explanation is not None]
    if not explanations:
        raise ParameterError("There is nothing to compare, since no method gave a map.")
    first = explanations[0]
    if len({e.provenance.scan.sha256 for e in explanations}) > 1:
        raise ParameterError("These explanations are of different scans; compare methods on one scan.")
    # All methods show the same planes of a volume.
    planes = views(first)
    sizes = [size_of(p, SIDE) for p in planes]
    styles = {
        c.name: (f"var(--line-{i % len(LINES)})", DASHES[i // len(LINES) % len(DASHES)]) for i, c in enumerate(compared)
    }
    columns = _columns(compared)
    packed_planes, arrays = layered(first, _over(compared))
    if truth is not None:
        _add_truth(packed_planes, arrays, np.asarray(truth) != 0, first)
    return save_page(
        "comparison.html",
        path,
        title=f"{first.target}: {len(compared)} methods",
        explanation=first,
        about=first.provenance,
        total=sum(e.provenance.cost.seconds for e in explanations),
        agreement=agreement(explanations) if len(explanations) > 1 else "",
        notices=list(first.notices),
        scans=[scan_uri(p, size) for p, size in zip(planes, sizes, strict=True)],
        planes=[(p.name, w, h) for p, (h, w) in zip(planes, sizes, strict=True)],
        truths=None if truth is None else _outlines(np.asarray(truth) != 0, first, sizes),
        tiles=[_tile(c, first.peak, sizes) for c in compared],
        lines=list(enumerate(zip(LIGHT_LINES, LINES, strict=True))),
        charts=_charts(compared, random, styles, first.provenance.question.watch),
        chart_size=CHART,
        columns=columns,
        rows=[(c, [_cell(c, column.name) for column in columns]) for c in compared],
        films=[
            Player.of(c.animation, f"Animation of {c.title}: the scan, the scan at each step, the reaction")
            for c in compared
            if c.animation is not None
        ],
        made=[(c.title, how_made(c.explanation.provenance)) for c in compared if c.explanation is not None],
        command=command,
        notice=NOTICE,
        module=module("report"),
        packed=carried({"planes": packed_planes}, arrays),
    )


def _tile(compared: Compared, through: tuple[int, ...] | None, sizes: Sequence[tuple[int, int]]) -> Tile:
    explanation = compared.explanation
    if explanation is None:
        return Tile(compared.name, compared.title, compared.error or "It gave no reason.")
    pictures: list[tuple[int, str, str, tuple[float, float] | None]] = []
    said = []
    whats = shown_first(explanation)
    for what in whats:
        scale = Scale.of(what.heatmap)
        planes = views(explanation, what.heatmap, through=through)
        for i, (plane, size) in enumerate(zip(planes, sizes, strict=True)):
            pictures.append((i, _id(compared, what), layer_uri(plane.drawn, scale, size), _percent(plane)))
        named = f"{what.name}, " if len(whats) > 1 else ""
        said.append(f"{named}full at {scale if what.signed else f'{scale.limit:.3g}'} ({what.unit})")
    return Tile(
        compared.name,
        compared.title,
        "",
        tuple(pictures),
        len(whats) > 1,
        "; ".join(said),
        maximum(explanation),
        tuple(warnings(explanation)),
    )


def _id(compared: Compared, what: Shown) -> str:
    return f"{compared.name} {what.name}".strip()


def _over(compared: Sequence[Compared]) -> list[Over]:
    """The maps that the tiles show, named by their methods."""
    found = []
    for one in compared:
        if one.explanation is not None:
            whats = shown_first(one.explanation)
            names = [f"{one.title}, {what.name}" if len(whats) > 1 else one.title for what in whats]
            found += [
                Over(_id(one, what), one.explanation, replace(what, name=name))
                for what, name in zip(whats, names, strict=True)
            ]
    return found


def _percent(plane: View) -> tuple[float, float] | None:
    if plane.peak is None:
        return None
    rows, columns = plane.grey.shape
    return 100 * (plane.peak[1] + 0.5) / columns, 100 * (plane.peak[0] + 0.5) / rows


def _add_truth(
    planes: list[dict[str, Any]], arrays: dict[str, NDArray[Any]], truth: NDArray[np.bool_], first: Explanation
) -> None:
    _checked(truth, first)
    for number, plane in enumerate(views(first, truth.astype(np.float32), through=first.peak)):
        rows, columns = plane.heatmap.shape
        arrays[f"truth-{number}"] = (plane.heatmap > 0).astype(np.uint8)
        about = {"id": "truth", "title": "Truth", "kind": "mask", "width": columns, "height": rows}
        planes[number]["layers"].append({**about, "array": f"truth-{number}"})


def _checked(truth: NDArray[np.bool_], first: Explanation) -> None:
    if truth.shape != first.heatmap.shape:
        raise ParameterError(f"A truth of shape {truth.shape} does not fit a scan of {first.heatmap.shape}.")


def _outlines(truth: NDArray[np.bool_], first: Explanation, sizes: Sequence[tuple[int, int]]) -> list[str]:
    inside: Floats = truth.astype(np.float32)
    found = []
    for plane, size in zip(views(first, inside, through=first.peak), sizes, strict=True):
        mask = resized(plane.heatmap, *size) > 0.5
        rgba: Bytes = np.zeros((*size, 4), np.uint8)
        rgba[ndimage.binary_dilation(mask, iterations=2) & ~mask] = (*TRUTH, 255)
        found.append(png_uri(rgba))
    return found


def _columns(compared: Sequence[Compared]) -> list[Column]:
    kinds = dict.fromkeys(c.kind for one in compared for c in one.curves)
    curves = {c.kind: c for one in compared for c in one.curves}
    columns = [
        Column("probability", "", "Probability of the class on the untouched scan"),
        Column("evaluations", "lower", "Forward passes through the model"),
        Column("gradients", "lower", "Backward passes through the model"),
        Column("seconds", "lower", "Wall time of the method"),
        *(Column(_curve_name(curves[k]), curves[k].better, curves[k].definition) for k in kinds),
        Column(
            "peak in standard errors", "higher", "The map's maximum over its standard error there, where that is known"
        ),
        Column("completeness gap", "lower", "How far the map's sum is from the difference of scores it explains"),
    ]
    if any(one.localisation for one in compared):
        columns += [
            Column("pointing game", "higher", "Whether the map's maximum lies on the truth"),
            Column("IoU", "higher", "Overlap of the truth with what lies above a share of the map's maximum"),
            Column("energy in mask", "higher", "Share of the map's positive part that lies on the truth"),
            Column("top 5 % on truth", "higher", "Share of the highest 5 % of pixels that lies on the truth"),
        ]
    return columns


def _curve_name(curve: Curve) -> str:
    return f"{curve.kind} {curve.measure}"


def _cell(compared: Compared, column: str) -> Cell:
    explanation = compared.explanation
    if explanation is None:
        return Cell("–")
    for curve in compared.curves:
        if _curve_name(curve) == column:
            number = curve.number
            half = (number.high - number.low) / 2
            return Cell(
                f"{number.value:.3f}".replace("-0.000", "0.000") + (f" ± {half:.3f}" if half >= 0.0005 else ""),
                number.value,
            )
    value: float | bool | None
    match column:
        case "probability":
            value = explanation.probability
            return Cell(explanation.answer.split()[-1], value)
        case "evaluations" | "gradients":
            count = getattr(explanation.provenance.cost, column)
            return Cell(f"{count:,}", count)
        case "seconds":
            value = explanation.provenance.cost.seconds
            return Cell(f"{value:.2f}", value)
        case "peak in standard errors":
            error = explanation.standard_error
            if error is None or not error[explanation.peak] > 0:
                return Cell("–")
            value = float(explanation.heatmap[explanation.peak] / error[explanation.peak])
            return Cell(f"{value:.1f}", value)
        case "completeness gap":
            value = float(explanation.facts[column]) if column in explanation.facts else None
            return Cell("–") if value is None else Cell(f"{abs(value):.2g}", abs(value))
    found = compared.localisation
    if found is None:
        return Cell("–")
    if column == "pointing game":
        return Cell("yes" if found.pointing_game else "no", float(found.pointing_game))
    value = {"IoU": found.iou, "energy in mask": found.energy, "top 5 % on truth": found.top}[column]
    return Cell(f"{value:.3f}", value)


def _charts(
    compared: Sequence[Compared], random: Curve | None, styles: dict[str, tuple[str, str]], watch: str
) -> list[Chart]:
    kinds = dict.fromkeys(c.kind for one in compared for c in one.curves)
    charts = []
    for kind in kinds:
        curves = [(one, c) for one in compared for c in one.curves if c.kind == kind]
        beside = [random] if random is not None and kind in ("MoRF", "LeRF") else []
        every = [c for _, c in curves] + beside
        low = min(0.0, *(float(c.band[0].min()) for c in every), *(c.clean for c in every))
        high = max(float(c.band[1].max()) for c in every)
        if watch == "probability":
            # Student's interval of a few repeats knows no bounds, and a probability has them.
            low, high = 0.0, 1.0
        right = max(float(c.shares[-1]) for c in every)
        box = (right or 1.0, low, high if high > low else low + 1)
        better = f", {every[0].better} is better" if every[0].better != "neither" else ""
        lines = [_line(one.name, one.title, c, *styles[one.name], box) for one, c in curves]
        lines += [_line("random", "random order", c, "var(--muted)", "1 4", box) for c in beside]
        charts.append(
            Chart(
                f"{kind}: {every[0].measure}{better}",
                _circumstances(every),
                "share of the scan shown" if kind == "insertion" else "share of the scan removed",
                tuple(lines),
                tuple((_x(t, box), f"{t:.3g}") for t in _ticks(0, box[0])),
                tuple((_y(t, box), f"{t:.3g}") for t in _ticks(box[1], box[2])),
            )
        )
    return charts


def _circumstances(curves: Sequence[Curve]) -> str:
    """Definition, baseline and repeats of curves of one kind, which differ in repeats where a map has no ties."""
    repeats = sorted({len(c.seeds) for c in curves})
    said = " or ".join(map(str, repeats))
    return f"{curves[0].definition} Baseline: {spoken(curves[0].removal)}. Repeats: {said}."


def _line(name: str, title: str, curve: Curve, colour: str, dash: str, box: tuple[float, float, float]) -> Line:
    def points(ys: NDArray[np.float64], back: bool = False) -> str:
        pairs = list(zip(curve.shares, ys, strict=True))
        return " ".join(f"{_x(x, box):.1f},{_y(y, box):.1f}" for x, y in (reversed(pairs) if back else pairs))

    low, high = (np.clip(edge, box[1], box[2]) for edge in curve.band)
    band = f"M{points(high)} L{points(low, back=True)} Z" if not np.allclose(low, high) else ""
    return Line(name, title, colour, dash, f"M{points(curve.mean)}", band)


def _x(share: float, box: tuple[float, float, float]) -> float:
    return CHART[0] * share / box[0]


def _y(score: float, box: tuple[float, float, float]) -> float:
    return CHART[1] * (1 - (score - box[1]) / (box[2] - box[1]))


def _ticks(low: float, high: float) -> list[float]:
    return [float(t) for t in MaxNLocator(5).tick_values(low, high) if low - 1e-12 <= t <= high + 1e-12]
