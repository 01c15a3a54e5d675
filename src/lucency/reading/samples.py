"""Pictures to their samples, as they are stored. Runs here and in the worker, and so knows nothing of Lucency.

Pillow reads everything but what it would bend. Deep TIFF (16 bits in colour would become 8, unsigned 32 negative,
signed 8 unsigned) and plain TIFF (one that lies on its side would come out garbled) are read by tifffile, deep colour
PNG by imagecodecs, HEIC by pi-heif. Each function gives ``[H, W]``, ``[H, W, 3]`` (colour), ``[H, W, 4]`` (and
transparency) or ``[C, H, W]`` (channels that are no colour) of the file's own dtype, turned as the file says it is
to be looked at.
"""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # its warnings about odd files are not for the user

Facts = dict[str, Any]
"""``notices``: what was decided; ``range``: the values shown as black and white, where the file states them;
``frames``: there are several, none was named, and the pixels mean nothing; ``missing``: there is no such frame."""

EXIF_ORIENTATION = 274
POLARITY, MINIMUM, MAXIMUM = 262, 280, 281
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, SEPARATED, LAB = 0, 1, 2, 3, 5, 8
KNOWN = (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, SEPARATED, LAB)
"""Photometric interpretations of TIFF that are turned to grey here; Pillow knows the others at 8 bits."""
MOST_THUMBNAILS = 32
SEVERAL = -1
"""In ``frames``: more than one, not counted."""
NOTHING = np.zeros((1, 1), np.uint8)
TURNED_ROUND = "white-is-zero turned round: bright = dense"
EIGHT_OF_SIXTEEN = "16 bits in several channels are read as 8; pip install 'lucency[pictures]' to keep them"


def decode(source: Path | bytes, kind: str, frame: int | None, pixels: int) -> tuple[NDArray[Any], Facts]:
    """The samples of one frame.

    Args:
        kind: ``PNG``, ``JPEG``, ``TIFF``, ``BMP``, ``GIF``, ``WEBP``, ``JPEG2000``, ``AVIF`` or ``HEIC``.
        frame: which, from 0.
        pixels: how many a frame may have.
    """
    opened: Path | IO[bytes] = io.BytesIO(source) if isinstance(source, bytes) else source
    if kind == "TIFF":
        return _tiff(opened, frame, pixels)
    if kind == "HEIC":
        return _heic(opened, frame, pixels)
    with plugin(kind)(opened) as image:
        within(image.size, pixels)
        if frame is None and _several(image):
            return NOTHING, {"frames": SEVERAL if kind == "GIF" else image.n_frames}
        if frame:
            try:
                image.seek(frame)
            except EOFError:
                return NOTHING, {"missing": True}
        if is_deep_png(image):
            return _deep_png(source, image)
        return from_pillow(image)


