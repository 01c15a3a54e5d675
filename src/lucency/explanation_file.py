"""The file of an explanation: a zip of float32 ``.npy`` arrays and ``explanation.json``, no pickle, no trust.

What is read was perhaps made by hand: sizes are bounded before anything is inflated, streams are cut where the header
says that they end, and everything that other parts of Lucency rely on has the type and shape that they rely on.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from lucency.errors import OutputError
from lucency.records import Contents, Provenance
from lucency.writing import whole

Map = NDArray[np.float32]

FORMAT = "lucency-explanation-1"
MOST_VALUES = 2**28
"""Numbers in all arrays of a file together: 1 GiB, five maps of a volume of 512 x 512 x 200."""
MOST_ARRAYS = 100
MOST_JSON = 2**24
"""Bytes of ``explanation.json``."""
DEFLATE = 1040
"""No deflated stream grows by more than this."""
_RECORD = "explanation.json"
_CHUNK = 2**20
_HEADER = re.compile(
    rb"\{'descr': '<f4', 'fortran_order': (True|False), 'shape': \(((?:\d{1,9}, )*(?:\d{1,9},?)?)\), \} *\n"
)


def save(path: str | Path, arrays: Mapping[str, Map], contents: Contents) -> Path:
    """Writes arrays and what is said about them; numbers that are not finite become null.

    Raises:
        OutputError: when the file cannot be written; what was there before is there still.
    """
    text = json.dumps({"format": FORMAT, **contents.as_dict()}, indent=1, allow_nan=False)
    with whole(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_RECORD, text)
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                values = np.ascontiguousarray(array, dtype="<f4")
                np.lib.format.write_array(member, values, version=(1, 0), allow_pickle=False)
    return Path(path)


def load(path: str | Path) -> tuple[dict[str, Map], Contents]:
    """Reads what :func:`save` wrote: float32 arrays by name, and what is said about them.

    ``heatmap``, ``pixels`` and, for each name in ``contents.also``, ``also_0``, ... are there; all fit together and
    are finite.

    Raises:
        OutputError: when the file is missing, damaged, too large or something else.
    """
    path = Path(path)
    try:
        with _opened(path) as file, zipfile.ZipFile(file) as archive:
            members = _members(archive)
            contents = _contents(archive, members[_RECORD])
            arrays = _arrays(archive, members, contents)
        _fit_together(arrays, contents.provenance)
        return arrays, contents
    except KeyError as error:
        why = f"{error.args[0]} is missing"
    except OSError as error:
        why = error.strerror or str(error)
    except (MemoryError, RecursionError) as error:
        why = "it does not fit into memory" if isinstance(error, MemoryError) else "it is nested too deeply"
    except (ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
    raise OutputError(f"{path} is not an explanation that Lucency wrote ({why}); make it again.")


def _opened(path: Path) -> IO[bytes]:
    # A named pipe would keep us waiting for ever.
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is no file")
    file = path.open("rb")
    # The directory of the archive is read whole by whoever opens it, so it is looked at before.
    file.seek(max(0, file.seek(0, os.SEEK_END) - 42))
    tail = file.read()
    end = tail[-22:]
    if len(end) < 22 or not end.startswith(b"PK\x05\x06"):
        file.close()
        raise ValueError("it does not end as a zip archive does")
    count, size = struct.unpack("<HI", end[10:16])
    if tail[:-22].startswith(b"PK\x06\x07") or count > MOST_ARRAYS or size > 1000 * MOST_ARRAYS:
        file.close()
        raise ValueError("it holds too many files")
    file.seek(0)
    return file


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    found = {info.filename: info for info in archive.infolist()}
    if len(found) != len(archive.infolist()):
        raise ValueError("it holds two files of one name")
    for name, info in found.items():
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name} is compressed in a way that is not read")
    return found


def _contents(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Contents:
    with archive.open(info) as member:
        text = member.read(MOST_JSON + 1)
    if len(text) > MOST_JSON:
        raise ValueError(f"{_RECORD} has more than {MOST_JSON:,} bytes")

    def never(word: str) -> None:
        raise ValueError(f"{word} is no number in JSON")

    record = json.loads(text, parse_constant=never)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"{_RECORD} does not say {FORMAT}")
    contents = Contents.read(record, _RECORD)
    if len(contents.also) > MOST_ARRAYS - 3 or len(set(contents.also)) != len(contents.also):
        raise ValueError(f"also in {_RECORD} is not what it should be")
    if contents.probabilities and contents.provenance.question.name not in contents.probabilities:
        raise ValueError("it explains a class that has no probability")
    return contents


def _arrays(archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], contents: Contents) -> dict[str, Map]:
    also = [f"also_{i}" for i in range(len(contents.also))]
    wanted = ["heatmap", "pixels", *(["standard_error"] if "standard_error.npy" in members else []), *also]
    left, found = MOST_VALUES, {}
    for name in wanted:
        info = members[f"{name}.npy"]
        with archive.open(info) as member:
            found[name] = _array(member, name, left, info.compress_size)
        left -= found[name].size
    return found


def _array(member: IO[bytes], name: str, most: int, stored: int) -> Map:
    # Headers of version 1 are short; the later ones may say that they have 4 GiB.
    start = member.read(10)
    if len(start) < 10 or not start.startswith(b"\x93NUMPY\x01\x00"):
        raise ValueError(f"{name} is no array, or in another version of the array format")
    said = _HEADER.fullmatch(member.read(int.from_bytes(start[8:], "little")))
    if said is None:
        raise ValueError(f"{name} is no plain array of float32")
    turned, shape = said[1] == b"True", tuple(int(n) for n in said[2].split(b",") if n.strip())
    count = math.prod(shape)
    if len(shape) > 4 or not all(0 < n <= MOST_VALUES for n in shape) or count > most:
        raise ValueError(f"{name} says it has {' x '.join(map(str, shape))} values, more than are read")
    if 4 * count > DEFLATE * (stored + 1000):
        raise ValueError(f"{name} says it has more values than its bytes can hold")
    values = np.empty(count, "<f4")
    room = values.view(np.uint8).data
    at = 0
    while at < len(room):
        part = member.read(min(_CHUNK, len(room) - at))
        if not part:
            raise ValueError(f"{name} ends too early")
        room[at : at + len(part)] = part
        at += len(part)
    if member.read(1):
        raise ValueError(f"{name} goes on after its end")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} has values that are NaN or infinite")
    return values.reshape(shape, order="F" if turned else "C").astype(np.float32, order="C", copy=False)


def _fit_together(arrays: Mapping[str, Map], about: Provenance) -> None:
    heatmap, pixels = arrays["heatmap"], arrays["pixels"]
    axes = heatmap.ndim
    if axes not in (2, 3) or pixels.shape[1:] != heatmap.shape:
        raise ValueError("heatmap and pixels do not have the shapes of a map and its scan")
    if any(a.shape != heatmap.shape for name, a in arrays.items() if name != "pixels"):
        raise ValueError("its maps have different shapes")
    if pixels.min() < 0 or pixels.max() > 1:
        raise ValueError("pixels leave the range from 0 to 1")
    if "standard_error" in arrays and arrays["standard_error"].min() < 0:
        raise ValueError("a standard error is below 0")
    scan = about.scan
    if scan.shape != heatmap.shape or (scan.spacing is not None and len(scan.spacing) != axes):
        raise ValueError("shape and spacing of the scan do not fit its map")
    if len(about.model.grid) != axes or len(about.model.margins) != axes:
        raise ValueError("the grid of the model does not fit the map")
