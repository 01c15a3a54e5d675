"""Sliding patches: every box of one size, at one stride, that covers the grid or a region of it."""

from __future__ import annotations

import itertools
import math
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
        soft: standard deviation of the Gaussian by which a patch fades around its edge, in pixels; 0 = a sharp edge.
        region: start and stop along each axis of what the patches cover; the whole grid when ``None``.
    """

    grid: tuple[int, ...]
    patch: tuple[int, ...]
    stride: tuple[int, ...]
    soft: float = 0.0
    region: tuple[tuple[int, int], ...] | None = None

    def __post_init__(self) -> None:
        if not len(self.grid) == len(self.patch) == len(self.stride):
            raise ParameterError(
                f"Patch {self.patch} and stride {self.stride} must have {len(self.grid)} numbers, one for each axis."
            )
        if not 0 <= self.soft < math.inf:
            raise ParameterError(f"The soft edge of a patch is a number of pixels, 0 or more, not {self.soft}.")
        for (start, stop), p, s in zip(self.covered, self.patch, self.stride, strict=True):
            n = stop - start
            if not 1 <= p <= n:
                raise ParameterError(f"A patch of {p} pixels does not fit a grid of {n}; use 1 to {n}.")
            if not 1 <= s <= p:
                raise ParameterError(f"A stride of {s} with patches of {p} leaves gaps; use 1 to {p}.")

    @property
    def covered(self) -> tuple[tuple[int, int], ...]:
        """Start and stop along each axis of what the patches cover."""
        return tuple((0, n) for n in self.grid) if self.region is None else self.region

    @cached_property
    def cores(self) -> Tensor:
        """int64 ``[N, axes, 2]``: start and stop of what each patch hides altogether, in row-major order."""
        spans = [
            [(start + i * s, min(start + i * s + p, stop)) for i in range(count)]
            for (start, stop), p, s, count in zip(self.covered, self.patch, self.stride, self.counts, strict=True)
        ]
        return torch.tensor(list(itertools.product(*spans)))

    @cached_property
    def boxes(self) -> Tensor:
        """int64 ``[N, axes, 2]``: start and stop of each patch with its soft edge, which ends after 3 ``soft``."""
        edge = math.ceil(3 * self.soft)
        boxes = self.cores + torch.tensor([-edge, edge])
        return torch.minimum(boxes.clamp_min(0), torch.tensor(self.grid)[:, None])

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Boxes along each axis."""
        spans = zip(self.covered, self.patch, self.stride, strict=True)
        return tuple(-(-(stop - start - p) // s) + 1 for (start, stop), p, s in spans)

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

    def averaged(self, values: Tensor) -> Tensor:
        """The mean at each pixel of what the patches that cover it say: ``[B, *counts]`` -> float32 ``[B, *grid]``.

        A soft patch counts by how much of the pixel it hides; what no patch covers is 0.
        """
        total, weight = values.float(), torch.ones((1, *self.counts), device=values.device)
        for axis in range(len(self.grid)):
            cores = torch.arange(self.counts[axis]) * math.prod(self.counts[axis + 1 :])
            cover = self._profile(cores, axis, values.device)
            total, weight = (
                torch.tensordot(maps, cover, ([axis + 1], [0])).movedim(-1, axis + 1) for maps in (total, weight)
            )
        return total / torch.where(weight > 0, weight, 1.0)

    def beneath(self, maps: Tensor) -> Tensor:
        """The mean of maps ``[B, *grid]`` beneath each patch, float32 ``[B, *counts]``; a soft patch as it hides."""
        total = maps.float()
        for axis in range(len(self.grid)):
            cores = torch.arange(self.counts[axis]) * math.prod(self.counts[axis + 1 :])
            cover = self._profile(cores, axis, maps.device)
            total = torch.tensordot(total, cover / cover.sum(1, keepdim=True), ([axis + 1], [1])).movedim(-1, axis + 1)
        return total

    def masks(self, which: Tensor, device: torch.device | None = None) -> Tensor:
        """float32 ``[B, *grid]`` for the patches ``which`` ``[B]``: 0 = hidden, 1 = kept."""
        hidden = torch.ones((len(which),) + (1,) * len(self.grid), device=device)
        for axis, n in enumerate(self.grid):
            shape = [len(which)] + [1] * len(self.grid)
            shape[axis + 1] = n
            hidden = hidden * self._profile(which, axis, device).view(shape)
        return 1 - hidden

    def _profile(self, which: Tensor, axis: int, device: torch.device | None) -> Tensor:
        """How much of each pixel along an axis the patches hide, float32 ``[B, n]``, 0..1."""
        (first, last), (start, stop) = (b[which, axis].to(device).T[:, :, None] for b in (self.cores, self.boxes))
        at = torch.arange(self.grid[axis], device=device)
        if not self.soft:
            sharp: Tensor = (at >= first) & (at < last)
            return sharp.to(torch.float32)
        away = torch.maximum(first - at, at - (last - 1)).clamp_min(0)
        fading: Tensor = torch.exp(-0.5 * (away / self.soft) ** 2) * ((at >= start) & (at < stop))
        return fading
