"""Sliding patches: every box of one size, at one stride, that covers the grid."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lucency.errors import ParameterError


@dataclass(frozen=True)
class Patches:
    """Boxes of ``patch`` pixels, one every ``stride`` pixels, until the far border is covered.

    The positions are those of Captum's sliding window: ``ceil((n - patch) / stride) + 1`` along an axis of
    ``n`` pixels, the last box cut off at the border.

    Attributes:
        grid: size of the grid along each spatial axis.
        patch, stride: pixels along each spatial axis.
    """

    grid: tuple[int, ...]
    patch: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.grid) == len(self.patch) == len(self.stride):
            raise ParameterError(
                f"Patch {self.patch} and stride {self.stride} must have {len(self.grid)} numbers, one for each axis."
            )
        for n, p, s in zip(self.grid, self.patch, self.stride, strict=True):
            if not 1 <= p <= n:
                raise ParameterError(f"A patch of {p} pixels does not fit a grid of {n}; use 1 to {n}.")
            if not 1 <= s <= p:
                raise ParameterError(f"A stride of {s} with patches of {p} leaves gaps; use 1 to {p}.")

    @cached_property
    def boxes(self) -> Tensor:
        """int64 ``[N, axes, 2]``: start and stop of each box, in row-major order."""
        spans = [
            [(i * s, min(i * s + p, n)) for i in range(count)]
            for n, p, s, count in zip(self.grid, self.patch, self.stride, self.counts, strict=True)
        ]
        return torch.tensor(list(itertools.product(*spans)))

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Boxes along each axis."""
        return tuple(-(-(n - p) // s) + 1 for n, p, s in zip(self.grid, self.patch, self.stride, strict=True))

    @cached_property
    def places(self) -> Tensor:
        """int64 ``[N, axes]``: how many boxes lie before each along each axis."""
        return torch.cartesian_prod(*(torch.arange(n) for n in self.counts)).view(-1, len(self.counts))

    @property
    def coarse(self) -> Tensor:
        """bool ``[N]``: every second box along each axis, and the last."""
        return ((self.places % 2 == 0) | (self.places == torch.tensor(self.counts) - 1)).all(1)

    def around(self, which: Tensor) -> Tensor:
        """The coarse boxes around the boxes ``which`` ``[M]``, int64 ``[M, 2^axes]``; a coarse axis counts twice."""
        place, last = self.places[which], torch.tensor(self.counts) - 1
        ends = torch.stack([place - place % 2, torch.minimum(place + place % 2, last)])
        ends = torch.where(place == last, last, ends)
        steps = torch.tensor([int(torch.tensor(self.counts[a + 1 :]).prod()) for a in range(len(self.counts))])
        sides = torch.cartesian_prod(*[torch.arange(2)] * len(self.counts)).view(-1, len(self.counts))
        return torch.stack([(ends[side, :, torch.arange(len(side))].T * steps).sum(1) for side in sides], 1)

    def __len__(self) -> int:
        return len(self.boxes)

    def masks(self, which: Tensor, device: torch.device | None = None) -> Tensor:
        """float32 ``[B, *grid]`` for the boxes ``which`` ``[B]``: 0 inside the box, 1 = kept."""
        boxes = self.boxes[which].to(device)
        inside = torch.ones((len(which),) + (1,) * len(self.grid), dtype=torch.bool, device=device)
        for axis, n in enumerate(self.grid):
            at = torch.arange(n, device=device)
            within = (at >= boxes[:, axis, :1]) & (at < boxes[:, axis, 1:])
            shape = [len(which)] + [1] * len(self.grid)
            shape[axis + 1] = n
            inside = inside & within.view(shape)
        return (~inside).to(torch.float32)
