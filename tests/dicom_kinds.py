"""Every kind of DICOM that is read, as the page shows it."""

# ruff: noqa: E501 (a row is a row)

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian

from bad_inputs import dicom, ramp, saved
from hostile.made_films import film, values
from kinds import Kind

FILM = ramp()
"""Twelve bits in words of sixteen."""
BITS = (0, 4095)
SMALL = values(False, False)
"""What GDCM compresses; it adds the spacing of a scanned film."""
BYTES = ramp("uint8", 255)
COLOUR = np.stack([BYTES, BYTES[::-1], BYTES[:, ::-1]], -1)
GREY = COLOUR @ np.array([0.299, 0.587, 0.114])


def part(**tags: object) -> Dataset:
    data = Dataset()
    for name, value in tags.items():
        setattr(data, name, value)
    return data


def table(entries: Any, first: int, bits: int) -> Dataset:
    item = part(LUTDescriptor=[len(entries), first, bits], LUTData=[int(v) for v in entries], ModalityLUTType="US")
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    return item


def written(pixels: Any = FILM, **tags: object) -> Callable[[Path], Path]:
    return lambda folder: saved(
        dicom(pixels, **({"BitsStored": 12} if pixels.itemsize == 2 else {}) | tags), folder / "x.dcm"
    )


def compressed(syntax: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "x.dcm").write_bytes(film(syntax))
        return folder / "x.dcm"

    return make


def big_endian(folder: Path) -> Path:
    data = dicom(FILM.astype(">u2"), BitsStored=12)
    data.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    data.save_as(folder / "x.dcm", implicit_vr=False, little_endian=False, enforce_file_format=True)
    return folder / "x.dcm"


def bare(folder: Path) -> Path:
    data = dicom(FILM, BitsStored=12)
    del data.file_meta
    data.save_as(folder / "x", implicit_vr=True, little_endian=True)
    return folder / "x"


def frames(folder: Path) -> Path:
    data = dicom(FILM, BitsStored=12, NumberOfFrames=2)
    data.PixelData = np.stack([FILM, FILM[::-1]]).tobytes()
    return saved(data, folder / "x.dcm")


def enhanced(folder: Path) -> Path:
    data = dicom(FILM, BitsStored=12, NumberOfFrames=2)
    data.PixelData = np.stack([FILM, FILM[::-1]]).tobytes()
    data.SharedFunctionalGroupsSequence = [part(PixelMeasuresSequence=[part(PixelSpacing=[0.5, 0.25])])]
    data.PerFrameFunctionalGroupsSequence = [
        part(FrameVOILUTSequence=[part(WindowCenter=c, WindowWidth=1001)]) for c in (500, 1000)
    ]
    return saved(data, folder / "x.dcm")


def palette(folder: Path) -> Path:
    tags: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for i, name in enumerate(("Red", "Green", "Blue")):
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        tags[f"{name}PaletteColorLookupTableData"] = bytes(range(256)) if i == 0 else bytes(256)
    return saved(dicom(BYTES, **tags), folder / "x.dcm")


WINDOW = {"WindowCenter": 2000, "WindowWidth": 1001}
WINDOWED = np.clip(FILM.astype(float), 1499.5, 2499.5)
CURVE = np.round(np.linspace(1, 0, 4096) ** 2 * 255)
SEVERAL: dict[str, object] = {
    "WindowCenter": [2000, 900],
    "WindowWidth": [1001, 401],
    "WindowCenterWidthExplanation": ["SOFT", "BONE"],
}
PADDED = np.where(np.arange(48) < 5, 4095, FILM).astype(np.uint16)


def spaced(**tags: object) -> Callable[[Path], Path]:
    return written(BYTES, **tags)


