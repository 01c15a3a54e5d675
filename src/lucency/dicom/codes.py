"""What classes, units and algorithms are called in the code systems of DICOM."""

from __future__ import annotations

import hashlib

from pydicom.sr.coding import Code

from lucency.dicom.making import SCHEME, text

FINDINGS = {
    "effusion": Code("60046008", "SCT", "Pleural effusion"),
    "atelectasis": Code("46621007", "SCT", "Atelectasis"),
    "cardiomegaly": Code("8186001", "SCT", "Cardiomegaly"),
    "consolidation": Code("95436008", "SCT", "Lung consolidation"),
    "edema": Code("19242006", "SCT", "Pulmonary edema"),
    "emphysema": Code("87433001", "SCT", "Pulmonary emphysema"),
    "fibrosis": Code("51615001", "SCT", "Fibrosis of lung"),
    "infiltration": Code("112121", "DCM", "Infiltrate"),
    "mass": Code("309529002", "SCT", "Lung mass"),
    "nodule": Code("427359005", "SCT", "Solitary nodule of lung"),
    "pneumonia": Code("233604007", "SCT", "Pneumonia"),
    "pneumothorax": Code("36118008", "SCT", "Pneumothorax"),
}
"""Of the classes of the shipped models, those that mean one thing."""
CERTAINTY = Code("111012", "DCM", "Certainty of Finding")
PERCENT = Code("%", "UCUM", "Percent")
NO_UNITS = Code("1", "UCUM", "no units")
COMMENT = Code("121106", "DCM", "Comment")
LEARNED = Code("123109", "DCM", "Artificial Intelligence")
IMAGING = Code("363679005", "SCT", "Imaging procedure")
SPATIAL = Code("309825002", "SCT", "Spatial and Relational Concept")


def finding(name: str, model: str) -> Code:
    """The code of a class; a private one, which says no more than the name, where the model is not one of ours."""
    known = FINDINGS.get(name) if model.startswith("lucency:") else None
    return known or private(name)


def private(meaning: str) -> Code:
    """A code of our own for words that have none."""
    value = hashlib.sha256(meaning.encode()).hexdigest()[:16].upper()
    return Code(value, SCHEME, text(meaning, 64) or "unnamed")
