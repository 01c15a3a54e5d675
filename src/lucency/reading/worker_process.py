"""The process in which untrusted codecs run. It is started as a script and knows nothing of Lucency.

It reads a request (length, JSON, bytes), decodes within the limits of memory and time that the request names, answers
(length, JSON, pixels), and ends when its input does.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import signal
import struct
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

try:
    import resource
except ImportError:  # not a POSIX system: nothing limits memory but the size of what is asked for
    resource = None  # type: ignore[assignment]

TWELVE_BIT_JPEG = "1.2.840.10008.1.2.4.51"


def dicom(data: bytes, syntax: str, **header: Any) -> tuple[NDArray[Any], dict[str, Any]]:
    """Stored values of one encapsulated frame: ``[rows, columns]`` or ``[rows, columns, 3]``, RGB where it was YBR.

    Args:
        data: the frame's codestream, without item tags.
        syntax: UID of the transfer syntax.
        header: the image pixel attributes, as pydicom's decoders name them.
    """
    pixels = importlib.import_module("pydicom.pixels")
    if syntax == TWELVE_BIT_JPEG and header["bits_stored"] > 8:
        return _twelve_bit_jpeg(data, **header), {"left_over": 0}
    frame = importlib.import_module("pydicom.encaps").encapsulate([data])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        header |= {"number_of_frames": 1, "pixel_keyword": "PixelData"}
        values, _ = pixels.get_decoder(syntax).as_array(frame, index=0, **header)
    # pydicom says in words alone that run-length data goes on after the last pixel.
    lengths = [re.search(r"(\d+) vs. (\d+) bytes expected", str(warning.message)) for warning in said]
    return values, {"left_over": max((int(found[1]) - int(found[2]) for found in lengths if found), default=0)}


def _twelve_bit_jpeg(data: bytes, rows: int, columns: int, bits_stored: int, **header: Any) -> NDArray[Any]:
    """Extended JPEG of 12 bits: GDCM decodes it, and pydicom does not ask it to."""
    gdcm = importlib.import_module("gdcm")
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(data)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(
        gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2"))
    )
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(TWELVE_BIT_JPEG)))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, bits_stored, bits_stored - 1, header["pixel_representation"]))
    pixels = image.GetBuffer().encode("utf-8", "surrogateescape")
    return np.frombuffer(pixels, np.int16 if header["pixel_representation"] else np.uint16).reshape(rows, columns)


def picture(data: bytes, kind: str, frame: int | None, pixels: int) -> tuple[NDArray[Any], dict[str, Any]]:
    """What ``samples.decode`` gives; that file too knows nothing of Lucency, and is found by its place."""
    spec = importlib.util.spec_from_file_location("lucency_samples", Path(__file__).with_name("samples.py"))
    assert spec is not None
    assert spec.loader is not None
    samples = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(samples)
    image: Any = importlib.import_module("PIL.Image")
    image.MAX_IMAGE_PIXELS = None  # one limit holds for all: ``pixels``
    values, facts = samples.decode(data, kind, frame, pixels)
    return values, facts


def volume(data: bytes, path: str) -> tuple[NDArray[Any], dict[str, Any]]:
    """Voxels ``[(t,) (z,) y, x(, channels)]`` of what ITK reads, and its geometry with axes in the order of ITK."""
    import SimpleITK

    image: Any = SimpleITK.ReadImage(path)
    values = SimpleITK.GetArrayFromImage(image)
    if values.dtype.kind not in "iuf":
        raise ValueError(f"{values.dtype} values")
    return values, {
        "axes": image.GetDimension(),
        "channels": image.GetNumberOfComponentsPerPixel(),
        "spacing": image.GetSpacing(),
        "direction": image.GetDirection(),
    }


KINDS: dict[str, tuple[Callable[..., tuple[NDArray[Any], dict[str, Any]]], tuple[str, ...]]] = {
    "dicom": (dicom, ("pydicom.pixels", "pydicom.pixels.decoders", "gdcm", "openjpeg", "jpeg_ls")),
    "volume": (volume, ("SimpleITK",)),
    "picture": (
        picture,
        ("PIL.Image", "PIL.TiffImagePlugin", "PIL._webp", "PIL._avif", "tifffile", "imagecodecs", "pi_heif"),
    ),
}
"""Each kind's decoder, and the modules that are loaded before memory is limited, where they are installed."""


def answer(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], NDArray[Any] | None]:
    decoder, modules = KINDS[request["kind"]]
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError:
            continue
    limit(request["memory"], request["seconds"])
    try:
        pixels, facts = decoder(data, **request["options"])
        pixels = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
        return {"shape": pixels.shape, "dtype": pixels.dtype.str, "facts": facts}, pixels
    except MemoryError:
        return {"error": "memory"}, None
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        return {"error": "refused", "why": why[:200].rstrip(".:; ")}, None


def limit(memory: int, seconds: float) -> None:
    """From here on the process grows by no more than ``memory`` bytes, and ends if it is stuck and nobody is left."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds + 5)
    if resource is None:
        return
    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123
            now = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = now + memory if hard == resource.RLIM_INFINITY else min(now + memory, hard)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    except (OSError, ValueError):  # a system that has the limit's name and not the limit
        return


def unlimited() -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)
    if resource is not None:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def exactly(source: IO[bytes], count: int) -> bytes:
    data = source.read(count)
    if len(data) < count:
        sys.exit(0)
    return data


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process itself
    # What a native library prints must not get into the answers.
    source, target = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "r+b") as nothing:  # noqa: PTH123
        for number in (0, 1, 2):
            os.dup2(nothing.fileno(), number)
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    while True:
        (length,) = struct.unpack("<I", exactly(source, 4))
        request = json.loads(exactly(source, length))
        data = exactly(source, request["bytes"])
        facts, pixels = answer(request, data)
        del data
        head = json.dumps(facts).encode()
        target.write(struct.pack("<I", len(head)) + head)
        if pixels is not None:
            target.write(memoryview(pixels.reshape(-1)).cast("B"))  # type: ignore[arg-type]
        target.flush()
        del pixels
        unlimited()


if __name__ == "__main__":
    main()
