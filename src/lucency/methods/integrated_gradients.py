"""Integrated gradients (Sundararajan, Taly & Yan, "Axiomatic Attribution for Deep Networks", ICML 2017).

The gradient is added up along the straight line from a baseline x' to the scan x:

    IG(u) = (x_u - x'_u) * integral over alpha in 0..1 of  df(x' + alpha (x - x')) / dx_u              (equation 1)

and the parts add up to f(x) - f(x') (completeness, proposition 1). The paper approximates the integral by a sum over
20 to 300 alphas and asks the user to check completeness and to take more when it fails; the adaptive rule does that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from lucency.classifier import Question
from lucency.engine import Engine, Probe
from lucency.errors import ParameterError
from lucency.methods.base import Method, Step
from lucency.methods.path import Order, Rule, follow
from lucency.removal import Constant, Removal, remove
from lucency.scan import Scan


@dataclass(frozen=True)
class IntegratedGradients(Method):
    """The gradient integrated from a scan without evidence to the scan itself.

    Attributes:
        removal: the baseline x' is the scan with everything removed in this sense (the paper's is black).
        others: further baselines; the map is the average over all of them.
        draws: baselines taken from each removal that draws random numbers.
        rule: ``"adaptive"`` refines where the path bends until ``tolerance`` is met; ``"gauss-legendre"`` and
            ``"trapezoid"`` take exactly ``alphas`` points.
        alphas: points on the path, each costing one gradient for each baseline; the adaptive rule takes no more.
        tolerance: completeness gap that ends the adaptive rule, as a share of f(x) - f(x').
        order: of the alphas of a fixed rule.
    """

    name: ClassVar[str] = "integrated_gradients"
    title: ClassVar[str] = "Integrated gradients"
    paper: ClassVar[str] = "Sundararajan, Taly & Yan, ICML 2017"
    axes: ClassVar[tuple[str, str]] = ("alpha", "score")
    unit: ClassVar[str] = "share of the score"
    needs_gradients: ClassVar[bool] = True
    grainy: ClassVar[bool] = True

    removal: Removal = field(default_factory=Constant)
    others: tuple[Removal, ...] = ()
    draws: int = 1
    rule: Rule = "adaptive"
    alphas: int = 100
    tolerance: float = 0.01
    order: Order = "ascending"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws < 1:
            raise ParameterError(f"At least one baseline must be drawn, not {self.draws}.")

    def anytime(self) -> Self:
        return replace(self, order="spread")

    def steps(self, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        probe = engine.open(scan, question, self.removal)
        further = [(engine.open(scan, question, removal), removal) for removal in self.others]
        generator = engine.generator()
        start = torch.cat([
            everything_removed(p, self.draws, r, generator) for p, r in [(probe, self.removal), *further]
        ])  # fmt: skip
        line = probe.pixels - start

        def path(alpha: float) -> tuple[Tensor, Tensor]:
            return start + alpha * line, line

        yield from follow(probe, path, self.rule, self.alphas, self.tolerance, self.order)


def everything_removed(probe: Probe, draws: int, removal: Removal, generator: torch.Generator) -> Tensor:
    """Scans ``[K, C, *grid]`` without anything of the scan left: one, or ``draws`` where the removal is random."""
    nothing = torch.zeros((1, *probe.grid), device=probe.pixels.device)
    if removal.deterministic:
        return probe.removed(nothing)
    fills = [removal.bind(probe.pixels, generator)(nothing) for _ in range(draws)]
    return remove(probe.pixels, nothing.expand(draws, *probe.grid), torch.cat(fills))
