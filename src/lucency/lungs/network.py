"""The network that finds the lungs: a small U-Net, which answers "where would they be" under fluid as well."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 96
"""Rows and columns of the square that the network sees."""


def _pair(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class LungNet(nn.Module):
    """Logits ``[B, 2, SIZE, SIZE]`` of the right and the left lung for equalised films ``[B, 1, SIZE, SIZE]``.

    Args:
        widths: channels at a half, a quarter, an eighth and a sixteenth of the size.
    """

    def __init__(self, widths: tuple[int, ...] = (20, 32, 48, 64)) -> None:
        super().__init__()
        # Four pixels each, and where in the film they are: right and left look alike.
        self.down = nn.ModuleList(
            _pair(before, after, 2 if i else 1)
            for i, (before, after) in enumerate(zip((6, *widths), widths, strict=False))
        )
        self.up = nn.ModuleList(_pair(before + after, before) for before, after in pairwise(widths))
        self.out = nn.Conv2d(widths[0], 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.pixel_unshuffle(2 * x - 1, 2)
        at = torch.linspace(-1, 1, y.shape[-1], dtype=y.dtype, device=y.device)
        places = torch.stack(torch.meshgrid(at, at, indexing="ij")).expand(len(y), -1, -1, -1)
        y = torch.cat([y, places], 1)
        kept = []
        for stage in self.down:
            y = stage(y)
            kept.append(y)
        for i in reversed(range(len(self.up))):
            y = F.interpolate(y, scale_factor=2.0, mode="bilinear", align_corners=False)
            y = self.up[i](torch.cat([kept[i], y], 1))
        return F.pixel_shuffle(self.out(y), 2)
