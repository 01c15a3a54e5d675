"""Completeness: an attribution should add up to the change of the score that it explains."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


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
