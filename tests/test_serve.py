"""The service: every route, what it refuses, what it keeps, and who may ask."""

from __future__ import annotations

import base64
import io
import json
import logging
import struct
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

pytest.importorskip("fastapi", reason="the serve extra is not installed")
pytest.importorskip("dbos", reason="the serve extra is not installed")

from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from lucency.classifier import Classifier
from lucency.classifier.loading import load_classifier
from lucency.errors import ParameterError
from lucency.explanation import Explanation
from lucency.methods import METHODS
from lucency.render.recording import Recording
from lucency.serve.app import create_app
from lucency.serve.catalogue import all_methods, all_removals, settings_of, without_files
from lucency.serve.errors import BusyError
from lucency.serve.schemas import EvaluateWanted
from lucency.serve.settings import Settings
from lucency.serve.turns import SLICE, Turns
from lucency.viewer import unpack

NOBODY = "0" * 64


class Bright(nn.Module):
    """A small network that answers at once: the brighter the scan, the more of the first class."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 2, 3, padding=1)
        self.head = nn.Linear(2, 2)
        with torch.no_grad():
            self.convolution.weight.copy_(torch.full((2, 1, 3, 3), 1 / 9))
            self.convolution.bias.zero_()
            self.head.weight.copy_(torch.tensor([[4.0, 0.0], [-4.0, 0.0]]))
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.convolution(x).relu().mean((2, 3)))  # type: ignore[no-any-return]


def bright() -> Classifier:
    return load_classifier(Bright().eval(), classes=["bright", "dark"], input_size=(48, 48), channels=1)


def settings(folder: Path, **more: Any) -> Settings:
    return Settings(folder, names=("testserver",), **more)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with TestClient(create_app(settings(tmp_path_factory.mktemp("serve")), [bright()])) as found:
        yield found


@pytest.fixture(scope="module")
def scan(client: TestClient) -> str:
    return str(client.post("/api/v1/phantoms", json={"size": 64}).json()["scan"])


def asked(scan: str, **more: Any) -> dict[str, Any]:
    return {"scan": scan, "model": "Bright", "method": "occlusion", "parameters": {"patch": 12}, **more}


def png(values: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def gradient(seed: int = 0) -> bytes:
    return png((np.random.default_rng(seed).random((40, 50)) * 255).astype(np.uint8))


# What there is --------------------------------------------------------------------------------------------------------


def test_what_can_be_asked_is_told_with_types_defaults_and_help(client: TestClient) -> None:
    methods = {m["name"]: m for m in client.get("/api/v1/methods").json()}
    rise = {p["name"]: p for p in methods["rise"]["parameters"]}
    assert (rise["samples"]["type"], rise["samples"]["default"]) == ("integer", 4000)
    assert rise["removal"]["type"] == "removal"
    assert "blur" in rise["removal"]["choices"]
    occlusion = {p["name"]: p for p in methods["occlusion"]["parameters"]}
    assert occlusion["stride"]["optional"]
    assert not occlusion["patch"]["optional"]
    assert rise["cells"]["help"] == "coin flips along each axis of a mask."
    (model,) = client.get("/api/v1/models").json()
    assert (model["name"], model["classes"]) == ("Bright", ["bright", "dark"])
    assert {"name", "title", "summary"} <= set(client.get("/api/v1/gallery").json()[0])


def test_every_parameter_that_is_told_has_a_meaning_and_no_parameter_names_a_file() -> None:
    for about in (*all_methods(), *all_removals()):
        for parameter in about.parameters:
            assert parameter.help, f"{about.name}.{parameter.name}"
            assert parameter.type != "text" or parameter.name == "layer", f"{about.name}.{parameter.name}"


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("occlusion", {"removal": {"name": "dataset-mean", "parameters": {"source": "/etc/passwd"}}}),
        ("occlusion", {"removal": "dataset-mean", "removal.source": "/etc/passwd"}),
        ("lime", {"removal.superpixels.source": "x", "removal.source": "/etc/passwd"}),
        ("instant", {"explainer": "/etc/passwd"}),
        ("meaningful_perturbation", {"start": "instant", "start.explainer": "/etc/passwd"}),
    ],
)
def test_nothing_in_a_request_names_a_file(method: str, given: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match="may name a file"):
        without_files(METHODS[method], settings_of(given))
    without_files(METHODS["gradcam"], ["layer=features.3"])


def test_parameters_are_read_by_their_type_whatever_json_they_come_as() -> None:
    given = {"samples": 500, "removal": {"name": "blur", "parameters": {"sigma": 8}}, "areas": [0.1, 0.2], "box": None}
    assert settings_of(given) == ["samples=500", "removal=blur", "removal.sigma=8", "areas=0.1,0.2", "box=none"]


# Scans ----------------------------------------------------------------------------------------------------------------


def test_a_file_is_opened_shown_and_forgotten_with_all_that_came_of_it(client: TestClient) -> None:
    values = (np.arange(40 * 50).reshape(40, 50) * 30).astype(np.uint16)
    sent = client.post("/api/v1/scans", content=png(values), headers={"X-Filename": "..%2F..%2FM%C3%BCller%20X.png"})
    about = sent.json()
    assert (about["width"], about["height"], about["title"]) == (50, 40, "Müller X.png")
    header, arrays = unpack(client.get(f"/api/v1/scans/{about['scan']}/film").content)
    low, high = header["range"]
    assert np.allclose(low + arrays["data"] / 65535 * (high - low), values, atol=1)
    made = client.post("/api/v1/explanations", json=asked(about["scan"])).json()["id"]
    assert client.get("/api/v1/worklist").json()["entries"][0]["explanations"] == [made]
    assert client.delete(f"/api/v1/scans/{about['scan']}").status_code == 204
    for path in (f"scans/{about['scan']}", f"scans/{about['scan']}/film", f"explanations/{made}"):
        assert client.get(f"/api/v1/{path}").status_code == 404
    shop: Any = client.app.state.workshop  # type: ignore[attr-defined]
    assert not [p for p in shop.store.folder.rglob("*") if about["scan"] in p.name or made in p.name]
    assert all(about["scan"] != entry["scan"] for entry in client.get("/api/v1/worklist").json()["entries"])


def test_a_folder_of_slices_is_one_volume(client: TestClient, tmp_path: Path) -> None:
    pytest.importorskip("pydicom", reason="the dicom extra is not installed")
    from kinds import slices

    files = [path.read_bytes() for path in sorted(slices(tmp_path).iterdir())]
    text = json.dumps({"sizes": [len(one) for one in files]}).encode()
    body = struct.pack("<I", len(text)) + text + b"".join(files)
    kind = {"Content-Type": "application/x-lucency-folder"}
    found = client.post("/api/v1/scans", content=body, headers=kind)
    assert found.status_code == 200, found.text
    assert found.json()["slices"] == len(files)
    film = f"/api/v1/scans/{found.json()['scan']}/film"
    assert unpack(client.get(film, params={"slice": 1}).content)[0]["slice"] == 1
    assert client.get(film, params={"slice": len(files)}).status_code == 404
    assert client.post("/api/v1/scans", content=body[:-3], headers=kind).status_code == 422
    assert client.post("/api/v1/scans", content=b"\xff\xff\xff\xff{}", headers=kind).status_code == 422


def test_the_worklist_is_newest_first_and_brings_the_view_back(client: TestClient) -> None:
    first, second = (client.post("/api/v1/scans", content=gradient(seed)).json()["scan"] for seed in (20, 21))

    def listed() -> list[str]:
        return [entry["scan"] for entry in client.get("/api/v1/worklist").json()["entries"]]

    assert listed()[:2] == [second, first]
    client.put("/api/v1/worklist", json={"scan": first, "look": {"zoom": 2}})
    assert listed()[:2] == [first, second]
    assert client.get("/api/v1/worklist").json()["entries"][0]["look"] == {"zoom": 2}
    client.put("/api/v1/worklist", json={"scan": first, "listed": False})
    assert first not in listed()
    assert client.get(f"/api/v1/scans/{first}").status_code == 200


def test_a_phantom_has_a_truth_and_a_film_has_none(client: TestClient, scan: str) -> None:
    header, arrays = unpack(client.get(f"/api/v1/scans/{scan}/truth").content)
    assert header["deepest"] > 0
    assert arrays["data"].max() == 255
    film = client.post("/api/v1/scans", content=gradient()).json()["scan"]
    assert client.get(f"/api/v1/scans/{film}/truth").status_code == 404


# Explanations ---------------------------------------------------------------------------------------------------------


def test_a_map_is_made_once_and_then_costs_nothing(client: TestClient) -> None:
    scan = client.post("/api/v1/scans", content=gradient(1)).json()["scan"]
    first = client.post("/api/v1/explanations", json=asked(scan))
    assert first.status_code == 200, first.text
    found = first.json()
    assert found["complete"]
    evaluations = worked(client)
    # The same question in other words: the class by name, the default of another parameter.
    same = asked(scan, target=found["target"], parameters={"patch": "12", "order": "raster"})
    assert client.post("/api/v1/explanations", json=same).json() == found
    assert worked(client) == evaluations
    other = client.post("/api/v1/explanations", json=asked(scan, parameters={"patch": 16})).json()
    assert other["id"] != found["id"]
    assert worked(client) == evaluations + 1


def worked(client: TestClient) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("lucency_explanation_seconds_count"))


def test_the_answer_is_the_one_that_python_gives(client: TestClient, tmp_path: Path) -> None:
    from lucency import explain, read_scan

    (tmp_path / "film.png").write_bytes(gradient(2))
    scan = client.post("/api/v1/scans", content=gradient(2)).json()["scan"]
    made = client.post("/api/v1/explanations", json=asked(scan)).json()
    (tmp_path / "x.lucency").write_bytes(client.get(f"/api/v1/explanations/{made['id']}/explanation.lucency").content)
    expected = explain(read_scan(tmp_path / "film.png"), bright(), method="occlusion", patch=12)
    assert np.array_equal(Explanation.load(tmp_path / "x.lucency").heatmap, expected.heatmap)


def test_everything_can_be_taken_along(client: TestClient, scan: str) -> None:
    made = client.post("/api/v1/explanations", json=asked(scan)).json()["id"]
    kinds = {
        "overlay.png": b"\x89PNG",
        "animation.webp": b"RIFF",
        "animation.gif": b"GIF8",
        "report.html": b"<!doctype",
    }
    for file, begins in kinds.items():
        found = client.get(f"/api/v1/explanations/{made}/{file}")
        assert found.status_code == 200, found.text
        assert found.content.lower().startswith(begins.lower())
    policy = client.get(f"/api/v1/explanations/{made}/report.html").headers["content-security-policy"]
    assert "sandbox" in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
    assert client.get(f"/api/v1/explanations/{made}/secrets.txt").status_code == 404
    unpack(client.get(f"/api/v1/explanations/{made}/packed").content)
    header, arrays = unpack(client.get(f"/api/v1/explanations/{made}/timeline").content)
    assert len(header["frames"]) == len(arrays["heatmap"]) == len(arrays["perturbed"]) > 2
    assert header["frames"][-1]["done"] == 1
    curves = client.post("/api/v1/evaluate", json={"explanation": made, "regions": 4})
    assert curves.status_code == 200, curves.text
    assert {c["kind"] for c in curves.json()["curves"]} == {"MoRF", "LeRF", "random"}


def test_a_recording_is_the_same_after_it_was_saved(client: TestClient, scan: str, tmp_path: Path) -> None:
    made = client.post("/api/v1/explanations", json=asked(scan, method="lime", parameters={"samples": 50})).json()["id"]
    shop: Any = client.app.state.workshop  # type: ignore[attr-defined]
    first = shop.recording(made)
    (tmp_path / "again.npz").write_bytes(first.packed())
    again = Recording.load(tmp_path / "again.npz")
    assert again.points == first.points != []
    assert [(f.done, f.score, f.point, f.number) for f in again.frames] == [
        (f.done, f.score, f.point, f.number) for f in first.frames
    ]
    assert np.array_equal(again.perturbed, first.perturbed)
    for one, other in zip(again.maps("heatmap") or (), first.maps("heatmap") or (), strict=True):
        assert np.array_equal(one, other)


def ended(client: TestClient, job: str) -> dict[str, Any]:
    """The job when it has ended, by its stream of events."""
    last: dict[str, Any] = {}
    with client.stream("GET", f"/api/v1/jobs/{job}/events") as events:
        for line in events.iter_lines():
            if line.startswith("data: "):
                last = json.loads(line.removeprefix("data: "))
    return last


def test_a_job_makes_the_same_answer_and_is_one_however_often_it_is_asked_for(client: TestClient) -> None:
    scan = client.post("/api/v1/scans", content=gradient(3)).json()["scan"]
    first = client.post("/api/v1/explanations", json=asked(scan, wait=False))
    assert first.status_code == 202
    again = client.post("/api/v1/explanations", json=asked(scan, wait=False)).json()
    assert again.get("job", again.get("id")) == first.json()["job"]
    found = ended(client, first.json()["job"])
    assert found["state"] == "done"
    assert client.post("/api/v1/explanations", json=asked(scan)).json()["id"] == found["explanation"]
    assert client.post("/api/v1/explanations", json=asked(scan, wait=False)).status_code == 200
    # Once the answer is deleted, the job that made it says nothing any more.
    client.delete(f"/api/v1/scans/{scan}")
    client.post("/api/v1/scans", content=gradient(3))
    anew = client.post("/api/v1/explanations", json=asked(scan, wait=False)).json()
    assert ended(client, anew["job"])["state"] == "done"
    assert client.get(f"/api/v1/explanations/{found['explanation']}").status_code == 200


def test_a_job_is_cancelled_and_can_be_asked_for_again(client: TestClient, scan: str) -> None:
    long = asked(scan, method="rise", parameters={"samples": 30_000}, wait=False)
    job = client.post("/api/v1/explanations", json=long).json()["job"]
    client.delete(f"/api/v1/jobs/{job}")
    assert ended(client, job)["state"] == "cancelled"
    again = client.post("/api/v1/explanations", json=long).json()
    assert again["job"] == job
    assert again["state"] in ("waiting", "running")
    client.delete(f"/api/v1/jobs/{job}")
    assert ended(client, job)["state"] == "cancelled"
    assert client.get(f"/api/v1/explanations/{job}").status_code == 404


# Asking ---------------------------------------------------------------------------------------------------------------


def ask(client: TestClient, scan: str, **more: Any) -> Any:
    return client.post("/api/v1/ask", json={"scan": scan, "model": "Bright", "removal": "constant", **more})


def test_what_is_removed_changes_all_classes_as_the_network_itself_says(client: TestClient, scan: str) -> None:
    shop: Any = client.app.state.workshop  # type: ignore[attr-defined]
    classifier, film = shop.benches["Bright"].classifier, shop.scan(scan)
    x = classifier.prepare(film)[None]
    box = {"rectangle": {"rows": [16, 32], "columns": [8, 40]}}
    gone = torch.zeros(1, 64, 64)
    gone[:, 16:32, 8:40] = 1
    keep = 1 - classifier.placement(film).to_grid(gone)
    for how, mask in (("remove", keep), ("keep", 1 - keep)):
        found = ask(client, scan, **{how: box})
        assert found.status_code == 200, found.text
        with torch.no_grad():
            clean, perturbed = (classifier.probabilities(classifier(one))[0] for one in (x, x * mask))
        assert found.json()["clean"] == pytest.approx(
            dict(zip(classifier.classes, clean.tolist(), strict=True)), abs=1e-4
        )
        assert list(found.json()["perturbed"].values()) == pytest.approx(perturbed.tolist(), abs=1e-4)


def test_every_shape_removes_what_it_covers(client: TestClient, scan: str) -> None:
    ellipse = ask(client, scan, remove={"ellipse": {"rows": [0, 64], "columns": [0, 64]}}).json()
    assert ellipse["area"] == pytest.approx(np.pi / 4, abs=0.01)
    drawn = np.zeros((64, 64), bool)
    drawn[:32] = True
    bits = base64.b64encode(np.packbits(drawn)).decode()
    by_bits = ask(client, scan, remove={"mask": {"width": 64, "height": 64, "bits": bits}}).json()
    by_runs = ask(client, scan, remove={"mask": {"width": 64, "height": 64, "runs": [0, 2048, 2048]}}).json()
    half = ask(client, scan, remove={"rectangle": {"rows": [0, 32], "columns": [0, 64]}}).json()
    assert by_bits["perturbed"] == by_runs["perturbed"] == half["perturbed"]
    header, arrays = unpack(client.post("/api/v1/superpixels", json={"scan": scan, "model": "Bright"}).content)
    assert arrays["labels"].max() == header["count"] - 1
    piece = ask(client, scan, remove={"superpixel": 0}).json()
    assert piece["area"] == pytest.approx((arrays["labels"] == 0).mean(), abs=0.02)


def test_questions_that_come_together_are_answered_together_and_right(client: TestClient, scan: str) -> None:
    other = client.post("/api/v1/scans", content=gradient(4)).json()["scan"]
    boxes = [{"rectangle": {"rows": [r, r + 9], "columns": [3, 30]}} for r in range(0, 24, 4)]
    wanted = [(name, how, box) for box in boxes for name, how in ((scan, "remove"), (other, "remove"), (other, "keep"))]
    alone = [ask(client, name, **{how: box}).json()["perturbed"] for name, how, box in wanted]
    shop: Any = client.app.state.workshop  # type: ignore[attr-defined]
    before = shop.metrics.registry.get_sample_value("lucency_ask_batches_total")
    gate = threading.Event()
    shop.turns.submit("somebody", lambda: waiting(gate))
    from lucency.serve.schemas import Ask

    futures = [
        shop.ask(Ask.model_validate({"scan": n, "model": "Bright", "removal": "constant", how: box}))
        for n, how, box in wanted
    ]
    gate.set()
    together = [future.result(30).perturbed for future in futures]
    for one, found in zip(alone, together, strict=True):
        assert found == pytest.approx(one, abs=1e-4)
    assert shop.metrics.registry.get_sample_value("lucency_ask_batches_total") - before <= 3


def waiting(gate: threading.Event) -> Generator[None]:
    gate.wait(30)
    yield


def test_an_ask_comes_in_between_the_steps_of_a_long_run(client: TestClient, scan: str) -> None:
    ask(client, scan, remove={"rectangle": {"rows": [1, 9], "columns": [1, 9]}})
    long = asked(scan, method="rise", parameters={"samples": 50_000}, wait=False)
    job = client.post("/api/v1/explanations", json=long).json()["job"]
    while client.get(f"/api/v1/jobs/{job}").json()["evaluations"] == 0:
        time.sleep(0.05)
    assert ask(client, scan, remove={"rectangle": {"rows": [2, 9], "columns": [1, 9]}}).status_code == 200
    assert client.get(f"/api/v1/jobs/{job}").json()["state"] == "running"
    client.delete(f"/api/v1/jobs/{job}")
    assert ended(client, job)["state"] == "cancelled"


def test_an_evaluation_gives_way_after_each_batch(client: TestClient, scan: str) -> None:
    made = client.post("/api/v1/explanations", json=asked(scan)).json()["id"]
    shop: Any = client.app.state.workshop  # type: ignore[attr-defined]
    wanted = EvaluateWanted(explanation=made, regions=200)
    work = shop.benches.evaluated(wanted, shop.store.explanation(made), "Bright", shop.scan(scan), "me")
    # Once before it begins, and within each of the three curves.
    assert sum(1 for _ in work) > 2 * 3 + 1


def test_questions_are_kept_for_the_report_and_taken_off(client: TestClient, scan: str) -> None:
    question = {"ask": {"scan": scan, "model": "Bright", "keep": {"superpixel": 1}}, "note": "only this"}
    kept = client.post("/api/v1/questions", json=question).json()
    assert kept["note"] == "only this"
    box = {"scan": scan, "model": "Bright", "remove": {"rectangle": {"rows": [3, 20], "columns": [5, 9]}}}
    other = client.post("/api/v1/questions", json={"ask": box}).json()
    made = client.post("/api/v1/explanations", json=asked(scan, target="dark")).json()["id"]
    report = client.get(f"/api/v1/explanations/{made}/report.html").text
    assert "kept alone: superpixel 1" in report
    assert "only this" in report
    assert "removed: rectangle, rows 3 to 20, columns 5 to 9" in report
    assert f"{other['answer']['perturbed']['dark']:.3f}" in report
    assert client.delete(f"/api/v1/questions/{other['id']}").status_code == 204
    assert client.get("/api/v1/questions", params={"scan": scan}).json() == [kept]
    assert client.get("/api/v1/questions", params={"scan": NOBODY}).json() == []
    assert client.delete(f"/api/v1/questions/{kept['id']}").status_code == 204
    assert client.delete(f"/api/v1/questions/{kept['id']}").status_code == 404


# Live -----------------------------------------------------------------------------------------------------------------


def read(socket: Any) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The next message: a frame with its arrays, or words."""
    message = socket.receive()
    if message.get("type") == "websocket.close":
        raise WebSocketDisconnect(message["code"])
    if message.get("bytes"):
        return unpack(message["bytes"])
    return json.loads(message["text"]), None


