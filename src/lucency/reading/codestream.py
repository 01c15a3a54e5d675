"""What a compressed picture says of its own size, read from its first bytes: no decoder is handed a contradiction."""

from __future__ import annotations

import struct
from typing import NamedTuple

JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 201, 202, 203))
RLE = ("1.2.840.10008.1.2.5",)
START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""JPEG markers that open a frame; the three others of this row hold tables. F7 is JPEG-LS."""


class Size(NamedTuple):
    rows: int
    columns: int
    samples: int
    bits: int


def jpeg_size(data: bytes) -> Size | None:
    """From the frame header of JPEG and JPEG-LS (ITU-T T.81 B.2.2, T.87 C.2.2)."""
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill
            at += 1
            continue
        if marker in START_OF_FRAME:
            if at + 10 > len(data):
                return None
            bits, rows, columns, samples = struct.unpack_from(">BHHB", data, at + 4)
            return Size(rows, columns, samples, bits)
        if marker in (0xD9, 0xDA):  # the picture ends or its numbers begin, and no frame was opened
            return None
        (length,) = struct.unpack_from(">H", data, at + 2)
        at += 2 + max(length, 2)
    return None


def jpeg_2000_size(data: bytes) -> Size | None:
    """From the SIZ marker of a codestream, within its boxes or without (ITU-T T.800 A.5.1)."""
    at = data.find(b"\xff\x4f\xff\x51", 0, 2**16)
    if at < 0 or at + 44 > len(data):
        return None
    right, bottom, left, top = struct.unpack_from(">4I", data, at + 8)
    samples, depth = struct.unpack_from(">HB", data, at + 40)[0], data[at + 42]
    return Size(bottom - top, right - left, samples, (depth & 0x7F) + 1)


def rle_fits(data: bytes, segments: int) -> bool:
    """Whether the header of an RLE frame (PS3.5 G.5) names that many segments, in order and within the data."""
    if len(data) < 64:
        return False
    count, *offsets = struct.unpack_from("<16I", data)
    used = offsets[:count]
    return count == segments and used[0] == 64 and used == sorted(used) and used[-1] <= len(data)


def contradiction(data: bytes, syntax: str, promised: Size, allocated: int) -> str:
    """In what the picture differs from the header that came with it; empty where they agree.

    Args:
        data: one frame's codestream.
        syntax: UID of its transfer syntax.
        promised: what the DICOM header says.
        allocated: bits that each number of the decoded picture has room for.
    """
    if syntax in RLE:
        segments = promised.samples * -(-allocated // 8)
        return "" if rle_fits(data, segments) else f"its data is no RLE picture of {segments} segments"
    room = (8, 16, 32) if syntax in JPEG_2000 else (8, 16)
    if syntax in JPEG_2000 + JPEG + JPEG_LS and allocated not in room:
        return f"its header gives each number {allocated} bits, which no such picture has"
    if syntax in JPEG_2000:
        size = jpeg_2000_size(data)
    elif syntax in JPEG + JPEG_LS:
        size = jpeg_size(data)
    else:
        return ""
    if size is None:
        return "its data does not begin as such a picture does"
    if syntax in JPEG_LS and b"\xff\xd9" not in data[-16:]:
        return "its data has no end, which a decoder would look for"
    if size[:3] != promised[:3]:
        told, meant = (f"{s.rows} x {s.columns} pixels of {s.samples} sample(s)" for s in (size, promised))
        return f"its data holds {told}, and its header says {meant}"
    if size.bits > allocated:
        return f"its data holds numbers of {size.bits} bits, and its header says {allocated}"
    return ""
