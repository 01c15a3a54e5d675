"""Each removed pixel the mean of what is kept around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lucency.removal.base import Fill, Removal


@dataclass(frozen=True)
class LocalMean(Removal):
    """The mean of what is kept nearby, from the nearest scale that keeps anything; differentiable in the masks."""

    name: ClassVar[str] = "local-mean"
    deterministic: ClassVar[bool] = True
    cost: ClassVar[str] = "a few averages for each mask"

    def bind(self, pixels: Tensor, generator: torch.Generator) -> Fill:
        return lambda masks: pull_push(pixels[None], masks[:, None].to(pixels.dtype))


def pull_push(x: Tensor, masks: Tensor) -> Tensor:
    """The kept pixels, and smooth values between them (Gortler et al., SIGGRAPH 1996, section 3.4).

    Means over ever larger cells are taken of what is kept ("pull"); going back, each cell that keeps nothing takes
    what the larger cells around it say ("push").

    Args:
        x: ``[1 or B, C, *spatial]``.
        masks: ``[B, 1, *spatial]``, 0..1, 1 = kept.

    Returns:
        ``[B, C, *spatial]``; ``x`` where the mask is 1, and the mean of ``x`` everywhere where nothing is kept.
    """
    axes = x.ndim - 2
    pool, mode = (F.avg_pool2d, "bilinear") if axes == 2 else (F.avg_pool3d, "trilinear")
    # So little of what is gone counts that it matters only where nothing is kept.
    means, weights = [x.expand(len(masks), *x.shape[1:])], [masks.clamp(min=1e-8)]
    while max(means[-1].shape[2:]) > 1:
        cell = [min(2, n) for n in means[-1].shape[2:]]
        total = pool(weights[-1], cell, ceil_mode=True, count_include_pad=False)
        means.append(pool(means[-1] * weights[-1], cell, ceil_mode=True, count_include_pad=False) / total)
        weights.append((total * 2**axes).clamp(max=1))
    y = means.pop()
    for mean, weight in zip(reversed(means), reversed(weights[:-1]), strict=True):
        y = F.interpolate(y, mean.shape[2:], mode=mode, align_corners=False)
        y = torch.lerp(y, mean, weight)
    return y
