"""Operators that leave each pixel where it is: activations, norms and linear layers over its channels, products with
constants."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from lucency.engine.folding import Bounded, slope_and_offset
from lucency.engine.operators.base import ATEN, FIRST, Operator, Site, function, module, named, numbers


class Pixelwise(Operator):
    """A function of the channels of one pixel.

    Args:
        site: where it is called.
        source: the node whose map it reads.
        work: makes ``[B, C', h, w]`` of ``[B, C, h, w]``.
        products: multiplications for each number that it gives.
    """

    pixelwise = True

    def __init__(self, site: Site, source: fx.Node, work: Callable[[Tensor], Tensor], products: float = 0.0) -> None:
        super().__init__(site, [source])
        self.work = work
        self.products = products

    def compute(self, inputs: Sequence[Tensor], free: Sequence[bool]) -> Tensor:
        return self.work(inputs[0])


class InPlace(Pixelwise):
    """A function of each number, for which there is one that overwrites what it reads."""

    def __init__(
        self, site: Site, source: fx.Node, work: Callable[[Tensor], Tensor], over: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__(site, source, work)
        self.over = over

    def compute(self, inputs: Sequence[Tensor], free: Sequence[bool]) -> Tensor:
        return self.over(inputs[0]) if free[0] else self.work(inputs[0])


class Nothing(Operator):
    """What gives back what it gets."""

    pixelwise = True
    fresh = False

    def compute(self, inputs: Sequence[Tensor], free: Sequence[bool]) -> Tensor:
        return inputs[0]


# -- one number at a time -------------------------------------------------------------------------------------------

IN_PLACE: dict[type[nn.Module], tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    nn.ReLU: (torch.relu, torch.relu_),
    nn.ReLU6: (F.relu6, lambda x: F.relu6(x, inplace=True)),
    nn.SiLU: (F.silu, lambda x: F.silu(x, inplace=True)),
    nn.Hardswish: (F.hardswish, lambda x: F.hardswish(x, inplace=True)),
    nn.Hardsigmoid: (F.hardsigmoid, lambda x: F.hardsigmoid(x, inplace=True)),
    nn.Sigmoid: (torch.sigmoid, torch.sigmoid_),
    nn.Tanh: (torch.tanh, torch.tanh_),
}


@module(*IN_PLACE)
def in_place_module(site: Site, called: nn.Module, input: fx.Node) -> Operator:
    return InPlace(site, input, *IN_PLACE[type(called)])


@function(*named("relu", "relu6", "silu", "hardswish", "hardsigmoid", "sigmoid", "tanh"))
def in_place(site: Site, input: fx.Node, inplace: bool = False) -> Operator:
    kind = {"relu": nn.ReLU, "relu6": nn.ReLU6, "silu": nn.SiLU, "hardswish": nn.Hardswish}
    kind |= {"hardsigmoid": nn.Hardsigmoid, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}
    return InPlace(site, input, *IN_PLACE[kind[site.name]])


@module(
    nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.Mish, nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.Hardtanh,
    nn.Tanhshrink, nn.Hardshrink, nn.Softshrink, nn.Threshold, Bounded,
)  # fmt: skip
def activation_module(site: Site, called: nn.Module, input: fx.Node) -> Operator:
    return Pixelwise(site, input, called)


@function(
    *named(
        "leaky_relu", "elu", "celu", "selu", "mish", "softplus", "softsign", "logsigmoid", "hardtanh",
        "tanhshrink", "hardshrink", "softshrink", "threshold", "abs", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt",
        "square", "neg", "reciprocal", "erf", "sin", "cos", "sign", "clamp", "clip", "clamp_min", "clamp_max",
    ),
    operator.neg, operator.abs,
)  # fmt: skip
def activation(site: Site, input: fx.Node, *args: Any, **kwargs: Any) -> Operator | None:
    if any(isinstance(a, fx.Node | Tensor) for a in (*args, *kwargs.values())):
        return None
    # That it may overwrite its input is the only thing that is said by a truth value.
    args, kwargs = tuple(a for a in args if not isinstance(a, bool)), {k: kwargs[k] for k in kwargs if k != "inplace"}
    work = site.work
    return Pixelwise(site, input, lambda x: work(x, *args, **kwargs))


@module(nn.GELU)
def gelu_module(site: Site, called: nn.GELU, input: fx.Node) -> Operator | None:
    return gelu(site, input, called.approximate)


@function(*named("gelu"))
def gelu(site: Site, input: fx.Node, approximate: str = "none") -> Operator:
    return InPlace(
        site, input, lambda x: F.gelu(x, approximate=approximate), lambda x: ATEN.gelu_(x, approximate=approximate)
    )


@module(nn.PReLU)
def prelu_module(site: Site, called: nn.PReLU, input: fx.Node) -> Operator | None:
    return prelu(site, input, called.weight.detach())


@function(*named("prelu"))
def prelu(site: Site, input: fx.Node, weight: Tensor) -> Operator | None:
    if site.axes[input] != FIRST and weight.numel() > 1:
        return None
    return Pixelwise(site, input, lambda x: F.prelu(x, weight))


@function(*named("pow"), operator.pow)
def power(site: Site, input: fx.Node, exponent: float) -> Operator | None:
    return None if isinstance(exponent, fx.Node | Tensor) else Pixelwise(site, input, lambda x: x**exponent)


@function(
    *named("contiguous", "clone", "detach", "alias"), ATEN.lift_fresh_copy, ATEN.detach_
)  # fmt: skip
def nothing(site: Site, input: fx.Node, *args: Any, **kwargs: Any) -> Operator:
    return Nothing(site, [input])


@function("to", "float", "type_as", "type", ATEN.to, ATEN._to_copy)
def nothing_new(site: Site, input: fx.Node, *args: Any, **kwargs: Any) -> Operator | None:
    return Nothing(site, [input]) if site.clean[site.node].dtype == site.clean[input].dtype else None


# -- the channels of one pixel --------------------------------------------------------------------------------------


@module(nn.BatchNorm2d)
def batch_norm_module(site: Site, called: nn.BatchNorm2d, input: fx.Node) -> Operator | None:
    if called.running_mean is None or site.axes[input] != FIRST:
        return None
    slope, offset = (v.view(1, -1, 1, 1) for v in slope_and_offset(called))
    return Pixelwise(site, input, lambda x: torch.addcmul(offset, x, slope))


def last(work: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Lets a function that wants the channels last work on ``[B, C, h, w]``."""
    return lambda x: work(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@module(nn.Linear)
def linear_module(site: Site, called: nn.Linear, input: fx.Node) -> Operator | None:
    if site.axes[input][3] != 1:
        return None
    return Pixelwise(site, input, last(called), called.in_features)


@module(nn.LayerNorm)
def layer_norm_module(site: Site, called: nn.LayerNorm, input: fx.Node) -> Operator | None:
    return layer_norm(site, input, called.normalized_shape, called.weight, called.bias, called.eps)


@function(*named("layer_norm"))
def layer_norm(
    site: Site,
    input: fx.Node,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Operator | None:
    shape = tuple(normalized_shape)
    if len(shape) != 1 or site.axes[input][3] != 1:
        return None
    return Pixelwise(site, input, last(lambda x: F.layer_norm(x, shape, weight, bias, eps)))


@function(*named("rms_norm"))
def rms_norm(
    site: Site,
    input: fx.Node,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Operator | None:
    shape = tuple(normalized_shape)
    if len(shape) != 1 or site.axes[input][3] != 1:
        return None
    return Pixelwise(site, input, last(lambda x: F.rms_norm(x, shape, weight, eps)))


@function(*named("softmax", "log_softmax"))
def softmax(
    site: Site, input: fx.Node, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Operator | None:
    if dim is None or site.axis(input, dim) != 1:
        return None
    work = F.softmax if site.name == "softmax" else F.log_softmax
    return Pixelwise(site, input, lambda x: work(x, 1))


@module(nn.Softmax)
def softmax_module(site: Site, called: nn.Softmax, input: fx.Node) -> Operator | None:
    over = called.dim is not None and site.axis(input, called.dim) == 1
    return Pixelwise(site, input, lambda x: F.softmax(x, 1)) if over else None


@function(F.normalize)
def normalize(
    site: Site, input: fx.Node, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None
) -> Operator | None:
    return Pixelwise(site, input, lambda x: F.normalize(x, p, 1, eps)) if site.axis(input, dim) == 1 else None


# -- with constants -------------------------------------------------------------------------------------------------


def with_constant(site: Site, one: Any, other: Any, work: Callable[[Any, Any], Tensor]) -> Operator | None:
    """``work`` on a map and a number, or a constant that is the same all over the map."""
    source, constant = (one, other) if site.is_map(one) else (other, one)
    if isinstance(constant, Tensor):
        constant = numbers(constant, site.axes[source])
    if constant is None or isinstance(constant, fx.Node) or not site.is_map(source):
        return None
    if site.is_map(one):
        return Pixelwise(site, source, lambda x: work(x, constant))
    return Pixelwise(site, source, lambda x: work(constant, x))
