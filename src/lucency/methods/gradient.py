"""The gradient, and two maps made from it in one backward pass.

- Gradient (Simonyan, Vedaldi & Zisserman, ICLR workshop 2014, section 3): the derivative of the score, df/dx. Here
  signed, and summed over channels; the paper shows its absolute value.
- Gradient x input (Shrikumar et al. 2016): x * df/dx, in display values, so that black pixels have nothing to say.
- Guided backpropagation (Springenberg et al., ICLR workshop 2015): the backward signal passes a ReLU only where the
  forward one did *and* where it is itself positive (:class:`~lucency.methods.rectify.Rectified`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lucency.classifier import Question
from lucency.engine import Engine, Probe
from lucency.methods.base import Fact, Method, Step
from lucency.methods.rectify import rectified_gradient
from lucency.scan import Scan


class _OnePass(Method, ABC):
    """A method whose map is made from one backward pass over the clean scan."""

    needs_gradients: ClassVar[bool] = True
    grainy: ClassVar[bool] = True
    locates: ClassVar[bool] = False

    def steps(self, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        probe = engine.open(scan, question)
        yield answer(probe, self._map(probe))

    @abstractmethod
    def _map(self, probe: Probe) -> Tensor:
        """The map ``[*grid]``."""


@dataclass(frozen=True)
class Gradient(_OnePass):
    """The derivative of the score with respect to each pixel."""

    name: ClassVar[str] = "gradient"
    title: ClassVar[str] = "Gradient"
    paper: ClassVar[str] = "Simonyan, Vedaldi & Zisserman, ICLR 2014 workshop"
    unit: ClassVar[str] = "change of the score for each unit of brightness"
    per_brightness: ClassVar[bool] = True

    def _map(self, probe: Probe) -> Tensor:
        return probe.gradient(probe.pixels[None])[1][0].sum(0)


@dataclass(frozen=True)
class GradientXInput(_OnePass):
    """The derivative of the score times the pixel, in display values (0 = black)."""

    name: ClassVar[str] = "gradient_x_input"
    title: ClassVar[str] = "Gradient x input"
    paper: ClassVar[str] = "Shrikumar, Greenside, Shcherbina & Kundaje, arXiv 1605.01713, 2016"
    unit: ClassVar[str] = "first-order share of the score"

    def _map(self, probe: Probe) -> Tensor:
        return (probe.gradient(probe.pixels[None])[1][0] * probe.pixels).sum(0)


@dataclass(frozen=True)
class GuidedBackprop(_OnePass):
    """The derivative of the score with the negative part of the signal stopped at every ReLU on the way back."""

    name: ClassVar[str] = "guided_backprop"
    title: ClassVar[str] = "Guided backpropagation"
    paper: ClassVar[str] = "Springenberg, Dosovitskiy, Brox & Riedmiller, ICLR 2015 workshop"
    unit: ClassVar[str] = "guided change of the score"
    per_brightness: ClassVar[bool] = True

    def _map(self, probe: Probe) -> Tensor:
        return rectified_gradient(probe, guided=True).sum(0)


def answer(probe: Probe, heatmap: Tensor, facts: Mapping[str, Fact] | None = None) -> Step:
    """The one step of a method that has its whole map ``[*grid]`` at once, on the clean scan."""
    pixels = probe.pixels
    return Step(
        done=1.0,
        score=float(probe.clean[0]),
        heatmap=lambda: heatmap,
        perturbed=lambda: pixels,
        facts=facts or {},
    )
