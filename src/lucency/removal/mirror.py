"""The other lung: a chest is nearly the same on both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lucency.filters import gaussian_blur
from lucency.removal.base import Fill, Removal
from lucency.removal.local import pull_push


@dataclass(frozen=True)
class Mirror(Removal):
    """What the other side shows, mirrored about the midline of the body, as bright as what is kept around the hole.

    The midline is looked for within a fifth of the width about the middle of the picture. Differentiable in the
    masks. A disease of both sides stays; what is in the middle stays as well.
    """

    name: ClassVar[str] = "mirror"
    deterministic: ClassVar[bool] = True
    cost: ClassVar[str] = "a few averages for each mask"

    def bind(self, pixels: Tensor, generator: torch.Generator) -> Fill:
        other = mirrored(pixels, midline(pixels))
        difference = (pixels - other)[None]
        return lambda masks: (other + pull_push(difference, masks[:, None].to(pixels.dtype))).clamp(0, 1)


def midline(pixels: Tensor) -> float:
    """The column about which the scan ``[C, *spatial]`` is most like its mirror image.

    By the mean absolute difference, so that what only one side has counts little.
    """
    coarse = gaussian_blur(pixels, max(pixels.shape[-1] / 50, 0.5)).flatten(0, -2).double()
    width = coarse.shape[-1]
    off: dict[float, float] = {}
    # Twice the column, so that a midline may lie between two.
    for double in range(round(0.8 * (width - 1)), round(1.2 * (width - 1)) + 1):
        part = coarse[:, max(0, double - width + 1) : min(width - 1, double) + 1]
        off[double / 2] = float((part - part.flip(-1)).abs().mean())
    return min(off, key=lambda column: (round(off[column], 9), abs(column - (width - 1) / 2)))


def mirrored(pixels: Tensor, column: float) -> Tensor:
    """``[C, *spatial]`` mirrored about a column; what would come from outside repeats the border."""
    at = torch.arange(pixels.shape[-1], device=pixels.device)
    return pixels[..., (round(2 * column) - at).clamp(0, pixels.shape[-1] - 1)]
