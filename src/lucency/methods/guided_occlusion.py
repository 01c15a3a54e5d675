"""Guided occlusion: where hiding lowers the score, seen through Grad-CAM.

Occlusion says what each patch does to the score, but a patch may also matter for what it does to the scan; Grad-CAM
says where the network's last feature maps speak for the class, coarsely, and hides nothing. Their geometric mean keeps
what both say:

    M(u) = max O * sqrt( O+(u) / max O  *  G(u) / max G )

with O the map of occlusion (Zeiler & Fergus, ECCV 2014), O+ its positive part and G that of Grad-CAM (Selvaraju et al.,
ICCV 2017) on the model's grid. It is 0 where either is; evidence against the class is not shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from lucency.classifier import Placement, Question
from lucency.engine import Engine
from lucency.masks import Patches
from lucency.methods.base import Method, Step, Takes
from lucency.methods.cam import GradCam
from lucency.methods.occlusion import Length, Occlusion
from lucency.removal import Mean, Removal
from lucency.scan import Scan


@dataclass(frozen=True)
class GuidedOcclusion(Method):
    """The geometric mean of the maps of occlusion and Grad-CAM.

    Attributes:
        patch: size of the patch, in pixels of the model's grid or as ``"15mm"``.
        stride: distance between patches, likewise; half the patch when ``None``.
        removal: what stands in the patch.
        order: ``"raster"`` slides row by row; ``"spread"`` visits the whole scan coarsely first, then fills in.
        layer: the module whose feature maps make the Grad-CAM map; the last before the head when ``None``.
    """

    name: ClassVar[str] = "guided_occlusion"
    title: ClassVar[str] = "Guided occlusion"
    paper: ClassVar[str] = "Zeiler & Fergus, ECCV 2014, times Selvaraju et al., ICCV 2017"
    takes: ClassVar[Takes] = "patches"
    unit: ClassVar[str] = "fall of the score when hidden, weighted by activation"
    needs_gradients: ClassVar[bool] = True

    patch: Length = 16
    stride: Length | None = None
    removal: Removal = field(default_factory=Mean)
    order: Literal["raster", "spread"] = "raster"
    layer: str | None = None

    @property
    def _occlusion(self) -> Occlusion:
        return Occlusion(self.patch, self.stride, self.removal, features=False, order=self.order)

    def anytime(self) -> Self:
        return replace(self, order="spread")

    def patches(self, placement: Placement, spacing: Sequence[float] | None) -> Patches:
        return self._occlusion.patches(placement, spacing)

    def steps(self, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        weights, facts = GradCam(self.layer).on_scan(engine.open(scan, question))
        for step in self._occlusion.steps(scan, question, engine):
            yield _guided(replace(step, facts={**step.facts, **facts}), weights)


def _guided(step: Step, weights: Tensor) -> Step:
    trials = step.trials
    if trials is not None:
        trials = replace(trials, show=partial(_shown, trials.show, weights))
    return replace(step, heatmap=partial(_mean, step.heatmap, weights), trials=trials)


def _shown(show: Callable[[int], Step], weights: Tensor, i: int) -> Step:
    return _guided(show(i), weights)


def _mean(made: Callable[[], Tensor], weights: Tensor) -> Tensor:
    """Of the map made and Grad-CAM's ``weights``, both ``[*grid]``."""
    falls = made().clamp_min(0)
    most, heaviest = float(falls.max()), float(weights.max())
    if most <= 0 or heaviest <= 0:
        return torch.zeros_like(falls)
    return most * torch.sqrt(falls / most * (weights / heaviest).to(falls))
