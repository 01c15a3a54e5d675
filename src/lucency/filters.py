"""Filters that several rooms use."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def gaussian_blur(pixels: Tensor, sigma: float) -> Tensor:
    """``[C, *spatial]`` under a separable Gaussian (cut at 3 sigma), the border repeated."""
    radius = max(1, round(3 * sigma))
    t = torch.arange(-radius, radius + 1, dtype=pixels.dtype, device=pixels.device)
    kernel = torch.exp(-0.5 * (t / sigma) ** 2)
    kernel = kernel / kernel.sum()
    dims = pixels.ndim - 1
    convolve = F.conv2d if dims == 2 else F.conv3d
    x = pixels[:, None]
    for axis in range(dims):
        pad = [0, 0] * dims
        pad[2 * (dims - 1 - axis)] = pad[2 * (dims - 1 - axis) + 1] = radius
        shape = [1] * (dims + 2)
        shape[axis + 2] = -1
        x = convolve(F.pad(x, pad, mode="replicate"), kernel.view(shape))
    return x[:, 0]
