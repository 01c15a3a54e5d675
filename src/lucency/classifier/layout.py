"""How a model that names its tensors wants a batch of scans laid out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Shape = tuple[int | None, ...]
COLOURS = (1, 3, 4)


@dataclass(frozen=True)
class Layout:
    """The axes of an input.

    Attributes:
        axes: how many it has; a batch axis or a channel axis may be wanting.
        channels_last: whether it is ``[B, *grid, C]``.
        shape: the same as ``[B, C, *grid]``, ``None`` where it is free.
    """

    axes: int
    channels_last: bool
    shape: Shape

    @classmethod
    def of(cls, wanted: Sequence[Any], channels: int | None, turned: bool = False) -> Layout:
        """The layout of an input of this shape (numbers where they are fixed).

        Args:
            channels: how many channels the caller says that the scan has.
            turned: whether the model puts channels first itself, which tells where the shape does not.
        """
        shape: Shape = tuple(n if isinstance(n, int) and n > 0 else None for n in wanted)
        if len(shape) == 3:
            if shape[0] in (3, 4):
                return cls(3, False, (1, *shape))
            if shape[2] in COLOURS:
                return cls(3, True, (1, shape[2], *shape[:2]))
            return cls(3, False, (shape[0], 1, *shape[1:]))
        colours = COLOURS if channels is None else (channels,)
        last = shape[-1] in colours and shape[1] not in colours
        if not last and None in (shape[1], shape[-1]) and shape[1] not in colours:
            last = turned
        return cls(len(shape), last, (shape[0], shape[-1], *shape[1:-1]) if last else shape)

    def laid(self, x: Tensor) -> NDArray[Any]:
        """``[B, C, *grid]`` as the model wants it."""
        data: NDArray[Any] = x.detach().cpu().numpy()
        if self.unbatched(x):
            data = data[0]
        elif self.axes < data.ndim:
            return data[:, 0]
        return np.moveaxis(data, 0 if self.unbatched(x) else 1, -1) if self.channels_last else data

    def unbatched(self, x: Tensor) -> bool:
        """Whether the model reads one scan without a batch axis."""
        return self.axes < x.ndim and x.shape[1] != 1

    def in_batches(
        self, run: Callable[[Tensor, Mapping[str, Any]], Any], x: Tensor, extras: Mapping[str, Any], most: int = 2**31
    ) -> Any:
        """What ``run`` gives for ``x`` and what stands beside it: a tensor, or several by name.

        It is asked with at most ``most`` scans at once; where the model reads a fixed number, the last batch is filled
        up and the filling dropped.
        """
        fixed = self.shape[0]
        size = fixed or most
        if len(x) == size or (fixed is None and len(x) < size):
            return run(x, extras)
        parts = []
        for start in range(0, len(x), size):
            count = min(size, len(x) - start)
            place = torch.arange(start, start + (fixed or count)).clamp(max=len(x) - 1)
            each = {name: v[place] if _for_each(v, x) else v for name, v in extras.items()}
            parts.append((run(x[place], each), count))
        if isinstance(parts[0][0], Tensor):
            return torch.cat([part[:count] for part, count in parts])
        return {name: torch.cat([part[name][:count] for part, count in parts]) for name in parts[0][0]}


def cast(data: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The numbers in another type; whole numbers are rounded and kept within their limits."""
    if dtype.kind in "iu" and data.dtype.kind == "f":
        limits = np.iinfo(dtype)
        data = np.clip(np.rint(data), limits.min, limits.max)
    return np.ascontiguousarray(data, dtype)


def beside(value: Any, axes: Sequence[Any]) -> NDArray[Any]:
    """An extra input as an array of as many axes as the model wants."""
    array: NDArray[Any] = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    return array[..., None] if array.ndim + 1 == len(axes) and axes[-1] == 1 else array


def _for_each(value: Any, x: Tensor) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == len(x)
