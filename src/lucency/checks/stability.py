"""Does a map hold when the scan or the seed changes a little?

Yeh, Hsieh, Suggala, Inouye & Ravikumar, "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lucency.attribution import Attribution
from lucency.classifier import Classifier
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.methods import Method
from lucency.metrics.judged import engine_of
from lucency.metrics.result import Better, Result
from lucency.metrics.similarity import rank_correlation
from lucency.records import Real
from lucency.scan import Scan
from lucency.work import Stage, Streamed

Found = TypeVar("Found", bound=Result)


@dataclass(frozen=True, eq=False, repr=False)
class Sensitivity(Result):
    """How much a map changes with its scan.

    Attributes:
        value: the largest change.
        changes: float64 ``[N]``, ``|map(y) - map(x)| / |map(x)|`` for each scan y.
        radius: how far the scans lay off.
    """

    definition: ClassVar[str] = (
        "max |map(y) - map(x)| / |map(x)| over scans y within a radius of x, Euclidean norms (Yeh et al. 2019)."
    )
    better: ClassVar[Better] = "lower"

    value: Real
    changes: NDArray[np.float64]
    radius: float


@Streamed
def max_sensitivity(
    method: Method,
    scan: Scan,
    engine: Engine | Classifier,
    *,
    target: str | int | None = None,
    watch: str = "probability",
    radius: float = 0.02,
    samples: int = 10,
) -> Iterator[Stage[Sensitivity]]:
    """The largest change of the map, over its own norm, among copies of the scan within ``radius`` (definition 3.1).

    The display values of the ``samples`` copies differ from those of the scan by even noise in -radius..radius. The
    seed of the method stays. Gives a :class:`Sensitivity`.

    Args:
        method: what is judged.
        scan, engine, target, watch: as for :func:`lucency.metrics.evaluate`.

    Raises:
        ParameterError: for a radius that is not above 0, or a map that is 0 everywhere.
    """
    if not radius > 0 or samples < 1:
        raise ParameterError(f"The radius must be above 0 and the samples at least 1, not {radius} and {samples}.")
    engine = engine_of(engine, scan)
    target = engine.question(scan, target, watch).target
    generator = engine.generator()
    changes = np.empty(0)

    def known(changes: NDArray[np.float64]) -> Sensitivity:
        return Sensitivity(float(changes.max()) if len(changes) else float("nan"), changes, radius)

    clean: NDArray[np.float32] | None = None
    for i in range(samples + 1):
        noise = (2 * torch.rand(scan.pixels.shape, generator=generator) - 1) * radius if i else None
        run = Attribution(scan if noise is None else _noisy(scan, noise), engine, method, target=target, watch=watch)
        heatmap = yield from _followed(run, i, samples + 1, partial(known, changes))
        if clean is None:
            clean = heatmap
            norm = float(np.linalg.norm(clean))
            if norm == 0:
                raise ParameterError("The map is 0 everywhere, so its change has no measure.")
        else:
            changes = np.append(changes, np.linalg.norm(heatmap - clean) / norm)
    yield Stage(1.0, f"{samples} copies", partial(known, changes))


@dataclass(frozen=True, eq=False, repr=False)
class Stability(Result):
    """Mean rank correlation (Spearman) of a map with its repetitions; 1 = the same map each time.

    Attributes:
        noise: under normal noise on the scan, the seed unchanged; NaN before the first.
        seed: with other seeds, the scan unchanged; 1 for a method that draws no random numbers.
        noises, seeds: float64 ``[R]``, that of each repetition.
    """

    definition: ClassVar[str] = (
        "Mean Spearman correlation of the map with those under normal noise on the scan, and with those of other seeds."
    )
    better: ClassVar[Better] = "higher"

    noise: Real
    seed: Real
    noises: NDArray[np.float64]
    seeds: NDArray[np.float64]


@Streamed
def stability(
    method: Method,
    scan: Scan,
    engine: Engine | Classifier,
    *,
    target: str | int | None = None,
    watch: str = "probability",
    sigma: float = 0.01,
    repeats: int = 3,
) -> Iterator[Stage[Stability]]:
    """How alike a method's maps are under a little noise, and from other seeds: a :class:`Stability`.

    Args:
        method: what is judged.
        scan, engine, target, watch: as for :func:`lucency.metrics.evaluate`.
        sigma: standard deviation of the noise, in display values.

    Raises:
        ParameterError: when there is nothing to repeat.
    """
    if not sigma > 0 or repeats < 1:
        raise ParameterError(f"Sigma must be above 0 and the repeats at least 1, not {sigma} and {repeats}.")
    engine = engine_of(engine, scan)
    target = engine.question(scan, target, watch).target
    generator = engine.generator()
    runs = [(scan, engine.seed)]
    runs += [
        (_noisy(scan, sigma * torch.randn(scan.pixels.shape, generator=generator)), engine.seed) for _ in range(repeats)
    ]
    runs += [(scan, engine.seed + r) for r in range(1, repeats + 1)]

    def known(found: NDArray[np.float64]) -> Stability:
        noises, seeds = found[:repeats], found[repeats:]
        noise, seed = (float(one.mean()) if len(one) else float("nan") for one in (noises, seeds))
        return Stability(noise, seed, noises, seeds)

    clean: NDArray[np.float32] | None = None
    found = np.empty(0)
    for i, (one, seed) in enumerate(runs):
        run = Attribution(one, engine.seeded(seed), method, target=target, watch=watch)
        heatmap = yield from _followed(run, i, len(runs), partial(known, found))
        if clean is None:
            clean = heatmap
        else:
            found = np.append(found, rank_correlation(clean, heatmap))
    yield Stage(1.0, f"{len(runs)} maps", partial(known, found))


def _followed(
    run: Attribution, number: int, of: int, known: Callable[[], Found]
) -> Generator[Stage[Found], None, NDArray[np.float32]]:
    """One map of several, step by step."""
    with closing(run):
        for step in run:
            yield Stage((number + min(step.done, 0.99)) / of, f"map {number + 1} of {of}", known)
    return run.explanation.heatmap


def _noisy(scan: Scan, noise: Tensor) -> Scan:
    low, high = scan.value_range
    return dataclasses.replace(scan, pixels=scan.pixels + (high - low) * noise)
