"""Gradients accumulated along a path of scans: what integrated gradients and blur integrated gradients share.

A path leads from a baseline z(0) to the scan z(1) = x. The attribution of pixel u is the line integral

    A(u) = integral over alpha in 0..1 of  sum over channels of  df/dz(u) * dz(u)/dalpha

and by the chain rule the A(u) add up to f(x) - f(z(0)): *completeness*. Any quadrature rule is wrong by some amount,
and completeness says by how much: the gap. It does so for every stretch of the path as well, because the score is
known at the ends of the stretch, and that is what the adaptive rule follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
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


@dataclass(frozen=True)
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


def simpson(start: Node, middle: Node, end: Node) -> Tensor:
    """The integral ``[*grid]`` over the stretch from ``start`` to ``end``, exact for cubics."""
    return (end.alpha - start.alpha) / 6 * (start.integrand + 4 * middle.integrand + end.integrand)


def _gap(start: Node, middle: Node, end: Node) -> float:
    """What Simpson's rule misses of the score's rise over a stretch; signed."""
    rise = (end.alpha - start.alpha) / 6 * (start.slope + 4 * middle.slope + end.slope)
    return end.score - start.score - rise


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
    """Simpson's rule on stretches of the path; those with the largest gaps of their own are halved next."""
    start, middle, end = nodes(probe, path, [0.0, 0.5, 1.0])
    stretches = [(start, middle, end)]
    total = simpson(start, middle, end)
    difference = end.score - start.score
    seen, done = 3, 3 / (steps + 1)

    def finished() -> bool:
        missed = sum(_gap(*s) for s in stretches)
        return abs(missed) <= tolerance * abs(difference) or seen + 2 > steps

    yield _step(probe, path, start, start.integrand, difference, 1, 0.0)
    yield _step(probe, path, middle, middle.integrand, difference, 2, 0.0)
    yield _step(probe, path, end, total, difference, 3, 1.0 if finished() else done)
    while not finished():
        most = max(1, min(steps - seen, probe.batch_size) // 2)
        largest = max(abs(_gap(*s)) for s in stretches)
        halved = sorted((s for s in stretches if abs(_gap(*s)) >= largest / 2), key=lambda s: -abs(_gap(*s)))[:most]
        halved.sort(key=lambda s: s[0].alpha)
        new = nodes(probe, path, [(a.alpha + b.alpha) / 2 for s in halved for a, b in pairwise(s)])
        for stretch in halved:
            start, middle, end = stretch
            first, second = next(new), next(new)
            yield _step(probe, path, first, total, difference, seen + 1, done)
            halves = (start, first, middle), (middle, second, end)
            stretches.remove(stretch)
            stretches.extend(halves)
            total = total - simpson(*stretch) + simpson(*halves[0]) + simpson(*halves[1])
            seen += 2
            done = seen / (steps + 1)
            yield _step(probe, path, second, total, difference, seen, 1.0 if finished() else done)
            if finished():
                return


def _step(probe: Probe, path: Path, node: Node, heatmap: Tensor, difference: float, seen: int, done: float) -> Step:
    gap = difference - float(heatmap.double().sum())
    return Step(
        done=done,
        evaluations=probe.evaluations,
        gradients=probe.gradients,
        score=node.score,
        heatmap=lambda: heatmap,
        perturbed=lambda: path(node.alpha)[0][0],
        reaction=lambda: node.integrand,
        point=(node.alpha, node.score),
        facts={
            "alphas": seen,
            "score_difference": difference,
            "completeness_gap": gap,
            "completeness_gap_relative": abs(gap) / max(abs(difference), 1e-12),
        },
    )
