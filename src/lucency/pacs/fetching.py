"""Films out of a DICOMweb archive: found by QIDO-RS, fetched by WADO-RS, explained one after another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from lucency.errors import LucencyError, ScanError
from lucency.explanation import Explanation
from lucency.pacs import work
from lucency.pacs.delivery import Delivery, Destination
from lucency.pacs.dicomweb import DicomWeb
from lucency.pacs.rules import Rules
from lucency.pacs.work import Question


@dataclass(frozen=True)
class Fetched:
    """What became of one instance of a study.

    Attributes:
        instance: its SOP instance UID.
        explanation: its explanation, or ``None``.
        refused: why the rules, or the model, say no; empty otherwise.
        error: why it could not be fetched, explained or sent; empty otherwise.
        delivery: what the destination holds of it, if it was sent.
    """

    instance: str
    explanation: Explanation | None = None
    refused: str = ""
    error: str = ""
    delivery: Delivery | None = None


def fetched(
    archive: DicomWeb,
    study: str,
    series: str | None,
    question: Question,
    *,
    rules: Rules,
    destination: Destination | None = None,
    secret: Path | None = None,
) -> Iterator[Fetched]:
    """Explains what a study, or one series of it, holds; one bad film does not end it.

    Args:
        destination: where what is derived goes; nowhere when ``None``.
        secret: where the patient is to be left out of that, see :func:`~lucency.pacs.work.derive`.

    Raises:
        ScanError: when the archive holds no such study or series.
        LucencyError: one of the family, when the archive cannot be asked.
    """
    films = archive.films(study, series)
    if not films:
        raise ScanError(f"{archive.name} holds no such study or series; check --study and --series.")
    for found in films:
        yield _one(archive, found, question, rules, destination, secret)


def _one(
    archive: DicomWeb,
    found: tuple[str, str, str],
    question: Question,
    rules: Rules,
    destination: Destination | None,
    secret: Path | None,
) -> Fetched:
    instance = found[-1]
    with TemporaryDirectory(prefix="lucency-") as place:
        film = Path(place) / f"{instance}.dcm"
        try:
            archive.fetch(*found, film)
            made = work.explain(film, question, rules)
            if isinstance(made, str):
                return Fetched(instance, refused=made)
            if destination is None:
                return Fetched(instance, made)
            names = work.derive(made, film, Path(place) / "objects", secret=secret)
            sent = destination.deliver([Path(place) / "objects" / name for name in names])
            return Fetched(instance, made, delivery=sent)
        except LucencyError as error:
            return Fetched(instance, error=str(error))
