"""Brings the graph of a network into the form in which it is quickest to run.

What checks shapes, or does nothing when a network is not trained, goes. Functions on constant weights become modules,
batch norms go into the convolutions before them, and what is left of a batch norm with its rectifier, before a
convolution, becomes one pass over the memory.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

ATEN = torch.ops.aten


def folded(graph: fx.GraphModule, keep: Sequence[str] = ()) -> fx.GraphModule:
    """The graph, changed in place. Modules named in ``keep`` are watched, so they stay."""
    modules = dict(graph.named_modules())
    order = {node: i for i, node in enumerate(graph.graph.nodes)}
    for node in graph.graph.nodes:
        if node.all_input_nodes and overwrites(node, modules):
            # What was overwritten is read from here on as what it has become.
            node.all_input_nodes[0].replace_all_uses_with(node, lambda user, node=node: order[user] > order[node])
    _without_checks(graph)
    _without_idle(graph, keep)
    _constant(graph)
    _modules(graph)
    _separate(graph)
    graph.graph.eliminate_dead_code()
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
    for child in graph.modules():
        # An activation that overwrites its input would overwrite the clean scan's.
        if getattr(child, "inplace", False):
            child.inplace = False  # type: ignore[assignment]
        if isinstance(child, nn.Conv2d):
            child.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    graph.recompile()
    return graph


def _without_checks(graph: fx.GraphModule) -> None:
    """They held when the graph was made, and it is used for maps of that size only."""
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and node.target in (torch._assert, ATEN._assert_tensor_metadata.default):
            graph.graph.erase_node(node)


IDLE = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
IDLE_FUNCTIONS = {
    F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, torch.dropout, ATEN.dropout, "stochastic_depth",
}  # fmt: skip


def _without_idle(graph: fx.GraphModule, keep: Sequence[str]) -> None:
    """Dropout and the like do nothing in a network that is not trained."""
    modules = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        if node.op == "call_module":
            idle = type(modules[node.target]) in IDLE and node.target not in keep
        else:
            idle = node.op == "call_function" and _called(node) in IDLE_FUNCTIONS and _idle(node)
        if idle and node.args:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)


def _called(node: fx.Node) -> Any:
    """The function, without its overload; by its name where it is of a package that need not be there."""
    if getattr(node.target, "__module__", "").startswith("torchvision."):
        return getattr(node.target, "__name__", "")
    return getattr(node.target, "overloadpacket", node.target)


def _idle(node: fx.Node) -> bool:
    """Whether a dropout is told that this is no training."""
    flags = [a for a in (*node.args[1:], *node.kwargs.values()) if isinstance(a, bool)]
    return not any(flags) and bool(flags)


def _constant(graph: fx.GraphModule) -> None:
    """Computes once what does not depend on the scan, such as standardised weights."""
    values: dict[fx.Node, Any] = {}
    for node in list(graph.graph.nodes):
        if node.op == "get_attr":
            values[node] = operator.attrgetter(str(node.target))(graph)
        elif node.op == "call_function" and all(n in values for n in node.all_input_nodes) and node.all_input_nodes:
            args, kwargs = (fx.node.map_arg(a, values.__getitem__) for a in (node.args, node.kwargs))
            with torch.no_grad():
                values[node] = node.target(*args, **kwargs)
        elif node.op == "call_method" and all(n in values for n in node.all_input_nodes):
            args, kwargs = (fx.node.map_arg(a, values.__getitem__) for a in (node.args, node.kwargs))
            with torch.no_grad():
                values[node] = getattr(args[0], node.target)(*args[1:], **kwargs)
        else:
            continue
        if node.op == "get_attr" or not isinstance(values[node], Tensor):
            continue
        name = f"constant_{node.name}"
        graph.register_buffer(name, values[node].detach().clone())
        with graph.graph.inserting_before(node):
            read = graph.graph.get_attr(name)
        values[read] = values[node]
        node.replace_all_uses_with(read)


def _modules(graph: fx.GraphModule) -> None:
    """Makes modules of convolutions, linear layers and batch norms that are called as functions on constants."""
    values: dict[fx.Node, Any] = {}
    for node in list(graph.graph.nodes):
        if node.op == "get_attr":
            values[node] = operator.attrgetter(str(node.target))(graph)
        if node.op != "call_function" or (make := MAKERS.get(_called(node))) is None:
            continue
        source, *rest = node.args or (node.kwargs.get("input"),)
        kwargs = {k: v for k, v in node.kwargs.items() if k != "input"}
        if not isinstance(source, fx.Node) or source in values:
            continue
        if make is not _linear and len(source.meta.get("shape", ())) != 4:
            continue
        args: Any = fx.node.map_arg(tuple(rest), lambda n: values.get(n, n))
        given: Any = fx.node.map_arg(kwargs, lambda n: values.get(n, n))
        try:
            bound = inspect.signature(make).bind(*args, **given)
        except TypeError:
            continue
        if any(isinstance(v, fx.Node) for v in bound.arguments.values()):
            continue
        if (called := make(*bound.args, **bound.kwargs)) is None:
            continue
        name = f"made_{node.name}"
        graph.add_submodule(name, called.eval())
        with graph.graph.inserting_before(node):
            call = graph.graph.call_module(name, (source,))
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        graph.graph.erase_node(node)


def _convolution(
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> nn.Module | None:
    if weight.ndim != 4:
        return None

    def pair(value: Any) -> Any:
        return value if isinstance(value, int | str) else tuple(value) * (3 - len(value))

    outputs, inputs, height, width = weight.shape
    made = nn.Conv2d(
        inputs * groups, outputs, (height, width), pair(stride), pair(padding), pair(dilation), groups,
        bias is not None, device="meta",
    )  # fmt: skip
    return _with(made, weight=weight, bias=bias)


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Module | None:
    if weight.ndim != 2:
        return None
    made = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    return _with(made, weight=weight, bias=bias)


def _batch_norm(
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> nn.Module | None:
    if training or running_mean is None or running_var is None or (weight is None) != (bias is None):
        return None
    made = nn.BatchNorm2d(len(running_mean), eps, affine=weight is not None, device="meta")
    made.running_mean, made.running_var = running_mean.detach(), running_var.detach()
    return _with(made, weight=weight, bias=bias)


def _aten_batch_norm(
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> nn.Module | None:
    return _batch_norm(running_mean, running_var, weight, bias, training, momentum, eps)


def _with(module: nn.Module, **weights: Tensor | None) -> nn.Module:
    for name, weight in weights.items():
        if weight is not None:
            setattr(module, name, nn.Parameter(weight.detach(), requires_grad=False))
    return module


MAKERS: dict[Any, Callable[..., nn.Module | None]] = {
    F.conv2d: _convolution, torch.conv2d: _convolution, ATEN.conv2d: _convolution,
    F.linear: _linear, ATEN.linear: _linear,
    F.batch_norm: _batch_norm, ATEN.batch_norm: _aten_batch_norm, torch.batch_norm: _aten_batch_norm,
}  # fmt: skip


def _separate(graph: fx.GraphModule) -> None:
    """Lets what was written for one memory layout run on another, and takes parts of a split one by one."""
    for node in list(graph.graph.nodes):
        if node.op == "call_method" and node.target == "view" and not isinstance(node.args[-1], torch.dtype):
            node.target = "reshape"
        elif node.op == "call_function" and node.target in (ATEN.view.default, ATEN._unsafe_view.default):
            node.target = torch.reshape
        elif node.op == "call_function" and node.target is operator.getitem and isinstance(node.args[1], int):
            _part(graph, node, node.args[0], node.args[1])


SPLITS = {"split", "chunk", "tensor_split", "split_with_sizes"}


def _part(graph: fx.GraphModule, node: fx.Node, split: fx.Node, which: int) -> None:
    """Makes ``narrow(x, ...)`` of ``split(x, ...)[which]``."""
    name = split.target if isinstance(split.target, str) else getattr(_called(split), "__name__", "")
    shapes = split.meta.get("shape")
    if name not in SPLITS or not isinstance(shapes, list) or not split.args:
        return
    source: Any = split.args[0]
    # A batch of another size is not split.
    whole = source.meta.get("shape", ())
    differ = [d for d in range(1, len(whole)) if any(s[d] != whole[d] for s in shapes)]
    if len(differ) != 1:
        return
    (dim,) = differ
    lengths = [s[dim] for s in shapes]
    which %= len(lengths)
    with graph.graph.inserting_before(node):
        part = graph.graph.call_function(torch.narrow, (source, dim, sum(lengths[:which]), lengths[which]))
    part.meta = dict(node.meta)
    node.replace_all_uses_with(part)
    graph.graph.erase_node(node)


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
        slope, offset = (v.double() for v in slope_and_offset(norm))
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


def slope_and_offset(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A batch norm as ``slope * x + offset``, ``[C]`` each."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    slope = (norm.running_var + norm.eps).rsqrt()
    if norm.affine:
        slope = slope * norm.weight.detach()
    offset = -norm.running_mean * slope
    return slope, offset + norm.bias.detach() if norm.affine else offset


def overwrites(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a node changes its first operand."""
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    trailing = node.op in ("call_method", "call_function") and name.endswith("_") and not name.endswith("__")
    augmented = getattr(node.target, "__module__", "") == "_operator" and name in ("iadd", "isub", "imul", "itruediv")
    return trailing or augmented or any(a is True for a in (*node.args[1:], node.kwargs.get("inplace")))
