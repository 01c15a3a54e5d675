"""Arrays as bytes that a browser reads without copying: one header in JSON, then the numbers.

Little-endian: uint32 length N of the header, N bytes of UTF-8 JSON (padded with spaces so that 4 + N is a multiple of
4), then the arrays one after another in C order, each padded with zeros to a multiple of 4 bytes. The header is any
JSON object; its entry ``arrays`` lists ``{"name", "dtype", "shape"}`` of each. ``static/packing.js`` is the same for
the browser.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucency.errors import OutputError, ParameterError

DTYPES = {"float32": "<f4", "uint16": "<u2", "uint8": "|u1"}
_UNIT = 4


def pack(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """A header and its arrays as bytes.

    Args:
        header: plain values under text keys, none of them called ``arrays``; numbers that are not finite become null.
        arrays: float32, uint16 or uint8 of any shape and layout, by name.

    Raises:
        ParameterError: for an array of another dtype, or a header with an entry of its own called ``arrays``.
    """
    if "arrays" in header:
        raise ParameterError("The entry 'arrays' of a header lists the arrays themselves; give yours another name.")
    listed, blobs = [], []
    for name, array in arrays.items():
        dtype = array.dtype.name
        if dtype not in DTYPES:
            raise ParameterError(f"The array {name!r} holds {dtype}; turn it into one of {', '.join(DTYPES)} first.")
        listed.append({"name": name, "dtype": dtype, "shape": list(array.shape)})
        blob = array.astype(DTYPES[dtype], order="C", copy=False).tobytes()
        blobs += [blob, bytes(-len(blob) % _UNIT)]
    said = json.dumps(_plain({**header, "arrays": listed}), allow_nan=False, ensure_ascii=False)
    # Names of files may hold bytes that are no text; as escapes they are JSON all the same.
    text = said.encode(errors="backslashreplace")
    text += b" " * (-len(text) % _UNIT)
    return b"".join([struct.pack("<I", len(text)), text, *blobs])


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """What :func:`pack` was given: the header without its entry ``arrays``, and read-only arrays by name.

    Raises:
        OutputError: when the bytes are cut short, too long or something else.
    """
    try:
        (size,) = struct.unpack_from("<I", data)
        header = json.loads(data[_UNIT : _UNIT + size].decode())
        at, found = _UNIT + size, {}
        for entry in header.pop("arrays"):
            dtype, shape = np.dtype(DTYPES[entry["dtype"]]), tuple(entry["shape"])
            if not all(isinstance(n, int) and n >= 0 for n in shape):
                raise ValueError
            count = math.prod(shape)
            found[str(entry["name"])] = np.frombuffer(data, dtype, count, at).reshape(shape)
            length = count * dtype.itemsize
            at += length + -length % _UNIT
    except (AttributeError, KeyError, TypeError, ValueError, struct.error) as error:
        raise OutputError("These bytes are no packed arrays, or they are damaged; fetch them again.") from error
    if at != len(data):
        raise OutputError("These packed arrays are cut short or too long; fetch them again.")
    return header, found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
