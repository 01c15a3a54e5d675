"""Operators that slide a kernel over the map: convolutions and poolings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from lucency.engine.operators.base import FIRST, Operator, Running, Site, function, module, named, pair
from lucency.engine.windows import Pair, Place


class Sliding(Operator):
    """The geometry of a convolution or a pooling, along each axis, and what it reads outside of the map.

    Args:
        site: where it is called.
        source: the node whose map it reads.
        kernel: its size.
        stride: by how many inputs an output lies from the next.
        padding: how far the first output looks over the border.
        dilation: by how many inputs two numbers of the kernel lie apart.
        outside: what it reads outside of the map; ``None`` where it does not look there.
        work: outputs ``[B, C', h', w']`` from all the inputs ``[B, C, h, w]`` that they look at.
        products: multiplications for each output.

    Attributes:
        factor: ``[1, 1, H', W']``, by which outputs are multiplied that lie at the border.
    """

    def __init__(
        self,
        site: Site,
        source: fx.Node,
        kernel: Pair,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        outside: float | None,
        work: Callable[[Tensor], Tensor],
        products: float = 0.0,
    ) -> None:
        super().__init__(site, [source])
        self.scale = (self.scale[0] * stride[0], self.scale[1] * stride[1])
        self.span = ((kernel[0] - 1) * dilation[0], (kernel[1] - 1) * dilation[1])
        self.stride = stride
        self.padding = padding
        self.outside = outside
        self.work = work
        self.products = products
        self.factor: Tensor | None = None

    def run(self, running: Running, node: fx.Node) -> Tensor:
        result = super().run(running, node)
        if self.factor is not None and running.windowed(node):
            result *= running.stamped(self, self.factor, node)
        return result

    def out(self, place: Place) -> Place:
        tops, sizes = [], []
        for axis, (start, size) in enumerate(((place.top, place.height), (place.left, place.width))):
            s, p, span = self.stride[axis], self.padding[axis], self.span[axis]
            # Output o looks at inputs o s - p ... o s - p + span.
            first, last = -(-(start + p - span) // s), (start + size - 1 + p) // s
            tops.append(first)
            sizes.append(max(1, last - first + 1))
        return Place(*tops, *sizes)

    def needs(self, place: Place) -> Place:
        tops, sizes = [], []
        for axis, (start, size) in enumerate(((place.top, place.height), (place.left, place.width))):
            s, p, span = self.stride[axis], self.padding[axis], self.span[axis]
            tops.append(start * s - p)
            sizes.append((size - 1) * s + span + 1)
        return Place(*tops, *sizes)

    def largest(self, size: Pair) -> Pair:
        sizes = [(n - 1 + self.span[axis]) // self.stride[axis] + 1 for axis, n in enumerate(size)]
        return (sizes[0], sizes[1])

    def compute(self, inputs: Sequence[Tensor], free: Sequence[bool]) -> Tensor:
        return self.work(inputs[0])


@module(nn.Conv2d)
def convolution(site: Site, called: nn.Conv2d, input: fx.Node) -> Operator | None:
    kernel, dilation = pair(called.kernel_size), pair(called.dilation)
    if called.padding_mode != "zeros" or site.axes[input] != FIRST:
        return None
    if called.padding == "same":
        # What is padded more, if anything, is the far side, which does not move the windows.
        padding = ((kernel[0] - 1) * dilation[0] // 2, (kernel[1] - 1) * dilation[1] // 2)
    else:
        padding = (0, 0) if isinstance(called.padding, str) else pair(called.padding)
    weight, bias, stride, groups = (
        called.weight.detach(), None if called.bias is None else called.bias.detach(), pair(called.stride),
        called.groups,
    )  # fmt: skip
    outside = None if padding == (0, 0) and called.padding != "same" else 0.0
    return Sliding(
        site, input, kernel, stride, padding, dilation, outside,
        lambda x: F.conv2d(x, weight, bias, stride, 0, dilation, groups), weight[0].numel(),
    )  # fmt: skip


@module(nn.MaxPool2d)
def maximum_module(site: Site, called: nn.MaxPool2d, input: fx.Node) -> Operator | None:
    return maximum(
        site, input, called.kernel_size, called.stride, called.padding, called.dilation, called.ceil_mode,
        called.return_indices,
    )  # fmt: skip


@function(*named("max_pool2d"))
def maximum(
    site: Site,
    input: fx.Node,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Operator | None:
    if return_indices or site.axes[input] != FIRST:
        return None
    kernel, step, dilated = pair(kernel_size), pair(stride or kernel_size), pair(dilation)
    return Sliding(
        site, input, kernel, step, pair(padding), dilated, -torch.inf,
        lambda x: F.max_pool2d(x, kernel, step, 0, dilated),
    )  # fmt: skip


@module(nn.AvgPool2d)
def average_module(site: Site, called: nn.AvgPool2d, input: fx.Node) -> Operator | None:
    return average(
        site, input, called.kernel_size, called.stride, called.padding, called.ceil_mode, called.count_include_pad,
        called.divisor_override,
    )  # fmt: skip


@function(*named("avg_pool2d"))
def average(
    site: Site,
    input: fx.Node,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Operator | None:
    if site.axes[input] != FIRST:
        return None
    kernel, step, around = pair(kernel_size), pair(stride or kernel_size), pair(padding)
    found = Sliding(
        site, input, kernel, step, around, (1, 1), 0.0 if any(around) or ceil_mode else None,
        lambda x: F.avg_pool2d(x, kernel, step, divisor_override=divisor_override),
    )  # fmt: skip
    if divisor_override is None and (ceil_mode or (any(around) and not count_include_pad)):
        # At the border the average is over fewer pixels.
        ones = torch.ones_like(site.map(input)[:, :1])
        found.factor = F.avg_pool2d(ones, kernel, step, around, ceil_mode, count_include_pad)
        height, width = found.factor.shape[2:]
        beyond = F.pad(ones, (around[1], around[1] + kernel[1] + step[1], around[0], around[0] + kernel[0] + step[0]))
        found.factor /= found.work(beyond)[..., :height, :width]
    return found


@module(nn.ZeroPad2d, nn.ConstantPad2d)
def pad_module(site: Site, called: nn.ConstantPad2d, input: fx.Node) -> Operator | None:
    return pad(site, input, called.padding, value=called.value)


@function(F.pad, *named("pad", "constant_pad_nd"))
def pad(
    site: Site, input: fx.Node, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Operator | None:
    if isinstance(mode, int | float):
        mode, value = "constant", mode
    around = [*pad, *[0] * (8 - len(pad))]
    # The last axis of the network comes first.
    sides = {site.axes[input][3 - i]: (around[2 * i], around[2 * i + 1]) for i in range(4)}
    if mode != "constant" or any(sides[0]) or any(sides[1]):
        return None
    padding, outside = (sides[2][0], sides[3][0]), float(value or 0)
    return Sliding(site, input, (1, 1), (1, 1), padding, (1, 1), outside, torch.clone)
