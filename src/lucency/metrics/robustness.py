"""Does a map hold when the scan, the seed or the method changes a little, and does it say what the score does?

Yeh, Hsieh, Suggala, Inouye & Ravikumar, "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import Tensor

from lucency.classifier import Question
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.explanation import explain
from lucency.methods import Method
from lucency.removal import Constant, Removal
from lucency.scan import Scan


@dataclass(frozen=True)
class Infidelity:
    """How far a map is from predicting what removals do; both numbers are better when lower.

    Attributes:
        value: ``E[(I . map - (f(x) - f(x - I)))^2]`` (definition 2.1).
        scaled: the same for the map times the factor that suits it best (their section 2.3), over the mean square of
            the reaction: 0 for a map that predicts every reaction, 1 for one that knows nothing; NaN where the score
            reacts to nothing. Maps that are no attributions in units of the score are to be compared by this one.
    """

    value: float
    scaled: float


def infidelity(
    scan: Scan,
    question: Question,
    engine: Engine,
    heatmap: ArrayLike,
    *,
    removal: Removal | None = None,
    side: int = 32,
    samples: int = 200,
) -> Infidelity:
    """Infidelity under the removal of random squares (their section 4.2).

    Args:
        heatmap: map ``[*spatial]`` on the scan's grid; of a scan with several channels, the attribution of all of them.
        removal: what stands where a square was removed, so that I is what it takes away; black when ``None``.
        side: grid pixels along each side of a square.
        samples: how many squares.

    Raises:
        ParameterError: when the map does not fit the scan or the square is not above 0.
    """
    if side < 1 or samples < 1:
        raise ParameterError(f"The square and the samples must be at least 1, not {side} and {samples}.")
    values = _fitting(heatmap, scan)
    probe = engine.open(scan, question, removal or Constant())
    attribution = engine.classifier.frame(scan).to_grid(values[None])[0].to(probe.pixels.device)
    generator = engine.generator()
    masks = torch.ones(samples, *probe.grid)
    boxes = torch.zeros(samples, len(probe.grid), 2, dtype=torch.int64)
    for i in range(samples):
        for axis, n in enumerate(probe.grid):
            start = int(torch.randint(0, max(1, n - side + 1), (1,), generator=generator))
            boxes[i, axis] = torch.tensor([start, min(n, start + side)])
        masks[i][tuple(slice(int(a), int(b)) for a, b in boxes[i])] = 0
    said = torch.cat([
        ((probe.pixels - probe.removed(part)).sum(1) * attribution).flatten(1).sum(1)
        for part in torch.split(masks, probe.batch_size)
    ])  # fmt: skip
    done = probe.clean[0] - probe.scores(masks, boxes)[:, 0]
    return infidelity_of(said.double().cpu().numpy(), done.double().cpu().numpy())


def infidelity_of(said: NDArray[np.float64], done: NDArray[np.float64]) -> Infidelity:
    """From what the map says of each perturbation and what the score did, ``[N]`` each."""
    power, reaction = float((said**2).mean()), float((done**2).mean())
    factor = float((said * done).mean()) / power if power > 0 else 0.0
    best = float(((factor * said - done) ** 2).mean())
    return Infidelity(float(((said - done) ** 2).mean()), best / reaction if reaction > 0 else float("nan"))


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
    clean = explain(scan, engine.classifier, target=target, watch=watch, method=method, engine=engine).heatmap
    norm = float(np.linalg.norm(clean))
    if norm == 0:
        raise ParameterError("The map is 0 everywhere, so its change has no measure.")
    generator = engine.generator()
    changes = []
    for _ in range(samples):
        noise = (2 * torch.rand(scan.pixels.shape, generator=generator) - 1) * radius
        copy = _noisy(scan, noise)
        other = explain(copy, engine.classifier, target=target, watch=watch, method=method, engine=engine).heatmap
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
        return explain(one, engine.classifier, target=target, watch=watch, method=method, engine=again).heatmap

    clean = map_of(scan, engine.seed)
    generator = engine.generator()
    noisy = [_noisy(scan, sigma * torch.randn(scan.pixels.shape, generator=generator)) for _ in range(repeats)]
    return Stability(
        noise=float(np.mean([rank_correlation(clean, map_of(one, engine.seed)) for one in noisy])),
        seed=float(np.mean([rank_correlation(clean, map_of(scan, engine.seed + r)) for r in range(1, repeats + 1)])),
    )


def method_agreement(maps: Mapping[str, ArrayLike]) -> dict[tuple[str, str], float]:
    """Rank correlation of every two of the maps ``[*spatial]``, by their names.

    Raises:
        ParameterError: when their shapes differ.
    """
    return {(a, b): rank_correlation(maps[a], maps[b]) for a, b in itertools.combinations(maps, 2)}


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman correlation of two maps of one shape; 1 for two that are flat, 0 where one is.

    Raises:
        ParameterError: when the shapes differ.
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.shape != y.shape:
        raise ParameterError(f"Maps of shapes {list(x.shape)} and {list(y.shape)} cannot be compared.")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float(np.ptp(x) == np.ptp(y))
    return float(stats.spearmanr(x.ravel(), y.ravel()).statistic)


def _noisy(scan: Scan, noise: Tensor) -> Scan:
    low, high = scan.value_range
    return dataclasses.replace(scan, pixels=scan.pixels + (high - low) * noise)


def _fitting(heatmap: ArrayLike, scan: Scan) -> Tensor:
    values = torch.from_numpy(np.array(heatmap, dtype=np.float32))
    if tuple(values.shape) != scan.shape:
        raise ParameterError(
            f"The map has shape {list(values.shape)} and the scan {list(scan.shape)}; they must agree."
        )
    return values
