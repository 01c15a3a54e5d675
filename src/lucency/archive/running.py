"""A whole archive, film by film, into one place: stopped or killed at any time it goes on where it was."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from lucency.archive.asked import Asked
from lucency.archive.crew import Answered, Content, Crew, Died, Event, Inside, Processes, Ready, Refused
from lucency.archive.explaining import bare, map_shape
from lucency.archive.films import Film
from lucency.archive.manifest import Manifest
from lucency.archive.place import Place
from lucency.archive.rows import Row
from lucency.errors import LucencyError, ModelError, OutputError, ParameterError

ROWS = 256
"""Rows of a shard, if they come quickly."""
SECONDS = 60.0
"""Time after which a row is written at the latest."""
TRIES = 2
"""A film in whose company so many workers died is given up."""
STARTS = 3
"""So many workers in succession may die before they are ready."""
PATIENCE = 900.0
"""Seconds without any worker that is ready after which a run is given up."""


class Listed(Protocol):
    """Films that can be counted, and gone through again."""

    def __iter__(self) -> Iterator[Film]: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        total: films there are.
        before: of these, done by earlier runs.
        done: with a row by now, those of earlier runs included.
        failed: of this run, without an answer.
        rate: films a minute in this run; 0 until the first.
        left: seconds, as far as can be told; ``None`` until then.
    """

    total: int
    before: int
    done: int
    failed: int
    rate: float
    left: float | None


def run(
    films: Listed,
    where: str | os.PathLike[str],
    asked: Asked,
    *,
    workers: int | None = None,
    ray: str | None = None,
    worker_memory: float = 2.0,
    again: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
) -> Progress:
    """Explains every film that has no row yet; gives how far it came.

    Args:
        films: what is explained.
        where: a folder or a URL of fsspec; made when missing. A run that was stopped there goes on.
        asked: what is asked of each film; one place holds answers to one question.
        workers: how many processes; as many as there are free processors and memory when ``None``, one for a GPU, and
            0 for the caller's own process.
        ray: the address of a Ray cluster, ``"auto"`` for one that runs here or else a new one; ``None`` without Ray.
        worker_memory: GiB that one worker is reckoned to take.
        again: films that have a row without an answer are tried once more.
        on_progress: called after each film.
        cancel: set it from anywhere to stop; what is finished is written.

    Raises:
        OutputError: when the place cannot be used or written, or holds answers to another question.
        LucencyError: one of the family, when model, class and method do not go together.
    """
    if workers is not None and workers < 0:
        raise ParameterError(f"A run needs 0 or more workers, not {workers}.")
    if not worker_memory > 0:
        raise ParameterError(f"A worker takes more than {worker_memory:g} GiB; say how much.")
    place = Place(os.fspath(where))
    explainer = asked.explainer()
    question, grid = asked.question(explainer), map_shape(asked, explainer)
    device = explainer.engine.device.type
    del explainer
    with place.held():
        manifest = Manifest(place, question, grid, again=again)
        told = _Told(films, on_progress)
        told.tell()
        unknown = _unknown(films, manifest, told)
        first = next(unknown, None)
        if first is None:
            # Nobody is called when there is nothing to do.
            return told.progress
        crew = _crew(asked, workers, ray, worker_memory, device)
        try:
            with _Written(manifest) as kept:
                _Run(chain([first], unknown), asked, manifest, kept, crew, told, cancel).go()
        finally:
            crew.close()
    return told.progress


def _crew(asked: Asked, workers: int | None, ray: str | None, memory: float, device: str) -> Crew:
    if ray is not None:
        from lucency.archive.on_ray import Actors

        return Actors(asked, workers, address=ray, memory=memory, gpu=device == "cuda")
    if workers == 0:
        return Inside(asked)
    return Processes(asked, workers or (1 if device == "cuda" else usual_workers(memory)))


def usual_workers(memory: float) -> int:
    """As many as there are processors for this process and as have ``memory`` GiB each."""
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # not everywhere
        processors = os.cpu_count() or 1
    try:
        pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (ValueError, OSError, AttributeError):
        return processors
    return max(1, min(processors, int(pages / memory)))


class _Told:
    """Keeps count and tells whoever watches."""

    def __init__(self, films: Listed, on_progress: Callable[[Progress], None] | None) -> None:
        self._on_progress = on_progress
        self._total = len(films)
        self._before = self._done = self._failed = 0
        self._started = time.monotonic()

    @property
    def progress(self) -> Progress:
        mine = self._done - self._before
        seconds = time.monotonic() - self._started
        rate = 60 * mine / seconds if mine and seconds > 0 else 0.0
        left = 60 * (self._total - self._done) / rate if rate else None
        return Progress(self._total, self._before, self._done, self._failed, rate, left)

    def known(self) -> None:
        """A film has its row already."""
        self._before += 1
        self._done += 1
        if self._done % 1000 == 0:
            self.tell()

    def row(self, row: Row) -> None:
        """A film got its row."""
        self._done += 1
        self._failed += row.error is not None
        self.tell()

    def tell(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self.progress)