def plugin(kind: str) -> Any:
    """What opens the format in Pillow. ``Image.open`` would add a limit on pixels of its own, and other formats."""
    from PIL import (
        BmpImagePlugin,
        GifImagePlugin,
        Jpeg2KImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    if kind == "AVIF":
        from PIL import AvifImagePlugin

        return AvifImagePlugin.AvifImageFile
    return {
        "PNG": PngImagePlugin.PngImageFile,
        "JPEG": JpegImagePlugin.JpegImageFile,
        "TIFF": TiffImagePlugin.TiffImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
        "GIF": GifImagePlugin.GifImageFile,
        "WEBP": WebPImagePlugin.WebPImageFile,
        "JPEG2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    }[kind]


def within(size: tuple[int, ...], pixels: int) -> None:
    count = 1
    for n in size:
        count *= int(n)
    if count > pixels:
        raise ValueError(f"{' x '.join(map(str, size))} pixels, more than the {pixels:,} that are read")


def from_pillow(image: Any) -> tuple[NDArray[Any], Facts]:
    """The samples of an image that Pillow holds or has opened."""
    notices: list[str] = []
    facts: Facts = {"notices": notices}
    said = _orientation(image)
    image.load()
    if (
        image.format == "TIFF"
        and said >= 5
        and (image.size[1], image.size[0]) != (image.tag_v2[256], image.tag_v2[257])
    ):
        raise ValueError("Pillow turns it wrongly; hand over the path, or save it upright")
    tags = getattr(image, "tag_v2", {})
    clear = "transparency" in image.info
    mode = image.mode
    if mode in ("P", "PA"):
        values = np.asarray(image.convert("RGBA" if clear or mode == "PA" else "RGB"))
        notices.append("palette looked up")
    elif mode in ("LA", "La") or (mode in ("1", "L") and clear):
        values = np.asarray(image.convert("LA"))
        values, facts["range"] = _over_black(values[..., 0], values[..., 1], notices), (0, 255)
    elif mode in ("RGBA", "RGBa") or (mode == "RGB" and clear):
        values = np.asarray(image.convert("RGBA"))
    elif mode in ("RGB", "RGBX", "CMYK", "YCbCr", "HSV"):
        values = np.asarray(image.convert("RGB"))
    elif mode == "LAB":
        values = np.asarray(image)[..., 0]
        notices.append("Lab colour: its lightness is read")
    elif mode in ("1", "L", "I", "F") or mode.startswith("I;16"):
        values = np.asarray(image)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        if mode in ("1", "L") and tags.get(POLARITY) == WHITE_IS_ZERO:
            notices.append(TURNED_ROUND)
        if mode == "I" and image.format == "PNG":
            values = values.astype(np.uint16)
        if mode == "I" and tags and tags.get(258) == (32,) and tags.get(339, (1,)) == (1,):
            values = values.view(np.uint32)
        if mode.startswith("I;16") and tags.get(POLARITY) == WHITE_IS_ZERO:
            values = _turned_round(values, notices, 16)  # Pillow does so at 8 bits and not at 16
        bits = (tags.get(258) or (16,))[0]
        if mode.startswith("I;16") and bits < 16:
            facts["range"] = (0, 2**bits - 1)
    else:
        raise ValueError(f"pixels of the kind {mode!r}")
    if mode not in ("I", "F") and not mode.startswith("I;16") and 16 in (tags.get(258) or ()):
        notices.append(EIGHT_OF_SIXTEEN)
    left = _orientation(image)  # Pillow turns TIFF by itself
    if said != 1:
        notices.append("turned as the file's orientation says")
    return turned(values, left), facts


def turned(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """``[H, W, ...]`` as it is to be looked at, for an orientation of EXIF or TIFF (1 to 8)."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values


def _orientation(image: Any) -> int:
    try:
        said = int(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block is no reason to refuse the pixels
        return 1
    return said if 1 <= said <= 8 else 1


def _several(image: Any) -> bool:
    if image.format == "GIF":  # which counts by decoding them all
        try:
            image.seek(1)
        except EOFError:
            return False
        image.seek(0)
        return True
    return bool(getattr(image, "n_frames", 1) > 1)


def _over_black(grey: NDArray[Any], alpha: NDArray[Any], notices: list[str]) -> NDArray[Any]:
    opaque = np.iinfo(alpha.dtype).max
    if (alpha == opaque).all():
        return grey
    notices.append("transparent parts lie over black")
    return np.asarray(grey.astype(np.float32) * (alpha.astype(np.float32) / np.float32(opaque)))


def _turned_round(values: NDArray[Any], notices: list[str], bits: int) -> NDArray[Any]:
    """Reflected within the depth of the file, or within the values' own range where the depth says nothing."""
    notices.append(TURNED_ROUND)
    if values.dtype.kind == "b":
        return np.asarray(np.logical_not(values))
    if values.dtype.kind == "u" and bits <= 16:
        return np.asarray(values.dtype.type(2**bits - 1) - values)
    low, high = values.min(), values.max()
    reflected: NDArray[Any] = np.asarray(high - (values - low))
    return reflected


# Deep PNG.


def is_deep_png(image: Any) -> bool:
    """Whether Pillow would keep 8 of 16 bits."""
    tiles = getattr(image, "tile", None) or ()
    return image.format == "PNG" and any("16B" in str(tile[3]) and not str(tile[3]).startswith("I") for tile in tiles)


def _deep_png(source: Path | bytes, image: Any) -> tuple[NDArray[Any], Facts]:
    try:
        import imagecodecs
    except ImportError:
        values, facts = from_pillow(image)
        facts["notices"].append(EIGHT_OF_SIXTEEN)
        return values, facts
    values = imagecodecs.png_decode(source if isinstance(source, bytes) else source.read_bytes())
    notices: list[str] = []
    said = _orientation(image)
    if said != 1:
        notices.append("turned as the file's orientation says")
    facts = {"notices": notices}
    if values.ndim == 3 and values.shape[2] == 2:
        values, facts["range"] = _over_black(values[..., 0], values[..., 1], notices), (0, 65535)
    return turned(values, said), facts


# HEIC.


def _heic(opened: Any, frame: int | None, pixels: int) -> tuple[NDArray[Any], Facts]:
    import pi_heif

    images = pi_heif.open_heif(opened, convert_hdr_to_8bit=False)
    # One container may hold a burst; viewers show its primary image.
    if frame is not None and frame >= len(images):
        return NOTHING, {"missing": True}
    image = images[images.primary_index if frame is None else frame]
    within(image.size, pixels)
    # A copy: the memory is libheif's, and goes with the image. Its rows may be longer than the picture.
    values = np.array(image)[:, : image.size[0]]
    facts: Facts = {"notices": []}
    if values.dtype == np.uint16:
        facts["range"] = (0, 65535)  # stretched to 16 bits, however many there were
    return values, facts


# TIFF.


def _tiff(opened: Any, frame: int | None, pixels: int) -> tuple[NDArray[Any], Facts]:
    import tifffile

    with tifffile.TiffFile(opened) as file:
        if frame is None and _has_pages(file):
            return NOTHING, {"frames": SEVERAL}
        try:
            page: Any = file.pages[frame or 0]
        except IndexError:
            return NOTHING, {"missing": True}
        within(tiff_size(page), pixels)
        deep = page.sampleformat != 1 or page.bitspersample > 8
        if deep or (page.compression == 1 and page.bitspersample in (1, 8) and int(page.photometric) in KNOWN):
            try:
                return _with_tifffile(page)
            except ValueError as error:
                if "imagecodecs" not in str(error):
                    raise
    if not isinstance(opened, Path):
        opened.seek(0)
    with plugin("TIFF")(opened) as image:
        if frame:
            image.seek(frame)
        return from_pillow(image)


def tiff_size(page: Any) -> tuple[int, ...]:
    """Pixels along each axis; channels count where there are more than a colour has."""
    deep = int(page.imagedepth) * -(-int(page.samplesperpixel) // 4)
    return (int(page.imagelength), int(page.imagewidth), *((deep,) if deep > 1 else ()))


def _has_pages(file: Any) -> bool:
    """Whether there is another picture than the first and its thumbnails; looks at as few directories as that needs."""
    for i in range(1, MOST_THUMBNAILS):
        try:
            page: Any = file.pages[i]
        except IndexError:
            return False
        if not (page.is_reduced or page.is_mask):
            return True
    return True


def _with_tifffile(page: Any) -> tuple[NDArray[Any], Facts]:
    notices: list[str] = []
    facts: Facts = {"notices": notices}
    values = np.asarray(page.asarray(maxworkers=1))
    axes = page.axes
    if axes.startswith("S"):
        values, axes = np.moveaxis(values, 0, -1), axes[1:] + "S"
    if axes not in ("YX", "YXS"):
        raise ValueError(f"axes {axes}")
    kind, bits = int(page.photometric), int(page.bitspersample)
    top = 2**bits - 1 if values.dtype.kind == "u" else None
    extra = [int(e) for e in page.extrasamples]
    colours = {RGB: 3, SEPARATED: 4, LAB: 3}.get(kind, values.shape[-1] if axes == "YXS" else 1)
    if kind == PALETTE:
        table = np.asarray(page.colormap)
        values = np.moveaxis((table if bits > 8 else (table >> 8).astype(np.uint8))[:, values], 0, -1)
        notices.append("palette looked up")
    elif kind == LAB:
        values = values[..., 0]
        notices.append("Lab colour: its lightness is read")
    elif kind == SEPARATED:
        ink = values[..., :4].astype(np.float32) / np.float32(top or 1)
        values = (1 - ink[..., :3]) * (1 - ink[..., 3:]) * np.float32(top or 1)
        facts["range"] = (0, top or 1)
    elif kind == RGB:
        alpha = values[..., 3] if len(extra) and values.shape[-1] > 3 and extra[0] == 2 else None
        values = values[..., :3]
        if alpha is not None:
            values = np.concatenate([values, alpha[..., None]], -1)
        elif extra:
            notices.append("channels beyond red, green and blue are left out")
    elif kind in (WHITE_IS_ZERO, BLACK_IS_ZERO):
        if axes == "YXS" and colours == 2 and extra and extra[0] in (1, 2):
            grey, alpha = values[..., 0], values[..., 1]
            values = _over_black(grey, alpha, notices) if extra[0] == 2 and values.dtype.kind == "u" else grey
            facts["range"] = None if top is None else (0, top)
        elif axes == "YXS":
            facts["channels_first"] = True
        if kind == WHITE_IS_ZERO:
            values = _turned_round(values, notices, bits)
    else:
        raise ValueError(f"photometric interpretation {page.photometric}")
    stated = page.tags.get(MINIMUM), page.tags.get(MAXIMUM)
    if bits not in (1, 8, 16, 32, 64) and top is not None:
        facts["range"] = (0, top)
    elif stated[1] is not None and values.dtype.kind in "iu" and kind == BLACK_IS_ZERO:
        low = 0 if stated[0] is None else stated[0].value
        low, high = (v[0] if isinstance(v, tuple) else v for v in (low, stated[1].value))
        if 0 <= low < high:
            facts["range"] = (low, high)
            notices.append(f"shown from {low} to {high}, as the file states")
    said = page.tags.get(EXIF_ORIENTATION)
    orientation = int(said.value) if said is not None and 1 <= int(said.value) <= 8 else 1
    if orientation != 1:
        notices.append("turned as the file's orientation says")
    values = turned(values, orientation)
    if facts.get("channels_first"):
        values = np.moveaxis(values, -1, 0)
    return values, facts
