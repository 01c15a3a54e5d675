"""PNG, JPEG and TIFF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from lucency.errors import ScanError
from lucency.reading.common import LUMA, decoding, made, not_too_large
from lucency.scan import Scan

TIFF_BITS, TIFF_POLARITY = 258, 262


def opened(path: Path) -> ImageFile.ImageFile:
    """The picture with its header read. Not by ``Image.open``, which has a limit on pixels of its own."""
    with path.open("rb") as file:
        head = file.read(8)
    kind: type[ImageFile.ImageFile] = TiffImagePlugin.TiffImageFile
    if head.startswith(b"\x89PNG"):
        kind = PngImagePlugin.PngImageFile
    elif head.startswith(b"\xff\xd8\xff"):
        kind = JpegImagePlugin.JpegImageFile
    return kind(path)


def read_picture(path: Path) -> Scan:
    notices: tuple[str, ...] = ()
    with decoding(path, "image"), opened(path) as image:
        tags = dict(getattr(image, "tag_v2", {}))
        not_too_large(path, image.size)
        if getattr(image, "n_frames", 1) > 1:
            raise ScanError(f"{path} has several pages; save the one that is to be explained.")
        if image.mode in ("P", "PA"):
            raise ScanError(f"{path} is a colour-palette image, whose numbers are not grey values; save it as grey.")
        if image.mode in ("1", "L", "I;16", "I;16B", "I;16L", "I", "F"):
            values = np.asarray(image.convert("L") if image.mode == "1" else image)
        elif image.mode in ("RGB", "RGBA", "LA", "CMYK", "YCbCr"):
            colour = np.asarray(image.convert("RGB"), np.float32)
            values = colour @ LUMA
            if image.mode not in ("LA",) and float(np.ptp(colour, axis=2).max()) > 0:
                notices += ("colour turned to grey (ITU-R BT.601 luma)",)
            elif image.mode != "LA":
                notices += ("RGB with equal channels turned to grey",)
            if image.mode in ("RGBA", "LA"):
                notices += ("transparency dropped",)
            if 16 in (tags.get(TIFF_BITS) or ()) or (image.format == "PNG" and path.read_bytes()[24] == 16):
                notices += ("16 bits in several channels are read as 8",)
            return made(path, values[None], (0.0, 255.0), None, notices)
        else:
            raise ScanError(f"{path} has pixels of the kind {image.mode!r}; save it as 8- or 16-bit grey.")
    low, high = values.min(), values.max()
    if values.dtype == np.uint8:
        return made(path, values[None], (0.0, 255.0))
    if values.dtype.kind == "f" or low < 0 or high > 65535:
        return made(path, values[None], (0.0, 1.0) if low >= 0 and high <= 1 else None)
    if image.mode.startswith("I;16") and tags.get(TIFF_POLARITY) == 0:
        # Pillow turns films whose white is zero round at 8 bits and leaves them at 16.
        values = 65535 - values.astype(np.int32)
        notices += ("white-is-zero turned round: bright = dense",)
        return made(path, values[None], (0.0, 65535.0), None, notices)
    bits = next((b for b in (8, 10, 12, 14) if high < 2**b), 16)
    if bits < 16:
        notices += (f"16-bit file whose values fit {bits} bits: shown from 0 to {2**bits - 1}",)
    return made(path, values[None], (0.0, 2.0**bits - 1), None, notices)
