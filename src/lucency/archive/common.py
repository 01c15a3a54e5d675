"""One lung field for all films: maps and pictures are carried there, so that they can be averaged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lucency.archive.evidence import Landmarks

Floats = NDArray[np.float32]

SIDE = 112
"""Rows and columns of the common field."""
FIELD = Landmarks(top=0.1, bottom=0.78, right=0.13, middle=0.5, left=0.87)
"""Where the lungs lie in it."""
WHOLE = (0.0, 0.0, 1.0, 1.0)


def in_common(values: Floats, landmarks: Landmarks, grid: Sequence[float] = WHOLE) -> Floats:
    """A picture or map ``[h, w]`` of one film in the common field, float32 ``[SIDE, SIDE]``; 0 beside the film.

    Rows are stretched so that tops and bottoms of the lungs meet, and columns on each side of the midline so that the
    outer edges do: straight lines stay straight, and a lung that is smaller than the other is stretched more.

    Args:
        landmarks: of the film.
        grid: top, left, height and width of ``values`` on the film, as shares of the film's height and width.
    """
    at = (np.arange(SIDE) + 0.5) / SIDE
    rows = _carried(at, (FIELD.top, FIELD.bottom), (landmarks.top, landmarks.bottom))
    columns = _carried(
        at,
        (FIELD.right, FIELD.middle, FIELD.left),
        (landmarks.right, landmarks.middle, landmarks.left),
    )
    down = _weights((rows - grid[0]) / grid[2], values.shape[0])
    across = _weights((columns - grid[1]) / grid[3], values.shape[1])
    found: Floats = (down @ values @ across.T).astype(np.float32)
    return found


def _carried(at: NDArray[np.float64], ends: Sequence[float], there: Sequence[float]) -> NDArray[np.float64]:
    """Piecewise linear through the landmarks, and straight on beyond the outermost."""
    found = np.interp(at, ends, there)
    first = (there[1] - there[0]) / (ends[1] - ends[0])
    last = (there[-1] - there[-2]) / (ends[-1] - ends[-2])
    found = np.where(at < ends[0], there[0] + (at - ends[0]) * first, found)
    return np.asarray(np.where(at > ends[-1], there[-1] + (at - ends[-1]) * last, found))


def _weights(at: NDArray[np.float64], count: int) -> Floats:
    """``[SIDE, count]``: linear interpolation at shares 0..1 of an axis; nothing outside it."""
    place = np.clip(at * count - 0.5, 0, count - 1)
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, count - 1)
    inside = (at >= 0) & (at <= 1)
    found = np.zeros((len(at), count), np.float32)
    found[np.arange(len(at)), low] += (1 - (place - low)) * inside
    found[np.arange(len(at)), high] += (place - low) * inside
    return found
