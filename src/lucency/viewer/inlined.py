"""The viewer as a part of one file: its module as text, and packed arrays as text that is small enough to be mailed."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucency.viewer.packing import pack

MODULES = (
    "packing",
    "carried",
    "words",
    "palettes",
    "fields",
    "screen",
    "shapes",
    "styles",
    "painter",
    "controls",
    "viewer",
    "linked",
)
"""Each imports only from those before it."""
_IMPORT = re.compile(r"^import \{[^}]*\} from \"\./\w+\.js\";\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:class|const|function|let) )", re.MULTILINE)
_COMMENT = re.compile(r"^ *(?:/\*\*(?:(?!\*/).)*\*/|// [^\n]*)\n", re.MULTILINE | re.DOTALL)


def module(*more: str) -> str:
    """The source of the viewer as one module that imports nothing, then of ``more`` modules, whose names it is given.

    A file that was mailed can import nothing, and the modules of a notebook's widget are one text.
    """
    folder = files("lucency.viewer") / "static"
    sources = [(folder / f"{name}.js").read_text(encoding="utf-8") for name in (*MODULES, *more)]
    return "".join(_COMMENT.sub("", _EXPORT.sub("", _IMPORT.sub("", source))) for source in sources)


def carried(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Packed arrays as text: compressed, base64; ``carried`` in carried.js reads it.

    Films stay as they are. Maps are kept in 16 bits: a value comes back to within 1/131070 of what the map spans, and
    takes a tenth of the room.
    """
    kept: dict[str, NDArray[Any]] = {}
    differences = {}
    for name, array in arrays.items():
        if array.dtype == np.uint8:
            kept[name] = array
            continue
        low, step = 0.0, 1.0
        counts = array
        if array.dtype == np.float32:
            low = float(array.min())
            step = (float(array.max()) - low) / 65535 or 1.0
            counts = np.rint((array.astype(np.float64) - low) / step).astype(np.uint16)
        differences[name] = {"dtype": array.dtype.name, "shape": list(array.shape), "low": low, "step": step}
        kept[name] = _differences(counts)
    data = zlib.compress(pack({**header, "differences": differences}, kept), 9)
    return base64.b64encode(data).decode()


def _differences(counts: NDArray[Any]) -> NDArray[np.uint8]:
    """What each pixel adds to its left neighbour and that line to the line above, as low bytes and high bytes."""
    wide = counts.astype(np.int64)
    across = np.diff(wide, axis=1, prepend=0)
    both = np.diff(across, axis=0, prepend=0).astype(np.uint16)
    found: NDArray[np.uint8] = np.stack([both & 255, both >> 8]).astype(np.uint8)
    return found
