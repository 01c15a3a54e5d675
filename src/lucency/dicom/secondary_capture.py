"""The overlay, burnt into a colour picture that every viewer shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from highdicom.sc import SCImage
from PIL import Image, ImageDraw
from pydicom import Dataset

from lucency.dicom.making import NOTICE, Making
from lucency.dicom.source import numbers
from lucency.render.lettering import font, lines, signed
from lucency.viewer import palette
from lucency.viewer.palette import Bytes, Scale, composite

NARROWEST = 480
"""Columns below which the words would not fit."""


def overlay(making: Making) -> Dataset:
    """A Secondary Capture: the film with the map over it, pixel for pixel, between two bands of words."""
    rgb, _ = pictured(making)
    found: Dataset = SCImage(
        pixel_array=rgb,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        study_instance_uid=str(making.source.header.StudyInstanceUID),
        specific_character_set="ISO_IR 192",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        **making.heading("overlay", "overlay"),
    )
    pictured_like(found, making)
    _measured(found, making.source.header)
    return making.finished(found, described=making.derivation)


def pictured_like(found: Dataset, making: Making) -> None:
    """What a picture with burnt-in words says of itself and of the film it comes from."""
    header = making.source.header
    found.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    found.ConversionType = "WSD"
    found.BurnedInAnnotation = "YES"
    found.PatientOrientation = orientation(header)
    found.SourceImageSequence = [referring(header)]
    if header.get("LossyImageCompression") == "01":
        found.LossyImageCompression = "01"
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if header.get(keyword):
                setattr(found, keyword, header[keyword].value)


def orientation(header: Dataset) -> list[str]:
    """The directions of rows and columns in the patient, empty where the film says nothing."""
    value: Any = header.get("PatientOrientation")
    several = isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2
    return [str(v) for v in value] if several else []


def referring(header: Dataset) -> Dataset:
    """An item that refers to the film."""
    item = Dataset()
    item.ReferencedSOPClassUID = str(header.SOPClassUID)
    item.ReferencedSOPInstanceUID = str(header.SOPInstanceUID)
    return item


def pictured(making: Making) -> tuple[Bytes, tuple[int, int]]:
    """RGB uint8 ``[h, w, 3]`` of the film under its map between two bands of words, and the film's corner in it."""
    explanation = making.explanation
    grey = explanation.pixels[0]
    scale = Scale.of(explanation.heatmap)
    film = composite(grey, scale.strength(explanation.heatmap))
    rows, columns = grey.shape
    wide = max(columns, NARROWEST)
    size = max(12, round(wide / 52))
    edge = size // 2
    unit = explanation.provenance.method.unit
    above = [
        *((line, palette.TEXT, True) for line in lines(f"{making.target}: probability "
          f"{explanation.probability:.3f}", size, wide - 2 * edge, True)[:2]),
        (f"{NOTICE.upper()}", palette.WARNING, True),
        *((line, palette.WARNING, False) for doubt in making.doubts[:1]
          for line in lines(doubt, size, wide - 2 * edge)[:5]),
    ]  # fmt: skip
    said = f"Model {making.model}. {making.how}. Orange supports, blue speaks against; full colour at {scale} ({unit})."
    if not explanation.heatmap.any():
        said = f"Model {making.model}. {making.how}. Nothing reacted: the map is zero everywhere."
    if not explanation.complete:
        said += " Stopped before its end: this is the map so far."
    below = [(line, palette.TEXT, False) for line in lines(said, size, wide - 2 * edge)[:6]]
    step = round(1.5 * size)
    head, bar = len(above) * step + 2 * edge, step + edge
    foot = bar + len(below) * step + 2 * edge
    image = Image.new("RGB", (wide, head + rows + foot), palette.BACKGROUND)
    draw = ImageDraw.Draw(image)
    for top, written in ((edge, above), (head + rows + edge + bar, below)):
        for i, (line, colour, bold) in enumerate(written):
            draw.text((edge, top + i * step), line, colour, font(size, bold))
    left = (wide - columns) // 2
    image.paste(Image.fromarray(film), (left, head))
    _legend(image, draw, scale, (edge, head + rows + edge, wide - 2 * edge, size))
    return np.asarray(image), (head, left)


def _legend(image: Image.Image, draw: ImageDraw.ImageDraw, scale: Scale, place: tuple[int, int, int, int]) -> None:
    x, y, w, h = place
    low, high = f"against {signed(-scale.limit)}", f"supports {signed(scale.limit)}"
    left, right = (round(font(h).getlength(word)) + h for word in (low, high))
    long = max(2, w - left - right)
    ramp = np.repeat(palette.ramp(long)[None], h, 0)
    image.paste(Image.fromarray(composite(ramp * 0 + 0.5, ramp)), (x + left, y))
    draw.text((x, y), low, palette.AGAINST, font(h))
    draw.text((x + w, y), high, palette.SUPPORTS, font(h), anchor="ra")


def _measured(found: Dataset, header: Dataset) -> None:
    """The film's own calibration, where it has one: lengths on the picture are then those on the film."""
    spacing = numbers(header, "PixelSpacing", 2)
    if spacing:
        found.PixelSpacing = spacing
        for keyword in ("PixelSpacingCalibrationType", "PixelSpacingCalibrationDescription"):
            if header.get(keyword):
                setattr(found, keyword, header[keyword].value)
        return
    detector = numbers(header, "ImagerPixelSpacing", 2)
    if detector and detector[0] != detector[1]:
        found.PixelAspectRatio = [max(1, round(1e4 * side)) for side in detector]
