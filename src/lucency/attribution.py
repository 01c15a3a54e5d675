"""One method on one scan: from its stream of steps to a bare map with its provenance, without verdict and notes."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
import torch

from lucency.asking import undisturbed
from lucency.classifier import Classifier, Placement
from lucency.engine import Engine
from lucency.errors import ModelError, ParameterError, ScanError
from lucency.explanation import Explanation, Map, describe, method_record
from lucency.methods import Method, Step, method_named
from lucency.privacy import shown_source
from lucency.records import Cost, ErrorBars, ModelRecord, Provenance, QuestionRecord, ScanRecord
from lucency.scan import Scan
from lucency.work import Meter, Work, parse_budget


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
        engine: the one given, for the length of this run.
        work: the stream on its way.

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
        started = time.perf_counter()
        self._seconds = None if budget is None else parse_budget(budget)
        meter = Meter()
        fitting(scan, engine.classifier)
        if not isinstance(method, Method):
            raise ParameterError(
                f"{method!r:.60} is no method; give a name of `lucency methods`, or an instance of one."
            )
        self.scan = scan
        self.engine = engine.remembering(hurried=self._seconds is not None)
        self.method = method if self._seconds is None else method.anytime()
        classifier = engine.classifier
        with torch.inference_mode(), meter:
            # One pass of the clean scan for all that is ever asked about it.
            self.engine.clean(scan, self.method.reads(classifier))
            self.question = self.engine.question(scan, target, watch)
            layers = [] if self.question.layer is None else [self.question.layer]
            outputs, features = self.engine.clean(scan, layers)[1]
            self._score = float(self.question.read(classifier, outputs, features))
            # A softmax may add up to a rounding more than 1.
            found: list[float] = classifier.probabilities(outputs)[0].clamp(0, 1).tolist()
            self._probabilities = {} if classifier.measures else dict(zip(classifier.classes, found, strict=True))
        self.work = Work(
            self.method.steps(scan, self.question, self.engine),
            budget=self._seconds,
            cancel=cancel,
            started=started,
            meter=meter,
        )

    def __iter__(self) -> Iterator[Step]:
        return iter(self.work)

    def close(self) -> None:
        """Ends the run where it stands; nothing of it stays in the network."""
        self.work.close()

    def on_scan(self, heatmap: Callable[[], torch.Tensor]) -> Map:
        """A map ``[*grid]`` of a step on the scan's own grid, float32."""
        placement = self.engine.classifier.placement(self.scan)
        array: Map = placement.to_scan(heatmap().detach().float().cpu()).numpy()
        return array

    @property
    @undisturbed()
    def explanation(self) -> Explanation:
        """What the last step says; ends the run.

        Raises:
            ParameterError: when the method had nothing to do.
        """
        self.close()
        step, classifier, placement = (
            self.work.last,
            self.engine.classifier,
            self.engine.classifier.placement(self.scan),
        )
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
            provenance=Provenance(
                scan=scan_record(self.scan),
                model=model_record(classifier, placement),
                question=QuestionRecord(
                    self.question.target, self.question.name, self.question.watch, self.question.label, self._score
                ),
                method=method_record(self.method, describe(self.method).get("parameters", {})),
                seed=self.engine.seed,
                device=str(self.engine.device),
                budget=self._seconds,
                complete=step.done >= 1,
                cost=cost_of(self.work.meter, self.work.seconds),
                error_bars=ErrorBars("none" if error is None else "method"),
                made=datetime.now(UTC).isoformat(timespec="seconds"),
                versions={
                    "lucency": version("lucency"),
                    "torch": torch.__version__,
                    "numpy": np.__version__,
                    "python": platform.python_version(),
                },
            ),
        )


def cost_of(meter: Meter, seconds: float) -> Cost:
    """What was counted, as an explanation remembers it."""
    return Cost(meter.evaluations, meter.gradients, seconds, meter.overhead)


def scan_record(scan: Scan) -> ScanRecord:
    """What is remembered of a scan."""
    return ScanRecord(shown_source(scan.source), scan.sha256, scan.shape, scan.spacing, scan.value_range)


def model_record(classifier: Classifier, placement: Placement) -> ModelRecord:
    """What is remembered of a classifier that reads a scan which lies in ``placement``."""
    margins = tuple((before, after) for before, after in placement.margins)
    return ModelRecord(classifier.name, classifier.fingerprint, tuple(placement.grid), margins)


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
    run.work.run(on_step)
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
