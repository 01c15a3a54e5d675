"""What the engine has to know of an operator to compute it on windows, and how it finds the one that a node calls.

An operator is one entry: a function that gets what the network's author has written (the arguments of the call) and
gives an :class:`Operator`, or ``None`` for a case in which windows would be wrong. It is found by the module's type,
the function, or the method's name:

    @function(torch.relu, F.relu, "relu")
    def relu(site: Site, input: fx.Node, inplace: bool = False) -> Operator | None:
        return Pixelwise(site, [input], torch.relu)

Inside the engine every map is ``[B, C, H, W]``, whatever order of axes the network keeps it in; the order is
remembered beside it, so that a permutation costs nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from lucency.engine.windows import Group, Pair, Place, Scale

ATEN = torch.ops.aten
Axes = tuple[int, int, int, int]
"""The order in which a network keeps the axes of a map: at each place the axis of ``[B, C, H, W]`` that is there."""
FIRST: Axes = (0, 1, 2, 3)


class Site:
    """Where an operator is called: its node, and what is known of the nodes before it.

    Attributes:
        node: the node that calls it.
        clean: what each node gives on the clean scan.
        axes: the order of the axes of each node that is a map.
        scale: how many pixels of the scan a pixel of each map stands for.
    """

    def __init__(
        self, node: fx.Node, clean: Mapping[fx.Node, Any], axes: Mapping[fx.Node, Axes], scale: Mapping[fx.Node, Scale]
    ) -> None:
        self.node = node
        self.clean = clean
        self.axes = axes
        self.scale = scale

    @property
    def name(self) -> str:
        """Of the function or method, without the underscore of one that overwrites its input."""
        return name_of(self.node)

    @property
    def work(self) -> Callable[..., Tensor]:
        """The function, or the one that does what the method does; one that does not overwrite its input."""
        of = [ATEN] if isinstance(self.node.target, torch._ops.OpOverload) else [F, torch]
        found: Callable[..., Tensor] = next(getattr(where, self.name) for where in of if hasattr(where, self.name))
        return found

    def is_map(self, value: object) -> bool:
        """Whether an argument is a map that windows are known on."""
        return isinstance(value, fx.Node) and value in self.axes

    def map(self, node: fx.Node) -> Tensor:
        """The clean map ``[1, C, H, W]``."""
        return maps(self.clean[node], self.axes[node])

    def size(self, node: fx.Node) -> tuple[int, int, int]:
        """Channels, height and width of a map."""
        _, channels, height, width = self.map(node).shape
        return (channels, height, width)

    def axis(self, node: fx.Node, dim: int) -> int:
        """Which axis of ``[B, C, H, W]`` the network's axis ``dim`` of a map is."""
        return self.axes[node][dim]


class Running(Protocol):
    """A batch on its way through the network, as an operator sees it."""

    group: Group
    places: dict[fx.Node, Place]
    buffers: dict[fx.Node, tuple[Tensor, int]]

    def windowed(self, node: fx.Node) -> bool:
        """Whether a node is computed on windows."""

    def clean(self, node: fx.Node) -> Tensor:
        """The clean map ``[1, C, H, W]``."""

    def windows(self, node: fx.Node) -> Tensor:
        """The windows ``[B, C, h, w]`` of a node that is computed on windows."""

    def under(self, node: fx.Node, place: Place, outside: float | None) -> tuple[Tensor, bool]:
        """What stands under other windows of the same maps, and whether it may be overwritten; ``outside`` stands
        where no map is, if that matters."""

    def gathered(self, node: fx.Node, place: Place) -> Tensor:
        """The clean map under windows, ``[B, h, w, C]``; zero outside of the map."""

    def stamped(self, how: Operator, values: Tensor, node: fx.Node) -> Tensor:
        """What an operator's own constants ``[1, C, H, W]`` are under the windows of its node; zero outside."""

    def clear(self, x: Tensor, node: fx.Node, place: Place, outside: float) -> None:
        """Overwrites what lies outside of the map in windows ``[B, C, h, w]``."""

    def whole(self, node: fx.Node) -> Tensor:
        """The whole maps ``[B, C, H, W]``."""

    def value(self, node: fx.Node) -> Any:
        """What the network has at a node, for the whole batch."""

    def mine(self, node: fx.Node) -> bool:
        """Whether the value of a node may be overwritten: it was made for this batch, and nobody else looks at it."""

    def called(self, node: fx.Node) -> Tensor:
        """The whole maps ``[B, C, H, W]`` that the network's own operator gives."""


