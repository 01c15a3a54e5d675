"""A model behind HTTP, asked on loopback: both protocols, and servers that are slow, busy, wrong or hostile."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
import torch

from bad_inputs import SIZE, Net
from lucency import Scan, explain, load_classifier
from lucency.errors import ModelError
from lucency.methods.occlusion import Occlusion

pytest.importorskip("httpx", reason="httpx is not installed")
http = pytest.importorskip("lucency.classifier.named.http")
NET = Net().eval()


class Host(ThreadingHTTPServer):
    """A server whose answers a test can bend."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.binary, self.last_axis, self.dtype = True, False, "FP32"
        self.largest = 0
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.bend: Callable[[Answers], bool] = lambda _: False
        self.change: Callable[[torch.Tensor], torch.Tensor] = lambda y: y

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Host

    def log_message(self, *_: object) -> None:
        pass

    def say(self, status: int, body: bytes | dict[str, Any], **headers: str) -> None:
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        self.server.largest = max(self.server.largest, len(x))
        with torch.no_grad():
            return self.server.change(NET(x))

    def do_GET(self) -> None:
        host = self.server
        host.seen.append(("GET", self.path, dict(self.headers)))
        if host.bend(self):
            return
        if self.path == "/v2":
            self.say(200, {"name": "toy", "extensions": ["binary_tensor_data"] if host.binary else []})
            return
        shape = [-1, *SIZE, 1] if host.last_axis else [-1, 1, *SIZE]
        self.say(
            200,
            {
                "name": "net",
                "inputs": [{"name": "x", "datatype": host.dtype, "shape": shape}],
                "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
            },
        )

    def do_POST(self) -> None:
        host = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        host.seen.append(("POST", self.path, dict(self.headers)))
        if host.bend(self):
            return
        if not self.path.startswith("/v2/"):
            question = json.loads(body)
            self.say(200, {"outputs": self.scores(torch.tensor(question["inputs"])).tolist()})
            return
        head = int(self.headers.get("Inference-Header-Content-Length", len(body)))
        (wanted,) = json.loads(body[:head])["inputs"]
        dtype = {"FP32": np.float32, "UINT8": np.uint8, "FP16": np.float16}[wanted["datatype"]]
        if host.binary:
            assert len(body) - head == wanted["parameters"]["binary_data_size"]
            data = np.frombuffer(body[head:], dtype)
        else:
            data = np.array(wanted["data"], dtype)
        x = torch.from_numpy(data.reshape(wanted["shape"]).astype(np.float32))
        x = x.movedim(-1, 1) if host.last_axis else x
        y = self.scores(x / 255 if host.dtype == "UINT8" else x).numpy()
        about = {"name": "y", "datatype": "FP32", "shape": list(y.shape)}
        if host.binary:
            about["parameters"] = {"binary_data_size": y.nbytes}
            text = json.dumps({"outputs": [about]}).encode()
            self.say(200, text + y.tobytes(), Inference_Header_Content_Length=str(len(text)))
        else:
            self.say(200, {"outputs": [{**about, "data": y.ravel().tolist()}]})


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setattr(http, "PAUSE", 0.001)
    monkeypatch.delenv(http.TOKEN, raising=False)
    server = Host()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def plain(host: Host, **options: Any) -> Any:
    return load_classifier(f"{host.address}/score", input_size=SIZE, channels=1, outputs="logits", **options)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(("last_axis", "dtype"), [(False, "FP32"), (True, "FP32"), (False, "UINT8"), (False, "FP16")])
def test_the_open_inference_protocol(host: Host, binary: bool, last_axis: bool, dtype: str) -> None:
    host.binary, host.last_axis, host.dtype = binary, last_axis, dtype
    classifier = load_classifier(f"{host.address}/v2/models/net", classes=list("abcd"))
    assert (classifier.channels, classifier.input_size, classifier.outputs) == (1, SIZE, "logits")
    x = torch.rand(5, 1, *SIZE)
    tolerance = 1e-5 if dtype == "FP32" else 5e-3
    assert torch.allclose(classifier(x), NET(x), atol=tolerance)
    assert "127.0.0.1" in " ".join(classifier.notices)


