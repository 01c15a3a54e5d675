"""The strongest region as a Segmentation: yes or no for each pixel, and how strongly."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom import Dataset

from lucency.checks.verdict import REGION, strongest
from lucency.dicom import codes
from lucency.dicom.making import Making, text
from lucency.dicom.secondary_capture import orientation

FULL = 255
"""The fractional value of the map's maximum."""


def segmentation(making: Making) -> Dataset | None:
    """The strongest region; ``None`` where nothing supports the answer."""
    region = strongest(making.explanation.heatmap)
    said = f"What is connected to the maximum at {REGION:.0%} of it or more"
    return _made(making, region.astype(np.uint8), "BINARY", 1, said) if region.any() else None


def fractional(making: Making) -> Dataset | None:
    """The supporting part of the map as shares of its maximum; ``None`` where nothing supports the answer."""
    supporting = np.clip(making.explanation.heatmap, 0, None).astype(np.float64)
    if not supporting.any():
        return None
    said = "Evidence as a share of its maximum, no probability"
    return _made(making, supporting / supporting.max(), "FRACTIONAL", 2, said)


def _made(
    making: Making, values: NDArray[np.uint8] | NDArray[np.float64], kind: str, number: int, said: str
) -> Dataset:
    film = making.source.reference()
    described = SegmentDescription(
        1,
        text(f"Evidence for {making.target}", 64),
        segmented_property_category=codes.SPATIAL,
        segmented_property_type=codes.private(f"Evidence for {making.target}"),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            "Lucency", codes.LEARNED, version("lucency"), parameters={"model": making.model, "method": making.how}
        ),
        tracking_uid=making.uid("region"),
        tracking_id=text(f"Lucency {making.target}", 64),
    )
    found: Dataset = Segmentation(
        [film],
        values,
        kind,
        [described],
        fractional_type="OCCUPANCY",
        max_fractional_value=FULL,
        content_label="EVIDENCE",
        content_description=text(said, 64),
        **making.heading("segmentation", "region", number),
    )
    found.PatientOrientation = orientation(making.source.header)
    return making.finished(found, described=text(f"{said}. {making.derivation}", 1000))
