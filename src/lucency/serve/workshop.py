"""Every question that the service is asked, whichever way it comes in: one that waits, a job, a live map.

It is the same question with the same answer, kept under a hash of everything that decides it: the pixels, the weights,
the class, what is watched, the method with every parameter, the removal, the budget, the seed and the versions. What
computes the answer is :mod:`lucency.serve.benches`, on this machine's device or on a Ray cluster.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol

import torch

from lucency import Explainer
from lucency.errors import LucencyError, ParameterError
from lucency.explanation import Explanation, describe
from lucency.render.recording import Recording
from lucency.scan import Scan
from lucency.serve.benches import Asked, Benches, Computing, Made, Watching
from lucency.serve.errors import BusyError, NotThereError, StoppedError
from lucency.serve.metrics import Metrics
from lucency.serve.schemas import Answer, Ask, EvaluateWanted
from lucency.serve.settings import Settings
from lucency.serve.store import Store
from lucency.serve.turns import Queue, Task
from lucency.serve.uploads import Reader
from lucency.work import parse_budget
from lucency.writing import whole

if TYPE_CHECKING:
    from lucency.serve.backlog import Backlog

SCANS_AT_HAND = 8
GRACE = 5.0
"""Seconds that the step under way gets when the server stops."""


class Asking(Protocol):
    """Whoever answers questions by hand."""

    def ask(self, ask: Ask, scan: Scan) -> Future[Answer]:
        """The answer, soon.

        Raises:
            LucencyError: one of the family, when the question does not fit.
            BusyError: when too many wait.
        """

    def warm(self, model: str, scan: Scan, user: str) -> None:
        """Makes a scan ready to be asked about with the usual removal; on the thread of a task."""

    def forget(self, scan: str) -> None:
        """Lets go of a scan that was deleted."""


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

    Args:
        benches: the classifiers, for what is known of them; they compute unless ``computing`` does.
        turns: the queue of the device.
    """

    def __init__(
        self,
        settings: Settings,
        benches: Benches,
        computing: Computing,
        turns: Queue,
        asking: Asking,
        store: Store,
        metrics: Metrics,
    ) -> None:
        self.settings, self.store, self.metrics = settings, store, metrics
        self.benches, self.turns, self.asking = benches, turns, asking
        self._computing = computing
        self._scans: OrderedDict[str, Scan] = OrderedDict()
        self._lock = threading.Lock()
        self._under_way: dict[str, Future[str]] = {}
        self.reader = Reader(settings)
        self.backlog: Backlog

    def close(self) -> None:
        """Ends the work after the step that it is at."""
        self.turns.close(GRACE)
        self.reader.close()

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
        self.asking.forget(name)
        self.store.forget_scan(name)

    # Small answers ---------------------------------------------------------------------------------------------------

    def scores(self, scan: str, model: str, user: str) -> Future[dict[str, Any]]:
        """What a classifier says of the clean scan: probabilities by class, how usual the scan is, and doubts."""
        name = _hash({"scores": scan, "model": self.benches[model].classifier.fingerprint, "versions": _versions()})
        found = self._found("scores", name)
        if found is not None:
            return found
        pixels = self.scan(scan)

        def work() -> Task[dict[str, Any]]:
            record = yield from self._computing.scored(model, pixels, user)
            self.store.add_answer(name, scan, record)
            return record

        future = self.turns.submit(user, work)

        def answered(done: Future[dict[str, Any]]) -> None:
            if not done.cancelled() and done.exception() is None:
                self._warm(pixels, model, user)

        future.add_done_callback(answered)
        return future

    def _found(self, what: str, name: str) -> Future[dict[str, Any]] | None:
        """An answer that was computed before."""
        found = self.store.answer(name)
        self.metrics.cache(what, found is not None)
        if found is None:
            return None
        done: Future[dict[str, Any]] = Future()
        done.set_result(found)
        return done

    def _warm(self, scan: Scan, model: str, user: str) -> None:
        """Who has seen the probabilities asks next; what that needs is made ready in the meantime."""

        def work() -> Task[None]:
            yield
            # What speaks against it is said when it is asked for.
            with suppress(LucencyError):
                self.asking.warm(model, scan, user)

        with suppress(BusyError, StoppedError):
            self.turns.submit(user, work)

    def ask(self, ask: Ask) -> Future[Answer]:
        """The answer to a question by hand.

        Raises:
            LucencyError: one of the family, when the question does not fit.
            BusyError: when too many wait.
        """
        self.benches[ask.model]
        return self.asking.ask(ask, self.scan(ask.scan))

    def evaluate(self, wanted: EvaluateWanted, user: str) -> Future[dict[str, Any]]:
        """Curves with their areas, of an explanation."""
        record = self.store.record(wanted.explanation)
        name = self.name_of({"evaluate": wanted.model_dump()})
        found = self._found("evaluations", name)
        if found is not None:
            return found
        scan, model = self.scan(record["scan"]), str(record["model"])
        self.benches[model]
        explanation = self.store.explanation(wanted.explanation)

        def work() -> Task[dict[str, Any]]:
            about = yield from self._computing.evaluated(wanted, explanation, model, scan, user)
            self.store.add_answer(name, record["scan"], about)
            return about

        return self.turns.submit(user, work)

    # Explanations ----------------------------------------------------------------------------------------------------

    def prepare(self, asked: Asked, probabilities: Mapping[str, float]) -> Prepared:
        """Checks everything about a question that can be checked before work is done.

        Args:
            probabilities: what :meth:`scores` says, for a question that names no class.

        Raises:
            LucencyError: one of the family, when scan, classifier, method and parameters do not go together.
        """
        bench, scan = self.benches[asked.model], self.scan(asked.scan)
        classifier = bench.classifier
        if not 0 <= asked.error_bars <= 64:
            raise ParameterError(f"Error bars need 0 to 64 copies of the scan, not {asked.error_bars}.")
        if asked.budget is not None and parse_budget(asked.budget) > self.settings.longest:
            raise ParameterError(f"A budget may be {self.settings.longest:g} s here at most; give less, or none.")
        explainer = bench.explainer(asked)
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
                "device": self._computing.device,
                "versions": _versions(),
            }
        )
        return Prepared(asked, name, target, scan, explainer)

    def explain(
        self, prepared: Prepared, user: str, watching: Watching | None = None, *, extra: int = 0
    ) -> Future[str]:
        """The name of the answer, once it is there.

        An answer that is there already costs nothing, and one that somebody waits for already is made once.

        Args:
            watching: who looks on and may stop it; a map so far is kept under a name of its own where that is wanted,
                and the name is empty otherwise.
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
            if name in self._under_way and watching is None:
                return self._under_way[name]
            future = self.turns.submit(user, lambda: self._run(prepared, user, watching or Watching()), extra=extra)
            if watching is None:
                self._under_way[name] = future
                future.add_done_callback(lambda _: self._under_way.pop(name, None))
        return future

    def _run(self, prepared: Prepared, user: str, watching: Watching) -> Task[str]:
        name = prepared.name
        if self.store.find_explanation(name) is not None:
            return name
        made = yield from self._computing.explained(prepared.asked, prepared.target, prepared.scan, user, watching)
        if made is None:
            return ""
        if made.stopped:
            # The same question asked again must not get half an answer.
            name = _hash({"stopped": name, "nonce": secrets.token_hex(16)})
        self._keep(name, prepared, made)
        self.metrics.explained(prepared.asked.method, made.seconds)
        return name

    def _keep(self, name: str, prepared: Prepared, made: Made) -> None:
        explanation = made.explanation.anonymous() if self.settings.anonymous else made.explanation
        place = self.store.place(name)
        place.mkdir(exist_ok=True, mode=0o700)
        with whole(place / "recording.npz") as part:
            part.write_bytes(made.recording)
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


@cache
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
