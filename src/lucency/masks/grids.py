"""Random grids: coarse coin flips, enlarged smoothly and shifted (the masks of RISE)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lucency.errors import ParameterError
from lucency.masks.designs import balanced_switches


@dataclass(frozen=True)
class RandomGrids:
    """Masks drawn as in Petsiuk et al. 2018, section 3.2.

    ``cells`` coin flips along each axis (heads with probability ``p``) are enlarged bilinearly (trilinearly) to
    ``(cells + 1) * ceil(n / cells)`` pixels along an axis of ``n``, and a window of ``n`` is cut out at random.

    Attributes:
        grid: size of the masks along each spatial axis.
        cells: coin flips along each axis.
        p: chance that a cell is kept, above 0 and below 1.
    """

    grid: tuple[int, ...]
    cells: int = 8
    p: float = 0.5

    def __post_init__(self) -> None:
        if not 1 <= self.cells <= min(self.grid):
            raise ParameterError(f"A random grid of {self.cells} cells an axis does not fit {list(self.grid)} pixels.")
        if not 0 < self.p < 1:
            raise ParameterError(f"The chance that a cell is kept must lie between 0 and 1, not at {self.p}.")

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """All the randomness of ``count`` masks: coins float32 ``[count, *cells]``, shifts int64 ``[count, axes]``.

        At ``p`` = 0.5 the coins come in balanced designs (:mod:`lucency.masks.designs`): each mask on its own is as
        random as in the paper, and fewer of them do.
        """
        axes = len(self.grid)
        shape = (count, *[self.cells] * axes)
        if self.p == 0.5:
            coins = balanced_switches(count, self.cells**axes, generator).view(shape).float()
        else:
            coins = (torch.rand(shape, generator=generator) < self.p).float()
        shifts = [torch.randint(0, -(-n // self.cells), (count,), generator=generator) for n in self.grid]
        return coins, torch.stack(shifts, 1)

    def masks(self, coins: Tensor, shifts: Tensor) -> Tensor:
        """Float32 ``[B, *grid]`` in 0..1 for coins ``[B, *cells]`` and shifts ``[B, axes]``, on their device."""
        masks = coins
        for axis, n in enumerate(self.grid):
            # Enlarging and cutting is linear along each axis: one small matrix for each mask, and no loop over masks.
            cell = -(-n // self.cells)
            pixel = torch.arange(n, device=coins.device) + shifts[:, axis, None]
            at = ((pixel + 0.5) * self.cells / ((self.cells + 1) * cell) - 0.5).clamp(0, self.cells - 1)
            matrix = (1 - (at[..., None] - torch.arange(self.cells, device=coins.device)).abs()).clamp_min(0)
            masks = torch.einsum("bnc,bc...->bn...", matrix, masks.movedim(axis + 1, 1)).movedim(1, axis + 1)
        return masks
