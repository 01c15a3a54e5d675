"""The mean of a data set: what a scan shows that is like all others."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from lucency.errors import ParameterError, ScanError
from lucency.reading import read_numbers
from lucency.removal.base import Fill, Removal
from lucency.removal.healthy import shipped, shipped_fingerprint
from lucency.removal.network import COARSE
from lucency.removal.picture import Picture


@dataclass(frozen=True)
class DatasetMean(Removal):
    """The mean picture of a data set, stretched to the scan.

    Attributes:
        source: an ``.npy`` file that holds it, ``[*spatial]`` or ``[C, *spatial]``, in display values 0..1; ``None``
            takes the mean of the healthy chest films that :class:`~lucency.removal.healthy.Healthy` has learned from.
    """

    name: ClassVar[str] = "dataset-mean"
    deterministic: ClassVar[bool] = True
    source: str | None = None

    @property
    def fingerprint(self) -> str:
        """The hash of the file that the mean picture is from."""
        if self.source is None:
            return shipped_fingerprint()
        try:
            return hashlib.sha256(Path(self.source).read_bytes()).hexdigest()
        except (OSError, ValueError) as error:
            raise ParameterError(f"{self.source} is no .npy file with a mean picture ({error}).") from error

    def bind(self, pixels: Tensor, generator: torch.Generator) -> Fill:
        """As :meth:`Removal.bind`.

        Raises:
            ParameterError: when the file cannot be read or does not fit the scan.
        """
        try:
            found = healthy_mean() if self.source is None else torch.from_numpy(read_numbers(self.source))
        except (ScanError, TypeError) as error:
            raise ParameterError(f"{self.source} is no .npy file with a mean picture ({error}).") from error
        return Picture(found).bind(pixels, generator)


def healthy_mean() -> Tensor:
    """``[COARSE, COARSE]``: the mean healthy film."""
    return shipped()["expected.mean"].view(COARSE, COARSE)
