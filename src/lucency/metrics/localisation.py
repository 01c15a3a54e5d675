"""Does the map lie where the truth is? Maps and truth are arrays ``[*spatial]`` on the same grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lucency.errors import ParameterError
from lucency.explanation import Explanation, peak_of
from lucency.metrics.judged import Judged
from lucency.metrics.result import Better, Result

THRESHOLDS = np.linspace(0.01, 0.99, 99)
"""The shares of a map's maximum among which :func:`best_threshold` chooses."""


@dataclass(frozen=True, repr=False)
class Localisation(Result):
    """How well one map finds one truth; every number is better when higher.

    Attributes:
        pointing_game: whether the maximum lies on the truth (Zhang et al. 2018); where several
            pixels share it, the middle one.
            A flat map points nowhere and misses.
        iou: intersection over union of the truth with the pixels at or above ``threshold`` times the maximum.
        threshold: that share of the maximum.
        energy: share of the map's positive part that lies on the truth.
        top: share of the highest 5 % of the pixels that lies on the truth; ties count in proportion.
        area: share of the grid that is truth: what ``energy`` and ``top`` come to for a map that knows nothing.
    """

    definition: ClassVar[str] = (
        "hit: the maximum lies on the truth (Zhang et al. 2018); iou: intersection over union from a "
        "share of the maximum on; energy and top: share of the positive part, and of the highest 5 %, on the truth."
    )
    better: ClassVar[Better] = "higher"

    pointing_game: bool
    iou: float
    threshold: float
    energy: float
    top: float
    area: float


def localise(explanation: Judged, truth: ArrayLike, threshold: float = 0.5) -> Localisation:
    """Compares an explanation, or a signed map, with a truth mask (anything that is not 0 is truth).

    Neither the scan nor the classifier is asked. ``threshold`` should be fixed before the data is seen, or chosen on
    other data by :func:`best_threshold`.

    Raises:
        ParameterError: when the shapes differ, the truth is empty, or the map is not finite.
    """
    values, mask = _pair(explanation.heatmap if isinstance(explanation, Explanation) else explanation, truth)
    peak = peak_of(values)
    return Localisation(
        pointing_game=peak is not None and bool(mask[peak]),
        iou=iou(values, mask, threshold),
        threshold=float(threshold),
        energy=energy_in(values, mask),
        top=top_on(values, mask, 0.05),
        area=float(mask.mean()),
    )


def iou(heatmap: ArrayLike, truth: ArrayLike, threshold: float) -> float:
    """Intersection over union of the truth and the positive pixels at or above ``threshold`` times the maximum."""
    values, mask = _pair(heatmap, truth)
    found = (values >= threshold * values.max()) & (values > 0)
    return float((found & mask).sum() / (found | mask).sum())


def best_threshold(heatmaps: Sequence[ArrayLike], truths: Sequence[ArrayLike]) -> float:
    """The share of the maximum with the highest mean IoU over these maps; report it on other ones."""
    if not heatmaps:
        raise ParameterError("There is no map to choose a threshold on.")
    means = [np.mean([iou(m, t, threshold) for m, t in zip(heatmaps, truths, strict=True)]) for threshold in THRESHOLDS]
    return float(THRESHOLDS[int(np.argmax(means))])


def energy_in(heatmap: ArrayLike, truth: ArrayLike) -> float:
    """Share of the positive part of the map that lies on the truth; 0 for a map that is positive nowhere."""
    values, mask = _pair(heatmap, truth)
    positive = values.clip(min=0)
    total = positive.sum()
    return float(positive[mask].sum() / total) if total > 0 else 0.0


def top_on(heatmap: ArrayLike, truth: ArrayLike, share: float) -> float:
    """Share of the highest ``share`` of the pixels that lies on the truth, in expectation over the order of ties."""
    values, mask = _pair(heatmap, truth)
    count = max(1, round(share * values.size))
    cut = np.partition(values.ravel(), -count)[-count]
    above, tied = values > cut, values == cut
    needed = (count - above.sum()) / tied.sum()
    return float((mask[above].sum() + needed * mask[tied].sum()) / count)


def _pair(heatmap: ArrayLike, truth: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    values = np.asarray(heatmap, dtype=np.float32)
    mask = np.asarray(truth) != 0
    if values.shape != mask.shape:
        raise ParameterError(
            f"A map of shape {list(values.shape)} cannot be compared with a truth of shape {list(mask.shape)}."
        )
    if not mask.any():
        raise ParameterError("The truth is empty, so nothing can be found; leave this scan out.")
    if not np.isfinite(values).all():
        raise ParameterError("The map has values that are NaN or infinite.")
    return values, mask