def test_plain_json_gives_the_same_map_as_the_network(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LARGEST_QUESTION", 8 * SIZE[0] * SIZE[1] * 4)
    scan = Scan(torch.rand(1, *SIZE))
    how = Occlusion(patch=6, stride=6)
    ours = explain(scan, plain(host), target=1, method=how).heatmap
    assert np.allclose(
        ours, explain(scan, load_classifier(NET, input_size=SIZE), target=1, method=how).heatmap, atol=1e-5
    )
    assert host.largest == 4


def test_busy_servers_are_asked_again(host: Host) -> None:
    left = [429, 503, 502]

    def busy(answers: Answers) -> bool:
        if left and answers.command == "POST":
            answers.say(left.pop(), b"later", Retry_After="0.01")
            return True
        return False

    host.bend = busy
    x = torch.rand(2, 1, *SIZE)
    assert torch.allclose(plain(host)(x), NET(x), atol=1e-5)
    assert left == []
    host.bend = lambda answers: answers.say(503, b"") is None
    with pytest.raises(ModelError, match=r"answers 503 .*5 times; try later"):
        plain(host)


def slow(answers: Answers) -> bool:
    time.sleep(0.4)
    return False


def drips(answers: Answers) -> bool:
    answers.send_response(200)
    answers.end_headers()
    for _ in range(20):
        answers.wfile.write(b" ")
        answers.wfile.flush()
        time.sleep(0.05)
    return True


def says(status: int, body: bytes | dict[str, Any], **headers: str) -> Callable[[Answers], bool]:
    return lambda answers: answers.say(status, body, **headers) is None


@pytest.mark.parametrize(
    ("bend", "why"),
    [
        (slow, "takes too long"),
        (drips, "takes too long"),
        (says(500, b"out of\x1b[31m order"), r"answers 500 \(out of \[31m order\)"),
        (says(404, b""), "answers 404"),
        (says(307, b"", Location="http://192.0.2.1/steal"), "redirects to another address"),
        (says(200, b"<html>hello</html>"), "does not answer in JSON"),
        (says(200, b"[" * 100_000), "does not answer in JSON"),
        (says(200, {"outputs": [[1, 2, 3]]}), r"\[1, 3\] for 5"),
        (says(200, {"outputs": "fine"}), "output"),
        (says(200, b" " * 200_000), "more than"),
    ],
)
def test_what_servers_get_wrong_is_one_sentence(
    host: Host, monkeypatch: pytest.MonkeyPatch, bend: Callable[[Answers], bool], why: str
) -> None:
    monkeypatch.setenv(http.TIMEOUT, "0.15")
    monkeypatch.setattr(http, "TRIES", 2)
    monkeypatch.setattr(http, "LARGEST_ANSWER", 150_000)
    host.bend = bend
    with pytest.raises(ModelError, match=why) as told:
        plain(host)
    assert "\n" not in str(told.value)
    assert "\x1b" not in str(told.value)


@pytest.mark.parametrize("nothing", [float("nan"), None])
def test_scores_that_are_no_numbers(host: Host, nothing: float | None) -> None:
    host.change = lambda y: _Rows([[nothing] * 4] * len(y))  # type: ignore[return-value]
    with pytest.raises(ModelError, match="NaN or infinite"):
        plain(host)


class _Rows(list[list[float | None]]):
    def tolist(self) -> list[list[float | None]]:
        return list(self)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"name": "net"}, "tells of no single input"),
        ([], "tells of no single input"),
        ({"inputs": [{"name": "t", "datatype": "BYTES", "shape": [-1, 1]}], "outputs": []}, "tells of no single input"),
    ],
)
def test_models_that_read_no_scan(host: Host, answer: Any, why: str) -> None:
    host.bend = lambda answers: answers.say(200, json.dumps(answer).encode()) is None
    with pytest.raises(ModelError, match=why):
        load_classifier(f"{host.address}/v2/models/net")


@pytest.mark.parametrize(
    "outputs",
    [
        [{"name": "y", "datatype": "FP32", "shape": [5, 4], "data": [1.0]}],
        [{"name": "y", "datatype": "FP32", "shape": [10**9, 10**9], "parameters": {"binary_data_size": 8}}],
        [{"name": "y", "datatype": "what", "shape": [5, 4], "data": [1.0]}],
        [],
        "none",
    ],
)
def test_tensors_that_do_not_hold_together(host: Host, outputs: Any) -> None:
    host.bend = lambda answers: answers.command == "POST" and answers.say(200, {"outputs": outputs}) is None
    with pytest.raises(ModelError, match="do not hold together"):
        load_classifier(f"{host.address}/v2/models/net")


def test_a_model_that_turns_bad_later_is_one_sentence(host: Host) -> None:
    classifier = plain(host)
    host.change = lambda y: y[:, :2]
    with pytest.raises(ModelError, match="gives 2 outputs and has 4 class names"):
        classifier(torch.rand(2, 1, *SIZE))
    host.shutdown()
    host.server_close()
    with pytest.raises(ModelError, match="cannot be reached"):
        classifier(torch.rand(2, 1, *SIZE))


def test_the_token_goes_to_the_stated_host_alone(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(http.TOKEN, "secret")
    classifier = load_classifier(f"{host.address}/score?key=1", input_size=SIZE, channels=1, outputs="logits")
    assert all(headers["Authorization"] == "Bearer secret" for _, _, headers in host.seen)
    assert "key" not in classifier.name
    assert "secret" not in json.dumps(classifier.about())
    for address, why in (
        ("http://model.example/score", "for all to read; use https"),
        ("https://me:pw@model.example/score", "holds a password"),
        ("https://", "names no host"),
        ("https://model.example:port/score", "is no address"),
    ):
        with pytest.raises(ModelError, match=why) as told:
            load_classifier(address, input_size=SIZE)
        assert "pw" not in str(told.value)
    monkeypatch.setenv(http.TIMEOUT, "soon")
    with pytest.raises(ModelError, match="give seconds"):
        plain(host)
