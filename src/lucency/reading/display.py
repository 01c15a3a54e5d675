"""From the numbers in a DICOM file to the picture that a viewer shows, look-up table by look-up table.

The steps of PS3.3 C.11: stored values, Modality LUT, VOI LUT or window, Presentation LUT, polarity. What is linear
stays in the file's units and becomes the two values shown as black and white; what is not is applied to the pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucency.errors import ScanError
from lucency.reading.dicom_file import DicomFile

Range = tuple[float, float]


@dataclass(frozen=True)
class Table:
    """A look-up table (PS3.3 C.11.1.1.1, C.11.2.1.1): ``entries[0]`` for ``first`` and below, and so on upwards."""

    entries: NDArray[np.float32]
    first: int
    bits: int
    name: str = ""

    def __str__(self) -> str:
        return self.name or "a look-up table"

    @property
    def range(self) -> Range:
        return 0.0, 2.0**self.bits - 1

    def __call__(self, values: NDArray[Any]) -> NDArray[np.float32]:
        places = np.rint(values) - self.first if values.dtype.kind == "f" else values.astype(np.int64) - self.first
        return self.entries[np.clip(places, 0, len(self.entries) - 1).astype(np.intp)]


def table(item: Any, name: str, little_endian: bool, signed: bool) -> Table:
    """The table of one item of a LUT sequence.

    Args:
        name: the file, for messages.
        little_endian: byte order of the file.
        signed: whether the values that go in may be negative.
    """
    count, first, bits = (int(v) for v in item.LUTDescriptor)
    count = (count & 0xFFFF) or 2**16
    if signed and first >= 2**15:
        first -= 2**16
    data = item.LUTData
    if isinstance(data, bytes):
        width = 1 if len(data) in (count, count + count % 2) and bits <= 8 else 2
        entries = np.frombuffer(data[: len(data) // width * width], ("<" if little_endian else ">") + f"u{width}")
    else:
        entries = np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF
        if len(entries) == count // 2 and bits <= 8:  # two entries to a word
            entries = np.stack([entries & 0xFF, entries >> 8], 1).ravel()
    if len(entries) < count or not 1 <= bits <= 16:
        raise ScanError(f"{name} is damaged: a look-up table in its header is cut; copy or export it again.")
    entries = entries[:count].astype(np.float32)
    # Some writers state fewer bits than they use.
    bits = max(bits, int(entries.max()).bit_length())
    return Table(entries, first, bits, str(item.get("LUTExplanation", "") or "").strip())


@dataclass(frozen=True)
class Window:
    """A window (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""

    centre: float
    width: float
    function: str = "LINEAR"
    name: str = ""

    def usable(self) -> bool:
        finite = math.isfinite(self.centre) and math.isfinite(self.width)
        return finite and (self.width >= 1 if self.function == "LINEAR" else self.width > 0)

    def __call__(self, values: NDArray[np.float32]) -> tuple[NDArray[np.float32], Range]:
        if self.function == "SIGMOID":
            with np.errstate(over="ignore"):
                return 1 / (1 + np.exp(-4 * (values - np.float32(self.centre)) / np.float32(self.width))), (0.0, 1.0)
        centre, width = (self.centre - 0.5, self.width - 1) if self.function == "LINEAR" else (self.centre, self.width)
        if width == 0:
            return (values > centre).astype(np.float32), (0.0, 1.0)
        return values, (centre - width / 2, centre + width / 2)

    def __str__(self) -> str:
        return f"{self.centre:g}/{self.width:g}"


def windows(film: DicomFile) -> list[Window]:
    """All windows of the header, in its order."""
    names = _many(film.get("WindowCenterWidthExplanation"))
    function = film.word("VOILUTFunction") or "LINEAR"
    pairs = zip(_many(film.get("WindowCenter")), _many(film.get("WindowWidth")), strict=False)
    return [
        Window(_number(centre), _number(width), function, str(names[i]).strip() if i < len(names) else "")
        for i, (centre, width) in enumerate(pairs)
    ]


def _many(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def chosen_view(name: str, found: Sequence[Window], tables: Sequence[Table], wanted: str | int) -> Window | Table:
    """The window or VOI LUT that the user means: a window by its number, from 1, or either by its explanation."""
    views: list[Window | Table] = [*found, *tables]
    if str(wanted).strip().isdecimal():
        if 1 <= int(wanted) <= len(found):
            return found[int(wanted) - 1]
    else:
        for view in views:
            if view.name.casefold() == str(wanted).strip().casefold() and view.name:
                return view
    words = [f"{i} {w.name or w}" for i, w in enumerate(found, 1)] + [t.name for t in tables if t.name]
    raise ScanError(
        f"{name} has no window {str(wanted)!r}; " + (f"choose one of {', '.join(words)}." if words else "it has none.")
    )
