"""Incremental inference: recompute only what a small change of the scan can have changed.

After Krypton (Nakandala, Kumar & Papakonstantinou, SIGMOD 2019), for any network that ``torch.fx`` can trace. The
clean scan goes through the network once and its activations are kept. For a batch of scans that each differ from it
inside one box, every layer then computes just the window of its output that the box can have reached; around it
stands the clean activation. Nothing is approximated, unless a ``reach`` below 1 asks for it. A layer that is not
known here, or one whose window covers most of the map, gets the whole activation, and from there on the rest runs
dense.

Within a batch all boxes have one size and one position modulo the network's stride, so that all windows of a layer
have one size and lie at the same place in the windows they are computed from; only then is a batch of windows a plain
tensor. Windows may reach over the border of a map; what lies outside is padding to whoever reads it. Everything is
channels-last: a row of a window is then one piece of memory, and a window is gathered by copying rows.
"""

from __future__ import annotations

import copy
import math
import operator
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

ACTIVATIONS = (
    nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid,
)  # fmt: skip
NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d)
ACTIVATION_FUNCTIONS = {torch.sigmoid, F.silu, F.gelu, F.leaky_relu, torch.tanh, F.relu6, F.hardswish}
ADDITIONS = {operator.add, operator.iadd, torch.add}

Pair = tuple[int, int]


class NotIncrementalError(Exception):
    """The network's graph does not give what the classifier gives."""


