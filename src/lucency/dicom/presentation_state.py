"""The outline of the strongest region as a Softcopy Presentation State: the film itself, drawn upon and untouched."""

from __future__ import annotations

from highdicom import PresentationLUTTransformation
from highdicom.color import CIELabColor
from highdicom.pr import (
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GrayscaleSoftcopyPresentationState,
    SoftcopyVOILUTTransformation,
    TextObject,
)
from pydicom import Dataset

from lucency.dicom.making import NOTICE, Making, text
from lucency.dicom.region import outlines
from lucency.dicom.source import numbers

LOOKS = ("VOILUTSequence", "WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTFunction")
ORANGE = CIELabColor(61.0, 44.0, 55.0)


def presentation(making: Making) -> Dataset | None:
    """The window of the explanation, the outlines and a line of words; ``None`` of a film in colour."""
    source = making.source
    if source.coloured:
        return None
    film = source.reference()
    layer = GraphicLayer("EVIDENCE", order=1, description="Strongest region", display_color=ORANGE)
    lines = [GraphicObject("POLYLINE", points, "PIXEL") for points in outlines(making.explanation)]
    said = f"{making.target}: probability {making.explanation.probability:.3f} ({making.model}, {making.how})"
    if not lines:
        said += "; no region supports it"
    if making.doubts:
        said += "; the film is in doubt, see the report"
    words = TextObject(
        text(f"{NOTICE}. {said}", 300), "DISPLAY", bounding_box=(0.01, 0.93, 0.99, 0.99), text_justification="LEFT"
    )
    drawn = GraphicAnnotation([film], layer, graphic_objects=lines or None, text_objects=[words])
    found: Dataset = GrayscaleSoftcopyPresentationState(
        [film],
        content_label="LUCENCY",
        content_description=text(f"Strongest evidence for {making.target}", 64),
        graphic_layers=[layer],
        graphic_annotations=[drawn],
        voi_lut_transformations=_window(source.value_range),
        presentation_lut_transformation=PresentationLUTTransformation(
            presentation_lut_shape="INVERSE" if source.inverted else "IDENTITY"
        ),
        **making.heading("presentation", "outline"),
    )
    header = source.header
    for keyword in ("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "RescaleType"):
        if keyword in header and header[keyword].value not in (None, ""):
            found.add(header[keyword])
    if "RescaleSlope" in found and "RescaleType" not in found:
        found.RescaleType = "US"
    if source.value_range is None:
        # A look-up table or a sigmoid, as the film has it.
        look = Dataset()
        for keyword in LOOKS:
            if keyword in header:
                look.add(header[keyword])
            if keyword == "VOILUTSequence" and keyword in header:
                look.VOILUTSequence = header.VOILUTSequence[:1]
                break
        found.SoftcopyVOILUTSequence = [look]
    _shaped(found, header)
    return making.finished(found)


def _window(shown: tuple[float, float] | None) -> list[SoftcopyVOILUTTransformation] | None:
    if shown is None:
        return None
    low, high = shown
    # PS3.3 C.11.2.1.2: a window of width w around c is black at c - 0.5 - (w - 1) / 2 and white w - 1 further on.
    centre, width = (low + high) / 2 + 0.5, high - low + 1
    return [SoftcopyVOILUTTransformation(centre, width)]


def _shaped(found: Dataset, header: Dataset) -> None:
    """How wide and high a pixel is shown, which a presentation state must say even of square ones."""
    area = found.DisplayedAreaSelectionSequence[0]
    spacing = numbers(header, "PixelSpacing", 2) or numbers(header, "ImagerPixelSpacing", 2)
    if spacing:
        area.PresentationPixelSpacing = spacing
        area.pop("PresentationPixelAspectRatio", None)
