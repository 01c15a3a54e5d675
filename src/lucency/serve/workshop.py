"""The engines kept warm, the turns on their device, and every explanation that the service makes.

Whatever way a question comes in (one that waits, a job, a live map), it is the same question with the same answer,
kept under a hash of everything that decides it: the pixels, the weights, the class, what is watched, the method with
every parameter, the removal, the budget, the seed and the versions.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from lucency import Explainer
from lucency.asking import asking
from lucency.checks.film import doubts
from lucency.checks.out_of_distribution import OutOfDistribution
from lucency.classifier import Classifier
from lucency.engine import Engine
from lucency.errors import LucencyError, ModelError, ParameterError
from lucency.explanation import Explanation, describe
from lucency.methods import Method, Step
from lucency.render import Recorder
from lucency.render.recording import Recording
from lucency.scan import Scan
from lucency.serve.catalogue import settings_of, without_files
from lucency.serve.errors import BusyError, NotThereError, StoppedError
from lucency.serve.metrics import Metrics
from lucency.serve.settings import Settings
from lucency.serve.store import Store
from lucency.serve.turns import Task, Turns
from lucency.serve.uploads import Reader
from lucency.work import parse_budget
from lucency.writing import whole

if TYPE_CHECKING:
    from lucency.serve.ask import Asking
    from lucency.serve.backlog import Backlog

SCANS_AT_HAND = 8
GRACE = 5.0
"""Seconds that the step under way gets when the server stops."""


@dataclass(frozen=True)
class Asked:
    """An explanation that somebody wants; the fields of the request, as :class:`Explainer` takes them."""

    scan: str
    model: str
    target: str | int | None = None
    method: str = "occlusion"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    removal: str | None = None
    watch: str = "probability"
    budget: float | str | None = None
    error_bars: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, which make it again."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, eq=False)
class Bench:
    """One classifier, warm.

    Attributes:
        known: what clean scans look like to it, where that is known.
    """

    classifier: Classifier
    engine: Engine
    known: OutOfDistribution | None


@dataclass(frozen=True, eq=False)
class Prepared:
    """A question that fits its scan and its classifier, and the name of its answer."""

    asked: Asked
    name: str
    target: int
    scan: Scan
    explainer: Explainer


class Workshop:
    """All of it. Threads may share it.

    Raises:
        ModelError: for two classifiers of one name.
    """

    def __init__(self, settings: Settings, classifiers: Sequence[Classifier], store: Store, metrics: Metrics) -> None:
        self.settings, self.store, self.metrics = settings, store, metrics
        self.between: list[Callable[[], None]] = []
        self.benches: dict[str, Bench] = {}
        for classifier in classifiers:
            if classifier.name in self.benches:
                raise ModelError(f"Two models are called {classifier.name}; rename the file of one of them.")
            engine = Engine(classifier, device=settings.device, seed=settings.seed)
            self.benches[classifier.name] = Bench(classifier, engine, OutOfDistribution.of(classifier))
        self.turns = Turns("lucency-device", settings.waiting, settings.waiting_each, self._between)
        self._scans: OrderedDict[str, Scan] = OrderedDict()
        self._lock = threading.Lock()
        self._under_way: dict[str, Future[str]] = {}
        self.reader = Reader(settings)
        self.asking: Asking
        self.backlog: Backlog

    def _between(self) -> None:
        for act in self.between:
            act()

    def close(self) -> None:
        """Ends the device's thread after the step that it is at."""
        self.turns.close(GRACE)
        self.reader.close()

    def bench(self, model: str) -> Bench:
        """A classifier that may be asked.

        Raises:
            NotThereError: naming those that may.
        """
        if model not in self.benches:
            raise NotThereError(f"There is no model {model!r:.60} here; use one of {', '.join(self.benches)}.")
        return self.benches[model]

    def scan(self, name: str) -> Scan:
        """A scan, from memory where it was used a moment ago.

        Raises:
            NotThereError: when there is none of that name.
        """
        with self._lock:
            if name in self._scans:
                self._scans.move_to_end(name)
                return self._scans[name]
        scan = self.store.scan(name)
        with self._lock:
            self._scans[name] = scan
            while len(self._scans) > SCANS_AT_HAND:
                self._scans.popitem(last=False)
        return scan

    @staticmethod
    def name_of(about: Mapping[str, Any]) -> str:
        """The name of an answer to what ``about`` says, by these versions."""
        return _hash({"about": about, "versions": _versions()})

    def forget(self, name: str) -> None:
        """Deletes a scan and everything about it."""
        with self._lock:
            self._scans.pop(name, None)
        self.store.forget_scan(name)

    # Probabilities ---------------------------------------------------------------------------------------------------

    def scores(self, scan: str, model: str, user: str) -> Future[dict[str, Any]]:
        """What a classifier says of the clean scan: probabilities by class, how usual the scan is, and doubts."""
        bench = self.bench(model)
        name = _hash({"scores": scan, "model": bench.classifier.fingerprint, "versions": _versions()})
        found = self.store.answer(name)
        self.metrics.cache("scores", found is not None)
        if found is not None:
            done: Future[dict[str, Any]] = Future()
            done.set_result(found)
            return done
        pixels = self.scan(scan)

        def work() -> Task[dict[str, Any]]:
            yield
            record = self._scored(pixels, bench)
            self.store.add_answer(name, scan, record)
            return record

        future = self.turns.submit(user, work)

        def answered(done: Future[dict[str, Any]]) -> None:
            if not done.cancelled() and done.exception() is None:
                self._warm(scan, model, user)

        future.add_done_callback(answered)
        return future

    def _warm(self, scan: str, model: str, user: str) -> None:
        """Who has seen the probabilities asks next; what that needs is made ready in the meantime."""

        def work() -> Task[None]:
            yield
            # What speaks against it is said when it is asked for.
            with suppress(LucencyError):
                self.asking.warm(scan, model)

        with suppress(BusyError, StoppedError):
            self.turns.submit(user, work)

    @staticmethod
    def _scored(scan: Scan, bench: Bench) -> dict[str, Any]:
        classifier = bench.classifier
        with asking():
            x = classifier.prepare(scan)[None].to(bench.engine.device)
            with torch.inference_mode():
                outputs = classifier(x)
                values = classifier.numbers(outputs) if classifier.measures else classifier.probabilities(outputs)
            p = None if bench.known is None else float(bench.known.p_values(x)[0])
            said = list(doubts(scan, classifier))
        if not bool(values.isfinite().all()):
            raise ModelError(f"{classifier.name} gives numbers that are not finite on this scan; use another model.")
        # A softmax may add up to a rounding more than 1.
        listed = values[0].tolist() if classifier.measures else values[0].clamp(0, 1).tolist()
        return {
            "model": classifier.name,
            "probabilities": dict(zip(classifier.classes, listed, strict=True)),
            "out_of_distribution": p,
            "doubts": said,
        }

    # Explanations ----------------------------------------------------------------------------------------------------

    def prepare(self, asked: Asked, probabilities: Mapping[str, float]) -> Prepared:
        """Checks everything about a question that can be checked before work is done.

        Args:
            probabilities: what :meth:`scores` says, for a question that names no class.

        Raises:
            LucencyError: one of the family, when scan, classifier, method and parameters do not go together.
        """
        bench, scan = self.bench(asked.model), self.scan(asked.scan)
        classifier = bench.classifier
        if not 0 <= asked.error_bars <= 64:
            raise ParameterError(f"Error bars need 0 to 64 copies of the scan, not {asked.error_bars}.")
        if asked.budget is not None and parse_budget(asked.budget) > self.settings.longest:
            raise ParameterError(f"A budget may be {self.settings.longest:g} s here at most; give less, or none.")
        parameters = settings_of(asked.parameters)
        without_files(type(Method.from_word(asked.method)), parameters)
        explainer = Explainer(
            classifier,
            method=asked.method,
            settings=parameters,
            removal=asked.removal or "auto",
            watch=asked.watch,
            budget=asked.budget,
            error_bars=asked.error_bars,
            engine=bench.engine,
        )
        explainer.known = bench.known
        if asked.target is None:
            names = list(probabilities)
            target = 0 if classifier.measures else max(range(len(names)), key=lambda i: probabilities[names[i]])
        else:
            target = classifier.index(asked.target)
        method, _ = explainer.fitted(scan)
        name = _hash(
            {
                "scan": asked.scan,
                "model": classifier.fingerprint,
                "target": target,
                "watch": asked.watch,
                "method": {"name": method.name, **describe(method)},
                "removal": method.removal and method.removal.fingerprint,
                "budget": None if asked.budget is None else parse_budget(asked.budget),
                "error_bars": asked.error_bars,
                "seed": bench.engine.seed,
                "device": bench.engine.device.type,
                "versions": _versions(),
            }
        )
        return Prepared(asked, name, target, scan, explainer)

    def explain(
        self,
        prepared: Prepared,
        user: str,
        *,
        on_step: Callable[[Step, float], None] | None = None,
        cancel: threading.Event | None = None,
        keep_stopped: bool = True,
        extra: int = 0,
    ) -> Future[str]:
        """The name of the answer, once it is there.

        An answer that is there already costs nothing, and one that somebody waits for already is made once.

        Args:
            on_step: called with each step and the seconds that the run took so far, on the device's thread.
            cancel: ends the run with the map so far, which is kept under a name of its own where ``keep_stopped``
                says so; the name is empty otherwise.
            extra: how many more than the usual number may wait, see :meth:`Turns.submit`.

        Raises:
            BusyError: when too many wait.
        """
        name = prepared.name
        with self._lock:
            found = self.store.find_explanation(name) is not None
            self.metrics.cache("explanations", found)
            if found:
                done: Future[str] = Future()
                done.set_result(name)
                return done
            if name in self._under_way and on_step is None and cancel is None:
                return self._under_way[name]
            stop = cancel or threading.Event()
            future = self.turns.submit(user, lambda: self._run(prepared, on_step, stop, keep_stopped), extra=extra)
            if cancel is None:
                self._under_way[name] = future
                future.add_done_callback(lambda _: self._under_way.pop(name, None))
        return future

    def _run(
        self,
        prepared: Prepared,
        on_step: Callable[[Step, float], None] | None,
        cancel: threading.Event,
        keep_stopped: bool,
    ) -> Task[str]:
        began, resting = time.perf_counter(), 0.0
        if self.store.find_explanation(prepared.name) is not None:
            return prepared.name
        recorder = Recorder(known=prepared.explainer.known)
        run = prepared.explainer.steps(prepared.scan, prepared.target, cancel=cancel)
        stopped = False
        try:
            for step in run:
                recorder(step)
                busy = time.perf_counter() - began - resting
                if on_step is not None:
                    on_step(step, busy)
                if busy > self.settings.longest:
                    stopped = True
                if stopped or (cancel.is_set() and not keep_stopped):
                    break
                rests = time.perf_counter()
                yield
                resting += time.perf_counter() - rests
            if cancel.is_set() and not keep_stopped:
                return ""
            explanation = run.explanation
            yield
            recording = Recording.of(recorder)
            yield
        finally:
            run.close()
        name = prepared.name
        if (cancel.is_set() or stopped) and not explanation.complete:
            # The same question asked again must not get half an answer.
            name = _hash({"stopped": name, "nonce": secrets.token_hex(16)})
        self._keep(name, prepared, explanation, recording)
        self.metrics.explained(prepared.asked.method, time.perf_counter() - began - resting)
        return name

    def _keep(self, name: str, prepared: Prepared, explanation: Explanation, recording: Recording) -> None:
        if self.settings.anonymous:
            explanation = explanation.anonymous()
        place = self.store.place(name)
        place.mkdir(exist_ok=True, mode=0o700)
        with whole(place / "recording.npz") as part:
            recording.save(part)
        record = record_of(name, prepared.asked, explanation)
        self.store.add_explanation(name, prepared.asked.scan, explanation, record)

    def recording(self, name: str) -> Recording:
        """What was recorded of a run.

        Raises:
            NotThereError: when that is gone.
        """
        self.store.record(name)
        try:
            return Recording.load(self.store.place(name) / "recording.npz")
        except (OSError, ValueError, KeyError) as error:
            raise NotThereError("The recording of this explanation is gone; ask for it again.") from error


