"""PNG, JPEG, TIFF, BMP, GIF, WebP, JPEG 2000, AVIF and HEIC, and images that Pillow holds."""

from __future__ import annotations

import importlib.util
import math
import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from lucency.errors import MissingExtraError, ScanError
from lucency.reading import samples, worker
from lucency.reading.common import decoding, frame_index, made, max_pixels, not_too_large, span
from lucency.scan import Scan

HEAD = 2**20
"""Bytes in which the sizes of formats without a fixed header must stand."""


def kind_of_picture(head: bytes) -> str | None:
    """The format by its first bytes (16 are enough)."""
    if head.startswith(b"\x89PNG"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")):
        return "TIFF"
    if head.startswith(b"GIF8"):
        return "GIF"
    if head.startswith(b"BM"):
        return "BMP"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")):
        return "JPEG2000"
    if head[4:8] == b"ftyp":
        if head[8:12] in (b"avif", b"avis"):
            return "AVIF"
        if head[8:12] in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"):
            return "HEIC"
    return None


def read_picture(
    path: Path, kind: str, *, frame: int | None = None, value_range: tuple[float, float] | None = None
) -> Scan:
    """The scan in a file of a kind that :func:`kind_of_picture` names."""
    what = "pages" if kind == "TIFF" else "frames"
    index = None if frame is None else frame_index(path, frame, None, what)
    if kind == "HEIC" and importlib.util.find_spec("pi_heif") is None:
        raise MissingExtraError("Reading HEIC needs pi-heif; pip install 'lucency[pictures]'.")
    with decoding(path, kind):
        header = _header(path, kind, index)
        not_too_large(path, header.size)
        if header.least > path.stat().st_size:
            raise ScanError(f"{path} is damaged: it ends before its pixels do; copy or export it again.")
        if header.plain:
            values, facts = samples.decode(path, kind, index, max_pixels())
        else:
            values, facts = worker.decode(
                "picture",
                path,
                {"kind": kind, "frame": index, "pixels": max_pixels()},
                name=str(path),
                decoded=header.decoded,
            )
    if facts.get("missing"):
        raise ScanError(f"{path} has no {what.removesuffix('s')} {frame}; choose an earlier one.")
    if "frames" in facts:
        frame_index(path, None, None if facts["frames"] == samples.SEVERAL else facts["frames"], what)
    if header.deeper:
        facts["notices"].append(samples.EIGHT_OF_SIXTEEN.partition(";")[0])
    with decoding(path, kind):
        return _scan(values, facts, str(path), value_range)


def from_image(image: Image.Image, value_range: tuple[float, float] | None = None) -> Scan:
    """The scan that Pillow holds: the frame that it stands at, with the same pixels as its file has."""
    cut = samples.is_deep_png(image)
    with decoding("The image", "Pillow"):
        values, facts = samples.from_pillow(image)
    if cut:
        facts["notices"].append("Pillow reads 16 bits in several channels as 8; hand over the path to keep them")
    return _scan(values, facts, "memory", value_range)


def _scan(values: NDArray[Any], facts: dict[str, Any], source: str, value_range: tuple[float, float] | None) -> Scan:
    notices = tuple(facts["notices"])
    if value_range is not None:
        return _with(Scan.from_array(values, value_range=value_range, source=source), notices)
    stated = facts.get("range")
    shown = None if stated is None else (float(stated[0]), float(stated[1]))
    if shown is None and values.dtype.kind == "f":
        shown, said = span(values)
        notices += said
    return made(source, values, shown, None, notices)


def _with(scan: Scan, notices: tuple[str, ...]) -> Scan:
    return replace(scan, notices=notices + scan.notices)


@dataclass(frozen=True)
class _Header:
    """What is known before anything is decoded."""

    size: tuple[int, ...]
    """Pixels, rows first."""
    decoded: int
    """Bytes of the samples."""
    plain: bool
    """Decoded here: no codec is involved that could swell or crash."""
    deeper: bool = False
    """Several channels of more than the 8 bits that are read."""
    least: float = 0
    """Bytes that the file must have to hold so many pixels."""


def _header(path: Path, kind: str, frame: int | None) -> _Header:
    if kind == "TIFF":
        return _tiff_header(path, frame or 0)
    if kind in ("PNG", "JPEG", "GIF", "BMP"):
        with samples.plugin(kind)(path) as image:
            width, height = image.size
            progressive = bool(image.info.get("progressive"))
            plain = not (samples.is_deep_png(image) or progressive)
            # A code for the mean and one for the end of each block; the decoder would fill what is missing with grey.
            least = width * height / 64 * 2 / 8 if kind == "JPEG" and not progressive else 0
            decoded = width * height * len(image.getbands()) * (1 if plain else 2)
            return _Header((height, width), decoded, plain, least=least)
    with path.open("rb") as file:
        head = file.read(HEAD)
    if kind == "JPEG2000":
        siz = head.index(b"\xff\x4f\xff\x51")
        right, bottom, left, top = struct.unpack(">4I", head[siz + 8 : siz + 24])
        channels, depth = struct.unpack(">HB", head[siz + 40 : siz + 43])
        size, deep = (bottom - top, right - left), (depth & 0x7F) > 7
        return _Header(size, math.prod(size) * channels * (1 + deep), False, deep and channels > 1)
    if kind == "WEBP":
        size = _webp_size(head)
        return _Header(size, math.prod(size) * 4, False)
    sizes = [struct.unpack(">2I", found) for found in re.findall(rb"ispe....(.{8})", head, re.DOTALL)]
    width, height = max(sizes, key=math.prod)
    return _Header((height, width), height * width * 8, False)


def _tiff_header(path: Path, page: int) -> _Header:
    import tifffile

    with tifffile.TiffFile(path) as file:
        try:
            found: Any = file.pages[page]
        except IndexError:
            return _Header((1, 1), 1, True)  # which is said when it is asked for
        plain = int(found.compression) == 1
        decoded = math.prod(found.shape) * math.ceil(found.bitspersample / 8)
        least = math.prod(found.shape) * found.bitspersample / 8 if plain else 0
        return _Header(samples.tiff_size(found), decoded, plain, least=least)


def _webp_size(head: bytes) -> tuple[int, int]:
    if head[12:16] == b"VP8X":
        return int.from_bytes(head[27:30], "little") + 1, int.from_bytes(head[24:27], "little") + 1
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return ((bits >> 14) & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    width, height = struct.unpack("<2H", head[26:30])
    return height & 0x3FFF, width & 0x3FFF
