"""LIME (Ribeiro, Singh & Guestrin, "Why Should I Trust You?", KDD 2016) for images.

The scan is cut into superpixels. Random halves of them are switched off, and a linear model of the switches that
holds near the scan is fitted to the scores; its weights are the explanation:

    argmin_w  sum_i pi(z_i) (f(z_i) - w0 - w'z_i)^2 + alpha |w|^2,    pi(z) = sqrt(exp(-D(z)^2 / sigma^2))

with z_i in {0, 1}^S, D the cosine distance to the scan with everything on (equation 2 of the paper; the square
root, sigma = 0.25, alpha = 1 and 1,000 samples whose first has everything on are those of the ``lime`` package).
The switches are flipped in balanced designs (:mod:`lucency.masks.designs`): the same answer from fewer samples.
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
from lucency.masks.designs import balanced_switches
from lucency.masks.superpixels import Slic, Superpixels, painted, switched
from lucency.methods.base import Fact, Facts, Method, Step, other_classes
from lucency.methods.sampling import growing
from lucency.methods.stable import check_rule, expected_agreement
from lucency.removal import Removal, SegmentMean, of_pieces
from lucency.scan import Scan

POOR_FIT = 0.5
"""A fit that explains less than this share of the score's variance is called poor."""


@dataclass(frozen=True)
class Lime(Method):
    """Fits a weighted linear model to scores of scans with random superpixels switched off.

    Attributes:
        superpixels: how the scan is cut.
        samples: how many random scans are asked about at most; the first has everything on.
        removal: what stands in a superpixel that is off.
        width: sigma of the kernel; smaller = only scans nearly as they are count.
        alpha: strength of the ridge penalty.
        stability: stop as soon as the superpixels on top are expected to agree with those of another run to this
            degree (Jaccard index, 0..1); ``None`` makes all samples.
        top: how many superpixels have to agree.
        all_classes: the same forward passes give a map of each other class too, by name beside the answer's.
    """

    name: ClassVar[str] = "lime"
    title: ClassVar[str] = "LIME"
    paper: ClassVar[str] = "Ribeiro et al., KDD 2016"
    panel: ClassVar = "scatter"
    axes: ClassVar[tuple[str, str]] = ("superpixels on", "score")
    unit: ClassVar[str] = "weight of the superpixel in the local linear model"

    superpixels: Superpixels = field(default_factory=Slic)
    samples: int = 1000
    removal: Removal = field(default_factory=SegmentMean)
    width: float = 0.25
    alpha: float = 1.0
    stability: float | None = None
    top: int = 5
    all_classes: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rule(self.stability, self.top)
        if self.samples < 2 or not self.width > 0 or not self.alpha > 0:
            raise ParameterError(
                f"LIME needs at least 2 samples and a width and alpha above 0, "
                f"not {self.samples}, {self.width} and {self.alpha}."
            )

    def steps(self, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        labels = self.superpixels.labels(engine.classifier.prepare(scan)).to(engine.device)
        others = other_classes(question, engine.classifier) if self.all_classes else []
        probe = engine.open(scan, question, of_pieces(self.removal, labels), others)
        pieces = int(labels.max()) + 1
        switches = balanced_switches(self.samples - 1, pieces, engine.generator())
        on = torch.cat([torch.ones_like(switches[:1]), switches])
        every = probe.clean.new_empty((0, len(probe.questions)))

        def perturbed(on: Tensor) -> Tensor:
            return probe.removed(switched(labels, on))[0]

        for which in growing(self.samples, 2, probe.batch_size):
            batch = on[which]
            every = torch.cat([every, probe.scores(switched(labels, batch))])
            scores = every[:, 0]
            fit = cache(partial(self._fit, on[: len(scores)], scores.cpu()))
            last = batch[-1:]
            # With fewer pairs than unknowns the fit goes through every point and knows nothing of its error.
            known = len(scores) > 2.5 * (pieces + 1)
            stable = (
                self.stability is not None
                and known
                and self.stability <= expected_agreement(fit().weights, fit().standard_error, self.top)
            )
            yield Step(
                done=1.0 if stable else len(scores) / self.samples,
                score=float(scores[-1]),
                heatmap=partial(_map, labels, fit, "weights"),
                perturbed=partial(perturbed, last),
                standard_error=partial(_map, labels, fit, "standard_error") if known else None,
                point=(float(last.sum()), float(scores[-1])),
                also={
                    q.label: partial(_map, labels, partial(self._fit, on[: len(scores)], every[:, i].cpu()), "weights")
                    for i, q in enumerate(others, 1)
                },
                facts=Facts(partial(_facts, fit)),
            )
            if stable:
                return

    def _fit(self, on: Tensor, scores: Tensor) -> LocalFit:
        return weighted_ridge(on, scores, kernel(on, self.width), self.alpha)


@dataclass(frozen=True)
class LocalFit:
    """A weighted ridge regression: ``weights`` and ``standard_error`` float64 ``[S]``, ``intercept``, ``r2``."""

    weights: Tensor
    standard_error: Tensor
    intercept: float
    r2: float


def kernel(on: Tensor, width: float) -> Tensor:
    """How near each sample (``on`` ``[B, S]``, 0 or 1) is to everything on: float64 ``[B]``, 0..1.

    The cosine distance to a vector of ones is ``1 - sqrt(share that is on)``.
    """
    distance = 1 - on.double().mean(1).sqrt()
    return torch.exp(-(distance**2) / width**2).sqrt()


def weighted_ridge(on: Tensor, scores: Tensor, weights: Tensor, alpha: float) -> LocalFit:
    """Ridge regression of ``scores`` ``[B]`` on ``on`` ``[B, S]`` with sample ``weights`` ``[B]``, free intercept.

    The standard errors are those of the sandwich estimator (White 1980) with its small-sample correction, with what is
    drawn as units: the first sample, and then pairs of opposites. They hold whether or not the linear model is right
    and say how far the weights would move with other random pairs; balance between the pairs makes them move less.
    What the penalty takes away from the weights is not in them.
    """
    x, y, w = on.double(), scores.double(), weights.double()
    # Seen from one of the scores, scores that are all the same give weights of exactly nothing.
    level = y[0]
    y = y - level
    x = x - (w @ x) / w.sum()
    mean = (w @ y) / w.sum()
    gram = (x.T * w) @ x
    inverse = torch.linalg.inv(gram + alpha * torch.eye(x.shape[1], dtype=torch.float64))
    beta = inverse @ (x.T @ (w * (y - mean)))
    residual = y - mean - x @ beta
    total = float(w @ (y - mean) ** 2)
    pair = (torch.arange(len(y)) + 1) // 2
    pull = torch.zeros_like(x[: int(pair[-1]) + 1]).index_add_(0, pair, x * (w * residual)[:, None])
    lever = pull @ inverse
    freedom = float((inverse * gram).sum())
    correction = len(lever) / max(len(lever) - freedom, 1.0)
    return LocalFit(
        weights=beta,
        standard_error=(correction * lever.square().sum(0)).sqrt(),
        intercept=float(level + mean - ((w @ on.double()) / w.sum()) @ beta),
        r2=1 - float(w @ residual**2) / total if total > 0 else 1.0,
    )


def _map(labels: Tensor, fit: Callable[[], LocalFit], what: str) -> Tensor:
    values: Tensor = getattr(fit(), what)
    return painted(labels, values)


def _facts(fit: Callable[[], LocalFit]) -> dict[str, Fact]:
    found = fit()
    facts: dict[str, Fact] = {
        "superpixels": len(found.weights),
        "R²": found.r2,
        "intercept": found.intercept,
    }
    if found.r2 < POOR_FIT:
        facts["warning"] = (
            f"A poor fit: the linear model explains {max(0.0, found.r2):.0%} of how the score varies near this scan "
            "(R² below 0.5), so the weights tell little; try other superpixels, another removal, or Shapley values."
        )
    return facts
