"""How a network is asked: one question at a time, by PyTorch as it is out of the box, and without leaving a trace.

Whoever explains may sit in a thread, in ``no_grad``, in ``inference_mode``, under autocast, or may have set another
default dtype or device. None of that may reach the map. What is set here is set for as long as a pass or a step takes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn


class _Only:
    """The lock that a pass holds. Hooks and tracing are seen by every thread, so only one asks at a time."""

    def __init__(self) -> None:
        self.lock = threading.RLock()

    def renew(self) -> None:
        # Whoever held it when the process was forked does not live in the child.
        self.lock = threading.RLock()


class _Float32:
    """Float32 as the default dtype while somebody is inside. That default belongs to all threads, so they are counted:
    the first to come notes what it was, the last to go puts it back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = torch.float32

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._inside == 0:
                self._before = torch.get_default_dtype()
                if self._before != torch.float32:
                    torch.set_default_dtype(torch.float32)
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0 and self._before != torch.float32:
                    torch.set_default_dtype(self._before)

    def renew(self) -> None:
        self._lock, self._inside = threading.Lock(), 0


_only = _Only()
_float32 = _Float32()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_only.renew)
    os.register_at_fork(after_in_child=_float32.renew)


@contextmanager
def undisturbed() -> Iterator[None]:
    """PyTorch as it is out of the box: float32, tensors on the processor unless said otherwise, gradients on."""
    with ExitStack() as stack:
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_float32())
        yield


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Nobody else asks a network in the meantime; the same thread may enter again."""
    with _only.lock:
        yield


@contextmanager
def asking() -> Iterator[None]:
    """Both: :func:`one_at_a_time` and :func:`undisturbed`."""
    with one_at_a_time(), undisturbed():
        yield


class Buffers:
    """A network's own state, which a pass must leave as it found it.

    Most networks change nothing. So the first passes of each kind are watched, and the others only where one of those
    did: then what has been changed is put back after each pass.

    Args:
        module: the network; ``None`` for a black box, whose state is out of reach.
    """

    def __init__(self, module: nn.Module | None) -> None:
        self._module = module
        self._seen: set[tuple[bool, bool]] = set()
        self.changing = False

    @contextmanager
    def kept(self, scans: int) -> Iterator[None]:
        """Around a pass of so many scans."""
        kind = (scans > 1, self._module is not None and self._module.training)
        if self._module is None or (kind in self._seen and not self.changing):
            yield
            return
        found = [(m, n, b) for m in self._module.modules() for n, b in m.named_buffers(recurse=False)]
        owned = [(m, n, b) for m, n, b in found if not nn.parameter.is_lazy(b)]
        # One copy of what two modules share.
        with torch.inference_mode(False):
            copies = {id(buffer): buffer.detach().clone() for _, _, buffer in owned}
        try:
            yield
        finally:
            self._seen.add(kind)
            for module, name, buffer in owned:
                before = copies[id(buffer)]
                if not _equal(getattr(module, name), before):
                    self.changing = True
                    # Put back as another tensor: a backward pass may still need the one that was changed.
                    setattr(module, name, before)


def _equal(now: object, before: Tensor) -> bool:
    if not isinstance(now, Tensor) or now.shape != before.shape or now.dtype != before.dtype:
        return False
    try:
        return bool(((now == before) | ((now != now) & (before != before))).all())
    except RuntimeError:
        # Sparse or quantised: compared as far as PyTorch can.
        return torch.equal(now, before)
