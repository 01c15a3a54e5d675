"""The scan: pixels as they were measured, and where they came from."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lucency.errors import ScanError


@dataclass(frozen=True, eq=False)
class Scan:
    """One radiograph, slice or volume.

    Attributes:
        pixels: float32 ``[C, H, W]`` or ``[C, D, H, W]``, finite, in the file's own units (full bit depth);
            bright = dense, whatever the file's photometric interpretation was.
        value_range: the two pixel values that are shown as black and white. A classifier sees
            ``(pixels - low) / (high - low)``, so the default ``(0, 1)`` hands pixels over untouched.
        spacing: millimetres between pixel centres along each spatial axis, ``None`` where unknown.
        source: where the scan came from, for the provenance record.
        notices: what reading the file had to decide, in words (RGB turned to grey, ...).
        view: how the rays went through a radiograph, ``"PA"``, ``"AP"`` or ``"LATERAL"``; empty where unknown.
        modality: DICOM's word for the kind of device (``"DX"``, ``"CT"``, ...); empty where unknown.
    """

    pixels: Tensor
    value_range: tuple[float, float] = (0.0, 1.0)
    spacing: tuple[float, ...] | None = None
    source: str = "memory"
    notices: tuple[str, ...] = field(default=())
    view: str = ""
    modality: str = ""

    def __post_init__(self) -> None:
        if self.pixels.ndim not in (3, 4) or 0 in self.pixels.shape:
            raise ScanError(
                f"A scan needs pixels of shape [C, H, W] or [C, D, H, W], not {list(self.pixels.shape)}; "
                "add the channel axis or drop the batch axis."
            )
        if self.pixels.dtype != torch.float32:
            raise ScanError(f"A scan holds float32 pixels, not {self.pixels.dtype}; use Scan.from_array.")
        # The smallest and the largest tell: NaN goes through both, and nothing of the picture's size is made.
        if not all(math.isfinite(end) for end in self.pixels.aminmax()):
            raise ScanError("The scan has pixels that are NaN or infinite; repair or mask them before explaining.")
        low, high = self.value_range
        if not low < high:
            raise ScanError(f"The value range {self.value_range} is empty; the first value must be the smaller.")
        if self.spacing is not None and (
            len(self.spacing) != self.pixels.ndim - 1 or not all(0 < s < float("inf") for s in self.spacing)
        ):
            raise ScanError(
                f"Spacing {self.spacing} does not fit pixels of shape {list(self.pixels.shape)}; "
                "give one positive number of millimetres for each spatial axis."
            )

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.shape))
        low, high = self.value_range
        return f"Scan({size}, {self.pixels.shape[0]} channel(s), shown from {low:g} to {high:g}, from {self.source})"

    @classmethod
    def from_array(
        cls,
        array: ArrayLike | Tensor,
        *,
        value_range: tuple[float, float] | None = None,
        spacing: Sequence[float] | None = None,
        source: str = "memory",
    ) -> Scan:
        """A scan from ``[H, W]``, ``[C, H, W]`` or ``[C, D, H, W]`` numbers of any real dtype.

        Args:
            value_range: the values shown as black and white. When ``None``: 0 and 255 for ``uint8``, the smallest and
                the largest value for other integers, 0 and 1 for floats, which hands them over untouched.

        Raises:
            ScanError: when the shape, the values or the spacing do not make a scan.
        """
        try:
            pixels = torch.as_tensor(np.asarray(array) if not isinstance(array, Tensor) else array).detach().cpu()
        except (TypeError, ValueError) as error:
            raise ScanError(
                "A scan needs a regular array of real numbers, [H, W], [C, H, W] or [C, D, H, W]; "
                "lucency.read_scan reads files."
            ) from error
        if pixels.is_complex():
            raise ScanError("A scan needs real pixels; take the magnitude of the complex image first.")
        notices: tuple[str, ...] = ()
        if value_range is None:
            value_range = (0.0, 255.0) if pixels.dtype == torch.uint8 else (0.0, 1.0)
            if not pixels.is_floating_point() and pixels.dtype not in (torch.uint8, torch.bool) and pixels.numel():
                # Not every build of PyTorch can compare unsigned integers of 16 bits.
                ends = pixels.to(torch.float32).aminmax()
                if ends.min < ends.max:
                    value_range = (float(ends.min), float(ends.max))
                    notices = (f"shown from {ends.min:g} to {ends.max:g}, its own minimum and maximum",)
        if pixels.ndim == 2:
            pixels = pixels[None]
        return cls(
            pixels.to(torch.float32).contiguous(),
            value_range,
            None if spacing is None else tuple(float(s) for s in spacing),
            source,
            notices,
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each spatial axis."""
        return tuple(self.pixels.shape[1:])

    @property
    def display(self) -> Tensor:
        """Float32 pixels of the same shape, ``value_range`` stretched to 0..1; values outside stay outside."""
        low, high = self.value_range
        return (self.pixels - low) / (high - low)

    @property
    def sha256(self) -> str:
        """Hash of shape, value range and pixels."""
        digest = hashlib.sha256(repr((tuple(self.pixels.shape), self.value_range)).encode())
        digest.update(self.pixels.numpy().tobytes())
        return digest.hexdigest()
