"""DICOM films."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucency.errors import MissingExtraError, ScanError
from lucency.reading.common import LUMA, decoding, made, not_too_large
from lucency.scan import Scan


def read_dicom(path: Path) -> Scan:
    try:
        pydicom = importlib.import_module("pydicom")
        processing = importlib.import_module("pydicom.pixels.processing")
    except ImportError as error:
        raise MissingExtraError("Reading DICOM needs pydicom; pip install 'lucency[dicom]'.") from error
    with decoding(path, "DICOM"):
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
        not_too_large(path, (int(data.Rows), int(data.Columns)))
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
    return made(path, values[None], value_range, millimetres or None, notices)


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