def test_a_frame_comes_only_after_the_last_was_acknowledged_and_is_the_newest(client: TestClient) -> None:
    scan = client.post("/api/v1/scans", content=gradient(5)).json()["scan"]
    with client.websocket_connect("/api/v1/live") as socket:
        socket.send_json({"type": "start", "run": 7, **asked(scan, method="rise", parameters={"samples": 2000})})
        first, arrays = read(socket)
        assert (first["type"], first["run"], first["frame"]) == ("step", 7, 1)
        assert arrays is not None
        assert (arrays["heatmap"].shape, arrays["perturbed"].shape) == ((48, 48), (1, 48, 48))
        # Not acknowledged: the run ends without another frame.
        last, nothing = read(socket)
        assert nothing is None
        assert last["type"] == "done"
        assert not last["cancelled"]
    with client.websocket_connect("/api/v1/live") as socket:
        socket.send_json({"type": "start", "run": 8, **asked(scan, method="rise", parameters={"samples": 2100})})
        seen = []
        while (found := read(socket))[1] is not None:
            seen.append(found[0])
            socket.send_json({"type": "ack", "run": 8, "frame": found[0]["frame"]})
        assert [f["frame"] for f in seen] == list(range(1, len(seen) + 1))
        assert [f["done"] for f in seen] == sorted({f["done"] for f in seen})
        assert seen[-1]["panel"] == "map"
        assert client.get(f"/api/v1/explanations/{found[0]['explanation']}").json()["complete"]