@dataclass(frozen=True)
class Place:
    """Where windows lie: the corner of the window of a box whose own corner is at the origin of its group, and the
    size."""

    top: int
    left: int
    height: int
    width: int

    def __or__(self, other: Place) -> Place:
        """The smallest window that holds both."""
        top, left = min(self.top, other.top), min(self.left, other.left)
        bottom = max(self.top + self.height, other.top + other.height)
        right = max(self.left + self.width, other.left + other.width)
        return Place(top, left, bottom - top, right - left)

    def middle(self, cap: Pair) -> Place:
        """The middle of the window, of at most ``cap`` pixels."""
        height, width = min(self.height, cap[0]), min(self.width, cap[1])
        return Place(self.top + (self.height - height) // 2, self.left + (self.width - width) // 2, height, width)


def traced(module: nn.Module, keep: Sequence[str] = ()) -> fx.GraphModule | None:
    """The network as a graph, batch norms folded into the convolutions before them; ``None`` where it has no graph.

    Convolutions named in ``keep`` are watched, so theirs stay apart.
    """
    try:
        with warnings.catch_warnings():
            # Copying an exported program makes PyTorch warn of its own future, which no user can change.
            warnings.simplefilter("ignore")
            return _folded(fx.symbolic_trace(copy.deepcopy(module).eval()), keep)
    except Exception:
        # Whatever a user's forward does that cannot be traced (control flow on values, foreign code) runs dense.
        return None


def _folded(graph: fx.GraphModule, keep: Sequence[str]) -> fx.GraphModule:
    modules = dict(graph.named_modules())
    calls = [n.target for n in graph.graph.nodes if n.op == "call_module"]
    for node in list(graph.graph.nodes):
        if node.op != "call_module" or type(modules[node.target]) is not nn.BatchNorm2d:
            continue
        before, norm = node.args[0], modules[node.target]
        if before.op != "call_module" or type(modules[before.target]) is not nn.Conv2d or norm.running_mean is None:
            continue
        if len(before.users) == 1 and calls.count(before.target) == 1 and before.target not in keep:
            modules[before.target] = fuse_conv_bn_eval(modules[before.target], norm)
            graph.set_submodule(before.target, modules[before.target])
            node.replace_all_uses_with(before)
            graph.graph.erase_node(node)
    _bound(graph, calls, keep)
    order = {node: i for i, node in enumerate(graph.graph.nodes)}
    for node in graph.graph.nodes:
        if node.all_input_nodes and _overwrites(node, modules):
            # What was overwritten is read from here on as what it has become.
            node.all_input_nodes[0].replace_all_uses_with(node, lambda user, node=node: order[user] > order[node])
    for child in graph.modules():
        # An activation that overwrites its input would overwrite the clean scan's.
        if getattr(child, "inplace", False):
            child.inplace = False  # type: ignore[assignment]
    graph.recompile()
    return graph.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class Bounded(nn.Module):
    """Values held between two bounds for each channel: what a batch norm and a rectifier come down to."""

    low: Tensor
    high: Tensor

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def forward(self, x: Tensor) -> Tensor:
        return torch.clamp(x, self.low, self.high)


def _bound(graph: fx.GraphModule, calls: Sequence[Any], keep: Sequence[str]) -> None:
    """Makes one pass over the memory of the two that a batch norm and a rectifier before a convolution need.

    With a slope ``a > 0``, ``relu(a x + b) = a max(x, -b/a) + b``, and with ``a < 0`` likewise with the minimum. What
    is left of ``a`` and ``b`` behind that goes into the convolution, if it does not pad.
    """
    modules = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        if node.op != "call_module" or type(modules[node.target]) is not nn.BatchNorm2d or len(node.users) != 1:
            continue
        (relu,) = node.users
        rectifies = relu.target in (F.relu, torch.relu) or (
            relu.op == "call_module" and type(modules[relu.target]) is nn.ReLU
        )
        if not rectifies or len(relu.users) != 1:
            continue
        (after,) = relu.users
        conv = modules.get(after.target) if after.op == "call_module" else None
        names = {node.target, after.target} | ({relu.target} if relu.op == "call_module" else set())
        if type(conv) is not nn.Conv2d or conv.groups != 1 or conv.padding not in (0, (0, 0)):
            continue
        if names & set(keep) or calls.count(after.target) != 1 or calls.count(node.target) != 1:
            continue
        norm = modules[node.target]
        if norm.running_mean is None or norm.running_var is None:
            continue
        slope, offset = (v.double() for v in _slope_and_offset(norm))
        turn = -offset / slope
        if not bool(torch.isfinite(turn).all()):
            continue
        infinite = torch.full_like(turn, torch.inf)
        low, high = torch.where(slope > 0, turn, -infinite), torch.where(slope > 0, infinite, turn)
        bounded = Bounded(low.float().view(1, -1, 1, 1), high.float().view(1, -1, 1, 1))
        weight = conv.weight.detach().double()
        bias = weight.sum((2, 3)) @ offset + (0 if conv.bias is None else conv.bias.detach().double())
        conv.weight = nn.Parameter((weight * slope.view(1, -1, 1, 1)).to(conv.weight.dtype))
        conv.bias = nn.Parameter(bias.to(conv.weight.dtype))
        graph.set_submodule(node.target, bounded)
        relu.replace_all_uses_with(node)
        graph.graph.erase_node(relu)


def _slope_and_offset(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A batch norm as ``slope * x + offset``, ``[C]`` each."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    slope = (norm.running_var + norm.eps).rsqrt()
    if norm.affine:
        slope = slope * norm.weight.detach()
    offset = -norm.running_mean * slope
    return slope, offset + norm.bias.detach() if norm.affine else offset


@dataclass(frozen=True)
class Sliding:
    """The geometry of a convolution or a pooling, along each axis, and what it reads outside of the map."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    outside: float
    compute: Callable[[Tensor], Tensor]

    def out(self, place: Place) -> Place:
        """The outputs that look at some pixel of the window."""
        tops, sizes = [], []
        for axis, (start, size) in enumerate(((place.top, place.height), (place.left, place.width))):
            s, p, reach = self.stride[axis], self.padding[axis], (self.kernel[axis] - 1) * self.dilation[axis]
            # Output o looks at inputs o s - p ... o s - p + reach.
            first, last = -(-(start + p - reach) // s), (start + size - 1 + p) // s
            tops.append(first)
            sizes.append(max(1, last - first + 1))
        return Place(*tops, *sizes)

    def needs(self, place: Place) -> Place:
        """The inputs that a window of outputs looks at."""
        tops, sizes = [], []
        for axis, (start, size) in enumerate(((place.top, place.height), (place.left, place.width))):
            s, p, reach = self.stride[axis], self.padding[axis], (self.kernel[axis] - 1) * self.dilation[axis]
            tops.append(start * s - p)
            sizes.append((size - 1) * s + reach + 1)
        return Place(*tops, *sizes)

    def largest(self, size: Pair) -> Pair:
        """The size of the largest window of outputs that windows of this size can give."""
        sizes = []
        for axis, n in enumerate(size):
            reach = (self.kernel[axis] - 1) * self.dilation[axis]
            sizes.append((n - 1 + reach) // self.stride[axis] + 1)
        return (sizes[0], sizes[1])


@dataclass(frozen=True)
class Plan:
    """Which nodes are computed on windows, for boxes of one size; from the others on the maps are whole.

    Attributes:
        size: the boxes' size.
        windows: the nodes that stay windows.
        stride: boxes go together whose corners are equal modulo this.
        caps: the largest window of each node, where the reach is cut.
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


class Group:
    """The boxes of one batch: how many strides each lies from the map's corner, and what follows from it."""

    def __init__(self, steps: Tensor, stride: Pair) -> None:
        self.steps = steps
        self.stride = stride
        self.lowest = steps.amin(0).tolist()
        self.highest = steps.amax(0).tolist()
        self._outside: dict[Any, tuple[Tensor, Tensor] | None] = {}

    def __len__(self) -> int:
        return len(self.steps)

    def corners(self, place: Place, scale: Pair) -> tuple[Tensor, Tensor]:
        """Top and left ``[B]`` of the windows on a map that has shrunk by ``scale``."""
        step = [self.stride[a] // scale[a] for a in (0, 1)]
        return place.top + self.steps[:, 0] * step[0], place.left + self.steps[:, 1] * step[1]

    def overhang(self, place: Place, scale: Pair, size: Pair) -> int:
        """By how much the windows reach over the border of a map of ``size``, at most."""
        found = 0
        for axis, (start, length) in enumerate(((place.top, place.height), (place.left, place.width))):
            step = self.stride[axis] // scale[axis]
            found = max(
                found,
                -(start + step * int(self.lowest[axis])),
                start + step * int(self.highest[axis]) + length - size[axis],
            )
        return found

    def inside(self, place: Place, scale: Pair, size: Pair) -> Tensor:
        """Which pixels of the windows lie on the map: bool ``[B, h, w]``."""
        top, left = self.corners(place, scale)
        rows = top[:, None] + torch.arange(place.height)
        columns = left[:, None] + torch.arange(place.width)
        return ((rows >= 0) & (rows < size[0]))[:, :, None] & ((columns >= 0) & (columns < size[1]))[:, None, :]

    def outside(self, place: Place, scale: Pair, size: Pair) -> tuple[Tensor, Tensor] | None:
        """Which windows reach over the border ``[N]``, and which of their pixels do ``[N, 1, h, w]``."""
        key = (place, scale, size)
        if key not in self._outside:
            self._outside[key] = None
            if self.overhang(place, scale, size) > 0:
                out = ~self.inside(place, scale, size)
                which = out.flatten(1).any(1).nonzero()[:, 0]
                self._outside[key] = (which, out[which][:, None])
        return self._outside[key]


class Incremental:
    """The clean activations of one scan, and the outputs for what differs from it inside a box.

    Args:
        graph: from :func:`traced`.
        clean: ``[1, C, H, W]``, what goes into the network.
        layers: the modules whose outputs are watched.
    """

    def __init__(self, graph: fx.GraphModule, clean: Tensor, layers: Sequence[str] = ()) -> None:
        self.graph = graph
        self.layers = frozenset(layers)
        self.modules = dict(graph.named_modules())
        self.nodes: list[fx.Node] = list(graph.graph.nodes)
        self.clean: dict[fx.Node, Any] = {}
        self._padded: dict[fx.Node, tuple[int, Tensor]] = {}
        self.scale: dict[fx.Node, Pair] = {}
        self.kind: dict[fx.Node, str] = {}
        self.sliding: dict[fx.Node, Sliding] = {}
        self.affine: dict[fx.Node, tuple[Tensor, Tensor]] = {}
        self.dies: dict[fx.Node, list[fx.Node]] = {}
        self._plans: dict[Any, Plan] = {}
        self._places: dict[Any, dict[fx.Node, Place]] = {}
        used: set[fx.Node] = set()
        for node in reversed(self.nodes):
            for source in node.all_input_nodes:
                if source not in used:
                    used.add(source)
                    self.dies.setdefault(node, []).append(source)
        with torch.inference_mode():
            for node in self.nodes:
                self.clean[node] = self._run_clean(node, clean)
        for node in self.nodes:
            self._learn(node)
        self.constant: set[fx.Node] = set()
        for node in self.nodes:
            if node.op not in ("placeholder", "output") and all(n in self.constant for n in node.all_input_nodes):
                self.constant.add(node)
        self.chains = self._concatenations()
        self.outputs: Tensor = self.clean[self.nodes[-1]]

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
            if not isinstance(args[0], Tensor):
                raise NotIncrementalError
            return args[0]
        return self.call(node, args, kwargs)

    def call(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        if node.op == "call_module":
            return self.modules[str(node.target)](*args, **kwargs)
        if _overwrites(node, self.modules):
            args = (args[0].clone(), *args[1:])
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)

    # -- what each node is ------------------------------------------------------------------------------------------

    def _learn(self, node: fx.Node) -> None:
        """Finds out what a node does to windows; what is not known stays out of ``_kind`` and runs dense."""
        clean = self.clean[node]
        if node.op == "placeholder":
            self.kind[node], self.scale[node] = "input", (1, 1)
            return
        sources = node.all_input_nodes
        if not isinstance(clean, Tensor) or not sources or any(s not in self.scale for s in sources):
            return
        if clean.shape[0] != 1 or any(self.clean[s].ndim != 4 for s in sources):
            return
        kind = self._kind_of(node)
        scales, shapes = {self.scale[s] for s in sources}, {self.clean[s].shape for s in sources}
        if kind is None or len(scales) != 1:
            return
        if kind == "add" and (len(shapes) != 1 or clean.shape not in shapes):
            return
        if kind == "cat" and sum(s[1] for s in (self.clean[n].shape for n in sources)) != clean.shape[1]:
            return
        scale = scales.pop()
        if kind == "mean":
            self.kind[node] = kind
            return
        if kind == "sliding":
            sliding = self.sliding[node]
            scale = (scale[0] * sliding.stride[0], scale[1] * sliding.stride[1])
        self.kind[node], self.scale[node] = kind, scale

    def _kind_of(self, node: fx.Node) -> str | None:
        if node.op == "call_module":
            return self._kind_of_module(node, self.modules[str(node.target)])
        plain = len(node.all_input_nodes) == len(node.args) and not node.kwargs
        if node.op == "call_method" and node.target == "mean":
            return "mean" if self._over_the_map(node) else None
        if node.op == "call_method":
            return {"relu": "relu", "sigmoid": "pointwise", "contiguous": "nothing"}.get(
                str(node.target) if plain else ""
            )
        if node.op != "call_function":
            return None
        if node.target in (F.relu, torch.relu):
            return "relu"
        if node.target in ACTIVATION_FUNCTIONS:
            return "pointwise"
        if node.target is F.dropout and node.kwargs.get("training", True) is False:
            return "nothing"
        if node.target in ADDITIONS and plain and len(node.args) == 2:
            return "add"
        if node.target in (torch.cat, torch.concat) and (node.kwargs.get("dim", (*node.args, 0)[1])) in (1, -3):
            return "cat"
        if node.target is F.adaptive_avg_pool2d and node.args[1:] in ((1,), ((1, 1),)):
            return "mean"
        if node.target is torch.mean and self._over_the_map(node):
            return "mean"
        return None

    @staticmethod
    def _over_the_map(node: fx.Node) -> bool:
        axes = node.kwargs.get("dim", (*node.args, None)[1])
        return isinstance(axes, list | tuple) and sorted(axes) in ([2, 3], [-2, -1])

    def _kind_of_module(self, node: fx.Node, module: nn.Module) -> str | None:
        kind = type(module)
        if kind is nn.ReLU:
            return "relu"
        if kind in ACTIVATIONS or kind is Bounded:
            return "pointwise"
        if kind in NOTHING:
            return "nothing"
        if kind is nn.AdaptiveAvgPool2d and module.output_size in (1, (1, 1)):
            return "mean"
        if isinstance(module, nn.BatchNorm2d) and kind is nn.BatchNorm2d and module.running_mean is not None:
            slope, offset = _slope_and_offset(module)
            self.affine[node] = (slope.view(1, -1, 1, 1), offset.view(1, -1, 1, 1))
            return "affine"
        if isinstance(module, nn.Conv2d) and kind is nn.Conv2d:
            if module.padding_mode != "zeros" or isinstance(module.padding, str):
                return None
            weight, bias, stride, dilation, groups = (
                module.weight.detach(), None if module.bias is None else module.bias.detach(),
                _pair(module.stride), _pair(module.dilation), module.groups,
            )  # fmt: skip
            self.sliding[node] = Sliding(
                _pair(module.kernel_size), stride, _pair(module.padding), dilation, 0.0,
                lambda x: F.conv2d(x, weight, bias, stride, 0, dilation, groups),
            )  # fmt: skip
            return "sliding"
        if isinstance(module, nn.MaxPool2d) and kind is nn.MaxPool2d and not module.return_indices:
            kernel, step = _pair(module.kernel_size), _pair(module.stride or module.kernel_size)
            dilated = _pair(module.dilation)
            self.sliding[node] = Sliding(
                kernel, step, _pair(module.padding), dilated, -torch.inf,
                lambda x: F.max_pool2d(x, kernel, step, 0, dilated),
            )  # fmt: skip
            return "sliding"
        if isinstance(module, nn.AvgPool2d) and kind is nn.AvgPool2d:
            kernel, step = _pair(module.kernel_size), _pair(module.stride or module.kernel_size)
            padding = _pair(module.padding)
            # At the border an average is over fewer pixels, unless padding counts.
            if module.ceil_mode or module.divisor_override or (padding != (0, 0) and not module.count_include_pad):
                return None
            self.sliding[node] = Sliding(kernel, step, padding, (1, 1), 0.0, lambda x: F.avg_pool2d(x, kernel, step))
            return "sliding"
        return None

    def _concatenations(self) -> dict[fx.Node, list[fx.Node]]:
        """For each concatenation, all those that begin with the same parts, the longest last.

        In a DenseNet each layer reads all layers before it. What it reads is kept in one buffer that has room for all,
        and each layer only adds its own part.
        """
        parts: dict[fx.Node, tuple[fx.Node, ...]] = {}
        for node in self.nodes:
            if self.kind.get(node) == "cat":
                first, *rest = node.all_input_nodes
                parts[node] = (*parts.get(first, (first,)), *rest)
        return {
            node: sorted((n for n in parts if parts[n][: len(mine)] == mine), key=lambda n: len(parts[n]))
            for node, mine in parts.items()
        }

    # -- planning ---------------------------------------------------------------------------------------------------

    def plan(self, size: Pair, whole_from: float, reach: float = 1.0) -> Plan:
        """Which nodes to compute on windows, for boxes of ``size`` pixels.

        Args:
            whole_from: share of a map from which on it is computed whole; 0 computes the scan whole from the start.
            reach: windows do not grow any more (but keep their middle) once they are this share of a map's side; 1 is
                exact.
        """
        key = (size, whole_from, reach)
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
            sources = [s for s in node.all_input_nodes if s in sizes]
            if node not in self.scale or not sources or len(sources) != len(node.all_input_nodes):
                continue
            h, w = max(sizes[s][0] for s in sources), max(sizes[s][1] for s in sources)
            height, width = self.clean[node].shape[2:]
            if node in self.sliding:
                h, w = self.sliding[node].largest((h, w))
                if reach < 1:
                    caps[node] = (max(1, round(height * reach)), max(1, round(width * reach)))
                    h, w = min(h, caps[node][0]), min(w, caps[node][1])
            if min(h, height) * min(w, width) < whole_from * height * width:
                sizes[node] = (h, w)
                scale = self.scale[node]
                stride = (math.lcm(stride[0], scale[0]), math.lcm(stride[1], scale[1]))
        counts = [self._work(node, sizes.get(node)) for node in self.nodes]
        products, numbers = (sum(count[i] for count in counts) for i in (0, 1))
        self._plans[key] = Plan(size, frozenset(sizes), stride, caps, products, products + COPY * numbers)
        return self._plans[key]

    def _work(self, node: fx.Node, size: Pair | None) -> tuple[float, float]:
        """Multiplications of a node, and the numbers that it writes."""
        clean = self.clean[node]
        module = self.modules[str(node.target)] if node.op == "call_module" else None
        if isinstance(module, nn.Linear):
            return float(module.weight.numel()), 0.0
        if not isinstance(clean, Tensor) or clean.ndim != 4:
            return 0.0, 0.0
        pixels = clean.shape[2] * clean.shape[3] if size is None else size[0] * size[1]
        numbers = float(pixels * clean.shape[1])
        return numbers * (module.weight[0].numel() if isinstance(module, nn.Conv2d) else 0), numbers

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
                place = reduce(operator.or_, (places[s] for s in node.all_input_nodes))
                if node in self.sliding:
                    place = self.sliding[node].out(place)
                    if node in plan.caps:
                        place = place.middle(plan.caps[node])
                places[node] = place
            self._places[key] = places
        return self._places[key]

    # -- running ----------------------------------------------------------------------------------------------------

    def run(self, values: Tensor, corners: Tensor, plan: Plan) -> tuple[Tensor, dict[str, Tensor]]:
        """The network's outputs ``[B, K]``, and the whole outputs of the watched layers.

        Args:
            values: ``[B, C, *plan.size]``, what stands in the boxes; the whole scans where the plan has no windows.
            corners: int64 ``[B, 2]``, the boxes' corners, equal modulo the plan's stride.
        """
        stride = torch.tensor(plan.stride)
        steps = corners // stride
        top, left = (corners[0] % stride).tolist()
        return _Run(self, plan, Group(steps, plan.stride), (top, left)).run(values)

    def padded(self, node: fx.Node, margin: int) -> tuple[int, Tensor]:
        """The clean activation with at least ``margin`` zeros around it, as rows ``[H' W', C]``, and the margin."""
        have, rows = self._padded.get(node, (-1, None))
        if rows is None or have < margin:
            # Margins grow by halves, so that few of them are made.
            have = margin if have < 0 else margin + margin // 2
            clean = F.pad(self.clean[node], (have,) * 4).permute(0, 2, 3, 1).contiguous()
            rows = clean.view(-1, clean.shape[3])
            self._padded[node] = (have, rows)
        return have, rows


class _Run:
    """One batch on its way through the network."""

    def __init__(self, net: Incremental, plan: Plan, group: Group, first: Pair) -> None:
        self.net = net
        self.plan = plan
        self.group = group
        self.places = net.places(plan, first)
        self.values: dict[fx.Node, Any] = {}
        self.buffers: dict[Any, tuple[Tensor, int]] = {}
        self.wider: dict[Any, Tensor] = {}

    def run(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        net = self.net
        features: dict[str, Tensor] = {}
        for node in net.nodes:
            if node.op == "placeholder":
                self.values[node] = x.contiguous(memory_format=torch.channels_last)
            elif node.op == "output":
                return self.whole(node.all_input_nodes[0]), features
            elif node in net.constant:
                self.values[node] = net.clean[node]
            else:
                self.values[node] = self.step(node)
            if node.op == "call_module" and node.target in net.layers:
                features[str(node.target)] = self.whole(node)
            for done in net.dies.get(node, []):
                del self.values[done]
        raise AssertionError("a traced graph ends in an output")

    def step(self, node: fx.Node) -> Any:
        net, kind, (source, *others) = self.net, self.net.kind.get(node), node.all_input_nodes
        if kind == "cat":
            return self.concatenated(node)
        if kind == "mean" and source in self.plan.windows:
            return self.mean(node, source)
        if kind == "add" and (node in self.plan.windows or (len(others) == 1 and self.mine(source))):
            return self.added(node)
        if kind == "sliding" and node in self.plan.windows:
            return self.slide(node, source)
        if kind in ("relu", "affine", "nothing", "pointwise"):
            x = self.values[source] if node in self.plan.windows else self.whole(source)
            return self.pointwise(node, kind, source, x)
        return net.call(node, fx.node.map_arg(node.args, self.whole), fx.node.map_arg(node.kwargs, self.whole))

    def mine(self, source: fx.Node) -> bool:
        """Whether a value may be overwritten: it was made here, and nobody else will look at it."""
        fresh = self.net.kind.get(source) in ("sliding", "affine", "add", "relu")
        return fresh and len(source.users) == 1 and source.target not in self.net.layers

    def pointwise(self, node: fx.Node, kind: str, source: fx.Node, x: Tensor) -> Tensor:
        if kind == "relu":
            return torch.relu_(x) if self.mine(source) else torch.relu(x)
        if kind == "nothing":
            return x
        if kind == "affine":
            slope, offset = self.net.affine[node]
            return torch.addcmul(offset, x, slope)
        result: Tensor = self.net.call(node, (x, *node.args[1:]), node.kwargs)
        return result

    def whole(self, node: fx.Node) -> Any:
        """The whole activation of the batch."""
        value, clean = self.values[node], self.net.clean[node]
        if node in self.plan.windows:
            full = clean.permute(0, 2, 3, 1).repeat(len(self.group), 1, 1, 1)
            self.paste(full, node)
            return full.permute(0, 3, 1, 2)
        return value

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
        """The clean activation under windows, ``[B, h, w, C]``; zero outside of the map."""
        net, group, scale = self.net, self.group, self.net.scale[node]
        height, width = net.clean[node].shape[2:]
        margin, rows = net.padded(node, max(0, group.overhang(place, scale, (height, width))))
        top, left = group.corners(place, scale)
        at = (top[:, None] + torch.arange(margin, margin + place.height))[:, :, None] * (width + 2 * margin)
        at = at + (left[:, None] + torch.arange(margin, margin + place.width))[:, None, :]
        return rows.index_select(0, at.flatten()).view(len(group), place.height, place.width, -1)

    def widened(self, node: fx.Node, place: Place, outside: float | None) -> Tensor:
        """What stands under other windows of the same maps; ``outside`` stands where no map is, if that matters."""
        key = (node, place)
        if outside is None and key in self.wider:
            return self.wider.pop(key)
        maps = self.gathered(node, place)
        put(maps, place, self.values[node].permute(0, 2, 3, 1), self.places[node])
        x = maps.permute(0, 3, 1, 2)
        if outside is not None:
            self.clear(x, node, place, outside)
            # A block's shortcut often asks for what its first convolution has looked at.
            if outside == 0 and any(self.net.kind.get(n) == "add" for n in node.users):
                self.wider[key] = x
        return x

    def clear(self, x: Tensor, node: fx.Node, place: Place, outside: float) -> None:
        """Overwrites what lies outside of the map."""
        over = self.group.outside(place, self.net.scale[node], tuple(self.net.clean[node].shape[2:]))
        if over is not None:
            which, out = over
            x.index_copy_(0, which, x.index_select(0, which).masked_fill_(out, outside))

    def slide(self, node: fx.Node, source: fx.Node) -> Tensor:
        sliding = self.net.sliding[node]
        needs = sliding.needs(self.places[node])
        if needs == self.places[source] and sliding.padding == (0, 0):
            size = tuple(self.net.clean[source].shape[2:])
            # A maximum looks over the border without padding too, where the last stride is not a whole one.
            if sliding.outside == 0 or self.group.overhang(needs, self.net.scale[source], size) <= 0:
                return sliding.compute(self.values[source])
        return sliding.compute(self.widened(source, needs, sliding.outside))

    def added(self, node: fx.Node) -> Tensor:
        """A sum, made in place where a summand is free to be overwritten."""
        first, second = node.args
        assert isinstance(first, fx.Node)
        assert isinstance(second, fx.Node)
        if node not in self.plan.windows:
            return self.whole(first).add_(self.whole(second))  # type: ignore[no-any-return]
        place = self.places[node]
        if not (self.mine(first) and self.places[first] == place):
            first, second = second, first
        a, b = (
            self.values[n] if self.places[n] == place else self.widened(n, place, None) for n in (first, second)
        )  # fmt: skip
        free = self.mine(first) or self.places[first] != place
        return a.add_(b) if free and first is not second else a + b

    def concatenated(self, node: fx.Node) -> Tensor:
        """A view of the buffer that holds the longest concatenation with the same beginning."""
        net, windows = self.net, node in self.plan.windows
        longest = [n for n in net.chains[node] if (n in self.plan.windows) == windows][-1]
        if longest not in self.buffers:
            clean = net.clean[longest]
            self.buffers[longest] = (
                self.gathered(longest, self.places[longest])
                if windows
                else clean.new_empty(len(self.group), *clean.shape[2:], clean.shape[1]),
                0,
            )
        buffer, filled = self.buffers[longest]
        end = 0
        for part in node.all_input_nodes:
            start, end = end, end + net.clean[part].shape[1]
            if end <= filled:
                continue
            room = buffer[..., start:end]
            if windows:
                put(room, self.places[longest], self.values[part].permute(0, 2, 3, 1), self.places[part])
            else:
                room.copy_(self.whole(part).permute(0, 2, 3, 1))
        self.buffers[longest] = (buffer, max(end, filled))
        if windows:
            outer, inner = self.places[longest], self.places[node]
            top, left = inner.top - outer.top, inner.left - outer.left
            buffer = buffer[:, top : top + inner.height, left : left + inner.width]
        if longest is node:
            del self.buffers[longest]
        return buffer[..., :end].permute(0, 3, 1, 2)

    def mean(self, node: fx.Node, source: fx.Node) -> Tensor:
        """The clean mean, corrected by what the windows add to it."""
        clean, place = self.net.clean[source], self.places[source]
        more = self.values[source] - self.gathered(source, place).permute(0, 3, 1, 2)
        self.clear(more, source, place, 0.0)
        change = more.sum((2, 3)) / (clean.shape[2] * clean.shape[3])
        mean: Tensor = self.net.clean[node] + change.view(-1, *self.net.clean[node].shape[1:])
        return mean


def put(maps: Tensor, at: Place, values: Tensor, place: Place) -> None:
    """Copies windows ``[B, h, w, C]`` into the part of other windows ``[B, h', w', C]`` of the same maps that they
    share."""
    down, right = place.top - at.top, place.left - at.left
    top, left = max(down, 0), max(right, 0)
    bottom, edge = min(down + place.height, at.height), min(right + place.width, at.width)
    maps[:, top:bottom, left:edge] = values[:, top - down : bottom - down, left - right : edge - right]


def _overwrites(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a node changes its first operand."""
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    trailing = node.op in ("call_method", "call_function") and name.endswith("_") and not name.endswith("__")
    augmented = getattr(node.target, "__module__", "") == "_operator" and name in ("iadd", "isub", "imul", "itruediv")
    return trailing or augmented or any(a is True for a in (*node.args[1:], node.kwargs.get("inplace")))


def _pair(value: Any) -> Pair:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))
