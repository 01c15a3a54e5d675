"""A typed client of ``lucency serve``. Needs ``httpx`` (the ``http`` extra) and nothing of PyTorch.

with Client("http://127.0.0.1:8000") as client:
    scan = client.open("chest.dcm")
    found = client.explain(scan.scan, "lucency:effusion", target="effusion", budget="5s")
    client.save(found.id, "report.html", "out")
    print(client.ask(scan.scan, "lucency:effusion", remove={"rectangle": {"rows": [300, 400], "columns": [90, 200]}}))
"""

from __future__ import annotations

import dataclasses
import json
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote

from lucency.errors import LucencyError, MissingExtraError, OutputError, ScanError

try:
    import httpx
except ImportError as _error:
    raise MissingExtraError("The client needs httpx; run pip install 'lucency[http]'.") from _error

Record = TypeVar("Record")
File = Literal["report.html", "overlay.png", "animation.mp4", "animation.webp", "animation.gif", "explanation.lucency"]
FOLDER = "application/x-lucency-folder"
LONG = httpx.Timeout(30.0, read=900.0)
"""Seconds: a map that is waited for may take long."""
MOST_WAITED = 60.0
"""Seconds that a server which is busy is waited for."""


class ServiceError(LucencyError):
    """What the server refused, in its own sentence.

    Attributes:
        status: of HTTP; 0 where nothing answered.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Model:
    """A classifier that may be asked."""

    name: str
    title: str
    classes: tuple[str, ...]
    gradients: bool
    notices: tuple[str, ...]


@dataclass(frozen=True)
class Scan:
    """A scan that was opened; ``scan`` is its name from now on."""

    scan: str
    title: str
    width: int
    height: int
    slices: int
    channels: int
    spacing: tuple[float, ...] | None
    notices: tuple[str, ...]
    truth: bool


@dataclass(frozen=True)
class Scores:
    """Probabilities of a clean scan by class, its p-value, and why it cannot be what the model reads."""

    model: str
    probabilities: Mapping[str, float]
    out_of_distribution: float | None
    doubts: tuple[str, ...]


@dataclass(frozen=True)
class Explained:
    """An explanation without its arrays. :meth:`Client.save` fetches the file that ``lucency.Explanation.load`` reads.

    Attributes:
        verdict: as the report says it, see ``text``.
        about: all that the server says.
    """

    id: str
    scan: str
    model: str
    target: str
    probability: float | None
    probabilities: Mapping[str, float]
    peak: tuple[int, ...] | None
    evaluations: int
    gradients: int
    seconds: float
    complete: bool
    facts: Mapping[str, Any]
    verdict: Mapping[str, Any]
    notices: tuple[str, ...]
    about: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Job:
    """An explanation that is being made.

    Attributes:
        state: ``waiting``, ``running``, ``done``, ``failed`` or ``cancelled``.
        done: share of the work, 0..1.
        explanation: the name of the result, once it is there.
        error: why it failed.
    """

    job: str
    state: str
    done: float
    seconds: float
    left: float | None
    evaluations: int
    explanation: str | None
    error: str | None

    @property
    def ended(self) -> bool:
        """Whether nothing happens to it any more."""
        return self.state in ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Answer:
    """Probabilities by class before and after something was removed, and the p-value of the perturbed scan."""

    clean: Mapping[str, float]
    perturbed: Mapping[str, float]
    milliseconds: float
    out_of_distribution: float | None
    removal: str
    area: float


class Client:
    """One server. Threads may share it.

    Args:
        address: ``http://host:port``.
        token: where the server needs one.
        transport: how requests travel; the network when ``None``.

    Every method raises :class:`ServiceError` when the server refuses, with its sentence. While the server is busy, a
    request is sent again when it says, for a minute at most.
    """

    def __init__(
        self, address: str = "http://127.0.0.1:8000", *, token: str = "", transport: httpx.BaseTransport | None = None
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            self._http = httpx.Client(
                base_url=f"{address.rstrip('/')}/api/v1/", headers=headers, timeout=LONG, transport=transport
            )
        except httpx.InvalidURL as error:
            raise ServiceError(f"{address!r:.80} is no address; write http://host:port.", 0) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def models(self) -> list[Model]:
        """The classifiers that may be asked."""
        return [_made(Model, row) for row in self._json("GET", "models")]

    def methods(self) -> list[dict[str, Any]]:
        """The methods with their parameters, as the server tells them."""
        found: list[dict[str, Any]] = self._json("GET", "methods")
        return found

    def open(
        self,
        path: str | Path,
        *,
        frame: int | None = None,
        window: str | None = None,
        value_range: tuple[float, float] | None = None,
    ) -> Scan:
        """Sends a file, or a folder with the slices of one volume; arguments as for ``lucency.read_scan``.

        Raises:
            ScanError: when the file cannot be read here.
        """
        path = Path(path)
        query: dict[str, Any] = {"frame": frame, "window": window}
        if value_range is not None:
            query |= {"low": value_range[0], "high": value_range[1]}
        headers = {"X-Filename": quote(path.name), "Content-Type": "application/octet-stream"}
        try:
            if path.is_dir():
                files = [one.read_bytes() for one in sorted(path.iterdir()) if one.is_file()]
                text = json.dumps({"sizes": [len(one) for one in files]}).encode()
                body = b"".join([struct.pack("<I", len(text)), text, *files])
                headers["Content-Type"] = FOLDER
            else:
                body = path.read_bytes()
        except (OSError, ValueError) as error:
            raise ScanError(f"{path} cannot be opened ({error}); check the name and the permissions.") from error
        query = {name: value for name, value in query.items() if value is not None}
        return _made(Scan, self._json("POST", "scans", content=body, headers=headers, params=query))

    def phantom(self, *, volume: float = 300.0, side: str = "right", seed: int = 0, size: int = 512) -> Scan:
        """A simulated radiograph whose fluid is known."""
        about = {"volume": volume, "side": side, "seed": seed, "size": size}
        return _made(Scan, self._json("POST", "phantoms", json=about))

    def forget(self, scan: str) -> None:
        """Deletes a scan with everything that was found out about it."""
        self._sent("DELETE", f"scans/{scan}")

    def scores(self, scan: str, model: str) -> Scores:
        """What a classifier says of the clean scan."""
        return _made(Scores, self._json("POST", "scores", json={"scan": scan, "model": model}))

    def explain(self, scan: str, model: str, **wanted: Any) -> Explained:
        """Waits for a map.

        Args:
            wanted: ``target``, ``method``, ``parameters``, ``removal``, ``watch``, ``budget``, ``error_bars``, as
                :class:`lucency.Explainer` takes them.
        """
        return self._explained(self._json("POST", "explanations", json={"scan": scan, "model": model, **wanted}))

    def start(self, scan: str, model: str, **wanted: Any) -> Job:
        """Asks for a map and does not wait; arguments as for :meth:`explain`. One that is there is a job done."""
        body = {"scan": scan, "model": model, **wanted, "wait": False}
        found = self._json("POST", "explanations", json=body)
        if "job" in found:
            return _made(Job, found)
        return Job(found["id"], "done", 1.0, 0.0, None, found["evaluations"], found["id"], None)

    def job(self, job: str) -> Job:
        """How far it is."""
        return _made(Job, self._json("GET", f"jobs/{job}"))

    def events(self, job: str) -> Iterator[Job]:
        """How far it is, now and after each change, until it has ended."""
        with _saying(), self._http.stream("GET", f"jobs/{job}/events") as answer:
            if answer.is_error:
                answer.read()
                raise _refused(answer)
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    yield _made(Job, json.loads(line.removeprefix("data: ")))

    def wait(self, job: str, on_event: Callable[[Job], None] | None = None) -> Explained:
        """The explanation, when it is there.

        Raises:
            ServiceError: when the job failed or was cancelled.
        """
        last = None
        for last in self.events(job):
            if on_event is not None:
                on_event(last)
        if last is None or last.explanation is None:
            why = "the server went away" if last is None else last.error or f"it is {last.state}"
            raise ServiceError(f"The job made no explanation ({why}); start it again.", 0)
        return self.explanation(last.explanation)

    def cancel(self, job: str) -> Job:
        """Stops it after the step that it is at."""
        return _made(Job, self._json("DELETE", f"jobs/{job}"))

    def explanation(self, explanation: str) -> Explained:
        """One that was made before."""
        return self._explained(self._json("GET", f"explanations/{explanation}"))

    def fetch(self, explanation: str, file: File) -> bytes:
        """The report, the picture, the animation or the file of an explanation."""
        return self._sent("GET", f"explanations/{explanation}/{file}").content

    def save(self, explanation: str, file: File, folder: str | Path) -> Path:
        """The same, written into a folder, which is made when missing.

        Raises:
            OutputError: when it cannot be written.
        """
        data, path = self.fetch(explanation, file), Path(folder) / file
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            raise OutputError(f"{path} cannot be written ({error.strerror or error}).") from error
        return path

    def evaluate(
        self, explanation: str, curves: Sequence[str] = ("MoRF", "LeRF", "random"), **how: Any
    ) -> dict[str, Any]:
        """Whether the score falls where the map says: curves with areas, as ``lucency evaluate --json`` has them."""
        body = {"explanation": explanation, "curves": list(curves), **how}
        found: dict[str, Any] = self._json("POST", "evaluate", json=body)
        return found

    def ask(
        self,
        scan: str,
        model: str,
        *,
        remove: Mapping[str, Any] | None = None,
        keep: Mapping[str, Any] | None = None,
        removal: str | None = None,
    ) -> Answer:
        """What changes when a region is removed, or all but that.

        Args:
            remove, keep: one of ``{"rectangle": {"rows": [a, b], "columns": [a, b]}}``, ``{"ellipse": ...}``,
                ``{"mask": {"width", "height", "bits"}}`` and ``{"superpixel": n}``, in pixels of the scan.
        """
        body = {"scan": scan, "model": model, "remove": remove, "keep": keep, "removal": removal}
        return _made(Answer, self._json("POST", "ask", json=body))

    def worklist(self) -> list[Scan]:
        """What was opened, newest first."""
        return [_made(Scan, row) for row in self._json("GET", "worklist")["entries"]]

    def _explained(self, about: dict[str, Any]) -> Explained:
        return _made(Explained, {**about, "about": about})

    def _json(self, method: str, path: str, **what: Any) -> Any:
        return self._sent(method, path, **what).json()

    def _sent(self, method: str, path: str, **what: Any) -> httpx.Response:
        until = time.monotonic() + MOST_WAITED
        while True:
            with _saying():
                answer = self._http.request(method, path, **what)
            again = answer.headers.get("Retry-After", "") if answer.status_code == 429 else ""
            if again.isdigit() and time.monotonic() + int(again) < until:
                time.sleep(int(again))
                continue
            if answer.is_error:
                raise _refused(answer)
            return answer


@contextmanager
def _saying() -> Iterator[None]:
    """Says what went wrong on the way in one sentence."""
    try:
        yield
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        raise ServiceError(f"The server does not answer ({why}); start it with lucency serve.", 0) from error


def _refused(answer: httpx.Response) -> ServiceError:
    try:
        sentence = str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        sentence = f"The server answers {answer.status_code} without a reason; is it lucency serve?"
    return ServiceError(sentence, answer.status_code)


def _made(kind: type[Record], about: Mapping[str, Any]) -> Record:
    """A record from JSON; what a newer server says besides is left out."""
    try:
        values = {f.name: about[f.name] for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    except (KeyError, TypeError) as error:
        raise ServiceError(
            f"The server says no {kind.__name__.lower()}; is it a lucency serve of this age?", 0
        ) from error
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