def test_a_live_map_is_cancelled_with_the_map_so_far(client: TestClient, scan: str) -> None:
    with client.websocket_connect("/api/v1/live") as socket:
        start = {"type": "start", "run": 1, **asked(scan, method="rise", parameters={"samples": 40_000})}
        socket.send_json(start)
        read(socket)
        socket.send_json({"type": "cancel", "run": 1})
        found, _ = read(socket)
        assert found["cancelled"]
        assert not client.get(f"/api/v1/explanations/{found['explanation']}").json()["complete"]
        # Half an answer is nobody else's.
        socket.send_json({**start, "run": 2, "parameters": {"samples": 300}})
        while (message := read(socket))[1] is not None:
            socket.send_json({"type": "ack", "frame": message[0]["frame"]})
        assert message[0]["explanation"] != found["explanation"]


def test_what_is_wrong_on_a_socket_is_said_in_one_sentence_and_the_socket_lives(client: TestClient, scan: str) -> None:
    with client.websocket_connect("/api/v1/live") as socket:
        for wrong in (
            {"type": "start", **asked(NOBODY)},
            {"type": "start", **asked(scan, method="astrology")},
            {"type": "start", "scan": 3},
            {"type": "dance"},
            [1, 2],
        ):
            socket.send_json(wrong)
            found, _ = read(socket)
            assert found["type"] == "error", wrong
            assert found["message"].endswith(".")
        socket.send_text("{")
        assert read(socket)[0]["type"] == "error"


