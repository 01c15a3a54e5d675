"""Durable jobs: made once, carried on after kill -9, tried again, stopped, seen from another process."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("dbos", reason="DBOS is not installed")

from lucency.errors import LucencyError, ParameterError
from lucency.jobs import Job, JobError, Jobs, Json, Retry, Run, StepError, Store

WORKER = """
import sys, time
from pathlib import Path
from lucency.jobs import Jobs

place, log = sys.argv[1:]

def note(word):
    with open(log, "a") as file:
        file.write(word + "\\n")
    return word

def slow(word, seconds):
    note("begin " + word)
    time.sleep(seconds)
    return note(word)

def work(run, seconds):
    run.step("first", note, "first")
    run.step("second", slow, "second", seconds)
    return run.step("third", note, "third")

with Jobs(place, "tests", queues={"q": 1}, functions={"work": work}) as jobs:
    print("open", flush=True)
    if not jobs.jobs():
        jobs.enqueue("q", "work", {"seconds": 1.0}, key="a film")
    print(jobs.wait("a film").result, flush=True)
"""


def opened(place: Path, function: Callable[..., Json], **queues: int) -> Jobs:
    return Jobs(place / "jobs.db", "tests", queues=queues or {"q": 1}, functions={"work": function})


def ended(jobs: Store, job: Job) -> Job:
    found = jobs.wait(job.id, timeout=20)
    assert found.ended, found
    return found


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WORKER, str(tmp_path / "jobs.db"), str(tmp_path / "log")]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.communicate()


def seen(path: Path, line: str, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while line not in (path.read_text().splitlines() if path.exists() else ()):
        assert time.monotonic() < until, f"{line} did not come"
        time.sleep(0.01)


def test_a_job_runs_and_says_what_it_does(tmp_path: Path) -> None:
    def work(run: Run, number: int) -> Json:
        def add(n: int) -> Json:
            run.progress(done=0.5)
            time.sleep(0.5)
            return {"sum": n + 1}

        return run.step("add", add, number)

    with opened(tmp_path, work) as jobs:
        first = jobs.enqueue("q", "work", {"number": 2}, key="a")
        assert (first.state, first.queue, first.function, first.arguments) == ("waiting", "q", "work", {"number": 2})
        states = list(jobs.events("a", timeout=20))
        assert [one.progress for one in states if one.state == "running"][-1] == {"done": 0.5}
        assert (states[-1].state, states[-1].result, states[-1].error) == ("done", {"sum": 3}, "")
        assert jobs.jobs() == [jobs.job("a")] == jobs.jobs(queue="q", state="done", most=1)
        assert jobs.jobs(state=["waiting", "failed"]) == [] == jobs.jobs(queue="other")


def test_a_key_makes_one_job_and_keys_need_none(tmp_path: Path) -> None:
    calls: list[int] = []

    def work(run: Run, number: int) -> Json:
        return run.step("call", lambda: calls.append(number))

    with opened(tmp_path, work) as jobs:
        same = [jobs.enqueue("q", "work", {"number": n}, key="film") for n in range(5)]
        assert {ended(jobs, one).arguments["number"] for one in same} == {0}
        assert ended(jobs, jobs.enqueue("q", "work", {"number": 9}, key="film")).state == "done"
        others = [jobs.enqueue("q", "work", {"number": n}) for n in (1, 2)]
        assert len({one.id for one in others}) == 2
        for one in others:
            ended(jobs, one)
    assert sorted(calls) == [0, 1, 2]


def test_a_key_makes_one_job_from_many_threads(tmp_path: Path) -> None:
    calls: list[str] = []

    def work(run: Run, name: str) -> Json:
        return run.step("call", lambda: calls.append(name))

    with opened(tmp_path, work, q=4) as jobs:
        threads = [
            threading.Thread(
                target=jobs.enqueue, args=("q", "work", {"name": f"film {n % 3}"}), kwargs={"key": f"{n % 3}"}
            )
            for n in range(12)
        ]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        for n in range(3):
            ended(jobs, jobs.job(f"{n}"))
    assert sorted(calls) == ["film 0", "film 1", "film 2"]


def test_killed_in_the_middle_it_goes_on_at_the_step(
    worker: Callable[[], subprocess.Popen[str]], tmp_path: Path
) -> None:
    first = worker()
    seen(tmp_path / "log", "begin second")
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    out, err = worker().communicate(timeout=30)
    assert out.split() == ["open", "third"]
    assert err == ""
    assert (tmp_path / "log").read_text().splitlines() == ["first", "begin second", "begin second", "second", "third"]


def test_a_place_has_one_runner_and_any_number_of_lookers(
    worker: Callable[[], subprocess.Popen[str]], tmp_path: Path
) -> None:
    first = worker()
    seen(tmp_path / "log", "begin second")
    with pytest.raises(JobError, match="Another process runs"):
        opened(tmp_path, lambda run: None)
    with Store(tmp_path / "jobs.db", "tests") as store:
        assert [one.state for one in store.jobs()] == ["running"]
        assert ended(store, store.job("a film")).result == "third"
    assert first.communicate(timeout=20)[0].split() == ["open", "third"]


def test_closed_in_the_middle_it_goes_on_at_the_next_start(tmp_path: Path) -> None:
    begun, calls = threading.Event(), []

    def work(run: Run) -> Json:
        def long() -> Json:
            calls.append("long")
            begun.set()
            run.stop.wait(20 if len(calls) == 1 else 0.01)
            return "done"

        run.step("short", lambda: calls.append("short"))
        return run.step("long", long)

    with opened(tmp_path, work) as jobs:
        jobs.enqueue("q", "work", key="a")
        assert begun.wait(20)
    calls.remove("short")
    with opened(tmp_path, work) as jobs:
        assert ended(jobs, jobs.job("a")).result == "done"
    assert calls == ["long", "long"]


def test_a_step_is_tried_again_with_longer_and_longer_pauses(tmp_path: Path) -> None:
    at: list[float] = []

    def work(run: Run) -> Json:
        def fails() -> Json:
            at.append(time.monotonic())
            if len(at) < 4:
                raise ConnectionError("nobody there")
            return len(at)

        return run.step("send", fails, retry=Retry(on=(ConnectionError,), attempts=None, first=0.1))

    with opened(tmp_path, work) as jobs:
        job = jobs.enqueue("q", "work")
        said = [one.progress for one in jobs.events(job.id, timeout=20)]
        assert ended(jobs, job).result == 4
    assert any(one.get("error") == "ConnectionError: nobody there" and one["step"] == "send" for one in said)
    pauses = [b - a for a, b in pairwise(at)]
    assert [low <= p < 2 * low + 0.3 for p, low in zip(pauses, (0.08, 0.16, 0.32), strict=True)] == [True] * 3
    assert Retry(first=1, most=60).pause(10**6) <= 60


def test_what_fails_for_good_says_why_and_is_tried_again_on_demand(tmp_path: Path) -> None:
    calls: list[str] = []
    broken = threading.Event()
    broken.set()

    def work(run: Run) -> Json:
        def send() -> Json:
            calls.append("send")
            if broken.is_set():
                raise PermissionError("not allowed")
            return "sent"

        run.step("explain", lambda: calls.append("explain"))
        try:
            return run.step("send", send, retry=Retry(on=(ConnectionError,)))
        except StepError as error:
            raise ValueError(f"{error.kind} it was") from None

    with opened(tmp_path, work) as jobs:
        job = ended(jobs, jobs.enqueue("q", "work", key="a"))
        assert (job.state, job.error) == ("failed", "ValueError: PermissionError it was")
        assert ended(jobs, jobs.enqueue("q", "work", key="a")).state == "failed"
        broken.clear()
        jobs.retry("a")
        assert ended(jobs, job).result == "sent"
        with pytest.raises(JobError, match="has not failed"):
            jobs.retry("a")
    assert calls == ["explain", "send", "send"]


def test_a_job_is_cancelled_while_it_waits_and_while_it_runs(tmp_path: Path) -> None:
    begun, calls = threading.Event(), []

    def work(run: Run, name: str) -> Json:
        def long() -> Json:
            calls.append(name)
            begun.set()
            run.stop.wait(20)
            return name

        return run.step("long", long)

    with opened(tmp_path, work) as jobs:
        jobs.enqueue("q", "work", {"name": "running"}, key="running")
        jobs.enqueue("q", "work", {"name": "waiting"}, key="waiting")
        assert begun.wait(20)
        assert jobs.cancel("waiting").state == "cancelled"
        before = time.monotonic()
        assert jobs.cancel("running").state == "cancelled"
        jobs.enqueue("q", "work", {"name": "next"}, key="next")
        while "next" not in calls:
            assert time.monotonic() - before < 10
            time.sleep(0.01)
        assert jobs.cancel("next").state == "cancelled"
        assert [one.state for one in jobs.jobs()] == ["cancelled"] * 3
        # What was cancelled goes on when that is wanted.
        jobs.retry("waiting")
        while calls[-1] != "waiting":
            assert time.monotonic() - before < 20
            time.sleep(0.01)
        assert calls == ["running", "next", "waiting"]


def test_a_job_is_cancelled_from_outside(tmp_path: Path) -> None:
    begun, left = threading.Event(), threading.Event()

    def work(run: Run) -> Json:
        def long() -> Json:
            begun.set()
            run.stop.wait(20)
            left.set()
            return None

        return run.step("long", long)

    with opened(tmp_path, work) as jobs, Store(tmp_path / "jobs.db", "tests") as outside:
        jobs.enqueue("q", "work", key="a")
        assert begun.wait(20)
        assert outside.cancel("a").state == "cancelled"
        assert left.wait(10)


def test_two_queues_do_not_wait_for_each_other_and_keep_to_their_width(tmp_path: Path) -> None:
    lock, now, most = threading.Lock(), {"wide": 0, "narrow": 0}, {"wide": 0, "narrow": 0}

    def work(run: Run, queue: str) -> Json:
        def busy() -> Json:
            with lock:
                now[queue] += 1
                most[queue] = max(most[queue], now[queue])
            time.sleep(0.2)
            with lock:
                now[queue] -= 1

        return run.step("busy", busy)

    with opened(tmp_path, work, wide=3, narrow=1) as jobs:
        made = [jobs.enqueue(queue, "work", {"queue": queue}) for queue in ("narrow", "wide") * 4]
        for one in made:
            ended(jobs, one)
    assert most == {"narrow": 1, "wide": 3}


def test_what_fell_out_of_a_run_is_put_back(tmp_path: Path) -> None:
    """As when the store could not keep how a job ended, because the disk was full."""
    calls: list[int] = []

    def work(run: Run) -> Json:
        run.step("call", lambda: calls.append(1))
        if len(calls) == 1:
            calls.append(2)
            raise _Gone
        return "done"

    with opened(tmp_path, work) as jobs:
        assert ended(jobs, jobs.enqueue("q", "work")).result == "done"
    assert calls == [1, 2]


class _Gone(BaseException):
    """Passes through what would note how a job ended."""


def test_nothing_is_pickled_and_strangers_cannot_read_it(tmp_path: Path) -> None:
    def work(run: Run, name: str) -> Json:
        run.step("ok", lambda: name)
        return run.step("fails", lambda: 1 / 0)

    with opened(tmp_path, work) as jobs:
        assert ended(jobs, jobs.enqueue("q", "work", {"name": "x"})).error == "ZeroDivisionError: division by zero"
    assert (tmp_path / "jobs.db").stat().st_mode & 0o077 == 0
    with sqlite3.connect(tmp_path / "jobs.db") as database:
        kinds = {row[0] for row in database.execute("select serialization from operation_outputs")}
        kinds |= {row[0] for row in database.execute("select serialization from workflow_status")}
    database.close()
    assert kinds == {"lucency_json"}


def test_wrong_use_is_refused_in_one_sentence(tmp_path: Path) -> None:
    def work(run: Run, **_: Json) -> Json:
        return run.step("not json", object)

    def loud(run: Run, **_: Json) -> Json:
        run.progress(done=1)

    with Jobs(tmp_path / "jobs.db", "tests", queues={"q": 1}, functions={"work": work, "loud": loud}) as jobs:
        for call in (
            lambda: jobs.enqueue("none", "work"),
            lambda: jobs.enqueue("q", "none"),
            lambda: jobs.enqueue("q", "work", {"x": object()}),
            lambda: Store("mysql://user:secret@host/x", "tests"),
            lambda: Store("postgresql://[", "tests"),
            lambda: Store(tmp_path / "a?b", "tests"),
        ):
            with pytest.raises(ParameterError) as said:
                call()
            assert "secret" not in str(said.value)
        for call in (lambda: jobs.job("none"), lambda: jobs.cancel("none"), lambda: jobs.retry("none")):
            with pytest.raises(JobError, match="no job none"):
                call()
        with pytest.raises(JobError, match="open in this process"):
            Jobs(tmp_path / "other.db", "tests", queues={}, functions={})
        assert "JSON" in ended(jobs, jobs.enqueue("q", "work")).error
        assert "inside of a step" in ended(jobs, jobs.enqueue("q", "loud")).error
    with pytest.raises(JobError, match="no jobs yet"):
        Store(tmp_path / "none.db", "tests")
    (tmp_path / "broken.db").write_bytes(b"no database" * 100)
    with pytest.raises(LucencyError, match="cannot be read or written"):
        Store(tmp_path / "broken.db", "tests")
    with pytest.raises(LucencyError, match="cannot be read or written"):
        Jobs(tmp_path / "broken.db", "tests", queues={"q": 1}, functions={})
    with pytest.raises(LucencyError, match="cannot be read or written") as said:
        Store("postgresql://user:secret@127.0.0.1:9/none", "tests")
    assert "secret" not in str(said.value)


def test_two_names_share_a_place(tmp_path: Path) -> None:
    with opened(tmp_path, lambda run: run.step("one", lambda: 1)) as jobs:
        ended(jobs, jobs.enqueue("q", "work", key="mine"))
    with Jobs(
        tmp_path / "jobs.db", "others", queues={"q": 2}, functions={"work": lambda run: run.step("two", lambda: 2)}
    ) as jobs:
        assert jobs.jobs() == []
        assert ended(jobs, jobs.enqueue("q", "work", key="theirs")).result == 2
