"""The recipe: a map with everything that a reader needs beside it. The one object behind every door.

An answer is a map, what stood where something was removed and why, a verdict in words, how sure it is, and what
speaks against it. :func:`explain` gives one answer; an :class:`Explainer` is built once and gives many.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from lucency.asking import undisturbed
from lucency.attribution import Attribution, cost_of
from lucency.checks.film import doubts
from lucency.checks.out_of_distribution import Doubter, OutOfDistribution
from lucency.checks.sanity import check, known_result, layers_of
from lucency.checks.verdict import judge
from lucency.classifier import Classifier, Question
from lucency.classifier.loading import Scores, load_classifier
from lucency.engine import Engine
from lucency.error_bars import with_error_bars
from lucency.errors import ModelError, ParameterError
from lucency.explanation import Explanation
from lucency.methods import Method, Step, method_named
from lucency.methods.occlusion import Occlusion
from lucency.parameters import pairs, replaced
from lucency.reading import as_scan
from lucency.records import Cost, RemovalRecord
from lucency.removal import Blur, Healthy, Removal, Surrogate
from lucency.scan import Scan
from lucency.work import Meter, Stage, drained, parse_budget

Model = Classifier | str | Path | nn.Module | Scores
"""A classifier, or whatever :func:`lucency.load_classifier` makes one from."""


@dataclass(frozen=True)
class Failure:
    """A scan that could not be explained, in place of its explanation.

    Attributes:
        number: which one of the scans it was, from 0.
        source: where it came from, as far as that is known.
        error: what was wrong; a :class:`LucencyError` says it in one sentence.
    """

    number: int
    source: str
    error: Exception

    def __str__(self) -> str:
        return f"{self.source}: {self.error}"


class Explainer:
    """Explains scan after scan with one classifier, one method and one meaning of "removed".

    It may be called from several threads; their scans wait for each other. Nothing of one scan reaches the next.

    Args:
        classifier: a :class:`Classifier`, or whatever :func:`lucency.load_classifier` takes.
        method: a name in any spelling, or a method with parameters of its own.
        removal: what stands where something is removed: a name, a display value, a picture or a
            :class:`~lucency.removal.Removal`. ``"auto"`` takes healthy tissue for occlusion of the shipped chest
            models, and for everything else what the method's paper takes; a method that is handed over as an object
            keeps its own. The result names it, and the reason.
        watch: what is watched, see :class:`~lucency.classifier.Question`.
        budget: seconds for the map, or a text such as ``"300ms"``; at least one step is made.
        error_bars: how many moved copies of each scan are explained to learn how far the map can be trusted, where the
            method has no standard error of its own; each costs as much as the map. 0 = none.
        sanity: check once whether the method's maps depend on what the model has learnt, at the cost of a few maps;
            the answer is remembered for this model, method and question.
        device, seed, batch_size, memory, tolerance: see :class:`~lucency.engine.Engine`.
        engine: an engine to use again, in place of these five.
        settings: parameters of the method as on the command line: ``["patch=24", "removal.sigma=20"]``.
        parameters: the same as keyword arguments: ``Explainer(classifier, method="occlusion", patch=24)``.

    Raises:
        LucencyError: one of the family, when classifier, method and parameters do not go together.

    Example:
        >>> import torch, lucency
        >>> explainer = lucency.Explainer(lambda x: x.mean((1, 2, 3))[:, None], method="occlusion", patch=8)
        ... # doctest: +SKIP
    """

    def __init__(
        self,
        classifier: Model,
        *,
        method: str | Method = "occlusion",
        removal: object = "auto",
        watch: str = "probability",
        budget: float | str | None = None,
        error_bars: int = 0,
        sanity: bool = False,
        device: str = "auto",
        seed: int = 0,
        batch_size: int | None = None,
        memory: float | None = None,
        tolerance: float | None = None,
        engine: Engine | None = None,
        settings: Sequence[str] = (),
        **parameters: Any,
    ) -> None:
        if not isinstance(classifier, Classifier):
            classifier = load_classifier(classifier)
        if error_bars < 0:
            raise ParameterError(f"Error bars need 0 or more copies of the scan, not {error_bars}.")
        if budget is not None:
            parse_budget(budget)
        self.engine = engine or Engine(
            classifier, device=device, seed=seed, batch_size=batch_size, memory=memory, tolerance=tolerance
        )
        self._open = removal is None or (isinstance(removal, str) and removal.strip().lower() == "auto")
        given = {**dict(pairs(settings)), **parameters}
        if not self._open:
            given["removal"] = Removal.of(removal)
        self.method, self._handed_over = _method(method, given)
        self._open = self._open and not any(name.split(".")[0] == "removal" for name in given)
        self.watching = watch
        self.budget = budget
        self.error_bars = error_bars
        self.sanity = sanity
        if sanity:
            # A black box is refused before the work rather than after it.
            layers_of(self.classifier)
        # A surrogate knows scans with holes, and the classifier never sees one.
        asks_another = isinstance(self.method.removal, Surrogate)
        known = None if asks_another else OutOfDistribution.of(self.classifier)
        self.known = None if known is None else replace(known, engine=self.engine)
        self._turn = _Turn()

    @property
    def classifier(self) -> Classifier:
        """The classifier that is explained."""
        return self.engine.classifier

    def __repr__(self) -> str:
        return f"Explainer({self.classifier!r}, method={self.method!r}, watch={self.watching!r})"

    def __call__(
        self,
        scan: object,
        target: str | int | None = None,
        *,
        on_step: Callable[[Step], None] | None = None,
        on_progress: Callable[[float, str], None] | None = None,
        cancel: threading.Event | None = None,
        record: bool = False,
    ) -> Explanation:
        """The whole answer.

        Args:
            scan: a path, array, tensor, PIL image, pydicom dataset or :class:`Scan`.
            target: the class, by name or index; the most probable one when ``None``.
            on_step: called with each step of the map: progress bars, animations and live pages hang here.
            on_progress: called with a share 0..1 and a few words during what follows the map (error bars, checks).
            cancel: set it from anywhere to stop after the current step; the answer so far is returned.
            record: keep the steps in :attr:`Explanation.steps`, for a replay.

        Raises:
            LucencyError: one of the family, when scan, classifier and question do not go together.
        """
        run = self.steps(scan, target, cancel=cancel, on_progress=on_progress, record=record)
        try:
            for step in run:
                if on_step is not None:
                    on_step(step)
        finally:
            run.close()
        return run.explanation

    def steps(
        self,
        scan: object,
        target: str | int | None = None,
        *,
        cancel: threading.Event | None = None,
        on_progress: Callable[[float, str], None] | None = None,
        record: bool = False,
    ) -> Run:
        """The stream of steps, for whoever watches live; arguments as in :meth:`__call__`.

        run = explainer.steps(scan, "effusion")
        for step in run:
            show(step.perturbed(), step.score, step.heatmap())
        answer = run.explanation
        """
        return Run(self, as_scan(scan), target, cancel, on_progress, record)

    def map(self, scans: Iterable[object], target: str | int | None = None) -> Iterator[Explanation | Failure]:
        """The answers of many scans, one at a time and in order; a scan that fails is a :class:`Failure`."""
        for number, scan in enumerate(scans):
            try:
                yield self(scan, target)
            except Exception as error:
                # One bad scan, whatever it does to the model, must not end an archive.
                yield Failure(number, _source(scan), error)

    def watch(self, scan: object, target: str | int | None = None) -> Explanation:
        """Shows the three panels live in a notebook cell while the method runs; gives the answer.

        Raises:
            MissingExtraError: outside a notebook, or without the ``notebook`` extra.
        """
        from lucency.viewer.widget import Live

        film = as_scan(scan)
        panels = Live(self.classifier.prepare(film), self.method)
        explanation = self(film, target, on_step=panels, on_progress=panels.progress)
        panels.finish(explanation)
        return explanation

    def using(self, method: str | Method, **parameters: Any) -> Explainer:
        """Another method on the same engine, with everything else as here: for comparisons."""
        return Explainer(
            self.classifier,
            method=method,
            watch=self.watching,
            budget=self.budget,
            error_bars=self.error_bars,
            sanity=self.sanity,
            engine=self.engine,
            **parameters,
        )

    def fitted(self, scan: Scan) -> tuple[Method, str]:
        """The method as it runs on this scan, and why its removal is the one it is; empty for one without a removal."""
        how = self.method
        if how.removal is None:
            return how, ""
        if self._handed_over:
            return how, "the method was handed over with it"
        if not self._open:
            return how, "asked for"
        # What the trust table recommends for the shipped models, which read chest films.
        shipped = self.known is not None and self.classifier.reference is None
        if isinstance(how, Occlusion) and shipped and len(scan.pixels) == 1 and len(scan.shape) == 2:
            return replace(how, removal=Healthy()), "the default for occlusion of the shipped chest models"
        return how, "the default of the method"


class Run:
    """An explanation under way: iterate for the steps of the map, then take :attr:`explanation`, also before the end.

    The explainer is busy from the first step until the stream ends or :meth:`close` is called.
    """

    def __init__(
        self,
        explainer: Explainer,
        scan: Scan,
        target: str | int | None,
        cancel: threading.Event | None,
        on_progress: Callable[[float, str], None] | None,
        record: bool,
    ) -> None:
        self.scan = scan
        self.method, self._reason = explainer.fitted(scan)
        self._explainer = explainer
        self._target = target
        self._cancel = cancel
        self._on_progress = on_progress or (lambda share, doing: None)
        self._recorded: list[Step] | None = [] if record else None
        # The clean scan goes through the classifier once, for the map and for the verdict.
        self._engine = explainer.engine.remembering()
        self._costs: dict[str, Cost] = {}
        self._doubter = None if explainer.known is None else Doubter(explainer.known)
        self.doubts: tuple[str, ...] = ()
        """Why the film cannot be what the model reads, one sentence each; known from the first step on."""
        self._attribution: Attribution | None = None
        self._explanation: Explanation | None = None
        self._steps = self._run()

    def __iter__(self) -> Iterator[Step]:
        return self._steps

    def close(self) -> None:
        """Ends the stream where it stands and lets others have their turn."""
        self._steps.close()

    def _run(self) -> Generator[Step]:
        explainer = self._explainer
        with explainer._turn():
            self.doubts = self._doubted()
            self._attribution = run = Attribution(
                self.scan,
                self._engine,
                self.method,
                target=self._target,
                watch=explainer.watching,
                budget=explainer.budget,
                cancel=self._cancel,
            )
            try:
                for step in run:
                    if self._doubter is not None:
                        self._doubter(step)
                    if self._recorded is not None:
                        self._recorded.append(step)
                    yield step
            finally:
                run.close()

    @undisturbed()
    def _doubted(self) -> tuple[str, ...]:
        with self._costing("film"):
            return doubts(self.scan, self._explainer.classifier, self._explainer.known)

    @contextmanager
    def _costing(self, part: str) -> Iterator[None]:
        """What is asked inside stands in the cost of the explanation, under this name."""
        began = time.perf_counter()
        with Meter() as meter:
            yield
        if meter.evaluations or meter.gradients or meter.overhead:
            self._costs[part] = cost_of(meter, time.perf_counter() - began)

    def _told(self, stage: Stage[Any]) -> None:
        self._on_progress(stage.done, stage.doing)

    @property
    def question(self) -> Question | None:
        """What is asked, from the first step on."""
        return None if self._attribution is None else self._attribution.question

    @property
    def explanation(self) -> Explanation:
        """The whole answer from the steps so far; ends the stream.

        Raises:
            LucencyError: one of the family, as :meth:`Explainer.__call__` does.
        """
        if self._explanation is None:
            if self._attribution is None:
                next(self._steps, None)
            self.close()
            with self._explainer._turn():
                self._explanation = self._finished()
        return self._explanation

    @undisturbed()
    def _finished(self) -> Explanation:
        explainer, attribution = self._explainer, self._attribution
        assert attribution is not None
        engine, scan, method = self._engine, self.scan, attribution.method
        found = attribution.explanation
        self._costs["map"] = found.provenance.cost
        if explainer.error_bars and not attribution.work.cancelled:
            bars = with_error_bars.steps(found, scan, engine, method=method, copies=explainer.error_bars)
            with self._costing("error bars"):
                found = drained(bars, on_step=self._told, cancel=self._cancel)
        if self._doubter is not None:
            with self._costing("out-of-distribution"):
                found = self._doubter.noted(found, scan)
        target, watch = attribution.question.target, attribution.question.watch
        sanity = known_result(engine.classifier, method, target=target, watch=watch)
        if explainer.sanity and sanity is None and not attribution.work.cancelled:
            with self._costing("sanity check"):
                checked = check.steps(method, [scan], engine, target=target, watch=watch)
                sanity = drained(checked, on_step=self._told, cancel=self._cancel)
        standing = None if method.removal is None else RemovalRecord(method.removal.name, self._reason)
        found = replace(
            found,
            provenance=replace(found.provenance, removal=standing),
            notices=(*self.doubts, *scan.notices, *engine.classifier.notices, *engine.notices),
            steps=tuple(self._recorded or ()),
        )
        passes = None if sanity is None else sanity.passes
        try:
            with self._costing("verdict"):
                verdict = judge(
                    found, scan=scan, engine=engine, removal=method.removal or Blur(), sanity=passes, doubts=self.doubts
                )
        except ModelError as error:
            # The map stands; only what hiding its strongest region does cannot be said.
            verdict = judge(found, sanity=passes, doubts=self.doubts)
            found = replace(found, notices=(*found.notices, f"The strongest region was not hidden: {error}"))
        provenance = replace(found.provenance, cost=sum(self._costs.values(), Cost()), costs=dict(self._costs))
        return replace(found, verdict=verdict, provenance=provenance)


class _Turn:
    """One scan at a time: other threads wait, and the same thread is told instead of waiting for itself for ever."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: int | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        if self._owner == threading.get_ident():
            raise ParameterError(
                "This explainer is in the middle of another scan; finish or close that run first, or build another one."
            )
        # Not a lock of a thread: a run that one thread began may be closed by another.
        with self._lock:
            self._owner = threading.get_ident()
            try:
                yield
            finally:
                self._owner = None


