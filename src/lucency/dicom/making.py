"""What all objects of one explanation share: identifiers, dates, the patient, the words that describe them."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
from pydicom import DataElement, Dataset
from pydicom.charset import convert_encodings
from pydicom.uid import UID

from lucency.dicom.source import STUDY, Source
from lucency.explanation import Explanation
from lucency.privacy import printable
from lucency.records import plain

NOTICE = "Research only, not for diagnosis"
SCHEME = "99LUCENCY"
SERIES = {"overlay": 9701, "presentation": 9702, "report": 9703, "segmentation": 9704, "map": 9705, "animation": 9706}
"""Series numbers, far above those of a study."""


UNPAIRED = frozenset(
    ("ABDOMEN", "ABDOMENPELVIS", "CHEST", "CHESTABDOMEN", "COCCYX", "CSPINE", "HEAD", "HEART", "JAW", "LSPINE",
     "LSSPINE", "NECK", "PELVIS", "SKULL", "SPINE", "SSPINE", "STERNUM", "TLSPINE", "TSPINE", "WHOLEBODY")
)  # fmt: skip
"""Body parts of which there is one, so that they have no side."""


@dataclass(frozen=True, eq=False)
class Making:
    """One explanation on its way into DICOM."""

    explanation: Explanation
    source: Source

    @cached_property
    def identity(self) -> str:
        """A hash of what the objects say: the same explanation of the same film has the same, whenever it was made."""
        about, verdict = self.explanation.provenance, self.explanation.verdict
        digest = hashlib.sha256(np.ascontiguousarray(self.explanation.heatmap, "<f4").tobytes())
        said = [
            version("lucency"),
            str(self.source.header.SOPInstanceUID),
            about.scan.sha256,
            plain((about.model, about.question, about.method, about.complete)),
            dict(self.explanation.probabilities),
            None if verdict is None else verdict.text,
            list(self.explanation.notices),
        ]
        digest.update(json.dumps(said, sort_keys=True).encode())
        return digest.hexdigest()

    def uid(self, *words: object) -> UID:
        """A unique identifier that follows from the explanation and some words."""
        return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, ' '.join(map(str, (self.identity, *words)))).int}")

    def heading(self, kind: str, name: str, number: int = 1) -> dict[str, Any]:
        """The arguments that every constructor of highdicom takes."""
        return {
            "series_instance_uid": self.uid("series", kind),
            "series_number": SERIES[kind],
            "sop_instance_uid": self.uid("instance", kind, number),
            "instance_number": number,
            "manufacturer": "Lucency",
            "manufacturer_model_name": self.model,
            "software_versions": version("lucency"),
            "device_serial_number": self.fingerprint,
            "series_description": text(f"{self.target}: {name}. {NOTICE}", 64),
        }

    @property
    def target(self) -> str:
        return text(self.explanation.target, 64)

    @property
    def model(self) -> str:
        return text(self.explanation.provenance.model.name, 64) or "unnamed"

    @property
    def fingerprint(self) -> str:
        return text(self.explanation.provenance.model.fingerprint, 64) or "none"

    @property
    def doubts(self) -> list[str]:
        """Why the film cannot be what the model reads."""
        verdict = self.explanation.verdict
        return [] if verdict is None else list(verdict.doubts)

    @property
    def how(self) -> str:
        """The method and what stood where something was removed."""
        method = self.explanation.provenance.method.title
        removal = self.explanation.removal
        return text(f"{method}, removal {removal}" if removal else method, 200)

    @property
    def derivation(self) -> str:
        """How the object came about, for Derivation Description; at most 1,024 characters."""
        about = self.explanation.provenance
        said = (
            f"{NOTICE}. Where the evidence lies for {self.target} (probability {self.explanation.probability:.3f}), as "
            f"the classifier {self.model} ({self.fingerprint}) sees it: {self.how}, watching the "
            f"{about.question.label}; Lucency {version('lucency')}. Unit of the map: {about.method.unit}."
        )
        return text(said, 700)

    def finished(self, found: Dataset, *, described: str | None = None) -> Dataset:
        """Completes an object: the film's patient and study as they are, dates and identifiers of the explanation.

        Args:
            described: what Derivation Description says, where the object has one.
        """
        header = self.source.header
        kept = [e for e in header if e.tag.group in (0x0010, 0x0012) or e.keyword in STUDY]
        for old in [e.tag for e in found if e.tag.group in (0x0010, 0x0012)]:
            del found[old]
        for element in kept:
            found.add(element)
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex"):
            if keyword not in found:
                setattr(found, keyword, "")
        self._body_part(found)
        if described is not None:
            found.DerivationDescription = described
        self._encoded(found)
        self._identified(found)
        self._dated(found)
        found.file_meta.ImplementationVersionName = f"LUCENCY {version('lucency')}"[:16]
        return found

    def _encoded(self, found: Dataset) -> None:
        """Takes the film's character set, so that the patient's name keeps its bytes, or UTF-8 where that is too small.

        ``dcentvfy``, and some archives, compare names by their bytes.
        """
        given = self.source.header.get("SpecificCharacterSet")
        words: list[str] = []

        def own(_: Dataset, element: DataElement) -> None:
            if element.VR in ("LO", "LT", "PN", "SH", "ST", "UC", "UT") and element.tag.group not in (0x0010, 0x0012):
                words.append(str(element.value))

        found.walk(own)
        if SCHEME in words:
            scheme = Dataset()
            scheme.CodingSchemeDesignator, scheme.CodingSchemeName = SCHEME, "Lucency's words for what has no code"
            found.CodingSchemeIdentificationSequence = [scheme]
        try:
            "".join(words).encode("ascii" if not isinstance(given, str) else convert_encodings(given)[0])
        except UnicodeEncodeError:
            given = "ISO_IR 192"
        if given:
            found.SpecificCharacterSet = given
        else:
            found.pop("SpecificCharacterSet", None)

    def _body_part(self, found: Dataset) -> None:
        header = self.source.header
        part = str(header.get("BodyPartExamined") or "").strip()
        # All models that are shipped read chests.
        part = part or ("CHEST" if self.model.startswith("lucency:") else "")
        side = header.get("Laterality") or header.get("ImageLaterality")
        found.pop("Laterality", None)
        if found.Modality == "SR":
            return
        if part:
            found.BodyPartExamined = part
        if found.Modality == "SEG":
            return
        if side in ("L", "R"):
            found.Laterality = side
        elif part.upper() not in UNPAIRED:
            # Of a part that there may be twice the side must be said, or that it is unknown.
            found.Laterality = ""

    def _identified(self, found: Dataset) -> None:
        """Puts identifiers that follow from the explanation in place of those that were drawn by chance."""
        header = self.source.header
        known = {str(header[k].value) for k in header.dir("UID") if header[k].VR == "UI"}
        known |= {str(found.SOPInstanceUID), str(found.SeriesInstanceUID)}
        mine: dict[str, UID] = {}

        def replaced(_: Dataset, element: DataElement) -> None:
            if element.VR != "UI" or not element.value or not isinstance(element.value, str):
                return
            old = str(element.value)
            if old in known or old.startswith("1.2.840.10008.") or old in self._given:
                return
            element.value = mine.setdefault(old, self.uid(found.SOPInstanceUID, len(mine)))

        found.walk(replaced)

    @cached_property
    def _given(self) -> set[str]:
        return {str(self.uid(word)) for word in ("device", "region", "frame of reference")}

    def _dated(self, found: Dataset) -> None:
        """Dates of the explanation in place of those of now, in its time zone, which is UTC."""
        try:
            made = datetime.fromisoformat(self.explanation.provenance.made).astimezone(UTC)
        except (ValueError, OverflowError):
            made = datetime.fromtimestamp(0, UTC)
        date, time = made.strftime("%Y%m%d"), made.strftime("%H%M%S")
        for element in found:
            if element.keyword in ("StudyDate", "StudyTime") or element.tag.group in (0x0010, 0x0012):
                continue
            if element.VR == "DA":
                element.value = date
            elif element.VR == "TM":
                element.value = time
        found.TimezoneOffsetFromUTC = "+0000"

        def dated(_: Dataset, element: DataElement) -> None:
            if element.VR == "DT":
                element.value = f"{date}{time}"

        found.walk(dated)


def text(words: str, most: int) -> str:
    """Words as an element of text takes them: one line, no backslash (it parts values), at most ``most`` characters."""
    said = " ".join(printable(str(words)).replace("\\", "/").split())
    return said if len(said) <= most else said[: most - 3].rstrip() + "..."
