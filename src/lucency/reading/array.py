"""NumPy arrays in ``.npy`` files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucency.errors import ScanError
from lucency.reading.common import decoding, not_too_large
from lucency.scan import Scan


def read_npy(path: Path, value_range: tuple[float, float] | None = None) -> Scan:
    """The scan that ``Scan.from_array`` makes of the array."""
    with decoding(path, "NumPy"):
        return Scan.from_array(plain_array(path), value_range=value_range, source=str(path))


def plain_array(path: Path) -> NDArray[Any]:
    """The array in a ``.npy`` file, when it is of numbers and no larger than a scan may be."""
    with decoding(path, "NumPy"):
        try:
            # A map of the file: one that promises more than the file holds is refused before memory is taken.
            lazy = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            if "Python objects" in str(error) or "Object arrays" in str(error):
                raise ScanError(
                    f"{path} holds Python objects, which are not opened because unpickling can run code; "
                    "save a plain numeric array."
                ) from error
            raise
        if not isinstance(lazy, np.ndarray) or lazy.dtype.kind not in "biuf":
            raise ScanError(f"{path} holds no plain array of real numbers; save one with numpy.save.")
        not_too_large(path, lazy.shape)
        return np.array(lazy)
