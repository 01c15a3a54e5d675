"""Operators that slide a kernel over the map: convolutions and poolings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from lucency.engine.operators.base import FIRST, Operator, Site, module, pair
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
        self.reach = ((kernel[0] - 1) * dilation[0], (kernel[1] - 1) * dilation[1])
        self.stride = stride
        self.padding = padding
        self.outside = outside
        self.work = work
        self.products = products

    def out(self, place: Place) -> Place:
        tops, sizes = [], []
        for axis, (start, size) in enumerate(((place.top, place.height), (place.left, place.width))):
            s, p, reach = self.stride[axis], self.padding[axis], self.reach[axis]
            # Output o looks at inputs o s - p ... o s - p + reach.
            first, last = -(-(start + p - reach) // s), (start + size - 1 + p) // s
            tops.append(first)
            sizes.append(max(1, last - first + 1))
        return Place(*tops, *sizes)

    def needs(self, place: Place) -> Place:
        tops, sizes = [], []
        for axis, (start, size) in enumerate(((place.top, place.height), (place.left, place.width))):
            s, p, reach = self.stride[axis], self.padding[axis], self.reach[axis]
            tops.append(start * s - p)
            sizes.append((size - 1) * s + reach + 1)
        return Place(*tops, *sizes)

    def largest(self, size: Pair) -> Pair:
        sizes = [(n - 1 + self.reach[axis]) // self.stride[axis] + 1 for axis, n in enumerate(size)]
        return (sizes[0], sizes[1])

    def compute(self, inputs: Sequence[Tensor], free: Sequence[bool]) -> Tensor:
        return self.work(inputs[0])


@module(nn.Conv2d)
def convolution_module(site: Site, called: nn.Conv2d, input: fx.Node) -> Operator | None:
    if called.padding_mode != "zeros" or isinstance(called.padding, str) or site.axes[input] != FIRST:
        return None
    weight, bias, stride, dilation, groups = (
        called.weight.detach(), None if called.bias is None else called.bias.detach(),
        pair(called.stride), pair(called.dilation), called.groups,
    )  # fmt: skip
    padding = pair(called.padding)
    return Sliding(
        site, input, pair(called.kernel_size), stride, padding, dilation, 0.0 if any(padding) else None,
        lambda x: F.conv2d(x, weight, bias, stride, 0, dilation, groups), weight[0].numel(),
    )  # fmt: skip


@module(nn.MaxPool2d)
def maximum_module(site: Site, called: nn.MaxPool2d, input: fx.Node) -> Operator | None:
    if called.return_indices or site.axes[input] != FIRST:
        return None
    kernel, stride = pair(called.kernel_size), pair(called.stride or called.kernel_size)
    dilation = pair(called.dilation)
    return Sliding(
        site, input, kernel, stride, pair(called.padding), dilation, -torch.inf,
        lambda x: F.max_pool2d(x, kernel, stride, 0, dilation),
    )  # fmt: skip


@module(nn.AvgPool2d)
def average_module(site: Site, called: nn.AvgPool2d, input: fx.Node) -> Operator | None:
    kernel, stride = pair(called.kernel_size), pair(called.stride or called.kernel_size)
    padding = pair(called.padding)
    # At the border an average is over fewer pixels, unless padding counts.
    over_fewer = called.ceil_mode or (padding != (0, 0) and not called.count_include_pad)
    if over_fewer or called.divisor_override or site.axes[input] != FIRST:
        return None
    return Sliding(
        site, input, kernel, stride, padding, (1, 1), 0.0 if any(padding) else None,
        lambda x: F.avg_pool2d(x, kernel, stride),
    )  # fmt: skip