class Operator:
    """One call of an operator, for maps of one size.

    Args:
        site: where it is called.
        sources: the nodes whose maps it reads.

    Attributes:
        axes: the order of the axes of what it gives; ``None`` where that is no map any more.
        scale: how many pixels of the scan a pixel of it stands for.
        outside: what it reads outside of a map, where it looks there.
        fresh: it gives memory of its own.
        pixelwise: a pixel depends on the pixels at its own place alone.
        whole: it is never computed on windows.
        products: multiplications for each number that it gives.
    """

    axes: Axes | None
    outside: float | None = None
    fresh: bool = True
    pixelwise: bool = False
    whole: bool = False
    products: float = 0.0

    def __init__(self, site: Site, sources: Sequence[fx.Node]) -> None:
        self.sources = list(sources)
        self.axes = site.axes[sources[0]]
        self.scale: Scale = site.scale[sources[0]]

    def out(self, place: Place) -> Place:
        """The outputs that look at some pixel of a window."""
        return place

    def needs(self, place: Place) -> Place:
        """The inputs that a window of outputs looks at."""
        return place

    def largest(self, size: Pair) -> Pair:
        """The size of the largest window of outputs that windows of this size can give."""
        return size

    def compute(self, inputs: Sequence[Tensor], free: Sequence[bool]) -> Tensor:
        """Outputs ``[B, C', h', w']`` from the windows ``[B, C, h, w]`` of each source.

        Args:
            inputs: the windows.
            free: which of them may be overwritten.
        """
        raise NotImplementedError

    def run(self, running: Running, node: fx.Node) -> Tensor:
        """The windows of a node, or its whole maps where it is not computed on windows."""
        if running.windowed(node):
            place = self.needs(running.places[node])
            under = [running.under(s, place, self.outside) for s in self.sources]
            return self.compute([x for x, _ in under], self._free([mine for _, mine in under]))
        if self.pixelwise:
            free = self._free([running.windowed(s) or running.mine(s) for s in self.sources])
            return self.compute([running.whole(s) for s in self.sources], free)
        return running.called(node)

    def _free(self, mine: Sequence[bool]) -> Sequence[bool]:
        # The same map read twice is not free for either.
        return mine if len(set(self.sources)) == len(self.sources) else [False] * len(mine)


class Unknown(Operator):
    """Whatever else gives a map. It gets whole maps, and from there on everything has changed everywhere."""

    whole = True
    fresh = False

    def __init__(self, products: float) -> None:
        self.products = products
        self.sources = []
        self.axes = FIRST
        self.scale = (1, 1)

    def run(self, running: Running, node: fx.Node) -> Tensor:
        return running.called(node)


Entry = Callable[..., Operator | None]
MODULES: dict[type[nn.Module], Entry] = {}
FUNCTIONS: dict[Any, Entry] = {}


def module(*kinds: type[nn.Module]) -> Callable[[Entry], Entry]:
    """Enters what modules of exactly these types do: called with the site, the module, and its arguments."""

    def enter(entry: Entry) -> Entry:
        MODULES.update(dict.fromkeys(kinds, entry))
        return entry

    return enter


def function(*names: object) -> Callable[[Entry], Entry]:
    """Enters what functions, or methods of tensors by their names, do: called with the site and their arguments."""

    def enter(entry: Entry) -> Entry:
        FUNCTIONS.update(dict.fromkeys(names, entry))
        return entry

    return enter


def named(*names: str) -> list[object]:
    """All ways to call the operators of these names, for :func:`function`."""
    both = [n for name in names for n in (name, f"{name}_")]
    return [*names, *(getattr(where, n) for where in (torch, F, ATEN) for n in both if hasattr(where, n))]


def name_of(node: fx.Node) -> str:
    """Of the function or method that a node calls, without the underscore of one that overwrites its input."""
    if isinstance(node.target, str):
        return node.target.removesuffix("_")
    return str(getattr(getattr(node.target, "overloadpacket", node.target), "__name__", "")).removesuffix("_")


def find(site: Site, modules: Mapping[str, nn.Module], constant: Mapping[fx.Node, Any]) -> Operator | None:
    """The operator that a node calls; ``None`` where there is none that works on windows.

    Args:
        site: the node.
        modules: the network's, by name.
        constant: what the nodes give that do not depend on the scan.
    """
    node = site.node
    if not any(s in site.axes for s in node.all_input_nodes):
        return None
    args: Any = fx.node.map_arg(node.args, lambda n: constant.get(n, n))
    kwargs: Any = fx.node.map_arg(node.kwargs, lambda n: constant.get(n, n))
    if node.op == "call_module":
        called = modules[str(node.target)]
        entry, args = MODULES.get(type(called)), (called, *args)
    elif node.op == "call_method":
        entry = FUNCTIONS.get(name_of(node))
    else:
        entry = FUNCTIONS.get(getattr(node.target, "overloadpacket", node.target))
    if entry is None:
        return None
    try:
        bound = inspect.signature(entry).bind(site, *args, **kwargs)
    except TypeError:
        # Called in a way that the entry does not know.
        return None
    return entry(*bound.args, **bound.kwargs)


def maps(value: Tensor, axes: Axes) -> Tensor:
    """``[B, C, H, W]`` from what the network keeps in another order."""
    return value if axes == FIRST else value.permute([axes.index(i) for i in range(4)])


def kept(value: Tensor, axes: Axes) -> Tensor:
    """The order in which the network keeps a map, from ``[B, C, H, W]``."""
    return value if axes == FIRST else value.permute(axes)


def pair(value: Any) -> Pair:
    """One number for both axes, or one for each."""
    if isinstance(value, int):
        return (value, value)
    one, *other = value
    return (int(one), int(other[0] if other else one))


def numbers(value: Tensor, axes: Axes) -> Tensor | None:
    """Constants that are broadcast over a map, as ``[1, C or 1, 1, 1]``; ``None`` where they vary over it."""
    if value.ndim > 4:
        return None
    value = maps(value.reshape((1,) * (4 - value.ndim) + tuple(value.shape)), axes)
    return value if value.shape[0] == value.shape[2] == value.shape[3] == 1 else None