def test_a_watcher_that_leaves_ends_its_run(client: TestClient, scan: str) -> None:
    with client.websocket_connect("/api/v1/live") as socket:
        socket.send_json({"type": "start", **asked(scan, method="rise", parameters={"samples": 60_000})})
        read(socket)
    shop: Any = client.app.state.workshop  # type: ignore[attr-defined]
    until = time.monotonic() + 20
    while len(shop.turns) and time.monotonic() < until:
        time.sleep(0.05)
    assert len(shop.turns) == 0


# What is refused ------------------------------------------------------------------------------------------------------

WRONG: list[tuple[str, str, Any, int]] = [
    ("GET", "scans/../../etc/passwd", None, 404),
    ("GET", f"scans/{NOBODY}", None, 404),
    ("GET", "scans/short/film", None, 422),
    ("GET", f"explanations/{NOBODY}", None, 404),
    ("GET", f"explanations/{NOBODY}/..%2f..%2ftokens.json", None, 404),
    ("GET", f"jobs/{NOBODY}", None, 404),
    ("GET", f"jobs/{NOBODY}/events", None, 404),
    ("DELETE", f"jobs/{NOBODY}", None, 404),
    ("POST", "gallery/louvre", None, 404),
    ("POST", "phantoms", {"volume": -1}, 422),
    ("POST", "phantoms", {"volume": "NaN"}, 422),
    ("POST", "phantoms", {"volume": 100, "colour": "red"}, 422),
    ("POST", "explanations", {"scan": NOBODY, "model": "Bright"}, 404),
    ("POST", "explanations", {"model": "nobody"}, 404),
    ("POST", "explanations", {"model": "../../etc/passwd"}, 404),
    ("POST", "explanations", {"target": "purple"}, 422),
    ("POST", "explanations", {"target": 99}, 422),
    ("POST", "explanations", {"method": "astrology"}, 422),
    ("POST", "explanations", {"parameters": {"patch": "many"}}, 422),
    ("POST", "explanations", {"parameters": {"patch": -4}}, 422),
    ("POST", "explanations", {"parameters": {"patches": 4}}, 422),
    ("POST", "explanations", {"parameters": {"patch": [[[1]]]}}, 422),
    ("POST", "explanations", {"method": "rise", "parameters": {"samples": 10**9}}, 422),
    ("POST", "explanations", {"method": "rise", "parameters": {"samples": "1000000000"}}, 422),
    ("POST", "explanations", {"method": "rise", "parameters": {"removal": {"name": "dataset-mean",
                              "parameters": {"source": "/etc/passwd"}}}}, 422),
    ("POST", "explanations", {"removal": "/etc/passwd"}, 422),
    ("POST", "explanations", {"watch": "soul"}, 422),
    ("POST", "explanations", {"budget": "an hour"}, 422),
    ("POST", "explanations", {"budget": 1e9}, 422),
    ("POST", "explanations", {"error_bars": 1000}, 422),
    ("POST", "evaluate", {"explanation": NOBODY}, 404),
    ("POST", "agreement", {"explanations": [NOBODY, NOBODY]}, 404),
    ("POST", "ask", {}, 422),
    ("POST", "ask", {"remove": {}}, 422),
    ("POST", "ask", {"remove": {"superpixel": 100_000}}, 422),
    ("POST", "ask", {"remove": {"rectangle": {"rows": [9, 3], "columns": [0, 5]}}}, 422),
    ("POST", "ask", {"remove": {"rectangle": {"rows": [900, 903], "columns": [0, 5]}}}, 422),
    ("POST", "ask", {"remove": {"mask": {"width": 3, "height": 3, "bits": "AA=="}}}, 422),
    ("POST", "ask", {"remove": {"mask": {"width": 64, "height": 64, "bits": "!"}}}, 422),
    ("POST", "ask", {"remove": {"mask": {"width": 64, "height": 64, "runs": [1, 2]}}}, 422),
    ("POST", "ask", {"remove": {"superpixel": 0}, "keep": {"superpixel": 0}}, 422),
    ("POST", "ask", {"remove": {"superpixel": 0}, "removal": "magic"}, 422),
    ("POST", "superpixels", {"model": "nobody"}, 404),
    ("POST", "scores", {"model": "nobody"}, 404),
    ("PUT", "worklist", {"scan": NOBODY}, 404),
    ("PUT", "worklist", {"scan": NOBODY, "look": {"zoom": "x" * 100_001}}, 422),
    ("GET", "nothing", None, 404),
    ("DELETE", "worklist", None, 405),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "status"), WRONG, ids=[f"{m} {p} {b}"[:80] for m, p, b, _ in WRONG])
