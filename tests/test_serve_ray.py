"""The service on Ray: two nodes on this machine, one of which is killed in the middle."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")
pytest.importorskip("dbos", reason="the serve extra is not installed")
pytest.importorskip("ray.serve", reason="Ray Serve is not installed", exc_type=ImportError)

import ray
from fastapi.testclient import TestClient
from ray.cluster_utils import Cluster

from lucency.cli.serve import classifiers
from lucency.errors import ParameterError
from lucency.serve.app import create_app
from lucency.serve.errors import BusyError, StoppedError
from lucency.serve.on_ray import Lines, Replicas
from lucency.serve.settings import Settings
from lucency.serve.turns import Task

MODEL = "lucency:phantom"
make = partial(classifiers, [MODEL], False)


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        yield found
    finally:
        ray.shutdown()  # type: ignore[no-untyped-call]
        found.shutdown()


def test_a_machine_that_dies_takes_no_question_with_it(nodes: Cluster, tmp_path: Path) -> None:
    here = make()
    with TestClient(create_app(settings(tmp_path / "here", device="cpu"), here)) as client:
        near = answers(client)
        near["rise"] = client.post("/api/v1/explanations", json=rise(near["scan"])).json()
    # This process belongs to the first node, so it is the second that dies.
    ray.init(nodes.address, log_to_driver=False)
    other = nodes.add_node(num_cpus=1)
    nodes.wait_for_nodes()
    about = settings(tmp_path / "ray")
    replicas = Replicas("auto", about, make, {one.name: one.fingerprint for one in here})
    with TestClient(create_app(about, here, replicas)) as client:
        far = answers(client)
        for what in ("scores", "ask"):
            assert far[what] == pytest.approx(near[what], abs=1e-5)
        assert far["refused"] == near["refused"]
        # One is done on each machine.
        asked = [rise(far["scan"], wait=False), rise(far["scan"], wait=False, target="nodule")]
        jobs = [client.post("/api/v1/explanations", json=one).json()["job"] for one in asked]
        until(lambda: all(client.get(f"/api/v1/jobs/{job}").json()["done"] > 0.1 for job in jobs))
        nodes.remove_node(other, allow_graceful=False)
        until(lambda: all(client.get(f"/api/v1/jobs/{job}").json()["state"] == "done" for job in jobs))
        metrics = client.app.state.workshop.metrics.registry  # type: ignore[attr-defined]
        assert metrics.get_sample_value("lucency_explanation_seconds_count", {"method": "rise"}) == 2
        # Whoever asks again is given the answer that was kept, which is that of a single machine.
        again = client.post("/api/v1/explanations", json=rise(far["scan"])).json()
        for what in ("id", "evaluations", "peak"):
            assert again[what] == near["rise"][what]
        assert client.get(f"/api/v1/explanations/{again['id']}/timeline").status_code == 200
        watched_and_stopped(client, {"scan": far["scan"], "model": MODEL})


def settings(folder: Path, **more: Any) -> Settings:
    return Settings(folder, names=("testserver",), **more)


def rise(scan: str, **more: Any) -> dict[str, Any]:
    return {
        "scan": scan,
        "model": MODEL,
        "method": "rise",
        "target": "effusion",
        "parameters": {"samples": 300},
        **more,
    }


def answers(client: TestClient) -> dict[str, Any]:
    """Small ones, of either kind of service."""
    scan = client.post("/api/v1/gallery/demo").json()["scan"]
    question = {"scan": scan, "model": MODEL}
    box = {"rectangle": {"rows": [300, 400], "columns": [90, 200]}}
    refused = client.post("/api/v1/ask", json={**question, "remove": {"superpixel": 10**5}})
    return {
        "scan": scan,
        "scores": client.post("/api/v1/scores", json=question).json()["probabilities"],
        "ask": client.post("/api/v1/ask", json={**question, "remove": box}).json()["perturbed"],
        "refused": (refused.status_code, refused.json()),
    }


def until(true: Any) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def watched_and_stopped(client: TestClient, question: dict[str, Any]) -> None:
    """Live, over the socket: frames come, and who cancels gets the map so far."""
    with client.websocket_connect("/api/v1/live") as socket:
        socket.send_json({"type": "start", "run": 1, **question, "method": "rise", "parameters": {"samples": 50_000}})
        frames = 0
        while True:
            message = socket.receive()
            if message.get("bytes"):
                frames += 1
                socket.send_json({"type": "ack", "run": 1})
                if frames == 3:
                    socket.send_json({"type": "cancel", "run": 1})
                continue
            break
    assert frames >= 3
    assert '"type": "done"' in message["text"], message["text"]
    name = message["text"].partition('"explanation": "')[2][:64]
    assert client.get(f"/api/v1/explanations/{name}").json()["complete"] is False


def test_a_cluster_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(ParameterError, match=r"no Ray cluster at 127\.0\.0\.1:1 "):
        Replicas("127.0.0.1:1", settings(tmp_path), make, {})
    assert time.monotonic() - began < 20


def test_lines_count_who_waits_and_stop() -> None:
    lines = Lines(2, 1)

    def for_ever() -> Task[None]:
        while True:
            time.sleep(0.01)
            yield

    one = lines.submit("a", for_ever)
    with pytest.raises(BusyError):
        lines.submit("a", for_ever)
    other = lines.submit("b", for_ever)
    with pytest.raises(BusyError):
        lines.submit("c", for_ever)
    assert len(lines) == 2
    lines.close(1.0)
    for future in (one, other):
        with pytest.raises(StoppedError):
            future.result(10)
    with pytest.raises(StoppedError):
        lines.submit("a", for_ever)
    until(lambda: len(lines) == 0)
