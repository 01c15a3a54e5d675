"""What a radiologist calls a place on a frontal film, told from its lung fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lucency.lungs.fields import LungFields, Mask

Zone = Literal["costophrenic angle", "base", "mid zone", "apex", "heart and mediastinum", "outside the lungs"]
ZONES: tuple[Zone, ...] = (
    "costophrenic angle", "base", "mid zone", "apex", "heart and mediastinum", "outside the lungs",
)  # fmt: skip

APEX, BASE = 0.27, 0.62
"""Where the apex ends and the base begins, as shares of the height of a lung field from the top."""
ANGLE = 0.17
"""Radius of the costophrenic angle around its tip, as a share of that height."""
MARGIN = 0.06
"""How far beside a lung field (its wall, its dome) still counts to it, as a share of that height."""

SHORTER = 0.15
"""By how much the dome of one lung is higher than the other's, as a share of the other's height, before it is odd."""
SULCUS = 0.2
"""How far beneath the dome still counts to the base, as a share of that height: lung reaches down behind it."""


@dataclass(frozen=True)
class Place:
    """A named place.

    Attributes:
        zone: one of :data:`ZONES`.
        side: "right" or "left", the patient's; empty for what has none.
    """

    zone: Zone
    side: Literal["right", "left", ""]

    def __str__(self) -> str:
        said = {
            "costophrenic angle": "the patient's {} costophrenic angle",
            "base": "the base of the patient's {} lung",
            "mid zone": "the mid zone of the patient's {} lung",
            "apex": "the apex of the patient's {} lung",
            "heart and mediastinum": "the heart and mediastinum",
            "outside the lungs": "outside the lungs",
        }
        return said[self.zone].format(self.side)


def places(lungs: LungFields) -> tuple[list[Place], NDArray[np.uint8]]:
    """The places of a film, and the number of each pixel's place, uint8 ``[H, W]``."""
    lungs = completed(lungs)
    names = [Place("outside the lungs", ""), Place("heart and mediastinum", "")]
    numbers = np.zeros(lungs.right.shape, np.uint8)
    numbers[_between(lungs)] = 1
    middle = midline(lungs)
    distances = [ndimage.distance_transform_edt(~lung) for lung in (lungs.right, lungs.left)]
    for right, lung, near, far in (
        (True, lungs.right, *distances),
        (False, lungs.left, *reversed(distances)),
    ):
        top, bottom = np.flatnonzero(lung.any(1))[[0, -1]]
        height = bottom - top + 1
        rows = np.arange(lung.shape[0])[:, None]
        depth = (rows - top + 0.5) / height
        # What lies between the lungs is the heart's even where it is close to one of them.
        beside = (near <= MARGIN * height) & (near <= far)
        mine = lung | ((beside | _beneath(lung, right, middle, SULCUS * height)) & ~lungs.both & (numbers != 1))
        angle = np.hypot(*(np.indices(lung.shape) - np.array(tip(lung, right))[:, None, None])) <= ANGLE * height
        zones: list[tuple[Zone, NDArray[np.bool_]]] = [
            ("apex", mine & (depth < APEX)),
            ("mid zone", mine & (depth >= APEX) & (depth < BASE)),
            ("base", mine & (depth >= BASE)),
            ("costophrenic angle", angle & (mine | ~lungs.both) & (numbers != 1)),
        ]
        for zone, mask in zones:
            names.append(Place(zone, "right" if right else "left"))
            numbers[mask] = len(names) - 1
    return names, numbers


