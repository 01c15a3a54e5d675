"""What "removed" means: the pixels that stand where a piece was taken away."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lucency.errors import ParameterError
from lucency.parameters import by_word, declared, kinds, of_word

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

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        declared(cls, Removal)

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

    @staticmethod
    def of(what: object) -> Removal:
        """A removal from whatever people write for one: itself, a name, a display value, or a picture.

        ``"blur"`` and ``"Dataset mean"`` are names, ``0.5`` and ``"0.5"`` a grey, an array or tensor ``[*spatial]`` or
        ``[C, *spatial]`` a picture in display values that stands wherever something is gone.

        Raises:
            ParameterError: naming the removals there are.
        """
        if isinstance(what, Removal):
            return what
        if isinstance(what, np.ndarray | Tensor):
            picture: Removal = kinds(Removal)["picture"](torch.as_tensor(what))
            return picture
        if isinstance(what, Real) and not isinstance(what, bool):
            grey: Removal = kinds(Removal)["constant"](float(what))
            return grey
        if not isinstance(what, str):
            raise ParameterError(f"{what!r:.60} is no removal; give a name, a display value, an array or an instance.")
        return Removal.from_word(what)

    @classmethod
    def from_word(cls, word: str) -> Removal:
        """The removal of that name with its defaults, or a display value such as ``"0.5"``.

        Raises:
            ParameterError: naming those there are.
        """
        try:
            return Removal.of(float(word))
        except ValueError:
            return of_word(word, removals(), "removal")

    @classmethod
    def words(cls) -> list[str]:
        """What :meth:`from_word` takes."""
        return by_word(removals())


def removals() -> dict[str, type[Removal]]:
    """Every removal by its name: those here, and those that outside packages announce as ``lucency.removals``."""
    return kinds(Removal, "lucency.removals")


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
