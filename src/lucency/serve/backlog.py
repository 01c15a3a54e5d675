"""Explanations that nobody waits for: jobs that survive a restart and a kill, and what is seen of them.

A job is on the disk before its number is given out. Its one step asks the workshop, which makes each answer once, so
that a step that runs again after a kill does no harm. How far a job is stays in memory: it is worth no write.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Path
from fastapi.responses import StreamingResponse

from lucency.jobs import Job, JobError, Jobs, Run
from lucency.methods import Step
from lucency.serve.benches import Asked, Watching
from lucency.serve.common import Shop
from lucency.serve.errors import BusyError, NotThereError
from lucency.serve.schemas import JobAbout
from lucency.serve.settings import Settings
from lucency.serve.workshop import Prepared, Workshop

router = APIRouter(tags=["jobs"])

QUEUE, FUNCTION = "maps", "explain"
POLL = 0.2
"""Seconds between two looks at a job that is watched."""
ALIVE = 15.0
"""Seconds after which a watcher is told that nothing has changed, so that nothing in between gives up."""


class Backlog:
    """The jobs of one server, and the threads that wait for them.

    Raises:
        OutputError: when they cannot be kept, or another server runs those of the same folder.
    """

    def __init__(self, shop: Workshop, settings: Settings) -> None:
        self._shop, self._settings = shop, settings
        self._lock = threading.Lock()
        self._users: dict[str, str] = {}
        self._progress: dict[str, dict[str, Any]] = {}
        self._jobs = Jobs(
            settings.database or settings.folder / "jobs.sqlite",
            "serve",
            # Every job that may be there has its turn on the device; which is next is decided there, user by user.
            queues={QUEUE: settings.waiting},
            functions={FUNCTION: self._explain},
        )
        for job in self._jobs.jobs(state=["waiting", "running"]):
            self._users.setdefault(job.id, str(job.arguments.get("user", "?")))

    def __len__(self) -> int:
        return len(self._users)

    def close(self) -> None:
        """Leaves what is under way for the next start."""
        self._jobs.close(grace=5.0)

    def add(self, prepared: Prepared, user: str) -> JobAbout:
        """Puts a question on the list; the same question is one job.

        Raises:
            BusyError: when too many wait.
        """
        with self._lock:
            number, job = self._place(prepared.name)
            if job is not None and not job.ended:
                return self.seen(job)
            mine = sum(who == user for who in self._users.values())
            if len(self._users) >= self._settings.waiting or mine >= self._settings.waiting_each:
                raise BusyError(f"{len(self._users)} jobs wait already; try again in 10 s.", 10)
            self._users[number] = user
            try:
                if job is not None:
                    return self.seen(self._jobs.retry(number))
                asked = {**prepared.asked.as_dict(), "target": prepared.target}
                return self.seen(self._jobs.enqueue(QUEUE, FUNCTION, {"asked": asked, "user": user}, key=number))
            except BaseException:
                self._users.pop(number, None)
                raise

    def _place(self, name: str) -> tuple[str, Job | None]:
        """The number under which this answer is made, and the job that has it, where that is not done."""
        for turn in itertools.count():
            number = f"{name}-{turn}" if turn else name
            try:
                job = self._jobs.job(number)
            except JobError:
                return number, None
            # One that is done was for an answer that has been deleted since.
            if job.state != "done":
                return number, job
        raise AssertionError

    def job(self, number: str) -> JobAbout:
        """How far a job is.

        Raises:
            NotThereError: when there is none of that number.
        """
        with self._lock:
            progress = self._progress.get(number)
        if progress is not None:
            return JobAbout(job=number, state="running", **progress)
        return self.seen(self._found(number))

    def cancel(self, number: str) -> JobAbout:
        """Takes it off the list, or stops it after the step that it is at."""
        self._found(number)
        return self.seen(self._jobs.cancel(number))

    def all(self) -> list[JobAbout]:
        """Those that are under way, and the last that have ended; the newest first."""
        return [self.seen(job) for job in self._jobs.jobs(most=100)]

    def _found(self, number: str) -> Job:
        try:
            return self._jobs.job(number)
        except JobError as error:
            raise NotThereError("There is no such job.") from error

    def seen(self, job: Job) -> JobAbout:
        """A job as the API tells it."""
        progress = self._progress.get(job.id, {}) if job.state == "running" else {}
        about = JobAbout(job=job.id, state=job.state, error=job.error or None, **progress)
        return about.model_copy(update={"explanation": job.result, "done": 1.0}) if job.state == "done" else about

    # On a thread of the jobs' -----------------------------------------------------------------------------------------

    def _explain(self, run: Run, asked: dict[str, Any], user: str) -> str:
        try:
            return str(run.step("explain", self._explained, run, asked, user))
        finally:
            with self._lock:
                self._users.pop(run.id, None)
                self._progress.pop(run.id, None)

    def _explained(self, run: Run, asked: dict[str, Any], user: str) -> str:
        prepared = self._shop.prepare(Asked(**asked), {})
        began = time.perf_counter()

        def on_step(step: Step, seconds: float) -> None:
            left = seconds * (1 - step.done) / step.done if step.done > 0 else None
            self._progress[run.id] = {
                "done": step.done,
                "seconds": time.perf_counter() - began,
                "left": left,
                "evaluations": step.evaluations,
            }

        # It was taken on when it was put on the list, so there is always room.
        watching = Watching(on_step, 2 * POLL, run.stop, keep_stopped=False)
        future = self._shop.explain(prepared, user, watching, extra=self._settings.waiting)
        while not future.done():
            if run.stop.wait(POLL) and future.cancel():
                break
        try:
            return future.result(timeout=60)
        except CancelledError:
            return ""


@router.get("/jobs")
def jobs(shop: Shop) -> list[JobAbout]:
    """The jobs, the newest first."""
    return shop.backlog.all()


Number = Annotated[str, Path(pattern=r"^[0-9a-f]{64}(-[0-9]{1,4})?$", examples=["0" * 64])]


@router.get("/jobs/{job}")
def job(job: Number, shop: Shop) -> JobAbout:
    """How far a job is."""
    return shop.backlog.job(job)


@router.delete("/jobs/{job}")
def cancel(job: Number, shop: Shop) -> JobAbout:
    """Stops a job after the step that it is at."""
    return shop.backlog.cancel(job)


@router.get(
    "/jobs/{job}/events", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}}
)
async def events(job: Number, shop: Shop) -> StreamingResponse:
    """How far a job is, now and after each change, as server-sent events until it has ended."""
    first = await anyio.to_thread.run_sync(shop.backlog.job, job)
    return StreamingResponse(_events(shop, first), media_type="text/event-stream")


async def _events(shop: Workshop, now: JobAbout) -> AsyncIterator[str]:
    said = time.monotonic()
    yield _event(now)
    while now.state in ("waiting", "running"):
        await asyncio.sleep(POLL)
        before, now = now, await anyio.to_thread.run_sync(shop.backlog.job, now.job)
        if now != before:
            said = time.monotonic()
            yield _event(now)
        elif time.monotonic() - said > ALIVE:
            said = time.monotonic()
            yield ": alive\n\n"


def _event(about: JobAbout) -> str:
    return f"event: {about.state}\ndata: {json.dumps(about.model_dump())}\n\n"
