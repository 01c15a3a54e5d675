"""What happens to a film between its arrival and the archive: explained, and derived from."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread

from lucency.dicom import derived
from lucency.errors import ScanError
from lucency.explanation import Explanation
from lucency.pacs.deidentify import deidentified, secret_of, undated
from lucency.pacs.rules import Rules, word
from lucency.reading import read_scan
from lucency.recipe import Explainer
from lucency.writing import whole


@dataclass(frozen=True)
class Question:
    """What is asked of every film.

    Attributes:
        explainer: model, method and everything about them.
        target: the class; the most probable one of each film when ``None``.
    """

    explainer: Explainer
    target: str | int | None = None

    @property
    def digest(self) -> str:
        """The same for the same question: model, class, method with its parameters, what is watched, budget, seed."""
        explainer = self.explainer
        said = [
            explainer.classifier.fingerprint or explainer.classifier.name,
            self.target,
            repr(explainer.method),
            explainer.watching,
            explainer.budget,
            explainer.error_bars,
            explainer.engine.seed,
        ]
        return hashlib.sha256(json.dumps(said, default=str).encode()).hexdigest()[:16]

    @property
    def chest(self) -> bool:
        """Whether the model is known to have learnt from chest films."""
        known = self.explainer.known
        return known is not None and known.chest


def header_of(film: Path) -> Dataset:
    """The dataset of a film without its pixels.

    Raises:
        ScanError: when it is none.
    """
    try:
        return dcmread(film, stop_before_pixels=True)
    except Exception as error:
        # A stranger wrote it, and pydicom raises whatever comes up.
        raise ScanError(f"{film.name} cannot be read as DICOM; send it again.") from error


def about(header: Dataset) -> dict[str, str]:
    """What is kept of a film in the list of work: nothing of it is the patient's name or number."""
    said = {
        "sop_instance": str(header.get("SOPInstanceUID") or ""),
        "study": str(header.get("StudyInstanceUID") or ""),
        "series": str(header.get("SeriesInstanceUID") or ""),
    }
    for name, keyword in (("modality", "Modality"), ("view", "ViewPosition"), ("body_part", "BodyPartExamined")):
        said[name] = word(header, keyword)
    return said


def explain(
    film: Path,
    question: Question,
    rules: Rules,
    *,
    stop: threading.Event | None = None,
    on_progress: Callable[..., None] = lambda **_: None,
) -> Explanation | str:
    """The explanation of a film, or why there is none; ``stop`` ends it early, and the map is incomplete then.

    Raises:
        LucencyError: one of the family, when the film cannot be read or explained.
    """
    if refusal := rules.refusal(header_of(film), chest=question.chest):
        return refusal
    run = question.explainer.steps(read_scan(film), question.target, cancel=stop)
    with closing(run):
        for step in run:
            # The doubts are there from the first step on.
            if run.doubts and not rules.doubtful:
                return run.doubts[0]
            on_progress(done=round(step.done, 3))
    return run.explanation


def derive(explanation: Explanation, film: Path, folder: Path, *, secret: Path | None = None) -> list[str]:
    """Writes the derived objects into a folder; the names of the files, those first that viewers show.

    Args:
        secret: the file of :func:`~lucency.pacs.deidentify.secret_of` where the patient is to be left out.

    Raises:
        LucencyError: one of the family, when the film cannot be referred to or the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if secret is not None:
        source = folder / "film.dcm"
        deidentified(film, source, secret_of(secret))
        film, explanation = source, undated(explanation)
    objects = derived(explanation, film)
    for name, found in objects.items():
        with whole(folder / name) as part:
            found.save_as(part, enforce_file_format=True)
    return list(objects)


def said(explanation: Explanation) -> Mapping[str, Any]:
    """What the list of work says of an explanation."""
    probability = explanation.probability
    return {
        "target": explanation.target,
        "probability": round(probability, 4) if probability == probability else None,
        "answer": explanation.answer,
        "complete": explanation.complete,
    }
