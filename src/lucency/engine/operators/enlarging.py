"""Operators that make a map larger: pixel shuffle and the nearest pixel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from torch import Tensor, fx, nn
from torch.nn import functional as F

from lucency.engine.operators.base import FIRST, Operator, Site, function, module, named, pair
from lucency.engine.windows import Pair, Place


class Enlarging(Operator):
    """Several pixels for each one.

    Args:
        site: where it is called.
        source: the node whose map it reads.
        times: along each axis.
        work: makes ``[B, C', h * times, w * times]`` of ``[B, C, h, w]``.
    """

    def __init__(self, site: Site, source: fx.Node, times: Pair, work: Callable[[Tensor], Tensor]) -> None:
        super().__init__(site, [source])
        self.scale = (Fraction(self.scale[0]) / times[0], Fraction(self.scale[1]) / times[1])
        self.times = times
        self.work = work

    def out(self, place: Place) -> Place:
        down, right = self.times
        return Place(place.top * down, place.left * right, place.height * down, place.width * right)

    def needs(self, place: Place) -> Place:
        down, right = self.times
        return Place(place.top // down, place.left // right, place.height // down, place.width // right)

    def largest(self, size: Pair) -> Pair:
        return (size[0] * self.times[0], size[1] * self.times[1])

    def compute(self, inputs: Sequence[Tensor], free: Sequence[bool]) -> Tensor:
        return self.work(inputs[0])


@module(nn.PixelShuffle)
def shuffle_module(site: Site, called: nn.PixelShuffle, input: fx.Node) -> Operator | None:
    return shuffle(site, input, called.upscale_factor)


@function(*named("pixel_shuffle"))
def shuffle(site: Site, input: fx.Node, upscale_factor: int) -> Operator | None:
    if site.axes[input] != FIRST:
        return None
    return Enlarging(site, input, pair(upscale_factor), lambda x: F.pixel_shuffle(x, upscale_factor))


@module(nn.Upsample, nn.UpsamplingNearest2d)
def upsample_module(site: Site, called: nn.Upsample, input: fx.Node) -> Operator | None:
    return upsample(site, input, called.size, called.scale_factor, called.mode)


@function(F.interpolate, F.upsample)
def upsample(
    site: Site, input: fx.Node, size: Any = None, scale_factor: Any = None, mode: str = "nearest", **others: Any
) -> Operator | None:
    have, made = site.size(input)[1:], site.clean[site.node].shape[2:]
    times = (made[0] // have[0], made[1] // have[1])
    whole = made == (have[0] * times[0], have[1] * times[1]) and min(times) > 0
    if mode not in ("nearest", "nearest-exact") or not whole or site.axes[input] != FIRST:
        return None
    return Enlarging(site, input, times, lambda x: x.repeat_interleave(times[0], 2).repeat_interleave(times[1], 3))
