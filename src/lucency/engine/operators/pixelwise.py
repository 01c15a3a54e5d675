"""Operators that leave each pixel where it is: activations, norms of a running batch, nothing at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from lucency.engine.graph import Bounded, slope_and_offset
from lucency.engine.operators.base import Operator, Site, function, module


class Pixelwise(Operator):
    """A function of the channels of one pixel."""

    pixelwise = True

    def __init__(self, site: Site, source: fx.Node, work: Callable[[Tensor], Tensor]) -> None:
        super().__init__(site, [source])
        self.work = work

    def compute(self, inputs: Sequence[Tensor], free: Sequence[bool]) -> Tensor:
        return self.work(inputs[0])


class Rectifier(Operator):
    pixelwise = True

    def compute(self, inputs: Sequence[Tensor], free: Sequence[bool]) -> Tensor:
        return torch.relu_(inputs[0]) if free[0] else torch.relu(inputs[0])


class Nothing(Operator):
    """What gives back what it gets."""

    pixelwise = True
    fresh = False

    def compute(self, inputs: Sequence[Tensor], free: Sequence[bool]) -> Tensor:
        return inputs[0]


@module(nn.ReLU)
def relu_module(site: Site, called: nn.Module, input: fx.Node) -> Operator:
    return Rectifier(site, [input])


@function(F.relu, torch.relu, "relu")
def relu(site: Site, input: fx.Node, inplace: bool = False) -> Operator:
    return Rectifier(site, [input])


@module(
    nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, Bounded,
)  # fmt: skip
def activation_module(site: Site, called: nn.Module, input: fx.Node) -> Operator:
    return Pixelwise(site, input, called)


@function(torch.sigmoid, "sigmoid", F.silu, F.gelu, F.leaky_relu, torch.tanh, F.relu6, F.hardswish)
def activation(site: Site, input: fx.Node, *args: Any, **kwargs: Any) -> Operator:
    work = getattr(torch, site.node.target) if isinstance(site.node.target, str) else site.node.target
    return Pixelwise(site, input, lambda x: work(x, *args, **kwargs))


@module(nn.BatchNorm2d)
def batch_norm_module(site: Site, called: nn.BatchNorm2d, input: fx.Node) -> Operator | None:
    if called.running_mean is None:
        return None
    slope, offset = (v.view(1, -1, 1, 1) for v in slope_and_offset(called))
    return Pixelwise(site, input, lambda x: torch.addcmul(offset, x, slope))


@module(nn.Identity, nn.Dropout, nn.Dropout2d)
def nothing_module(site: Site, called: nn.Module, input: fx.Node) -> Operator:
    return Nothing(site, [input])


@function("contiguous")
def nothing(site: Site, input: fx.Node) -> Operator:
    return Nothing(site, [input])


@function(F.dropout)
def dropout(
    site: Site, input: fx.Node, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Operator | None:
    return None if training else Nothing(site, [input])
