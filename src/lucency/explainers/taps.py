"""Where a network is listened to: the last feature maps of its coarsest resolutions, found by watching one pass."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lucency.asking import asking
from lucency.classifier import Classifier
from lucency.classifier.feature_maps import Grid, Layout, layout_of
from lucency.classifier.hooks import hooked
from lucency.errors import QuestionError
from lucency.work import introducing

RESOLUTIONS = 4
FINEST = 3
"""Maps with more pixels than this many times a map of the coarsest useful one tell little more and cost much."""
ASPECT = 1.5
"""Maps whose sides stand in another proportion than those of the scan, by this factor, do not lie on it."""


@dataclass(frozen=True)
class Tap:
    """A layer that is listened to.

    Attributes:
        name: dotted name of the module.
        channels: how many maps it puts out.
        layout: how they lie in what it puts out; of plain maps ``[B, K, *spatial]`` the grid is that of one scan.
    """

    name: str
    channels: int
    layout: Layout

    def maps(self, output: Tensor) -> Tensor:
        """What the layer put out for one scan, as float32 maps ``[1, K, *spatial]``."""
        return self.layout.maps(output).float()


@asking()
def find_taps(classifier: Classifier, x: Tensor) -> tuple[Tap, ...]:
    """The layers to listen to, coarsest first, found on one scan ``x`` ``[1, C, *grid]`` (display values).

    The last maps of each of the coarsest resolutions; of a network with one resolution only, such as a vision
    transformer, those in the middle of it too.

    Raises:
        QuestionError: for a black box, or a network without maps that lie on the scan.
    """
    grid = tuple(x.shape[2:])
    seen: list[tuple[nn.Module, Tap]] = []
    cut: list[Grid] = []

    def note(name: str, module: nn.Module, _inputs: object, output: object) -> None:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return
        if isinstance(module, nn.Conv2d | nn.Conv3d) and math.prod(output.shape[2:]) > 1:
            cut[:] = [tuple(output.shape[2:])]
        layout = _lies(output, grid, cut[0] if cut else None)
        if name and layout is not None and not isinstance(module, nn.Linear):
            seen.append((module, Tap(name, layout.maps(output).shape[1], layout)))

    with hooked(dict(classifier.network().named_modules()), note), introducing(), torch.no_grad():
        classifier(x)
    last: dict[Grid, Tap] = {}
    for _, tap in seen:
        last[tap.layout.grid] = tap
    if not last:
        raise QuestionError(
            f"{classifier.name} has no feature maps that lie on the scan and can be read, so no explainer can be "
            "trained for it; use a method that needs scores only, such as occlusion."
        )
    taps = sorted(last.values(), key=lambda tap: math.prod(tap.layout.grid))
    coarsest = math.prod(taps[0].layout.grid)
    taps = [tap for tap in taps if math.prod(tap.layout.grid) <= coarsest * (2 ** len(grid)) ** FINEST][:RESOLUTIONS]
    if len(taps) == 1:
        alike = [tap for module, tap in seen if tap.layout.grid == taps[0].layout.grid and any(module.children())]
        if len(alike) > 2 and alike[len(alike) // 2].name != taps[0].name:
            taps.append(alike[len(alike) // 2])
    return tuple(taps)


def _lies(output: Tensor, grid: Grid, cut: Grid | None) -> Layout | None:
    """How maps of one scan lie in a tensor; ``None`` where they do not."""
    if output.shape[0] != 1:
        return None
    if output.ndim == len(grid) + 2 and _fits(tuple(output.shape[2:]), grid):
        return Layout(tuple(output.shape[2:]), 0, channels_last=False)
    layout = layout_of(output, grid, cut)
    return layout if layout is not None and _fits(layout.grid, grid) else None


def _fits(maps: Grid, grid: Grid) -> bool:
    ratios = [n / m for n, m in zip(grid, maps, strict=True)]
    return math.prod(maps) > 1 and min(ratios) >= 1 and max(ratios) <= ASPECT * min(ratios)
