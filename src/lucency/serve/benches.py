"""Classifiers kept warm, and all that is computed with them.

This is the half of the service that may stand elsewhere: it knows no database, no folder and no user. The other half,
:mod:`lucency.serve.workshop`, sees it as :class:`Computing`, here or on a Ray cluster (:mod:`lucency.serve.on_ray`).
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from lucency import Explainer
from lucency.asking import asking
from lucency.checks.film import doubts
from lucency.checks.out_of_distribution import OutOfDistribution
from lucency.classifier import Classifier
from lucency.engine import Engine
from lucency.errors import ModelError
from lucency.explanation import Explanation
from lucency.masks import Slic
from lucency.methods import Method, Step
from lucency.metrics import evaluate
from lucency.render import Recorder
from lucency.render.recording import Recording
from lucency.scan import Scan
from lucency.serve.catalogue import settings_of, without_files
from lucency.serve.errors import NotThereError
from lucency.serve.schemas import EvaluateWanted
from lucency.serve.settings import Settings
from lucency.serve.turns import Task
from lucency.work import Work

CUT = 12
"""Scans whose superpixels are kept."""


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
class Watching:
    """Whoever looks on while a map is made.

    Attributes:
        on_step: called with each step and the seconds that the run took so far, on the thread that works.
        every: seconds between two steps that are wanted at most; steps that would have to travel come no oftener.
        stop: ends the run with the map so far, or with nothing unless ``keep_stopped``.
    """

    on_step: Callable[[Step, float], None] | None = None
    every: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)
    keep_stopped: bool = True


@dataclass(frozen=True, eq=False)
class Made:
    """An explanation that was made.

    Attributes:
        recording: the file of a :class:`Recording`.
        stopped: whether it was ended before its own end and its budget.
        seconds: of work, without what others were given in between.
    """

    explanation: Explanation
    recording: bytes
    stopped: bool
    seconds: float


class Computing(Protocol):
    """Whoever runs the classifiers. Each method is a task: where it yields, others may have a turn."""

    @property
    def device(self) -> str:
        """The kind of device, which decides the last digits of an answer."""

    def scored(self, model: str, scan: Scan, user: str) -> Task[dict[str, Any]]:
        """What a classifier says of the clean scan: probabilities by class, how usual the scan is, and doubts.

        Args:
            user: whose turn it is, where the device is shared elsewhere.
        """

    def explained(self, asked: Asked, target: int, scan: Scan, user: str, watching: Watching) -> Task[Made | None]:
        """A map; nothing where it was stopped and is not to be kept."""

    def evaluated(
        self, wanted: EvaluateWanted, explanation: Explanation, model: str, scan: Scan, user: str
    ) -> Task[dict[str, Any]]:
        """Curves with their areas."""


@dataclass(frozen=True, eq=False)
class Bench:
    """One classifier, warm.

    Attributes:
        known: what clean scans look like to it, where that is known.
    """

    classifier: Classifier
    engine: Engine
    known: OutOfDistribution | None

    def explainer(self, asked: Asked) -> Explainer:
        """What answers a question.

        Raises:
            LucencyError: one of the family, when classifier, method and parameters do not go together.
        """
        parameters = settings_of(asked.parameters)
        without_files(type(Method.from_word(asked.method)), parameters)
        explainer = Explainer(
            self.classifier,
            method=asked.method,
            settings=parameters,
            removal=asked.removal or "auto",
            watch=asked.watch,
            budget=asked.budget,
            error_bars=asked.error_bars,
            engine=self.engine,
        )
        explainer.known = self.known
        return explainer


class Benches:
    """The classifiers of one process; :class:`Computing` on its own device.

    Raises:
        ModelError: for two classifiers of one name.
    """

    def __init__(self, settings: Settings, classifiers: Sequence[Classifier]) -> None:
        self.settings = settings
        self.all: dict[str, Bench] = {}
        for classifier in classifiers:
            if classifier.name in self.all:
                raise ModelError(f"Two models are called {classifier.name}; rename the file of one of them.")
            engine = Engine(classifier, device=settings.device, seed=settings.seed)
            self.all[classifier.name] = Bench(classifier, engine, OutOfDistribution.of(classifier))
        self._lock = threading.Lock()
        self._labels: OrderedDict[tuple[str, str], Tensor] = OrderedDict()

    def __getitem__(self, model: str) -> Bench:
        """A classifier that may be asked.

        Raises:
            NotThereError: naming those that may.
        """
        if model not in self.all:
            raise NotThereError(f"There is no model {model!r:.60} here; use one of {', '.join(self.all)}.")
        return self.all[model]

    @property
    def device(self) -> str:
        return next(iter(self.all.values())).engine.device.type if self.all else "cpu"

    def labels(self, model: str, scan: Scan) -> Tensor:
        """Superpixels of a scan: int64 ``[*grid]``."""
        key = (scan.sha256, model)
        with self._lock:
            if key in self._labels:
                return self._labels[key]
        found = Slic().labels(self[model].classifier.prepare(scan))
        with self._lock:
            self._labels[key] = found
            while len(self._labels) > CUT:
                self._labels.popitem(last=False)
        return found

    def scored(self, model: str, scan: Scan, user: str) -> Task[dict[str, Any]]:
        yield
        bench = self[model]
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

    def explained(self, asked: Asked, target: int, scan: Scan, user: str, watching: Watching) -> Task[Made | None]:
        began, resting = time.perf_counter(), 0.0
        explainer = self[asked.model].explainer(asked)
        recorder = Recorder(known=explainer.known)
        stop = watching.stop
        run = explainer.steps(scan, target, cancel=stop)
        late = False
        try:
            for step in run:
                recorder(step)
                busy = time.perf_counter() - began - resting
                if watching.on_step is not None:
                    watching.on_step(step, busy)
                late = busy > self.settings.longest
                if late or (stop.is_set() and not watching.keep_stopped):
                    break
                rests = time.perf_counter()
                yield
                resting += time.perf_counter() - rests
            if stop.is_set() and not watching.keep_stopped:
                return None
            explanation = run.explanation
            yield
            recording = Recording.of(recorder).packed()
            yield
        finally:
            run.close()
        stopped = (stop.is_set() or late) and not explanation.complete
        return Made(explanation, recording, stopped, time.perf_counter() - began - resting)

    def evaluated(
        self, wanted: EvaluateWanted, explanation: Explanation, model: str, scan: Scan, user: str
    ) -> Task[dict[str, Any]]:
        yield
        engine = self[model].engine
        run = Work(
            evaluate.steps(
                explanation, scan, engine, curves=wanted.curves, regions=wanted.regions, repeats=wanted.repeats
            )
        )
        with closing(run):
            for _ in run:
                yield
        assert run.last is not None
        found: dict[str, Any] = run.last.known().as_dict()
        return found
