"""What all readers share: one sentence for whatever a decoder raises, the limit on pixels, the last checks."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lucency.errors import MissingExtraError, ScanError
from lucency.scan import Scan

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
MAX_PIXELS = 2**28
"""Files whose header promises more pixels than this are refused before they are decoded."""


@contextmanager
def decoding(path: Path, what: str) -> Iterator[None]:
    """Turns whatever a decoder raises into one sentence, and keeps its warnings from the user."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ScanError, MissingExtraError):
        raise
    except MemoryError as error:
        raise ScanError(f"{path} does not fit into memory; crop it or use a larger machine.") from error
    except Image.DecompressionBombError as error:
        raise ScanError(
            f"{path} says it has more than the {MAX_PIXELS:,} pixels that are read; crop or reduce it."
        ) from error
    except Exception as error:
        why = textwrap.shorten(str(error).strip() or type(error).__name__, 100, placeholder=" ...")
        raise ScanError(f"{path} is a damaged or unsupported {what} file ({why}); copy or export it again.") from error


def not_too_large(path: Path, shape: tuple[int, ...]) -> None:
    count = 1
    for n in shape:
        count *= int(n)
    if count > MAX_PIXELS:
        raise ScanError(
            f"{path} says it has {' x '.join(map(str, shape))} pixels, more than the {MAX_PIXELS:,} that are read; "
            "crop or reduce it."
        )


def made(
    path: Path,
    values: NDArray[Any],
    value_range: tuple[float, float] | None,
    spacing: tuple[float, ...] | None = None,
    notices: tuple[str, ...] = (),
) -> Scan:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and that is said below
        pixels = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    if not bool(torch.isfinite(pixels).all()):
        raise ScanError(f"{path} has pixels that are NaN or infinite; repair or mask them before explaining.")
    low, high = float(pixels.min()), float(pixels.max())
    if low == high:
        raise ScanError(f"{path} has the same value in every pixel; choose a scan that shows something.")
    if value_range is None:
        value_range = (low, high)
        notices += (f"shown from {low:g} to {high:g}, its own minimum and maximum",)
    elif high <= value_range[0] or low >= value_range[1]:
        value_range = (low, high)
        notices += (f"the display window shows no pixel: shown from {low:g} to {high:g}",)
    return Scan(pixels, value_range, spacing, str(path), notices)
