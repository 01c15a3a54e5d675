"""How a map is drawn where its own pixels do not read well: patches smoothly, gradients by their strength.

The map itself stays as it is; only its pictures change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lucency.classifier import Placement
from lucency.errors import LucencyError
from lucency.explanation import Explanation
from lucency.masks import Patches
from lucency.methods import METHODS
from lucency.viewer.palette import Floats

Edges = NDArray[np.float64]
BLUR = 0.015
"""Standard deviation of the Gaussian that makes a gradient readable, as a share of the shorter side."""


def patches_of(explanation: Explanation) -> Patches | None:
    """The patches that the map is made of; ``None`` where it is made of something else, or their edges are soft."""
    record, model = explanation.provenance.method, explanation.provenance.model
    cls = METHODS.get(record.name)
    if cls is None or not dataclasses.is_dataclass(cls):
        return None
    names = {field.name for field in dataclasses.fields(cls)}
    plain = {k: v for k, v in record.parameters.items() if k in names and not isinstance(v, dict)}
    try:
        placement = Placement(explanation.heatmap.shape, model.margins, model.grid)
        patches = cls(**plain).patches(placement, explanation.provenance.scan.spacing)
    except (LucencyError, TypeError, ValueError):
        # Written by a version whose method had other parameters.
        return None
    return None if patches is None or patches.soft else patches


def edges_on_grid(patches: Patches) -> list[Edges]:
    """Where the cells begin and end along each axis of the grid: inside a cell such a map is flat."""
    return [np.unique(patches.boxes[:, axis].numpy()).astype(np.float64) for axis in range(len(patches.grid))]


def edges_on_scan(explanation: Explanation) -> list[Edges] | None:
    """The same in pixels of the scan; ``None`` where the map is not made of patches."""
    patches = patches_of(explanation)
    if patches is None:
        return None
    model, found = explanation.provenance.model, []
    rows = zip(edges_on_grid(patches), model.margins, model.grid, explanation.heatmap.shape, strict=True)
    for edges, (before, after), n, long in rows:
        found.append(edges * (long + before + after) / n - before)
    return found


def smooth(heatmap: Floats, edges: Sequence[Edges]) -> Floats:
    """A map ``[*spatial]`` that is flat between ``edges``, interpolated linearly between the middles of its cells.

    At the middle of a cell it keeps its value, and what lies outside of all cells stays as it is.
    """
    drawn = heatmap
    inside = np.ones(heatmap.shape, bool)
    for axis, (ends, long) in enumerate(zip(edges, heatmap.shape, strict=True)):
        at = np.arange(long) + 0.5
        # A cell that lies partly outside counts with the part that is seen.
        seen = np.unique(np.clip(ends, 0, long))
        middles = (seen[:-1] + seen[1:]) / 2
        if not len(middles):
            return heatmap
        left = np.clip(np.searchsorted(middles, at, side="right") - 1, 0, len(middles) - 1)
        right = np.minimum(left + 1, len(middles) - 1)
        apart = np.where(right > left, middles[right] - middles[left], 1.0)
        share = np.clip((at - middles[left]) / apart, 0, 1)
        cells = np.take(drawn, np.clip(middles.astype(int), 0, long - 1), axis)
        shape = [1] * heatmap.ndim
        shape[axis] = long
        weight = share.reshape(shape)
        drawn = (np.take(cells, left, axis) * (1 - weight) + np.take(cells, right, axis) * weight).astype(np.float32)
        inside &= ((at > ends[0]) & (at < ends[-1])).reshape(shape)
    found: Floats = np.where(inside, drawn, heatmap)
    return found


def grainy(explanation: Explanation) -> bool:
    """Whether neighbouring pixels of the map say opposite things, so that it is shown by its strength too."""
    return explanation.provenance.method.grainy


def strength(heatmap: Floats) -> Floats:
    """How strong a map ``[*spatial]`` is around each pixel, whatever its sign: its magnitude, smoothed."""
    found: Floats = ndimage.gaussian_filter(np.abs(heatmap), BLUR * min(heatmap.shape[-2:]), mode="nearest")
    return found
