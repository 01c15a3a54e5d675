"""The map that a slow method would give, in one pass of the classifier, by a small network that learnt it.

The network (:mod:`lucency.explainers`) reads the classifier's own feature maps of the clean scan. It was taught by
occlusion, Shapley values or RISE on other scans, a few dozen perturbed scans each (Jethani et al., "FastSHAP", ICLR
2022; Covert et al., "ViT Shapley", ICLR 2023, and "Stochastic Amortization", NeurIPS 2024). Nothing of this scan is
perturbed: the map is a prediction. How far it may be off was calibrated on patients that taught nothing, and a scan
that is unlike those it learnt from is called so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from lucency.classifier import Classifier, Question
from lucency.engine import Engine
from lucency.errors import ParameterError, QuestionError
from lucency.explainers import Learnt, OcclusionTeacher, RiseTeacher, ShapleyTeacher, Teacher
from lucency.explainers.learnt import COVERAGE
from lucency.explainers.shelf import explainer_for, opened, predicted
from lucency.masks import Cells
from lucency.methods.base import Fact, Method, Step
from lucency.methods.kernel_shap import KernelShap
from lucency.methods.occlusion import Occlusion
from lucency.methods.rise import Rise
from lucency.scan import Scan


@dataclass(frozen=True)
class Instant(Method):
    """What a slow method would say, predicted in one pass by a network that learnt it.

    A further map is half of its conformal band, which is to hold the slow map at nine places of ten; the facts say how
    many it held on patients that neither trained nor calibrated. It is no standard error: nothing is drawn.

    Attributes:
        explainer: the file that ``lucency explainer train`` wrote; the shipped one of a shipped model when ``None``.
    """

    name: ClassVar[str] = "instant"
    title: ClassVar[str] = "Instant map"
    paper: ClassVar[str] = "Jethani et al., ICLR 2022; Covert et al., NeurIPS 2024"
    unit: ClassVar[str] = OcclusionTeacher.unit
    needs_gradients: ClassVar[bool] = True

    explainer: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.explainer is not None:
            # A map means what that of the learnt method means.
            object.__setattr__(self, "unit", opened(self.explainer).teacher.unit)

    def steps(self, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        learnt = self.learnt(engine.classifier, question)
        probe, found = predicted(learnt, scan, question, engine)
        facts: dict[str, Fact] = {
            "learnt from": f"{learnt.teacher.name}, removal {learnt.teacher.removal.name}",
            "band": f"{COVERAGE:.0%} of places, {learnt.trust.covered:.0%} measured on other patients",
            "distance from the training scans": found.distance,
        }
        if found.distance > 1:
            facts["warning"] = (
                f"This scan is not like those that the instant map was trained on (distance {found.distance:.2f} times "
                f"the limit), so neither the map nor its band can be relied on; use {learnt.teacher.name}."
            )
        yield Step(
            done=1.0,
            score=float(probe.clean[0]),
            heatmap=found.heatmap.clone,
            perturbed=probe.pixels.clone,
            also={"half of the band": found.band.clone} if math.isfinite(learnt.trust.factor) else {},
            facts=facts,
        )

    def reads(self, classifier: Classifier) -> tuple[str, ...]:
        learnt = explainer_for(classifier, self.explainer)
        return () if learnt is None or not learnt.fits(classifier) else learnt.layers

    def learnt(self, classifier: Classifier, question: Question) -> Learnt:
        """The explainer for a question.

        Raises:
            QuestionError: when there is none, or it was trained for another model or question.
        """
        classifier.network()
        learnt = explainer_for(classifier, self.explainer)
        if learnt is None:
            raise QuestionError(
                f"There is no instant map for {classifier.name} yet; train one with `lucency explainer train --model M "
                "--target C --scans FOLDER --out FILE` and give it as explainer=FILE."
            )
        if not learnt.fits(classifier):
            raise QuestionError(
                f"The explainer was trained for {learnt.model[0]} with other weights than those of {classifier.name}; "
                "train one for these with `lucency explainer train`."
            )
        if question.target != learnt.target or question.watch not in ("probability", "number"):
            raise QuestionError(
                f"The instant map of {classifier.name} was learnt for the probability of {learnt.name}, not for the "
                f"{question.label}; ask for {learnt.name}, or train another explainer."
            )
        return learnt


def teacher_for(method: Method, grid: tuple[int, ...], odds: bool) -> Teacher:
    """What teaches a network to give the map of a method.

    Args:
        grid: the model's.
        odds: whether what is watched is a probability.

    Raises:
        ParameterError: when nothing can learn this method, or not with these parameters.
    """
    if isinstance(method, Occlusion):
        if method.box is not None or isinstance(method.patch, str) or isinstance(method.stride, str):
            raise ParameterError("An explainer learns occlusion of the whole scan with patches given in pixels.")
        patch = _along(method.patch, len(grid))
        stride = tuple(max(1, p // 2) for p in patch) if method.stride is None else _along(method.stride, len(grid))
        return OcclusionTeacher(patch, stride, method.removal, method.soft, odds)
    if isinstance(method, KernelShap):
        cells = method.superpixels.cells if isinstance(method.superpixels, Cells) else Cells().cells
        return ShapleyTeacher(cells, method.removal)
    if isinstance(method, Rise):
        return RiseTeacher(method.cells, method.p, method.removal)
    raise ParameterError(f"Nothing learns {method.name}; an explainer learns occlusion, kernel_shap or rise.")


def _along(length: int | str | object, axes: int) -> tuple[int, ...]:
    return (length,) * axes if isinstance(length, int) else tuple(int(n) for n in length)  # type: ignore[attr-defined]
