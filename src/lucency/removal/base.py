"""What "removed" means: the pixels that stand where a piece was taken away."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

Fill = Callable[[Tensor], Tensor]
"""Masks ``[B, *spatial]`` (1 = kept) -> replacement pixels, broadcastable to ``[B, C, *spatial]``."""


class Removal(ABC):
    """A meaning of "removed". Implementations are frozen dataclasses, registered by being subclasses."""

    name: ClassVar[str]
    deterministic: ClassVar[bool]

    @abstractmethod
    def bind(self, pixels: Tensor, generator: torch.Generator) -> Fill:
        """Prepares the replacement for one scan.

        Args:
            pixels: float32 ``[C, *spatial]``, display values, on the device where the model runs.
            generator: a CPU generator for removals that draw random numbers.
        """


def remove(pixels: Tensor, masks: Tensor, fill: Tensor) -> Tensor:
    """``m * x + (1 - m) * fill``: scans ``[B, C, *spatial]`` with what the masks leave out replaced."""
    return torch.lerp(fill.expand(masks.shape[0], *pixels.shape), pixels, masks[:, None].to(pixels.dtype))
