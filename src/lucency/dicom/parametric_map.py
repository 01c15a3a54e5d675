"""The map itself, in full precision, as a Parametric Map."""

from __future__ import annotations

import math

import numpy as np
from highdicom import VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from pydicom import Dataset

from lucency.dicom import codes
from lucency.dicom.making import Making, text
from lucency.dicom.secondary_capture import orientation
from lucency.viewer.palette import Scale

INVENTED = (
    "The film has no place in the patient, so the frame of reference, the position (0, 0, 0) and the orientation of "
    "this map are invented and its pixel spacing is {}: pixel by pixel it is the film's own grid. "
)


def parametric_map(making: Making) -> Dataset:
    """The float map on the film's own grid."""
    explanation = making.explanation
    heatmap = np.ascontiguousarray(explanation.heatmap, np.float32)
    unit = explanation.provenance.method.unit
    film = making.source.reference()
    said = ""
    if not making.source.placed:
        spacing = explanation.provenance.scan.spacing
        film.FrameOfReferenceUID = making.uid("frame of reference")
        film.PositionReferenceIndicator = ""
        film.ImagePositionPatient = [0.0, 0.0, 0.0]
        film.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        film.PixelSpacing = list(spacing or (1.0, 1.0))
        film.SliceThickness = 1.0
        said = INVENTED.format("as read from the film" if spacing else "invented too (1 mm)")
    low, high = float(heatmap.min()), float(heatmap.max())
    found: Dataset = ParametricMap(
        [film],
        heatmap,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            RealWorldValueMapping(
                "MAP",
                text(unit, 64) or "value of the map",
                codes.NO_UNITS,
                (low, high if high > low else math.nextafter(low, math.inf)),
                slope=1.0,
                intercept=0.0,
                quantity_definition=codes.private(f"Evidence for {making.target}"),
            )
        ],
        voi_lut_transformations=[
            VOILUTTransformation(0.0, 2 * Scale.of(heatmap).limit, voi_lut_function="LINEAR_EXACT")
        ],
        content_label="HEATMAP",
        content_description=text(f"Evidence for {making.target}", 64),
        **making.heading("map", "map"),
    )
    found.PatientOrientation = orientation(making.source.header)
    return making.finished(found, described=text(said + making.derivation, 1000))
