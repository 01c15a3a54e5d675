"""A network as a graph of operators."""

from __future__ import annotations

import copy
import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from lucency.engine.folding import folded

BATCHES = (2, 3)


def traced(module: nn.Module, example: Tensor, keep: Sequence[str] = ()) -> fx.GraphModule | None:
    """The network as a graph that is quick to run; ``None`` where it has none.

    Args:
        module: is left as it is.
        example: ``[1, C, H, W]``, a scan. The graph holds for scans of its size, in batches of any size.
        keep: the modules that are watched; they stay in the graph.
    """
    try:
        with warnings.catch_warnings():
            # Copying an exported program makes PyTorch warn of its own future, which no user can change.
            warnings.simplefilter("ignore")
            only = _Only(copy.deepcopy(module))
            for part in only.modules():
                # An exported program refuses to be told so by its own method.
                part.training = False
            graph = _plainly(only, example) or _Tracer(only, example).trace(only)
            for node in graph.nodes:
                if node.op in ("call_module", "get_attr"):
                    name = str(node.target)
                    if not name.startswith("network."):
                        # A tensor that the network has made on its way.
                        setattr(only.network, name, getattr(only, name))
                    node.target = name.removeprefix("network.")
            return folded(fx.GraphModule(only.network, graph), keep)
    except Exception:
        # Whatever a user's forward does that cannot be traced (control flow on values, foreign code) runs dense.
        return None


def _plainly(only: _Only, example: Tensor) -> fx.Graph | None:
    """The graph by PyTorch's own tracer, where nothing but tensors flows in it; ``None`` where anything else does.

    Most networks are of this kind, and the tracer below makes PyTorch load its compiler, which takes two seconds.
    """
    try:
        graph = fx.Tracer().trace(only)
        _Shapes(fx.GraphModule(only, graph)).run(example)
    except Exception:
        # Whatever it was, the other tracer has its own say about it.
        return None
    return graph


class _Shapes(fx.Interpreter):
    """Notes the shape of what each node gives."""

    def run_node(self, n: fx.Node) -> Any:
        with torch.no_grad():
            found = super().run_node(n)
        if not isinstance(found, Tensor):
            raise fx.proxy.TraceError
        n.meta["shape"] = _shape(found)
        return found


class _Only(nn.Module):
    """A network that is given a scan and nothing else, so that its other arguments are their defaults."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        return self.network(x)


class _Proxy(fx.Proxy):
    """Stands for a value while the network is traced.

    Attributes:
        known: the value for a batch of each size, without its numbers where it is a tensor.
    """

    known: tuple[Any, ...]

    def __len__(self) -> int:
        first, second = map(len, self.known)
        if first != second:
            raise fx.proxy.TraceError
        return first

    @property
    def shape(self) -> Any:
        return self.size()

    def __getattr__(self, name: str) -> Any:
        if name != "known" and not callable(getattr(self.known[0], name)):
            return self.tracer.create_proxy("call_function", getattr, (self, name), {})
        return super().__getattr__(name)


class _Tracer(fx.Tracer):
    """Follows a network with values of known shape beside it.

    PyTorch's own tracer stops where a shape decides something. Here the network goes along with tensors that have a
    shape but no numbers, once for each of two batches. What is the same for both does not depend on the batch, and the
    network gets it as it is: a size, a test of it, a number of axes.
    """

    def __init__(self, root: nn.Module, example: Tensor) -> None:
        super().__init__()
        self.example = example
        shapes = {id(t): torch.empty_like(t, device="meta") for t in (*root.parameters(), *root.buffers())}
        self.shapes = copy.deepcopy(root, shapes)
        self._beside = False

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **others: Any) -> Any:
        made = super().create_proxy(kind, target, args, kwargs, *more, **others)
        if not isinstance(made, _Proxy) or kind == "output":
            return made
        known = tuple(self._known(kind, target, args, kwargs, turn) for turn in range(len(BATCHES)))
        if kind != "get_attr" and _plain(known[0]) and type(known[0]) is type(known[1]) and known[0] == known[1]:
            self.graph.erase_node(made.node)
            return known[0]
        made.known = known
        made.node.meta["shape"] = _shape(known[0])
        return made

    def _known(self, kind: str, target: Any, args: Any, kwargs: Any, turn: int) -> Any:
        def known(value: Any) -> Any:
            value = value.known[turn] if isinstance(value, _Proxy) else value
            if isinstance(value, Tensor):
                return value.to("meta")
            return torch.device("meta") if isinstance(value, torch.device) else value

        args, kwargs = (fx.node.map_aggregate(a, known) for a in (args, kwargs))
        self._beside = True
        try:
            with torch.no_grad():
                if kind == "placeholder":
                    return self.example.new_empty(BATCHES[turn], *self.example.shape[1:], device="meta")
                if kind == "get_attr":
                    return known(operator.attrgetter(target)(self.root))
                if kind == "call_module":
                    return self.shapes.get_submodule(target)(*args, **kwargs)
                if kind == "call_method":
                    return getattr(args[0], target)(*args[1:], **kwargs)
                return getattr(self.example, args[1]) if args[1:] == ("device",) else target(*args, **kwargs)
        finally:
            self._beside = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name != "network" and super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return forward(*args, **kwargs) if self._beside else super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._beside else super().getattr(attr, attr_val, parameter_proxy_cache)

    def to_bool(self, obj: fx.Proxy) -> bool:
        assert isinstance(obj, _Proxy)
        first, second = (bool(v) for v in obj.known if not isinstance(v, Tensor))
        if first != second:
            raise fx.proxy.TraceError
        return first

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        assert isinstance(obj, _Proxy)
        items: Any = obj
        return iter([items[i] for i in range(len(obj))])


def _plain(value: Any) -> bool:
    """Whether a value holds no tensor."""
    return not any(isinstance(v, Tensor) for v in torch.utils._pytree.tree_leaves(value))


def _shape(value: Any) -> Any:
    """The shape of a tensor, or those of several."""
    if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        return [_shape(v) for v in value]
    return tuple(value.shape) if isinstance(value, Tensor) else None
