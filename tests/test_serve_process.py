"""A server as a process of its own: the client, restarts, kills in the middle of a job, tokens, the command."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")
pytest.importorskip("dbos", reason="the serve extra is not installed")
pytest.importorskip("websockets", reason="the serve extra is not installed")
pytest.importorskip("httpx", reason="the http extra is not installed")

import websockets.sync.client
from websockets.exceptions import InvalidStatus

from lucency.cli import TERMINATED, main
from lucency.client import Client, ServiceError
from lucency.explanation import Explanation

PHANTOM = Path(__file__).parent.parent / "src" / "lucency" / "phantom" / "demo.png"
MODEL = "lucency:phantom"


@contextmanager
def served(folder: Path, *more: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server on a free port; gone afterwards."""
    command = [sys.executable, "-m", "lucency", "serve", "--data", str(folder), "--port", "0", "--model", MODEL]
    process = subprocess.Popen(
        [*command, *more], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://[\w.:]+", line)
        assert found is not None, line
        yield found[0], process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


LONG: dict[str, Any] = {"method": "rise", "parameters": {"samples": 500}, "target": "effusion"}


def test_a_job_outlives_a_kill_and_what_was_made_outlives_a_restart(tmp_path: Path) -> None:
    with served(tmp_path / "data") as (address, process), Client(address) as client:
        scan = client.open(PHANTOM).scan
        quick = client.explain(
            scan, MODEL, method="occlusion", parameters={"patch": 64}, target="effusion", removal="mean"
        )
        job = client.start(scan, MODEL, **LONG)
        waiting = client.start(scan, MODEL, **{**LONG, "target": "nodule"})
        while not client.job(job.job).evaluations:
            time.sleep(0.05)
        process.kill()  # SIGKILL
        process.wait()
        with pytest.raises(ServiceError, match="does not answer"):
            client.job(job.job)
    with served(tmp_path / "data") as (address, process), Client(address) as client:
        assert client.explanation(quick.id).about == quick.about
        assert [entry.scan for entry in client.worklist()] == [scan]
        found = client.wait(job.job)
        assert found.complete
        assert client.wait(waiting.job).complete
        assert client.start(scan, MODEL, **LONG).explanation == found.id
        path = client.save(found.id, "explanation.lucency", tmp_path / "out")
        assert Explanation.load(path).complete
        # And an ordinary stop leaves what runs for the next start.
        longer = client.start(scan, MODEL, **{**LONG, "parameters": {"samples": 5_000}})
        while not client.job(longer.job).evaluations:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == TERMINATED
    with served(tmp_path / "data") as (address, _), Client(address) as client:
        assert client.job(longer.job).state in ("waiting", "running")
        client.cancel(longer.job)
        assert [one.state for one in client.events(longer.job)][-1] == "cancelled"


def said(*words: str) -> int:
    """The exit code of a command that ends at once."""
    with pytest.raises(SystemExit) as end:
        main(["serve", *words])
    return int(end.value.code or 0)


def test_a_server_for_others_wants_a_token_and_tells_the_client_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--data", str(tmp_path))
    assert said(*data, "--host", "0.0.0.0", "--port", "0") == 2
    assert capsys.readouterr().err.strip().endswith("127.0.0.1 needs none.")
    assert said(*data, "--new-token", "me") == 0
    token = capsys.readouterr().out.strip()
    with served(tmp_path, "--host", "0.0.0.0") as (address, _):
        assert said("--data", str(tmp_path / "b"), "--port", address.rpartition(":")[2]) == 3
        assert "cannot listen" in capsys.readouterr().err
        with Client(address) as stranger, pytest.raises(ServiceError) as refusal:
            stranger.models()
        assert refusal.value.status == 401
        live = address.replace("http", "ws") + "/api/v1/live"
        known = {"Authorization": f"Bearer {token}"}
        for headers in ({}, {**known, "Origin": "https://evil.example"}, {**known, "Host": "evil.example"}):
            with pytest.raises(InvalidStatus), websockets.sync.client.connect(live, additional_headers=headers):
                pass
        with websockets.sync.client.connect(live, additional_headers=known) as socket:
            socket.send(json.dumps({"type": "start", "scan": "0" * 64, "model": MODEL}))
            assert "no such scan" in json.loads(socket.recv(20))["message"]
        with Client(address, token=token) as client:
            talked_to(client)


def talked_to(client: Client) -> None:
    """The client with each of its questions."""
    assert client.models()[0].classes[0] == "effusion"
    assert any(m["name"] == "lime" for m in client.methods())
    scan = client.phantom(size=64)
    assert scan.truth
    assert "effusion" in client.scores(scan.scan, MODEL).probabilities
    answer = client.ask(scan.scan, MODEL, remove={"ellipse": {"rows": [10, 40], "columns": [10, 40]}})
    assert set(answer.perturbed) == set(answer.clean)
    found = client.wait(client.start(scan.scan, MODEL, parameters={"patch": 64}, removal="mean").job)
    assert client.evaluate(found.id, ["MoRF"], regions=3)["curves"][0]["kind"] == "MoRF"
    assert client.fetch(found.id, "overlay.png").startswith(b"\x89PNG")
    with pytest.raises(ServiceError, match="no method 'astrology'") as refusal:
        client.explain(scan.scan, MODEL, method="astrology")
    assert refusal.value.status == 422
    client.forget(scan.scan)
    with pytest.raises(ServiceError, match="no such explanation"):
        client.explanation(found.id)
