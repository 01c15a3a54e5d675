"""iGOS++ (Khorram, Lawson & Fuxin, "iGOS++: Integrated Gradient Optimized Saliency by Bilateral Perturbations",
ACM CHIL 2021).

Two coarse masks are learned together: one whose removal destroys the score, one whose keeping restores it; their
product has to do both (equation 7). The descent direction is not the gradient at the mask but the *integrated*
gradient along the way to nothing (I-GOS, Qi et al., AAAI 2020, equation 5),

    grad(m) = 1/S sum_s  d f(Phi(x0, s/S m)) / dm

which sees past the plateau where a saturated score no longer reacts, so that 15 to 20 iterations do what hundreds of
plain gradient steps do. A bilateral total variation lets the mask end where the scan has an edge, and the step size
is found by a backtracking line search (Armijo).
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
from lucency.masks.smooth import resized
from lucency.methods.optimised import Iteration, MaskOptimiser
from lucency.removal import Blur, Removal


@dataclass(frozen=True)
class IGOSpp(MaskOptimiser):
    """Learns a deletion and an insertion mask by integrated-gradient descent.

    Attributes:
        removal: what stands where a mask is 0.
        iterations: descent steps.
        path: S, the points of the integrated gradient.
        cell: grid pixels for each cell of the coarse masks (the paper's 28 x 28 at 224 pixels).
        area: lambda1, weight of the mean area of the product mask.
        smooth: lambda2, weight of its bilateral total variation.
        edge: sigma squared of the bilateral weight, in display values.
        noise: standard deviation of the noise added along the path (display values), against adversarial masks.
        step: the step length at which the line search begins.
    """

    name: ClassVar[str] = "igos_pp"
    formerly: ClassVar[tuple[str, ...]] = ("igos",)
    former_parameters: ClassVar[Mapping[str, str]] = {"reach": "step"}
    title: ClassVar[str] = "iGOS++"
    paper: ClassVar[str] = "Khorram et al., ACM CHIL 2021"
    unit: ClassVar[str] = "share of the pixel that the mask claims"

    removal: Removal = field(default_factory=Blur)
    iterations: int = 15
    path: int = 10
    cell: int = 8
    area: float = 1.0
    smooth: float = 20.0
    edge: float = 0.01
    noise: float = 0.04
    step: float = 1000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations < 1 or self.path < 1 or self.cell < 1 or self.noise < 0 or not self.step > 0:
            raise ParameterError(
                "iGOS++ needs at least 1 iteration, path point and cell, noise of 0 or more, step > 0."
            )

    def optimised(self, probe: Probe, start: Tensor | None, generator: torch.Generator) -> Iterator[Iteration]:
        cells = tuple(max(1, round(n / self.cell)) for n in probe.grid)
        edges = [torch.exp(-probe.pixels.diff(dim=a).square().mean(0) / self.edge) for a in range(1, probe.pixels.ndim)]
        masks = torch.ones((2, *cells), device=probe.pixels.device)
        for _ in range(self.iterations):
            direction = self._direction(probe, masks, edges, generator)
            masks = self._line_search(probe, masks, direction, edges)
            product = resized((masks[:1] * masks[1:]), probe.grid)
            score = float(probe.scores(product)[0, 0])
            yield Iteration(
                score=score,
                shown=product[0],
                heatmap=partial(_claimed, product),
                facts={"masked share": float(1 - product.mean())},
            )

    def _regularisation(self, probe: Probe, masks: Tensor, edges: list[Tensor]) -> Tensor:
        product = (masks[0] * masks[1])[None]
        full = resized(product, probe.grid)
        variation = masks.new_zeros(())
        for axis, edge in enumerate(edges, 1):
            variation = variation + product.diff(dim=axis).square().mean()
            variation = variation + (edge * full.diff(dim=axis).square()).mean()
        return self.area * (1 - product).abs().mean() + self.smooth * 0.5 * variation

    def _pairs(self, probe: Probe, masks: Tensor) -> Tensor:
        """The four masks of equation 7 on the grid ``[4, *grid]``: two to delete with, two to insert with."""
        deletion, insertion = resized(masks, probe.grid)
        both = deletion * insertion
        return torch.stack([deletion, both, 1 - insertion, 1 - both])

    def _direction(self, probe: Probe, masks: Tensor, edges: list[Tensor], generator: torch.Generator) -> Tensor:
        at = masks.clone().requires_grad_(True)
        deletion, insertion = resized(at, probe.grid)
        both = deletion * insertion
        alphas = torch.linspace(1 / self.path, 1, self.path, device=masks.device).view(-1, *(1,) * len(probe.grid))
        # Deleting walks the mask down to nothing kept; inserting walks its complement.
        paths = [alphas * deletion, alphas * both, 1 - alphas * insertion, 1 - alphas * both]
        total = torch.zeros_like(masks)
        for sign, way in zip((1, 1, -1, -1), paths, strict=True):
            seen = probe.removed(way)
            noise = torch.randn(seen.shape, generator=generator).to(seen.device)
            _, gradient = probe.gradient(seen.detach() + self.noise * noise)
            (part,) = torch.autograd.grad(seen, at, sign * gradient / self.path, retain_graph=True)
            total = total + part / 2
        (regular,) = torch.autograd.grad(self._regularisation(probe, at, edges), at)
        return total + regular

    def _line_search(self, probe: Probe, masks: Tensor, direction: Tensor, edges: list[Tensor]) -> Tensor:
        """The first of the shrinking steps whose loss falls enough (Armijo), all evaluated in one batch."""
        lengths = [self.step * 0.2**i for i in range(8)]
        tries = [masks] + [(masks - length * direction).clamp(0, 1) for length in lengths]
        scores = probe.scores(torch.cat([self._pairs(probe, m) for m in tries]))[:, 0].view(-1, 4)
        signs = scores.new_tensor([1.0, 1.0, -1.0, -1.0])
        losses = (scores * signs).sum(1) + torch.stack([self._regularisation(probe, m, edges) for m in tries])
        slope = float(direction.square().sum())
        for length, loss, tried in zip(lengths, losses[1:], tries[1:], strict=True):
            if loss <= losses[0] - 1e-4 * length * slope:
                return tried
        return tries[int(losses.argmin())]


def _claimed(product: Tensor) -> Tensor:
    return 1 - product[0]
