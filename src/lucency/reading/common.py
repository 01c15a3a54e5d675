"""What all readers share: one sentence for whatever a decoder raises, the limit on pixels, the last checks."""

from __future__ import annotations

import math
import os
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lucency.errors import LucencyError, ScanError
from lucency.scan import LUMA as LUMA
from lucency.scan import OWN_RANGE, Scan

MAX_PIXELS = 2**28
"""Scans whose header promises more pixels than this are refused before they are decoded, unless the environment
variable ``LUCENCY_MAX_PIXELS`` says another number."""


def amount_from_environment(name: str, default: int) -> int:
    """A positive whole number from an environment variable, ``default`` where it is not set."""
    text = os.environ.get(name, "").strip().replace("_", "")
    if not text:
        return default
    try:
        amount = int(text)
    except ValueError:
        amount = 0
    if amount < 1:
        raise ScanError(f"{name} is {text!r}; set it to a positive whole number, or unset it.")
    return amount


def max_pixels() -> int:
    return amount_from_environment("LUCENCY_MAX_PIXELS", MAX_PIXELS)


def frame_index(path: Path | str, frame: int | None, count: int | None, what: str = "frames") -> int:
    """The place, from 0, of the frame that the user chose; frames are counted from 1, as DICOM and viewers do.

    Args:
        frame: what the user said, ``None`` for nothing.
        count: how many there are, ``None`` where only "more than one" is known because counting takes long.
        what: what the file calls them: frames, pages, volumes.
    """
    one = what.removesuffix("s")
    if frame is None:
        if count == 1:
            return 0
        many = "several" if count is None else str(count)
        last = ", 2, ..." if count is None else f" to {count}"
        raise ScanError(f"{path} has {many} {what}; choose the {one} to explain with frame=1{last} (--frame).")
    if isinstance(frame, bool) or not isinstance(frame, int) or frame < 1 or (count is not None and frame > count):
        last = "" if count is None else f" to {count}"
        raise ScanError(f"{path} has no {one} {frame}; its {what} are counted 1{last}.")
    return frame - 1


@contextmanager
def decoding(path: Path | str, what: str) -> Iterator[None]:
    """Turns whatever a decoder raises into one sentence, and keeps its warnings from the user."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except LucencyError:
        raise
    except MemoryError as error:
        raise ScanError(f"{path} does not fit into memory; crop it or use a larger machine.") from error
    except Exception as error:
        why = textwrap.shorten(str(error).strip() or type(error).__name__, 100, placeholder=" ...")
        raise ScanError(f"{path} is a damaged or unsupported {what} file ({why}); copy or export it again.") from error


def not_too_large(path: Path | str, shape: tuple[int, ...]) -> None:
    limit = max_pixels()
    if math.prod(int(n) for n in shape) > limit:
        raise ScanError(
            f"{path} says it has {' x '.join(map(str, shape))} pixels, more than the {limit:,} that are read; "
            "crop or reduce it, or raise LUCENCY_MAX_PIXELS if it is sound."
        )


def made(
    path: Path | str,
    values: NDArray[Any],
    value_range: tuple[float, float] | None,
    spacing: tuple[float, ...] | None = None,
    notices: tuple[str, ...] = (),
    *,
    view: str = "",
    modality: str = "",
) -> Scan:
    """The scan of what a file holds; a window in the file that shows none of it gives way to the span of the values."""
    scan = Scan.from_array(values, value_range=value_range, spacing=spacing, source=str(path))
    notices += scan.notices
    low, high = (float(v) for v in scan.pixels.aminmax())
    value_range = scan.value_range
    if low < high and (high <= value_range[0] or low >= value_range[1]):
        value_range = (low, high)
        notices += (f"the display window shows no pixel: shown from {low:g} to {high:g}",)
    return replace(scan, value_range=value_range, notices=notices, view=view, modality=modality)


def span(values: NDArray[Any]) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """The smallest and the largest value as black and white, for files whose numbers have no depth; 0 to 1 as it is."""
    if not values.size:
        return None, ()
    low, high = float(values.min()), float(values.max())
    if (low >= 0 and high <= 1) or not low < high:
        return None, ()
    return (low, high), (OWN_RANGE.format(low, high),)
