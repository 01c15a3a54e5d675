"""Intervals of a mean over scans."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000


def interval(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float, float]:
    """The mean over scans and the ends of its 95 % percentile bootstrap interval, always from the same draws.

    An interval of a handful of scans is too narrow, and of no width where all of them agree.
    """
    array = np.asarray(values, np.float64)
    rng = np.random.default_rng(0)
    means = array[rng.integers(0, len(array), (RESAMPLES, len(array)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(array.mean()), float(low), float(high)
