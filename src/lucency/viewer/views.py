"""Planes of an explanation that can be looked at: the scan itself, or three orthogonal slices of a volume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from lucency.explanation import Explanation, peak_of
from lucency.viewer.palette import Floats
from lucency.viewer.smooth import edges_on_scan, smooth


@dataclass(frozen=True, eq=False)
class View:
    """One plane: what it is called, the scan ``grey`` in 0..1 and the map, both float32 ``[rows, columns]``.

    Attributes:
        peak: row and column of the map's maximum; ``None`` where no pixel supports the answer.
        spacing: millimetres between rows and between columns, where known.
        drawn: the map as it is drawn: smoothly, where it is made of patches.
        cut: what makes the plane out of ``[*spatial]``.
        axes: the spatial axes that its rows and columns run along.
    """

    name: str
    grey: Floats
    heatmap: Floats
    peak: tuple[int, int] | None
    spacing: tuple[float, float] | None
    drawn: Floats
    cut: tuple[slice | int, ...] = ()
    axes: tuple[int, int] = (0, 1)

    @property
    def extent(self) -> tuple[float, float]:
        """Height and width in millimetres, or in pixels where the spacing is unknown."""
        rows, columns = self.grey.shape
        down, across = self.spacing or (1.0, 1.0)
        return rows * down, columns * across


def views(
    explanation: Explanation,
    heatmap: Floats | None = None,
    through: tuple[int, ...] | None = None,
    *,
    cells: bool = False,
) -> list[View]:
    """The planes of ``heatmap`` (the explanation's own when ``None``) through its peak, or the middle of a flat one.

    With ``cells``, patches are drawn as they are. Of a volume, ``through`` may name another point; the peak of the map
    is then in those planes that hold it.
    """
    shown = explanation.heatmap if heatmap is None else heatmap
    grey = explanation.pixels.mean(0)
    spacing = explanation.provenance.scan.spacing
    edges = None if cells else edges_on_scan(explanation)
    drawn = shown if edges is None else smooth(shown, edges)
    peak = peak_of(shown)
    supported = bool(shown.max() > 0)
    if shown.ndim == 2:
        at = (peak[0], peak[1]) if peak is not None and supported else None
        return [View("", grey, shown, at, None if spacing is None else (spacing[0], spacing[1]), drawn)]
    found = through or peak or tuple(n // 2 for n in shown.shape)
    names = ("slice", "row", "column")
    planes = []
    for axis, name in enumerate(names):
        rest = [i for i in range(3) if i != axis]
        plane: tuple[slice | int, ...] = (slice(None),) * axis + (found[axis],)
        planes.append(
            View(
                f"{name} {found[axis]} of 0 to {shown.shape[axis] - 1}",
                grey[plane],
                shown[plane],
                (peak[rest[0]], peak[rest[1]])
                if peak is not None and supported and peak[axis] == found[axis]
                else None,
                None if spacing is None else (spacing[rest[0]], spacing[rest[1]]),
                drawn[plane],
                plane,
                (rest[0], rest[1]),
            )
        )
    return planes


def resized(plane: Floats, height: int, width: int) -> Floats:
    """A plane ``[rows, columns]`` at another size, linear, antialiased when it shrinks."""
    if plane.shape == (height, width):
        return plane
    image = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    found: Floats = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return found
