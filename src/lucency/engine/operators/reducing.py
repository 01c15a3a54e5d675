"""Operators that make one number of many: over the map, over the channels of a pixel; and sizes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from lucency.engine.operators.base import ATEN, FIRST, Operator, Running, Site, function, module, named, pair
from lucency.engine.operators.pixelwise import Nothing, Pixelwise
from lucency.engine.operators.sliding import average


class Mean(Operator):
    """The mean over the map: the clean one, corrected by what the windows add to it.

    Args:
        site: where it is called.
        source: the node whose map it reads.
    """

    def __init__(self, site: Site, source: fx.Node) -> None:
        super().__init__(site, [source])
        self.axes = None
        self.mean: Tensor = site.clean[site.node]

    def run(self, running: Running, node: fx.Node) -> Tensor:
        (source,) = self.sources
        if not running.windowed(source):
            return running.called(node)
        clean, place = running.clean(source), running.places[source]
        more = running.windows(source) - running.gathered(source, place).permute(0, 3, 1, 2)
        running.clear(more, source, place, 0.0)
        change = more.sum((2, 3)) / (clean.shape[2] * clean.shape[3])
        return self.mean + change.view(-1, *self.mean.shape[1:])


@module(nn.AdaptiveAvgPool2d)
def adaptive_module(site: Site, called: nn.AdaptiveAvgPool2d, input: fx.Node) -> Operator | None:
    return adaptive(site, input, called.output_size)


@function(*named("adaptive_avg_pool2d"))
def adaptive(site: Site, input: fx.Node, output_size: Any) -> Operator | None:
    if site.axes[input] != FIRST:
        return None
    want, have = pair(output_size), site.size(input)[1:]
    if want == (1, 1):
        return Mean(site, input)
    if want == have:
        return Nothing(site, [input])
    if any(h % w for h, w in zip(have, want, strict=True)):
        return None
    return average(site, input, (have[0] // want[0], have[1] // want[1]))


@function(*named("mean"))
def mean(site: Site, input: fx.Node, dim: Any = None, keepdim: bool = False) -> Operator | None:
    over = over_axes(site, input, dim)
    if over == [2, 3]:
        return Mean(site, input)
    return Pixelwise(site, input, lambda x: x.mean(1, keepdim=True)) if over == [1] and keepdim else None


@function(*named("sum", "amax", "amin", "var", "std"))
def over_channels(site: Site, input: fx.Node, dim: Any = None, *args: Any, **kwargs: Any) -> Operator | None:
    """Of the channels of each pixel, to one that is left."""
    kept = site.clean[site.node].shape == torch.Size(
        n if i != site.axes[input].index(1) else 1 for i, n in enumerate(site.clean[input].shape)
    )
    if over_axes(site, input, dim) != [1] or not kept:
        return None
    work = getattr(torch, site.name)
    return Pixelwise(site, input, lambda x: work(x, [1], *args, **kwargs))


def over_axes(site: Site, source: fx.Node, dim: Any) -> list[int]:
    """Which axes of ``[B, C, H, W]`` the network's axes ``dim`` are."""
    dims = [dim] if isinstance(dim, int) else dim
    return sorted(site.axis(source, d) for d in dims) if isinstance(dims, list | tuple) else []


class Shape(Operator):
    """The sizes of a map: known without it."""

    def __init__(self, site: Site, source: fx.Node, dim: int | None) -> None:
        super().__init__(site, [source])
        self.axes = None
        self.shape = tuple(site.clean[source].shape)
        self.dim = dim

    def run(self, running: Running, node: fx.Node) -> Any:
        shape = torch.Size((len(running.group), *self.shape[1:]))
        return shape if self.dim is None else shape[self.dim]


@function("size", ATEN.sym_size)
def size(site: Site, input: fx.Node, dim: int | None = None) -> Operator:
    return Shape(site, input, dim)
