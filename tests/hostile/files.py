"""Hostile files of every kind but DICOM: bombs, lies in headers, loops; and drawn changes of sound files."""

from __future__ import annotations

import gzip
import io
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from bad_inputs import changed
from kinds import C8, L8, L16, VOXELS, heic, itk, nifti


def png_of(width: int, height: int) -> bytes:
    """A sound small file whose header promises another size."""
    data = bytearray(_saved("PNG"))
    data[16:24] = struct.pack(">2I", width, height)
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def jpeg_of(width: int, height: int) -> bytes:
    data = bytearray(_saved("JPEG"))
    frame = data.index(b"\xff\xc0") + 5
    data[frame : frame + 4] = struct.pack(">2H", height, width)
    return bytes(data)


def gif_of(width: int, height: int) -> bytes:
    data = bytearray(_saved("GIF"))
    data[6:10] = struct.pack("<2H", width, height)
    return bytes(data)


def bmp_of(width: int, height: int) -> bytes:
    data = bytearray(_saved("BMP"))
    data[18:26] = struct.pack("<2i", width, height)
    return bytes(data)


def webp_of(width: int, height: int) -> bytes:
    return (
        b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0"
        + (width - 1).to_bytes(3, "little")
        + (height - 1).to_bytes(3, "little")
    )


def jpeg_2000_of(width: int, height: int) -> bytes:
    """A few hundred bytes, a codestream of almost nothing."""
    data = bytearray(_saved("JPEG2000", no_jp2=True))
    size = data.index(b"\xff\x51") + 6
    data[size : size + 8] = struct.pack(">2I", width, height)
    data[size + 16 : size + 24] = struct.pack(">2I", width, height)  # one tile
    return bytes(data)


def tiff_of(width: int, height: int, bits: int = 8, compression: int = 1, pixels: bytes = b"") -> bytes:
    entries = [
        (256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, compression), (262, 3, 1), (273, 4, 110),
        (278, 4, height), (279, 4, len(pixels)),
    ]  # fmt: skip
    data = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    for tag, kind, value in entries:
        data += struct.pack("<HHII", tag, kind, 1, value)
    return data + bytes(110 - len(data)) + pixels


def tiff_loop() -> bytes:
    """A directory that says that the next one is itself."""
    data = bytearray(tiff_of(8, 8, pixels=bytes(range(64))))
    data[106:110] = struct.pack("<I", 8)
    return bytes(data)


def tiff_bomb(size: int) -> bytes:
    """A strip that promises 64 bytes and inflates to ``size``."""
    return tiff_of(8, 8, compression=8, pixels=zlib.compress(bytes(size), 9))


def npy_of(*shape: int) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(64)


def nifti_of(path: Path, *sizes: int) -> Path:
    return changed(path, 42, struct.pack("<3h", *sizes))


def nifti_far(path: Path) -> Path:
    """Pixels that begin a terabyte into the file."""
    return changed(path, 108, struct.pack("<f", 1e12))


def gzip_bomb(path: Path, size: int) -> Path:
    """A sound volume, and zeros without end behind it."""
    whole = changed(path.with_name("sound.nii"), 0, b"")
    path.write_bytes(gzip.compress(whole.read_bytes() + bytes(size), 9))
    return path


