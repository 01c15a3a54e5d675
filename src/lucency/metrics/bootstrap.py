"""Intervals of a mean over scans."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000


def interval(
    values: Sequence[float] | NDArray[np.float64], patients: Sequence[str] | None = None
) -> tuple[float, float, float]:
    """The mean over scans and the ends of its 95 % percentile bootstrap interval, always from the same draws.

    An interval of a handful of scans is too narrow, and of no width where all of them agree.

    Args:
        values: one for each scan.
        patients: whose scan each one is, so that patients are drawn with all their scans; every scan is a patient of
            its own when ``None``.
    """
    array = np.asarray(values, np.float64)
    whose = np.unique(list(patients) if patients is not None else range(len(array)), return_inverse=True)[1]
    total, count = np.bincount(whose, array), np.bincount(whose)
    drawn = np.random.default_rng(0).integers(0, len(total), (RESAMPLES, len(total)))
    means = total[drawn].sum(1) / count[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(array.mean()), float(low), float(high)
