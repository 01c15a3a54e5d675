"""The strongest region, and its outline on the film."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage import measure

from lucency.checks.verdict import strongest
from lucency.explanation import Explanation

MOST_POINTS = 4000
"""Of one outline: the values of an element of explicit length fit into 64 kB."""


def outlines(explanation: Explanation) -> list[NDArray[np.float64]]:
    """Closed outlines of the strongest region, the longest first: float64 ``[n, 2]`` of (column, row).

    In DICOM's terms: 0, 0 is the outer corner of the first pixel, whose middle is 0.5, 0.5. Empty where nothing
    supports the answer.
    """
    measured: Any = measure  # without types
    region = np.pad(strongest(explanation.heatmap), 1).astype(np.float32)
    found = []
    for outline in measured.find_contours(region, 0.5):
        tolerance = 0.5
        points = measured.approximate_polygon(outline, tolerance)
        while len(points) > MOST_POINTS:
            tolerance *= 2
            points = measured.approximate_polygon(outline, tolerance)
        # One pixel for what was padded; half a pixel from a pixel's middle to its corner.
        points = np.clip(points[:, ::-1] - 0.5, 0, explanation.heatmap.shape[::-1])
        if len(points) >= 4:
            found.append((len(outline), points))
    return [points for _, points in sorted(found, key=lambda pair: -pair[0])]
