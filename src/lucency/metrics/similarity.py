"""How alike are maps of the same scan?"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from lucency.errors import ParameterError


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
