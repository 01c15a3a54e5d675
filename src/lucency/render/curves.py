"""The curves of an evaluation: how the score changes while a scan is taken apart along each map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lucency.metrics import CURVES, Curve, Evaluation
from lucency.metrics.procedures import Regions
from lucency.render.comparison import LINES
from lucency.render.lettering import FAMILY, cut, plain_words
from lucency.render.output import written
from lucency.viewer import palette
from lucency.viewer.palette import hexed

IMAGES = (".png", ".jpg", ".pdf", ".svg")
STYLES = ("-", "--", ":")
DPI = 130


@plain_words
def curves(evaluation: Evaluation) -> Figure:
    """One panel for each kind of curve, one line with its 95 % band for each map; random order in grey beside them."""
    kinds = dict.fromkeys(c.kind for c in evaluation.curves)
    # The random order says nothing alone; it belongs beside the two orders that a map gave.
    panels = [k for k in kinds if CURVES[k].ordered] or list(kinds)
    figure = Figure(
        figsize=(4.6 * len(panels), 4.4), dpi=DPI, layout="constrained", facecolor=hexed(palette.BACKGROUND)
    )
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    names = evaluation.maps
    for panel, kind in zip(axes, panels, strict=True):
        _dressed(panel, kind)
        for curve in evaluation.curves:
            if curve.kind == kind and curve.ordered:
                at = names.index(curve.map)
                _draw(panel, curve, LINES[at % len(LINES)], STYLES[at // len(LINES) % len(STYLES)], curve.map)
            elif not curve.ordered and issubclass(CURVES[kind], Regions):
                _draw(panel, curve, hexed(palette.MUTED), (0, (1, 1.5)), "random order")
        panel.axhline(evaluation.clean, color=hexed(palette.LINE), linewidth=1, zorder=1)
    if evaluation.question.watch == "probability":
        # Student's interval of a few repeats knows no bounds, and a probability has them.
        axes[0].set_ylim(-0.02, 1.02)
    axes[0].set_ylabel(cut(evaluation.question.label, 13, 500), color=hexed(palette.TEXT), fontfamily=FAMILY)
    lines, labels = _legend(axes)
    figure.legend(
        lines, labels, loc="outside lower center", ncols=min(len(labels), 4), frameon=False,
        labelcolor=hexed(palette.TEXT), prop={"family": FAMILY, "size": 10},
    )  # fmt: skip
    return figure


def save_curves(evaluation: Evaluation, path: str | Path) -> Path:
    """Writes :func:`curves` as PNG, JPEG, PDF or SVG, told by the suffix.

    Raises:
        OutputError: when the file cannot be written; nothing half-written is left.
    """
    figure = curves(evaluation)
    with written(path, IMAGES) as part:
        figure.savefig(part)
    return Path(path)


def _dressed(panel: Axes, kind: str) -> None:
    title, better = CURVES[kind].title, CURVES[kind].good
    text, muted, line = (hexed(c) for c in (palette.TEXT, palette.MUTED, palette.LINE))
    panel.set_facecolor(hexed(palette.SURFACE))
    panel.set_title(f"{title}: {better}", color=text, fontsize=11, fontfamily=FAMILY)
    panel.set_xlabel(
        f"share of the scan {'shown' if kind == 'insertion' else 'removed'}", color=text, fontfamily=FAMILY
    )
    panel.tick_params(colors=muted, labelsize=9)
    for side in panel.spines.values():
        side.set_color(line)
    panel.grid(color=line, linewidth=0.5, alpha=0.6)


def _draw(panel: Axes, curve: Curve, colour: str, style: str | tuple[int, tuple[float, float]], name: str) -> None:
    low, high = curve.band
    panel.plot(curve.shares, curve.mean, color=colour, linestyle=style, linewidth=1.8, label=legible(name), zorder=3)
    panel.fill_between(curve.shares, low, high, color=colour, alpha=0.18, linewidth=0, zorder=2)


def legible(name: str) -> str:
    """A name in a legend, where matplotlib leaves out those that begin with an underscore."""
    return f" {cut(name, 13, 300)}"


def _legend(axes: Sequence[Axes]) -> tuple[list[Artist], list[str]]:
    found = {label: line for panel in axes for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    return list(found.values()), list(found)
