"""Films that lie in a DICOMweb archive: found by QIDO-RS, fetched by a worker just before it explains them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from lucency.archive.films import Film
from lucency.errors import ParameterError, ScanError
from lucency.pacs.access import Access
from lucency.pacs.destination import address
from lucency.pacs.dicomweb import DicomWeb


@dataclass(frozen=True)
class Query:
    """Every instance that an archive finds, asked anew at each iteration.

    Args:
        url: the address, with what is looked for as in QIDO-RS: ``https://pacs/dicom-web?Modality=DX&StudyDate=20260101-``.
        access: certificates, user, password or token.

    Raises:
        ParameterError: when the address is none.
        ScanError: when the archive finds nothing.
    """

    url: str
    access: Access

    def __post_init__(self) -> None:
        if next(iter(self), None) is None:
            raise ScanError(f"{self._archive.name} finds nothing of that kind; look for something else.")

    @property
    def _archive(self) -> DicomWeb:
        parts = urlsplit(self.url)
        return DicomWeb(address(urlunsplit(parts._replace(query="", fragment=""))), self.access)

    def __iter__(self) -> Iterator[Film]:
        archive = self._archive
        for found in archive.search(dict(parse_qsl(urlsplit(self.url).query))):
            study, series, instance = (
                str(found.get(name) or "") for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
            )
            patient = str(found.get("PatientID") or "")
            yield Film(
                f"{archive.url}/studies/{study}/series/{series}/instances/{instance}",
                instance,
                patient=hashlib.sha256(patient.encode()).hexdigest()[:12] if patient else None,
            )

    def __len__(self) -> int:
        return sum(1 for _ in self)


def fetched(url: str, access: Access, folder: Path) -> Path:
    """The instance at an address that :class:`Query` made, as a file.

    Raises:
        LucencyError: one of the family, when it cannot be fetched.
    """
    base, *rest = url.rsplit("/", 6)
    if len(rest) != 6 or rest[::2] != ["studies", "series", "instances"]:
        raise ParameterError("That is no address of a DICOM instance; write https://HOST/PATH?Modality=DX.")
    study, series, instance = rest[1::2]
    file = folder / f"{instance}.dcm"
    DicomWeb(base, access).fetch(study, series, instance, file)
    return file
