"""The rows of the trust table: which there are to make, where they are kept, and how they are made one by one.

A row that is there is not made again, whoever stopped whom; one process at a time writes to a folder.
"""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

from filelock import Timeout

from lucency import LucencyError, load_classifier
from lucency.engine import Engine
from lucency.errors import OutputError, ParameterError
from lucency.methods import Method, method_named
from lucency.methods.occlusion import Occlusion
from lucency.removal import Removal
from lucency.work import Stage
from lucency.writing import alone, reason
from trust.films import Film, boxed, findings, normal, simulated
from trust.measuring import Case, gold_map, kept_array, map_result, phantom_case, removal_result
from trust.record import MapResult, RemovalResult, TrustRow


def named(text: str) -> list[str]:
    """The names in ``a,b,c``."""
    return [name.strip() for name in text.split(",") if name.strip()]


def contestants(methods: str, removals: str) -> list[tuple[str, str, Method]]:
    """``(method, removal, the method with it)`` for every combination; a method that removes nothing comes once.

    Raises:
        ParameterError: when a method, a removal or a setting does not exist.
    """
    found: list[tuple[str, str, Method]] = []
    for spec in named(methods):
        name, *settings = spec.split(":")
        how = method_named(name, settings)
        if how.removal is None:
            found.append((spec, "", how))
            continue
        found += [(spec, removal, with_removal(name, settings, removal)) for removal in named(removals)]
    return found


def with_removal(name: str, settings: Sequence[str], removal: str) -> Method:
    """The method with a removal given as in ``blur:sigma=20``."""
    standing, *inner = removal.split(":")
    return method_named(name, [*settings, f"removal={standing}", *(f"removal.{setting}" for setting in inner)])


def removal_with(spec: str) -> Removal:
    """The removal given as in ``blur:sigma=20``."""
    how = with_removal("occlusion", [], spec)
    assert isinstance(how, Occlusion)
    return how.removal


EFFUSION = "effusion"
PATIENCE = 4
"""How many times the time of the median contestant one may take before it has to wait for the others."""


@dataclass(frozen=True, eq=False)
class Task:
    """One row to make: what a worker process needs, and nothing that cannot travel to it."""

    what: Literal["map", "removal"]
    kind: str
    case: int | Film
    method: str
    removal: str
    how: Method | Removal
    watch: str
    kept: Path

    @property
    def key(self) -> tuple[str, ...]:
        return self.what, self.kind, str(self.case), self.method, self.removal, self.watch

    @property
    def contestant(self) -> tuple[str, ...]:
        return self.what, self.kind, self.method, self.removal

    @property
    def prints(self) -> tuple[str, str]:
        """The weights that it is made with: of the classifier, and of what stands where something is gone."""
        removal = self.how if isinstance(self.how, Removal) else self.how.removal
        return _fingerprint(self.kind), "" if removal is None else removal.fingerprint


MODELS = {"phantom": "lucency:phantom"}
FILMS = "lucency:effusion"


def all_tasks(
    phantoms: int, films: Path | None, hows: Sequence[tuple[str, str, Method]], removals: str, watch: str, folder: Path
) -> Iterator[Task]:
    kept = folder / "cases"
    standing = [(name, removal_with(name)) for name in named(removals)]
    cases: list[tuple[str, int | Film]] = [("phantom", i) for i in range(phantoms)]
    if films is not None:
        # One after the other: the first is what the phantoms have too.
        known = [finding for finding in findings(films) if finding in _engine("box").classifier.classes]
        for some in (*(boxed(films, finding) for finding in known), normal(films), simulated(films)):
            cases += [(film.kind, film) for film in some]
    for kind, case in cases:
        if kind != "normal":
            for method, removal, how in hows:
                yield Task("map", kind, case, method, removal, how, watch, kept)
        if not kind.startswith("box"):
            for removal, what in standing:
                yield Task("removal", kind, case, "", removal, what, watch, kept)


