"""Operators that change the order of the axes, or cut some pixels or channels out."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx

from lucency.engine.operators.base import Axes, Operator, Site, function, named
from lucency.engine.operators.pixelwise import Pixelwise
from lucency.engine.operators.sliding import Sliding


class Order(Operator):
    """Another order of the axes: the map itself stays as it is.

    Args:
        site: where it is called.
        source: the node whose map it reads.
        axes: the order of what it gives.
    """

    pixelwise = True
    fresh = False

    def __init__(self, site: Site, source: fx.Node, axes: Axes) -> None:
        super().__init__(site, [source])
        self.axes = axes

    def compute(self, inputs: Sequence[Tensor], free: Sequence[bool]) -> Tensor:
        return inputs[0]


def ordered(site: Site, source: fx.Node, dims: Sequence[int]) -> Operator | None:
    """The axes of a map in the order ``dims``; the batch stays in front."""
    a, b, c, d = (site.axes[source][dim] for dim in dims)
    return Order(site, source, (a, b, c, d)) if a == 0 else None


@function(*named("permute"))
def permute(site: Site, input: fx.Node, *dims: Any) -> Operator | None:
    return ordered(site, input, dims[0] if isinstance(dims[0], list | tuple) else dims)


@function(*named("transpose", "swapaxes", "swapdims"))
def transpose(site: Site, input: fx.Node, dim0: int, dim1: int) -> Operator | None:
    dims = [0, 1, 2, 3]
    dims[dim0], dims[dim1] = dims[dim1], dims[dim0]
    return ordered(site, input, dims)


@function(*named("movedim", "moveaxis"))
def movedim(site: Site, input: fx.Node, source: int, destination: int) -> Operator | None:
    dims = [0, 1, 2, 3]
    moved = dims.pop(source % 4)
    dims.insert(destination % 4, moved)
    return ordered(site, input, dims)


def cut(site: Site, source: fx.Node, channels: slice, rows: slice, columns: slice) -> Operator | None:
    """Some channels, and some of the rows and columns, of a map."""
    steps = [1 if s.step is None else s.step for s in (rows, columns)]
    if min(steps) < 1 or any(isinstance(v, fx.Node) for s in (channels, rows, columns) for v in (s.start, s.stop)):
        return None
    whole = site.size(source)
    starts = [s.indices(n)[0] for s, n in zip((rows, columns), whole[1:], strict=True)]
    if steps == [1, 1] and all(s.indices(n) == (0, n, 1) for s, n in zip((rows, columns), whole[1:], strict=True)):
        taken = Pixelwise(site, source, lambda x: x[:, channels])
        taken.fresh = False
        return taken
    stride, padding = (steps[0], steps[1]), (-starts[0], -starts[1])
    taken_pixels = Sliding(
        site, source, (1, 1), stride, padding, (1, 1), None, lambda x: x[:, channels, :: stride[0], :: stride[1]]
    )
    taken_pixels.fresh = False
    return taken_pixels


@function(operator.getitem)
def getitem(site: Site, input: fx.Node, index: Any) -> Operator | None:
    index = index if isinstance(index, tuple) else (index,)
    if Ellipsis in index:
        at = index.index(Ellipsis)
        index = (*index[:at], *[slice(None)] * (5 - len(index)), *index[at + 1 :])
    index = (*index, *[slice(None)] * (4 - len(index)))
    if len(index) != 4 or not all(isinstance(i, slice) for i in index) or index[0] != slice(None):
        return None
    slices = dict(zip(site.axes[input], index, strict=True))
    return cut(site, input, slices[1], slices[2], slices[3])


@function(*named("narrow"))
def narrow(site: Site, input: fx.Node, dim: int, start: int, length: int) -> Operator | None:
    slices = {axis: slice(None) for axis in (1, 2, 3)} | {site.axis(input, dim): slice(start, start + length)}
    return cut(site, input, slices[1], slices[2], slices[3])
