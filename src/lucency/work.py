"""One stream for all long work: steps that say how far it is, what it has cost and what is known so far.

Methods, error bars, evaluations, checks and benchmarks are generators of steps, :class:`Stage` or
:class:`lucency.methods.Step`. :class:`Work` drains them all: whoever watches, a budget, a cancellation and the count of
what the model was asked hang there, and no generator knows of them.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import update_wrapper
from typing import Generic, ParamSpec, Protocol, Self, TypeVar

from lucency.errors import ParameterError


@dataclass(eq=False)
class Meter:
    """Counts what a model is asked while it is entered, in the thread that enters it; may be entered again.

    Attributes:
        evaluations: scans that went forward.
        gradients: scans that went backward.
        overhead: scans by which the engine got to know the classifier and tried its own short cuts; not among the
            evaluations, since a second run on the same engine needs fewer of them.
    """

    evaluations: int = 0
    gradients: int = 0
    overhead: int = 0

    def __enter__(self) -> Self:
        _here.entered.append(self)
        return self

    def __exit__(self, *failure: object) -> None:
        _here.entered.remove(self)


class _Here(threading.local):
    def __init__(self) -> None:
        self.entered: list[Meter] = []
        self.introducing = 0


_here = _Here()


def count(evaluations: int = 0, gradients: int = 0) -> None:
    """A model was asked: told by the one place where a classifier runs, and by the engine's own ways to run it."""
    for meter in set(_here.entered):
        if _here.introducing:
            meter.overhead += evaluations
        else:
            meter.evaluations += evaluations
        meter.gradients += gradients


@contextmanager
def introducing() -> Iterator[None]:
    """Inside, what goes forward counts as :attr:`Meter.overhead`."""
    _here.introducing += 1
    try:
        yield
    finally:
        _here.introducing -= 1


@contextmanager
def trying() -> Iterator[None]:
    """Inside, what goes forward counts as :attr:`Meter.overhead` where it ends in an exception: it is made again."""
    with Meter() as meter:
        try:
            yield
        except BaseException:
            lost = meter.evaluations
            count(-lost)
            with introducing():
                count(lost)
            raise


Known = TypeVar("Known", covariant=True)


@dataclass(frozen=True)
class Stage(Generic[Known]):
    """What long work says at one moment.

    Attributes:
        done: share of the work done, 0..1.
        doing: what is being done, in a few words.
        known: the result as far as it is known; built when it is looked at.
        evaluations, gradients: scans that went forward and backward so far; :class:`Work` fills them in.
    """

    done: float
    doing: str
    known: Callable[[], Known]
    evaluations: int = 0
    gradients: int = 0

    def costing(self, evaluations: int, gradients: int) -> Self:
        """The same with what it has cost so far."""
        return replace(self, evaluations=evaluations, gradients=gradients)


class Moment(Protocol):
    """What the steps of all long work have in common."""

    @property
    def done(self) -> float:
        """Share of the work done, 0..1."""

    @property
    def evaluations(self) -> int:
        """Scans that went forward so far."""

    @property
    def gradients(self) -> int:
        """Scans that went backward so far."""

    def costing(self, evaluations: int, gradients: int) -> Self:
        """The same with what it has cost so far."""


Step = TypeVar("Step", bound=Moment)


class Work(Generic[Step]):
    """A stream of steps on its way: iterate, or :meth:`run` it; what it leaves behind is :attr:`last`.

    Args:
        steps: a generator of steps; it is closed at the end, whatever happens.
        budget: seconds from ``started`` on, or a text such as ``"300ms"``; at least one step is made.
        cancel: set it from anywhere to stop after the current step.
        started: when the work began, by ``time.perf_counter``; now when ``None``.
        meter: goes on counting there.

    Attributes:
        last: the step that was made last; ``None`` before the first, and of work that has nothing to do.
        seconds: how long it took to get there.
        meter: what the model was asked in the meantime.

    Raises:
        ParameterError: for a budget that is no time.
    """

    def __init__(
        self,
        steps: Iterator[Step],
        *,
        budget: float | str | None = None,
        cancel: threading.Event | None = None,
        started: float | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.cancel = cancel
        self.meter = meter or Meter()
        self.last: Step | None = None
        self._started = time.perf_counter() if started is None else started
        self._until = None if budget is None else self._started + parse_budget(budget)
        self.seconds = 0.0
        self._inner = steps
        self._steps = self._run()

    def __iter__(self) -> Iterator[Step]:
        return self._steps

    @property
    def cancelled(self) -> bool:
        """Whether somebody has asked it to stop."""
        return self.cancel is not None and self.cancel.is_set()

    @property
    def over(self) -> bool:
        """Whether it is cancelled or its time is up."""
        return self.cancelled or (self._until is not None and time.perf_counter() >= self._until)

    def close(self) -> None:
        """Ends the work where it stands; nothing of it stays in the network."""
        self._steps.close()

    def run(self, on_step: Callable[[Step], None] | None = None) -> Step | None:
        """Makes the steps, shows each to ``on_step``, and gives the last."""
        try:
            for step in self:
                if on_step is not None:
                    on_step(step)
        finally:
            self.close()
        return self.last

    def _run(self) -> Generator[Step]:
        try:
            while True:
                with self.meter:
                    step = next(self._inner, None)
                if step is None:
                    return
                self.last = step.costing(self.meter.evaluations, self.meter.gradients)
                self.seconds = time.perf_counter() - self._started
                yield self.last
                if self.over:
                    return
        finally:
            # A generator left alone would keep its hooks until it is collected.
            with self.meter:
                getattr(self._inner, "close", lambda: None)()


Result = TypeVar("Result")
Given = ParamSpec("Given")


def drained(
    steps: Iterator[Stage[Result]],
    *,
    on_step: Callable[[Stage[Result]], None] | None = None,
    budget: float | str | None = None,
    cancel: threading.Event | None = None,
) -> Result:
    """What is known at the end of the work, or where budget or cancellation ended it; arguments as :class:`Work`.

    Raises:
        ParameterError: when there was nothing to do.
    """
    last = Work(steps, budget=budget, cancel=cancel).run(on_step)
    if last is None:
        raise ParameterError("There was nothing to do.")
    return last.known()


class Streamed(Generic[Given, Result]):
    """A function that is written as the stream of its steps (a decorator).

    Called, it makes all the steps and gives what is known at the end; its :attr:`steps` are for whoever watches, has
    little time, or may want to stop::

        evaluate(explanation, scan, engine)
        drained(evaluate.steps(explanation, scan, engine), on_step=print, budget="10s", cancel=event)
    """

    def __init__(self, steps: Callable[Given, Iterator[Stage[Result]]]) -> None:
        self.steps = steps
        update_wrapper(self, steps)

    def __call__(self, *given: Given.args, **named: Given.kwargs) -> Result:
        return drained(self.steps(*given, **named))


def parse_budget(budget: float | str) -> float:
    """Seconds from ``2``, ``"2s"``, ``"300ms"`` or ``"1min"``.

    Raises:
        ParameterError: when it is none of these, or not above zero.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(ms|s|min)?\s*", str(budget))
    seconds = float(match[1]) * {"ms": 1e-3, "s": 1.0, "min": 60.0, None: 1.0}[match[2]] if match else 0.0
    if seconds <= 0:
        raise ParameterError(f"A budget is a time such as 300ms, 2s or 1min, not {budget!r}.")
    return seconds
