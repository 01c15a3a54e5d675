"""Durable jobs: functions that go on after a crash, kept in SQLite or PostgreSQL. Needs ``clinic`` or ``serve``.

A job is a function with JSON arguments on a queue. Its work is cut into steps; what a step returned is kept, so that a
job whose process was killed goes on at the step it was in. A step runs *at least* once: killed between its last act and
the keeping of its result it runs again, so it must be idempotent. A job with a key is made once, whatever happens.

    def explain(run: Run, film: str) -> Json:
        found = run.step("explain", explained, film, run.progress)
        return run.step("send", send, found, retry=Retry(on=(ConnectionError,), attempts=None))

    with Jobs("jobs.db", "pacs", queues={"films": 1}, functions={"explain": explain}) as jobs:
        job = jobs.enqueue("films", "explain", {"film": "film.dcm"}, key="film 1.2.3")
        for job in jobs.events(job.id):
            print(job.state, job.progress)

Another process reads, cancels and retries with :class:`Store`. Underneath is DBOS (https://docs.dbos.dev), of which
nothing shows outside this file. It runs here without its cloud, writes no log, and what it keeps is JSON, never a
pickle. Its limits, which are therefore ours:

- One :class:`Jobs` may be open in a process at a time; one after another is fine. A second one raises.
- A name belongs to one process at a time: a lock beside the file, or in PostgreSQL, holds it, since two would each
  recover the other's running jobs.
- The names and the order of a function's steps are what its kept results are found by. Register a function whose steps
  have changed under a new name while jobs of the old one may still lie there.
- A job that was running at a hundred deaths of its process is given up as failed: it may be their cause.
- A function cannot be interrupted. It looks at :attr:`Run.stop` while it works for long.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from filelock import FileLock, Timeout

from lucency.errors import LucencyError, MissingExtraError, OutputError, ParameterError

logging.getLogger("dbos").addHandler(logging.NullHandler())
logging.getLogger("dbos").propagate = bool(os.environ.get("LUCENCY_DEBUG"))
try:
    from dbos import DBOS, DBOSClient
    from dbos import Serializer as _Serializer
    from dbos import error as _errors
    from sqlalchemy import URL, create_engine, make_url, text
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError
except ImportError as error:
    raise MissingExtraError(
        f"Durable jobs need {error.name}, which is not installed; run pip install 'lucency[clinic]'."
    ) from error

if TYPE_CHECKING:
    from dbos import WorkflowStatus

Json: TypeAlias = Any
"""What JSON can say: ``None``, booleans, numbers, text, and lists and dictionaries of these."""
State = Literal["waiting", "running", "done", "failed", "cancelled"]
_STATES: dict[str, State] = {
    "ENQUEUED": "waiting", "DELAYED": "waiting", "PENDING": "running", "SUCCESS": "done", "ERROR": "failed",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": "failed", "CANCELLED": "cancelled",
}  # fmt: skip
_POLL = 0.2
"""Seconds between two looks at the store: for work, and for a change."""


class JobError(LucencyError):
    """There is no such job or place, it is not in a state to be retried, or somebody else runs the jobs."""


class StepError(LucencyError):
    """A step failed for good.

    Attributes:
        kind: the name of the class of what it raised.
    """

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class _Left(BaseException):
    """The process closes: whoever raises it leaves without a result, and the job goes on at the next start."""


@dataclass(frozen=True)
class Job:
    """What is known of a job at one moment.

    Attributes:
        id: its key, or a random one.
        queue, function: their names.
        state: ``waiting``, ``running``, ``done``, ``failed`` or ``cancelled``.
        arguments: what the function was given.
        result: what it returned, when it is done.
        error: why it failed, in one sentence; empty otherwise.
        progress: what :meth:`Run.progress` said last, while it runs.
        created, updated: when it was made and when its state last changed; in UTC.
    """

    id: str
    queue: str
    function: str
    state: State
    arguments: dict[str, Json]
    result: Json
    error: str
    progress: dict[str, Json]
    created: datetime
    updated: datetime

    @property
    def ended(self) -> bool:
        """Whether nothing happens to it any more."""
        return self.state in ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Retry:
    """When and how often a step is tried again, with twice the pause each time.

    Attributes:
        on: the exceptions after which it is; others end the step.
        attempts: how many times in all; ``None`` for ever.
        first, most: the first and the longest pause, in seconds.
    """

    on: tuple[type[Exception], ...] = (Exception,)
    attempts: int | None = 5
    first: float = 1.0
    most: float = 300.0

    def pause(self, attempt: int) -> float:
        """Seconds after the attempt of this number, from 1; a little by chance, so that not all come at once."""
        return float(min(self.first * 2.0 ** min(attempt - 1, 60), self.most) * random.uniform(0.8, 1.0))


class Run:
    """A job from the inside: what its function is given first.

    Attributes:
        id: the job's.
        stop: set when the job is cancelled or the process closes. A step that looks at it and returns early keeps no
            result.
    """

    def __init__(self, job: str) -> None:
        self.id = job
        self.stop = threading.Event()
        self._said = 0.0
        self._inside = False

    def step(self, name: str, function: Callable[..., Json], *arguments: Any, retry: Retry | None = None) -> Json:
        """Calls ``function(*arguments)`` once and keeps what it returned; later runs of the job are given that.

        Args:
            name: what the step is called, the same at every run.
            retry: when to try again; a step that raises ends for good without it.

        Raises:
            StepError: when it raised for good; now and at every later run of the job, until it is retried.
        """

        def tried() -> Json:
            for attempt in itertools.count(1):
                self._leave()
                try:
                    self._inside = True
                    found = function(*arguments)
                    self._leave()
                    return json.loads(json.dumps(found))
                except Exception as error:
                    self._leave()
                    more = retry is not None and isinstance(error, retry.on)
                    if retry is None or not more or attempt == retry.attempts:
                        raise StepError(_sentence(error), type(error).__name__) from error
                    pause = retry.pause(attempt)
                    again = datetime.fromtimestamp(time.time() + pause, UTC).isoformat(timespec="seconds")
                    self._say({"step": name, "attempt": attempt, "error": _sentence(error), "again": again})
                    self.stop.wait(pause)
                finally:
                    self._inside = False
            raise AssertionError

        self._leave()
        return DBOS.run_step({"name": name}, tried)

    def progress(self, **facts: Json) -> None:
        """Says how far the step is, for :attr:`Job.progress`; twice a second at most, the rest is left out.

        Raises:
            ParameterError: outside of a step.
        """
        if not self._inside:
            raise ParameterError("A job says how far it is from inside of a step; call run.progress there.")
        if time.monotonic() - self._said >= 0.5:
            self._said = time.monotonic()
            self._say(facts)

    def _say(self, facts: dict[str, Json]) -> None:
        # It is for whoever looks on: what it costs when the disk is full is not the job.
        with suppress(SQLAlchemyError):
            DBOS.set_event("progress", facts)

    def _leave(self) -> None:
        if self.stop.is_set():
            raise _Left


Function = Callable[..., Json]
"""``function(run, **arguments)``: calls :meth:`Run.step` and nothing else that has an effect, and returns JSON."""


class Store:
    """The jobs that lie in a place, for whoever looks at them; the process that runs them need not run.

    Args:
        place: a SQLite file, made when missing, or the URL of a PostgreSQL database (``postgresql://...``).
        name: whose jobs: ``pacs``, ``serve``. Lower-case letters, digits, ``-`` and ``_``, three at least.

    Raises:
        JobError: when nothing has ever run there.
        OutputError: when the place cannot be opened.
    """

    def __init__(self, place: str | Path, name: str) -> None:
        self.name = name
        # The same for all versions of Lucency: a job that waited while Lucency was brought up to date goes on.
        self._version = f"{name}-1"
        self._url = _url(place)
        with self._saying():
            self._prepare()
            self._client = DBOSClient(
                system_database_url=self._url,
                serializer=_InJson(),
                application_name=name,
                retry_connection_errors=False,
            )
            # SQLite looks at its file only when it reads.
            self._client.list_workflows(application_name=name, limit=1)

    def _prepare(self) -> None:
        url = make_url(self._url)
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
            raise JobError(f"{url.database} holds no jobs yet; start what runs them first.")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the place."""
        self._client.destroy()

    def job(self, job: str) -> Job:
        """What is known of a job.

        Raises:
            JobError: when there is none of this id.
        """
        with self._saying():
            found = self._client.list_workflows(workflow_ids=[job], application_name=self.name)
            if not found:
                raise JobError(f"There is no job {job}; see the list of jobs.")
            return self._seen(found[0])

    def have(self, job: str) -> bool:
        """Whether there is a job of this id."""
        with self._saying():
            return bool(
                self._client.list_workflows(
                    workflow_ids=[job], application_name=self.name, load_input=False, load_output=False
                )
            )

    def jobs(
        self,
        *,
        queue: str | None = None,
        function: str | None = None,
        state: State | Sequence[State] | None = None,
        most: int | None = None,
    ) -> list[Job]:
        """The jobs, the newest first."""
        wanted = [state] if isinstance(state, str) else state
        words = None if wanted is None else [word for word, means in _STATES.items() if means in wanted]
        with self._saying():
            found = self._client.list_workflows(
                status=words,
                name=function,
                application_name=self.name,
                sort_desc=True,
                limit=most if queue is None else None,
            )
            mine = [one for one in found if queue is None or (one.attributes or {}).get("queue") == queue]
            return [self._seen(one) for one in mine[:most]]

    def events(self, job: str, *, timeout: float | None = None) -> Iterator[Job]:
        """The job now and after each change, until it has ended or so many seconds have passed."""
        until = None if timeout is None else time.monotonic() + timeout
        before: Job | None = None
        while True:
            now = self.job(job)
            if now != before:
                yield now
            if now.ended or (until is not None and time.monotonic() >= until):
                return
            before = now
            time.sleep(_POLL)

    def wait(self, job: str, *, timeout: float | None = None) -> Job:
        """The job when it has ended, or as it is after so many seconds."""
        *_, last = self.events(job, timeout=timeout)
        return last

    def cancel(self, job: str) -> Job:
        """Takes a job from its queue, or stops it at its next look at :attr:`Run.stop`; one that ended stays."""
        self.job(job)
        with self._saying():
            self._client.cancel_workflow(job)
        return self.job(job)

    def retry(self, job: str) -> Job:
        """Puts a failed or cancelled job back; it goes on at the step that failed, or from where it was.

        Raises:
            JobError: when it has neither failed nor been cancelled.
        """
        with self._saying():
            found = self._client.list_workflows(workflow_ids=[job], application_name=self.name)
            if not found or _STATES[found[0].status] not in ("failed", "cancelled"):
                raise JobError(f"{self.job(job).id} has not failed; only what failed or was cancelled is tried again.")
            steps = self._client.list_workflow_steps(job)
            failed = [step["function_id"] for step in steps if step["error"] is not None]
            start = failed[0] if failed else max((step["function_id"] for step in steps), default=0) + 1
            self._client.rewind_workflow(
                job, start_step=start, application_version=self._version, queue_name=self._queue(found[0])
            )
        return self.job(job)

    def _queue(self, status: WorkflowStatus) -> str:
        return f"{self.name}.{(status.attributes or {}).get('queue', '')}"

    def _seen(self, status: WorkflowStatus) -> Job:
        error = status.error
        runs = status.status == "PENDING"
        return Job(
            id=status.workflow_id,
            queue=(status.attributes or {}).get("queue", ""),
            function=status.name,
            state=_STATES[status.status],
            arguments=dict(status.input["kwargs"]) if status.input else {},
            result=status.output,
            error="" if error is None else _sentence(error),
            progress=(runs and self._client.get_event(status.workflow_id, "progress", timeout_seconds=0)) or {},
            created=_moment(status.created_at),
            updated=_moment(status.updated_at),
        )

    @contextmanager
    def _saying(self) -> Iterator[None]:
        """Says what a database has against it in one sentence, without the password."""
        try:
            yield
        except (SQLAlchemyError, OSError, _errors.DBOSException) as error:
            said = " ".join(str(getattr(error, "orig", None) or error).split())[:200]
            raise OutputError(
                f"The jobs in {make_url(self._url).render_as_string()} cannot be read or written ({said}); check the "
                "place and its free space."
            ) from error


class Jobs(Store):
    """The jobs of a place, and the threads that run them; jobs that a killed process left go on at once.

    Args:
        place, name: as for :class:`Store`.
        queues: how many jobs of each queue run at the same time, by its name.
        functions: what the jobs call, by the names that :meth:`enqueue` is given.

    Raises:
        OutputError: when the place cannot be opened.
        JobError: when jobs are open in this process already, or another process runs those of this name.
    """

    _open = threading.Lock()

    def __init__(
        self, place: str | Path, name: str, *, queues: Mapping[str, int], functions: Mapping[str, Function]
    ) -> None:
        if not Jobs._open.acquire(blocking=False):
            raise JobError("Jobs are open in this process already; close them first.")
        self._held = ExitStack()
        self._held.callback(Jobs._open.release)
        self._queues, self._functions = dict(queues), dict(functions)
        self._running: dict[str, Run] = {}
        self._changed = threading.Condition()
        self._closing = threading.Event()
        try:
            super().__init__(place, name)
            self._held.callback(self._client.destroy)
            with self._saying():
                self._start()
            self._watcher = threading.Thread(target=self._watch, name="lucency-jobs", daemon=True)
            self._watcher.start()
        except BaseException:
            self._held.close()
            raise

    def _prepare(self) -> None:
        self._lock()
        DBOS.migrate(self._url)

    def _start(self) -> None:
        DBOS(
            config={
                "name": self.name,
                "executor_id": self.name,
                "application_version": self._version,
                "system_database_url": self._url,
                "serializer": _InJson(),
                "log_level": "WARNING",
                "enable_otlp": False,
                "notification_listener_polling_interval_sec": _POLL,
            }
        )
        self._held.callback(DBOS.destroy, destroy_registry=True)
        for name, function in self._functions.items():
            DBOS.workflow(name=name, max_recovery_attempts=100)(self._runner(function))
        for queue, at_once in self._queues.items():
            self._client.register_queue(f"{self.name}.{queue}", worker_concurrency=at_once, polling_interval_sec=_POLL)
        # Without this it would also take up what others have in the same place.
        DBOS.listen_queues([f"{self.name}.{queue}" for queue in self._queues])
        DBOS.launch()

    def _lock(self) -> None:
        url = make_url(self._url)
        if url.get_backend_name() == "sqlite":
            file = Path(url.database or "")
            file.parent.mkdir(parents=True, exist_ok=True)
            # Names of films may be in it.
            os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
            try:
                self._held.enter_context(FileLock(f"{file}.{self.name}.lock", timeout=0))
            except Timeout as error:
                raise JobError(self._taken) from error
            return
        engine = create_engine(url.set(drivername="postgresql+psycopg"))
        self._held.callback(engine.dispose)
        connection = self._held.enter_context(engine.connect().execution_options(isolation_level="AUTOCOMMIT"))
        number = uuid.uuid5(uuid.NAMESPACE_OID, f"lucency {self.name}").int % 2**62
        if not connection.execute(text("SELECT pg_try_advisory_lock(:n)"), {"n": number}).scalar():
            raise JobError(self._taken)

    @property
    def _taken(self) -> str:
        shown = make_url(self._url).render_as_string()
        return f"Another process runs the jobs {self.name} in {shown}; stop it or choose another place."

    def enqueue(
        self, queue: str, function: str, arguments: Mapping[str, Json] | None = None, *, key: str | None = None
    ) -> Job:
        """Puts a job on a queue; when it returns, the job is on the disk.

        Args:
            key: what makes the job the same as another. If there is one of this key, in whatever state, that is given
                and none is made.

        Raises:
            ParameterError: when there is no such queue or function, or the arguments are not JSON.
            OutputError: when it cannot be written.
        """
        if queue not in self._queues or function not in self._functions:
            raise ParameterError(f"There is no queue {queue} with a function {function}; see what Jobs was given.")
        job = key or uuid.uuid4().hex
        try:
            given = json.loads(json.dumps(dict(arguments or {})))
        except (TypeError, ValueError) as error:
            raise ParameterError(f"The arguments of a job are JSON ({error}); give text, numbers and lists.") from error
        with self._saying():
            self._client.enqueue(
                {
                    "workflow_name": function,
                    "queue_name": f"{self.name}.{queue}",
                    "workflow_id": job,
                    "app_version": self._version,
                    "attributes": {"queue": queue},
                },
                **given,
            )
        return self.job(job)

    def cancel(self, job: str) -> Job:
        found = super().cancel(job)
        with self._changed:
            if found.state == "cancelled" and job in self._running:
                self._running[job].stop.set()
        return found

    def close(self, *, grace: float = 30.0) -> None:
        """Stops: what runs has so many seconds to notice, and goes on at the next start."""
        with self._changed:
            self._closing.set()
            for run in self._running.values():
                run.stop.set()
            self._changed.wait_for(lambda: not self._running, timeout=grace)
        self._watcher.join(timeout=grace)
        self._held.close()

    def _runner(self, function: Function) -> Callable[..., Json]:
        def runner(**arguments: Json) -> Json:
            run = Run(str(DBOS.workflow_id))
            with self._changed:
                if self._closing.is_set():
                    raise _Left
                self._running[run.id] = run
            try:
                return function(run, **arguments)
            finally:
                with self._changed:
                    if self._running.get(run.id) is run:
                        del self._running[run.id]
                    self._changed.notify_all()

        return runner

    def _watch(self) -> None:
        """Stops what another process has cancelled, and puts back what fell out, as when the disk was full."""
        out: set[str] = set()
        while not self._closing.wait(1.0):
            with suppress(SQLAlchemyError, _errors.DBOSException):
                with self._changed:
                    here = dict(self._running)
                pending = {
                    one.workflow_id: one
                    for one in self._client.list_workflows(
                        status="PENDING", executor_id=self.name, load_input=False, load_output=False
                    )
                }
                for name in here.keys() - pending.keys():
                    # It may just have ended, and then nobody hears it.
                    here[name].stop.set()
                with self._changed:
                    lost = pending.keys() - self._running.keys() - here.keys()
                for name in out & lost:
                    self._client.resume_workflow(name, queue_name=self._queue(pending[name]))
                # One that has just been taken from its queue has not begun yet: it must be missing twice.
                out = set(lost)


class _InJson(_Serializer):
    """What DBOS keeps, as JSON: nothing that lies in a database is unpickled."""

    def name(self) -> str:
        return "lucency_json"

    def serialize(self, data: Any) -> str:
        if isinstance(data, BaseException):
            kind = data.kind if isinstance(data, StepError) else type(data).__name__
            return json.dumps({"__error__": _sentence(data), "kind": kind})
        return json.dumps(data)

    def deserialize(self, serialized_data: str) -> Any:
        data = json.loads(serialized_data)
        if isinstance(data, dict) and "__error__" in data:
            return StepError(str(data["__error__"]), str(data.get("kind", "")))
        return data


def _url(place: str | Path) -> str:
    if isinstance(place, str) and "://" in place:
        try:
            url = make_url(place)
        except ArgumentError as error:
            raise ParameterError("The place of the jobs is no URL; write postgresql://user@host/database.") from error
        if url.get_backend_name() != "postgresql" or not url.database:
            raise ParameterError(
                "Jobs lie in a SQLite file or in a database of PostgreSQL; give a path or "
                "postgresql://user@host/database."
            )
        return place
    path = str(Path(place).absolute())
    if "?" in path:
        raise ParameterError(f"{path} has a question mark in it, which SQLite's URLs cannot hold; choose another name.")
    return URL.create("sqlite", database=path).render_as_string()


def _sentence(error: BaseException) -> str:
    """What an exception says, on one line; its kind where it is none of ours."""
    said = " ".join(str(error).split())[:500]
    if isinstance(error, LucencyError) or type(error).__module__.startswith("lucency"):
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _moment(milliseconds: int | None) -> datetime:
    return datetime.fromtimestamp((milliseconds or 0) / 1000, UTC)
