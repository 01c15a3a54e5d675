"""Completeness: an attribution should add up to the change of the score that it explains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike

from lucency.classifier import Classifier
from lucency.engine import Engine
from lucency.metrics.judged import Judged, engine_of, question_about, values_of
from lucency.metrics.result import Better, Result
from lucency.records import Real
from lucency.removal import Constant, Removal
from lucency.scan import Scan
from lucency.work import Stage, Streamed


@dataclass(frozen=True, eq=False, repr=False)
class Completeness(Result):
    """How far a map is from adding up.

    Attributes:
        gap: ``|sum of the map - change|``.
        share: the same as a share of the change; infinite where there is a sum and no change.
        total: the sum of the map on the model's grid.
        change: the score of the scan minus the score with everything removed.
    """

    definition: ClassVar[str] = (
        "|sum of the map - (f(x) - f(everything removed))|, and as a share of that change (Sundararajan et al. 2017)."
    )
    better: ClassVar[Better] = "lower"

    gap: float
    share: Real
    total: float
    change: float


@Streamed
def completeness(
    explanation: Judged,
    scan: Scan,
    engine: Engine | Classifier,
    *,
    target: str | int | None = None,
    watch: str | None = None,
    removal: Removal | None = None,
) -> Iterator[Stage[Completeness]]:
    """Whether a map adds up to the change of the score between the scan and nothing of it: a :class:`Completeness`.

    Only maps whose pixels are shares of the score can (integrated gradients, gradient x input of a linear network);
    one that is painted on superpixels counts each as often as it has pixels.

    Args:
        explanation, scan, engine, target, watch: as for :func:`lucency.metrics.evaluate`.
        removal: what stands where everything is removed; black when ``None``. The map should be counted from it.

    Raises:
        ParameterError: when the map does not fit the scan.
    """
    engine = engine_of(engine, scan)
    values = values_of(explanation, scan)
    probe = engine.open(scan, question_about([explanation], scan, engine, target, watch), removal or Constant())
    on_grid = engine.classifier.placement(scan).to_grid(values[None])[0]
    nothing = float(probe.scores(torch.zeros((1, *probe.grid), device=probe.pixels.device))[0, 0])
    yield Stage(1.0, "everything removed", partial(_completeness, on_grid.numpy(), float(probe.clean[0]), nothing))


def completeness_gap(attributions: ArrayLike, clean: float, baseline: float) -> tuple[float, float]:
    """``|sum - (clean - baseline)|``, and the same as a share of ``|clean - baseline|`` (Sundararajan et al. 2017).

    Args:
        attributions: one number for each pixel or piece, any shape; of a map painted on superpixels, one for each
            superpixel.
        clean, baseline: the score of the scan and of what it is compared with.

    The share is infinite where the scores are equal and the sum is not zero.
    """
    change = clean - baseline
    gap = abs(float(np.sum(attributions, dtype=np.float64)) - change)
    if change == 0:
        return gap, 0.0 if gap == 0 else float("inf")
    return gap, gap / abs(change)


def _completeness(on_grid: ArrayLike, clean: float, nothing: float) -> Completeness:
    gap, share = completeness_gap(on_grid, clean, nothing)
    return Completeness(gap, share, float(np.sum(on_grid, dtype=np.float64)), clean - nothing)
