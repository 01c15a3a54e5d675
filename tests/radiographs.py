"""A digital radiograph of a chest in a DICOM file without a fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from bad_inputs import dicom as capture

DX = "1.2.840.10008.5.1.4.1.1.1.1"


def code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def film(path: Path, values: NDArray[np.generic] | None = None, **tags: object) -> Path:
    """A digital radiograph of a chest, without a fault."""
    if values is None:
        rows, columns = np.mgrid[:64, :80]
        values = (500 + 30 * rows + 9 * columns).astype(np.uint16)
    data = capture(values)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = DX
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.826.0.1.3680043.2.1.1"
    about: dict[str, object] = {
        "SpecificCharacterSet": "ISO_IR 100",
        "StudyInstanceUID": "1.2.826.0.1.3680043.2.1",
        "SeriesInstanceUID": "1.2.826.0.1.3680043.2.1.9",
        "ImageType": ["ORIGINAL", "PRIMARY", ""],
        "PatientName": "Müller^Jürg",
        "PatientID": "4711",
        "PatientBirthDate": "19520229",
        "PatientSex": "M",
        "PatientAge": "062Y",
        "StudyDate": "20140301",
        "StudyTime": "101500",
        "AcquisitionDate": "20140301",
        "AcquisitionTime": "101501",
        "ContentDate": "20140301",
        "ContentTime": "101501",
        "AccessionNumber": "A1",
        "ReferringPhysicianName": "Doe^Jane",
        "StudyID": "S1",
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "Manufacturer": "Maker",
        "Modality": "DX",
        "PresentationIntentType": "FOR PRESENTATION",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "ImageLaterality": "U",
        "PatientOrientation": ["L", "F"],
        "ImagerPixelSpacing": [0.2, 0.2],
        "PixelIntensityRelationship": "LOG",
        "PixelIntensityRelationshipSign": -1,
        "RescaleIntercept": 0,
        "RescaleSlope": 1,
        "RescaleType": "US",
        "PresentationLUTShape": "IDENTITY",
        "LossyImageCompression": "00",
        "BurnedInAnnotation": "NO",
        "WindowCenter": 2048,
        "WindowWidth": 4096,
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "AcquisitionContextSequence": [],
        "DetectorType": "DIRECT",
        "PositionerType": "",
        "AnatomicRegionSequence": [code("51185008", "SCT", "Chest")],
        "ViewCodeSequence": [code("272479007", "SCT", "postero-anterior")],
        **tags,
    }
    about["ViewCodeSequence"][0].ViewModifierCodeSequence = []  # type: ignore[index]
    for name, value in about.items():
        if value is None:
            data.pop(name, None)
        else:
            setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path
