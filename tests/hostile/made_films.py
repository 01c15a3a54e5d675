"""DICOM films of every compression, and the ways in which one word of them can lie."""

from __future__ import annotations

import struct
import tempfile
import zlib
from functools import cache
from pathlib import Path

import gdcm
import numpy as np
from numpy.typing import NDArray
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from bad_inputs import dicom, saved

PLAIN = ("ImplicitVRLittleEndian", "ExplicitVRLittleEndian", "ExplicitVRBigEndian", "DeflatedExplicitVRLittleEndian")
COMPRESSED = (
    "RLELossless",
    "JPEGBaselineProcess1",
    "JPEGExtendedProcess2_4",
    "JPEGLosslessProcess14",
    "JPEGLosslessProcess14_1",
    "JPEGLSLossless",
    "JPEGLSNearLossless",
    "JPEG2000Lossless",
    "JPEG2000",
)
HEADER = {"Rows": 0x10, "Columns": 0x11, "SamplesPerPixel": 0x02, "BitsAllocated": 0x100, "BitsStored": 0x101}
HEADER |= {"HighBit": 0x102, "PixelRepresentation": 0x103, "PlanarConfiguration": 0x06}
VALUES = {
    "Rows": (0, 1, 39, 41, 64, 80, 4000, 65535),
    "Columns": (0, 1, 47, 49, 64, 96, 4000, 65535),
    "SamplesPerPixel": (0, 2, 3, 4, 255),
    "BitsAllocated": (0, 1, 7, 8, 12, 16, 32, 64, 65535),
    "BitsStored": (0, 1, 7, 8, 12, 16, 32, 65535),
    "HighBit": (0, 7, 15, 31, 65535),
    "PixelRepresentation": (1, 2, 65535),
    "PlanarConfiguration": (1, 2),
}


def values(eight_bits: bool, colour: bool) -> NDArray[np.generic]:
    ramp = np.linspace(0, 255 if eight_bits else 4095, 40 * 48).reshape(40, 48)
    ramp = np.stack([ramp, ramp[::-1], ramp[:, ::-1]], 2) if colour else ramp
    return ramp.astype(np.uint8 if eight_bits else np.uint16)


@cache
def film(syntax: str, colour: bool = False) -> bytes:
    """A sound film of 40 x 48 pixels, compressed by GDCM."""
    numbers = values(colour or syntax == "JPEGBaselineProcess1", colour)
    tags: dict[str, object] = {"BitsStored": 8 if numbers.itemsize == 1 else 12, "PlanarConfiguration": 0}
    if colour:
        tags |= {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}
    with tempfile.TemporaryDirectory() as folder:
        path = saved(dicom(numbers, **tags), Path(folder) / "plain.dcm")
        reader, writer, change = gdcm.ImageReader(), gdcm.ImageWriter(), gdcm.ImageChangeTransferSyntax()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return path.read_bytes()


def edited(data: bytes, name: str, value: int) -> bytes:
    """The film with one number of its header changed, where it has it."""
    order = ">" if b"1.2.840.10008.1.2.2\0" in data[:400] else "<"
    tag = struct.pack(order + "HH", 0x28, HEADER[name])
    for head in (tag + b"US" + struct.pack(order + "H", 2), tag + struct.pack("<I", 2)):
        at = data.find(head)
        if at > 0:
            at += len(head)
            return data[:at] + struct.pack(order + "H", value) + data[at + 2 :]
    return data


def mutated(random: np.random.Generator) -> tuple[str, bytes]:
    """A film with one drawn word changed: of its header, of any place, of a length, or cut short; and what was done."""
    syntax = str(random.choice(PLAIN + COMPRESSED * 3))
    colour = bool(random.random() < 0.25) and syntax not in ("JPEGExtendedProcess2_4",)
    data = bytearray(film(syntax, colour))
    done = [syntax + " in colour" * colour]
    for _ in range(int(random.choice([1, 1, 1, 2, 4]))):
        kind = random.choice(["header", "header", "word", "pixels", "length", "cut", "syntax"])
        at = int(random.integers(132, len(data) - 4))
        if kind == "header":
            name = str(random.choice(list(VALUES)))
            value = int(random.choice(VALUES[name]) if random.random() < 0.7 else random.integers(65536))
            data = bytearray(edited(bytes(data), name, value))
            done.append(f"{name}={value}")
        elif kind == "cut":
            data = data[: max(at, 300)]
            done.append(f"cut at {at}")
        elif kind == "syntax":
            tail = str(random.choice([".50", ".51", ".57", ".70", ".80", ".81", ".90", ".91"]))
            place = bytes(data[:400]).find(b"1.2.840.10008.1.2.4.")
            if place > 0:
                data[place + 19 : place + 22] = tail.encode()
                done.append("syntax " + tail)
        else:
            if kind == "pixels":
                at = max(int(len(data) * 0.5), bytes(data).rfind(b"\xfe\xff\x00\xe0")) + int(random.integers(0, 80))
                at = min(at, len(data) - 4)
            size = 4 if kind == "length" else 2
            word = random.choice([0, 1, 0xFF, 0x7FFF, 0xFFFE, 0xFFFF, int(random.integers(65536))])
            data[at : at + size] = struct.pack("<I", int(word) * (65537 if kind == "length" else 1))[:size]
            done.append(f"{kind} at {at} = {int(word)}")
    return ", ".join(done), bytes(data)


def deflated(path: Path, size: int, private: bool = False) -> Path:
    """A film that is deflated, whose pixels, or a private element before them, go on for ``size`` bytes."""
    data = dicom(values(True, False))
    data.PixelData = b""
    saved(data, path)
    body = path.read_bytes()
    body = body[body.find(b"\x08\x00\x16\x00UI") :]
    at = body.find(b"\xe0\x7f\x10\x00")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    pieces = [packer.compress(body[:at])]
    tag = b"\x29\x00\x10\x10OB\0\0" if private else b"\xe0\x7f\x10\x00OB\0\0"
    pieces.append(packer.compress(tag + struct.pack("<I", size)))
    block = bytes(2**22)
    pieces += [packer.compress(block) for _ in range(size // len(block))]
    pieces.append(packer.compress(bytes(size % len(block))))
    if private:
        pieces.append(packer.compress(b"\xe0\x7f\x10\x00OB\0\0" + struct.pack("<I", 40 * 48) + bytes(range(240)) * 8))
    pieces.append(packer.flush())
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    with path.open("wb") as file:
        file.write(bytes(128) + b"DICM")
        write_file_meta_info(file, data.file_meta)
        file.write(b"".join(pieces))
    return path
