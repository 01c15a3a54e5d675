"""A network as a graph of operators, brought into the form in which it is quickest to run."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval


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
        if node.all_input_nodes and overwrites(node, modules):
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
