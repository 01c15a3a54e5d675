"""Blur integrated gradients (Xu, Venugopalan & Sundararajan, "Attribution in Scale and Space", CVPR 2020).

Integrated gradients along a path of ever sharper scans: nothing is black on the way, only details come in.

    BlurIG(u) = integral over alpha of  df(L(alpha)) / dL_u * dL_u / dalpha                       (equation 4)

L(alpha) is the scan under a Gaussian whose standard deviation falls evenly from ``sigma`` to nothing, and the parts
add up to f(x) - f(L(0)).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from lucency.classifier import Question
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.methods.base import Method, Step
from lucency.methods.path import Order, Rule, follow
from lucency.scan import Scan

_SHARP = 0.1
"""A sampled Gaussian this narrow is one pixel wide to float32 precision, so that the path really ends at the scan."""


@dataclass(frozen=True)
class BlurIntegratedGradients(Method):
    """The gradient integrated from the blurred scan to the scan itself.

    Attributes:
        sigma: standard deviation of the Gaussian at the start of the path, in grid pixels (the paper's 50).
        rule, alphas, tolerance, order: as for integrated gradients.
    """

    name: ClassVar[str] = "blur_integrated_gradients"
    title: ClassVar[str] = "Blur integrated gradients"
    paper: ClassVar[str] = "Xu, Venugopalan & Sundararajan, CVPR 2020"
    axes: ClassVar[tuple[str, str]] = ("alpha", "score")
    unit: ClassVar[str] = "share of the score"
    needs_gradients: ClassVar[bool] = True
    grainy: ClassVar[bool] = True

    sigma: float = 50.0
    rule: Rule = "adaptive"
    alphas: int = 100
    tolerance: float = 0.01
    order: Order = "ascending"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sigma > _SHARP:
            raise ParameterError(f"The blur needs a sigma above {_SHARP} pixels, not {self.sigma}.")

    def anytime(self) -> Self:
        return replace(self, order="spread")

    def steps(self, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        probe = engine.open(scan, question)

        def path(alpha: float) -> tuple[Tensor, Tensor]:
            sigma = self.sigma + alpha * (_SHARP - self.sigma)
            blurred, change = blur_and_change(probe.pixels, sigma)
            return blurred[None], change[None] * (_SHARP - self.sigma)

        yield from follow(probe, path, self.rule, self.alphas, self.tolerance, self.order)


def blur_and_change(pixels: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """``[C, *spatial]`` under a separable Gaussian, the border repeated, and the derivative of that by sigma."""
    # Cut so far out that the support, which grows in whole pixels, has no share in the change.
    radius = max(1, math.ceil(6 * sigma))
    t = torch.arange(-radius, radius + 1, device=pixels.device)
    kernel = torch.exp(-0.5 * (t.double() / sigma) ** 2)
    kernel = kernel / kernel.sum()
    by_sigma = kernel * (t**2 - (kernel * t**2).sum()) / sigma**3
    blurred, change = pixels, torch.zeros_like(pixels)
    for axis in range(1, pixels.ndim):
        n = pixels.shape[axis]
        source = (torch.arange(n, device=pixels.device)[:, None] + t).clamp(0, n - 1)
        blur, by = (
            torch.zeros(n, n, dtype=k.dtype, device=k.device).scatter_add_(1, source, k.expand(n, -1)).to(pixels.dtype)
            for k in (kernel, by_sigma)
        )
        change = _along(change, blur, axis) + _along(blurred, by, axis)
        blurred = _along(blurred, blur, axis)
    return blurred, change


def _along(pixels: Tensor, matrix: Tensor, axis: int) -> Tensor:
    return (pixels.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
