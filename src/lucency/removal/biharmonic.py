"""In-painting by a smooth surface (Damelin & Hoang, "On Surface Completion and Image Inpainting by Biharmonic
Functions", 2018), scikit-image's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from skimage.restoration import inpaint_biharmonic
from torch import Tensor

from lucency.removal.base import Fill, Removal


@dataclass(frozen=True)
class Biharmonic(Removal):
    """The smoothest surface that meets what is kept around the hole, in value and in slope.

    A hole is where a mask is below one half, so a learned mask gets no gradient through the fill, and none where it
    is above. Slow for large holes.
    """

    name: ClassVar[str] = "biharmonic"
    deterministic: ClassVar[bool] = True
    cost: ClassVar[str] = "a sparse linear system for each hole"

    def bind(self, pixels: Tensor, generator: torch.Generator) -> Fill:
        x = pixels.movedim(0, -1).cpu().numpy()

        def fill(masks: Tensor) -> Tensor:
            holes = (masks.detach() < 0.5).cpu().numpy()
            filled = np.stack([painted(x, hole) for hole in holes])
            return torch.from_numpy(filled).movedim(-1, 1).to(pixels)

        return fill


def painted(x: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """``[*spatial, C]`` with the hole ``[*spatial]`` filled; the mean everywhere where nothing is left."""
    if hole.all():
        return np.broadcast_to(x.mean(tuple(range(hole.ndim))), x.shape)
    return inpaint_biharmonic(x, hole, split_into_regions=True, channel_axis=-1) if hole.any() else x
