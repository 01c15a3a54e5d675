"""Feature maps and the gradient of the score with respect to them: what the class activation maps are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lucency.classifier import Classifier
from lucency.engine import Probe
from lucency.errors import QuestionError

_CONVOLUTIONS = (torch.conv2d, torch.conv3d)


class _LastFeatures(TorchFunctionMode):
    """Notes the last feature maps on the grid of the last convolution that has more than one pixel to put out."""

    def __init__(self) -> None:
        super().__init__()
        self.features: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.requires_grad and out.ndim >= 4:
            spatial = out.shape[2:]
            known = None if self.features is None else self.features.shape[2:]
            if spatial == known or (func in _CONVOLUTIONS and spatial.numel() > 1):
                self.features = out
        return out


@contextmanager
def _kept(classifier: Classifier, layer: str | None) -> Iterator[Callable[[], Tensor | None]]:
    if layer is None:
        with _LastFeatures() as last:
            yield lambda: last.features
        return
    named = dict(classifier.network().named_modules())
    if layer not in named:
        raise QuestionError(f"{classifier.name} has no layer {layer!r}; `lucency layers` lists the layers there are.")
    kept: list[Tensor] = []

    def hook(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        kept.append(output)
        # What comes next may work in place; it gets a copy.
        return output.clone()

    handle = named[layer].register_forward_hook(hook)
    try:
        yield lambda: kept[-1] if kept else None
    finally:
        handle.remove()


def features_and_gradient(probe: Probe, x: Tensor, layer: str | None, question: int = 0) -> tuple[Tensor, Tensor]:
    """Feature maps ``[B, K, *spatial]`` of scans ``[B, C, *grid]``, and the gradient of the score by them.

    Args:
        layer: the module whose output is taken. ``None``: the feature maps that leave the convolutional part, that
            is the last tensor on the grid of the last convolution, after its normalisation, ReLU and residual sum.
        question: which of the probe's questions gives the score.

    Raises:
        QuestionError: for a black box, a layer that does not exist or has no feature maps, or a score that does not
            depend on the layer.
    """
    classifier = probe.engine.classifier
    classifier.network()
    with torch.enable_grad(), _kept(classifier, layer) as features_of:
        score = probe.watch(x.detach().clone().requires_grad_(True))[:, question].sum()
    features = features_of()
    if features is None or features.ndim != x.ndim:
        what = "no convolution" if layer is None else f"no feature maps in {layer!r}"
        raise QuestionError(f"{classifier.name} has {what}, so there is no class activation map; use another method.")
    (gradient,) = torch.autograd.grad(score, features, allow_unused=True)
    probe.gradients += x.shape[0]
    if gradient is None:
        raise QuestionError(
            f"What is watched ({probe.questions[question].label}) does not depend on these feature maps; "
            "choose an earlier layer."
        )
    return features.detach(), gradient


def onto_grid(heatmap: Tensor, grid: tuple[int, ...]) -> Tensor:
    """A map ``[*spatial]`` of any size, linearly on ``grid``."""
    mode = "bilinear" if len(grid) == 2 else "trilinear"
    return F.interpolate(heatmap[None, None], size=grid, mode=mode, align_corners=False)[0, 0]
