"""Which pieces are on together: random switches that tell the effects of the pieces apart with few samples.

Independent coin flips leave the effects of pieces mixed up by chance. Here the flips come in blocks of a two-level
factorial design (Plackett & Burman, "The design of optimum multifactorial experiments", Biometrika 1946): over a block
every piece is on half of the time, and every two pieces are together exactly as often as apart, so that the effect of
one does not disturb that of another. Each sample is followed by its opposite (Box & Hunter 1961, folding over), which
keeps what pieces do in twos out of the effects of single ones. Signs and columns are drawn anew for each block, so
that each sample on its own is as random as coin flips are, and whatever is estimated stays what it was.
"""

from __future__ import annotations

import torch
from torch import Tensor


def balanced_switches(count: int, pieces: int, generator: torch.Generator) -> Tensor:
    """``count`` samples of ``pieces`` switches, int64 ``[count, pieces]``, 0 or 1, opposites next to each other."""
    rows = torch.ones((1, 1), dtype=torch.int64)
    while len(rows) <= pieces:
        rows = torch.cat([torch.cat([rows, rows], 1), torch.cat([rows, -rows], 1)])
    order = len(rows)
    blocks: list[Tensor] = []
    while sum(map(len, blocks)) < count:
        # The first column is the same throughout and tells nothing.
        columns = 1 + torch.randperm(order - 1, generator=generator)[:pieces]
        signs = 1 - 2 * torch.randint(0, 2, (pieces,), generator=generator)
        half = rows[torch.randperm(order, generator=generator)][:, columns] * signs
        blocks.append(torch.stack([half, -half], 1).flatten(0, 1))
    return (1 + torch.cat(blocks)[:count]) // 2


def random_pairs(pieces: int, count: int, generator: torch.Generator) -> Tensor:
    """``count`` coalitions int64 ``[count, S]`` drawn in proportion to the Shapley kernel.

    The sizes are a stratified sample: one from each of ``count`` equal shares of their distribution.
    """
    size = torch.arange(1, pieces, dtype=torch.float64)
    chance = (1 / (size * (pieces - size))).cumsum(0)
    share = (torch.arange(count) + torch.rand(count, generator=generator, dtype=torch.float64)) / count
    sizes = 1 + torch.searchsorted(chance / chance[-1], share).clamp(max=pieces - 2)
    sizes = sizes[torch.randperm(count, generator=generator)]
    place = torch.rand((count, pieces), generator=generator).argsort(1).argsort(1)
    return (place < sizes[:, None]).long()
