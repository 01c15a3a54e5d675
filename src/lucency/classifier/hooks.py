"""Looking into a network while it runs: the one way to hang on to its modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from lucency.asking import one_at_a_time

After = Callable[[str, nn.Module, tuple[Any, ...], Any], Any]
"""Name, module, its inputs and its output; what it returns, if anything, takes the place of the output."""
Before = Callable[[str, nn.Module, tuple[Any, ...]], Any]
"""Name, module and its inputs; what it returns, if anything, takes the place of the inputs."""


@contextmanager
def hooked(
    modules: Mapping[str, nn.Module], after: After | None = None, before: Before | None = None
) -> Iterator[None]:
    """Inside, ``after`` and ``before`` are called with each of the modules that runs; nothing of it stays.

    Nobody else asks a network in the meantime, since hooks are seen by every thread. A scripted module runs where
    Python cannot watch, and is left out.
    """
    with one_at_a_time(), ExitStack() as hooks:
        for name, module in modules.items():
            if isinstance(module, torch.jit.ScriptModule):
                continue
            if after is not None:
                hooks.callback(module.register_forward_hook(partial(after, name)).remove)
            if before is not None:
                hooks.callback(module.register_forward_pre_hook(partial(before, name)).remove)
        yield
