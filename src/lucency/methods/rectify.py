"""The ReLU on the way back: what guided backpropagation and the deconvnet change in a backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lucency.classifier import Classifier
from lucency.errors import QuestionError

_RELU = torch.ops.aten.threshold_backward.default
_RELU6 = torch.ops.aten.hardtanh_backward.default


class _Rectify(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, guided: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.guided = guided
        self.seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _RELU or (func is _RELU6 and args[2] == 0):
            self.seen += 1
            signal = args[0].clamp_min(0)
            return func(signal, *args[1:]) if self.guided else signal
        return func(*args, **(kwargs or {}))


@contextmanager
def rectified(classifier: Classifier, *, guided: bool) -> Iterator[None]:
    """Backward passes inside pass on the positive part of the signal at every ReLU (and ReLU6).

    With ``guided`` the ReLU's own derivative holds as well (guided backpropagation), without it does not (deconvnet:
    Zeiler & Fergus 2014, section 2.1, "Rectification"). It is the derivative itself that is replaced while autograd
    runs it, so a ReLU counts however it was written (module, function, tensor method, in place), and the network is
    never touched.

    Raises:
        QuestionError: when no ReLU was met, so that the map would be the plain gradient under another name.
    """
    mode = _Rectify(guided)
    with mode:
        yield
    if not mode.seen:
        raise QuestionError(
            f"{classifier.name} has no ReLU on the way from the scan to what is watched, so there is nothing to "
            "rectify; use gradient or integrated_gradients."
        )
