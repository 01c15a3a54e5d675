"""The process that decodes: it may crash, hang, swell or be shared over a fork, and whoever reads goes on."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lucency.errors import ScanError
from lucency.reading import worker
from lucency.reading.worker import SCRIPT, Worker

KINDS = """
import importlib.util, os, sys, time
import numpy as np
spec = importlib.util.spec_from_file_location("worker_process", SCRIPT)
process = importlib.util.module_from_spec(spec)
spec.loader.exec_module(process)
def echo(data, **options):
    print("a library that talks")
    os.write(1, b"a native library that talks")
    return np.frombuffer(data, np.uint8), {"pid": os.getpid(), **options}
def swell(data, amount):
    return np.ones(amount, np.uint8), {}
def late(data):
    time.sleep(60)
process.KINDS.update(
    echo=(echo, ()), swell=(swell, ()), late=(late, ()),
    abort=(lambda data: os.abort(), ()), kill=(lambda data: os.kill(os.getpid(), 9), ()),
    refuse=(lambda data: 1 / 0, ()), no_array=(lambda data: ({}, {}), ()),
    objects=(lambda data: (np.array([None]), {}), ()),
)
process.main()
"""


@pytest.fixture
def decoder(tmp_path: Path) -> Iterator[Worker]:
    script = tmp_path / "kinds.py"
    script.write_text(f"SCRIPT = {str(SCRIPT)!r}\n{KINDS}")
    process = Worker(script)
    yield process
    process.close()


def ask(decoder: Worker, kind: str, data: bytes = b"abc", seconds: float = 20, **options: object) -> np.ndarray:
    return decoder.decode({"kind": kind, "options": options, "memory": 2**28}, data, "x.dcm", seconds)[0]


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("abort", "made its decoder crash"),
        ("kill", "made its decoder crash"),
        ("refuse", "cannot be decoded \\(division by zero\\)"),
        ("no_array", "cannot be decoded"),
        ("objects", "made its decoder crash"),
    ],
)
def test_a_decoder_that_fails_is_one_sentence_and_the_next_file_is_read(decoder: Worker, kind: str, says: str) -> None:
    assert bytes(ask(decoder, "echo")) == b"abc"
    with pytest.raises(ScanError, match=f"^x.dcm .*{says}.*\\.$"):
        ask(decoder, kind)
    assert bytes(ask(decoder, "echo", b"next")) == b"next"


def test_a_decoder_that_hangs_is_given_up(decoder: Worker) -> None:
    start = time.monotonic()
    with pytest.raises(ScanError, match=r"longer than 0\.5 seconds"):
        ask(decoder, "late", seconds=0.5)
    assert time.monotonic() - start < 5
    assert bytes(ask(decoder, "echo")) == b"abc"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit the memory of a process")
def test_a_decoder_that_swells_is_stopped_at_the_limit(decoder: Worker) -> None:
    assert ask(decoder, "swell", amount=2**26).nbytes == 2**26
    with pytest.raises(ScanError, match=r"more than 256 MiB to decode.*LUCENCY_MAX_DECODE_MEMORY"):
        ask(decoder, "swell", amount=2**29)


def test_the_limit_of_memory_follows_the_size_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Note(Worker):
        def decode(self, request, data, name, seconds):  # type: ignore[no-untyped-def]
            asked.append(request["memory"])

    monkeypatch.setattr(worker, "_WORKER", Note())
    for decoded in (2**20, 2**40):
        worker.decode("dicom", b"", name="x", decoded=decoded)
    monkeypatch.setenv("LUCENCY_MAX_DECODE_MEMORY", str(2**25))
    worker.decode("dicom", b"", name="x", decoded=2**20)
    assert asked == [104 * 2**20, 2 * 2**30, 2**25]
    monkeypatch.setenv("LUCENCY_MAX_DECODE_MEMORY", "2 GB")
    with pytest.raises(ScanError, match="LUCENCY_MAX_DECODE_MEMORY is '2 GB'; set it to a positive whole number"):
        worker.decode("dicom", b"", name="x", decoded=1)


def test_a_worker_that_died_in_between_is_started_again(decoder: Worker) -> None:
    ask(decoder, "echo")
    first = decoder.pid
    assert first is not None
    os.kill(first, 9)
    assert bytes(ask(decoder, "echo")) == b"abc"
    assert decoder.pid != first


def test_threads_take_turns(decoder: Worker) -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        answers = [bytes(ask(decoder, "echo", bytes([number]) * 1000)) for _ in range(20)]
        wrong.extend(number for answer in answers if answer != bytes([number]) * 1000)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _in_a_daemon(queue: multiprocessing.Queue, script: Path) -> None:  # type: ignore[type-arg]
    decoder = Worker(script)
    queue.put(bytes(ask(decoder, "echo", b"daemon")))
    decoder.close()


def test_a_daemonic_process_may_decode(decoder: Worker) -> None:
    """multiprocessing forbids such a process, a DataLoader's worker for one, to have children of its kind."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_in_a_daemon, args=(queue, decoder.script), daemon=True)
    process.start()
    assert queue.get(timeout=60) == b"daemon"
    process.join(20)
    assert process.exitcode == 0


PROGRAM = """
import os, sys, threading
from pathlib import Path
from lucency.reading import worker
decoder = worker._WORKER
decoder.script = Path(sys.argv[1])
ask = lambda data: bytes(decoder.decode({"kind": "echo", "options": {}, "memory": 2**27}, data, "x", 20)[0])
assert ask(b"parent") == b"parent"
mine = decoder.pid
"""


def run(script: Path, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + code, str(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def alive(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except OSError:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_gets_a_worker_of_its_own(decoder: Worker) -> None:
    """Even when another thread holds the lock at that moment."""
    code = """
holding, go = threading.Event(), threading.Event()
def hold():
    with decoder._lock:
        holding.set()
        go.wait()
thread = threading.Thread(target=hold)
thread.start()
holding.wait()
child = os.fork()
if child == 0:
    ok = ask(b"child") == b"child" and decoder.pid != mine
    decoder.close()
    os._exit(0 if ok else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
go.set()
thread.join()
assert ask(b"parent") == b"parent" and decoder.pid == mine
print(mine)
"""
    assert not alive(int(run(decoder.script, code)))


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), 9)"], ids=["at exit", "killed"])
def test_the_worker_ends_with_its_parent(decoder: Worker, end: str) -> None:
    code = f"print(mine, flush=True)\n{end}"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + code, str(decoder.script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not alive(int(done.stdout)), done.stderr


def test_closing_leaves_no_zombie(decoder: Worker) -> None:
    ask(decoder, "echo")
    pid = decoder.pid
    assert pid is not None
    decoder.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
