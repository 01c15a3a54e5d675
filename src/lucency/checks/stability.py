"""Does a map hold when the scan or the seed changes a little?

Yeh, Hsieh, Suggala, Inouye & Ravikumar, "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lucency.attribution import attribute
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.methods import Method
from lucency.metrics.similarity import rank_correlation
from lucency.scan import Scan


def max_sensitivity(
    scan: Scan,
    engine: Engine,
    method: Method,
    *,
    target: str | int,
    watch: str = "probability",
    radius: float = 0.02,
    samples: int = 10,
) -> float:
    """The largest change of the map, over its own norm, among copies of the scan within ``radius`` (definition 3.1).

    ``max |map(y) - map(x)| / |map(x)|`` over ``samples`` scans y whose display values differ from those of x by even
    noise in -radius..radius. Lower is better. The seed of the method stays.

    Raises:
        ParameterError: for a radius that is not above 0, or a map that is 0 everywhere.
    """
    if not radius > 0 or samples < 1:
        raise ParameterError(f"The radius must be above 0 and the samples at least 1, not {radius} and {samples}.")
    clean = attribute(scan, engine, method, target=target, watch=watch).heatmap
    norm = float(np.linalg.norm(clean))
    if norm == 0:
        raise ParameterError("The map is 0 everywhere, so its change has no measure.")
    generator = engine.generator()
    changes = []
    for _ in range(samples):
        noise = (2 * torch.rand(scan.pixels.shape, generator=generator) - 1) * radius
        copy = _noisy(scan, noise)
        other = attribute(copy, engine, method, target=target, watch=watch).heatmap
        changes.append(float(np.linalg.norm(other - clean)) / norm)
    return max(changes)


@dataclass(frozen=True)
class Stability:
    """Mean rank correlation (Spearman) of a map with its repetitions; 1 = the same map each time.

    Attributes:
        noise: under normal noise on the scan, the seed unchanged.
        seed: with other seeds, the scan unchanged; 1 for a method that draws no random numbers.
    """

    noise: float
    seed: float


def stability(
    scan: Scan,
    engine: Engine,
    method: Method,
    *,
    target: str | int,
    watch: str = "probability",
    sigma: float = 0.01,
    repeats: int = 3,
) -> Stability:
    """How alike a method's maps are under a little noise, and from other seeds.

    Args:
        sigma: standard deviation of the noise, in display values.

    Raises:
        ParameterError: when there is nothing to repeat.
    """
    if not sigma > 0 or repeats < 1:
        raise ParameterError(f"Sigma must be above 0 and the repeats at least 1, not {sigma} and {repeats}.")

    def map_of(one: Scan, seed: int) -> NDArray[np.float32]:
        again = Engine(engine.classifier, device=engine.device, seed=seed)
        return attribute(one, again, method, target=target, watch=watch).heatmap

    clean = map_of(scan, engine.seed)
    generator = engine.generator()
    noisy = [_noisy(scan, sigma * torch.randn(scan.pixels.shape, generator=generator)) for _ in range(repeats)]
    return Stability(
        noise=float(np.mean([rank_correlation(clean, map_of(one, engine.seed)) for one in noisy])),
        seed=float(np.mean([rank_correlation(clean, map_of(scan, engine.seed + r)) for r in range(1, repeats + 1)])),
    )


def _noisy(scan: Scan, noise: Tensor) -> Scan:
    low, high = scan.value_range
    return dataclasses.replace(scan, pixels=scan.pixels + (high - low) * noise)
