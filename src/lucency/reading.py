"""Reading scans: DICOM, PNG, JPEG, TIFF, NumPy and NIfTI, at full bit depth, with one clear sentence when it fails."""

from __future__ import annotations

import importlib
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lucency.errors import MissingExtraError, ScanError
from lucency.scan import Scan

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
MAX_PIXELS = 2**28
"""Files whose header promises more pixels than this are refused before they are decoded."""
TIFF_BITS, TIFF_POLARITY = 258, 262


def read_scan(path: str | Path) -> Scan:
    """Reads one radiograph or volume; the kind of file is found from its first bytes.

    * DICOM: any transfer syntax that the ``dicom`` extra decodes; rescale slope and intercept are applied, MONOCHROME1
      is turned round, the first VOI window (or LUT range) becomes the value range; spacing from ``PixelSpacing`` or
      ``ImagerPixelSpacing``.
    * PNG, JPEG, TIFF: 8 and 16 bit; the range of the bit depth is the value range (12 or so bits stored in 16 are
      noticed), signed, wider and float TIFF runs from its minimum to its maximum; colour is turned to grey.
    * ``.npy``: ``[H, W]`` or ``[C, (D,) H, W]``; ``uint8`` is shown from 0 to 255, floats within 0..1 from 0 to 1, all
      else from its minimum to its maximum.
    * NIfTI: ``[C, D, H, W]`` in the closest canonical orientation: D towards the head, H towards the front reversed
      (so anterior is up), W towards the left of the patient; spacing from the affine.

    Raises:
        ScanError: when the file is missing, empty, damaged, larger than ``MAX_PIXELS`` by its header, of one value
            throughout, or of a kind that is not one grey scan.
        MissingExtraError: when an optional package is needed to read it.
    """
    path = Path(path)
    if path.is_dir():
        raise ScanError(f"{path} is a folder; give the file of one scan.")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(348)
    except OSError as error:
        raise ScanError(f"{path} cannot be opened ({error.strerror}); check the name and the permissions.") from error
    if size == 0:
        raise ScanError(f"{path} is empty; copy or export it again.")
    if head[128:132] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom"):
        scan = _read_dicom(path)
    elif head.startswith(b"\x93NUMPY"):
        scan = _read_npy(path)
    elif path.name.lower().endswith((".nii", ".nii.gz")):
        scan = _read_nifti(path)
    elif head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*")):
        scan = _read_image(path)
    elif path.suffix.lower() in (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy"):
        raise ScanError(f"{path} is damaged: it does not begin as a {path.suffix} file does; copy or export it again.")
    elif _looks_like_bare_dicom(head):
        scan = _read_dicom(path)
    else:
        raise ScanError(f"{path} is no DICOM, PNG, JPEG, TIFF, NumPy or NIfTI file; convert it to one of these.")
    return replace(scan, source=str(path))


def _looks_like_bare_dicom(head: bytes) -> bool:
    """A data set without preamble begins with a tag of group 0002 or 0008."""
    return len(head) > 8 and head[:2] in (b"\x02\x00", b"\x08\x00") and head[4:6].isalpha()


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """Turns whatever a decoder raises into one sentence, and keeps its warnings from the user."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ScanError, MissingExtraError):
        raise
    except MemoryError as error:
        raise ScanError(f"{path} does not fit into memory; crop it or use a larger machine.") from error
    except Image.DecompressionBombError as error:
        raise ScanError(
            f"{path} says it has more than the {MAX_PIXELS:,} pixels that are read; crop or reduce it."
        ) from error
    except Exception as error:
        why = textwrap.shorten(str(error).strip() or type(error).__name__, 100, placeholder=" ...")
        raise ScanError(f"{path} is a damaged or unsupported {what} file ({why}); copy or export it again.") from error


def _not_too_large(path: Path, shape: tuple[int, ...]) -> None:
    count = 1
    for n in shape:
        count *= int(n)
    if count > MAX_PIXELS:
        raise ScanError(
            f"{path} says it has {' x '.join(map(str, shape))} pixels, more than the {MAX_PIXELS:,} that are read; "
            "crop or reduce it."
        )


def _scan(
    path: Path,
    values: NDArray[Any],
    value_range: tuple[float, float] | None,
    spacing: tuple[float, ...] | None = None,
    notices: tuple[str, ...] = (),
) -> Scan:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and that is said below
        pixels = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    if not bool(torch.isfinite(pixels).all()):
        raise ScanError(f"{path} has pixels that are NaN or infinite; repair or mask them before explaining.")
    low, high = float(pixels.min()), float(pixels.max())
    if low == high:
        raise ScanError(f"{path} has the same value in every pixel; choose a scan that shows something.")
    if value_range is None:
        value_range = (low, high)
        notices += (f"shown from {low:g} to {high:g}, its own minimum and maximum",)
    elif high <= value_range[0] or low >= value_range[1]:
        value_range = (low, high)
        notices += (f"the display window shows no pixel: shown from {low:g} to {high:g}",)
    return Scan(pixels, value_range, spacing, str(path), notices)


def _read_npy(path: Path) -> Scan:
    with _reading(path, "NumPy"):
        try:
            lazy = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            if (
                "allow_pickle" in str(error)
                or "Object arrays" in str(error)
                or "Array can't be memory-mapped" in str(error)
            ):
                raise ScanError(
                    f"{path} holds Python objects, which are not opened because unpickling can run code; "
                    "save a plain numeric array."
                ) from error
            raise
        if lazy.dtype.kind not in "biuf":
            raise ScanError(f"{path} holds {lazy.dtype} values; save real numbers.")
        if lazy.ndim not in (2, 3, 4) or 0 in lazy.shape:
            raise ScanError(f"{path} has shape {list(lazy.shape)}; save [H, W], [C, H, W] or [C, D, H, W].")
        if lazy.ndim == 3 and lazy.shape[2] in (3, 4) and lazy.shape[0] > 4:
            raise ScanError(f"{path} has shape {list(lazy.shape)}, channels last; save one channel, or [C, H, W].")
        _not_too_large(path, lazy.shape)
        values = np.array(lazy)
    if values.ndim == 2:
        values = values[None]
    if values.dtype == np.uint8:
        return _scan(path, values, (0.0, 255.0))
    if values.dtype.kind == "f" and np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1:
        return _scan(path, values, (0.0, 1.0))
    return _scan(path, values, None)


def _read_image(path: Path) -> Scan:
    notices: tuple[str, ...] = ()
    with _reading(path, "image"), Image.open(path) as image:
        tags = dict(getattr(image, "tag_v2", {}))
        _not_too_large(path, image.size)
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
            return _scan(path, values[None], (0.0, 255.0), None, notices)
        else:
            raise ScanError(f"{path} has pixels of the kind {image.mode!r}; save it as 8- or 16-bit grey.")
    low, high = values.min(), values.max()
    if values.dtype == np.uint8:
        return _scan(path, values[None], (0.0, 255.0))
    if values.dtype.kind == "f" or low < 0 or high > 65535:
        return _scan(path, values[None], (0.0, 1.0) if low >= 0 and high <= 1 else None)
    if image.mode.startswith("I;16") and tags.get(TIFF_POLARITY) == 0:
        # Pillow turns films whose white is zero round at 8 bits and leaves them at 16.
        values = 65535 - values.astype(np.int32)
        notices += ("white-is-zero turned round: bright = dense",)
        return _scan(path, values[None], (0.0, 65535.0), None, notices)
    bits = next((b for b in (8, 10, 12, 14) if high < 2**b), 16)
    if bits < 16:
        notices += (f"16-bit file whose values fit {bits} bits: shown from 0 to {2**bits - 1}",)
    return _scan(path, values[None], (0.0, 2.0**bits - 1), None, notices)


def _read_nifti(path: Path) -> Scan:
    try:
        nibabel = importlib.import_module("nibabel")
    except ImportError as error:
        raise MissingExtraError("Reading NIfTI needs nibabel; pip install 'lucency[nifti]'.") from error
    with _reading(path, "NIfTI"):
        image = nibabel.load(path)
        _not_too_large(path, image.shape)
        if len(image.shape) not in (3, 4):
            raise ScanError(f"{path} has {len(image.shape)} axes; save a volume, or a volume with channels last.")
        if np.dtype(image.get_data_dtype()).kind not in "iuf":
            raise ScanError(f"{path} holds {image.get_data_dtype()} values; save real numbers.")
        image = nibabel.as_closest_canonical(image)
        values = np.asarray(image.dataobj, np.float32)
        spacing = tuple(float(s) for s in image.header.get_zooms()[:3])
    values = values[..., None] if values.ndim == 3 else values
    # Canonical runs to the right, the front and the head; a picture begins at the front and at the patient's right.
    values = np.flip(values.transpose(3, 2, 1, 0), (2, 3))
    return _scan(path, values, None, (spacing[2], spacing[1], spacing[0]))


def _read_dicom(path: Path) -> Scan:
    try:
        pydicom = importlib.import_module("pydicom")
        processing = importlib.import_module("pydicom.pixels.processing")
    except ImportError as error:
        raise MissingExtraError("Reading DICOM needs pydicom; pip install 'lucency[dicom]'.") from error
    with _reading(path, "DICOM"):
        try:
            data = pydicom.dcmread(path, force=True)
        except pydicom.errors.InvalidDicomError as error:
            raise ScanError(f"{path} is not a DICOM file; check what it is.") from error
        if "PixelData" not in data:
            kind = getattr(getattr(data, "SOPClassUID", None), "name", "")
            if "SOPClassUID" not in data:
                raise ScanError(f"{path} is not a DICOM file or is damaged; copy or export it again.")
            raise ScanError(f"{path} holds no picture ({kind or 'a DICOM file without pixel data'}); choose an image.")
        frames = int(getattr(data, "NumberOfFrames", 1) or 1)
        if frames > 1:
            raise ScanError(f"{path} has {frames} frames; extract the one that is to be explained.")
        photometric = str(data.get("PhotometricInterpretation", ""))
        if photometric == "PALETTE COLOR":
            raise ScanError(f"{path} is a colour-palette image, whose numbers are not grey values; export it as grey.")
        _not_too_large(path, (int(data.Rows), int(data.Columns)))
        syntax = data.file_meta.get("TransferSyntaxUID") if hasattr(data, "file_meta") else None
        if syntax is None:
            data.file_meta = getattr(data, "file_meta", None) or pydicom.dataset.FileMetaDataset()
            data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        try:
            raw = _twelve_bit_jpeg(path) if _is_twelve_bit_jpeg(data) else data.pixel_array
        except RuntimeError as error:
            name = getattr(syntax, "name", syntax)
            raise ScanError(
                f"{path} is compressed as {name} and cannot be decoded; pip install 'lucency[dicom]', "
                "or export it uncompressed."
            ) from error
        notices: tuple[str, ...] = ()
        if raw.ndim == 3:
            values = raw.astype(np.float32) @ LUMA  # pydicom has turned YBR to RGB
            notices += ("colour turned to grey (ITU-R BT.601 luma)",)
            value_range = (0.0, 2.0 ** int(data.BitsStored) - 1)
        else:
            values = np.asarray(processing.apply_modality_lut(raw, data), np.float32)
            value_range, said = _window(data, values)
            notices += said
        if photometric == "MONOCHROME1":
            # Reflecting values within the range they are shown in keeps bright = dense and the numbers' size.
            values = value_range[0] + value_range[1] - values
            notices += ("MONOCHROME1 turned round: bright = dense",)
        try:
            millimetres = tuple(float(s) for s in data.get("PixelSpacing") or data.get("ImagerPixelSpacing") or ())
        except (TypeError, ValueError):
            millimetres = (0.0,)
        if millimetres and (len(millimetres) != 2 or not min(millimetres) > 0):
            millimetres = ()
            notices += ("pixel spacing in the header makes no sense and was dropped",)
    return _scan(path, values[None], value_range, millimetres or None, notices)


def _is_twelve_bit_jpeg(data: Any) -> bool:
    return str(data.file_meta.TransferSyntaxUID) == "1.2.840.10008.1.2.4.51" and int(data.BitsStored) > 8


def _twelve_bit_jpeg(path: Path) -> NDArray[np.uint16]:
    """Extended JPEG of 12 bits: GDCM decodes it, and pydicom does not ask it to."""
    try:
        gdcm = importlib.import_module("gdcm")
    except ImportError as error:
        raise MissingExtraError("Reading 12-bit JPEG needs GDCM; pip install 'lucency[dicom]'.") from error
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        raise ScanError(f"{path} is damaged: its JPEG data cannot be decoded; copy or export it again.")
    image = reader.GetImage()
    columns, rows = image.GetDimension(0), image.GetDimension(1)
    data = image.GetBuffer().encode("utf-8", errors="surrogateescape")
    return np.frombuffer(data, np.uint16).reshape(rows, columns)


def _window(data: Any, values: NDArray[np.float32]) -> tuple[tuple[float, float], tuple[str, ...]]:
    """The values shown as black and white: the first VOI window, the span of a VOI LUT, or the stored bits."""
    centre, width = data.get("WindowCenter"), data.get("WindowWidth")
    if centre is not None and width is not None:
        middle, width = (float(v[0]) if hasattr(v, "__iter__") else float(v) for v in (centre, width))
        if str(data.get("VOILUTFunction", "LINEAR")) == "LINEAR":
            # PS3.3 C.11.2.1.2.1: the window spans centre - 0.5 +- (width - 1) / 2.
            middle, width = middle - 0.5, width - 1
        if width > 0:
            return (middle - width / 2, middle + width / 2), ()
    if data.get("VOILUTSequence"):
        entries, start, _bits = (
            int(v) & 0xFFFF if i == 0 else int(v) for i, v in enumerate(data.VOILUTSequence[0].LUTDescriptor)
        )
        return (float(start), float(start + (entries or 65536) - 1)), ("VOI LUT approximated by its range",)
    bits = int(data.BitsStored)
    low, high = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if int(data.PixelRepresentation) else (0.0, 2.0**bits - 1)
    slope, intercept = float(data.get("RescaleSlope", 1) or 1), float(data.get("RescaleIntercept", 0) or 0)
    ends = sorted((low * slope + intercept, high * slope + intercept))
    if bits > 8 and (values.max() - values.min()) < 0.6 * (ends[1] - ends[0]):
        span = (float(values.min()), float(values.max()))
        if span[0] < span[1]:
            return span, (
                f"no window in the header: shown from {span[0]:g} to {span[1]:g}, its own minimum and maximum",
            )
    return (ends[0], ends[1]), ()
