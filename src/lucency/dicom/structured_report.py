"""The finding as a Structured Report (TID 1500), which programs and archives can search."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from highdicom.sr import (
    AlgorithmIdentification,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    ImageRegion,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes

from lucency.dicom import codes as own
from lucency.dicom.making import NOTICE, Making, text
from lucency.dicom.region import outlines


def report(making: Making) -> Dataset:
    """Finding, probability, region, algorithm and verdict."""
    explanation = making.explanation
    film = making.source.reference()
    place = str(film.SOPClassUID), str(film.SOPInstanceUID)
    method = explanation.provenance.method
    about: dict[str, Any] = {
        "tracking_identifier": TrackingIdentifier(making.uid("region"), text(f"Lucency {making.target}", 64)),
        "finding_type": own.finding(explanation.target, making.model),
        "algorithm_id": AlgorithmIdentification(
            f"Lucency, {method.title}",
            version("lucency"),
            parameters=[
                f"model: {making.model}",
                f"fingerprint of the model: {making.fingerprint}",
                f"method: {making.how}",
                f"watched: {text(explanation.provenance.question.label, 200)}",
                f"class: {making.target}",
            ],
        ),
        "measurements": [Measurement(own.CERTAINTY, 100 * explanation.probability, own.PERCENT)],
    }
    regions = outlines(explanation)
    group: Any
    if regions:
        region = ImageRegion("POLYLINE", regions[0], SourceImageForRegion(*place))
        group = PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=region, **about)
    else:
        group = MeasurementsAndQualitativeEvaluations(source_images=[SourceImageForMeasurementGroup(*place)], **about)
    verdict = "No verdict was given." if explanation.verdict is None else explanation.verdict.text
    for words in (f"{NOTICE}.", f"Verdict: {verdict}", *(f"Note: {notice}" for notice in explanation.notices)):
        group[0].ContentSequence.append(TextContentItem(own.COMMENT, words, relationship_type="CONTAINS"))
    device = DeviceObserverIdentifyingAttributes(
        making.uid("device"),
        name="Lucency",
        manufacturer_name="Lucency",
        model_name=making.model,
        serial_number=making.fingerprint,
    )
    content = MeasurementReport(
        ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, device)),
        procedure_reported=own.IMAGING,
        imaging_measurements=[group],
        title=codes.DCM.ImagingMeasurementReport,
    )
    heading = making.heading("report", "report")
    found: Dataset = ComprehensiveSR(
        evidence=[film],
        content=content[0],
        is_complete=explanation.complete,
        is_final=False,
        is_verified=False,
        **heading,
    )
    return making.finished(found)
