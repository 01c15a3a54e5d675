"""Untrusted codecs run in a process of their own: a decoder that crashes, hangs or swells harms nobody.

One worker lives as long as the interpreter; it is started when first needed, started again after it died or a file
failed in it, and never shared over a fork. It answers with plain numbers (JSON and raw pixels, never a pickle), so what
a hostile file does to it stays in it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lucency.errors import ScanError
from lucency.reading.common import amount_from_environment

SECONDS = 20.0
"""A file that takes longer to decode is given up."""
DECODE_MEMORY = 2 * 2**30
"""Bytes that decoding one file may take at most, unless ``LUCENCY_MAX_DECODE_MEMORY`` says otherwise."""
FLOOR = 96 * 2**20
TIMES = 8
SCRIPT = Path(__file__).with_name("worker_process.py")
DTYPES = ("|b1", "|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8")

Answer = tuple[NDArray[Any], dict[str, Any]]


def decode(
    kind: str,
    data: bytes | Path,
    options: Mapping[str, Any] | None = None,
    *,
    name: str,
    decoded: int,
    seconds: float = SECONDS,
) -> Answer:
    """What ``KINDS[kind](data, **options)`` in ``worker_process.py`` gives, computed in the worker.

    Args:
        kind: a name in ``worker_process.KINDS``.
        data: the bytes to decode, or the file that holds them.
        options: keyword arguments that JSON can carry.
        name: what the messages call the file.
        decoded: bytes of the decoded pixels, by the file's own header. The worker may take 8 times as much, at most
            ``LUCENCY_MAX_DECODE_MEMORY``, where the operating system can limit a process; and an answer that is larger
            than 8 times as much is refused everywhere.
        seconds: time after which the file is given up.

    Returns:
        The array, and a dict of what else there is to say about it.

    Raises:
        ScanError: when the decoder refuses the file, crashes, or takes too much memory or time.
    """
    memory = min(FLOOR + TIMES * decoded, amount_from_environment("LUCENCY_MAX_DECODE_MEMORY", DECODE_MEMORY))
    if isinstance(data, Path):
        data = data.read_bytes()
    return _WORKER.decode({"kind": kind, "options": dict(options or {}), "memory": memory}, data, name, seconds)


class _DiedError(Exception):
    """The worker ended before it answered."""


class Worker:
    """A process that decodes, one file at a time; calls from several threads wait for each other."""

    def __init__(self, script: Path = SCRIPT) -> None:
        self.script = script
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process that waits for the next file, if there is one."""
        return None if self._process is None else self._process.pid

    def decode(self, request: dict[str, Any], data: bytes, name: str, seconds: float) -> Answer:
        with self._lock:
            used = self._process is not None and self._process.poll() is None
            try:
                answer = self._ask(request, data, name, seconds)
            except _DiedError:
                if not used:
                    raise _crashed(name) from None
                # What an earlier file did to the worker must not be blamed on this one.
                try:
                    answer = self._ask(request, data, name, seconds)
                except _DiedError:
                    raise _crashed(name) from None
        return answer

    def _ask(
        self, request: dict[str, Any], data: bytes, name: str, seconds: float
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        watch = threading.Timer(seconds, stop)
        watch.daemon = True
        watch.start()
        well = False
        try:
            head = json.dumps({**request, "seconds": seconds, "bytes": len(data)}).encode()
            _send(process.stdin, struct.pack("<I", len(head)) + head)
            _send(process.stdin, data)
            (length,) = struct.unpack("<I", _receive(process.stdout, 4))
            if length > 2**20:
                raise _DiedError
            answer = json.loads(_receive(process.stdout, length))
            if "error" in answer:
                raise _refused(name, str(answer["error"]), str(answer.get("why", "")), request["memory"])
            shape, dtype = tuple(int(n) for n in answer["shape"]), str(answer["dtype"])
            if dtype not in DTYPES or min(shape, default=0) < 1:
                raise _DiedError
            size = math.prod(shape) * np.dtype(dtype).itemsize
            if size > request["memory"]:
                raise _refused(name, "memory", "", request["memory"])
            pixels = np.empty(shape, dtype)
            _fill(process.stdout, memoryview(pixels).cast("B"))  # type: ignore[arg-type]
            well = True
            return pixels, dict(answer["facts"])
        except (OSError, ValueError, KeyError, TypeError, _DiedError) as error:
            if late.is_set():
                raise ScanError(
                    f"{name} takes longer than {seconds:g} seconds to decode and was given up; "
                    "export it again, uncompressed."
                ) from None
            raise _DiedError from error
        finally:
            watch.cancel()
            if not well:  # refused, crashed, late or interrupted: the next file gets a clean worker
                self._end(kill=True)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self._end(kill=True)
        if self._process is None:
            if not sys.executable:
                raise ScanError(
                    "Compressed scans are decoded by a second Python, and none is found; export them plain."
                )
            environment = dict(os.environ)
            environment |= {
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "PYTHONDONTWRITEBYTECODE": "1",
                # Threads of a numerical library reserve memory that the limit would count.
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
                "MKL_NUM_THREADS": "1",
                "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1",
            }
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-W", "ignore", str(self.script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,  # a buffer has a lock, and a lock that is held while another thread forks stays shut
                env=environment,
            )
        return self._process

    def close(self) -> None:
        """Ends the process; the next call starts another."""
        mine = self._lock.acquire(timeout=1)  # a thread that still decodes when Python ends is not waited for
        self._end(kill=not mine)
        if mine:
            self._lock.release()

    def _end(self, kill: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if kill:
            process.kill()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()  # an idle worker ends when nothing more can come
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def forget(self) -> None:
        """After a fork: the process belongs to the parent, and so does whatever lock a thread there held."""
        self._lock = threading.Lock()
        process, self._process = self._process, None
        if process is not None:
            process.returncode = 0  # not a child of this process: nothing to wait for
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def _send(pipe: IO[bytes], data: bytes) -> None:
    rest = memoryview(data)
    while rest.nbytes:
        rest = rest[pipe.write(rest) :]


def _receive(pipe: IO[bytes], count: int) -> bytearray:
    data = bytearray(count)
    _fill(pipe, memoryview(data))
    return data


def _fill(pipe: IO[bytes], rest: memoryview) -> None:
    while rest.nbytes:
        got = pipe.readinto(rest)  # type: ignore[attr-defined]
        if not got:
            raise _DiedError
        rest = rest[got:]


def _crashed(name: str) -> ScanError:
    return ScanError(f"{name} is damaged: it made its decoder crash; copy or export it again, uncompressed.")


def _refused(name: str, error: str, why: str, memory: int) -> ScanError:
    if error == "memory":
        return ScanError(
            f"{name} takes more than {memory // 2**20:,} MiB to decode, far more than its size promises; export it "
            "uncompressed, or raise LUCENCY_MAX_DECODE_MEMORY (bytes) if it is sound."
        )
    return ScanError(f"{name} cannot be decoded ({why}); export it again, uncompressed.")


_WORKER = Worker()
atexit.register(_WORKER.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_WORKER.forget)