DICOM_KINDS = [
    Kind("DICOM", "uncompressed, in either order of bytes, with VR or without", "stored values, shown over the range of their bits", big_endian, FILM, BITS),
    Kind("DICOM", "deflated", "the same; inflated no further than its header allows", compressed("DeflatedExplicitVRLittleEndian"), SMALL, BITS, ("scanned film",), (1, 1)),
    Kind("DICOM", "RLE, lossless JPEG, JPEG-LS, JPEG 2000", "the same; decoded in a process of its own, within limits", compressed("JPEGLSLossless"), SMALL, BITS, ("scanned film",), (1, 1)),
    Kind("DICOM", "lossy JPEG (8 and 12 bits), JPEG-LS, JPEG 2000", "the same, as exact as its loss", compressed("JPEGExtendedProcess2_4"), SMALL, BITS, ("scanned film",), (1, 1), within=2),
    Kind("DICOM", "without preamble", "the same, by its first element", bare, FILM, BITS),
    Kind("DICOM", "a pydicom data set in memory", "the same", lambda _: dicom(FILM, BitsStored=12), FILM, BITS),
    Kind("DICOM", "no window, and less than 0.6 of the range of the bits used", "shown from its smallest to its largest value, with a notice", lambda folder: saved(dicom(FILM), folder / "x.dcm"), FILM, BITS, ("no window",)),
    Kind("DICOM", "rescale slope and intercept", "applied; pixels are in the units of the file", written(RescaleSlope=2, RescaleIntercept=-100), FILM * 2.0 - 100, (-100, 8090)),
    Kind("DICOM", "Modality LUT Sequence", "applied in place of the rescale", written(ModalityLUTSequence=[table(CURVE, 0, 8)]), CURVE[FILM], (0, 255)),
    Kind("DICOM", "window, LINEAR or LINEAR_EXACT", "its ends are black and white, as PS3.3 C.11.2 defines them; what lies outside is clipped, as a viewer shows it", written(**WINDOW), WINDOWED, (1499.5, 2499.5)),
    Kind("DICOM", "window, SIGMOID", "applied to the pixels, which run from 0 to 1", written(**WINDOW, VOILUTFunction="SIGMOID"), 1 / (1 + np.exp(-4 * (FILM - 2000.0) / 1001)), (0, 1), within=1e-5),
    Kind("DICOM", "VOI LUT Sequence", "applied to the pixels, before any window", written(VOILUTSequence=[table(CURVE, 0, 8)]), CURVE[FILM], (0, 255)),
    Kind("DICOM", "several windows or VOI LUTs", "the first, with a notice that names the others", written(**SEVERAL), WINDOWED, (1499.5, 2499.5), ("BONE",)),
    Kind("DICOM", "several windows, and `window=\"BONE\"` or `window=2`", "the one that is named", written(**SEVERAL), np.clip(FILM.astype(float), 699.5, 1099.5), (699.5, 1099.5), how={"window": "bone"}),
    Kind("DICOM", "`value_range=`", "takes the place of window and VOI LUT", written(**SEVERAL), np.clip(FILM, 100, 300), (100, 300), how={"value_range": (100, 300)}),
    Kind("DICOM", "Presentation LUT Sequence", "applied last", written(PresentationLUTSequence=[table(CURVE, 0, 8)]), CURVE[FILM], (0, 255)),
    Kind("DICOM", "MONOCHROME1", "turned round within the range that is shown, with a notice: bright = dense", written(PhotometricInterpretation="MONOCHROME1", **WINDOW), 3999 - WINDOWED, (1499.5, 2499.5), ("turned round",)),
    Kind("DICOM", "Presentation LUT Shape INVERSE", "turned round once; a notice where it contradicts the photometric interpretation", written(PresentationLUTShape="INVERSE"), 4095 - FILM.astype(float), BITS, ("contradicts",)),
    Kind("DICOM", "Pixel Padding Value, with or without a range", "black after everything, and left out of the smallest and largest value, with a notice", written(PADDED, PixelPaddingValue=4095, PhotometricInterpretation="MONOCHROME1"), np.where(PADDED == 4095, 0, 4095.0 - PADDED), BITS, ("turned round", "padding")),
    Kind("DICOM", "several frames", "the one that `frame=` names, from 1; an error without", frames, FILM[::-1], BITS, how={"frame": 2}),
    Kind("DICOM", "enhanced objects", "window, rescale and spacing of that frame, from the functional groups", enhanced, np.clip(FILM[::-1].astype(float), 499.5, 1499.5), (499.5, 1499.5), (), (0.5, 0.25), how={"frame": 2}),
    Kind("DICOM", "RGB and YBR, in either planar configuration", "turned to grey, with a notice", written(COLOUR, SamplesPerPixel=3, PlanarConfiguration=0, PhotometricInterpretation="RGB"), GREY, (0, 255), ("grey",)),
    Kind("DICOM", "PALETTE COLOR", "turned to grey, with a notice; a segmented palette is an error", palette, BYTES * 0.299, (0, 255), ("grey",)),
    Kind("DICOM", "Pixel Spacing", "the spacing", spaced(PixelSpacing=[0.2, 0.1]), BYTES, (0, 255), (), (0.2, 0.1)),
    Kind("DICOM", "Imager Pixel Spacing", "the spacing, with a notice: it is that of the detector, and lengths in the patient are shorter", spaced(ImagerPixelSpacing=[0.2, 0.1]), BYTES, (0, 255), ("detector",), (0.2, 0.1)),
    Kind("DICOM", "the same with Estimated Radiographic Magnification Factor", "divided by it, with a notice", spaced(ImagerPixelSpacing=[0.2, 0.1], EstimatedRadiographicMagnificationFactor=1.25), BYTES, (0, 255), ("magnification",), (0.16, 0.08)),
    Kind("DICOM", "Nominal Scanned Pixel Spacing", "the spacing, with a notice: it is that of the film", spaced(NominalScannedPixelSpacing=[0.2, 0.1]), BYTES, (0, 255), ("scanned film",), (0.2, 0.1)),
    Kind("DICOM", "spacing that is zero, negative, infinite or no number", "dropped, with a notice", spaced(PixelSpacing=[0, 0.1]), BYTES, (0, 255), ("makes no sense",)),
    Kind("DICOM", "Patient Orientation that runs to the right or the head", "shown as it is stored, as a viewer does, with a notice", spaced(PatientOrientation=["R", "F"]), BYTES, (0, 255), ("mirrored",)),
    Kind("DICOM", "more pixel data than the header needs", "read, with a notice", lambda folder: saved(_longer(), folder / "x.dcm"), FILM, BITS, ("more than its header says",)),
]  # fmt: skip


def _longer() -> Dataset:
    data = dicom(FILM, BitsStored=12)
    data.PixelData = data.PixelData + bytes(100)
    return data
