"""Operators that make one number for each channel of a whole map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from lucency.engine.operators.base import FIRST, Operator, Running, Site, function, module


class Mean(Operator):
    """The mean over the map: the clean one, corrected by what the windows add to it.

    Args:
        site: where it is called.
        source: the node whose map it reads.
        shape: of what it gives, without the batch.
    """

    axes = None

    def __init__(self, site: Site, source: fx.Node, shape: Sequence[int]) -> None:
        super().__init__(site, [source])
        self.axes = None
        self.mean: Tensor = site.clean[site.node]
        self.shape = tuple(shape)

    def run(self, running: Running, node: fx.Node) -> Tensor:
        (source,) = self.sources
        if not running.windowed(source):
            return running.called(node)
        clean, place = running.clean(source), running.places[source]
        more = running.windows(source) - running.gathered(source, place).permute(0, 3, 1, 2)
        running.clear(more, source, place, 0.0)
        change = more.sum((2, 3)) / (clean.shape[2] * clean.shape[3])
        return self.mean + change.view(-1, *self.shape)


def mean_of(site: Site, source: fx.Node) -> Operator:
    return Mean(site, source, site.clean[site.node].shape[1:])


@module(nn.AdaptiveAvgPool2d)
def adaptive_module(site: Site, called: nn.AdaptiveAvgPool2d, input: fx.Node) -> Operator | None:
    return adaptive(site, input, called.output_size)


@function(F.adaptive_avg_pool2d)
def adaptive(site: Site, input: fx.Node, output_size: Any) -> Operator | None:
    return mean_of(site, input) if output_size in (1, (1, 1), [1, 1]) and site.axes[input] == FIRST else None


@function(torch.mean, "mean")
def mean(site: Site, input: fx.Node, dim: Any = None, keepdim: bool = False) -> Operator | None:
    over = sorted(site.axis(input, d) for d in dim) if isinstance(dim, list | tuple) else None
    return mean_of(site, input) if over == [2, 3] else None
