"""The parts of a DICOM file that a scan is made from: its header and one frame, taken within limits."""

from __future__ import annotations

import importlib
import io
import math
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from numpy.typing import NDArray

from lucency.errors import ScanError
from lucency.reading.common import not_too_large

DEFLATED = "1.2.840.10008.1.2.1.99"
IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
PIXEL_DATA = 0x7FE00010
READS, SECONDS = 1_000_000, 15.0
"""A header that takes more reads or time than this is refused: some 300,000 elements, hundreds of megabytes."""
HEADER = 32 * 2**20
"""Bytes that a deflated header may inflate to."""
VALUE, SEQUENCE, ITEMS = 2**18, 2**24, 200_000
"""Bytes of one value, bytes of one sequence and items in it that are looked into."""


class Stream(Protocol):
    """What pydicom reads from."""

    def read(self, count: int = -1) -> bytes: ...
    def seek(self, offset: int, whence: int = 0) -> int: ...
    def tell(self) -> int: ...
    def left(self, wanted: int) -> int:
        """How many of so many bytes there are from here on."""


class Patience:
    """Ends the reading of a header that has no end."""

    def __init__(self) -> None:
        self.reads, self.until = 0, time.monotonic() + SECONDS

    def spend(self) -> None:
        self.reads += 1
        if self.reads > READS or time.monotonic() > self.until:
            raise ValueError("its header has no end")


class Bounded:
    """A file of which no more is asked than there is, and not without end: lengths in a header may lie.

    Where ``complete`` is set, asking for more is an error: decoders make up what is missing, or wait for it for ever.
    """

    complete = False

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.size, self.patience = file, size, Patience()
        self.seek, self.tell = file.seek, file.tell

    def read(self, count: int = -1) -> bytes:
        self.patience.spend()
        left = max(self.size - self.file.tell(), 0)
        if self.complete and count > left:
            raise ValueError("it ends in the middle of its pixels")
        return self.file.read(left if count < 0 else min(count, left))

    def left(self, wanted: int) -> int:
        return min(wanted, self.size - self.file.tell())


class Inflating:
    """A deflated stream, inflated as far as it is read and never beyond ``limit`` bytes."""

    def __init__(self, file: Stream, limit: int) -> None:
        self.file, self.limit, self.at, self.patience = file, limit, 0, Patience()
        self.decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
        self.data = bytearray()

    def read(self, count: int = -1) -> bytes:
        self.patience.spend()
        there = self.left(self.limit if count < 0 else count)
        with memoryview(self.data) as data:
            got = bytes(data[self.at : self.at + there])
        self.at += len(got)
        return got

    def left(self, wanted: int) -> int:
        end = min(self.at + wanted, self.limit)
        while len(self.data) < end and not self.decompressor.eof:
            chunk = self.decompressor.unconsumed_tail or self.file.read(2**16)
            if not chunk:
                break
            self.data += self.decompressor.decompress(chunk, end - len(self.data))
        return max(min(len(self.data), end) - self.at, 0)

    def seek(self, offset: int, whence: int = 0) -> int:
        assert whence == io.SEEK_SET
        self.at = offset
        return offset

    def tell(self) -> int:
        return self.at


@dataclass(frozen=True)
class DicomFile:
    """A header, and where the pixels lie.

    Attributes:
        header: the dataset without its pixels.
        stream: positioned at the value of Pixel Data.
        length: bytes of that value, ``None`` where it is encapsulated.
        pixel_vr: its value representation.
        syntax: UID of the transfer syntax.
    """

    name: str
    header: Any
    stream: Stream
    length: int | None
    pixel_vr: str
    syntax: str

    def get(self, keyword: str) -> Any:
        """The value of an element of the header, ``None`` where there is none or it is empty.

        Raises:
            ScanError: when it is out of all proportion, because pydicom makes an object of each of its parts.
        """
        element = self.header.get_item(keyword)
        raw = None if element is None else element.value
        if isinstance(raw, bytes):
            limit = SEQUENCE if keyword.endswith("Sequence") else VALUE
            if len(raw) > limit or (keyword.endswith("Sequence") and raw.count(b"\xfe\xff\x00\xe0") > ITEMS):
                raise ScanError(f"{self.name} is damaged: its {keyword} has no end; copy or export it again.")
        value = self.header.get(keyword)
        return None if value is None or (isinstance(value, str) and not value.strip()) else value

    def number(self, keyword: str) -> float | None:
        """The first value of a numeric element, ``None`` where there is none or it is no finite number."""
        value = self.get(keyword)
        try:
            value = float(value[0] if isinstance(value, Sequence) and not isinstance(value, str) else value)
        except (TypeError, ValueError, IndexError):
            return None
        return value if math.isfinite(value) else None

    def word(self, keyword: str) -> str:
        """The first value of an element of text, in capitals."""
        value = self.get(keyword)
        if isinstance(value, Sequence) and not isinstance(value, str):
            value = value[0] if value else ""
        return str(value or "").strip().upper()


