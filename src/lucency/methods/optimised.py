"""What the methods share that optimise a mask by gradients: the loop, its curve, and a look at what removal removes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lucency.classifier import Question
from lucency.engine import Engine, Probe
from lucency.errors import ParameterError
from lucency.methods.base import Fact, Method, Step, Takes
from lucency.scan import Scan

Game = Literal["deletion", "preservation"]
LEAST = 0.1
"""Share of the score that must be gone when everything is removed."""


@dataclass(frozen=True)
class Iteration:
    """The mask after one iteration.

    Attributes:
        score: what was read on the scan under the mask ``shown`` ``[*grid]``, 1 = kept.
        heatmap: builds the map.
        facts: about the mask.
    """

    score: float
    shown: Tensor
    heatmap: Callable[[], Tensor]
    facts: Mapping[str, Fact] = field(default_factory=dict)


class MaskOptimiser(Method, ABC):
    """A method that optimises a mask; of its ``iterations`` each is a step."""

    panel: ClassVar = "curve"
    axes: ClassVar[tuple[str, str]] = ("iteration", "score")
    needs_gradients: ClassVar[bool] = True
    takes: ClassVar[Takes] = "masks"

    iterations: int

    @abstractmethod
    def optimised(self, probe: Probe, start: Tensor | None, generator: torch.Generator) -> Iterator[Iteration]:
        """The iterations; ``start`` ``[*grid]`` is the map to start from, where there is one."""

    def started(
        self, scan: Scan, question: Question, engine: Engine, probe: Probe
    ) -> Generator[Step, None, Tensor | None]:
        """Steps towards a map to start from, which is returned; none of them without one."""
        return None
        yield

    def steps(self, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        # A black box is refused before it is asked about anything.
        engine.classifier.network()
        probe = engine.open(scan, question, self.removal)
        nothing_left = emptied(probe)
        start = yield from self.started(scan, question, engine, probe)
        before = 0.0 if start is None else START_SHARE
        for number, now in enumerate(self.optimised(probe, start, engine.generator()), 1):
            yield Step(
                done=before + (1 - before) * number / self.iterations,
                score=now.score,
                heatmap=now.heatmap,
                perturbed=partial(_seen, probe, now.shown[None]),
                point=(float(number), now.score),
                facts={**nothing_left, **now.facts},
            )


START_SHARE = 0.5
"""Of the work that a map to start from is taken for."""


def check_game(game: str) -> None:
    """Raises ParameterError for a game that there is not."""
    if game not in ("deletion", "preservation"):
        raise ParameterError(f"The game is deletion or preservation, not {game!r}.")


def emptied(probe: Probe) -> dict[str, Fact]:
    """The score with all removed, and a warning where the classifier hardly notices: a mask can only be optimised where
    it does. One evaluation."""
    score = float(probe.scores(torch.zeros((1, *probe.grid), device=probe.pixels.device))[0, 0])
    clean = float(probe.clean[0])
    facts: dict[str, Fact] = {"score with all removed": score}
    if abs(clean - score) < LEAST * abs(clean):
        facts["warning"] = (
            f"With everything removed the score is still {score:.3g} ({clean:.3g} on the scan), so this removal takes "
            "no evidence away and the mask means little; choose another --removal."
        )
    return facts


def _seen(probe: Probe, masks: Tensor) -> Tensor:
    return probe.removed(masks)[0]