def test_bad_input_is_refused_in_one_sentence(
    client: TestClient, scan: str, method: str, path: str, body: Any, status: int
) -> None:
    if body is not None and path in ("explanations", "ask", "superpixels", "scores"):
        body = {"scan": scan, "model": "Bright", **body}
    found = client.request(method, f"/api/v1/{path}", json=body)
    assert found.status_code == status, found.text
    sentence = found.json()["error"]
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert "Traceback" not in found.text


@pytest.mark.parametrize(
    "body",
    [b"", b"hello", b"\x89PNG\r\n\x1a\nbroken", b"\x93NUMPY\x01\x00v\x00{'descr': '|O'}",
     bytes(132) + b"DICM" + b"\xff" * 99, png(np.full((9, 9), 7, np.uint8))],
    ids=["empty", "text", "png", "pickle", "dicom", "flat"],
)  # fmt: skip
def test_a_file_that_is_no_scan_is_refused_in_one_sentence_without_a_path(client: TestClient, body: bytes) -> None:
    found = client.post("/api/v1/scans", content=body, headers={"X-Filename": "Mustermann^Erika.dcm"})
    assert found.status_code == 422, found.text
    assert found.json()["error"].startswith("The file")
    assert "/tmp" not in found.text
    assert "Mustermann" not in found.text


