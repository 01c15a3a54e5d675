"""The ReLU on the way back: what guided backpropagation and the deconvnet change in a backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lucency.engine import Probe
from lucency.errors import QuestionError

_RELU = torch.ops.aten.threshold_backward.default
_RELU6 = torch.ops.aten.hardtanh_backward.default


class Rectified(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, backward passes pass on only the positive part of the signal at every ReLU (and ReLU6).

    With ``guided`` the ReLU's own derivative holds as well (guided backpropagation), without it does not (deconvnet:
    Zeiler & Fergus 2014, section 2.1, "Rectification"). It is the derivative itself that is replaced while autograd
    runs it, so a ReLU counts however it was written (module, function, tensor method, in place), and the network is
    never touched.
    """

    def __init__(self, *, guided: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.guided = guided
        self.met = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing is compiled here, and torch's guard against that would import its compiler, which takes seconds.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _RELU or (func is _RELU6 and args[2] == 0):
            self.met += 1
            signal = args[0].clamp_min(0)
            return func(signal, *args[1:]) if self.guided else signal
        return func(*args, **(kwargs or {}))


def rectified_gradient(probe: Probe, *, guided: bool) -> Tensor:
    """The rectified gradient of the score at the clean scan, ``[C, *grid]``.

    Raises:
        QuestionError: for a black box, and where no ReLU was met: the map would be the plain gradient by another name.
    """
    with Rectified(guided=guided) as mode:
        gradient = probe.gradient(probe.pixels[None])[1][0]
    if not mode.met:
        raise QuestionError(
            f"{probe.engine.classifier.name} has no ReLU on the way from the scan to what is watched, so there is "
            "nothing to rectify; use gradient or integrated_gradients."
        )
    return gradient
