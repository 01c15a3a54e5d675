"""Areas under the curve with intervals, and calibration."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.floating]


def auc(truth: Array, score: Array) -> float:
    """Area under the ROC curve (Mann-Whitney); NaN when one of the classes is absent."""
    positive = truth > 0.5
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return float("nan")
    return float((rankdata(score)[positive].sum() - n * (n + 1) / 2) / (n * m))


def resampled(groups: NDArray[np.str_], repeats: int) -> Iterator[NDArray[np.int_]]:
    """Rows of bootstrap samples; whole groups (patients) are drawn, not films."""
    rng = np.random.default_rng(0)
    names, at = np.unique(groups, return_inverse=True)
    members = [np.flatnonzero(at == i) for i in range(len(names))]
    for _ in range(repeats):
        yield np.concatenate([members[i] for i in rng.integers(0, len(names), len(names))])


def auc_interval(truth: Array, score: Array, groups: NDArray[np.str_], repeats: int = 1000) -> dict[str, float]:
    """AUC with its 95 % bootstrap interval; whole groups (patients) are drawn, not films."""
    values = [auc(truth[drawn], score[drawn]) for drawn in resampled(groups, repeats)]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return {
        "auc": auc(truth, score), "low": float(low), "high": float(high),
        "positives": int((truth > 0.5).sum()), "negatives": int((truth < 0.5).sum()),
    }  # fmt: skip


def auc_difference(
    truth: Array, score: Array, other: Array, groups: NDArray[np.str_], repeats: int = 1000
) -> dict[str, float]:
    """AUC of ``score`` minus that of ``other`` on the same films, with its 95 % bootstrap interval over groups."""
    values = [auc(truth[drawn], score[drawn]) - auc(truth[drawn], other[drawn]) for drawn in resampled(groups, repeats)]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return {"auc": auc(truth, score) - auc(truth, other), "low": float(low), "high": float(high)}


def calibration(truth: Array, probability: Array, weights: Array | None = None, bins: int = 10) -> dict[str, float]:
    """Expected calibration error over ``bins`` bins of equal count, and the Brier score; ``weights`` weigh cases."""
    weight = np.ones(len(truth)) if weights is None else weights / weights.mean()
    error = sum(
        abs(float((weight[part] * (truth[part] - probability[part])).sum()))
        for part in np.array_split(np.argsort(probability), bins)
    )
    return {"ece": error / len(truth), "brier": float(np.mean(weight * (truth - probability) ** 2))}
