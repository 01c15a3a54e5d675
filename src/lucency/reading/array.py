"""NumPy arrays in ``.npy`` files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lucency.errors import ScanError
from lucency.reading.common import decoding, made, not_too_large
from lucency.scan import Scan


def read_npy(path: Path) -> Scan:
    with decoding(path, "NumPy"):
        try:
            lazy = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            if (
                "allow_pickle" in str(error)
                or "Object arrays" in str(error)
                or "Array can't be memory-mapped" in str(error)
            ):
                raise ScanError(
                    f"{path} holds Python objects, which are not opened because unpickling can run code; "
                    "save a plain numeric array."
                ) from error
            raise
        if lazy.dtype.kind not in "biuf":
            raise ScanError(f"{path} holds {lazy.dtype} values; save real numbers.")
        if lazy.ndim not in (2, 3, 4) or 0 in lazy.shape:
            raise ScanError(f"{path} has shape {list(lazy.shape)}; save [H, W], [C, H, W] or [C, D, H, W].")
        if lazy.ndim == 3 and lazy.shape[2] in (3, 4) and lazy.shape[0] > 4:
            raise ScanError(f"{path} has shape {list(lazy.shape)}, channels last; save one channel, or [C, H, W].")
        not_too_large(path, lazy.shape)
        values = np.array(lazy)
    if values.ndim == 2:
        values = values[None]
    if values.dtype == np.uint8:
        return made(path, values, (0.0, 255.0))
    if values.dtype.kind == "f" and np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1:
        return made(path, values, (0.0, 1.0))
    return made(path, values, None)
