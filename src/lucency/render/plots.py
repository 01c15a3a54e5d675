"""The results of metrics and checks as figures: what :meth:`lucency.metrics.Result.plot` draws."""

from __future__ import annotations

from functools import singledispatch

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lucency.checks.sanity import PASSES_BELOW, Randomisation, SanityResult
from lucency.checks.stability import Sensitivity, Stability
from lucency.errors import ParameterError
from lucency.metrics import Artefacts, Completeness, Evaluation, GoldStandard, Infidelity, Localisation, Result, Subset
from lucency.render.comparison import LINES
from lucency.render.curves import DPI, curves, legible
from lucency.render.lettering import FAMILY, plain_words
from lucency.viewer import palette
from lucency.viewer.palette import hexed


@plain_words
def plot(result: Result) -> Figure:
    """The numbers of a result as a figure, the score or the map's claim upwards and the definition below it."""
    if isinstance(result, Evaluation):
        if not result.curves:
            raise ParameterError("The evaluation was stopped before its first curve, so there is nothing to draw.")
        return curves(result)
    figure = Figure(figsize=(5.4, 4.4), dpi=DPI, layout="constrained", facecolor=hexed(palette.BACKGROUND))
    axes = figure.subplots()
    text, muted, line = (hexed(c) for c in (palette.TEXT, palette.MUTED, palette.LINE))
    axes.set_facecolor(hexed(palette.SURFACE))
    axes.set_axisbelow(True)
    axes.tick_params(colors=muted, labelsize=9)
    axes.grid(color=line, linewidth=0.5, alpha=0.6)
    for side in axes.spines.values():
        side.set_color(line)
    _draw(result, axes)
    for said in (axes.title, axes.xaxis.label, axes.yaxis.label):
        said.set_color(text)
        said.set_fontfamily(FAMILY)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, labelcolor=text, prop={"family": FAMILY, "size": 9})
    return figure


@singledispatch
def _draw(result: Result, axes: Axes) -> None:
    raise ParameterError(f"There is no picture of a {type(result).__name__}; read its numbers.")


@_draw.register
def _(result: Infidelity, axes: Axes) -> None:
    _diagonal(axes, result.said, result.done)
    axes.set(xlabel=f"what the map says ({result.kind})", ylabel="fall of the score")
    axes.set_title(f"Infidelity {result.value:.3g}, scaled {result.scaled:.3g}")


@_draw.register
def _(result: Completeness, axes: Axes) -> None:
    _bars(axes, {"sum of the map": result.total, "change of the score": result.change})
    axes.set_title(f"Completeness gap {result.gap:.3g} ({result.share:.1%})")


@_draw.register
def _(result: Subset, axes: Axes) -> None:
    axes.plot(result.shares, result.scores, color=LINES[0], linewidth=1.8)
    axes.axhline(result.aim, color=hexed(palette.MUTED), linestyle=":", label="to be reached")
    if result.share is not None:
        axes.axvline(result.share, color=LINES[1], linestyle="--", label=f"{result.share:.1%} of the scan")
    axes.set(xscale="log", ylabel="score", xlabel=f"share {'kept' if result.game == 'keep' else 'removed'}")
    axes.set_title("Smallest subset" if result.share is not None else "No subset reaches it")


@_draw.register
def _(result: Localisation, axes: Axes) -> None:
    _bars(axes, {"IoU": result.iou, "energy in mask": result.energy, "top 5 % on truth": result.top})
    axes.axhline(result.area, color=hexed(palette.MUTED), linestyle=":", label="a map that knows nothing")
    axes.set_ylim(0, 1)
    axes.set_title(f"The maximum {'lies on' if result.pointing_game else 'misses'} the truth")


@_draw.register
def _(result: GoldStandard, axes: Axes) -> None:
    for colour, (name, found) in zip(LINES * 9, result.found.items(), strict=False):
        one = result.agreements[name]
        _diagonal(axes, result.true, found, colour, f"{name}: r = {one.pearson:.2f}")
    axes.set(xlabel="true effect of a region", ylabel="effect with the removal")
    axes.set_title("Against the healthy twin")


@_draw.register
def _(result: Artefacts, axes: Axes) -> None:
    axes.hist(result.worst, bins=list(np.linspace(0, 1, 21)), color=LINES[0])
    axes.axvline(result.threshold, color=LINES[1], linestyle="--", label="called abnormal from here on")
    axes.set(xlabel="highest probability among the copies of a normal scan", ylabel="scans")
    axes.set_title(f"Artefact rate {result.rate:.1%} of {result.copies} copies")


@_draw.register
def _(result: Sensitivity, axes: Axes) -> None:
    _bars(axes, {str(i): float(change) for i, change in enumerate(result.changes, 1)})
    axes.set(xlabel=f"copy within {result.radius:g}", ylabel="change of the map, over its norm")
    axes.set_title(f"Max-sensitivity {result.value:.3g}")


@_draw.register
def _(result: Stability, axes: Axes) -> None:
    for x, (name, found) in enumerate((("noise", result.noises), ("other seeds", result.seeds))):
        axes.plot([x] * len(found), found, "o", color=LINES[x], label=f"{name}: {np.mean(found):.3f}")
    axes.set_xticks([0, 1], ["noise", "other seeds"])
    axes.set(xlim=(-0.5, 1.5), ylabel="rank correlation with the map")
    axes.set_title("Stability")


@_draw.register
def _(result: Randomisation, axes: Axes) -> None:
    names = [one.layer for one in result.layers]
    axes.plot(names, [one.signed for one in result.layers], "o-", color=LINES[0], label="signed")
    axes.plot(names, [one.absolute for one in result.layers], "s--", color=LINES[1], label="absolute")
    axes.axhspan(-PASSES_BELOW, PASSES_BELOW, color=hexed(palette.MUTED), alpha=0.12)
    axes.tick_params(axis="x", labelrotation=60)
    axes.set(ylim=(-1.05, 1.05), ylabel="rank correlation with the real map")
    axes.set_title(f"Random weights, {result.order}")


@_draw.register
def _(result: SanityResult, axes: Axes) -> None:
    _bars(axes, {"random weights": result.correlation})
    axes.axhspan(-PASSES_BELOW, PASSES_BELOW, color=hexed(palette.MUTED), alpha=0.12, label="passes")
    axes.set(ylim=(-1.05, 1.05), ylabel="rank correlation with the real map")
    axes.set_title(f"The sanity check {'passes' if result.passes else 'FAILS'}")


def _bars(axes: Axes, values: dict[str, float]) -> None:
    axes.bar(list(values), [*values.values()], color=[LINES[i % len(LINES)] for i in range(len(values))], width=0.6)


def _diagonal(axes: Axes, x: np.ndarray, y: np.ndarray, colour: str = LINES[0], label: str = "") -> None:
    axes.plot(x, y, ".", color=colour, markersize=5, label=legible(label) if label else None)
    ends = [float(min(x.min(), y.min())), float(max(x.max(), y.max()))]
    axes.plot(ends, ends, color=hexed(palette.MUTED), linewidth=1, linestyle=":")