def record_of(name: str, asked: Asked, explanation: Explanation) -> dict[str, Any]:
    """What the service says of an explanation, in plain values."""
    about = explanation.provenance
    method = about.method
    return {
        "id": name,
        "asked": asked.as_dict(),
        "scan": asked.scan,
        "model": asked.model,
        "target": explanation.target,
        "probability": explanation.probabilities.get(explanation.target),
        "probabilities": dict(explanation.probabilities),
        "score": about.question.score,
        "watch": about.question.watch,
        "method": {"name": method.name, "title": method.title, "paper": method.paper, "unit": method.unit},
        "parameters": dict(method.parameters),
        "removal": None if about.removal is None else about.removal.as_dict(),
        "peak": None if explanation.peak is None else list(explanation.peak),
        **about.cost.as_dict(),
        "complete": explanation.complete,
        "facts": dict(explanation.facts),
        "verdict": {} if explanation.verdict is None else explanation.verdict.as_dict(),
        "notices": list(explanation.notices),
        "seed": about.seed,
        "device": about.device,
        "made": about.made,
    }


def _versions() -> list[str]:
    return [version("lucency"), torch.__version__]


def _hash(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()


def place_on_film(explanation: Explanation) -> dict[str, float] | None:
    """Where the model's grid lies on the film, in pixels of the film; ``None`` for a volume."""
    model = explanation.provenance.model
    shape = explanation.heatmap.shape
    return None if len(shape) != 2 else place_of(model.margins, shape)


def place_of(margins: Sequence[Sequence[int]], shape: Sequence[int]) -> dict[str, float]:
    """The box that margins ``[(before, after), ...]`` around a scan of ``shape`` span, in its pixels."""
    (top, bottom), (left, right) = margins
    return {"row": -top, "column": -left, "height": shape[0] + top + bottom, "width": shape[1] + left + right}
