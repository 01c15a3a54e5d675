"""The small network that reads a classifier's feature maps and says what the slow method would.

Maps of each resolution go through a 1 x 1 convolution, are brought to one grid (half of the lattice's) and summed,
together with where each place lies and what the classifier says of the whole scan; four dilated 3 x 3 convolutions
look around; the sum is enlarged to the lattice, where the finest maps come in once more. Two numbers for each place
come out: the value, and the logarithm of its expected error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, LATE = 64, 32
DILATIONS = (1, 2, 4, 1)
Grid = tuple[int, ...]


class Decoder(nn.Module):
    """From feature maps to a map on a lattice.

    Args:
        channels: of the maps of each tap, coarsest first.
        axes: 2 or 3.
    """

    def __init__(self, channels: Sequence[int], axes: int) -> None:
        super().__init__()
        conv: Any = nn.Conv2d if axes == 2 else nn.Conv3d
        self.enter = nn.ModuleList(conv(k, WIDTH, 1) for k in channels)
        self.place = conv(axes, WIDTH, 1, bias=False)
        self.said = nn.Linear(2, WIDTH, bias=False)
        self.around = nn.ModuleList(conv(WIDTH, WIDTH, 3, padding=d, dilation=d) for d in DILATIONS)
        self.leave = conv(WIDTH, LATE, 1)
        self.detail = conv(channels[-1], LATE, 1, bias=False)
        self.smooth = conv(LATE, LATE, 3, padding=1)
        self.out = conv(LATE, 2, 1)
        for i, k in enumerate(channels):
            self.register_buffer(f"mean{i}", torch.zeros(k))
            self.register_buffer(f"scale{i}", torch.ones(k))
        with torch.no_grad():
            self.out.weight.mul_(0.1)

    def prepare(self, maps: Sequence[Tensor], usual: float) -> None:
        """Takes mean and spread of each channel from maps ``[B, K, *spatial]`` of each tap.

        Args:
            usual: the size of what there is to say, which is the error of whoever says nothing.
        """
        for i, one in enumerate(maps):
            flat = one.transpose(0, 1).flatten(1)
            getattr(self, f"mean{i}").copy_(flat.mean(1))
            # A channel that is silent on these scans must not drown the others when it first speaks.
            std = flat.std(1)
            getattr(self, f"scale{i}").copy_(1 / (std + 0.1 * std.mean() + 1e-6))

        with torch.no_grad():
            self.out.bias.copy_(torch.tensor([0.0, math.log(max(usual, 1e-9))]))

    def forward(self, maps: Sequence[Tensor], said: Tensor, lattice: Grid) -> Tensor:
        """Value and log-error ``[B, 2, *lattice]``.

        Args:
            maps: of each tap, ``[B, K, *spatial]``.
            said: ``[B, 2]``, what the classifier says of each scan.
            lattice: size of what comes out.
        """
        grid = tuple(-(-n // 2) for n in lattice)
        rulers = torch.meshgrid(*(torch.linspace(-1, 1, n, device=said.device) for n in grid), indexing="ij")
        here = self.place(torch.stack(rulers)[None]) + self.said(said).view(len(said), -1, *[1] * len(lattice))
        normal = [self._normal(i, one) for i, one in enumerate(maps)]
        for enter, one in zip(self.enter, normal, strict=True):
            # Whichever order makes the smaller map for the convolution.
            finer = one.shape[2:].numel() > torch.Size(grid).numel()
            here = here + (enter(resized(one, grid)) if finer else resized(enter(one), grid))
        here = F.relu(here)
        for conv in self.around:
            here = here + F.relu(conv(here))
        late = resized(self.leave(here), lattice) + resized(self.detail(normal[-1]), lattice)
        found: Tensor = self.out(F.relu(self.smooth(F.relu(late))))
        return found

    def _normal(self, i: int, maps: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (maps.ndim - 2))
        mean, scale = getattr(self, f"mean{i}"), getattr(self, f"scale{i}")
        normal: Tensor = (maps - mean.view(shape)) * scale.view(shape)
        return normal


def resized(maps: Tensor, grid: Grid) -> Tensor:
    """Maps ``[B, K, *spatial]`` on another grid: averaged where that is coarser, linear where it is finer."""
    if tuple(maps.shape[2:]) == tuple(grid):
        return maps
    if maps.shape[2:].numel() > torch.Size(grid).numel():
        pool: Any = F.adaptive_avg_pool2d if maps.ndim == 4 else F.adaptive_avg_pool3d
        pooled: Tensor = pool(maps, grid)
        return pooled
    return F.interpolate(maps, size=grid, mode="bilinear" if maps.ndim == 4 else "trilinear", align_corners=False)
