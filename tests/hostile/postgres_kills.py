"""The service with its results and jobs in PostgreSQL, of which the server and then the database are killed.

    pytest tests/hostile/postgres_kills.py

A cluster of its own, on a socket in a folder; half a minute, so by hand.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")
pytest.importorskip("dbos", reason="the serve extra is not installed")
pytest.importorskip("httpx", reason="the http extra is not installed")
pytest.importorskip("psycopg", reason="psycopg is not installed")

from lucency.client import Client, ServiceError
from test_serve_process import MODEL, PHANTOM, served

LONG: dict[str, Any] = {"method": "rise", "parameters": {"samples": 200}, "target": "effusion"}
PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@pytest.fixture(scope="module")
def program() -> Callable[..., None]:
    """Runs one of PostgreSQL's programs, never as root, which they refuse."""
    found = str(PROGRAMS[-1]) if PROGRAMS else os.path.dirname(shutil.which("initdb") or "")  # noqa: PTH120
    if not found:
        pytest.skip("PostgreSQL is not installed")
    user = {} if os.getuid() else {"user": "postgres", "group": "postgres", "extra_groups": []}
    if user:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("there is no user postgres")

    def run(name: str, *arguments: str) -> None:
        command = [f"{found}/{name}", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", timeout=60, **user)  # type: ignore[call-overload]

    return run


@pytest.fixture(scope="module")
def database(program: Callable[..., None]) -> Iterator[tuple[str, Callable[[str], None]]]:
    """The URL of a database, and what stops and starts its server."""
    # A socket has a short name.
    folder = tempfile.mkdtemp(prefix="lucency-")
    if not os.getuid():
        shutil.chown(folder, "postgres")

    def control(what: str) -> None:
        options = f"-F -c listen_addresses='' -c unix_socket_directories={folder}"
        program("pg_ctl", what, "-D", f"{folder}/data", "-o", options, "-l", f"{folder}/log", "-m", "immediate", "-w")

    try:
        program("initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "lucency", "--no-sync")
        control("start")
        program("createdb", "-h", folder, "-U", "lucency", "lucency")
        yield f"postgresql://lucency@/lucency?host={folder}", control
    finally:
        control("stop")
        shutil.rmtree(folder)


def test_a_killed_server_and_a_killed_database_lose_nothing(
    database: tuple[str, Callable[[str], None]], tmp_path: Path
) -> None:
    url, control = database
    with served(tmp_path, "--database", url) as (address, process), Client(address) as client:
        scan = client.open(PHANTOM).scan
        quick = client.explain(scan, MODEL, parameters={"patch": 64}, target="effusion", removal="mean")
        job = client.start(scan, MODEL, **LONG)
        while not client.job(job.job).evaluations:
            time.sleep(0.05)
        process.kill()
        process.wait()
    assert not list(tmp_path.glob("*.sqlite")), "nothing lies in SQLite"
    with served(tmp_path, "--database", url) as (address, process), Client(address) as client:
        assert client.explanation(quick.id).about == quick.about
        assert [entry.scan for entry in client.worklist()] == [scan]
        found = client.wait(job.job)
        assert found.complete
        assert client.start(scan, MODEL, **LONG).explanation == found.id
        control("stop")
        with pytest.raises(ServiceError, match="database does not answer") as away:
            client.worklist()
        assert away.value.status == 503
        control("start")
        until(lambda: answers(client, scan))
        other = client.start(scan, MODEL, **{**LONG, "target": "nodule", "parameters": {"samples": 32}})
        assert client.wait(other.job).complete
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def answers(client: Client, scan: str) -> bool:
    try:
        return [entry.scan for entry in client.worklist()] == [scan]
    except ServiceError:
        return False


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)