def opened(path: Path, file: IO[bytes]) -> DicomFile:
    """The film in a file that stays open as long as it is used."""
    reading = importlib.import_module("pydicom.filereader")
    stream: Stream = Bounded(file, path.stat().st_size)
    # The meta group first: pydicom would inflate the whole of a deflated file, however much that is.
    reading.read_preamble(stream, True)
    meta = reading.read_dataset(stream, False, True, stop_when=lambda tag, vr, length: int(tag) >> 16 != 2)
    syntax = str(meta.get("TransferSyntaxUID", "")) or IMPLICIT
    if syntax == DEFLATED:
        stream = Inflating(stream, HEADER)
        header = reading.read_dataset(stream, False, True, stop_when=_at_pixels)
        implicit, little = False, True
        if len(stream.data) >= HEADER:
            raise ValueError("its header has no end")
    else:
        stream.seek(0)
        header = reading.read_partial(stream, _at_pixels, force=True)
        implicit, little = header.original_encoding
    order: Literal["little", "big"] = "little" if little else "big"
    head = stream.read(8)
    if (int.from_bytes(head[:2], order), int.from_bytes(head[2:4], order)) != (0x7FE0, 0x0010):
        return DicomFile(str(path), header, stream, 0, "", syntax)
    vr = "OW" if implicit else head[4:6].decode("ascii", "replace")
    wide = stream.read(4) if vr in ("OB", "OW", "UN") and not implicit else b""
    length = int.from_bytes(wide or head[4 if implicit else 6 : 8], order)
    if not meta.get("TransferSyntaxUID") and not implicit:
        syntax = EXPLICIT if little else BIG_ENDIAN
    return DicomFile(str(path), header, stream, None if length == 0xFFFFFFFF else length, vr, syntax)


def _at_pixels(tag: Any, vr: str | None, length: int) -> bool:
    return int(tag) in (0x7FE00008, 0x7FE00009, PIXEL_DATA)


def held(dataset: Any, name: str) -> DicomFile:
    """The film in a dataset in memory."""
    pydicom = importlib.import_module("pydicom")
    # Neither pixels nor sequences are copied, and what is written to the header does not reach the caller's dataset.
    elements = {tag: dataset.get_item(tag) for tag in dataset.keys() if tag != PIXEL_DATA}  # noqa: SIM118
    header = pydicom.Dataset(elements)
    implicit, little = dataset.original_encoding
    header.set_original_encoding(implicit, little is not False, "iso8859")
    syntax = str(getattr(dataset, "file_meta", {}).get("TransferSyntaxUID", "") or IMPLICIT)
    if PIXEL_DATA not in dataset:
        return DicomFile(name, header, Bounded(io.BytesIO(), 0), 0, "", syntax)
    element = dataset[PIXEL_DATA]
    value = bytes(element.value or b"")
    encapsulated = pydicom.uid.UID(syntax).is_transfer_syntax and pydicom.uid.UID(syntax).is_encapsulated
    return DicomFile(
        name,
        header,
        Bounded(io.BytesIO(value), len(value)),
        None if encapsulated else len(value),
        str(element.VR),
        syntax,
    )


def codestream(film: DicomFile, index: int, frames: int) -> bytes:
    """The compressed data of one frame."""
    tables = {}
    if "ExtendedOffsetTable" in film.header and "ExtendedOffsetTableLengths" in film.header:
        tables["extended_offsets"] = (film.header.ExtendedOffsetTable, film.header.ExtendedOffsetTableLengths)
    assert isinstance(film.stream, Bounded)  # what is compressed is not deflated as well
    film.stream.complete = True
    frame: bytes = importlib.import_module("pydicom.encaps").get_frame(
        film.stream, index, number_of_frames=frames, **tables
    )
    return frame


def plain(film: DicomFile, index: int, options: dict[str, Any]) -> tuple[NDArray[Any], int]:
    """The numbers of one frame that is not compressed: ``[rows, columns]``, or ``[rows, columns, 3]`` in RGB.

    With them comes the number of bytes that lie behind the last frame.

    Args:
        options: pydicom's image pixel options.
    """
    assert film.length is not None
    half = options["photometric_interpretation"] == "YBR_FULL_422"
    numbers = options["rows"] * options["columns"] * (2 if half else options["samples_per_pixel"])
    needed, whole = (-(-n * numbers * options["bits_allocated"] // 8) for n in (index + 1, options["number_of_frames"]))
    if isinstance(film.stream, Inflating):
        not_too_large(film.name, (index + 1, options["rows"], options["columns"]))
        film.stream.limit = film.stream.at + needed
    there = film.stream.left(min(needed, film.length))
    if there < needed:
        raise ScanError(
            f"{film.name} is damaged: it has {there:,} of the {needed:,} bytes of its pixels; copy or export it again."
        )
    decoder = importlib.import_module("pydicom.pixels").get_decoder(film.syntax)
    as_it_lies = options["bits_stored"] == options["bits_allocated"]  # else pydicom clears the other bits in a copy
    values: NDArray[Any] = decoder.as_array(
        film.stream, index=index, view_only=as_it_lies, pixel_vr=film.pixel_vr, pixel_keyword="PixelData", **options
    )[0]
    return values, film.length - whole