def _unknown(films: Listed, manifest: Manifest, told: _Told) -> Iterator[Film]:
    """The films that have no row yet."""
    seen: set[bytes] = set()
    for film in films:
        key = bytes.fromhex(film.key)
        # A list may name a film twice.
        if key in seen or manifest.knows(film.key, film.state):
            told.known()
        else:
            yield film
        seen.add(key)


class _Written:
    """Rows on their way into shards; whatever ends the run, those that are finished are written."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._rows: list[Row] = []
        self.contents: set[str] = set()
        self._since = 0.0

    def __enter__(self) -> _Written:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        # What the disk has just refused it would refuse again.
        if not isinstance(error, OutputError):
            self.write()

    def add(self, row: Row) -> None:
        if not self._rows:
            self._since = time.monotonic()
        self._rows.append(row)
        self.contents.add(row.content)
        self.due()

    def due(self) -> None:
        if self._rows and (len(self._rows) >= ROWS or time.monotonic() - self._since >= SECONDS):
            self.write()

    def write(self) -> None:
        if self._rows:
            self._manifest.commit(self._rows)
            self._rows, self.contents = [], set()


class _Run:
    """Who does what next."""

    def __init__(
        self,
        films: Iterator[Film],
        asked: Asked,
        manifest: Manifest,
        kept: _Written,
        crew: Crew,
        told: _Told,
        cancel: threading.Event | None,
    ) -> None:
        self._asked = asked
        self._manifest = manifest
        self._kept = kept
        self._crew = crew
        self._told = told
        self._cancel = cancel
        self._films = films
        self._again: deque[tuple[Film, int]] = deque()
        self._idle: list[int] = []
        self._busy: dict[int, tuple[Film, int]] = {}
        self._contents: dict[int, str] = {}
        self._unready = 0
        self._alive_at = time.monotonic()

    def go(self) -> None:
        """Until every film has its row, or somebody stops it."""
        ended = False
        while not ended and not (self._cancel is not None and self._cancel.is_set()):
            for event in self._crew.events():
                self._happened(event)
            while self._idle and (film := self._next()) is not None:
                worker = self._idle.pop()
                self._busy[worker] = film
                self._crew.give(worker, ("content", film[0]))
            self._kept.due()
            ended = not self._busy and bool(self._idle)
            self._watched()

    def _next(self) -> tuple[Film, int] | None:
        if self._again:
            return self._again.popleft()
        film = next(self._films, None)
        return None if film is None else (film, 1)

    def _happened(self, event: Event) -> None:
        match event:
            case Ready(worker):
                self._unready = 0
                self._idle.append(worker)
            case Refused(_, error):
                raise error
            case Content(worker, content, state):
                self._read(worker, content, state)
            case Answered(worker, row):
                self._free(worker)
                self._row(row)
            case Died(worker, why, ready):
                self._died(worker, why, ready)

    def _read(self, worker: int, content: str, state: str) -> None:
        film = self._busy[worker][0]
        if self._manifest.names(film.key, content):
            # Only its date has changed.
            self._free(worker)
            self._told.known()
        elif self._manifest.has(content) or content in self._contents.values() or content in self._kept.contents:
            self._free(worker)
            self._row(bare(film, self._asked, content, state, same=True))
        else:
            self._contents[worker] = content
            self._crew.give(worker, ("row", film, content, state))

    def _free(self, worker: int) -> None:
        self._busy.pop(worker, None)
        self._contents.pop(worker, None)
        self._idle.append(worker)

    def _row(self, row: Row) -> None:
        self._kept.add(row)
        self._told.row(row)

    def _died(self, worker: int, why: str, ready: bool) -> None:
        if worker in self._idle:
            self._idle.remove(worker)
        if not ready:
            self._unready += 1
            if self._unready >= STARTS:
                raise ModelError(
                    f"{STARTS} workers died in succession while they loaded the model ({why}); give them more "
                    "memory, or run fewer with --workers."
                )
        content = self._contents.pop(worker, "")
        if worker not in self._busy:
            return
        film, tries = self._busy.pop(worker)
        if tries < TRIES:
            # The machine may have been at fault, or the worker beside it.
            self._again.append((film, tries + 1))
            return
        said = f"The worker died over it {TRIES} times ({why}); look at the film, or give the worker more memory."
        self._row(bare(film, self._asked, content, film.state, error=said, kind="WorkerDied"))

    def _watched(self) -> None:
        if self._idle or self._busy:
            self._alive_at = time.monotonic()
        elif time.monotonic() - self._alive_at > PATIENCE:
            raise LucencyError(
                f"No worker was ready for {PATIENCE / 60:.0f} minutes; look at the cluster and start the run again, it "
                "goes on."
            )
