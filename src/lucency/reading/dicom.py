"""DICOM films."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucency.errors import MissingExtraError, ScanError
from lucency.reading.codestream import Size, contradiction
from lucency.reading.common import LUMA, decoding, frame_index, made, not_too_large
from lucency.reading.dicom_file import DicomFile, codestream, held, opened, plain
from lucency.reading.display import Range, Table, Window, chosen_view, table, windows
from lucency.reading.worker import decode
from lucency.scan import Scan

VIEWS = {
    "PA": "PA",
    "POSTEROANTERIOR": "PA",
    "AP": "AP",
    "ANTEROPOSTERIOR": "AP",
    "LL": "LATERAL",
    "RL": "LATERAL",
    "LAT": "LATERAL",
    "LATERAL": "LATERAL",
    "LEFTLATERAL": "LATERAL",
    "RIGHTLATERAL": "LATERAL",
}
"""What View Position and the names of View Codes mean for a chest film. A decubitus film is not a lateral view."""
FUNCTIONAL_GROUPS = ("PixelMeasuresSequence", "FrameVOILUTSequence", "PixelValueTransformationSequence")


def read_dicom(
    path: Path,
    *,
    frame: int | None = None,
    window: str | int | None = None,
    value_range: tuple[float, float] | None = None,
) -> Scan:
    """One film, or one frame of several, as a viewer shows it.

    Args:
        frame: which frame, from 1; needed where there are several.
        window: a window's number in the header, from 1, or the explanation that the header gives to a window or VOI
            LUT. When ``None``: the first VOI LUT, without one the first window.
        value_range: in place of any window, the two values (after the rescale) shown as black and white.

    Returns:
        Pixels ``[1, H, W]``, clipped to the window. After a linear window they are in the units of the file; a VOI LUT,
        a Presentation LUT or a sigmoid window is applied to them. MONOCHROME1 is turned round, so bright = dense, and
        padding is black.

    Raises:
        ScanError: when the file is damaged, holds no grey or colour picture, or has no such frame or window; when its
            compressed pixels contradict the header, or take too much memory or time to decode.
        MissingExtraError: without the ``dicom`` extra.
    """
    _pydicom()
    with decoding(path, "DICOM"), path.open("rb") as file:
        film = opened(path, file)
        if "SOPClassUID" not in film.header and "Rows" not in film.header:
            raise ScanError(f"{path} is not a DICOM file or is damaged; copy or export it again.")
        return _scan(film, frame, window, value_range)


def read_dataset(
    dataset: Any,
    *,
    frame: int | None = None,
    window: str | int | None = None,
    value_range: tuple[float, float] | None = None,
) -> Scan:
    """The same for a ``pydicom.Dataset`` in memory, which is left as it is."""
    _pydicom()
    name = "The dataset"
    with decoding(name, "DICOM"):
        return replace(_scan(held(dataset, name), frame, window, value_range), source="memory")


def looks_like_dicom(head: bytes) -> bool:
    """Whether a file begins as DICOM does: with preamble, or bare with a first element of group 0002 or 0008."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 12 or head[:2] not in (b"\x02\x00", b"\x08\x00", b"\x00\x08"):
        return False
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    # Identifying elements are short text: an implicit length is small and even.
    return explicit or (head[0] != 0 and head[3] == 0 and head[4] % 2 == 0 and head[5:8] == b"\x00\x00\x00")


def _pydicom() -> None:
    try:
        importlib.import_module("pydicom")
    except ImportError as error:
        raise MissingExtraError("Reading DICOM needs pydicom; pip install 'lucency[dicom]'.") from error


def _scan(
    film: DicomFile, frame: int | None, window: str | int | None, value_range: tuple[float, float] | None
) -> Scan:
    if film.length == 0:
        kind = getattr(film.header.get("SOPClassUID"), "name", "")
        raise ScanError(f"{film.name} holds no picture ({kind or 'a DICOM file without pixel data'}); choose an image.")
    frames = max(int(film.number("NumberOfFrames") or 1), 1)
    index = frame_index(film.name, frame, frames)
    if frames > 1 or "SharedFunctionalGroupsSequence" in film.header:
        _of_this_frame(film, index)
    stored, notices = _stored(film, index, frames)
    if stored.ndim == 3:
        values, shown = stored.astype(np.float32) @ LUMA, (0.0, float(np.iinfo(stored.dtype).max))
        if film.word("PhotometricInterpretation") != "PALETTE COLOR":
            shown = (0.0, 2.0 ** int(film.header.BitsStored) - 1)
        notices += ("colour turned to grey (ITU-R BT.601 luma)",)
    else:
        values, shown, said = _shown(film, stored, window, value_range)
        notices += said
    spacing, said = _spacing(film)
    notices += said + _mirrored(film)
    about = {"view": _view(film), "modality": film.word("Modality")}
    return made(film.name, values[None], shown, spacing, notices, **about)


