"""What "removed" means: the pixels that stand where a piece was taken away."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

Fill = Callable[[Tensor], Tensor]
"""Masks ``[B, *spatial]`` (1 = kept) -> replacement pixels, broadcastable to ``[B, C, *spatial]``.

The same masks always get the same pixels, whatever was asked before: what a watcher is shown is what was scored.
"""


class Removal(ABC):
    """A meaning of "removed". Implementations are frozen dataclasses, registered by being subclasses.

    Attributes:
        name: what it is called on the command line.
        deterministic: draws no random numbers; otherwise :meth:`bind` draws anew each time.
        cost: what it takes to make the pixels, beside the classifier's own work.
    """

    name: ClassVar[str]
    deterministic: ClassVar[bool]
    cost: ClassVar[str] = "once for a scan"

    @property
    def fingerprint(self) -> str:
        """A hash of what it has learnt from data; empty where that is nothing."""
        return ""

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


def noise_for(masks: Tensor, channels: int, seed: int) -> Tensor:
    """Standard normal noise ``[B, channels, *spatial]``: another one for each mask, the same for the same mask."""
    drawn = []
    for mask in (masks.detach() * 255).to("cpu", torch.uint8):
        generator = torch.Generator().manual_seed(zlib.crc32(mask.contiguous().numpy().tobytes(), seed))
        drawn.append(torch.randn((channels, *mask.shape), generator=generator))
    return torch.stack(drawn).to(masks.device)


def seed_from(generator: torch.Generator) -> int:
    """A seed for :func:`noise_for`."""
    return int(torch.randint(2**32, (), generator=generator))
