"""RISE (Petsiuk, Das & Saenko, "Randomized Input Sampling for Explanation", BMVC 2018).

The scan is multiplied by many smooth random masks. A pixel matters if the score is high when it is visible:

    S(u) = 1 / (N p) sum_i f(x . M_i) M_i(u)                                                    (equation 6)

The paper's masks (7 x 7 cells, here the 8 x 8 of the authors' code, p = 0.5) and numbers (4,000 for VGG-16, 8,000
for ResNet-50). S is an expected score, so it lies around the mean score and every pixel seems to support the answer. A
map here is positive where it does so more than average: the mean score is taken off first, which leaves the order of
the pixels in expectation as it is and removes most of the noise. ``centre=False`` gives the equation as it stands.

At p = 0.5 the masks come in balanced designs instead of independent flips, which needs fewer of them. The standard
error is that of independent masks, so it is then too large rather than too small.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from lucency.classifier import Question
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.masks.grids import RandomGrids
from lucency.methods.base import Method, Step, Takes, other_classes
from lucency.methods.repeatable import check_rule, expected_agreement
from lucency.methods.sampling import growing
from lucency.removal import Constant, Removal
from lucency.scan import Scan

FEWEST = 64
"""Masks before the standard error is asked whether to stop."""


@dataclass(frozen=True)
class Rise(Method):
    """The expected score given that a pixel is visible, from random smooth masks.

    Attributes:
        samples: how many masks.
        cells: coin flips along each axis of a mask.
        p: chance that a cell is visible.
        removal: what stands where a mask is 0 (the authors' multiplication is black).
        centre: map how far the expected score lies above its mean, around zero, instead of the paper's expected score.
        repeatability, top: stop as soon as the ``top`` highest cells of another run are expected to agree with these to
            this Jaccard index; never before the end when ``None``.
        all_classes: the same forward passes give a map of each other class too, by name beside the answer's.
    """

    name: ClassVar[str] = "rise"
    former_parameters: ClassVar[Mapping[str, str]] = {"stability": "repeatability"}
    title: ClassVar[str] = "RISE"
    paper: ClassVar[str] = "Petsiuk et al., BMVC 2018"
    takes: ClassVar[Takes] = "masks"
    unit: ClassVar[str] = "expected score when visible, less its mean"

    samples: int = 4000
    cells: int = 8
    p: float = 0.5
    removal: Removal = field(default_factory=Constant)
    centre: bool = True
    repeatability: float | None = None
    top: int = 5
    all_classes: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rule(self.repeatability, self.top)
        if self.samples < 2:
            raise ParameterError(f"RISE needs at least 2 masks, not {self.samples}.")

    def steps(self, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        others = other_classes(question, engine.classifier) if self.all_classes else []
        probe = engine.open(scan, question, self.removal, others)
        device = probe.pixels.device
        grids = RandomGrids(probe.grid, self.cells, self.p)
        coins, shifts = grids.draw(self.samples, engine.generator())

        def perturbed(coin: Tensor, shift: Tensor) -> Tensor:
            return probe.removed(grids.masks(coin, shift))[0]

        sums = torch.zeros((3, 2, *probe.grid), dtype=torch.float64, device=device)
        scores = probe.clean.new_empty(0)
        # A covariance does not care from where scores are counted; from here, equal ones give exactly nothing.
        levels = probe.clean if self.centre else torch.zeros_like(probe.clean)
        level = levels[0]
        beside = torch.zeros((len(others), *probe.grid), dtype=torch.float64, device=device)
        means = torch.zeros(len(others), dtype=torch.float64, device=device)
        for which in growing(self.samples, 2, probe.batch_size):
            coin, shift = coins[which].to(device), shifts[which].to(device)
            masks = grids.masks(coin, shift)
            every = (probe.scores(masks) - levels).double()
            now = every[:, 0].float()
            beside = beside + torch.einsum("bq,b...->q...", every[:, 1:], masks.double())
            means = means + every[:, 1:].sum(0)
            scores = torch.cat([scores, now])
            sums = sums + moments(now, masks)
            n = len(scores)
            f = [float((scores.double() ** a).mean()) for a in (1, 2)]
            # Built at once, for it is one small map and its ingredients are six.
            heatmap = expected_score(sums[:2, 0] / n, f[0], self.p, self.centre)
            error = partial(standard_error, sums, n, f, self.p, self.centre)
            stable = (
                self.repeatability is not None
                and n >= FEWEST
                and self.repeatability <= expected_agreement(self._of_cells(heatmap), self._of_cells(error()), self.top)
            )
            yield Step(
                done=1.0 if stable else n / self.samples,
                score=float(now[-1] + level),
                heatmap=heatmap.clone,
                perturbed=partial(perturbed, coin[-1:], shift[-1:]),
                standard_error=error if n > 1 else None,
                also={
                    q.label: partial(self._beside, sums[0, 0] / n, one / n, float(mean / n))
                    for q, one, mean in zip(others, beside, means, strict=True)
                },
                facts={"masks": n, "mean score": f[0] + float(level), **probe.facts},
            )
            if stable:
                return

    def _beside(self, masks: Tensor, product: Tensor, mean: float) -> Tensor:
        return expected_score(torch.stack([masks, product]), mean, self.p, self.centre)

    def _of_cells(self, heatmap: Tensor) -> Tensor:
        """The map in the middle of each cell, ``[S]``: a map is no finer than its masks."""
        for axis, n in enumerate(heatmap.shape):
            middles = ((torch.arange(self.cells) + 0.5) * n / self.cells).long()
            heatmap = heatmap.index_select(axis, middles.to(heatmap.device))
        return heatmap.flatten().cpu()


def moments(scores: Tensor, masks: Tensor) -> Tensor:
    """``sum_i f_i^a M_i(u)^b`` for a = 0, 1, 2 and b = 1, 2: float64 ``[3, 2, *grid]`` from ``[B]``, ``[B, *grid]``."""
    m = masks.double()
    f = torch.stack([scores.double() ** a for a in range(3)])
    return torch.stack([torch.einsum("ai,i...->a...", f, power) for power in (m, m * m)], 1)


def expected_score(e: Tensor, f: float, p: float, centre: bool) -> Tensor:
    """Equation 6, float32 ``[*grid]``, from ``e`` ``[2, *grid]``, the mean of M and of f M, and the mean score ``f``.

    Centred, it is the covariance of score and mask over p.
    """
    mean = e[1] - f * e[0] if centre else e[1]
    return (mean / p).float()


def standard_error(sums: Tensor, n: int, f: Sequence[float], p: float, centre: bool) -> Tensor:
    """Standard error of :func:`expected_score`, float32 ``[*grid]``: the spread of what is averaged, over sqrt(N).

    Args:
        sums: of :func:`moments` over the ``n`` masks.
        f: mean score and mean squared score.
    """
    e = sums / n
    mean, square = e[1, 0], e[2, 1]
    if centre:
        # E[(f - mean f)^2 (M - mean M)^2], written out in moments around zero.
        m = e[0, 0]
        mean = e[1, 0] - f[0] * m
        square = (
            e[2, 1] - 2 * m * e[2, 0] + m**2 * f[1]
            - 2 * f[0] * (e[1, 1] - 2 * m * e[1, 0] + m**2 * f[0])
            + f[0] ** 2 * (e[0, 1] - m**2)
        )  # fmt: skip
    variance = (square - mean**2).clamp_min(0) / (n - 1)
    return (variance.sqrt() / p).float()
