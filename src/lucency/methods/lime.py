"""LIME (Ribeiro, Singh & Guestrin, "Why Should I Trust You?", KDD 2016) for images.

The scan is cut into superpixels. Random halves of them are switched off, and a linear model of the switches that
holds near the scan is fitted to the scores; its weights are the explanation:

    argmin_w  sum_i pi(z_i) (f(z_i) - w0 - w'z_i)^2 + alpha |w|^2,    pi(z) = sqrt(exp(-D(z)^2 / sigma^2))

with z_i in {0, 1}^S, D the cosine distance to the scan with everything on (equation 2 of the paper; the square
root, sigma = 0.25, alpha = 1 and 1,000 samples whose first has everything on are those of the ``lime`` package).
The switches are flipped in balanced designs (:mod:`lucency.masks.designs`): the same answer from fewer samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lucency.errors import ParameterError
from lucency.masks.designs import balanced_switches
from lucency.methods.base import Fact
from lucency.methods.game import Coalitions, Fit, Plan, SuperpixelGame

POOR_FIT = 0.5
"""A fit that explains less than this share of the score's variance is called poor."""


@dataclass(frozen=True)
class Lime(SuperpixelGame):
    """Fits a weighted linear model to scores of scans with random superpixels switched off.

    The first of the samples has everything on.

    Attributes:
        width: sigma of the kernel; smaller = only scans nearly as they are count.
        alpha: strength of the ridge penalty.
    """

    name: ClassVar[str] = "lime"
    former_parameters: ClassVar[Mapping[str, str]] = {"stability": "repeatability"}
    title: ClassVar[str] = "LIME"
    paper: ClassVar[str] = "Ribeiro et al., KDD 2016"
    unit: ClassVar[str] = "weight of the superpixel in the local linear model"

    width: float = 0.25
    alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 2 or not self.width > 0 or not self.alpha > 0:
            raise ParameterError(
                f"LIME needs at least 2 samples and a width and alpha above 0, "
                f"not {self.samples}, {self.width} and {self.alpha}."
            )

    def plan(self, game: Coalitions, generator: torch.Generator) -> Plan:
        switches = balanced_switches(self.samples - 1, game.pieces, generator)
        on = torch.cat([torch.ones_like(switches[:1]), switches])

        def fit(question: int, scores: Tensor) -> Fit:
            some = on[: len(scores)]
            found = weighted_ridge(some, scores, kernel(some, self.width), self.alpha)
            return Fit(found.weights, found.standard_error, _facts(found))

        # With fewer pairs than unknowns the fit goes through every point and knows nothing of its error.
        return Plan(on, fit, known=lambda n: n > 2.5 * (game.pieces + 1))


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


def _facts(found: LocalFit) -> dict[str, Fact]:
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
