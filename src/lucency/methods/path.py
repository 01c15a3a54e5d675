"""Gradients accumulated along a path of scans: what integrated gradients and blur integrated gradients share.

A path leads from a baseline z(0) to the scan z(1) = x. The attribution of pixel u is the line integral

    A(u) = integral over alpha in 0..1 of  sum over channels of  df/dz(u) * dz(u)/dalpha

and by the chain rule the A(u) add up to f(x) - f(z(0)): *completeness*. Any quadrature rule is wrong by some amount,
and completeness says by how much: the gap. It does so for every stretch of the path as well, because the score is
known at the ends of the stretch, and that is what the adaptive rule follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lucency.engine import Probe
from lucency.errors import ParameterError
from lucency.methods.base import Step
from lucency.methods.occlusion import spread_order

Path = Callable[[float], tuple[Tensor, Tensor]]
"""alpha -> the scans z(alpha) ``[K, C, *grid]`` of K paths walked together, and dz/dalpha, broadcastable to them."""

Rule = Literal["adaptive", "gauss-legendre", "trapezoid"]
Order = Literal["ascending", "spread"]
TINY = 1e-12
"""Stands in for a score difference of nothing, so that a share of it can be told."""


@dataclass(frozen=True, eq=False)
class Node:
    """The integrand at one alpha, averaged over the K paths.

    Attributes:
        score: f(z(alpha)).
        integrand: ``[*grid]``; its sum is df/dalpha.
        slope: that sum.
    """

    alpha: float
    score: float
    integrand: Tensor
    slope: float


def follow(probe: Probe, path: Path, rule: Rule, steps: int, tolerance: float, order: Order) -> Iterator[Step]:
    """The line integral, step by step, one alpha a step.

    Args:
        steps: alphas of a fixed rule, at most so many of the adaptive one.
        tolerance: the adaptive rule stops when the completeness gap is at most this share of f(x) - f(z(0)).
        order: a fixed rule walks the alphas in ascending order, so that the map grows from the baseline to the scan,
            or spread over the path, each map then being an estimate of the whole integral.

    Raises:
        ParameterError: for a rule that does not exist or too few steps.
        QuestionError: when the classifier is a black box.
    """
    if rule not in ("adaptive", "gauss-legendre", "trapezoid"):
        raise ParameterError(f"There is no rule {rule!r}; use adaptive, gauss-legendre or trapezoid.")
    fewest = {"adaptive": 3, "gauss-legendre": 1, "trapezoid": 2}[rule]
    if steps < fewest:
        raise ParameterError(f"The {rule} rule needs at least {fewest} steps, not {steps}.")
    if not tolerance > 0:
        raise ParameterError(f"The tolerance is a share above zero, such as 0.01, not {tolerance}.")
    if rule == "adaptive":
        yield from _adaptive(probe, path, steps, tolerance)
    else:
        yield from _fixed(probe, path, rule, steps, order)


def weights(rule: Rule, steps: int) -> tuple[list[float], list[float]]:
    """Alphas and weights of a fixed rule on 0..1; the weights add up to 1.

    Captum's trapezoid weights add up to ``(steps - 1) / steps``; its maps are smaller than these by that factor.
    """
    if rule == "trapezoid":
        share = np.full(steps, 1.0 / (steps - 1))
        share[[0, -1]] /= 2
        return np.linspace(0.0, 1.0, steps).tolist(), share.tolist()
    points, share = np.polynomial.legendre.leggauss(steps)
    return ((1 + points) / 2).tolist(), (share / 2).tolist()


def nodes(probe: Probe, path: Path, alphas: list[float]) -> Iterator[Node]:
    """The integrand at each alpha, at most as many at once as a batch holds."""
    held: list[tuple[float, Tensor, Tensor]] = []
    # Batches grow from one, so that the first node is there at once however large a batch may be.
    ahead = 1
    for i, alpha in enumerate(alphas):
        held.append((alpha, *path(alpha)))
        together = (len(held) + 1) * len(held[0][1])
        if i + 1 < len(alphas) and len(held) < ahead and together <= probe.batch_size:
            continue
        ahead *= 2
        scores, gradients = probe.gradient(torch.cat([s for _, s, _ in held]))
        for j, (a, s, v) in enumerate(held):
            mine = slice(j * len(s), (j + 1) * len(s))
            integrand = (gradients[mine] * v).sum(1).mean(0)
            yield Node(a, float(scores[mine].mean()), integrand, float(integrand.double().sum()))
        held = []


@dataclass(frozen=True, eq=False)
class Stretch:
    """A part of the path between two nodes, with a third half-way, under Simpson's rule (exact for cubics).

    Attributes:
        gap: what the rule misses of the score's rise over the stretch, signed.
        bend: how far the rule is from the trapezoid rule on the same nodes: the Euclidean norm of the difference.
    """

    start: Node
    middle: Node
    end: Node

    @cached_property
    def gap(self) -> float:
        rise = self._length / 6 * (self.start.slope + 4 * self.middle.slope + self.end.slope)
        return self.end.score - self.start.score - rise

    @cached_property
    def bend(self) -> float:
        bent = 2 * self.middle.integrand - self.start.integrand - self.end.integrand
        return self._length / 12 * float(bent.norm())

    @property
    def integral(self) -> Tensor:
        """``[*grid]``."""
        return self._length / 6 * (self.start.integrand + 4 * self.middle.integrand + self.end.integrand)

    @property
    def quarters(self) -> tuple[float, float]:
        """The two alphas at which halving the stretch needs nodes."""
        return (self.start.alpha + self.middle.alpha) / 2, (self.middle.alpha + self.end.alpha) / 2

    def halved(self, first: Node, second: Node) -> tuple[Stretch, Stretch]:
        """The two halves, given the nodes at :attr:`quarters`."""
        return Stretch(self.start, first, self.middle), Stretch(self.middle, second, self.end)

    @property
    def _length(self) -> float:
        return self.end.alpha - self.start.alpha


def _fixed(probe: Probe, path: Path, rule: Rule, steps: int, order: Order) -> Iterator[Step]:
    alphas, shares = weights(rule, steps)
    visit = spread_order(steps).tolist() if order == "spread" else list(range(steps))
    baseline = float(probe.scores_of(path(0.0)[0])[:, 0].mean())
    total = torch.zeros(probe.grid, device=probe.pixels.device)
    weight = 0.0
    for n, (i, node) in enumerate(zip(visit, nodes(probe, path, [alphas[i] for i in visit]), strict=True), 1):
        total = total + shares[i] * node.integrand
        weight += shares[i]
        heatmap = total / weight if order == "spread" else total
        yield _step(probe, path, node, heatmap, float(probe.clean[0]) - baseline, n, n / steps)


def _adaptive(probe: Probe, path: Path, steps: int, tolerance: float) -> Iterator[Step]:
    """Simpson's rule on stretches of the path; the worst ones are halved until completeness holds.

    A stretch is bad by its gap, and by its bend: where the gradient turns while the score rises evenly the gap sees
    nothing, and the map would be wrong although its sum is right.
    """
    start, middle, end = nodes(probe, path, [0.0, 0.5, 1.0])
    stretches = [Stretch(start, middle, end)]
    total = stretches[0].integral
    difference = end.score - start.score
    seen = 3
    first_gap, so_far = abs(stretches[0].gap), 0.0

    def finished() -> bool:
        return abs(sum(s.gap for s in stretches)) <= tolerance * abs(difference) or seen + 2 > steps

    def done() -> float:
        # How far the gap has come down, in decades; it may go up again, and the share of the work done may not.
        nonlocal so_far
        gap, goal = abs(sum(s.gap for s in stretches)), tolerance * abs(difference) + TINY
        closed = math.log(first_gap / max(gap, goal)) / math.log(max(first_gap / goal, math.e)) if gap else 1.0
        so_far = max(so_far, seen / (steps + 1), min(0.95, closed))
        return 1.0 if finished() else so_far

    yield _step(probe, path, start, start.integrand, difference, 1, 0.0)
    yield _step(probe, path, middle, middle.integrand, difference, 2, 0.0)
    yield _step(probe, path, end, total, difference, 3, done())
    while not finished():
        size = float(total.norm())
        bad = {s: abs(s.gap) / max(abs(difference), TINY) + s.bend / max(size, TINY) for s in stretches}
        most = max(1, min(steps - seen, probe.batch_size) // 2)
        worst = sorted((s for s in stretches if bad[s] >= max(bad.values()) / 2), key=lambda s: -bad[s])[:most]
        worst.sort(key=lambda s: s.start.alpha)
        new = nodes(probe, path, [alpha for s in worst for alpha in s.quarters])
        for stretch in worst:
            first, second = next(new), next(new)
            yield _step(probe, path, first, total, difference, seen + 1, so_far)
            halves = stretch.halved(first, second)
            stretches.remove(stretch)
            stretches.extend(halves)
            total = total - stretch.integral + halves[0].integral + halves[1].integral
            seen += 2
            yield _step(probe, path, second, total, difference, seen, done())
            if finished():
                return


def _step(probe: Probe, path: Path, node: Node, heatmap: Tensor, difference: float, seen: int, done: float) -> Step:
    gap = difference - float(heatmap.double().sum())
    return Step(
        done=done,
        score=node.score,
        heatmap=lambda: heatmap,
        perturbed=lambda: path(node.alpha)[0][0],
        reaction=lambda: node.integrand,
        point=(node.alpha, node.score),
        facts={
            "alphas": seen,
            "score difference": difference,
            "completeness gap": gap,
            "relative completeness gap": abs(gap) / max(abs(difference), TINY),
        },
    )
