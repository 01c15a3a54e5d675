"""The mean of a data set: what a scan shows that is like all others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lucency.errors import ParameterError
from lucency.removal.base import Fill, Removal


@dataclass(frozen=True)
class DatasetMean(Removal):
    """The mean picture of a data set, stretched to the scan.

    Attributes:
        source: an ``.npy`` file that holds it, ``[*spatial]`` or ``[C, *spatial]``, in display values 0..1; or one
            such value.
    """

    name: ClassVar[str] = "dataset-mean"
    deterministic: ClassVar[bool] = True
    source: float | str = 0.5

    def bind(self, pixels: Tensor, generator: torch.Generator) -> Fill:
        """As :meth:`Removal.bind`.

        Raises:
            ParameterError: when the file cannot be read or does not fit the scan.
        """
        if not isinstance(self.source, str):
            fill = torch.full_like(pixels, self.source)[None]
            return lambda masks: fill
        try:
            found = torch.from_numpy(np.load(Path(self.source), allow_pickle=False)).to(pixels)
        except (OSError, ValueError, TypeError) as error:
            raise ParameterError(f"{self.source} is no .npy file with a mean picture ({error}).") from error
        axes = pixels.ndim - 1
        if found.ndim == axes:
            found = found[None]
        if found.ndim != axes + 1 or len(found) not in (1, len(pixels)):
            raise ParameterError(f"A mean picture of {list(found.shape)} does not fit a scan of {list(pixels.shape)}.")
        mode = "bilinear" if axes == 2 else "trilinear"
        fill = F.interpolate(found[None], pixels.shape[1:], mode=mode, align_corners=False).expand(1, *pixels.shape)
        return lambda masks: fill
