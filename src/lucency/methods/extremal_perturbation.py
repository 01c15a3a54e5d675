"""Extremal perturbation (Fong, Patrick & Vedaldi, "Understanding Deep Networks via Extremal Perturbations and Smooth
Masks", ICCV 2019).

Instead of weighing area against score, the area a is fixed and the best mask of that area is sought (equation 5):

    m_a = argmax_{m smooth, area a}  f(m . x0)

The area is held by comparing the sorted mask with the step r_a that a perfect mask of that area would be
(``-lambda |sort(m) - r_a|^2``, lambda growing), the smoothness by a smooth-max of a kernel (see
:class:`lucency.masks.smooth.SmoothMax`). With several areas the masks are summed: what is needed at a small area
counts at every larger one.

The paper climbs a logit. A probability near 1 has next to no gradient, and lambda would have to be found anew for every
model, so here the gradient of the score is brought to the length that the area term has at the first iteration.

The reference starts from a mask of ones, which the deletion game reads as a scan with everything removed. What has the
largest gradient there wins the area at once and keeps it, and a scan with everything removed is nothing that a
classifier was trained on. Here all is half there at the start, and the scan can still be recognised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from lucency.engine import Probe
from lucency.errors import ParameterError
from lucency.masks.smooth import SmoothMax, shifted
from lucency.methods.optimised import Game, Iteration, MaskOptimiser, check_game
from lucency.removal import Blur, Removal

REFERENCE_ITERATIONS = 800
START = 0.5


@dataclass(frozen=True)
class ExtremalPerturbation(MaskOptimiser):
    """Finds, for each area, the region of that area whose keeping (or removing) moves the score most.

    Attributes:
        areas: shares of the scan, each in 0..1.
        game: ``"preservation"`` (the paper's) or ``"deletion"``.
        removal: what stands where the mask is 0.
        iterations: steps of gradient ascent; the reference implementation makes 800.
        cell: grid pixels between two parameters of the mask.
        sigma: radius of the kernel, in grid pixels.
        weight: lambda, the weight of the area constraint at the first iteration; it grows to ``16 lambda``.
        rate, momentum: of stochastic gradient descent; the rate is that of 800 iterations.
    """

    name: ClassVar[str] = "extremal_perturbation"
    formerly: ClassVar[tuple[str, ...]] = ("extremal",)
    former_parameters: ClassVar[Mapping[str, str]] = {"step": "cell"}
    title: ClassVar[str] = "Extremal perturbation"
    paper: ClassVar[str] = "Fong, Patrick & Vedaldi, ICCV 2019"
    unit: ClassVar[str] = "share of the masks that claim the pixel"

    areas: tuple[float, ...] = (0.05, 0.1, 0.2)
    game: Game = "preservation"
    removal: Removal = field(default_factory=lambda: Blur(20.0))
    iterations: int = 200
    cell: int = 7
    sigma: float = 21.0
    weight: float = 300.0
    rate: float = 0.01
    momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.areas or not all(0 < a < 1 for a in self.areas):
            raise ParameterError(f"Areas are shares of the scan above 0 and below 1, not {self.areas}.")
        check_game(self.game)
        if self.iterations < 1 or self.cell < 1 or not self.sigma > 0:
            raise ParameterError("An extremal mask needs at least 1 iteration, a cell of at least 1 and sigma above 0.")

    def optimised(self, probe: Probe, start: Tensor | None, generator: torch.Generator) -> Iterator[Iteration]:
        device = probe.pixels.device
        up = SmoothMax(probe.grid, self.cell, self.sigma, device)
        ideal = torch.stack([_ideal(a, int(torch.tensor(probe.grid).prod())) for a in self.areas]).to(device)
        parameters = torch.full((len(self.areas), *up.coarse), START, device=device, requires_grad=True)
        # The reference lets lambda grow by 0.35 % in each iteration; fewer iterations go the same way in longer steps.
        pace = REFERENCE_ITERATIONS / self.iterations
        growth = 1.0035**pace
        descent = torch.optim.SGD([parameters], lr=self.rate * pace, momentum=self.momentum, dampening=self.momentum)
        for iteration in range(1, self.iterations + 1):
            masks = up(parameters)
            most = self.cell // 2
            offsets = torch.randint(-most, most + 1, (len(probe.grid),), generator=generator).tolist()
            moved = shifted(masks, offsets)
            score, gradient = probe.mask_gradient(moved if self.game == "preservation" else 1 - moved)
            weight = self.weight * growth ** (iteration - 1)
            unlike = (masks.flatten(1).sort(1).values - ideal).square().mean(1)
            if iteration == 1:
                (pull,) = torch.autograd.grad(unlike.sum(), masks, retain_graph=True)
                force = weight * pull.flatten(1).norm(dim=1)
            length = gradient.flatten(1).norm(dim=1).clamp_min(torch.finfo(gradient.dtype).tiny)
            wide = (-1, *(1,) * len(probe.grid))
            push = gradient / length.view(wide) * force.view(wide)
            # Both games climb: d f(m)/dm when m is kept, d -f(1 - m)/dm = f'(1 - m) when it is removed.
            loss = weight * unlike.sum() - (push * moved).sum()
            descent.zero_grad()
            loss.backward()
            descent.step()
            with torch.no_grad():
                parameters.clamp_(0, 1)
            now = masks.detach()
            yield Iteration(
                score=float(score[0]),
                shown=now[0] if self.game == "preservation" else 1 - now[0],
                heatmap=partial(_mean, now),
                facts={f"area {a:g}": float(m.mean()) for a, m in zip(self.areas, now, strict=True)},
            )


def _ideal(area: float, pixels: int) -> Tensor:
    ideal = torch.ones(pixels)
    ideal[: int(pixels * (1 - area))] = 0
    return ideal


def _mean(masks: Tensor) -> Tensor:
    return masks.mean(0)
