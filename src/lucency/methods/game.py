"""The game that LIME and Kernel SHAP play: superpixels are on or off, and the model says what a coalition is worth.

What differs is which coalitions are evaluated, and how a number for each superpixel is fitted to the answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import ClassVar

import torch
from torch import Tensor

from lucency.classifier import Question
from lucency.engine import Engine, Probe
from lucency.masks.superpixels import Slic, Superpixels, painted, switched
from lucency.methods.base import Fact, Facts, Method, Step, Takes, other_classes
from lucency.methods.repeatable import check_rule, expected_agreement
from lucency.methods.sampling import growing
from lucency.removal import Removal, SegmentMean, of_pieces
from lucency.scan import Scan


@dataclass(frozen=True)
class Fit:
    """A number for each superpixel and its standard error, float64 ``[S]`` each, and what is said of the fit."""

    values: Tensor
    standard_error: Tensor
    facts: Mapping[str, Fact]


@dataclass(frozen=True)
class Plan:
    """Which coalitions are evaluated, and what is made of the answers.

    Attributes:
        on: int64 ``[N, S]``, 1 = on, in the order in which they are evaluated.
        fit: from the scores ``[n]`` of the first n coalitions under the question of that number.
        known: whether so many answers tell how far they may be off.
        together: coalitions that belong together, so that batches hold whole groups of them.
    """

    on: Tensor
    fit: Callable[[int, Tensor], Fit]
    known: Callable[[int], bool]
    together: int = 1


@dataclass(frozen=True)
class Coalitions:
    """Coalitions of the superpixels ``labels`` ``[*grid]`` on one probe."""

    probe: Probe
    labels: Tensor

    @property
    def pieces(self) -> int:
        """S, how many superpixels there are."""
        return int(self.labels.max()) + 1

    def scores(self, on: Tensor) -> Tensor:
        """What the Q questions read, ``[B, Q]``, where only the superpixels ``on`` ``[B, S]`` are on."""
        return self.probe.scores(switched(self.labels, on))

    def shown(self, on: Tensor) -> Tensor:
        """The scan ``[C, *grid]`` of the first of these coalitions."""
        return self.probe.removed(switched(self.labels, on))[0]

    def painted(self, fit: Callable[[], Fit], what: str) -> Tensor:
        """A number of the fit on each pixel, ``[*grid]``."""
        values: Tensor = getattr(fit(), what)
        return painted(self.labels, values)


@dataclass(frozen=True)
class SuperpixelGame(Method, ABC):
    """A method that switches superpixels on and off.

    Attributes:
        superpixels: how the scan is cut.
        samples: how many random scans are evaluated at most.
        removal: what stands in a superpixel that is off.
        repeatability: stop as soon as the superpixels on top are expected to agree with those of another run to this
            degree (Jaccard index, 0..1); ``None`` makes all samples.
        top: how many superpixels have to agree.
        all_classes: the same forward passes give a map of each other class too, by name beside the answer's.
    """

    takes: ClassVar[Takes] = "superpixels"
    panel: ClassVar = "scatter"
    axes: ClassVar[tuple[str, str]] = ("superpixels on", "score")

    superpixels: Superpixels = field(default_factory=Slic)
    samples: int = 1000
    removal: Removal = field(default_factory=SegmentMean)
    repeatability: float | None = None
    top: int = 5
    all_classes: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rule(self.repeatability, self.top)

    @abstractmethod
    def plan(self, game: Coalitions, generator: torch.Generator) -> Plan:
        """Which coalitions are evaluated, and what is made of the answers."""

    def steps(self, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        labels = self.superpixels.labels(engine.classifier.prepare(scan)).to(engine.device)
        others = other_classes(question, engine.classifier) if self.all_classes else []
        game = Coalitions(probe := engine.open(scan, question, of_pieces(self.removal, labels), others), labels)
        plan = self.plan(game, engine.generator())
        every = probe.clean.new_empty((0, len(probe.questions)))
        most = max(plan.together, probe.batch_size // plan.together * plan.together)
        for which in growing(len(plan.on), 2, most):
            batch = plan.on[which]
            every = torch.cat([every, game.scores(batch)])
            n, last = len(every), batch[-1:]
            fits = [cache(partial(plan.fit, i, every[:, i].cpu())) for i in range(len(probe.questions))]
            fit, known = fits[0], plan.known(n)
            stable = known and self._agrees(fit)
            yield Step(
                done=1.0 if stable else n / len(plan.on),
                score=float(every[-1, 0]),
                heatmap=partial(game.painted, fit, "values"),
                perturbed=partial(game.shown, last),
                standard_error=partial(game.painted, fit, "standard_error") if known else None,
                point=(float(last.sum()), float(every[-1, 0])),
                also={q.label: partial(game.painted, one, "values") for q, one in zip(others, fits[1:], strict=True)},
                facts=Facts(partial(_facts, fit, probe.facts)),
            )
            if stable:
                return

    def _agrees(self, fit: Callable[[], Fit]) -> bool:
        if self.repeatability is None:
            return False
        return self.repeatability <= expected_agreement(fit().values, fit().standard_error, self.top)


def _facts(fit: Callable[[], Fit], computed: Mapping[str, Fact]) -> Mapping[str, Fact]:
    return {**fit().facts, **computed}
