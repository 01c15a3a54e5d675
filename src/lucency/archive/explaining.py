"""One film to its row: what every worker does, whoever runs it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from io import BytesIO
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.nn import functional as F

from lucency.archive.asked import Asked
from lucency.archive.evidence import Regions, evidence, regions
from lucency.archive.films import Film
from lucency.archive.rows import Row, digest_of
from lucency.errors import LucencyError, OutputError, ScanError
from lucency.explanation import Explanation
from lucency.metrics.localisation import localise
from lucency.privacy import printable, shown_source
from lucency.reading import read_scan
from lucency.scan import Scan
from lucency.writing import results

if TYPE_CHECKING:
    from lucency.render import Recorder

PICTURE = 256
"""Longest side of the small picture of a film."""
QUALITY = 80
MAP_SIDE = 224
"""Side of the maps of a model that takes films of any size."""


class ArchiveAwayError(ScanError):
    """The archive that films are fetched from cannot be reached."""


class Worker:
    """Holds the model and answers for one film after the other; it never raises over a film."""

    def __init__(self, asked: Asked) -> None:
        torch.set_num_threads(1)
        self.asked = asked
        self.explainer = asked.explainer()
        self._fetched: tuple[str, Path] | None = None

    def content(self, film: Film) -> tuple[str, str] | Row:
        """SHA-256 of the bytes of a film and its state, or the row that says why they cannot be read."""
        state = film.state
        try:
            return content_of(self._local(film)), state
        except ArchiveAwayError:
            raise
        except LucencyError as error:
            return self._failed(film, "", state, error)
        except (OSError, ValueError) as error:
            said = getattr(error, "strerror", None) or str(error)
            return self._failed(film, "", state, ScanError(f"{film.name} cannot be opened ({said}); check it."))

    def row(self, film: Film, content: str, state: str) -> Row:
        """The answer for a film, or why there is none."""
        try:
            scan = read_scan(
                self._local(film),
                frame=self.asked.frame,
                window=self.asked.window,
                value_range=self.asked.value_range,
            )
            recorder = None
            if self.asked.keep is not None and self.asked.animation != "none":
                from lucency.render import Recorder

                recorder = Recorder(known=self.explainer.known)
            answer = self.explainer(scan, self.asked.target, on_step=recorder)
            row = self._row(film, content, state, scan, answer)
            return row if self.asked.keep is None else self._kept(row, film, answer, recorder)
        except ArchiveAwayError:
            raise
        except OutputError as error:
            if self.asked.keep is None:
                return self._failed(film, content, state, error)
            raise
        except Exception as error:
            # One bad scan, whatever it does to the model, must not end an archive.
            return self._failed(film, content, state, error)

    def _local(self, film: Film) -> str:
        """Where the film lies here; one of a DICOMweb archive is fetched once, and gives way to the next.

        Raises:
            ArchiveAwayError: when the archive is away: then the run stops, rather than that all films fail.
            LucencyError: one of the family, when it has no such film.
        """
        if not film.remote:
            return film.file
        from lucency.archive.query import fetched
        from lucency.pacs.access import Access
        from lucency.pacs.delivery import UnreachableError

        if self._fetched is None or self._fetched[0] != film.file:
            self.close()
            folder = Path(mkdtemp(prefix="lucency-"))
            self._fetched = film.file, folder / "none"
            try:
                self._fetched = film.file, fetched(film.file, self.asked.access or Access(), folder)
            except LucencyError as error:
                self.close()
                if isinstance(error, UnreachableError):
                    raise ArchiveAwayError(f"{error} The same command goes on from here.") from error
                raise
        return str(self._fetched[1])

    def close(self) -> None:
        """Leaves no film behind that was fetched."""
        if self._fetched is not None:
            rmtree(self._fetched[1].parent, ignore_errors=True)
            self._fetched = None

    def same(self, film: Film, content: str, state: str) -> Row:
        """The row of a film whose bytes have been answered for."""
        return bare(film, self.asked, content, state, same=True)

    def _kept(self, row: Row, film: Film, answer: Explanation, recorder: Recorder | None) -> Row:
        """Leaves the whole explanation in a folder of its own."""
        from lucency.render.files import save_files

        assert self.asked.keep is not None
        name = "film" if self.asked.anonymous else "".join(c if c.isalnum() else "-" for c in Path(film.name).stem)[:60]
        name = f"{name}-{row.content[:8]}"
        with results(Path(self.asked.keep) / name, "explain") as place:
            save_files(
                answer.anonymous() if self.asked.anonymous else answer,
                place.place,
                recorder=recorder,
                animation=self.asked.animation,
                command=self.asked.command,
            )
        return dataclasses.replace(row, folder=name)

    def _failed(self, film: Film, content: str, state: str, error: Exception) -> Row:
        said = str(error) if isinstance(error, LucencyError) else f"{type(error).__name__}: {error}"
        # Where a film lies is nobody's business.
        said = " ".join(printable(said.replace(film.file, film.name)).split())[:500]
        if self.asked.anonymous:
            for name in (film.name, Path(film.file).name):
                said = said.replace(name, "the film")
        return bare(film, self.asked, content, state, error=said, kind=type(error).__name__)

    def _row(self, film: Film, content: str, state: str, scan: Scan, answer: Explanation) -> Row:
        asked, explainer = self.asked, self.explainer
        if asked.anonymous:
            answer = answer.anonymous()
        about, said = answer.provenance, answer.verdict
        flat = len(scan.shape) == 2
        found = regions(scan) if flat else None
        weighed = None if found is None else evidence(answer, scan, explainer.engine, found)
        half, scale = _on_grid(answer, scan, explainer.classifier)
        assert said is not None
        elsewhere, without = said.elsewhere, said.without
        beaten = sum(p <= without for p in elsewhere) if without is not None else 0
        row = dataclasses.replace(
            bare(film, asked, content, state),
            view=film.view or scan.view or None,
            shape=list(scan.shape),
            spacing=None if scan.spacing is None else list(scan.spacing),
            target=answer.target,
            probability=answer.probability,
            score=about.question.score,
            called=said.called,
            probabilities=dict(answer.probabilities),
            verdict=said.text,
            zone=said.zone or None,
            side=said.side or None,
            place=said.place or None,
            peak=None if answer.peak is None else list(answer.peak),
            at=None if weighed is None else weighed.at or None,
            shares=None if weighed is None else weighed.shares,
            on=None if weighed is None else weighed.on,
            area=None if weighed is None else weighed.area,
            effect=None if weighed is None else weighed.effect,
            region_area=said.area,
            region_evidence=said.evidence,
            without=without,
            p=(1 + beaten) / (1 + len(elsewhere)) if elsewhere else None,
            repeatable=said.level or None,
            signal_to_noise=said.signal_to_noise,
            out_of_distribution=said.out_of_distribution,
            sanity=said.sanity,
            complete=answer.complete,
            notices=list(answer.notices),
            evaluations=about.cost.evaluations,
            gradients=about.cost.gradients,
            seconds=about.cost.seconds,
            landmarks=None if found is None or found.landmarks is None else list(dataclasses.astuple(found.landmarks)),
            grid=_place_of_grid(scan, explainer.classifier),
            map=half,
            scale=scale,
            digest=digest_of(half),
            picture=_picture(answer, found) if asked.picture else None,
            provenance=json.dumps(about.as_dict()),
        )
        if film.boxes or film.mask:
            truth = _truth(film, scan)
            if truth.any():
                measured = localise(answer.heatmap, truth)
                row = dataclasses.replace(
                    row,
                    pointing_game=measured.pointing_game,
                    energy=measured.energy,
                    top=measured.top,
                    truth=measured.area,
                )
        return row


def bare(film: Film, asked: Asked, content: str, state: str, **said: Any) -> Row:
    """A row with what the list says of its film."""
    name = shown_source("", content or film.key, anonymous=True) if asked.anonymous else printable(film.name)
    patient = film.patient
    if asked.anonymous and patient is not None:
        patient = hashlib.sha256(patient.encode(errors="replace")).hexdigest()[:12]
    words = (film.label, film.site, film.view, patient, film.group)
    label, site, view, patient, group = (None if word is None else printable(word) for word in words)
    return Row(name, film.key, state, content, label=label, site=site, view=view, patient=patient, group=group, **said)


def content_of(path: str) -> str:
    """SHA-256 of the bytes of a file, or of all files of a folder with their names."""
    if os.path.isdir(path):  # noqa: PTH112
        digest = hashlib.sha256()
        for file in sorted(Path(path).iterdir()):
            if file.is_file():
                digest.update(os.fsencode(file.name) + b"\0" + bytes.fromhex(content_of(str(file))))
        return digest.hexdigest()
    if not os.path.isfile(path) and os.path.exists(path):  # noqa: PTH110, PTH113
        raise OSError(0, "it is no regular file")
    with open(path, "rb") as opened:  # noqa: PTH123
        return hashlib.file_digest(opened, "sha256").hexdigest()


def map_shape(asked: Asked, explainer: Any) -> tuple[int, ...]:
    """The shape of all maps of one question."""
    size = explainer.classifier.input_size
    return (MAP_SIDE, MAP_SIDE) if size is None else tuple(size)


def _on_grid(answer: Explanation, scan: Scan, classifier: Any) -> tuple[np.ndarray[Any, np.dtype[np.float16]], float]:
    heatmap = torch.from_numpy(answer.heatmap)
    if classifier.input_size is None:
        mode = "bilinear" if heatmap.ndim == 2 else "trilinear"
        shape = (MAP_SIDE,) * heatmap.ndim
        values = F.interpolate(heatmap[None, None], shape, mode=mode)[0, 0]
    else:
        values = classifier.placement(scan).to_grid(heatmap[None])[0]
    scale = float(values.abs().max()) or 1.0
    return (values / scale).numpy().astype(np.float16), scale


def _place_of_grid(scan: Scan, classifier: Any) -> list[float] | None:
    if len(scan.shape) != 2:
        return None
    if classifier.input_size is None:
        return [0.0, 0.0, 1.0, 1.0]
    frame = classifier.placement(scan)
    before = [-margin[0] / n for margin, n in zip(frame.margins, scan.shape, strict=True)]
    sizes = [box / n for box, n in zip(frame.box_shape, scan.shape, strict=True)]
    return [*before, *sizes]


def _picture(answer: Explanation, found: Regions | None) -> bytes:
    if found is not None:
        grey = found.small
    else:
        middle = (answer.peak or tuple(n // 2 for n in answer.heatmap.shape))[0]
        grey = answer.pixels.mean(0)[middle]
    image = Image.fromarray(np.rint(np.clip(grey, 0, 1) * 255).astype(np.uint8))
    image.thumbnail((PICTURE, PICTURE))
    file = BytesIO()
    image.save(file, format="JPEG", quality=QUALITY)
    return file.getvalue()


def _truth(film: Film, scan: Scan) -> np.ndarray[Any, np.dtype[np.bool_]]:
    truth = np.zeros(scan.shape, bool)
    if film.mask is not None:
        mask = read_scan(film.mask).pixels.mean(0).numpy() != 0
        if mask.shape != truth.shape:
            raise ScanError(
                f"The mask of {film.name} has {' x '.join(map(str, mask.shape))} pixels and the film "
                f"{' x '.join(map(str, truth.shape))}; give one on the film's grid."
            )
        truth |= mask
    if len(truth.shape) == 2:
        drawn = Image.fromarray(truth.astype(np.uint8))
        pen = ImageDraw.Draw(drawn)
        for x, y, width, height in film.boxes:
            right, low = max(round(x + width) - 1, round(x)), max(round(y + height) - 1, round(y))
            pen.rectangle((round(x), round(y), right, low), fill=1)
        truth = np.asarray(drawn) != 0
    return truth
