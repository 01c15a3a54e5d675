"""How far a feature map sees: the box of the input that one of its pixels depends on, found by running the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS = (torch.conv2d, torch.conv3d)
_MAX_POOLS = (
    *(F.max_pool2d, F.max_pool2d_with_indices, torch.max_pool2d),
    *(F.max_pool3d, F.max_pool3d_with_indices, torch.max_pool3d),
)
_AVG_POOLS = (F.avg_pool2d, F.avg_pool3d)


@dataclass(frozen=True)
class ReceptiveField:
    """Pixel ``i`` of a feature map depends on input pixels ``i * jump + low`` to ``i * jump + high``, on each axis."""

    jump: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]

    def window(self, kernel: Sequence[int], stride: Sequence[int], before: Sequence[int]) -> ReceptiveField:
        """The receptive field after a window of ``kernel`` pixels has slid over this map, padded by ``before``."""
        axes = list(zip(self.jump, self.low, self.high, kernel, stride, before, strict=True))
        return ReceptiveField(
            tuple(j * s for j, _, _, _, s, _ in axes),
            tuple(low - j * p for j, low, _, _, _, p in axes),
            tuple(high + j * (k - 1 - p) for j, _, high, k, _, p in axes),
        )

    def union(self, other: ReceptiveField) -> ReceptiveField:
        """What a sum or a concatenation of two maps on one grid depends on."""
        return ReceptiveField(
            tuple(map(max, self.jump, other.jump)),
            tuple(map(min, self.low, other.low)),
            tuple(map(max, self.high, other.high)),
        )

    def box(self, at: Sequence[int], grid: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Start and stop on each axis of what the pixel ``at`` depends on, cut off at the border of ``grid``."""
        return tuple(
            (max(0, i * j + low), min(n, i * j + high + 1))
            for i, j, low, high, n in zip(at, self.jump, self.low, self.high, grid, strict=True)
        )


class ReceptiveFields(TorchFunctionMode):
    """While it is entered, follows the receptive field of every feature map that is made from ``x`` ``[B, C, *grid]``.

    Windows (convolution, pooling) widen it; anything else that keeps the grid unites what it is made of. A map that
    comes from elsewhere (resized, or made from a global pool) has none, and a pooled map that is only multiplied in,
    as by squeeze-and-excitation, does not count: it has no place.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        axes = x.ndim - 2
        self._ndim = x.ndim
        # The tensors are kept with what is known of them: an id is only theirs while they live.
        self._known: dict[int, tuple[Tensor, ReceptiveField]] = {
            id(x): (x, ReceptiveField((1,) * axes, (0,) * axes, (0,) * axes))
        }

    def of(self, features: Tensor) -> ReceptiveField | None:
        """The receptive field of feature maps ``[B, K, *spatial]``, ``None`` where it is not known."""
        known = self._known.get(id(features))
        return None if known is None else known[1]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        out = result[0] if isinstance(result, tuple) and result else result
        if isinstance(out, Tensor) and out.ndim == self._ndim:
            field = self._after(func, args, kwargs, out)
            if field is not None:
                self._known[id(out)] = (out, field)
            else:
                self._known.pop(id(out), None)
        return result

    def _after(self, func: Any, args: Any, kwargs: Any, out: Tensor) -> ReceptiveField | None:
        axes = self._ndim - 2

        def given(place: int, name: str, default: Any) -> Any:
            return args[place] if len(args) > place else kwargs.get(name, default)

        def each(value: Any) -> tuple[int, ...]:
            return (
                (int(value),) * axes if isinstance(value, int) else tuple(int(v) for v in value) * (axes // len(value))
            )

        source = self.of(args[0]) if args and isinstance(args[0], Tensor) else None
        if func in _CONVOLUTIONS:
            if source is None:
                return None
            dilation = each(given(5, "dilation", 1))
            kernel = tuple(d * (k - 1) + 1 for d, k in zip(dilation, given(1, "weight", None).shape[2:], strict=True))
            padding = given(4, "padding", 0)
            if isinstance(padding, str):
                before = tuple((k - 1) // 2 if padding == "same" else 0 for k in kernel)
            else:
                before = each(padding)
            return source.window(kernel, each(given(3, "stride", 1)), before)
        if func in _MAX_POOLS or func in _AVG_POOLS:
            if source is None:
                return None
            kernel = each(given(1, "kernel_size", None))
            stride = each(given(2, "stride", None) or kernel)
            before = each(given(3, "padding", 0))
            if func in _MAX_POOLS:
                dilation = each(given(4, "dilation", 1))
                kernel = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
            return source.window(kernel, stride, before)
        if func is F.pad and source is not None:
            pads = list(given(1, "pad", None))[::2]
            before = tuple(reversed(pads[:axes] + [0] * (axes - len(pads))))
            return source.window((1,) * axes, (1,) * axes, before)
        field: ReceptiveField | None = None
        for part in _tensors(args):
            known = self.of(part)
            if known is not None and part.shape[2:] == out.shape[2:]:
                field = known if field is None else field.union(known)
        return field


def _tensors(args: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for arg in args:
        if isinstance(arg, Tensor):
            found.append(arg)
        elif isinstance(arg, list | tuple):
            found.extend(_tensors(arg))
    return found
