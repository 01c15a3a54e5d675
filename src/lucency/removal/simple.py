"""Removals that need nothing but the scan itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lucency.errors import ParameterError
from lucency.filters import gaussian_blur
from lucency.removal.base import Fill, Removal, noise_for, seed_from


@dataclass(frozen=True)
class Constant(Removal):
    """One display value everywhere.

    Attributes:
        value: the display value, 0..1; 0 is black (Zeiler & Fergus use grey, 0.5).
    """

    name: ClassVar[str] = "constant"
    deterministic: ClassVar[bool] = True
    value: float = 0.0

    def bind(self, pixels: Tensor, generator: torch.Generator) -> Fill:
        fill = torch.full_like(pixels, self.value)[None]
        return lambda masks: fill


@dataclass(frozen=True)
class Mean(Removal):
    """The mean of the scan, by channel."""

    name: ClassVar[str] = "mean"
    deterministic: ClassVar[bool] = True

    def bind(self, pixels: Tensor, generator: torch.Generator) -> Fill:
        spatial = tuple(range(1, pixels.ndim))
        fill = pixels.mean(spatial, keepdim=True).expand_as(pixels)[None]
        return lambda masks: fill


@dataclass(frozen=True)
class Blur(Removal):
    """The scan under a Gaussian.

    Attributes:
        sigma: its standard deviation in pixels of the model's grid (Fong & Vedaldi 2017: 10 at 224).
    """

    name: ClassVar[str] = "blur"
    deterministic: ClassVar[bool] = True
    sigma: float = 10.0

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ParameterError(f"A blur needs a sigma above zero, not {self.sigma}.")

    def bind(self, pixels: Tensor, generator: torch.Generator) -> Fill:
        fill = gaussian_blur(pixels, self.sigma)[None]
        return lambda masks: fill


@dataclass(frozen=True)
class Noise(Removal):
    """Normal noise matched to the scan (its mean and standard deviation, by channel); another one for each mask."""

    name: ClassVar[str] = "noise"
    deterministic: ClassVar[bool] = False
    cost: ClassVar[str] = "random numbers for each mask"

    def bind(self, pixels: Tensor, generator: torch.Generator) -> Fill:
        spatial = tuple(range(1, pixels.ndim))
        mean, std = pixels.mean(spatial, keepdim=True), pixels.std(spatial, keepdim=True)
        seed = seed_from(generator)
        return lambda masks: mean + std * noise_for(masks, len(pixels), seed)
