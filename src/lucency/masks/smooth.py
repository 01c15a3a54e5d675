"""Continuous masks: a coarse grid of parameters in 0..1, brought up smoothly to the model's grid."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from lucency.filters import gaussian_blur

COLDNESS = 20.0
"""Inverse temperature of the smooth maximum of extremal perturbations."""


def resized(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Masks ``[B, *spatial]`` -> ``[B, *size]``, linear between pixel centres; by area where that shrinks them."""
    if tuple(masks.shape[1:]) == tuple(size):
        return masks
    if all(n <= m for n, m in zip(size, masks.shape[1:], strict=True)):
        return F.interpolate(masks[:, None], size=tuple(size), mode="area")[:, 0]
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return F.interpolate(masks[:, None], size=tuple(size), mode=mode, align_corners=False)[:, 0]


def upsampled(coarse: Tensor, grid: Sequence[int], sigma: float) -> Tensor:
    """Coarse masks ``[B, *coarse]`` -> ``[B, *grid]``: linear, then a Gaussian of ``sigma`` grid pixels.

    Equation 5 of Fong & Vedaldi 2017: ``m = g_sigma * upsample(m')``.
    """
    return gaussian_blur(resized(coarse, grid), sigma)


def total_variation(masks: Tensor, beta: float) -> Tensor:
    """``sum_u |grad m(u)|_beta^beta`` over neighbours along each axis, ``[B]`` for masks ``[B, *spatial]``."""
    total = masks.new_zeros(len(masks))
    for axis in range(1, masks.ndim):
        total = total + masks.diff(dim=axis).abs().pow(beta).flatten(1).sum(1)
    return total


def shifted(masks: Tensor, offsets: Sequence[int]) -> Tensor:
    """Masks ``[B, *spatial]`` moved by whole pixels along each axis, the border repeated."""
    for axis, (offset, n) in enumerate(zip(offsets, masks.shape[1:], strict=True), 1):
        at = (torch.arange(n, device=masks.device) - offset).clamp(0, n - 1)
        masks = masks.index_select(axis, at)
    return masks


class SmoothMax:
    """The mask operator of extremal perturbations (Fong et al. 2019, equation 4), for any number of axes.

        m(u) = smax_i  k(u - i) m'(i),      smax(z) = sum_i z_i exp(T z_i) / sum_i exp(T z_i)

    with parameters m' every ``step`` pixels and a kernel k that is 1 up to half of ``sigma`` and falls off smoothly,
    so that the mask can be 0 and 1 over wide regions and is never thinner than the kernel.

    Attributes:
        coarse: size of the parameter grid along each axis; it reaches one kernel beyond the border, so that the
            border can be masked as well as the middle.
    """

    def __init__(self, grid: Sequence[int], step: int, sigma: float, device: torch.device) -> None:
        self.grid = tuple(grid)
        self.step = step
        self.radius = 1 + math.ceil(sigma / step)
        self.cells = tuple(math.ceil(n / step) for n in self.grid)
        self.coarse = tuple(n + 2 * self.radius for n in self.cells)
        reach = range(-self.radius, self.radius + 1)
        neighbours = torch.tensor(list(itertools.product(reach, repeat=len(self.grid))), dtype=torch.float32)
        within = torch.tensor(list(itertools.product(range(step), repeat=len(self.grid))), dtype=torch.float32)
        centre = (step - 1) / 2
        apart = (within[:, None] - centre - step * neighbours[None]).square().sum(-1).sqrt() / sigma
        self._kernel = torch.exp(-2 * (apart - 0.5).clamp_min(0).square()).to(device)

    def __call__(self, parameters: Tensor) -> Tensor:
        """Parameters ``[B, *coarse]`` -> masks ``[B, *grid]`` in 0..1, differentiable."""
        axes = len(self.grid)
        pooled = cast(Tensor, _Pooled.apply(parameters, self._kernel, self.cells))  # type: ignore[no-untyped-call]
        pooled = pooled.reshape(len(parameters), *self.cells, *(self.step,) * axes)
        order = [0] + [i for axis in range(axes) for i in (1 + axis, 1 + axes + axis)]
        full = pooled.permute(order).reshape(len(parameters), *(n * self.step for n in self.cells))
        return full[(slice(None), *(slice(0, n) for n in self.grid))].clamp(0, 1)


class _Pooled(torch.autograd.Function):
    """The smooth maximum over all neighbours, ``[B, *cells, step^axes]``.

    Neighbours come one after the other: all at once they are some hundred times the mask, and out of the cache.
    """

    @staticmethod
    def forward(ctx: Any, parameters: Tensor, kernel: Tensor, cells: tuple[int, ...]) -> Tensor:
        weight, total = parameters.new_zeros(()), parameters.new_zeros(())
        for factor, near in zip(kernel.T, _neighbours(parameters, cells), strict=True):
            z = near * factor
            grown = (COLDNESS * z).exp()
            weight, total = weight + grown, total + z * grown
        pooled = total / weight
        ctx.save_for_backward(parameters, kernel, pooled, weight)
        ctx.cells = cells
        return pooled

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        parameters, kernel, pooled, weight = ctx.saved_tensors
        given = gradients[0] / weight
        found = torch.zeros_like(parameters)
        both = zip(_neighbours(parameters, ctx.cells), _neighbours(found, ctx.cells), strict=True)
        for factor, (near, into) in zip(kernel.T, both, strict=True):
            z = near * factor
            change = (COLDNESS * z).exp() * (1 + COLDNESS * (z - pooled)) * given
            into += (change * factor).sum(-1, keepdim=True)
        return found, None, None


def _neighbours(parameters: Tensor, cells: tuple[int, ...]) -> Iterator[Tensor]:
    """The parameters ``[B, *cells, 1]`` at each offset from the cells, views on ``[B, *coarse]``."""
    reach = [range(coarse - n + 1) for coarse, n in zip(parameters.shape[1:], cells, strict=True)]
    for offsets in itertools.product(*reach):
        places = tuple(slice(o, o + n) for o, n in zip(offsets, cells, strict=True))
        yield parameters[(slice(None), *places, None)]
