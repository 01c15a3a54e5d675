"""Shapley values of superpixels by Kernel SHAP (Lundberg & Lee, "A Unified Approach ...", NeurIPS 2017).

The superpixels play a game: v(z) is the score with only the pieces z on. The Shapley value of a piece is what it adds
on average when the pieces come on in random order, and the values add up to v(all) - v(none). They solve (theorem 2)

    min_phi  sum_z pi(z) (v(z) - v(none) - z'phi)^2   subject to   sum(phi) = v(all) - v(none),
    pi(z) = (S - 1) / (C(S, |z|) |z| (S - |z|))

Coalitions are drawn from pi together with their opposites, which halves the work for the same error (Covert & Lee,
"Improving KernelSHAP", AISTATS 2021, section 4.2), their sizes stratified. The constraint is built into the solution,
so that the sum holds exactly at every step. Where there are few enough pieces, every coalition is evaluated and the
answer is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lucency.errors import ParameterError
from lucency.masks.designs import random_pairs
from lucency.methods.base import Fact
from lucency.methods.game import Coalitions, Fit, Plan, SuperpixelGame


@dataclass(frozen=True)
class KernelShap(SuperpixelGame):
    """Shapley values of the superpixels, painted on them.

    Of the samples, which are an even number, all and none do not count.
    """

    name: ClassVar[str] = "kernel_shap"
    formerly: ClassVar[tuple[str, ...]] = ("shapley",)
    former_parameters: ClassVar[Mapping[str, str]] = {"stability": "repeatability"}
    title: ClassVar[str] = "Kernel SHAP"
    paper: ClassVar[str] = "Lundberg & Lee, NeurIPS 2017"
    unit: ClassVar[str] = "Shapley value of the superpixel"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 2 or self.samples % 2:
            raise ParameterError(f"Coalitions come in pairs, so their number must be even and not {self.samples}.")

    def plan(self, game: Coalitions, generator: torch.Generator) -> Plan:
        pieces = game.pieces
        if pieces < 2:
            raise ParameterError("The scan is all one superpixel, so there is no game; ask for smaller pieces.")
        nones = game.scores(torch.zeros(1, pieces))[0].tolist()
        fulls = game.probe.clean.tolist()
        exact = 2**pieces - 2 <= self.samples
        half = every_pair(pieces, generator) if exact else random_pairs(pieces, self.samples // 2, generator)
        # Each coalition is followed by its opposite.
        on = torch.stack([half, 1 - half], 1).flatten(0, 1)
        weights = kernel(on) if exact else torch.ones(len(on), dtype=torch.float64)

        def fit(question: int, scores: Tensor) -> Fit:
            n, none, full = len(scores), nones[question], fulls[question]
            left = 1 - n / len(on) if exact else 1.0
            values, error = constrained_fit(on[:n], scores, weights[:n], none, full, left)
            facts: dict[str, Fact] = {
                "superpixels": len(values),
                "score with all removed": none,
                "completeness gap": float((values.sum() - (full - none)).abs()),
                "exact": exact and n == len(on),
            }
            return Fit(values, error, facts)

        # With fewer pairs than unknowns the fit goes through every point and knows nothing of its error.
        def known(n: int) -> bool:
            return n // 2 >= 2 * pieces or (exact and n == len(on))

        return Plan(on, fit, known, together=2)


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
        left: share of all coalitions that was not evaluated (1 where they are drawn with replacement).

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
