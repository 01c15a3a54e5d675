"""SmoothGrad (Smilkov, Thorat, Kim, Viegas & Wattenberg, "SmoothGrad: removing noise by adding noise", 2017).

The gradient of a ReLU network jumps from pixel to pixel. Its mean over noisy copies of the scan does not:

    M(x) = 1/n sum_i  df/dx (x + e_i),   e_i normal with standard deviation sigma               (section 2.2)

The paper finds sigma of 10 to 20 % of the scan's range and n = 50 enough. Here the map keeps its sign.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lucency.classifier import Question
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.methods.base import Method, Step
from lucency.methods.sampling import average
from lucency.scan import Scan


@dataclass(frozen=True)
class SmoothGrad(Method):
    """The mean gradient over noisy copies of the scan.

    Attributes:
        samples: n, how many noisy copies.
        noise: sigma, as a share of the scan's range (largest minus smallest display value).
    """

    name: ClassVar[str] = "smoothgrad"
    title: ClassVar[str] = "SmoothGrad"
    paper: ClassVar[str] = "Smilkov et al., arXiv 1706.03825, 2017"
    unit: ClassVar[str] = "change of the score for each unit of brightness"
    per_brightness: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True
    grainy: ClassVar[bool] = True
    locates: ClassVar[bool] = False

    samples: int = 50
    noise: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.noise > 0:
            raise ParameterError(
                f"The noise is a share of the scan's range above zero, such as 0.15, not {self.noise}."
            )

    def steps(self, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        probe = engine.open(scan, question)
        generator = engine.generator()
        sigma = self.noise * (probe.pixels.max() - probe.pixels.min())

        def draw() -> tuple[Tensor, float]:
            noise = torch.randn(probe.pixels.shape, generator=generator).to(probe.pixels.device)
            return probe.pixels + sigma * noise, 1.0

        yield from average(probe, draw, self.samples)
