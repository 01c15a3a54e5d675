"""Class activation maps: the feature maps A_k of one layer, weighted and summed, brought to the size of the scan.

With y the score, g = dy/dA and Z the number of pixels of a feature map:

- CAM (Zhou et al., CVPR 2016): M = sum_k w_k A_k, where the head is global average pooling and one linear layer with
  the weights w_k (equation 2). Its mean is the logit without its bias.
- Grad-CAM (Selvaraju et al., ICCV 2017): ReLU(sum_k a_k A_k), a_k = mean of g_k over space (equations 1 and 2).
- Grad-CAM++ (Chattopadhyay et al., WACV 2018): ReLU(sum_k w_k A_k), w_k = sum over pixels of a_k ReLU(g_k) with
  a_k = g_k^2 / (2 g_k^2 + g_k^3 sum A_k) (equations 10 and 19; a common factor of y's exponential left out).
- Layer-CAM (Jiang et al., IEEE TIP 2021): ReLU(sum_k ReLU(g_k) A_k) (equations 5 and 6).

The layer is, unless named, the last feature maps before the head, *after* their nonlinearity: those a head pools. In a
transformer these are the tokens of its last block, laid out on the grid of the patches, without the class token
(:mod:`lucency.methods.features`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lucency.classifier import Question
from lucency.engine import Engine, Probe
from lucency.errors import QuestionError
from lucency.methods.base import Fact, Method, Step
from lucency.methods.features import features_and_gradient, onto_grid
from lucency.methods.gradient import answer
from lucency.scan import Scan


@dataclass(frozen=True)
class Cam(Method):
    """Class activation map: each pixel's share of the logit, where the head allows it."""

    name: ClassVar[str] = "cam"
    title: ClassVar[str] = "CAM"
    paper: ClassVar[str] = "Zhou, Khosla, Lapedriza, Oliva & Torralba, CVPR 2016"
    unit: ClassVar[str] = "logit at this place"
    needs_gradients: ClassVar[bool] = True

    def steps(self, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        logit = Question(question.target, question.name, "logit")
        probe = engine.open(scan, question, None, [logit])
        # A linear head has one gradient for every place and every scan, however different the scans.
        x = probe.pixels
        scans = torch.stack([x, 1 - x, torch.zeros_like(x), x.flip(-1)])
        found = features_and_gradient(probe, scans, None, question=1)
        slopes = found.gradient.flatten(2)
        weights = slopes[0].mean(1)
        if float((slopes - weights[:, None]).abs().max()) > 1e-3 * float(slopes.abs().max()):
            raise QuestionError(
                f"The head of {engine.classifier.name} is not global average pooling and one linear layer, which CAM "
                "needs; use gradcam."
            )
        heatmap = torch.einsum("k,k...->...", weights * slopes.shape[2], found.maps[0])
        facts: dict[str, Fact] = {"layer": found.layer, "bias": float(probe.clean[1] - heatmap.mean())}
        yield answer(probe, onto_grid(heatmap, probe.grid), facts)


class _GradCam(Method, ABC):
    needs_gradients: ClassVar[bool] = True

    layer: str | None

    def steps(self, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        probe = engine.open(scan, question)
        heatmap, facts = self.on_scan(probe)
        yield answer(probe, heatmap, facts)

    def on_scan(self, probe: Probe) -> tuple[Tensor, dict[str, Fact]]:
        """The map ``[*grid]`` of the clean scan, and which feature maps it is made of."""
        found = features_and_gradient(probe, probe.pixels[None], self.layer)
        maps, gradient = found.maps[0], found.gradient[0]
        heatmap = (self._weights(maps, gradient) * maps).sum(0).clamp_min(0)
        return onto_grid(heatmap, probe.grid), {"layer": found.layer, "feature maps": "x".join(map(str, maps.shape))}

    @abstractmethod
    def _weights(self, features: Tensor, gradient: Tensor) -> Tensor:
        """What the feature maps ``[K, *spatial]`` are multiplied by, broadcastable to them."""


@dataclass(frozen=True)
class GradCam(_GradCam):
    """Feature maps weighted by their mean gradient.

    Attributes:
        layer: the module whose output is taken; the last feature maps, or tokens, before the head when ``None``.
    """

    name: ClassVar[str] = "gradcam"
    title: ClassVar[str] = "Grad-CAM"
    paper: ClassVar[str] = "Selvaraju et al., ICCV 2017"
    unit: ClassVar[str] = "weighted activation"

    layer: str | None = None

    def _weights(self, features: Tensor, gradient: Tensor) -> Tensor:
        return gradient.mean(tuple(range(1, gradient.ndim)), keepdim=True)


@dataclass(frozen=True)
class GradCamPlusPlus(_GradCam):
    """Feature maps weighted by their positive gradients, so that several findings count alike.

    Attributes:
        layer: the module whose output is taken; the last feature maps, or tokens, before the head when ``None``.
    """

    name: ClassVar[str] = "gradcam_plus_plus"
    title: ClassVar[str] = "Grad-CAM++"
    paper: ClassVar[str] = "Chattopadhyay, Sarkar, Howlader & Balasubramanian, WACV 2018"
    unit: ClassVar[str] = "weighted activation"

    layer: str | None = None

    def _weights(self, features: Tensor, gradient: Tensor) -> Tensor:
        # Scaling g down and A up by the same number leaves the quotient; the cube of a small number would be lost.
        scale = gradient.abs().max().clamp_min(torch.finfo(gradient.dtype).tiny)
        g = gradient / scale
        sums = features.flatten(1).sum(1).view(-1, *[1] * (features.ndim - 1)) * scale
        below = 2 * g.square() + g**3 * sums
        share = torch.where(below == 0, 0.0, g.square() / torch.where(below == 0, 1.0, below))
        return (share * gradient.clamp_min(0)).flatten(1).sum(1).view_as(sums)


@dataclass(frozen=True)
class LayerCam(_GradCam):
    """Feature maps weighted by their positive gradient at each place, which keeps detail in early layers.

    Attributes:
        layer: the module whose output is taken; the last feature maps, or tokens, before the head when ``None``.
    """

    name: ClassVar[str] = "layercam"
    title: ClassVar[str] = "Layer-CAM"
    paper: ClassVar[str] = "Jiang, Zhang, Hou, Cheng & Wei, IEEE TIP 2021"
    unit: ClassVar[str] = "weighted activation"

    layer: str | None = None

    def _weights(self, features: Tensor, gradient: Tensor) -> Tensor:
        return gradient.clamp_min(0)
