"""Random pixels that stay: the removal of Samek et al."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lucency.removal.base import Fill, Removal


@dataclass(frozen=True)
class Uniform(Removal):
    """Display values drawn evenly from 0..1 (Samek et al. 2017), one picture for all copies of a scan.

    So a pixel that is gone keeps its random value while further ones go.
    """

    name: ClassVar[str] = "uniform"
    deterministic: ClassVar[bool] = False

    def bind(self, pixels: Tensor, generator: torch.Generator) -> Fill:
        fill = torch.rand(pixels.shape, generator=generator).to(pixels)[None]
        return lambda masks: fill
