"""A film without its patient: the basic profile of DICOM PS3.15, Annex E, by the tables of dicom-anonymizer.

The film is de-identified before anything is derived, so what leaves was never made of anything else: the derived
objects take patient and study from it, and their own words (class, model, method) say nothing of a patient. Pixels are
left as they are: a name burnt into them stays.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.uid import UID

from lucency.errors import MissingExtraError, OutputError, ScanError
from lucency.explanation import Explanation
from lucency.writing import whole

_EDITION = "dicomfields_2026c"
_STANDARD = "1.2.840.10008."


def secret_of(file: Path) -> bytes:
    """The key that identifiers are replaced with, made when missing.

    With it the same film gives the same identifiers, so that an archive keeps one of each; without it nobody gets from
    the new ones to the old.
    """
    if not file.is_file():
        with whole(file) as part:
            part.chmod(0o600)
            part.write_bytes(secrets.token_bytes(32))
    secret = file.read_bytes()
    if len(secret) != 32:
        raise OutputError(f"{file} is damaged; move it away, and identifiers will be others from now on.")
    return secret


def deidentified(source: Path, to: Path, secret: bytes) -> None:
    """Writes a film without its patient.

    Raises:
        ScanError: when the film holds something that the profile has no answer to.
        OutputError: when it cannot be written.
    """
    film = dcmread(source)
    rules = _rules(secret)
    try:
        for one in reversed(list(_nested(film))):
            _profiled(one, rules)
            _undated(one)
    except (NotImplementedError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ScanError(
            f"The film cannot be de-identified ({type(error).__name__}: {error}); nothing of it leaves."
        ) from error
    film.PatientIdentityRemoved = "YES"
    film.DeidentificationMethod = "DICOM PS3.15 basic profile, by dicom-anonymizer; pixels kept"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    film.DeidentificationMethodCodeSequence = [code]
    film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID
    for keyword in ("SourceApplicationEntityTitle", "PrivateInformation", "PrivateInformationCreatorUID"):
        film.file_meta.pop(keyword, None)
    film.preamble = b"\0" * 128
    with whole(to) as part:
        film.save_as(part, enforce_file_format=True)


def undated(explanation: Explanation) -> Explanation:
    """The explanation without the moment at which it was made, which is soon after the film's."""
    return replace(explanation, provenance=replace(explanation.provenance, made=""))


def _nested(film: Dataset) -> Any:
    """A dataset and all that lie in it, those that hold others first."""
    yield film
    for element in film:
        if element.VR == "SQ":
            for item in element.value:
                yield from _nested(item)


def _profiled(one: Dataset, rules: dict[Any, Callable[..., None]]) -> None:
    from dicomanonymizer import anonymize_dataset

    anonymize_dataset(one, base_rules_gen=lambda: dict(rules))


def _undated(one: Dataset) -> None:
    """The library writes the year 1 where the profile asks for nothing or for a dummy; validators take no such year."""
    dummies = {"DA": "00010101", "DT": "00010101010101", "TM": "000000.00"}
    for element in one:
        if element.VR in dummies and str(element.value).startswith(dummies[element.VR]):
            element.value = ""


@cache
def _rules(secret: bytes) -> dict[Any, Callable[..., None]]:
    try:
        from dicomanonymizer import simpledicomanonymizer as library
    except ImportError as error:
        raise MissingExtraError(
            "--deidentify needs dicom-anonymizer, which is not installed; run pip install 'lucency[clinic]'."
        ) from error

    def renamed(dataset: Dataset, tag: tuple[int, int]) -> None:
        element = dataset.get(tag)
        if element is not None and element.value:
            many = element.value if not isinstance(element.value, str) else [element.value]
            new = [new_uid(str(old), secret) for old in many]
            element.value = new if len(new) > 1 else new[0]

    rules: dict[Any, Callable[..., None]] = dict(library.initialize_actions(_EDITION))
    # The library draws identifiers by chance, another one at every start.
    return {tag: renamed if rule is library.replace_UID else rule for tag, rule in rules.items()}


def new_uid(old: str, secret: bytes) -> UID:
    """The identifier that stands for another one; those of the standard itself stay."""
    if old.startswith(_STANDARD):
        return UID(old)
    digest = hmac.new(secret, old.encode(), hashlib.sha256).digest()
    return UID(f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}")
