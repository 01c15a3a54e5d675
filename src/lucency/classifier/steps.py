"""What kind of step makes a network's outputs: watched below its modules, so that functions count like layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

KINDS = {
    "softmax": ("_softmax", "softmax", "_safe_softmax"),
    "log-softmax": ("_log_softmax", "log_softmax"),
    "sigmoid": ("sigmoid", "sigmoid_", "hardsigmoid", "hardsigmoid_"),
    "log-sigmoid": ("log_sigmoid", "log_sigmoid_forward"),
    "linear": (
        "linear", "addmm", "mm", "matmul", "bmm", "baddbmm", "addmv", "einsum", "conv1d", "conv2d", "conv3d",
        "convolution", "_convolution", "mkldnn_convolution", "mkldnn_linear", "linear_dynamic",
        "linear_dynamic_fp16", "_scaled_mm", "_int_mm", "bilinear", "_trilinear",
    ),
}  # fmt: skip
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names}
CARRIES = frozenset(
    {
        "view", "_unsafe_view", "reshape", "_reshape_alias", "flatten", "unflatten", "squeeze", "squeeze_", "unsqueeze",
        "unsqueeze_", "select", "slice", "narrow", "index", "index_select", "clone", "to", "_to_copy", "detach",
        "alias", "expand", "permute", "transpose", "t", "movedim", "contiguous", "cat", "stack", "split", "chunk",
        "unbind", "lift_fresh", "dequantize", "dropout", "native_dropout", "float", "type_as",
        "mean", "amax", "max", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "_adaptive_avg_pool2d",
        "_adaptive_avg_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d", "avg_pool2d", "avg_pool3d",
        "upsample_bilinear2d", "upsample_nearest2d", "upsample_bicubic2d", "upsample_trilinear3d",
        "upsample_nearest3d", "_upsample_bilinear2d_aa",
    }
)  # fmt: skip
"""Steps behind which probabilities are still probabilities and logits still logits."""
ARITHMETIC = frozenset({"add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "neg", "rsub"})
"""Steps behind which logits are still logits, as where a temperature is applied, and nothing else stays what it is."""


class _Steps(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers for each tensor what kind of step it comes from."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kind: dict[int, str] = {}
        self.alive: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        kinds = [self.kind[id(t)] for t in _tensors((args, kwargs or {})) if id(t) in self.kind]
        if name in KIND_OF:
            kind = KIND_OF[name]
        elif len(set(kinds)) == 1 and (name in CARRIES or (name in ARITHMETIC and kinds[0] == "linear")):
            kind = kinds[0]
        else:
            kind = name
        # A tensor that is gone would leave its number to another.
        self.alive.append(made)
        for tensor in _tensors(made):
            self.kind[id(tensor)] = kind
        return made


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [t for part in value for t in _tensors(part)] if isinstance(value, list | tuple) else []


def last_step(run: Callable[[], Tensor]) -> str | None:
    """The kind of step that makes the tensor that ``run`` returns.

    One of ``softmax``, ``log-softmax``, ``sigmoid``, ``log-sigmoid`` and ``linear``, seen through whatever only
    rearranges or averages; the name of the operation for anything else; ``None`` where nobody can watch.
    """
    try:
        with _Steps() as steps:
            made = run()
    except Exception:
        # What cannot be watched (compiled, foreign code) is judged by its numbers.
        return None
    found: str | None = steps.kind.get(id(made))
    return found
