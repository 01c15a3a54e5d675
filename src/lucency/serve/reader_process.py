"""The process in which uploads are read. It is started as a script and speaks as ``reading.worker_process`` does.

All of reading happens here, not codecs alone: whatever a file does to a parser, it does not do it to the server.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucency.errors import LucencyError
from lucency.reading import read_scan, worker_process


def scan(
    data: bytes, path: str, pixels: int, value_range: list[float] | None, **options: Any
) -> tuple[NDArray[Any], dict[str, Any]]:
    """What :func:`lucency.read_scan` gives for a file: its pixels, and the rest as plain values."""
    os.environ["LUCENCY_MAX_PIXELS"] = str(pixels)
    shown = None if value_range is None else (value_range[0], value_range[1])
    try:
        film = read_scan(Path(path), value_range=shown, **options)
    except LucencyError as error:
        return np.zeros(1, np.uint8), {"error": str(error)}
    return film.pixels.numpy(), {
        "value_range": film.value_range,
        "spacing": film.spacing,
        "notices": film.notices,
        "view": film.view,
        "modality": film.modality,
    }


if __name__ == "__main__":
    heavy = ("lucency.reading", *(m for _, modules in worker_process.KINDS.values() for m in modules))
    worker_process.KINDS["scan"] = (scan, (*heavy, "nibabel"))
    worker_process.main()
