"""Incremental inference: recompute only what a small change of the scan can have changed.

After Krypton (Nakandala, Kumar & Papakonstantinou, SIGMOD 2019), for any network that has a graph. The clean scan goes
through the network once and its activations are kept. For a batch of scans that each differ from it inside one box,
every layer then computes just the window of its output that the box can have reached; around it stands the clean
activation. Nothing is approximated, unless a ``receptive_field`` below 1 asks for it. An operator that is not known, or
one whose window covers most of the map, gets the whole activation, and from there on the rest runs dense.

Everything is channels-last: a row of a window is then one piece of memory, and a window is gathered by copying rows.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from lucency.engine.folding import overwrites
from lucency.engine.operators.base import FIRST, Axes, Operator, Site, Unknown, find, kept, maps
from lucency.engine.operators.joining import Joint, link
from lucency.engine.operators.sliding import Sliding
from lucency.engine.windows import Group, Pair, Place, Scale, put


class NotIncrementalError(Exception):
    """The network's graph does not give what the classifier gives."""


@dataclass(frozen=True)
class Plan:
    """Which nodes are computed on windows, for boxes of one size; from the others on the maps are whole.

    Attributes:
        size: the boxes' size.
        windows: the nodes that stay windows.
        stride: boxes go together whose corners are equal modulo this.
        caps: the largest window of each node, where the receptive field is cut.
        products: multiplications of one evaluation.
        work: the same, and as much for each number copied as copying costs.
    """

    size: Pair
    windows: frozenset[fx.Node]
    stride: Pair
    caps: dict[fx.Node, Pair]
    products: float
    work: float


COPY = 24.0
"""Multiplications in the time in which one number is read and written (2-core AVX2 machine, measured)."""


