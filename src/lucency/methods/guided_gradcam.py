"""Guided Grad-CAM (Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks ...", ICCV 2017, section 3.1).

Grad-CAM says where, coarsely; guided backpropagation says which pixels, whatever the class. Their product says both:

    M(u) = (bilinear upsampling of the Grad-CAM map)(u) * (guided gradient summed over channels)(u)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from lucency.classifier import Question
from lucency.engine import Engine
from lucency.methods.base import Method, Step
from lucency.methods.cam import GradCam
from lucency.methods.gradient import answer
from lucency.methods.rectify import rectified_gradient
from lucency.scan import Scan


@dataclass(frozen=True)
class GuidedGradCam(Method):
    """The guided gradient of each pixel, weighted by the Grad-CAM map.

    Attributes:
        layer: the module whose feature maps make the Grad-CAM map; the last before the head when ``None``.
    """

    name: ClassVar[str] = "guided_gradcam"
    title: ClassVar[str] = "Guided Grad-CAM"
    paper: ClassVar[str] = "Selvaraju et al., ICCV 2017"
    unit: ClassVar[str] = "guided change of the score, weighted by activation"
    needs_gradients: ClassVar[bool] = True
    locates: ClassVar[bool] = False

    layer: str | None = None

    def steps(self, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        probe = engine.open(scan, question)
        coarse, facts = GradCam(self.layer).on_scan(probe)
        fine = rectified_gradient(probe, guided=True).sum(0)
        yield answer(probe, coarse * fine, facts)
