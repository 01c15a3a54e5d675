"""Shapley values of superpixels by Kernel SHAP (Lundberg & Lee, "A Unified Approach ...", NeurIPS 2017).

The superpixels play a game: v(z) is the score with only the pieces z on. The Shapley value of a piece is what it adds
on average when the pieces come on in random order, and the values add up to v(all) - v(none). They solve (theorem 2)

    min_phi  sum_z pi(z) (v(z) - v(none) - z'phi)^2   subject to   sum(phi) = v(all) - v(none),
    pi(z) = (S - 1) / (C(S, |z|) |z| (S - |z|))

Coalitions are drawn from pi together with their opposites, which halves the work for the same error (Covert & Lee,
"Improving KernelSHAP", AISTATS 2021, section 4.2), their sizes stratified. The constraint is built into the solution,
so that the sum holds exactly at every step. Where there are few enough pieces, every coalition is asked about and the
answer is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from typing import ClassVar

import torch
from torch import Tensor

from lucency.classifier import Question
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.masks.designs import random_pairs
from lucency.masks.superpixels import Slic, Superpixels, painted, switched
from lucency.methods.base import Fact, Facts, Method, Step, other_classes
from lucency.methods.sampling import growing
from lucency.methods.stable import check_rule, expected_agreement
from lucency.removal import Removal, SegmentMean, of_pieces
from lucency.scan import Scan


@dataclass(frozen=True)
class Shapley(Method):
    """Shapley values of the superpixels, painted on them.

    Attributes:
        superpixels: how the scan is cut.
        samples: how many coalitions are asked about at most, besides all and none; an even number.
        removal: what stands in a superpixel that is off.
        stability: stop as soon as the superpixels on top are expected to agree with those of another run to this
            degree (Jaccard index, 0..1); ``None`` makes all samples.
        top: how many superpixels have to agree.
        all_classes: the same forward passes give a map of each other class too, by name beside the answer's.
    """

    name: ClassVar[str] = "shapley"
    title: ClassVar[str] = "Kernel SHAP"
    paper: ClassVar[str] = "Lundberg & Lee, NeurIPS 2017"
    panel: ClassVar = "scatter"
    axes: ClassVar[tuple[str, str]] = ("superpixels on", "score")
    unit: ClassVar[str] = "Shapley value of the superpixel"

    superpixels: Superpixels = field(default_factory=Slic)
    samples: int = 1000
    removal: Removal = field(default_factory=SegmentMean)
    stability: float | None = None
    top: int = 5
    all_classes: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rule(self.stability, self.top)
        if self.samples < 2 or self.samples % 2:
            raise ParameterError(f"Coalitions come in pairs, so their number must be even and not {self.samples}.")

    def steps(self, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        labels = self.superpixels.labels(engine.classifier.prepare(scan)).to(engine.device)
        others = other_classes(question, engine.classifier) if self.all_classes else []
        probe = engine.open(scan, question, of_pieces(self.removal, labels), others)
        pieces = int(labels.max()) + 1
        if pieces < 2:
            raise ParameterError("The scan is all one superpixel, so there is no game; ask for smaller pieces.")
        nones = probe.scores(switched(labels, torch.zeros(1, pieces)))[0].tolist()
        fulls = probe.clean.tolist()
        none, full = nones[0], fulls[0]
        exact = 2**pieces - 2 <= self.samples
        generator = engine.generator()
        half = every_pair(pieces, generator) if exact else random_pairs(pieces, self.samples // 2, generator)
        # Each coalition is followed by its opposite.
        on = torch.stack([half, 1 - half], 1).flatten(0, 1)
        weights = kernel(on) if exact else torch.ones(len(on), dtype=torch.float64)

        def perturbed(on: Tensor) -> Tensor:
            return probe.removed(switched(labels, on))[0]

        every = probe.clean.new_empty((0, len(probe.questions)))
        for which in growing(len(on), 2, max(2, probe.batch_size // 2 * 2)):
            batch = on[which]
            every = torch.cat([every, probe.scores(switched(labels, batch))])
            scores = every[:, 0]
            n = len(scores)
            left = 1 - n / len(on) if exact else 1.0
            solves = [
                cache(partial(constrained_fit, on[:n], every[:, i].cpu(), weights[:n], nones[i], fulls[i], left))
                for i in range(len(fulls))
            ]
            solve = solves[0]
            last = batch[-1:]
            # With fewer pairs than unknowns the fit goes through every point and knows nothing of its error.
            known = n // 2 >= 2 * pieces or left == 0
            stable = known and self.stability is not None and self.stability <= expected_agreement(*solve(), self.top)
            yield Step(
                done=1.0 if stable else n / len(on),
                score=float(scores[-1]),
                heatmap=partial(_map, labels, solve, 0),
                perturbed=partial(perturbed, last),
                standard_error=partial(_map, labels, solve, 1) if known else None,
                point=(float(last.sum()), float(scores[-1])),
                also={q.label: partial(_map, labels, one, 0) for q, one in zip(others, solves[1:], strict=True)},
                facts=Facts(partial(_facts, solve, none, full, exact and n == len(on))),
            )
            if stable:
                return


def kernel(on: Tensor) -> Tensor:
    """The Shapley kernel pi(z) of coalitions ``[B, S]`` (0 or 1, neither none nor all on), float64 ``[B]``."""
    pieces, size = on.shape[1], on.sum(1).double()
    ways = torch.lgamma(torch.tensor(pieces + 1.0, dtype=torch.float64)) - (
        torch.lgamma(size + 1) + torch.lgamma(pieces - size + 1)
    )
    return (pieces - 1) / (ways.exp() * size * (pieces - size))


def every_pair(pieces: int, generator: torch.Generator) -> Tensor:
    """One of each pair of opposite coalitions, int64 ``[2^(S - 1) - 1, S]``, in random order."""
    number = 1 + torch.randperm(2 ** (pieces - 1) - 1, generator=generator)
    return (number[:, None] >> torch.arange(pieces)) & 1


def constrained_fit(
    on: Tensor, scores: Tensor, weights: Tensor, none: float, full: float, left: float
) -> tuple[Tensor, Tensor]:
    """Shapley values and their standard errors, float64 ``[S]`` each, from pairs of opposite coalitions.

    Args:
        on: coalitions ``[B, S]``, opposites next to each other.
        scores: what the model says about each, ``[B]``.
        weights: how much each counts, ``[B]``.
        none, full: the scores with everything off and on.
        left: share of all coalitions that was not asked about (1 where they are drawn with replacement).

    The constraint is met by solving for the deviation from equal shares, which sums to zero. The standard errors are
    of the sandwich kind with pairs as units, since pairs are what is drawn; they vanish when nothing is left to ask.
    """
    x = on.double()
    pieces = x.shape[1]
    share = (full - none) / pieces
    y = scores.double() - none - share * x.sum(1)
    x = x - x.mean(1, keepdim=True)
    gram = (x.T * weights) @ x
    inverse = torch.linalg.pinv(gram, hermitian=True, rtol=1e-10)
    deviation = inverse @ (x.T @ (weights * y))
    lever = (x * (weights * (y - x @ deviation))[:, None]).view(-1, 2, pieces).sum(1) @ inverse
    pairs = len(lever)
    correction = pairs / max(pairs - pieces + 1, 1)
    return share + deviation, (left * correction * lever.square().sum(0)).sqrt()


def _map(labels: Tensor, solve: Callable[[], tuple[Tensor, Tensor]], which: int) -> Tensor:
    return painted(labels, solve()[which])


def _facts(solve: Callable[[], tuple[Tensor, Tensor]], none: float, full: float, exact: bool) -> dict[str, Fact]:
    values = solve()[0]
    return {
        "superpixels": len(values),
        "score with all removed": none,
        "completeness gap": float((values.sum() - (full - none)).abs()),
        "exact": exact,
    }
