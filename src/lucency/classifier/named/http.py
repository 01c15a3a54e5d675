"""``https://...``: a model on a server, asked over HTTP as a black box.

An address that ends in ``/v2/models/NAME`` speaks the open inference protocol, as Triton, KServe and Ray Serve do: it
tells its inputs and outputs, and tensors travel as bytes where the server says that it can. Any other address is posted
JSON, ``{"inputs": numbers [B, C, H, W]}``, and answers with numbers ``[B, K]``, alone or under a name.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lucency.classifier.base import Classifier
from lucency.classifier.layout import Layout, beside, cast
from lucency.classifier.making import made
from lucency.classifier.named import needed
from lucency.errors import ModelError

TOKEN, TIMEOUT = "LUCENCY_HTTP_TOKEN", "LUCENCY_HTTP_TIMEOUT"
"""The variables of the environment that hold a bearer token, and the seconds that one answer may take (60)."""
TRIES, PAUSE, LONGEST_PAUSE = 5, 0.5, 30.0
AGAIN = (429, 502, 503, 504)
"""Answers after which the same question may be put again."""
LARGEST_ANSWER = 64 * 2**20
LARGEST_QUESTION = 16 * 2**20
LOOPBACK = ("localhost", "127.0.0.1", "::1")
DTYPES = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "INT8": np.int8, "INT16": np.int16,
    "INT32": np.int32, "INT64": np.int64, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
BINARY, HEADER = "binary_tensor_data", "Inference-Header-Content-Length"


def open_http(rest: str, **said: Any) -> Classifier:
    """The model at ``http:`` and this; see :func:`open_https`."""
    return _opened("http:" + rest, said)


def open_https(rest: str, **said: Any) -> Classifier:
    """The model at ``https:`` and this; ``LUCENCY_HTTP_TOKEN`` in the environment is sent as its bearer token.

    Raises:
        ModelError: when the server cannot be reached, does not know the model, or answers something else.
        MissingExtraError: without httpx.
    """
    return _opened("https:" + rest, said)


def _opened(address: str, said: dict[str, Any]) -> Classifier:
    server = Server(address)
    model: V2 | Plain
    if match := re.fullmatch(r"(.*/v2)(/models/[^/]+(?:/versions/[^/]+)?)(?:/infer)?/?", server.path):
        model = V2.of(server, match[1], match[2], said.get("channels"))
    else:
        model = Plain(server)
    classes = said.pop("classes", None)
    identity = hashlib.sha256(json.dumps([server.shown, model.about]).encode()).hexdigest()
    notices = [f"Scans are sent to {server.host}, and what answers there may change without notice."]
    found: dict[str, Any] = {}
    if isinstance(model, V2):
        shape = model.layout.shape
        found = {"channels": shape[1], "input_size": None if None in shape[2:] else shape[2:]}
        if model.dtype.kind in "iu" and {"mean", "std"}.isdisjoint(said):
            found |= {"std": (1 / 255,), "clip": True}
            notices.append("The model reads whole numbers, so pixels go in from 0 to 255.")
    options = {**{option: value for option, value in found.items() if value is not None}, **said}
    return made(model, None, server.shown, classes, lambda: identity, options, notices)


@dataclass(frozen=True)
class Server:
    """A host that answers, with patience and limits."""

    address: str

    def __post_init__(self) -> None:
        self.url  # noqa: B018, an odd address is refused before anything is sent

    @cached_property
    def httpx(self) -> Any:
        return needed("httpx", "http")

    @cached_property
    def url(self) -> Any:
        try:
            url = self.httpx.URL(self.address)
        except self.httpx.InvalidURL as error:
            raise ModelError(f"{self.address:.80} is no address ({error}); give https://HOST/PATH.") from error
        if not url.host or url.userinfo:
            raise ModelError(
                f"{url.scheme}://{url.host or '...'} names no host or holds a password; give https://HOST/PATH, and a "
                f"token in {TOKEN}."
            )
        return url

    @property
    def path(self) -> str:
        return str(self.url.path)

    @property
    def host(self) -> str:
        return str(self.url.host)

    @property
    def shown(self) -> str:
        """The address without what a query may hold."""
        return str(self.url.copy_with(query=None, fragment=None))

    @cached_property
    def client(self) -> Any:
        headers = {"Accept-Encoding": "identity"}
        if token := os.environ.get(TOKEN):
            if self.url.scheme != "https" and self.host not in LOOPBACK:
                raise ModelError(f"{TOKEN} would travel to {self.host} for all to read; use https.")
            headers["Authorization"] = f"Bearer {token}"
        try:
            seconds = float(os.environ.get(TIMEOUT, "60"))
        except ValueError as error:
            raise ModelError(f"{TIMEOUT} is {os.environ[TIMEOUT]!r:.40}; give seconds.") from error
        limit = self.httpx.Timeout(seconds, connect=min(10.0, seconds))
        return self.httpx.Client(headers=headers, timeout=limit, follow_redirects=False)

    def asked(self, method: str, path: str | None, **content: Any) -> tuple[bytes, Mapping[str, str]]:
        """The body and the headers of an answer; asked again after a pause where the server is busy or unreachable.

        Raises:
            ModelError: when it stays so, or the answer is none.
        """
        url = self.url if path is None else self.url.copy_with(path=path)
        trouble, pause = "", 0.0
        for attempt in range(TRIES):
            time.sleep(pause)
            pause = PAUSE * 2**attempt * random.uniform(1, 1.5)
            try:
                with self.client.stream(method, url, **content) as answer:
                    status = answer.status_code
                    if status in AGAIN:
                        trouble = f"answers {status} ({answer.reason_phrase})"
                        pause = max(pause, _seconds(answer.headers.get("Retry-After")))
                        continue
                    body = self._body(answer)
            except self.httpx.TransportError as error:
                trouble = f"cannot be reached ({(str(error) or type(error).__name__).splitlines()[0]})"
                if isinstance(error, self.httpx.ReadTimeout):
                    trouble = "takes too long"
                continue
            if answer.is_redirect:
                raise ModelError(f"{self.shown} redirects to another address; give that address if you trust it.")
            if status != 200:
                raise ModelError(f"{self.shown} answers {status} ({_words(body, answer.reason_phrase)}); check it.")
            return body, answer.headers
        raise ModelError(f"{self.shown} {trouble}, {TRIES} times; try later, or raise {TIMEOUT}.")

    def _body(self, answer: Any) -> bytes:
        body = bytearray()
        start, longest = time.monotonic(), self.client.timeout.read
        for part in answer.iter_bytes():
            body += part
            if len(body) > LARGEST_ANSWER:
                raise ModelError(f"{self.shown} answers with more than {LARGEST_ANSWER >> 20} MiB; that is no score.")
            if time.monotonic() - start > longest:
                # A server that drips would never run into the limit on a single read.
                raise self.httpx.ReadTimeout("dripping")
        return bytes(body)

    def parsed(self, body: bytes) -> Any:
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ModelError(
                f"{self.shown} does not answer in JSON ({_words(body, '')}); check the address."
            ) from error


@dataclass(frozen=True)
class Plain:
    """A model that takes and gives JSON."""

    server: Server
    about: Any = None

    def __call__(self, x: Tensor, **extras: Any) -> Any:
        most = max(1, LARGEST_QUESTION // (8 * x[0].numel()))
        return Layout(x.ndim, False, (None,) * x.ndim).in_batches(self._run, x, extras, most)

    def _run(self, x: Tensor, extras: Mapping[str, Any]) -> Any:
        content = {"inputs": x.tolist()} | {k: v.tolist() if isinstance(v, Tensor) else v for k, v in extras.items()}
        answer = self.server.parsed(self.server.asked("POST", None, json=content)[0])
        if isinstance(answer, Mapping) and set(answer) == {"outputs"}:
            answer = answer["outputs"]
        return _tensors(answer)


@dataclass(frozen=True)
class V2:
    """A model that speaks the open inference protocol."""

    server: Server
    path: str
    about: Any
    binary: bool
    scan: Mapping[str, Any]
    others: tuple[Mapping[str, Any], ...]
    layout: Layout
    asks: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, server: Server, root: str, model: str, channels: int | None) -> V2:
        """The model, with what the server tells about it.

        Raises:
            ModelError: when none of its inputs can be a scan.
        """
        about = server.parsed(server.asked("GET", root + model)[0])
        said = server.parsed(server.asked("GET", root)[0])
        try:
            inputs, outputs = about["inputs"], about["outputs"]
            pictures = [one for one in inputs if len(one["shape"]) in (3, 4, 5) and one["datatype"] in DTYPES]
            most = max((len(one["shape"]) for one in pictures), default=0)
            (scan,) = (one for one in pictures if len(one["shape"]) == most)
            binary = BINARY in said.get("extensions", ())
            names = tuple(str(one["name"]) for one in outputs if one["datatype"] in DTYPES)
            others = tuple(one for one in inputs if one is not scan)
            layout = Layout.of(scan["shape"], channels)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(
                f"{server.shown} tells of no single input that a scan could go into ({json.dumps(about):.200}); serve "
                "one of [B, C, H, W] or [B, H, W, C] numbers."
            ) from error
        return cls(server, root + model + "/infer", about, binary, scan, others, layout, names)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(DTYPES[self.scan["datatype"]])

    def __call__(self, x: Tensor, **extras: Any) -> Any:
        """``[B, C, *grid]`` and the other inputs by name -> the tensor that the model gives, or several by name."""
        most = max(1, LARGEST_QUESTION // (x[0].numel() * (self.dtype.itemsize if self.binary else 8)))
        return self.layout.in_batches(self._run, x, extras, most)

    def _run(self, x: Tensor, extras: Mapping[str, Any]) -> Any:
        if missing := [one["name"] for one in self.others if one["name"] not in extras]:
            raise ModelError(f"The model reads {', '.join(missing)} beside the scan; give that with extra_inputs=.")
        arrays = [(self.scan, self.layout.laid(x))]
        arrays += [(one, beside(extras[one["name"]], one["shape"])) for one in self.others]
        inputs, tail = [], b""
        for wanted, array in arrays:
            data = cast(array, np.dtype(DTYPES[wanted["datatype"]]))
            told = {"name": wanted["name"], "shape": list(data.shape), "datatype": wanted["datatype"]}
            if self.binary:
                inputs.append({**told, "parameters": {"binary_data_size": data.nbytes}})
                tail += data.astype(data.dtype.newbyteorder("<"), copy=False).tobytes()
            else:
                inputs.append({**told, "data": data.ravel().tolist()})
        outputs = [{"name": name, "parameters": {"binary_data": self.binary}} for name in self.asks]
        head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
        headers = {"Content-Type": "application/json"}
        if self.binary:
            headers = {"Content-Type": "application/octet-stream", HEADER: str(len(head))}
        body, told_back = self.server.asked("POST", self.path, content=head + tail, headers=headers)
        made = self._read(body, told_back.get(HEADER))
        if self.layout.unbatched(x):
            made = {name: value[None] for name, value in made.items()}
        return next(iter(made.values())) if len(made) == 1 else made

    def _read(self, body: bytes, head: str | None) -> dict[str, Tensor]:
        try:
            end = len(body) if head is None else int(head)
            place, made = end, {}
            for one in self.server.parsed(body[:end])["outputs"]:
                dtype = np.dtype(DTYPES[one["datatype"]]).newbyteorder("<")
                size = (one.get("parameters") or {}).get("binary_data_size")
                if size is None:
                    data = np.array(one["data"], dtype)
                else:
                    data = np.frombuffer(body[place : place + int(size)], dtype)
                    place += int(size)
                made[str(one["name"])] = torch.from_numpy(data.reshape(one["shape"]).astype(np.float32))
            if not made:
                raise ValueError("no outputs")
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise ModelError(f"{self.server.shown} answers with tensors that do not hold together ({why}).") from error
        return made


def _tensors(answer: Any) -> Any:
    """Lists of numbers as tensors, wherever they stand; ``null`` is no number."""
    if isinstance(answer, Mapping):
        return {str(key): _tensors(value) for key, value in answer.items()}
    try:
        array = np.array(answer, np.float32)
    except (ValueError, TypeError, OverflowError):
        return [_tensors(value) for value in answer] if isinstance(answer, list) else answer
    return torch.from_numpy(array)


def _seconds(told: str | None) -> float:
    """What ``Retry-After`` asks for, within reason; a date is not waited for."""
    try:
        return min(max(float(told or 0), 0.0), LONGEST_PAUSE)
    except ValueError:
        return 0.0


def _words(body: bytes, otherwise: str) -> str:
    """The first words of an answer, printable."""
    text = "".join(c if c.isprintable() else " " for c in body[:400].decode("utf-8", "replace"))
    return " ".join(text.split())[:120] or otherwise or "nothing"
