"""Operators that make one map of several: sums, concatenations."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from lucency.engine.operators.base import FIRST, Operator, Running, Site, function, maps, named
from lucency.engine.operators.pixelwise import with_constant
from lucency.engine.windows import put


class Joint(Operator):
    """A function of the numbers at the same place of two maps; one of them may have a single channel.

    Args:
        site: where it is called.
        sources: the two nodes.
        work: takes both, and where to write.
    """

    pixelwise = True

    def __init__(self, site: Site, sources: Sequence[fx.Node], work: Callable[..., Tensor]) -> None:
        super().__init__(site, sources)
        self.work = work
        channels = [site.size(s)[0] for s in sources]
        self.wide = [c == max(channels) for c in channels]

    def compute(self, inputs: Sequence[Tensor], free: Sequence[bool]) -> Tensor:
        out = next((x for x, mine, wide in zip(inputs, free, self.wide, strict=True) if mine and wide), None)
        return self.work(*inputs, out=out)


class Gate(Operator):
    """A product of a map with one number for each channel that depends on the whole scan, as in squeeze-and-excitation.

    Args:
        site: where it is called.
        source: the node whose map it reads.
        gate: the node that gives ``[B, C, 1, 1]``.
    """

    whole = True

    def __init__(self, site: Site, source: fx.Node, gate: fx.Node) -> None:
        super().__init__(site, [source])
        self.gate = gate

    def run(self, running: Running, node: fx.Node) -> Tensor:
        (source,) = self.sources
        gate: Tensor = maps(running.value(self.gate), FIRST if self.axes is None else self.axes)
        x = running.whole(source)
        return x.mul_(gate) if running.windowed(source) or running.mine(source) else x * gate


def joint(site: Site, one: Any, other: Any, work: Callable[..., Tensor]) -> Operator | None:
    """``work`` on two maps of one size and one scale, or on a map and a constant."""
    if not (site.is_map(one) and site.is_map(other)):
        return with_constant(site, one, other, work)
    (channels, *size), (others, *its) = site.size(one), site.size(other)
    fits = channels == others or 1 in (channels, others)
    alike = size == its and site.axes[one] == site.axes[other] and site.scale[one] == site.scale[other]
    return Joint(site, [one, other], work) if fits and alike else None


@function(operator.add, operator.iadd, *named("add"))
def add(site: Site, input: Any, other: Any, alpha: float = 1) -> Operator | None:
    return joint(site, input, other, torch.add if alpha == 1 else partial(torch.add, alpha=alpha))


@function(operator.sub, operator.isub, *named("sub", "subtract"))
def subtract(site: Site, input: Any, other: Any, alpha: float = 1) -> Operator | None:
    return joint(site, input, other, torch.sub if alpha == 1 else partial(torch.sub, alpha=alpha))


@function(*named("rsub"))
def subtract_from(site: Site, input: Any, other: Any, alpha: float = 1) -> Operator | None:
    return joint(site, other, input, torch.sub) if alpha == 1 else None


@function(operator.mul, operator.imul, *named("mul", "multiply"))
def multiply(site: Site, input: Any, other: Any) -> Operator | None:
    for source, gate in ((input, other), (other, input)):
        if site.is_map(source) and is_gate(site, source, gate):
            return Gate(site, source, gate)
    return joint(site, input, other, torch.mul)


def is_gate(site: Site, source: fx.Node, gate: Any) -> bool:
    """Whether a node gives one number for each channel of a map."""
    if not isinstance(gate, fx.Node) or not isinstance(site.clean[gate], Tensor) or site.clean[gate].ndim != 4:
        return False
    shape = maps(site.clean[gate], site.axes[source]).shape
    return tuple(shape[2:]) == (1, 1) and shape[1] == site.size(source)[0] and site.size(source)[1:] != (1, 1)


@function(operator.truediv, operator.itruediv, *named("div", "divide", "true_divide"))
def divide(site: Site, input: Any, other: Any) -> Operator | None:
    return joint(site, input, other, torch.div)


@function(*named("maximum", "max"))
def maximum(site: Site, input: Any, other: Any) -> Operator | None:
    return joint(site, input, other, torch.maximum) if site.is_map(other) else None


@function(*named("minimum", "min"))
def minimum(site: Site, input: Any, other: Any) -> Operator | None:
    return joint(site, input, other, torch.minimum) if site.is_map(other) else None


class Concatenation(Operator):
    """The channels of several maps behind one another.

    In a DenseNet each layer reads all layers before it. What it reads is kept in one buffer that has room for all, and
    each layer only adds its own part: ``longest`` is, for each way of beginning, the concatenation that goes on most.

    Attributes:
        parts: the sources; where the first is a concatenation itself, its parts.
        longer: all concatenations that begin with the same parts, the shortest first.
    """

    fresh = False

    def __init__(self, site: Site, sources: Sequence[fx.Node]) -> None:
        super().__init__(site, sources)
        self.ends = torch.tensor([site.size(s)[0] for s in sources]).cumsum(0).tolist()
        self.parts: tuple[fx.Node, ...] = tuple(sources)
        self.longer: list[fx.Node] = [site.node]

    def run(self, running: Running, node: fx.Node) -> Tensor:
        """A view of the buffer that holds the longest concatenation with the same beginning."""
        windows = running.windowed(node)
        longest = [n for n in self.longer if running.windowed(n) == windows][-1]
        if longest not in running.buffers:
            clean = running.clean(longest)
            running.buffers[longest] = (
                running.gathered(longest, running.places[longest])
                if windows
                else clean.new_empty(len(running.group), *clean.shape[2:], clean.shape[1]),
                0,
            )
        buffer, filled = running.buffers[longest]
        for part, start, end in zip(self.sources, [0, *self.ends], self.ends, strict=False):
            if end <= filled:
                continue
            room = buffer[..., start:end]
            if windows:
                place = running.places[part]
                put(room, running.places[longest], running.windows(part).permute(0, 2, 3, 1), place)
            else:
                room.copy_(running.whole(part).permute(0, 2, 3, 1))
        end = self.ends[-1]
        running.buffers[longest] = (buffer, max(end, filled))
        if windows:
            outer, inner = running.places[longest], running.places[node]
            top, left = inner.top - outer.top, inner.left - outer.left
            buffer = buffer[:, top : top + inner.height, left : left + inner.width]
        if longest is node:
            del running.buffers[longest]
        return buffer[..., :end].permute(0, 3, 1, 2)


@function(*named("cat", "concat", "concatenate"))
def concatenate(site: Site, tensors: Sequence[fx.Node], dim: int = 0) -> Operator | None:
    if not all(site.is_map(t) for t in tensors):
        return None
    first = tensors[0]
    alike = all(site.axes[t] == site.axes[first] and site.scale[t] == site.scale[first] for t in tensors)
    return Concatenation(site, tensors) if alike and site.axis(first, dim) == 1 else None


def link(operators: dict[fx.Node, Operator]) -> None:
    """Tells each concatenation which others go on from it."""
    found = {node: how for node, how in operators.items() if isinstance(how, Concatenation)}
    for how in found.values():
        first, *rest = how.sources
        before = found.get(first)
        how.parts = (*(before.parts if before else (first,)), *rest)
    for how in found.values():
        longer = [node for node, other in found.items() if other.parts[: len(how.parts)] == how.parts]
        how.longer = sorted(longer, key=lambda node: len(found[node].parts))