def explain(
    scan: object,
    classifier: Model,
    *,
    target: str | int | None = None,
    method: str | Method = "occlusion",
    removal: object = "auto",
    watch: str = "probability",
    budget: float | str | None = None,
    error_bars: int = 0,
    sanity: bool = False,
    device: str = "auto",
    seed: int = 0,
    batch_size: int | None = None,
    memory: float | None = None,
    tolerance: float | None = None,
    engine: Engine | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_progress: Callable[[float, str], None] | None = None,
    cancel: threading.Event | None = None,
    record: bool = False,
    settings: Sequence[str] = (),
    **parameters: Any,
) -> Explanation:
    """Why the classifier said so: the map, the verdict, and what speaks against them.

    The command ``lucency explain`` gives the same answer. Whoever asks often builds an :class:`Explainer`, which takes
    the same arguments and says what each means.

    Args:
        scan: a path, array, tensor, PIL image, pydicom dataset or :class:`Scan`.
        classifier: a :class:`Classifier`, or whatever :func:`lucency.load_classifier` takes.
        target: the class, by name or index; the most probable one when ``None``.
        method: a name in any spelling, or a method with parameters of its own.
        removal: what stands where something is removed; ``"auto"`` chooses, and the result says why.
        watch: what is watched, see :class:`~lucency.classifier.Question`.
        budget: seconds for the map, or a text such as ``"300ms"``.
        error_bars: moved copies of the scan that are explained too, 0 = none.
        sanity: check whether the map depends on what the model has learnt.
        device, seed, batch_size, memory, tolerance, engine: see :class:`~lucency.engine.Engine`.
        on_step: called with each step of the map.
        on_progress: called with a share 0..1 and a few words during what follows the map.
        cancel: set it from anywhere to stop after the current step; the answer so far is returned.
        record: keep the steps in the explanation, for a replay.
        settings: parameters of the method as on the command line: ``["patch=24", "removal.sigma=20"]``.
        parameters: the same as keyword arguments: ``explain(scan, classifier, method="occlusion", patch=24)``.

    Raises:
        LucencyError: one of the family, when scan, classifier, question and method do not go together.
    """
    explainer = Explainer(
        classifier,
        method=method,
        removal=removal,
        watch=watch,
        budget=budget,
        error_bars=error_bars,
        sanity=sanity,
        device=device,
        seed=seed,
        batch_size=batch_size,
        memory=memory,
        tolerance=tolerance,
        engine=engine,
        settings=settings,
        **parameters,
    )
    return explainer(scan, target, on_step=on_step, on_progress=on_progress, cancel=cancel, record=record)


def _method(method: str | Method, given: dict[str, Any]) -> tuple[Method, bool]:
    """The method with its parameters, and whether it was handed over as an object with a removal of its own."""
    if isinstance(method, str):
        return method_named(method, **given), False
    if not isinstance(method, Method):
        raise ParameterError(f"{method!r:.60} is no method; give a name of `lucency methods`, or an instance of one.")
    return replaced(method, given.items(), f"The method {method.name}"), "removal" not in given


def _source(scan: object) -> str:
    if isinstance(scan, str | Path):
        return Path(scan).name
    return scan.source if isinstance(scan, Scan) else type(scan).__name__
