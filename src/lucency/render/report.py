"""The report: one page about one explanation that opens from disk and needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lucency.explanation import Explanation, place_of
from lucency.render.lettering import signed
from lucency.render.overlay import NOTICE
from lucency.render.page import how_made, layer_uri, save_page, scan_uri, size_of, spoken
from lucency.render.player import Player
from lucency.viewer.inlined import carried, module
from lucency.viewer.maps import shown_first
from lucency.viewer.packed import Over, layered, layers_of
from lucency.viewer.palette import Scale
from lucency.viewer.smooth import edges_on_scan
from lucency.viewer.views import views


@dataclass(frozen=True)
class Stage:
    """One plane of the scan: its picture, and where the maximum of the map lies in it, in per cent of the sides."""

    name: str
    scan: str
    width: int
    height: int
    peak: tuple[float, float] | None


@dataclass(frozen=True)
class Layer:
    """A map that is seen without the viewer: a transparent picture for each plane, and what its colours mean."""

    id: str
    name: str
    unit: str
    signed: bool
    high: str
    low: str
    pictures: tuple[str, ...]


@dataclass(frozen=True)
class AskedByHand:
    """A question that a person asked by removing a region, with its answer.

    Attributes:
        words: what was done: ``"removed: rectangle, rows 300 to 380, columns 100 to 180"``.
        before, after: the number of the explained class, on the clean scan and without what was removed.
        usual: p-value of the perturbed scan; ``None`` where that is not known.
        note: the person's own words.
    """

    words: str
    before: float
    after: float
    usual: float | None
    note: str


def save_report(
    explanation: Explanation,
    path: str | Path,
    *,
    animation: str | Path | None = None,
    command: str | None = None,
    asked: Sequence[AskedByHand] = (),
) -> Path:
    """Writes the report: pictures, over which the viewer comes to life where the browser can run it.

    Args:
        animation: a GIF, WebP or MP4 that :func:`save_animation` wrote; it becomes part of the page.
        command: what was typed to make it.
        asked: questions that a person asked by hand about the scan, with their answers.

    Raises:
        OutputError: when the animation cannot be read or the page cannot be written.
    """
    planes = views(explanation)
    sizes = [size_of(p) for p in planes]
    layers = layers_of(explanation)
    packed_planes, arrays = layered(explanation, layers)
    probabilities = sorted(explanation.probabilities.items(), key=lambda kv: -kv[1])
    return save_page(
        "report.html",
        path,
        title=f"{explanation.target}: {explanation.provenance.method.title}",
        explanation=explanation,
        about=explanation.provenance,
        verdict=None if explanation.verdict is None else explanation.verdict.text,
        warnings=[*warnings(explanation), *explanation.notices],
        maximum=maximum(explanation),
        minimum=signed(float(explanation.heatmap.min())),
        stages=[
            Stage(
                plane.name,
                scan_uri(plane, size),
                size[1],
                size[0],
                None
                if plane.peak is None
                else (
                    100 * (plane.peak[1] + 0.5) / plane.grey.shape[1],
                    100 * (plane.peak[0] + 0.5) / plane.grey.shape[0],
                ),
            )
            for plane, size in zip(planes, sizes, strict=True)
        ],
        sides=[_layer(over, sizes) for over in layers[: len(shown_first(explanation))]],
        cells=edges_on_scan(explanation) is not None,
        module=module("report"),
        packed=carried({"planes": packed_planes}, arrays),
        film=None if animation is None else Player.of(animation, "Animation: the scan, the scan at each step, the map"),
        probabilities=probabilities,
        facts=[(k.replace("_", " "), spoken(v)) for k, v in explanation.facts.items() if k != "warning"],
        made=how_made(explanation.provenance),
        command=command,
        asked=asked,
        notice=NOTICE,
    )


def warnings(explanation: Explanation) -> list[str]:
    """What a reader must know before trusting the map."""
    found = []
    if not explanation.complete:
        found.append("The method was stopped before its end; this is the map so far.")
    if "warning" in explanation.facts:
        found.append(str(explanation.facts["warning"]))
    if not explanation.heatmap.max() > 0:
        found.append("No pixel of the map supports the answer.")
    return found


def maximum(explanation: Explanation) -> str:
    """Where the map is highest, how high, and how sure that is."""
    peak = explanation.peak
    if peak is None or not explanation.heatmap.max() > 0:
        return "none"
    said = signed(float(explanation.heatmap[peak]))
    if explanation.standard_error is not None:
        said += f" ± {float(explanation.standard_error[peak]):.2g}"
    return f"{said} at {place_of(peak)}"


def _layer(over: Over, sizes: Sequence[tuple[int, int]]) -> Layer:
    what, explanation = over.shown, over.explanation
    scale = Scale.of(what.heatmap)
    planes = views(explanation, what.heatmap, through=explanation.peak)
    return Layer(
        over.id,
        what.name[:1].upper() + what.name[1:] or explanation.provenance.method.title,
        what.unit,
        what.signed,
        signed(scale.limit) if what.signed else f"{scale.limit:.3g}",
        signed(-scale.limit) if what.signed else "0",
        tuple(layer_uri(p.drawn, scale, size) for p, size in zip(planes, sizes, strict=True)),
    )