@contextmanager
def only(folder: Path) -> Iterator[Path]:
    """The file of rows, for one process at a time; the death of a process frees it.

    Raises:
        OutputError: when another process has it, or it cannot be written.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder / ".trust.lock"):
            yield folder / "rows.jsonl"
    except Timeout as error:
        raise OutputError(
            f"Another trust benchmark is at work in {folder}; wait for its end or name another --out."
        ) from error
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({reason(error)}); name another --out.") from error
    finally:
        if made:
            with suppress(OSError):
                folder.rmdir()  # nothing was put there


def kept_rows(file: Path, tasks: Sequence[Task]) -> tuple[list[TrustRow], int]:
    """The rows of an earlier run that this one wants, made with the same weights, and how many lines are damaged."""
    if not file.exists():
        return [], 0
    wanted = {task.key: task.prints for task in tasks}
    rows: dict[tuple[str, ...], TrustRow] = {}
    damaged = 0
    for line in file.read_bytes().decode(errors="replace").splitlines():
        if not line.strip():
            continue  # what a cut line was closed with
        try:
            row = TrustRow.from_dict(json.loads(line))
        except (ValueError, RecursionError):
            damaged += 1
            continue
        if wanted.get(row.id) == (row.fingerprint, row.painter):
            rows.setdefault(row.id, row)
    return list(rows.values()), damaged


@contextmanager
def appending(file: Path) -> Iterator[Callable[[TrustRow], None]]:
    """What adds a row to the file; nothing that is there is touched."""

    def failed(error: OSError) -> OutputError:
        return OutputError(f"{file} cannot be written ({reason(error)}); free space or name another --out.")

    try:
        opened = file.open("ab", buffering=0)
        if opened.tell() and file.read_bytes()[-1:] != b"\n":
            # Whoever wrote last was killed in the middle of a line.
            opened.write(b"\n")
    except OSError as error:
        raise failed(error) from error

    def add(row: TrustRow) -> None:
        line = json.dumps(row.as_dict()).encode() + b"\n"
        try:
            if opened.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise failed(error) from error

    with opened:
        yield add


def made_rows(
    tasks: Sequence[Task], rows: list[TrustRow], jobs: int, keep: Callable[[TrustRow], None]
) -> Iterator[Stage[Sequence[TrustRow]]]:
    """Makes what is missing, scan by scan for all contestants; one that takes far more time than most has to wait.

    Args:
        rows: those that are there; each new one is added, and goes to ``keep``, also those that other processes are at
            when the work is stopped.
    """
    made = {row.id for row in rows}
    todo: dict[tuple[str, ...], list[Task]] = defaultdict(list)
    for task in tasks:
        if task.key not in made:
            todo[task.contestant].append(task)
    spent = dict.fromkeys(todo, 0.0)
    for row in rows:
        who = row.what, row.kind, row.method, row.removal
        spent[who] = spent.get(who, 0.0) + row.took
    wanted = {who: sum(task.contestant == who for task in tasks) for who in todo}

    def next_one() -> Task | None:
        left = [who for who, some in todo.items() if some]
        if not left:
            return None
        bound = PATIENCE * max(1.0, statistics.median(spent.values()))
        quick = [who for who in left if spent[who] <= bound]
        who = min(quick, key=lambda who: wanted[who] - len(todo[who])) if quick else min(left, key=spent.__getitem__)
        return todo[who].pop(0)

    def finished(task: Task, row: TrustRow) -> Stage[Sequence[TrustRow]]:
        spent[task.contestant] += row.took
        rows.append(row)
        keep(row)
        return Stage(len(rows) / len(tasks), f"{row.case}, {row.method or row.removal}", partial(tuple, rows))

    if jobs == 1:
        while (one := next_one()) is not None:
            yield finished(one, made_row(one))
        return
    # Ctrl-C is for this process: the others finish their rows.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _deaf) as pool:
        running: dict[Future[TrustRow], Task] = {}
        try:
            while True:
                while len(running) < jobs and (one := next_one()) is not None:
                    running[pool.submit(made_row, one)] = one
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED)[0]:
                    yield finished(running.pop(future), future.result())
        except GeneratorExit:
            for future, task in running.items():
                finished(task, future.result())
            raise
        except BrokenProcessPool as error:
            raise ParameterError(
                "A process died, most likely for want of memory; run the same command with fewer --jobs."
            ) from error


def _deaf() -> None:

    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _engine(kind: str) -> Engine:
    """The engine for cases of that kind; one for each process."""
    return _engine_of(MODELS.get(kind, FILMS))


@lru_cache(2)
def _engine_of(model: str) -> Engine:
    return Engine(load_classifier(model))


def _fingerprint(kind: str) -> str:
    return _engine(kind).classifier.fingerprint


@lru_cache(2)
def _case(kind: str, case: int | Film, kept: Path) -> Case:
    """The scan with its truth; most contestants ask for the same one, one after the other."""
    return case.case() if isinstance(case, Film) else phantom_case(case, kept)


def made_row(task: Task) -> TrustRow:
    """One row, in whatever process."""
    engine = _engine(task.kind)
    started = time.process_time()
    case: Case | None = None
    found: MapResult | RemovalResult | None = None
    error = ""
    try:
        case = _case(task.kind, task.case, task.kept)
        if isinstance(task.how, Removal):
            found = removal_result(case, task.how, engine, EFFUSION)
        else:
            gold = None
            if case.twin is not None:
                file = task.kept / f"gold-{case.kind}-{case.name}-{task.watch}-{engine.classifier.fingerprint[:12]}.npz"
                gold = kept_array(file, lambda: gold_map(case, engine, EFFUSION, task.watch))
            finding = task.case.finding if isinstance(task.case, Film) else EFFUSION
            found = map_result(case, task.how, engine, finding, task.watch, gold)
    except OutputError:
        # A full disk is no property of a scan.
        raise
    except LucencyError as failure:
        error = str(failure)
    return TrustRow(
        task.what, task.kind, str(task.case), task.method, task.removal, task.watch, *task.prints,
        case=str(task.case) if case is None else case.name,
        took=time.process_time() - started,
        part=None if case is None else case.part,
        patient=None if case is None else case.patient,
        volume_ml=None if case is None else case.volume_ml,
        side=None if case is None else case.side,
        map=found if isinstance(found, MapResult) else None,
        removed=found if isinstance(found, RemovalResult) else None,
        error=error,
    )  # fmt: skip