def _saved(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(L8).save(file, kind, **options)
    return file.getvalue()


SIZED: dict[str, Callable[[int, int], bytes]] = {
    "x.png": png_of, "x.jpg": jpeg_of, "x.gif": gif_of, "x.bmp": bmp_of, "x.webp": webp_of, "x.jp2": jpeg_2000_of,
    "x.tif": tiff_of, "x.npy": npy_of,
}  # fmt: skip
"""Small files whose header promises any size."""


@cache
def sound() -> tuple[tuple[str, bytes], ...]:
    """Sound files of every kind, small."""
    found = list(_pictures())
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for make in (heic, nifti(VOXELS), nifti(np.stack([VOXELS] * 2, 3)), itk("x.nrrd"), itk("x.mha")):
            try:
                path = make(place)
            except ImportError:
                continue
            found.append((path.name, path.read_bytes()))
            if path.name.endswith(".nii.gz"):
                found.append(("x.nii", gzip.decompress(path.read_bytes())))
        for i, values in enumerate((L8, L16.astype(">u2"), VOXELS.astype(np.float64))):
            np.save(place / f"{i}.npy", values)
            found.append(("x.npy", (place / f"{i}.npy").read_bytes()))
    return tuple(found)


def _pictures() -> Iterator[tuple[str, bytes]]:
    def saved(name: str, values: NDArray[Any], mode: str | None = None, **options: Any) -> tuple[str, bytes]:
        file = io.BytesIO()
        picture = Image.fromarray(values)
        (picture if mode is None else picture.convert(mode)).save(file, **options)
        return name, file.getvalue()

    more = [Image.fromarray(255 - L8)]
    for kind, name in (("PNG", "x.png"), ("GIF", "x.gif"), ("BMP", "x.bmp"), ("JPEG", "x.jpg"), ("WEBP", "x.webp")):
        yield saved(name, L8, format=kind)
        yield saved(name, C8, format=kind)
    yield saved("x.png", L16, format="PNG")
    yield saved("x.png", L8, "P", format="PNG")
    yield saved("x.jpg", C8, format="JPEG", progressive=True)
    yield saved("x.jp2", L8, format="JPEG2000")
    yield saved("x.jp2", C8, format="JPEG2000")
    yield saved("x.avif", L8, format="AVIF")
    for kind, name in (("GIF", "x.gif"), ("PNG", "x.png"), ("WEBP", "x.webp")):
        yield saved(name, L8, format=kind, save_all=True, append_images=more)
    for compression in ("tiff_lzw", "jpeg", "group4", "packbits"):
        yield saved("x.tif", L8, "1" if compression == "group4" else None, format="TIFF", compression=compression)
    for values, options in (
        (L16, {}), (C8, {"photometric": "rgb", "compression": "zlib"}), (L16, {"tile": (16, 16), "bigtiff": True}),
        (L16.astype(np.float32), {"byteorder": ">"}), (L8, {"photometric": "miniswhite"}),
    ):  # fmt: skip
        file = io.BytesIO()
        tifffile.imwrite(file, values, **options)
        yield "x.tif", file.getvalue()


WORDS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutated(generator: np.random.Generator) -> tuple[str, str, bytes]:
    """One drawn change of one sound file: what it was, its name and its bytes."""
    name, whole = sound()[generator.integers(len(sound()))]
    data = bytearray(gzip.decompress(whole) if (inner := name.endswith(".gz") and generator.random() < 0.7) else whole)
    # Headers decide: most changes fall there.
    end = len(data) if generator.random() < 0.4 else min(len(data), 400)
    for _ in range(int(generator.integers(1, 4))):
        at = int(generator.integers(end))
        match generator.integers(6):
            case 0:
                data[at] = int(generator.integers(256))
            case 1:
                size, order = int(generator.choice((2, 4))), str(generator.choice(("little", "big")))
                word = int(generator.choice(WORDS)) & (256**size - 1)
                data[at : at + size] = word.to_bytes(size, order)  # type: ignore[arg-type]
            case 2:
                del data[at : at + int(generator.integers(1, 64))]
            case 3:
                data[at:at] = generator.bytes(int(generator.integers(1, 64)))
            case 4:
                data[at:at] = data[at : at + 64]
            case 5:
                del data[max(at, 8) :]
        end = max(1, min(end, len(data)))
        if not data:
            data = bytearray(1)
    if name.endswith(".png") and generator.random() < 0.7:
        _mend(data)
    return f"{name} of {len(whole)} bytes", name, gzip.compress(bytes(data), 1) if inner else bytes(data)


def _mend(data: bytearray) -> None:
    """Right check sums, so that changes get behind them."""
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + length > len(data):
            return
        data[at + 8 + length : at + 12 + length] = zlib.crc32(data[at + 4 : at + 8 + length]).to_bytes(4, "big")
        at += 12 + length
