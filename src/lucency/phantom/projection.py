"""From shapes to path lengths: what a ray from a point source crosses, as pure functions on arrays.

Axes, in millimetres: ``x`` towards the patient's left (the right of the picture), ``y`` to the front, ``z`` up.
The detector is a plane of constant ``y``, so the plane at any other depth is seen on it as a plainly magnified
picture; everything below rests on that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Interval = tuple[Array, Array]

MARGIN = 4
"""Columns beside the picture in which :func:`project_intervals` lets bodies begin and end."""


@dataclass(frozen=True)
class Geometry:
    """A point source, a flat detector and the patient between them.

    Attributes:
        size: pixels along each side of the square detector.
        field_mm: length of that side.
        source_y, detector_y: depth of source and detector.
        centre_z: height of source and detector centre.
    """

    size: int
    field_mm: float
    source_y: float
    detector_y: float
    centre_z: float = 0.0

    @property
    def spacing(self) -> float:
        """Millimetres between pixel centres at the detector."""
        return self.field_mm / self.size

    def across(self) -> Array:
        """Position of each pixel column from the central ray, at the detector, ``[size]``; rows are its negative."""
        return np.asarray((np.arange(self.size) - (self.size - 1) / 2) * self.spacing, np.float64)

    def shrink(self, y: Array) -> Array:
        """Size at depth ``y`` of what has size 1 on the detector."""
        return (y - self.source_y) / (self.detector_y - self.source_y)

    def pixels(self, x: Array, y: Array, z: Array) -> tuple[Array, Array]:
        """Fractional (row, column) at which points are seen."""
        scale = 1 / (self.shrink(y) * self.spacing)
        middle = (self.size - 1) / 2
        return middle - (z - self.centre_z) * scale, middle + x * scale

    def obliquity(self) -> Array:
        """Length of each ray between two planes one millimetre apart, ``[size, size]``."""
        tangent = self.across() / (self.detector_y - self.source_y)
        return np.sqrt(1 + tangent[:, None] ** 2 + tangent[None] ** 2)


def _deposit(rows: Array, columns: Array, mass: Array, height: int, width: int) -> Array:
    """Sums masses at fractional positions into pixels, shared bilinearly; what falls outside is dropped."""
    r, c = np.floor(rows), np.floor(columns)
    inside = (r >= -1) & (r < height) & (c >= -1) & (c < width)
    rows, columns, mass, r, c = rows[inside], columns[inside], mass[inside], r[inside], c[inside]
    fr, fc = rows - r, columns - c
    at = ((r + 1) * (width + 2) + c + 1).astype(np.intp)
    total = np.zeros((height + 2) * (width + 2))
    for step, part in ((0, (1 - fr) * (1 - fc)), (1, (1 - fr) * fc), (width + 2, fr * (1 - fc)), (width + 3, fr * fc)):
        total += np.bincount(at + step, part * mass, len(total))
    return total.reshape(height + 2, width + 2)[1:-1, 1:-1]


def splat(geometry: Geometry, points: Array, volume: Array) -> Array:
    """Path length ``[size, size]`` through matter given as points ``[N, 3]`` that stand for volumes ``[N]`` in mm3.

    A volume dV at depth y fills a path of ``dV / (pixel area at that depth)``; points closer together than half a
    pixel make a smooth picture, and the total volume is kept whatever their density.
    """
    x, y, z = points.T
    rows, columns = geometry.pixels(x, y, z)
    area = (geometry.shrink(y) * geometry.spacing) ** 2
    return _deposit(rows, columns, volume / area, geometry.size, geometry.size)


def project_intervals(geometry: Geometry, depths: Array, intervals: list[Interval]) -> Array:
    """Path length ``[size, size]`` through bodies whose cut at each height and depth is an interval in ``x``.

    Args:
        depths: ``[D]`` evenly spaced depths.
        intervals: pairs of ``[size, D]`` arrays, left and right end at the detector row's height at each depth (see
            :func:`heights`); empty where right <= left.

    Between neighbouring depths the ends move linearly, so each slab adds a trapezium to its row: four kinks. All
    kinks of all slabs are collected first and summed up twice along the row.
    """
    n = geometry.size
    step = depths[1] - depths[0]
    scale = 1 / (geometry.shrink(depths) * geometry.spacing)
    row = np.broadcast_to(np.arange(n)[:, None], (n, len(depths) - 1))
    width = n + 2 * MARGIN
    kinks = np.zeros(n * width)
    for low, high in intervals:
        middle = (low + high) / 2
        for ends, sign in ((np.minimum(low, middle), 1.0), (np.maximum(high, middle), -1.0)):
            column = np.clip(ends * scale + (n - 1) / 2, -2.0, n + 1.0)
            centre = (column[:, 1:] + column[:, :-1]) / 2
            half = np.maximum(np.abs(np.diff(column, axis=1)) / 2, 0.5)
            for side in (-1, 1):
                at = centre + side * half + MARGIN
                whole = np.floor(at)
                rest = at - whole
                index = (row * width + whole.astype(np.intp)).ravel()
                height = -side * sign * step / (2 * half)
                kinks += np.bincount(index, ((1 - rest) * height).ravel(), len(kinks))
                kinks += np.bincount(index + 1, (rest * height).ravel(), len(kinks))
    slopes = kinks.reshape(n, width).cumsum(1)
    # A kink at column c bends the sum from c + 1 on, so what stands for column c is found one further left.
    return np.asarray(np.maximum(slopes.cumsum(1)[:, MARGIN - 1 : MARGIN - 1 + n], 0.0))


def heights(geometry: Geometry, depths: Array) -> Array:
    """Height ``[size, D]`` at which the rays of each detector row pass each depth."""
    rows = -geometry.across()
    return np.asarray(geometry.centre_z + rows[:, None] * geometry.shrink(depths)[None])