class Incremental:
    """The clean activations of one scan, and the outputs for what differs from it inside a box.

    Args:
        graph: from :func:`lucency.engine.graph.traced`.
        clean: ``[1, C, H, W]``, what goes into the network.
        layers: the modules whose outputs are watched.

    Attributes:
        nodes: of the graph, in the order in which they are computed.
        clean: what each node gives on the clean scan, as the network keeps it.
        constant: the nodes that do not depend on the scan.
        operators: what the nodes are that are known on windows.
        axes: the order of the axes of each node that is a map.
        scale: how many pixels of the scan a pixel of each map stands for.
        outputs: ``[1, K]``, of the clean scan.
    """

    def __init__(self, graph: fx.GraphModule, clean: Tensor, layers: Sequence[str] = ()) -> None:
        self.graph = graph
        self.layers = frozenset(layers)
        self.modules = dict(graph.named_modules())
        self.nodes: list[fx.Node] = list(graph.graph.nodes)
        self.clean: dict[fx.Node, Any] = {}
        self.constant: set[fx.Node] = set()
        self.operators: dict[fx.Node, Operator] = {}
        self.axes: dict[fx.Node, Axes] = {}
        self.scale: dict[fx.Node, Scale] = {}
        self._padded: dict[object, tuple[int, Tensor]] = {}
        self._plans: dict[Any, Plan] = {}
        self._places: dict[Any, dict[fx.Node, Place]] = {}
        self.dies: dict[fx.Node, list[fx.Node]] = {}
        used: set[fx.Node] = set()
        for node in reversed(self.nodes):
            for source in node.all_input_nodes:
                if source not in used:
                    used.add(source)
                    self.dies.setdefault(node, []).append(source)
        with torch.inference_mode():
            for node in self.nodes:
                self.clean[node] = self._run_clean(node, clean)
                if node.op not in ("placeholder", "output") and self.constant.issuperset(node.all_input_nodes):
                    self.constant.add(node)
        for node in self.nodes:
            self._learn(node)
        link(self.operators)

    def _run_clean(self, node: fx.Node, clean: Tensor) -> Any:
        if node.op == "placeholder":
            if self.clean:
                raise NotIncrementalError
            return clean.contiguous(memory_format=torch.channels_last)
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.graph)
        args = fx.node.map_arg(node.args, lambda n: self.clean[n])
        kwargs = fx.node.map_arg(node.kwargs, lambda n: self.clean[n])
        if node.op == "output":
            return args[0]
        return self.call(node, args, kwargs)

    def call(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        if node.op == "call_module":
            return self.modules[str(node.target)](*args, **kwargs)
        if overwrites(node, self.modules):
            args = (args[0].clone(), *args[1:])
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)

    def _learn(self, node: fx.Node) -> None:
        """Finds out what a node does to windows; what is not known runs dense."""
        clean = self.clean[node]
        if node.op == "placeholder":
            self.axes[node], self.scale[node] = FIRST, (1, 1)
            return
        if node.op == "output" or (isinstance(clean, Tensor) and clean.shape[:1] != (1,)):
            return
        constant = {n: self.clean[n] for n in node.all_input_nodes if n in self.constant}
        found = find(Site(node, self.clean, self.axes, self.scale), self.modules, constant)
        if found is None and node not in self.constant and isinstance(clean, Tensor) and clean.ndim == 4:
            found = Unknown(self._products(node))
        if found is None or (found.axes is not None and not isinstance(clean, Tensor)):
            return
        self.operators[node] = found
        if found.axes is not None:
            self.axes[node], self.scale[node] = found.axes, found.scale

    def map(self, node: fx.Node) -> Tensor:
        """The clean map ``[1, C, H, W]`` of a node."""
        return maps(self.clean[node], self.axes[node])

    def size(self, node: fx.Node) -> Pair:
        """Height and width of the map of a node."""
        height, width = self.map(node).shape[2:]
        return height, width

    # -- planning ---------------------------------------------------------------------------------------------------

    def plan(self, size: Pair, whole_from: float, receptive_field: float = 1.0) -> Plan:
        """Which nodes to compute on windows, for boxes of ``size`` pixels.

        Args:
            whole_from: share of a map from which on it is computed whole; 0 computes the scan whole from the start.
            receptive_field: windows do not grow any more (but keep their middle) once they are this share of a map's
                side; 1 is exact.
        """
        key = (size, whole_from, receptive_field)
        if key in self._plans:
            return self._plans[key]
        sizes: dict[fx.Node, Pair] = {}
        caps: dict[fx.Node, Pair] = {}
        stride = (1, 1)
        for node in self.nodes:
            if node.op == "placeholder":
                if whole_from > 0:
                    sizes[node] = size
                continue
            how = self.operators.get(node)
            if how is None or how.axes is None or how.whole or any(s not in sizes for s in how.sources):
                continue
            h, w = how.largest((max(sizes[s][0] for s in how.sources), max(sizes[s][1] for s in how.sources)))
            height, width = self.map(node).shape[2:]
            if receptive_field < 1 and isinstance(how, Sliding):
                caps[node] = (max(1, round(height * receptive_field)), max(1, round(width * receptive_field)))
                h, w = min(h, caps[node][0]), min(w, caps[node][1])
            if min(h, height) * min(w, width) < whole_from * height * width:
                sizes[node] = (h, w)
                scale = self.scale[node]
                stride = (math.lcm(stride[0], scale[0].numerator), math.lcm(stride[1], scale[1].numerator))
        counts = [self._work(node, sizes.get(node)) for node in self.nodes]
        products, numbers = (sum(count[i] for count in counts) for i in (0, 1))
        self._plans[key] = Plan(size, frozenset(sizes), stride, caps, products, products + COPY * numbers)
        return self._plans[key]

    def _work(self, node: fx.Node, size: Pair | None) -> tuple[float, float]:
        """Multiplications of a node, and the numbers that it writes."""
        clean, how = self.clean[node], self.operators.get(node)
        if not isinstance(clean, Tensor):
            return 0.0, 0.0
        if how is not None and how.axes is not None:
            _, channels, height, width = self.map(node).shape
            numbers = float(channels * (height * width if size is None else size[0] * size[1]))
            return numbers * how.products, numbers
        return float(clean.numel()) * self._products(node), 0.0

    def _products(self, node: fx.Node) -> float:
        """Multiplications of a module for each number that it gives."""
        module = self.modules[str(node.target)] if node.op == "call_module" else None
        return float(module.weight[0].numel()) if isinstance(module, nn.Linear | nn.Conv2d) else 0.0

    def layers_on_windows(self, plan: Plan) -> Pair:
        """How many convolutions and linear layers a plan computes on windows, and how many there are."""
        layers = [node for node in self.nodes if self._work(node, None)[0] > 0]
        return sum(node in plan.windows for node in layers), len(layers)

    def places(self, plan: Plan, first: Pair) -> dict[fx.Node, Place]:
        """Where the windows of each node lie when the box's own corner is ``first``."""
        key = (plan.size, plan.windows, tuple(plan.caps.items()), first)
        if key not in self._places:
            places: dict[fx.Node, Place] = {}
            for node in self.nodes:
                if node not in plan.windows:
                    continue
                if node.op == "placeholder":
                    places[node] = Place(*first, *plan.size)
                    continue
                how = self.operators[node]
                place = how.out(reduce(operator.or_, (places[s] for s in how.sources)))
                places[node] = place.middle(plan.caps[node]) if node in plan.caps else place
            self._places[key] = places
        return self._places[key]

    # -- running ----------------------------------------------------------------------------------------------------

    def run(self, values: Tensor, corners: Tensor, plan: Plan) -> tuple[Any, dict[str, Tensor]]:
        """What the network returns, and the whole outputs of the watched layers.

        Args:
            values: ``[B, C, *plan.size]``, what stands in the boxes; the whole scans where the plan has no windows.
            corners: int64 ``[B, 2]``, the boxes' corners, equal modulo the plan's stride.
        """
        stride = torch.tensor(plan.stride)
        steps = corners // stride
        top, left = (corners[0] % stride).tolist()
        return _Run(self, plan, Group(steps, plan.stride), (top, left)).run(values)

    def padded(self, node: object, clean: Tensor, margin: int) -> tuple[int, Tensor]:
        """A map ``[1, C, H, W]`` with at least ``margin`` zeros around it, as rows ``[H' W', C]``, and the margin."""
        have, rows = self._padded.get(node, (-1, None))
        if rows is None or have < margin:
            # Margins grow by halves, so that few of them are made.
            have = margin if have < 0 else margin + margin // 2
            clean = F.pad(clean, (have,) * 4).permute(0, 2, 3, 1).contiguous()
            rows = clean.view(-1, clean.shape[3])
            self._padded[node] = (have, rows)
        return have, rows


