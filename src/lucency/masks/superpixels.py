"""Superpixels: pieces that follow the scan's own edges, and the plain grid to compare them with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from skimage import segmentation
from torch import Tensor

from lucency.errors import ParameterError
from lucency.parameters import by_word, declared, kinds, of_word


class Superpixels(ABC):
    """A way to cut a scan into pieces. Implementations are frozen dataclasses, registered by being subclasses."""

    name: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        declared(cls, Superpixels)

    @abstractmethod
    def labels(self, pixels: Tensor) -> Tensor:
        """The piece that each pixel belongs to: int64 ``[*spatial]``, 0 to S - 1, each number in use, on the CPU.

        Args:
            pixels: float32 ``[C, *spatial]``, display values.

        Raises:
            ParameterError: when the parameters do not fit the pixels.
        """

    @classmethod
    def from_word(cls, word: str) -> Superpixels:
        """The way of that name with its defaults.

        Raises:
            ParameterError: naming those there are.
        """
        return of_word(word, superpixels(), "kind of superpixels")

    @classmethod
    def words(cls) -> list[str]:
        """What :meth:`from_word` takes."""
        return by_word(superpixels())


def superpixels() -> dict[str, type[Superpixels]]:
    """Every way by its name: those here, and those that outside packages announce as ``lucency.superpixels``."""
    return kinds(Superpixels, "lucency.superpixels")


@dataclass(frozen=True)
class Slic(Superpixels):
    """Simple linear iterative clustering (Achanta et al. 2012), scikit-image's; 2-D and 3-D (distances in pixels).

    Attributes:
        count: about how many pieces.
        compactness: how much nearness counts against likeness, for values stretched to 0..1: lower follows every rib,
            higher tends to squares.
    """

    name: ClassVar[str] = "slic"
    count: int = 50
    compactness: float = 0.3

    def __post_init__(self) -> None:
        if self.count < 1 or not self.compactness > 0:
            raise ParameterError(
                f"SLIC needs a count of at least 1 and a compactness above 0, not {self.count} and {self.compactness}."
            )

    def labels(self, pixels: Tensor) -> Tensor:
        found = segmentation.slic(
            _channels(pixels).numpy(),
            n_segments=self.count,
            compactness=self.compactness,
            convert2lab=False,
            start_label=0,
            channel_axis=0,
        )
        return _numbered(found)


@dataclass(frozen=True)
class Quickshift(Superpixels):
    """Quickshift (Vedaldi & Soatto 2008), scikit-image's, with the parameters of the ``lime`` package; 2-D only.

    Attributes:
        kernel_size: width of the density estimate in pixels.
        max_dist: the farthest that a pixel looks for its parent: larger = fewer pieces.
        ratio: colour against nearness, 0..1.
    """

    name: ClassVar[str] = "quickshift"
    kernel_size: float = 4.0
    max_dist: float = 200.0
    ratio: float = 0.2

    def labels(self, pixels: Tensor) -> Tensor:
        if pixels.ndim != 3:
            raise ParameterError("Quickshift cuts 2-D scans only; cut a volume with SLIC or a grid.")
        grey = pixels.cpu()
        # The package sees a grey scan as RGB, and so must we for the same pieces.
        rgb = grey if len(grey) == 3 else grey.mean(0, keepdim=True).expand(3, *grey.shape[1:])
        found = segmentation.quickshift(  # type: ignore[no-untyped-call]
            rgb.movedim(0, -1).double().numpy(),
            kernel_size=self.kernel_size,
            max_dist=self.max_dist,
            ratio=self.ratio,
        )
        return _numbered(found)


@dataclass(frozen=True)
class Cells(Superpixels):
    """A regular grid of boxes, as equal as whole pixels allow; 2-D and 3-D.

    Attributes:
        cells: how many boxes along each axis.
    """

    name: ClassVar[str] = "cells"
    cells: int = 8

    def labels(self, pixels: Tensor) -> Tensor:
        shape = pixels.shape[1:]
        if not 1 <= self.cells <= min(shape):
            raise ParameterError(f"A grid of {self.cells} cells an axis does not fit {list(shape)} pixels.")
        found = torch.zeros(shape, dtype=torch.int64)
        for axis, n in enumerate(shape):
            cell = torch.arange(n) * self.cells // n
            found = found * self.cells + cell.view([-1 if a == axis else 1 for a in range(len(shape))])
        return found


@dataclass(frozen=True, eq=False)
class Drawn(Superpixels):
    """Pieces that are known already: organs, zones, anything.

    Attributes:
        regions: whole numbers ``[*spatial]`` on the model's grid, one number a piece.
    """

    name: ClassVar[str] = "drawn"
    regions: Tensor

    def labels(self, pixels: Tensor) -> Tensor:
        if self.regions.shape != pixels.shape[1:]:
            raise ParameterError(
                f"Pieces drawn on {list(self.regions.shape)} pixels do not fit a grid of {list(pixels.shape[1:])}."
            )
        return _numbered(self.regions.cpu().numpy())


def switched(labels: Tensor, on: Tensor) -> Tensor:
    """Masks float32 ``[B, *spatial]``, 1 = kept, for pieces that are on (``on`` ``[B, S]``, 0 or 1)."""
    return on.to(labels.device, torch.float32)[:, labels]


def painted(labels: Tensor, values: Tensor) -> Tensor:
    """Float32 ``[*spatial]``: each pixel has the value (``values`` ``[S]``) of its piece."""
    return values.to(labels.device, torch.float32)[labels]


def _channels(pixels: Tensor) -> Tensor:
    """Pixels on the CPU, without the copies that a colour model makes of a grey scan: they would count as contrast."""
    pixels = pixels.cpu()
    return pixels[:1] if bool((pixels == pixels[:1]).all()) else pixels


def _numbered(found: NDArray[np.integer]) -> Tensor:
    _, numbers = np.unique(found, return_inverse=True)
    return torch.from_numpy(numbers.reshape(found.shape).astype(np.int64))
