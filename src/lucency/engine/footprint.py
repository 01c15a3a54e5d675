"""How much memory one scan takes on its way through a network, and how much there is."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

SHARE = 0.5
"""Of the memory that is free, what one batch may take when no limit is given."""


class Footprint(TorchFunctionMode):
    """Counts the bytes of the tensors that are made inside.

    Attributes:
        most: the largest sum of those alive at one time, which is what a pass forward takes.
        all: the sum of all of them, which is what is kept at most for a pass backward.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = self.all = 0
        self._alive: dict[int, int] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        # Views, and what is worked on in place, take nothing anew.
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if _is_plain(x)}
        for made in tree_leaves(out):
            if not _is_plain(made):
                continue
            storage = made.untyped_storage()
            if storage._cdata in given or storage._cdata in self._alive:
                continue
            self._alive[storage._cdata] = storage.nbytes()
            weakref.finalize(storage, self._gone, storage._cdata)
            self.now += storage.nbytes()
            self.all += storage.nbytes()
            self.most = max(self.most, self.now)
        return out

    def _gone(self, key: int) -> None:
        self.now -= self._alive.pop(key)


def _is_plain(x: Any) -> bool:
    return isinstance(x, Tensor) and x.layout == torch.strided


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on the device; ``None`` where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)
