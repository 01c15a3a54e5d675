"""A method and a removal from outside: stripes that hide some rows or columns, and a dark quantile to hide with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from lucency.classifier import Question
from lucency.engine import Engine, Probe
from lucency.errors import ParameterError
from lucency.methods import Method, Step
from lucency.removal import Fill, Mean, Removal
from lucency.scan import Scan


@dataclass(frozen=True)
class Quantile(Removal):
    """One quantile of the scan, by channel.

    Attributes:
        q: which one, 0 the darkest pixel to 1 the brightest.
    """

    name: ClassVar[str] = "quantile"
    deterministic: ClassVar[bool] = True
    q: float = 0.1

    def bind(self, pixels: Tensor, generator: torch.Generator) -> Fill:
        level = torch.quantile(pixels.flatten(1), self.q, dim=1)
        fill = level.view(-1, *[1] * (pixels.ndim - 1)).expand_as(pixels)[None]
        return lambda masks: fill


@dataclass(frozen=True)
class Stripes(Method):
    """Hides stripes across each axis in turn; a pixel gets the mean fall of the score of the stripes through it.

    Attributes:
        width: of a stripe, in pixels of the model's grid.
        removal: what stands in a stripe.
    """

    name: ClassVar[str] = "stripes"
    title: ClassVar[str] = "Stripes"
    paper: ClassVar[str] = "an example"
    unit: ClassVar[str] = "fall of the score when hidden"

    width: int = 8
    removal: Removal = field(default_factory=Mean)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 1:
            raise ParameterError(f"A stripe is at least 1 pixel wide, not {self.width}.")

    def steps(self, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        probe = engine.open(scan, question, self.removal)
        stripes = [(axis, start) for axis, n in enumerate(probe.grid) for start in range(0, n, self.width)]
        falls = torch.zeros(probe.grid)
        for done, (axis, start) in enumerate(stripes, 1):
            mask = torch.ones(probe.grid)
            mask.narrow(axis, start, min(self.width, probe.grid[axis] - start)).zero_()
            score = float(probe.scores(mask[None])[0, 0])
            falls = falls + (1 - mask) * (float(probe.clean[0]) - score) / len(probe.grid)
            yield Step(
                done=done / len(stripes),
                score=score,
                heatmap=partial(Tensor.clone, falls),
                perturbed=partial(_hidden, probe, mask),
            )


def _hidden(probe: Probe, mask: Tensor) -> Tensor:
    return probe.removed(mask[None])[0]
