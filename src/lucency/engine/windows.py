"""Windows: where the boxes of a batch, and what they reach in each layer, lie on its map.

Within a batch all boxes have one size and one position modulo the network's stride, so that all windows of a layer
have one size and lie at the same place in the windows they are computed from; only then is a batch of windows a plain
tensor. Windows may reach over the border of a map; what lies outside is padding to whoever reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

Pair = tuple[int, int]
Scale = tuple[int | Fraction, int | Fraction]
"""How many pixels of the scan a pixel of a map stands for, along each axis."""


@dataclass(frozen=True)
class Place:
    """Where windows lie: the corner of the window of a box whose own corner is at the origin of its group, and the
    size."""

    top: int
    left: int
    height: int
    width: int

    def __or__(self, other: Place) -> Place:
        """The smallest window that holds both."""
        top, left = min(self.top, other.top), min(self.left, other.left)
        bottom = max(self.top + self.height, other.top + other.height)
        right = max(self.left + self.width, other.left + other.width)
        return Place(top, left, bottom - top, right - left)

    def middle(self, cap: Pair) -> Place:
        """The middle of the window, of at most ``cap`` pixels."""
        height, width = min(self.height, cap[0]), min(self.width, cap[1])
        return Place(self.top + (self.height - height) // 2, self.left + (self.width - width) // 2, height, width)


class Group:
    """The boxes of one batch: how many strides each lies from the map's corner, and what follows from it."""

    def __init__(self, steps: Tensor, stride: Pair) -> None:
        self.steps = steps
        self.stride = stride
        self.lowest = steps.amin(0).tolist()
        self.highest = steps.amax(0).tolist()
        self._outside: dict[Any, tuple[Tensor, Tensor] | None] = {}

    def __len__(self) -> int:
        return len(self.steps)

    def corners(self, place: Place, scale: Scale) -> tuple[Tensor, Tensor]:
        """Top and left ``[B]`` of the windows on a map that has shrunk by ``scale``."""
        step = [self.stride[a] // scale[a] for a in (0, 1)]
        return place.top + self.steps[:, 0] * step[0], place.left + self.steps[:, 1] * step[1]

    def overhang(self, place: Place, scale: Scale, size: Pair) -> int:
        """By how much the windows reach over the border of a map of ``size``, at most."""
        found = 0
        for axis, (start, length) in enumerate(((place.top, place.height), (place.left, place.width))):
            step = self.stride[axis] // scale[axis]
            found = max(
                found,
                -(start + step * int(self.lowest[axis])),
                start + step * int(self.highest[axis]) + length - size[axis],
            )
        return found

    def inside(self, place: Place, scale: Scale, size: Pair) -> Tensor:
        """Which pixels of the windows lie on the map: bool ``[B, h, w]``."""
        top, left = self.corners(place, scale)
        rows = top[:, None] + torch.arange(place.height)
        columns = left[:, None] + torch.arange(place.width)
        return ((rows >= 0) & (rows < size[0]))[:, :, None] & ((columns >= 0) & (columns < size[1]))[:, None, :]

    def outside(self, place: Place, scale: Scale, size: Pair) -> tuple[Tensor, Tensor] | None:
        """Which windows reach over the border ``[N]``, and which of their pixels do ``[N, 1, h, w]``."""
        key = (place, scale, size)
        if key not in self._outside:
            self._outside[key] = None
            if self.overhang(place, scale, size) > 0:
                out = ~self.inside(place, scale, size)
                which = out.flatten(1).any(1).nonzero()[:, 0]
                self._outside[key] = (which, out[which][:, None])
        return self._outside[key]


def put(maps: Tensor, at: Place, values: Tensor, place: Place) -> None:
    """Copies windows ``[B, h, w, C]`` into the part of other windows ``[B, h', w', C]`` of the same maps that they
    share."""
    down, right = place.top - at.top, place.left - at.left
    top, left = max(down, 0), max(right, 0)
    bottom, edge = min(down + place.height, at.height), min(right + place.width, at.width)
    maps[:, top:bottom, left:edge] = values[:, top - down : bottom - down, left - right : edge - right]
