"""Workers in processes of their own on this machine: each holds the model, and one that dies is replaced.

A crew is asked for work and tells what happened; :mod:`lucency.archive.running` decides what is done next, and does so
alike for this crew, the one on Ray, and the one that works in the caller's own process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, Protocol

from lucency.archive.asked import Asked
from lucency.archive.films import Film
from lucency.archive.rows import Row
from lucency.errors import LucencyError

Task = tuple[Literal["content"], Film] | tuple[Literal["row"], Film, str, str]
"""``("content", film)``, or ``("row", film, content, state)``."""
PATIENCE = 2.0
"""Seconds that a process has to leave."""
SOON = 0.2
"""Seconds after which somebody who waits looks around."""


@dataclass(frozen=True)
class Ready:
    """A worker has the model and waits for work."""

    worker: int


@dataclass(frozen=True)
class Content:
    """The bytes of a film have been read."""

    worker: int
    content: str
    state: str


@dataclass(frozen=True, eq=False)
class Answered:
    """The row of a film."""

    worker: int
    row: Row


@dataclass(frozen=True)
class Died:
    """A worker is gone, and another one is on its way in its place.

    Attributes:
        why: in words.
        ready: whether it ever had the model.
    """

    worker: int
    why: str
    ready: bool


@dataclass(frozen=True)
class Refused:
    """A worker could not make an explainer, or not write what it is to keep; no other one will."""

    worker: int
    error: LucencyError


Event = Ready | Content | Answered | Died | Refused


class Crew(Protocol):
    """Whoever does the work."""

    def give(self, worker: int, task: Task) -> None:
        """Work for a worker that is ready."""

    def events(self) -> Sequence[Event]:
        """What happened; waits a moment for something to happen."""

    def close(self) -> None:
        """Ends all workers, whatever they are doing."""


class Inside:
    """The caller's own process: for a single film, and to look for faults. What kills a worker kills the run."""

    def __init__(self, asked: Asked) -> None:
        from lucency.archive.explaining import Worker

        self._worker = Worker(asked)
        self._events: list[Event] = [Ready(0)]

    def give(self, worker: int, task: Task) -> None:
        self._events.append(done(self._worker, worker, task))

    def events(self) -> Sequence[Event]:
        found, self._events = self._events, []
        return found

    def close(self) -> None:
        self._worker.close()


def done(worker: Any, number: int, task: Task) -> Event:
    """What a worker has to say about a task."""
    if task[0] == "content":
        found = worker.content(task[1])
        return Answered(number, found) if isinstance(found, Row) else Content(number, *found)
    return Answered(number, worker.row(*task[1:]))


class Processes:
    """So many processes, started afresh (never forked), one thread each.

    Args:
        asked: what is asked of each film.
        count: how many.
    """

    def __init__(self, asked: Asked, count: int) -> None:
        self._asked = asked
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[int, tuple[Any, Connection, bool]] = {}
        self._number = 0
        for _ in range(count):
            self._start()

    def _start(self) -> None:
        here, there = self._context.Pipe()
        process = self._context.Process(target=serve, args=(there, self._asked), daemon=True)
        before = os.environ.get("OMP_NUM_THREADS")
        # A library reads it once, when it is loaded.
        os.environ["OMP_NUM_THREADS"] = "1"
        try:
            process.start()
        finally:
            if before is None:
                del os.environ["OMP_NUM_THREADS"]
            else:
                os.environ["OMP_NUM_THREADS"] = before
        there.close()
        self._workers[self._number] = (process, here, False)
        self._number += 1

    def give(self, worker: int, task: Task) -> None:
        # One that has died in the meantime says so by its end of the pipe.
        with suppress(OSError):
            self._workers[worker][1].send(task)

    def events(self) -> Sequence[Event]:
        lines = {connection: number for number, (_, connection, _) in self._workers.items()}
        found: list[Event] = []
        for connection in wait(list(lines), SOON):
            assert isinstance(connection, Connection)
            number = lines[connection]
            process, _, was_ready = self._workers[number]
            try:
                said = connection.recv()
            except (EOFError, OSError):
                process.join()
                connection.close()
                del self._workers[number]
                found.append(Died(number, _why(process.exitcode), was_ready))
                process.close()
                self._start()
                continue
            if said == "ready":
                self._workers[number] = (process, connection, True)
                found.append(Ready(number))
            elif isinstance(said, LucencyError):
                found.append(Refused(number, said))
            elif isinstance(said, Row):
                found.append(Answered(number, said))
            else:
                found.append(Content(number, *said))
        return found

    def close(self) -> None:
        for process, connection, _ in self._workers.values():
            process.terminate()
            connection.close()
        for process, _, _ in self._workers.values():
            process.join(PATIENCE)
            process.kill()
            process.join()
            process.close()
        self._workers = {}

    @property
    def pids(self) -> list[int]:
        """The processes there are."""
        return [process.pid for process, _, _ in self._workers.values()]


def _why(code: int | None) -> str:
    if code is None or code >= 0:
        return f"it ended with code {code}"
    name = signal.Signals(-code).name if -code in signal.valid_signals() else str(-code)
    return f"it was killed by {name}" + (", as the system does when memory runs out" if name == "SIGKILL" else "")


def serve(connection: Connection, asked: Asked) -> None:
    """What a process does until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    threading.Thread(target=_follow, daemon=True).start()
    if not (os.environ.get("LUCENCY_DEBUG") or sys.warnoptions):
        import warnings

        warnings.simplefilter("ignore")
    with suppress(ImportError):
        # PyTorch shows progress by it, and its semaphore would outlive a process that is killed.
        from tqdm import tqdm

        tqdm.set_lock(threading.RLock())
    from lucency.archive.explaining import Worker

    try:
        worker = Worker(asked)
    except LucencyError as error:
        connection.send(error)
        return
    try:
        connection.send("ready")
        while True:
            task: Task = connection.recv()
            try:
                said = done(worker, 0, task)
            except LucencyError as error:
                connection.send(error)
                return
            connection.send(said.row if isinstance(said, Answered) else (said.content, said.state))  # type: ignore[union-attr]
    except (EOFError, OSError):
        return
    except Exception:
        if os.environ.get("LUCENCY_DEBUG"):
            traceback.print_exc()
        os._exit(1)
    finally:
        worker.close()


def _follow() -> None:
    """Ends this process when the one that started it ends, however that happens."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)
