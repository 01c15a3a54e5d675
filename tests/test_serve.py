"""The service: every route, what it refuses, what it keeps, and who may ask."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("fastapi", reason="the serve extra is not installed")
pytest.importorskip("sqlalchemy", reason="the serve extra is not installed")

from fastapi.testclient import TestClient

from lucency.classifier import Classifier
from lucency.classifier.loading import load_classifier
from lucency.serve.app import create_app
from lucency.serve.settings import Settings
from lucency.viewer import unpack


class Bright(nn.Module):
    """A small network that answers at once: the brighter the scan, the more of the first class."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 2, 3, padding=1)
        self.head = nn.Linear(2, 2)
        with torch.no_grad():
            self.convolution.weight.copy_(torch.full((2, 1, 3, 3), 1 / 9))
            self.head.weight.copy_(torch.tensor([[4.0, 0.0], [-4.0, 0.0]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.convolution(x).relu().mean((2, 3)))  # type: ignore[no-any-return]


def bright() -> Classifier:
    return load_classifier(Bright().eval(), classes=["bright", "dark"], input_size=(48, 48), channels=1)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(tmp_path, names=("testserver",)), [bright()])) as found:
        yield found


@pytest.fixture
def scan(client: TestClient) -> str:
    return str(client.post("/api/v1/phantoms", json={"size": 64}).json()["scan"])


def asked(scan: str, **more: Any) -> dict[str, Any]:
    return {"scan": scan, "model": "Bright", "method": "occlusion", "parameters": {"patch": 12}, **more}


def test_a_map_is_made_once_and_then_costs_nothing(client: TestClient, scan: str) -> None:
    first = client.post("/api/v1/explanations", json=asked(scan))
    assert first.status_code == 200, first.text
    found = first.json()
    assert found["complete"]
    assert found["target"] in ("bright", "dark")
    again = client.post("/api/v1/explanations", json=asked(scan, target=found["target"]))
    assert again.json() == found
    assert 'lucency_cache_total{found="true",what="explanations"} 1.0' in client.get("/metrics").text
    header, arrays = unpack(client.get(f"/api/v1/explanations/{found['id']}/timeline").content)
    assert len(header["frames"]) == len(arrays["heatmap"]) == len(arrays["perturbed"])


def ended(client: TestClient, job: str) -> dict[str, Any]:
    """The job when it has ended, by its stream of events."""
    last: dict[str, Any] = {}
    with client.stream("GET", f"/api/v1/jobs/{job}/events") as events:
        for line in events.iter_lines():
            if line.startswith("data: "):
                last = json.loads(line.removeprefix("data: "))
    return last


def test_a_job_makes_the_same_answer_and_is_one_however_often_it_is_asked_for(client: TestClient, scan: str) -> None:
    first = client.post("/api/v1/explanations", json=asked(scan, wait=False))
    assert first.status_code == 202
    assert client.post("/api/v1/explanations", json=asked(scan, wait=False)).json()["job"] == first.json()["job"]
    found = ended(client, first.json()["job"])
    assert found["state"] == "done"
    record = client.post("/api/v1/explanations", json=asked(scan))
    assert record.json()["id"] == found["explanation"]
    assert client.post("/api/v1/explanations", json=asked(scan, wait=False)).status_code == 200


def test_a_job_is_cancelled_and_can_be_asked_for_again(client: TestClient, scan: str) -> None:
    long = asked(scan, method="rise", parameters={"samples": 100_000}, wait=False)
    job = client.post("/api/v1/explanations", json=long).json()["job"]
    client.delete(f"/api/v1/jobs/{job}")
    assert ended(client, job)["state"] == "cancelled"
    again = client.post("/api/v1/explanations", json=long).json()
    assert (again["job"], again["state"]) in ((job, "waiting"), (job, "running"))
    client.delete(f"/api/v1/jobs/{job}")
