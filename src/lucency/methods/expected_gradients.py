"""Expected gradients (Erion, Janizek, Sturmfels, Lundberg & Lee, Nature Machine Intelligence 2021).

Integrated gradients without the choice of one baseline: baseline and place on the path are drawn at random,

    EG(u) = E over x' ~ D, alpha ~ U(0, 1) of  (x_u - x'_u) * df(x' + alpha (x - x')) / dx_u

D is whatever the removal puts in place of the whole scan; one that draws random numbers gives each sample a baseline
of its own. In expectation the map adds up to f(x) - E f(x').
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from lucency.classifier import Question
from lucency.engine import Engine
from lucency.methods.base import Method, Step
from lucency.methods.integrated_gradients import everything_removed
from lucency.methods.sampling import average
from lucency.removal import Noise, Removal
from lucency.scan import Scan


@dataclass(frozen=True)
class ExpectedGradients(Method):
    """The expected integrated gradient over random baselines.

    Attributes:
        removal: where baselines come from: the scan with everything removed in this sense.
        samples: how many pairs of baseline and alpha (the paper's authors draw 200).
    """

    name: ClassVar[str] = "expected_gradients"
    title: ClassVar[str] = "Expected gradients"
    paper: ClassVar[str] = "Erion et al., Nature Machine Intelligence 2021"
    unit: ClassVar[str] = "share of the score"
    needs_gradients: ClassVar[bool] = True
    grainy: ClassVar[bool] = True

    removal: Removal = field(default_factory=Noise)
    samples: int = 200

    def steps(self, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        probe = engine.open(scan, question, self.removal)
        generator = engine.generator()

        def draw() -> tuple[Tensor, Tensor]:
            line = probe.pixels - everything_removed(probe, 1, self.removal, generator)[0]
            alpha = float(torch.rand((), generator=generator))
            return probe.pixels - (1 - alpha) * line, line

        yield from average(probe, draw, self.samples)
