"""How feature maps of a scan lie in what a layer puts out: as maps, or as tokens that are laid out as maps again."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

MOST_EXTRA = (8, 2)
"""Tokens that stand before those of the patches, at most: class, distillation and register tokens; fewer where no
convolution tells what the grid of the patches is."""

Grid = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """How tokens lie on a grid: ``extra`` ones first, the channels last or right behind the batch."""

    grid: Grid
    extra: int
    channels_last: bool

    def maps(self, tokens: Tensor) -> Tensor:
        """Tokens ``[1, N, K]``, ``[1, *grid, K]`` or maps ``[1, K, *grid]`` -> maps ``[1, K, *grid]``."""
        if not self.channels_last:
            return tokens
        if tokens.ndim == 3:
            tokens = tokens[:, self.extra :].reshape(1, *self.grid, -1)
        return tokens.movedim(-1, 1)


def layout_of(tensor: Tensor, grid: Grid, cut: Grid | None) -> Layout | None:
    """How the tokens in a tensor of one scan lie; ``None`` where it holds no tokens.

    Args:
        grid: that of the scan.
        cut: that of the patches, where a convolution has made them; it may have been halved since.
    """
    if tensor.shape[0] != 1:
        return None
    grids = [] if cut is None else [tuple(-(-n // 2**k) for n in cut) for k in range(5)]
    grids = [g for g in grids if math.prod(g) > 1]
    axes = len(grid)
    if tensor.ndim == axes + 2:
        if tuple(tensor.shape[2:]) in grids:
            return Layout(tuple(tensor.shape[2:]), 0, channels_last=False)
        return Layout(tuple(tensor.shape[1:-1]), 0, channels_last=True) if tuple(tensor.shape[1:-1]) in grids else None
    if tensor.ndim != 3:
        return None
    n = tensor.shape[1]
    if cut is None:
        sides = range(2, min(grid) + 1)
        grids = [tuple(s // p for s in grid) for p in sides if all(s % p == 0 for s in grid)]
        grids = [g for g in grids if math.prod(g) > 1]
    for i, g in enumerate(grids):
        # A net that halves its grid has no class token.
        most = MOST_EXTRA[cut is None] if cut is None or i == 0 else 0
        if 0 <= n - math.prod(g) <= most:
            return Layout(g, n - math.prod(g), channels_last=True)
    return None
