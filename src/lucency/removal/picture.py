"""Another picture, shown wherever something was taken away."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lucency.errors import ParameterError
from lucency.removal.base import Fill, Removal


@dataclass(frozen=True, eq=False, repr=False)
class Picture(Removal):
    """A picture of your own, stretched to the scan.

    Attributes:
        pixels: real numbers ``[*spatial]`` or ``[C, *spatial]`` in display values, 0 black and 1 white.
    """

    name: ClassVar[str] = "picture"
    deterministic: ClassVar[bool] = True
    pixels: Tensor

    def __repr__(self) -> str:
        content = self.pixels.detach().cpu().contiguous().float().numpy().tobytes()
        size = " x ".join(map(str, self.pixels.shape))
        return f"Picture({size}, sha256 {hashlib.sha256(content).hexdigest()[:16]})"

    def bind(self, pixels: Tensor, generator: torch.Generator) -> Fill:
        """As :meth:`Removal.bind`.

        Raises:
            ParameterError: when the picture does not fit the scan, or holds what is no number.
        """
        axes = pixels.ndim - 1
        found = self.pixels.detach().to(pixels)
        if found.ndim == axes:
            found = found[None]
        if found.ndim != axes + 1 or len(found) not in (1, len(pixels)) or 0 in found.shape:
            raise ParameterError(
                f"A picture of {list(self.pixels.shape)} does not fit a scan of {list(pixels.shape)}; "
                "give [*spatial], or one for each channel."
            )
        if not bool(torch.isfinite(found).all()):
            raise ParameterError("A picture that stands for what is removed must not hold NaN or infinite values.")
        mode = "bilinear" if axes == 2 else "trilinear"
        fill = F.interpolate(found[None], pixels.shape[1:], mode=mode, align_corners=False).expand(1, *pixels.shape)
        return lambda masks: fill
