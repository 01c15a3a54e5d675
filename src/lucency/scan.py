"""The scan: pixels as they were measured, and where they came from."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lucency.errors import ScanError, printable

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""What red, green and blue weigh in grey (ITU-R BT.601)."""
DEPTHS = {"?": (0.0, 1.0), "b": (-128.0, 127.0), "B": (0.0, 255.0), "H": (0.0, 65535.0)}
"""The values shown as black and white for the dtypes whose depth says it."""

OWN_RANGE = (
    "shown from {:g} to {:g}, its own minimum and maximum; value_range= (--value-range) sets it for a whole series"
)


@dataclass(frozen=True, eq=False)
class Scan:
    """One radiograph, slice or volume.

    Attributes:
        pixels: float32 ``[C, H, W]`` or ``[C, D, H, W]`` on the CPU, finite, in the file's own units (full bit depth);
            bright = dense, whatever the file's photometric interpretation was. The scan keeps a copy of what it is
            given, so that nothing that happens to the caller's tensor reaches it.
        value_range: the two pixel values that are shown as black and white. A classifier sees
            ``(pixels - low) / (high - low)``, so the default ``(0, 1)`` hands pixels over untouched.
        spacing: millimetres between pixel centres along each spatial axis, ``None`` where unknown.
        source: where the scan came from, for the provenance record: the name of its file, never where that lies.
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
        # A tensor that is made in inference mode could never be differentiated again.
        with torch.inference_mode(False), torch.no_grad():
            plain = self.pixels.detach().as_subclass(Tensor)
            object.__setattr__(self, "pixels", plain.to("cpu", copy=True).contiguous().resolve_neg())
        # The smallest and the largest tell: NaN goes through both, and nothing of the picture's size is made.
        if not all(math.isfinite(end) for end in self.pixels.aminmax()):
            raise ScanError("The scan has pixels that are NaN or infinite; repair or mask them before explaining.")
        object.__setattr__(self, "value_range", checked_range(self.value_range))
        object.__setattr__(self, "source", printable(self.source))
        if self.spacing is not None and (
            len(self.spacing) != self.pixels.ndim - 1 or not all(0 < s < math.inf for s in self.spacing)
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
        """A scan from a regular array of real numbers: NumPy, PyTorch, nested lists, or whatever turns into these.

        Args:
            array: ``[H, W]``, ``[C, H, W]``, ``[C, D, H, W]``, or with channels last where the first axis is longer
                than 4 and the last has length 1, 3 or 4. ``[H, W, 3]`` is colour and becomes grey; ``[H, W, 4]`` has
                transparency besides, and is laid over black. ``[C, 1, H, W]``, one slice, becomes ``[C, H, W]``.
                Masked values become the smallest of the others. Any dtype of real numbers and any layout in memory.
            value_range: the values shown as black and white. When ``None``: the depth of the dtype for bool and
                integers of 8 bits and for ``uint16``, the smallest and the largest value for other integers, and 0
                and 1 for floats, which hands them over untouched.
            spacing: millimetres along each spatial axis.

        Raises:
            ScanError: when the shape, the values or the spacing do not make a scan.
        """
        name = "The array" if source == "memory" else source
        values, notices = _numbers(array, name)
        if values.ndim not in (2, 3, 4) or 0 in values.shape:
            raise ScanError(
                f"{name} has shape {list(values.shape)}; a scan is [H, W], [C, H, W], [C, D, H, W] or [H, W, 3]."
            )
        if value_range is None:
            value_range, said = _shown_range(values, name)
            notices += said
        exact(values, name)
        if values.ndim > 2 and values.shape[0] > 4 and values.shape[-1] in (1, 3, 4):
            values, said = grey(values)
            notices += said
        if values.ndim == 2:
            values = values[None]
        if values.ndim == 4 and values.shape[1] == 1:
            values = values[:, 0]
            spacing = spacing[1:] if spacing is not None and len(spacing) == 3 else spacing
            notices += ("a volume of one slice, taken as a picture",)
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and that is said below
            pixels = torch.from_numpy(np.require(values, np.float32, ["C", "W"]))
        if not all(math.isfinite(end) for end in pixels.aminmax()):
            raise ScanError(f"{name} has pixels that are NaN or infinite; repair or mask them before explaining.")
        lengths = None if spacing is None else tuple(float(s) for s in spacing)
        return cls(pixels, value_range, lengths, source, notices)

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


def checked_range(value_range: Sequence[float]) -> tuple[float, float]:
    """Two finite numbers, the smaller first, or a ``ScanError``."""
    try:
        low, high = (float(v) for v in value_range)
    except (TypeError, ValueError) as error:
        raise ScanError(f"The value range {value_range!r} is not two numbers; give (low, high).") from error
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ScanError(f"The value range {(low, high)} is not finite; give the values shown as black and white.")
    if not low < high:
        raise ScanError(f"The value range {(low, high)} is empty; the first value must be the smaller.")
    return low, high


def _numbers(array: Any, name: str) -> tuple[NDArray[Any], tuple[str, ...]]:
    """A NumPy array of bool, integers or floats in native byte order, and what had to be decided."""
    notices: tuple[str, ...] = ()
    try:
        if isinstance(array, Tensor):
            array = array.detach().cpu().resolve_conj().resolve_neg()
            array = array.dequantize() if array.is_quantized else array
            array = array.to_dense() if array.layout is not torch.strided else array
            if array.is_floating_point() and array.dtype not in (torch.float16, torch.float64):
                array = array.float()  # NumPy has no bfloat16
            values = array.numpy()
        else:
            if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
                if array.mask.all():
                    raise ScanError(f"{name} is masked throughout; choose a scan that shows something.")
                notices = (f"{array.mask.mean():.1%} of the values are masked, and take the smallest of the others",)
                array = array.filled(array.min())
            values = np.asarray(array)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ScanError(
            f"{name} is no regular array of real numbers, [H, W], [C, H, W] or [C, D, H, W]; "
            "lucency.read_scan reads files."
        ) from error
    if values.dtype.kind == "c":
        raise ScanError(f"{name} holds {values.dtype} values; give real numbers, such as their magnitude.")
    if values.dtype.kind not in "biuf":
        kind = "Python objects" if values.dtype.kind == "O" else f"{values.dtype} values"
        raise ScanError(f"{name} holds {kind} and no real numbers; lucency.read_scan reads files.")
    return values.astype(values.dtype.newbyteorder("="), copy=False), notices


def _shown_range(values: NDArray[Any], name: str) -> tuple[tuple[float, float], tuple[str, ...]]:
    """What is black and what is white, by the dtype where that can be: a series must not change from film to film."""
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f":
        if not low < 0 and not high > 1:
            return (0.0, 1.0), ()
        return (0.0, 1.0), (
            f"values from {low:g} to {high:g} are handed over untouched, 0 as black and 1 as white; "
            "value_range= (--value-range) says otherwise",
        )
    if values.dtype.char in DEPTHS:
        black, white = DEPTHS[values.dtype.char]
        if high < 2**15 and values.dtype.char == "H":
            bits = max(8, int(high).bit_length())
            return (black, white), (
                f"16 bits, shown from 0 to 65535, and the largest value is {high:g}; if all films of its kind hold "
                f"{bits} bits, say value_range=(0, {2**bits - 1}) (--value-range)",
            )
        return (black, white), ()
    if low == high:
        return (0.0, 1.0), ()
    return (low, high), (OWN_RANGE.format(low, high),)


def exact(values: NDArray[Any], name: str) -> None:
    """Refuses numbers so large, and so near to each other, that float32 would melt them into steps."""
    if (values.dtype.kind == "f" and values.dtype.itemsize <= 4) or values.dtype.itemsize <= 2:
        return
    low, high = float(values.min()), float(values.max())
    step = max(abs(low), abs(high)) * 2.0**-23
    if low < high and math.isfinite(step) and step > (high - low) / 256:
        raise ScanError(
            f"{name} has values from {low:.17g} to {high:.17g}, too near to each other for their size to be told apart "
            "in float32; subtract the smallest first."
        )


def grey(values: NDArray[Any]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Channels last to one channel: ``[..., 1]``, colour ``[..., 3]`` or colour and transparency ``[..., 4]``.

    Returns:
        ``[...]`` (2 spatial axes) or ``[1, ...]`` (3), and what was decided.
    """
    notices: tuple[str, ...] = ()
    plain = values[..., 0]
    if values.shape[-1] > 1:
        with np.errstate(invalid="ignore", over="ignore"):
            if not bool((values[..., :3] == values[..., :1]).all()):
                # Not as a matrix product, whose rounding depends on how the array lies in memory.
                plain = sum(values[..., i].astype(np.float32) * LUMA[i] for i in range(3))
                notices = ("colour turned to grey (ITU-R BT.601 luma)",)
            if values.shape[-1] == 4:
                opaque = DEPTHS.get(values.dtype.char, (0, 1))[1] if values.dtype.kind != "i" else values[..., 3].max()
                if bool((values[..., 3] < opaque).any()):
                    plain = plain.astype(np.float32) * (values[..., 3].astype(np.float32) / np.float32(opaque))
                    notices += ("transparent parts lie over black",)
    return (plain if plain.ndim == 2 else plain[None]), notices