class _Run:
    """One batch on its way through the network.

    Attributes:
        values: of each node that is still needed: windows ``[B, C, h, w]`` where the plan has them, else what the
            network's own operator gives.
        buffers: of concatenations: ``[B, h, w, C]``, and how many channels are filled.
    """

    def __init__(self, net: Incremental, plan: Plan, group: Group, first: Pair) -> None:
        self.net = net
        self.plan = plan
        self.group = group
        self.places = net.places(plan, first)
        self.values: dict[fx.Node, Any] = {}
        self.buffers: dict[fx.Node, tuple[Tensor, int]] = {}
        self._wider: dict[tuple[fx.Node, Place], Tensor] = {}

    def run(self, x: Tensor) -> tuple[Any, dict[str, Tensor]]:
        net = self.net
        features: dict[str, Tensor] = {}
        for node in net.nodes:
            if node.op == "placeholder":
                self.values[node] = x.contiguous(memory_format=torch.channels_last)
            elif node.op == "output":
                return fx.node.map_arg(node.args[0], self.value), features
            elif node in net.constant:
                self.values[node] = net.clean[node]
            else:
                self.values[node] = self._step(node)
            if node.op == "call_module" and node.target in net.layers:
                features[str(node.target)] = self.value(node)
            for done in net.dies.get(node, []):
                del self.values[done]
        raise AssertionError("a traced graph ends in an output")

    def _step(self, node: fx.Node) -> Any:
        how = self.net.operators.get(node)
        if how is None:
            return self._call(node)
        value = how.run(self, node)
        return value if how.axes is None or self.windowed(node) else kept(value, how.axes)

    def _call(self, node: fx.Node) -> Any:
        return self.net.call(node, fx.node.map_arg(node.args, self.value), fx.node.map_arg(node.kwargs, self.value))

    # -- what operators ask for; described in operators.base.Running ------------------------------------------------

    def windowed(self, node: fx.Node) -> bool:
        return node in self.plan.windows

    def clean(self, node: fx.Node) -> Tensor:
        return self.net.map(node)

    def windows(self, node: fx.Node) -> Tensor:
        value: Tensor = self.values[node]
        return value

    def called(self, node: fx.Node) -> Tensor:
        axes = self.net.operators[node].axes
        value: Tensor = self._call(node)
        return value if axes is None else maps(value, axes)

    def value(self, node: fx.Node) -> Any:
        return kept(self.whole(node), self.net.axes[node]) if self.windowed(node) else self.values[node]

    def mine(self, node: fx.Node) -> bool:
        how = self.net.operators.get(node)
        return how is not None and how.fresh and len(node.users) == 1 and node.target not in self.net.layers

    def whole(self, node: fx.Node) -> Tensor:
        if not self.windowed(node):
            return maps(self.values[node], self.net.axes[node])
        full = self.net.map(node).permute(0, 2, 3, 1).repeat(len(self.group), 1, 1, 1)
        self.paste(full, node)
        return full.permute(0, 3, 1, 2)

    def paste(self, maps: Tensor, node: fx.Node) -> None:
        """Puts the windows of a node into maps ``[B, H, W, C]``."""
        place, scale = self.places[node], self.net.scale[node]
        height, width = maps.shape[1:3]
        top, left = self.group.corners(place, scale)
        at = (top[:, None] + torch.arange(place.height))[:, :, None] * width
        at = at + (left[:, None] + torch.arange(place.width))[:, None, :]
        at = at + (torch.arange(len(top)) * height * width)[:, None, None]
        values = self.values[node].permute(0, 2, 3, 1)
        rows = maps.view(-1, maps.shape[3])
        if self.group.overhang(place, scale, (height, width)) > 0:
            inside = self.group.inside(place, scale, (height, width))
            rows.index_copy_(0, at[inside], values[inside])
        else:
            rows.index_copy_(0, at.flatten(), values.reshape(-1, values.shape[3]))

    def gathered(self, node: fx.Node, place: Place) -> Tensor:
        return self._gathered(node, self.net.map(node), self.net.scale[node], place)

    def stamped(self, how: Operator, values: Tensor, node: fx.Node) -> Tensor:
        rows = self._gathered(how, values, self.net.scale[node], self.places[node])
        return rows.permute(0, 3, 1, 2)

    def _gathered(self, key: object, values: Tensor, scale: Scale, place: Place) -> Tensor:
        net, group = self.net, self.group
        height, width = values.shape[2:]
        margin, rows = net.padded(key, values, max(0, group.overhang(place, scale, (height, width))))
        top, left = group.corners(place, scale)
        at = (top[:, None] + torch.arange(margin, margin + place.height))[:, :, None] * (width + 2 * margin)
        at = at + (left[:, None] + torch.arange(margin, margin + place.width))[:, None, :]
        return rows.index_select(0, at.flatten()).view(len(group), place.height, place.width, -1)

    def under(self, node: fx.Node, place: Place, outside: float | None) -> tuple[Tensor, bool]:
        have = self.places[node]
        if place == have and (outside is None or not self._over(node, place)):
            return self.values[node], self.mine(node)
        key = (node, place)
        if outside is None and key in self._wider:
            return self._wider.pop(key), True
        windows = self.gathered(node, place)
        put(windows, place, self.values[node].permute(0, 2, 3, 1), have)
        x = windows.permute(0, 3, 1, 2)
        if outside is not None:
            self.clear(x, node, place, outside)
            # A block's shortcut often asks for what its first convolution has looked at.
            if outside == 0 and any(isinstance(self.net.operators.get(n), Joint) for n in node.users):
                self._wider[key] = x
        return x, True

    def _over(self, node: fx.Node, place: Place) -> bool:
        """Whether some window reaches over the border."""
        return self.group.overhang(place, self.net.scale[node], self.net.size(node)) > 0

    def clear(self, x: Tensor, node: fx.Node, place: Place, outside: float) -> None:
        over = self.group.outside(place, self.net.scale[node], self.net.size(node))
        if over is not None:
            which, out = over
            x.index_copy_(0, which, x.index_select(0, which).masked_fill_(out, outside))
