"""Deconvnet (Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 2.1).

What one activation saw is found by running the layers backwards: transposed filters, max-pooling switches, and a ReLU
on the signal where the network has one (:mod:`lucency.methods.units`). Led back from the score of a class instead
of from a feature map, the same signal is an attribution (Simonyan et al. 2014, section 4): the map of this method.

Its demonstration walks up the network first: the strongest feature map of each of some layers, all of it led back,
since one activation of an early layer is too small a spot to be seen on the whole scan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from lucency.classifier import Question
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.methods.base import Method, Step
from lucency.methods.gradient import answer
from lucency.methods.rectify import rectified_gradient
from lucency.methods.units import strongest_units
from lucency.scan import Scan


@dataclass(frozen=True)
class Deconvnet(Method):
    """The score, and the strongest feature maps of some layers, led back to pixel space.

    Attributes:
        tour: how many convolutional layers are shown on the way, spread evenly from the first to the last; their
            maps come with the result. 0 goes straight to the class.
    """

    name: ClassVar[str] = "deconvnet"
    title: ClassVar[str] = "Deconvnet"
    paper: ClassVar[str] = "Zeiler & Fergus, ECCV 2014"
    unit: ClassVar[str] = "signal led back from the class"
    needs_gradients: ClassVar[bool] = True
    grainy: ClassVar[bool] = True
    locates: ClassVar[bool] = False

    tour: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tour < 0:
            raise ParameterError(f"The tour has a number of layers, 0 or more, not {self.tour}.")

    def steps(self, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        probe = engine.open(scan, question)
        heatmap = rectified_gradient(probe, guided=False).sum(0)
        # Nothing makes the signal survive: a layer whose transposed filters make it negative everywhere ends it.
        last = answer(probe, heatmap, {"signal reaches pixels": bool(heatmap.any())})
        names = [layer.name for layer in engine.layers(scan)] if self.tour else []
        places = torch.linspace(0, len(names) - 1, min(self.tour, len(names))).round().int().tolist()
        if not places:
            yield last
            return
        seen: dict[str, Callable[[], Tensor]] = {}
        for n, stage in enumerate(strongest_units.steps(engine, scan, [names[i] for i in places], whole=True), 1):
            unit = stage.known()[-1]
            seen = {**seen, f"strongest map of {unit.layer} ({unit.unit})": partial(Tensor.clone, unit.projection)}
            shown = replace(last, also=seen)
            yield replace(shown, done=n / (len(places) + 1), reaction=partial(_full_scale, unit.projection))
        yield replace(shown, reaction=partial(_full_scale, heatmap))


def _full_scale(projection: Tensor) -> Tensor:
    """In -1..1, so that signals that differ by orders of magnitude can be shown one after another.

    Few pixels carry most of a signal; one in 200 is cut off so that the others can be seen.
    """
    size = projection.abs().flatten()
    limit = size.kthvalue(max(1, round(0.995 * len(size)))).values
    limit = torch.where(limit > 0, limit, size.max())
    return (projection / limit.clamp_min(torch.finfo(projection.dtype).tiny)).clamp(-1, 1)
