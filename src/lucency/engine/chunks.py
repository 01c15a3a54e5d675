"""How many scans go through the network at once: as many as are measured to be fastest."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from lucency.errors import ModelError, ran_out_of_memory

Result = TypeVar("Result")
GAIN = 0.97
"""A larger batch has to take less than this share of the time of a smaller one."""


class Chunks:
    """The size of a batch. It doubles for as long as that makes a scan quicker, and halves when memory runs out.

    A large batch is not always faster: on a CPU its activations fall out of the cache, and memory of tens of megabytes
    goes back to the operating system after each layer.

    Args:
        first: the size to begin with.
        most: the size to end with at the latest; equal to ``first`` it is fixed.
        device: whose clock counts.

    Attributes:
        size: the size at present.
        most: what it can become.
    """

    def __init__(self, first: int, most: int, device: torch.device) -> None:
        self.size = min(first, most)
        self.most = most
        self._settled = first >= most
        self._device = device
        self._seconds: dict[int, list[float]] = {}
        self._told = False

    def limit(self, most: int) -> None:
        """From now on no more than ``most`` at once, and at least one."""
        self.most = max(1, min(self.most, most))
        self.size = min(self.size, self.most)

    def halve(self, scans: int) -> None:
        """Memory ran out with so many scans; from now on half as many go at once, and one warning says so.

        Raises:
            ModelError: when it was one scan.
        """
        if scans == 1:
            raise ModelError("Memory ran out on a single scan; use a machine with more of it, or a smaller input_size.")
        self.limit(scans // 2)
        self._settled = True
        if not self._told:
            warnings.warn(f"Out of memory; the engine goes on with batches of {self.size}.", stacklevel=5)
            self._told = True

    def through(self, items: Tensor, work: Callable[[Tensor], Result]) -> list[Result]:
        """What ``work`` makes of the items, a batch at a time."""
        done: list[Result] = []
        at = 0
        while at < len(items):
            part = items[at : at + self.size]
            began = self._now()
            try:
                done.append(work(part))
            except RuntimeError as error:
                if not ran_out_of_memory(error):
                    raise
                self.halve(len(part))
                continue
            at += len(part)
            if not self._settled and len(part) == self.size:
                self._took(self._now() - began)
        return done

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def _took(self, seconds: float) -> None:
        times = self._seconds.setdefault(self.size, [])
        times.append(seconds / self.size)
        # The first batch of a size also pays for what is set up once.
        if len(times) < 2:
            return
        smaller = min(self._seconds.get(self.size // 2, [float("inf")]))
        if min(times) > GAIN * smaller:
            self.size //= 2
            self._settled = True
        elif 2 * self.size > self.most:
            self._settled = True
        else:
            self.size *= 2