def _of_this_frame(film: DicomFile, index: int) -> None:
    """Enhanced objects say for all frames, or for each, what others say once."""
    for groups, place in (("SharedFunctionalGroupsSequence", 0), ("PerFrameFunctionalGroupsSequence", index)):
        items = film.get(groups) or []
        for name in FUNCTIONAL_GROUPS if place < len(items) else ():
            if inner := items[place].get(name):
                film.header.update(inner[0])


def _stored(film: DicomFile, index: int, frames: int) -> tuple[NDArray[Any], tuple[str, ...]]:
    """The numbers of a frame as they are stored, or its RGB, and what is odd about them."""
    pixels = importlib.import_module("pydicom.pixels")
    uid = importlib.import_module("pydicom.uid").UID(film.syntax)
    try:
        available = uid.is_little_endian is not None and pixels.get_decoder(uid).is_available
    except (NotImplementedError, ValueError):
        available = False
    if not available:
        raise ScanError(
            f"{film.name} is compressed as {uid.name} and cannot be decoded; pip install 'lucency[dicom]', "
            "or export it uncompressed."
        )
    header = film.header
    options: dict[str, Any] = {
        "rows": int(header.Rows),
        "columns": int(header.Columns),
        "samples_per_pixel": int(header.get("SamplesPerPixel") or 1),
        "bits_allocated": int(header.BitsAllocated),
        "bits_stored": int(header.BitsStored),
        "pixel_representation": int(header.get("PixelRepresentation") or 0),
        "photometric_interpretation": film.word("PhotometricInterpretation") or "MONOCHROME2",
    }
    if options["samples_per_pixel"] > 1:
        options["planar_configuration"] = int(header.get("PlanarConfiguration") or 0)
    stored, allocated = options["bits_stored"], options["bits_allocated"]
    if (
        not 1 <= stored <= allocated <= 64
        or options["samples_per_pixel"] not in (1, 3)
        or options["pixel_representation"] not in (0, 1)
    ):
        raise ScanError(
            f"{film.name} is damaged: by its header a pixel is {options['samples_per_pixel']} numbers of {stored} bits "
            f"in {allocated}; copy or export it again."
        )
    promised = Size(options["rows"], options["columns"], options["samples_per_pixel"], stored)
    not_too_large(film.name, promised[:2])
    palette = options["photometric_interpretation"] == "PALETTE COLOR"
    if film.length is None:
        data = codestream(film, index, frames)
        decoded = promised.rows * promised.columns * promised.samples * -(-allocated // 8)
        if wrong := contradiction(data, film.syntax, promised, allocated):
            raise ScanError(f"{film.name} is damaged: {wrong}; copy or export it again.")
        if len(data) > 2 * decoded + 2**20:
            raise ScanError(
                f"{film.name} is damaged: its compressed pixels are longer than plain ones; export it again."
            )
        values, facts = decode("dicom", data, {"syntax": film.syntax, **options}, name=film.name, decoded=decoded)
        left_over = int(facts["left_over"])
    else:
        values, left_over = plain(film, index, options | {"number_of_frames": frames})
    if palette:
        values = _through_palette(film, values)
    odd = (f"the file holds {left_over:,} bytes of pixels more than its header says",) if left_over > 1 else ()
    return values, odd


def _through_palette(film: DicomFile, values: NDArray[Any]) -> NDArray[Any]:
    """RGB of a picture whose numbers are places in a palette."""
    names = ("Red", "Green", "Blue")
    if any(f"Segmented{name}PaletteColorLookupTableData" in film.header for name in names):
        raise ScanError(f"{film.name} has a segmented colour palette, which is not read; export it as grey.")
    if any(film.get(f"{name}PaletteColorLookupTableData") is None for name in names):
        raise ScanError(f"{film.name} has a colour palette that is missing; export it as grey.")
    channels = []
    for name in names:
        item = importlib.import_module("pydicom").Dataset()
        item.LUTDescriptor = list(film.get(f"{name}PaletteColorLookupTableDescriptor"))
        item.LUTData = film.get(f"{name}PaletteColorLookupTableData")
        channels.append(table(item, film.name, _little(film), bool(film.header.get("PixelRepresentation"))))
    bits = max(channel.bits for channel in channels)
    return np.stack([channel(values) for channel in channels], -1).astype(np.uint8 if bits <= 8 else np.uint16)


def _little(film: DicomFile) -> bool:
    return film.header.original_encoding[1] is not False


def _shown(
    film: DicomFile, stored: NDArray[Any], window: str | int | None, value_range: tuple[float, float] | None
) -> tuple[NDArray[np.float32], Range, tuple[str, ...]]:
    """Grey values as a viewer shows them, and which of them are black and white."""
    if window is not None and value_range is not None:
        raise ScanError("Give a window or a value_range, not both: each says what is shown as black and white.")
    signed = bool(film.header.get("PixelRepresentation"))
    padding = _padding(film, stored, signed)
    values, ends = _modality(film, stored, signed)
    seen = values if padding is None else values[~padding]
    if seen.size == 0:
        raise ScanError(f"{film.name} is padding throughout; choose a scan that shows something.")
    span = float(seen.min()), float(seen.max())
    values, shown, notices = _voi(film, values, span, ends, window, value_range)
    if shapes := film.get("PresentationLUTSequence"):
        lut = table(shapes[0], film.name, _little(film), False)
        top = len(lut.entries) - 1
        values = lut((np.clip(values, *shown) - shown[0]) * np.float32(top / (shown[1] - shown[0])) + lut.first)
        shown = lut.range
    # Numbers outside the window are as black or white as its ends: what the viewer shows is what is explained.
    np.clip(values, np.float32(shown[0]), np.float32(shown[1]), out=values)
    polarity, shape = film.word("PhotometricInterpretation"), film.word("PresentationLUTShape")
    if "MONOCHROME1" in polarity or shape == "INVERSE":
        # Reflecting values within the range they are shown in keeps bright = dense and the numbers' size.
        np.subtract(np.float32(shown[0] + shown[1]), values, out=values)
        notices += ("MONOCHROME1 turned round: bright = dense",) if polarity == "MONOCHROME1" else ()
        if (polarity, shape) in (("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")):
            notices += (f"the header contradicts itself, {polarity} and {shape}: turned round",)
    if padding is not None:
        values[padding] = shown[0]
        notices += (f"padding, {padding.mean():.1%} of the picture, is shown as black",)
    return values, shown, notices


def _padding(film: DicomFile, stored: NDArray[Any], signed: bool) -> NDArray[np.bool_] | None:
    """Where the picture is padded (PS3.3 C.7.5.1.1.2), ``None`` where it is nowhere."""
    value, limit = film.get("PixelPaddingValue"), film.get("PixelPaddingRangeLimit")
    if value is None:
        return None
    bits = int(film.header.BitsAllocated)

    def stored_as(given: Any) -> int:
        number = int.from_bytes(given[:2], "little") if isinstance(given, bytes) else int(given)
        number %= 1 << bits  # some writers give the same bits as a number of the other sign
        return number - (1 << bits) if signed and number >= 1 << (bits - 1) else number

    low, high = sorted((stored_as(value), stored_as(value if limit is None else limit)))
    padded: NDArray[np.bool_] = stored == low if low == high else (stored >= low) & (stored <= high)
    return padded if padded.any() else None


def _modality(film: DicomFile, stored: NDArray[Any], signed: bool) -> tuple[NDArray[np.float32], Range]:
    """Values after the Modality LUT or the rescale, and the smallest and largest that there can be."""
    if luts := film.get("ModalityLUTSequence"):
        lut = table(luts[0], film.name, _little(film), signed)
        return lut(stored), lut.range
    bits = int(film.header.BitsStored)
    low, high = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    slope, intercept = film.number("RescaleSlope") or 1.0, film.number("RescaleIntercept") or 0.0
    first, last = sorted((low * slope + intercept, high * slope + intercept))
    if slope == 1 and intercept == 0:
        return stored.astype(np.float32), (first, last)
    return (stored * np.float64(slope) + intercept).astype(np.float32), (first, last)


def _voi(
    film: DicomFile,
    values: NDArray[np.float32],
    span: Range,
    ends: Range,
    window: str | int | None,
    value_range: tuple[float, float] | None,
) -> tuple[NDArray[np.float32], Range, tuple[str, ...]]:
    """Values after the VOI LUT, and which are shown as black and white; window, LUT, or what the numbers suggest."""
    if value_range is not None:
        return values, value_range, ()
    found = windows(film)
    tables = [table(item, film.name, _little(film), span[0] < 0) for item in film.get("VOILUTSequence") or ()]
    usable: list[Window | Table] = [*tables, *(w for w in found if w.usable())]
    notices: tuple[str, ...] = ()
    if window is not None:
        view: Window | Table | None = chosen_view(film.name, found, tables, window)
        if isinstance(view, Window) and not view.usable():
            raise ScanError(f"{film.name} has a window {window!r} that makes no sense ({view}); choose another.")
    else:
        view = usable[0] if usable else None
        if len(usable) < len(found) + len(tables):
            notices += ("a window in the header makes no sense and was dropped",)
        if len(usable) > 1:
            others = ", ".join(
                dict.fromkeys(v.name or "a LUT" if isinstance(v, Table) else v.name or str(v) for v in usable[1:])
            )
            notices += (f"shown with the first of {len(usable)} windows; there are also: {others}",)
    if isinstance(view, Table):
        return view(values), view.range, notices
    if view is not None:
        mapped, shown = view(values)
        if mapped is not values or (span[1] > shown[0] and span[0] < shown[1]):
            return mapped, shown, notices
        notices += (f"the display window shows no pixel: shown from {span[0]:g} to {span[1]:g}",)
        return values, span if span[0] < span[1] else shown, notices
    wide = int(film.header.BitsStored) > 8 and span[1] - span[0] < 0.6 * (ends[1] - ends[0])
    if wide and span[0] < span[1]:
        words = f"no window in the header: shown from {span[0]:g} to {span[1]:g}, its own minimum and maximum"
        return values, span, (*notices, words)
    return values, ends, notices


def _spacing(film: DicomFile) -> tuple[tuple[float, ...] | None, tuple[str, ...]]:
    """Millimetres between pixel centres, in the patient as far as the header allows it."""
    detector = _pair(film, "ImagerPixelSpacing")
    patient = _pair(film, "PixelSpacing")
    for keyword, spacing in (("PixelSpacing", patient), ("ImagerPixelSpacing", detector)):
        if spacing == () and film.get(keyword) is not None:
            return None, ("pixel spacing in the header makes no sense and was dropped",)
    if patient and (patient != detector or film.get("PixelSpacingCalibrationType") is not None):
        return patient, ()
    if detector:
        factor = film.number("EstimatedRadiographicMagnificationFactor")
        if factor is not None and factor >= 1:
            return (detector[0] / factor, detector[1] / factor), (
                f"pixel spacing at the detector divided by the magnification of {factor:g} in the header",
            )
        return detector, ("pixel spacing is that of the detector: lengths in the patient are shorter",)
    if scanned := _pair(film, "NominalScannedPixelSpacing"):
        return scanned, ("pixel spacing is that of the scanned film: lengths in the patient are shorter",)
    return None, ()


def _pair(film: DicomFile, keyword: str) -> tuple[float, ...]:
    """Two positive numbers, or nothing."""
    value = film.get(keyword)
    try:
        pair = tuple(float(v) for v in value) if isinstance(value, Sequence) and not isinstance(value, str) else ()
    except (TypeError, ValueError):
        return ()
    return pair if len(pair) == 2 and all(0 < v < float("inf") for v in pair) else ()


def _view(film: DicomFile) -> str:
    """How the rays went: by View Position, the view's code, or the directions of rows and columns."""
    codes = film.get("ViewCodeSequence") or [{}]
    for words in (film.word("ViewPosition"), str(codes[0].get("CodeMeaning", ""))):
        letters = "".join(c for c in words.upper() if c.isalpha())
        if letters in VIEWS:
            return VIEWS[letters]
    # A row of pixels that runs to the front or the back is seen from the side.
    return "LATERAL" if _direction(film)[:1] in ("A", "P") and _direction(film, 1)[:1] in ("F", "H") else ""


def _direction(film: DicomFile, axis: int = 0) -> str:
    value = film.get("PatientOrientation")
    return (
        str(value[axis]).upper()
        if isinstance(value, Sequence) and len(value) == 2 and not isinstance(value, str)
        else ""
    )


def _mirrored(film: DicomFile) -> tuple[str, ...]:
    """A viewer shows rows as they are stored; usually they run to the patient's left and columns to the feet."""
    across, down = _direction(film), _direction(film, 1)
    said: tuple[str, ...] = ()
    if across.startswith("R"):
        said += ("the header says that the film is mirrored: the patient's right is on the right of the picture",)
    if down.startswith("H"):
        said += ("the header says that the film stands on its head",)
    return said
