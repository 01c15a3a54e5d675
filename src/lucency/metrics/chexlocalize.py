"""Maps against CheXlocalize (Saporta et al., "Benchmarking saliency methods for chest X-ray interpretation", Nature
Machine Intelligence 2022): its masks, its threshold, its two numbers.

Its truth is a JSON file of masks by film and finding, run-length coded as COCO does. A map becomes a segmentation by
Otsu's method, or by a threshold on the map stretched to 0..1 that was chosen on other films. The numbers are the mean
IoU (of films where both have a segmentation, unless told otherwise) and the hit rate of the map's maximum.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skimage.filters import threshold_otsu

from lucency.errors import ParameterError

Mask = NDArray[np.bool_]

THRESHOLDS = np.arange(2, 9) / 10
"""Among which its authors choose: ``np.arange(0.2, 0.8, 0.1)``, which rounding makes end at 0.8."""


def read_masks(path: str | Path, finding: str = "Pleural Effusion") -> dict[str, Mask]:
    """The masks of one finding, bool ``[H, W]``, by film; empty ones (nothing to find) are among them.

    Raises:
        ParameterError: when the file cannot be read, or knows no such finding.
    """
    try:
        films = json.loads(Path(path).read_text())
        found = {str(film): decode(masks[finding]) for film, masks in films.items() if finding in masks}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ParameterError(f"{path} does not hold masks as CheXlocalize writes them ({error}).") from error
    if not found:
        known = sorted({name for masks in films.values() for name in masks})
        raise ParameterError(f"{path} has no masks of {finding!r}; it has {', '.join(known) or 'none at all'}.")
    return found


def decode(coded: Mapping[str, Any]) -> Mask:
    """A run-length code of COCO, ``{"size": [H, W], "counts": text or numbers}``, as bool ``[H, W]``.

    Runs go down the columns and begin with one of zeros. As text, each is written in groups of five bits, lowest first,
    48 added to each, 32 where another follows; from the third on, as the difference to the run before last.

    Raises:
        ValueError: when the runs do not fill the picture.
    """
    rows, columns = (int(n) for n in coded["size"])
    counts = coded["counts"]
    runs = _runs(counts.encode() if isinstance(counts, str) else counts) if isinstance(counts, str | bytes) else counts
    if sum(runs) != rows * columns or min(runs, default=0) < 0:
        raise ValueError(f"runs of {sum(runs)} pixels for a picture of {rows} x {columns}")
    inside = np.arange(len(runs)) % 2 == 1
    flat: Mask = np.repeat(inside, runs)
    return flat.reshape(columns, rows).T


def segmentation(heatmap: ArrayLike, threshold: float | None = None) -> Mask:
    """The map ``[H, W]``, stretched to 0..1, above ``threshold``; Otsu's on 256 levels when ``None``."""
    values = np.asarray(heatmap, np.float64)
    span = np.ptp(values)
    if span == 0:
        return np.zeros(values.shape, np.bool_)
    stretched = (values - values.min()) / span
    if threshold is not None:
        return np.asarray(stretched > threshold)
    levels = (255 * stretched).astype(np.uint8)
    return np.asarray(levels > threshold_otsu(levels))  # type: ignore[no-untyped-call]


def mean_iou(found: Sequence[Mask], truth: Sequence[Mask], *, true_positives_only: bool = True) -> float:
    """Mean IoU over films with a truth; NaN when there is none.

    Args:
        true_positives_only: leave out films on which nothing was found; they count as 0 otherwise.
    """
    ious = [
        (f & t).sum() / (f | t).sum()
        for f, t in zip(found, truth, strict=True)
        if t.any() and (f.any() or not true_positives_only)
    ]
    return float(np.mean(ious)) if ious else float("nan")


def hit_rate(heatmaps: Sequence[ArrayLike], truth: Sequence[Mask]) -> float:
    """Share of films with a truth on which the map's first maximum lies in it; NaN when there is none."""
    hits = [t.flat[int(np.argmax(h))] for h, t in zip(heatmaps, truth, strict=True) if t.any()]
    return float(np.mean(hits)) if hits else float("nan")


def best_threshold(heatmaps: Sequence[ArrayLike], truth: Sequence[Mask]) -> float:
    """That of :data:`THRESHOLDS` with the highest mean IoU on these films; report it on others."""
    if not heatmaps:
        raise ParameterError("There is no map to choose a threshold on.")
    means = [mean_iou([segmentation(h, t) for h in heatmaps], truth) for t in THRESHOLDS]
    return float(THRESHOLDS[int(np.nanargmax(means))])


def _runs(text: bytes) -> list[int]:
    runs: list[int] = []
    value, shift = 0, 0
    for byte in text:
        group = byte - 48
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            if group & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    return runs