def completed(lungs: LungFields) -> LungFields:
    """The lung fields, one that ends far above the other continued downwards as the other one's mirror image.

    A lung field ends where a large effusion begins, and what is white beneath is its base all the same.
    """
    middle = midline(lungs)
    levels = {right: _dome_level(lung) for right, lung in ((True, lungs.right), (False, lungs.left))}
    short = levels[True] < levels[False]
    lung, other = (lungs.right, lungs.left) if short else (lungs.left, lungs.right)
    height = np.ptp(np.flatnonzero(other.any(1))) + 1
    if abs(levels[True] - levels[False]) <= SHORTER * height:
        return lungs
    columns = np.arange(lung.shape[1])
    source = np.rint(2 * middle - columns).astype(int)
    mirrored = np.where((source >= 0) & (source < len(columns)), other[:, source.clip(0, len(columns) - 1)], False)
    rows = np.arange(lung.shape[0])[:, None]
    # The heart is no part of it: it lies inside the inner border that the lung has above.
    upper = np.flatnonzero(lung.any(1))
    inner = [np.flatnonzero(lung[r])[-1 if short else 0] for r in upper[len(upper) // 4 : len(upper) * 3 // 4]]
    outside = columns <= np.median(inner) if short else columns >= np.median(inner)
    whole = lung | (mirrored & outside & (rows > upper[len(upper) // 2]) & ~other)
    return LungFields(whole, other) if short else LungFields(other, whole)


def _beneath(lung: Mask, right: bool, middle: float, far: float) -> Mask:
    """What lies at most ``far`` pixels beneath a lung field or, towards the midline, beneath the level of its dome."""
    rows, columns = np.indices(lung.shape)
    lowest = np.where(lung, rows, -1).max(0)
    level = _dome_level(lung)
    inner = (columns <= middle) if right else (columns >= middle)
    outer = columns >= np.flatnonzero(lung.any(0))[0] if right else columns <= np.flatnonzero(lung.any(0))[-1]
    start = np.where(lowest >= level, lowest, level)[None]
    return np.asarray(inner & outer & (rows > start) & (rows <= start + far))


def _dome_level(lung: Mask) -> int:
    """Row of the lower border over most of a lung field."""
    columns = np.flatnonzero(lung.any(0))
    lowest = np.array([np.flatnonzero(lung[:, c])[-1] for c in columns])
    return int(np.median(lowest[lowest > np.median(lowest) - 0.2 * np.ptp(np.flatnonzero(lung.any(1)))]))


def midline(lungs: LungFields) -> float:
    """Column of the midline: half way between the lung fields in their upper half, where there is no heart."""
    rows = np.flatnonzero(lungs.right.any(1) & lungs.left.any(1))
    rows = rows[: max(1, len(rows) // 2)]
    return float(np.mean([np.flatnonzero(lungs.right[r])[-1] + np.flatnonzero(lungs.left[r])[0] for r in rows])) / 2


def tip(lung: Mask, right: bool) -> tuple[int, int]:
    """Row and column of the costophrenic angle: the lowest outer corner of a lung field."""
    rows, columns = np.nonzero(lung)
    outward = -columns if right else columns
    at = int(np.argmax(rows + 0.7 * outward))
    return int(rows[at]), int(columns[at])


def _between(lungs: LungFields) -> Mask:
    """What lies between the inner borders of the lung fields, from their tops to the level of their domes."""
    rows, columns = np.indices(lungs.right.shape)
    right, left = (np.asarray(_border(m, side))[rows] for m, side in ((lungs.right, True), (lungs.left, False)))
    top = max(int(np.flatnonzero(m.any(1))[0]) for m in (lungs.right, lungs.left))
    bottom = max(_dome_level(m) for m in (lungs.right, lungs.left))
    inside = (columns > right) & (columns < left) & (rows >= top) & (rows <= bottom)
    return np.asarray(inside & ~lungs.both)


def _border(lung: Mask, right: bool) -> NDArray[np.float64]:
    """Column of the inner border in each row; beneath the top of the dome, as it was there."""
    rows = np.flatnonzero(lung.any(1))
    inner = np.array([np.flatnonzero(lung[r])[-1 if right else 0] for r in rows], float)
    lower = rows > rows[0] + 0.5 * len(rows)
    step = np.diff(inner, prepend=inner[0]) * (-1 if right else 1)
    # Where the dome begins, the innermost lung of a row jumps towards the wall within a few rows.
    jump = np.flatnonzero(lower & (ndimage.uniform_filter1d(step, 5) > 2.0))
    if len(jump):
        inner[jump[0] :] = inner[max(jump[0] - 3, 0)]
    return np.asarray(np.interp(np.arange(lung.shape[0]), rows, inner))
