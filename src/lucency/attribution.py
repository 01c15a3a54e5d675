"""One method on one scan: from its stream of steps to a bare map with its provenance, without verdict and notes."""

from __future__ import annotations

import dataclasses
import platform
import threading
import time
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
import torch

from lucency.asking import undisturbed
from lucency.classifier import Classifier, Question
from lucency.engine import Engine
from lucency.errors import ModelError, ParameterError, ScanError
from lucency.explanation import Explanation, Map, describe, parse_budget
from lucency.methods import Method, Step, method_named
from lucency.privacy import shown_source
from lucency.scan import Scan


class Attribution:
    """A method at work on a scan: iterate for the steps, then take :attr:`explanation`, also before the last step.

    Args:
        scan: what is explained.
        engine: runs the classifier; decides device and seed.
        method: a method with its parameters.
        target: the class, by name or index; the most probable one when ``None``.
        watch: what is watched, see :class:`~lucency.classifier.Question`.
        budget: seconds, or a text such as ``"300ms"``; at least one step is made.
        cancel: set it from anywhere to stop after the current step.

    Attributes:
        question: what is asked.

    Raises:
        LucencyError: one of the family, when scan, classifier, question and method do not go together.
    """

    @undisturbed()
    def __init__(
        self,
        scan: Scan,
        engine: Engine,
        method: Method,
        *,
        target: str | int | None = None,
        watch: str = "probability",
        budget: float | str | None = None,
        cancel: threading.Event | None = None,
    ) -> None:
        self._started = time.perf_counter()
        self._seconds = None if budget is None else parse_budget(budget)
        fitting(scan, engine.classifier)
        if not isinstance(method, Method):
            raise ParameterError(
                f"{method!r:.60} is no method; give a name of `lucency methods`, or an instance of one."
            )
        self.scan = scan
        self.engine = engine
        self.method = method if self._seconds is None else method.anytime()
        self.cancel = cancel
        classifier = engine.classifier
        self.question = Question.ask(classifier, scan, target, watch)
        with torch.inference_mode():
            layers = [] if self.question.layer is None else [self.question.layer]
            x = classifier.prepare(scan)[None].to(engine.device)
            outputs, features = classifier.outputs_and_features(x, layers) if layers else (classifier(x), {})
            self._score = float(self.question.read(classifier, outputs, features))
            # A softmax may add up to a rounding more than 1.
            found: list[float] = classifier.probabilities(outputs)[0].clamp(0, 1).tolist()
            self._probabilities = {} if classifier.measures else dict(zip(classifier.classes, found, strict=True))
        self._last: Step | None = None
        self._elapsed = 0.0
        self._steps = self._run()

    def __iter__(self) -> Iterator[Step]:
        return self._steps

    @property
    def cancelled(self) -> bool:
        """Whether somebody has asked it to stop."""
        return self.cancel is not None and self.cancel.is_set()

    def close(self) -> None:
        """Ends the run where it stands; nothing of it stays in the network."""
        self._steps.close()

    def _run(self) -> Generator[Step]:
        until = None if self._seconds is None else self._started + self._seconds
        steps = self.method.steps(self.scan, self.question, self.engine)
        try:
            for self._last in steps:
                self._elapsed = time.perf_counter() - self._started
                yield self._last
                if self.cancelled or (until is not None and time.perf_counter() >= until):
                    return
        finally:
            # A generator left alone would keep its hooks until it is collected.
            getattr(steps, "close", lambda: None)()

    def on_scan(self, heatmap: Callable[[], torch.Tensor]) -> Map:
        """A map ``[*grid]`` of a step on the scan's own grid, float32."""
        frame = self.engine.classifier.frame(self.scan)
        array: Map = frame.to_scan(heatmap().detach().float().cpu()).numpy()
        return array

    @property
    @undisturbed()
    def explanation(self) -> Explanation:
        """What the last step says; ends the run.

        Raises:
            ParameterError: when the method had nothing to do.
        """
        self.close()
        step, classifier, frame = self._last, self.engine.classifier, self.engine.classifier.frame(self.scan)
        if step is None:
            raise ParameterError(
                f"{self.method} had nothing to do on a scan of {self.scan.shape}; check its parameters."
            )
        heatmap = self.on_scan(step.heatmap)
        facts = dict(step.facts)
        if step.done < 1 and not heatmap.any():
            facts["warning"] = (
                "The method was stopped before it found anything, so the map is empty; give it more time."
            )
        error = step.standard_error
        return Explanation(
            heatmap=heatmap,
            pixels=self.scan.display.clamp(0, 1).numpy(),
            standard_error=None if error is None else self.on_scan(error),
            also={name: self.on_scan(m) for name, m in step.also.items()},
            probabilities=self._probabilities,
            facts=facts,
            provenance={
                "scan": {
                    "source": shown_source(self.scan.source),
                    "sha256": self.scan.sha256,
                    "shape": list(self.scan.shape),
                    "spacing": self.scan.spacing,
                },
                "model": {
                    "name": classifier.name,
                    "fingerprint": classifier.fingerprint,
                    "grid": list(frame.grid),
                    "margins": [list(pair) for pair in frame.margins],
                },
                "question": dataclasses.asdict(self.question) | {"label": self.question.label, "score": self._score},
                "method": {
                    "name": self.method.name,
                    "title": self.method.title,
                    "paper": self.method.paper,
                    "unit": self.method.unit,
                    **describe(self.method),
                },
                "seed": self.engine.seed,
                "device": str(self.engine.device),
                "budget": self._seconds,
                "complete": step.done >= 1,
                "evaluations": step.evaluations,
                "gradients": step.gradients,
                "seconds": self._elapsed,
                "error_bars": {"from": "none" if error is None else "method"},
                "made": datetime.now(UTC).isoformat(timespec="seconds"),
                "versions": {
                    "lucency": version("lucency"),
                    "torch": torch.__version__,
                    "numpy": np.__version__,
                    "python": platform.python_version(),
                },
            },
        )


def attribute(
    scan: Scan,
    engine: Engine,
    method: str | Method,
    *,
    target: str | int | None = None,
    watch: str = "probability",
    budget: float | str | None = None,
    on_step: Callable[[Step], None] | None = None,
    cancel: threading.Event | None = None,
) -> Explanation:
    """The bare map of a method, for whoever needs no verdict: metrics and checks. Arguments as :class:`Attribution`.

    Args:
        on_step: called with each step.

    Raises:
        LucencyError: one of the family, when scan, classifier, question and method do not go together.
    """
    how = method_named(method) if isinstance(method, str) else method
    run = Attribution(scan, engine, how, target=target, watch=watch, budget=budget, cancel=cancel)
    try:
        for step in run:
            if on_step is not None:
                on_step(step)
    finally:
        run.close()
    return run.explanation


def fitting(scan: object, classifier: object) -> None:
    """Refuses what people hand over in place of a scan and of a classifier, before it fails in some deeper place.

    Raises:
        ScanError: for anything but a :class:`Scan`.
        ModelError: for anything but a :class:`~lucency.classifier.Classifier`.
    """
    if not isinstance(scan, Scan):
        raise ScanError(
            f"The scan is a {type(scan).__name__}; make it a Scan with lucency.read_scan(path) or "
            "lucency.Scan.from_array(array)."
        )
    if not isinstance(classifier, Classifier):
        raise ModelError(
            f"The classifier is a {type(classifier).__name__}; make it a Classifier with lucency.load_classifier(...)."
        )
