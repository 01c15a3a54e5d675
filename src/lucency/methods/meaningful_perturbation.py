"""Meaningful perturbation (Fong & Vedaldi, "Interpretable Explanations of Black Boxes by Meaningful Perturbation",
ICCV 2017).

The explanation is a mask: the smallest region that destroys the score when it is removed (deletion game, equation 4)

    argmin_m  lambda1 |1 - m|_1  +  lambda2 sum_u |grad m(u)|_beta^beta  +  E_tau f(Phi(x0(. - tau), m))

or the smallest that preserves it when all else is removed (preservation game: lambda1 |m|_1 - f). Phi blends the
scan with what "removed" means; the mask is coarse, smoothed on its way up, and jittered against the scan, so that it
cannot become an adversarial pattern (section 4.3). Started from the heatmap of another method, it refines that map.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from lucency.classifier import Question
from lucency.engine import Engine, Probe
from lucency.errors import ParameterError
from lucency.masks.smooth import resized, shifted, total_variation, upsampled
from lucency.methods.base import Method, Step
from lucency.methods.optimised import START_SHARE, Game, Iteration, MaskOptimiser, check_game
from lucency.removal import Blur, Removal
from lucency.scan import Scan


@dataclass(frozen=True)
class MeaningfulPerturbation(MaskOptimiser):
    """Learns the smallest mask that destroys, or preserves, the score.

    Attributes:
        game: ``"deletion"`` or ``"preservation"``.
        removal: what stands where the mask is 0; the paper's best is a blur.
        start: ``"circle"``, the smallest centred disc that suppresses 99 % of what can be suppressed (the paper's);
            ``"blank"``, nothing removed (all removed when preserving); or a method, whose map is refined.
        iterations: steps of Adam.
        area: lambda1, weight of the area, for each cell of the coarse mask.
        smooth, exponent: lambda2 and beta, weight and exponent of the total variation.
        cell: delta, grid pixels for each cell of the coarse mask.
        sigma: standard deviation of the smoothing of the mask, in grid pixels.
        jitter: tau, largest shift between mask and scan, in grid pixels.
        rate: learning rate of Adam.
    """

    name: ClassVar[str] = "meaningful_perturbation"
    formerly: ClassVar[tuple[str, ...]] = ("meaningful",)
    former_parameters: ClassVar[Mapping[str, str]] = {
        "lambda1": "area",
        "lambda2": "smooth",
        "beta": "exponent",
        "delta": "cell",
        "tau": "jitter",
    }
    title: ClassVar[str] = "Meaningful perturbation"
    paper: ClassVar[str] = "Fong & Vedaldi, ICCV 2017"
    unit: ClassVar[str] = "share of the pixel that the mask claims"

    game: Game = "deletion"
    removal: Removal = field(default_factory=Blur)
    start: Literal["circle", "blank"] | Method = "circle"
    iterations: int = 300
    area: float = 1e-4
    smooth: float = 1e-2
    exponent: float = 3.0
    cell: int = 8
    sigma: float = 5.0
    jitter: int = 4
    rate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_game(self.game)
        if self.start not in ("circle", "blank") and not isinstance(self.start, Method):
            raise ParameterError(f"A mask starts from circle, blank or a method, not {self.start!r}.")
        if self.iterations < 1 or self.cell < 1 or self.jitter < 0 or not self.sigma > 0 or not self.rate > 0:
            raise ParameterError(
                "A mask needs 1 iteration and a cell of 1 or more, a jitter of 0 or more, sigma and rate above 0."
            )

    def anytime(self) -> Self:
        return replace(self, start=self.start.anytime()) if isinstance(self.start, Method) else self

    def started(
        self, scan: Scan, question: Question, engine: Engine, probe: Probe
    ) -> Generator[Step, None, Tensor | None]:
        if not isinstance(self.start, Method):
            return None
        before: Step | None = None
        for before in self.start.steps(scan, question, engine):
            # Until there is a mask, the map is the one to start from.
            yield replace(
                before,
                done=START_SHARE * before.done,
                heatmap=partial(self._started, probe, before),
                standard_error=None,
                point=(0.0, before.score),
                reaction=None,
                also={},
                facts={},
            )
        assert before is not None
        return before.heatmap()

    def optimised(self, probe: Probe, start: Tensor | None, generator: torch.Generator) -> Iterator[Iteration]:
        mask = self._beginning(probe, start).requires_grad_(True)
        adam = torch.optim.Adam([mask], lr=self.rate)
        sign = 1.0 if self.game == "deletion" else -1.0
        for _ in range(self.iterations):
            offsets = torch.randint(-self.jitter, self.jitter + 1, (len(probe.grid),), generator=generator).tolist()
            full = shifted(upsampled(mask, probe.grid, self.sigma), offsets)
            score, gradient = probe.mask_gradient(full)
            adam.zero_grad()
            self.regularisation(mask).sum().backward()  # type: ignore[no-untyped-call]
            full.backward(sign * gradient)  # type: ignore[no-untyped-call]
            adam.step()
            with torch.no_grad():
                mask.clamp_(0, 1)
            now = mask.detach().clone()
            yield Iteration(
                score=float(score),
                shown=full.detach()[0],
                heatmap=partial(self._heatmap, now, probe.grid),
                facts={"masked share": float((1 - now).mean() if self.game == "deletion" else now.mean())},
            )

    def _started(self, probe: Probe, before: Step) -> Tensor:
        return self._heatmap(self._beginning(probe, before.heatmap()), probe.grid)

    def regularisation(self, mask: Tensor) -> Tensor:
        """The terms of equation 4 that do not look at the score, ``[B]`` for coarse masks ``[B, *cells]``."""
        claimed = (1 - mask) if self.game == "deletion" else mask
        area = claimed.abs().flatten(1).sum(1)
        return self.area * area + self.smooth * total_variation(mask, self.exponent)

    def _heatmap(self, mask: Tensor, grid: tuple[int, ...]) -> Tensor:
        full = upsampled(mask, grid, self.sigma)[0]
        return 1 - full if self.game == "deletion" else full

    def _beginning(self, probe: Probe, heatmap: Tensor | None) -> Tensor:
        cells = tuple(max(1, round(n / self.cell)) for n in probe.grid)
        claimed = torch.zeros((1, *cells), device=probe.pixels.device)
        if heatmap is not None:
            positive = heatmap.to(claimed).clamp_min(0)
            claimed = resized(positive[None], cells)
            claimed = claimed / claimed.amax().clamp_min(torch.finfo(claimed.dtype).tiny)
        elif self.start == "circle":
            claimed = self._circle(probe, cells)
        return 1 - claimed if self.game == "deletion" else claimed

    def _circle(self, probe: Probe, cells: tuple[int, ...]) -> Tensor:
        axes = [torch.linspace(-1, 1, n, device=probe.pixels.device) for n in cells]
        far = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt()
        discs = torch.stack([(far <= r).float() for r in torch.linspace(0.1, float(far.max()), 16)])
        kept = upsampled(1 - discs, probe.grid, self.sigma)
        fall = probe.clean[0] - probe.scores(kept)[:, 0]
        enough = (fall >= 0.99 * fall[-1]).nonzero()
        return discs[int(enough[0])][None]