def test_users_take_turns_and_a_long_run_gives_way() -> None:
    turns = Turns("test", 10, 10)
    order: list[str] = []

    def task(name: str, seconds: float) -> Generator[None]:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.01)
            yield
        order.append(name)

    futures: list[Future[None]] = [turns.submit("a", lambda: task("long", SLICE + 0.5))]
    futures += [turns.submit("a", lambda: task("a2", 0)), turns.submit("b", lambda: task("b1", 0))]
    for future in futures:
        future.result(20)
    assert order == ["b1", "long", "a2"]
    failing = turns.submit("a", lambda: (_ for _ in [1 / 0]))  # type: ignore[arg-type,return-value]
    with pytest.raises(ZeroDivisionError):
        failing.result(5)
    assert turns.alive
    turns.close(5)
    with pytest.raises(Exception, match="stopping"):
        turns.submit("a", lambda: task("late", 0))
    small = Turns("small", 1, 1)
    gate = threading.Event()
    small.submit("a", lambda: waiting(gate))
    with pytest.raises(BusyError):
        small.submit("b", lambda: task("no", 0))
    gate.set()
    small.close(5)


# Who may ask ----------------------------------------------------------------------------------------------------------


def test_other_names_and_other_pages_are_refused(client: TestClient) -> None:
    get = client.get
    assert get("/api/v1/models", headers={"Host": "evil.example"}).status_code == 421
    for hosts in (("testserver", "evil.example"), ("evil.example", "testserver"), ("testserver", "testserver")):
        assert get("/api/v1/models", headers=[("Host", host) for host in hosts]).status_code == 421
    assert get("/api/v1/models", headers={"Host": "127.0.0.1:8000"}).status_code == 200
    for origin in ("https://evil.example", "null", "http://testserver.evil.example"):
        assert client.post("/api/v1/phantoms", json={}, headers={"Origin": origin}).status_code == 403
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/api/v1/live", headers={"Origin": origin}):
            pass
    assert client.post("/api/v1/phantoms", json={}, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    own = {"Origin": "http://testserver"}
    assert client.put("/api/v1/worklist", json={"scan": NOBODY}, headers=own).status_code == 404
    with client.websocket_connect("/api/v1/live", headers=own):
        pass


def test_nothing_is_loaded_from_elsewhere_and_nothing_inline_runs(client: TestClient) -> None:
    found = client.get("/")
    policy = found.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "<script>" not in found.text
    assert "https://" not in found.text.replace("https://www.w3.org", "")
    for path in ("/docs", "/redoc", "/static/../app.py", "/static/%2e%2e/app.py", "/viewer/../packing.py"):
        assert client.get(path).status_code == 404, path
    assert client.get("/viewer/viewer.js").status_code == 200


def test_the_log_has_no_name_of_a_file(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "lucency.serve"):
        client.post("/api/v1/scans", content=gradient(8), headers={"X-Filename": "Mustermann^Erika.png"})
        client.post("/api/v1/scans?window=Mustermann", content=b"x")
    facts = [r.facts for r in caplog.records if hasattr(r, "facts")]  # type: ignore[attr-defined]
    assert [(f["route"], f["status"]) for f in facts] == [("/api/v1/scans", 200), ("/api/v1/scans", 422)]
    assert "Mustermann" not in json.dumps(
        [{**r.__dict__, "args": "", "exc_info": ""} for r in caplog.records], default=str
    )
