"""Free pleural fluid added to a real film without any: the truth is known, everything else is a patient's own.

The film tells the outline of each lung; the chest behind it is taken to have the cross-section of the simulated
patients. Fluid stands in it as in them (a level, and a shell along the wall that thins upwards), so that the sulcus
behind the dome and the costophrenic angle fill first. What it does to the light is Beer-Lambert's law:

    E = P + S,   E' = P exp(-(mu_fluid - mu_lung) t) + S'

with the exposure E behind the dry chest read from the film's tones, its scattered part S a broad veil, and the path t
through fluid. Ribs and vessels stay, with the contrast that is left to them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from lucency.errors import ParameterError
from lucency.lungs import LungFields
from lucency.lungs.fields import Mask
from lucency.phantom import physics
from lucency.phantom.projection import Array
from lucency.phantom.simulate import FAINTEST_MM

CHEST_MM = 288.0
"""Both lung fields from wall to wall on the detector."""
MAGNIFIED = 1.075
"""How much larger than in the simulated patients, of 268 mm, that is."""
HALF_DEPTH_MM = 79.0
POWER = 2.25
"""Exponent of the superellipse that is the cross-section of the cage."""
DOME = ((-10, 1.0), (-5, 0.94), (0, 0.55), (5, 0.38), (10, 0.28), (20, 0.18), (30, 0.1), (40, 0.05), (60, 0.0))
"""What share of the cage behind a pixel is lung, by mm below the lower border of the lung field: the mean of simulated
patients, as is the next."""
HEART = ((-12, 1.0), (-5, 0.73), (0, 0.53), (5, 0.4), (10, 0.31), (15, 0.23), (20, 0.17), (30, 0.1), (50, 0.0))
"""The same, by mm from the inner border towards the spine."""
WALL_MM = 60.0
"""Soft tissue of chest wall and back, which hardens the beam."""
SCATTER = 0.2
"""Scattered light behind the lungs, as a share of the primary light there."""
UNSHARP_MM = 0.6


@dataclass(frozen=True, eq=False)
class WetFilm:
    """A real film with simulated fluid.

    Attributes:
        image: float32 ``[H, W]``, display values in 0..1, bright = dense.
        twin: the untouched film. Where ``truth_mm`` is 0 it equals ``image`` exactly.
        truth_mm: float32 ``[H, W]``, path of each ray through fluid in mm.
        volume_ml: of the fluid.
        side: "left", "right" or "both", the patient's.
        mm: millimetres between pixels, as taken from the width of the chest.
    """

    image: NDArray[np.float32]
    twin: NDArray[np.float32]
    truth_mm: NDArray[np.float32]
    volume_ml: float
    side: str
    mm: float


def add_fluid(
    film: NDArray[np.float32],
    lungs: LungFields,
    volume_ml: float,
    side: str,
    *,
    rise_mm: float = 80.0,
    length_mm: float = 12.0,
) -> WetFilm:
    """Adds fluid to a film of an upright patient without any.

    Args:
        film: ``[H, W]`` display values in 0..1, bright = dense.
        lungs: its lung fields.
        volume_ml: of fluid, on each side named.
        side: "left", "right" or "both", the patient's.
        rise_mm, length_mm: of the meniscus: how far the fluid climbs the wall above its level, and how thick it is.

    Raises:
        ParameterError: when the side or the volume is impossible.
    """
    if side not in ("left", "right", "both"):
        raise ParameterError(f'The side must be left, right or both, not "{side}".')
    if not (np.isfinite(volume_ml) and volume_ml > 0):
        raise ParameterError(f"The volume must be above 0 ml, not {volume_ml}.")
    dry = np.clip(np.asarray(film, np.float64), 0, 1)
    mm = CHEST_MM / _width(lungs)
    depth, path = np.zeros_like(dry), np.zeros_like(dry)
    for right in (True, False):
        if side in ("both", "right" if right else "left"):
            chest = Hemithorax.of(lungs, right, mm)
            level = chest.level(volume_ml, rise_mm, length_mm)
            path += chest.fluid(level, rise_mm, length_mm)
            depth += chest.depth
    path = ndimage.gaussian_filter(path, UNSHARP_MM / mm)
    path[path < FAINTEST_MM] = 0
    wet = shaded(dry, lungs, path, np.maximum(depth, path), mm)
    return WetFilm(
        np.where(path > 0, wet, dry).astype(np.float32),
        dry.astype(np.float32),
        path.astype(np.float32),
        float(volume_ml),
        side,
        mm,
    )


@dataclass(frozen=True, eq=False)
class Hemithorax:
    """One side of the chest behind its outline on the film.

    Attributes:
        cage: mm from the front to the back wall behind each pixel, ``[H, W]``.
        depth: mm of lung there.
        radius: 0 at the middle of the chest, 1 at its side wall, by pixel ``[H, W]``.
        height: mm above the costophrenic angle, ``[H, 1]``.
        mm: millimetres between pixels.
    """

    cage: Array
    depth: Array
    radius: Array
    height: Array
    mm: float

    @classmethod
    def of(cls, lungs: LungFields, right: bool, mm: float) -> Hemithorax:
        """The chest behind the right or left lung field."""
        lung = lungs.right if right else lungs.left
        rows, columns = lung.shape
        midline = (_inner(lungs.right, True) + _inner(lungs.left, False)) / 2
        top, bottom = _span(lung.any(1))
        # Towards the wall, as distance from the midline: the outline of the lung, smooth, and carried on downwards.
        outline = np.array([_outer(line, right) for line in lung[top : bottom + 1]])
        reach = np.abs(outline - midline)
        reach = ndimage.gaussian_filter1d(np.maximum(reach, 1.0), 4 / mm, mode="nearest")
        lowest = int(np.argmax(reach)) if reach.argmax() > len(reach) // 2 else len(reach) - 1
        reach[lowest:] = reach[lowest]
        wall = np.concatenate([np.full(top, reach[0]), reach, np.full(rows - bottom - 1, reach[-1])])
        across = (midline - np.arange(columns)) if right else (np.arange(columns) - midline)
        radius = np.clip(across[None], 0, None) / wall[:, None]

        dome = _dome(lung, right, mm)
        beneath = np.arange(rows)[:, None] - dome[None]
        room = np.interp(beneath * mm, *np.array(DOME).T)
        # From the top of the dome down, a line of the lung field begins at the dome and not at the heart.
        lines = np.arange(top, min(bottom, int(dome.min())) + 1)
        inner = np.abs(np.interp(np.arange(rows), lines, [_outer(lung[r], not right) for r in lines]) - midline)
        inner = ndimage.gaussian_filter1d(inner, 3 / mm, mode="nearest")
        room = room * np.interp((inner[:, None] - across[None]) * mm, *np.array(HEART).T)
        room = room * (np.arange(rows) >= top)[:, None] * (across > 0)[None]
        # The cage is shallower towards the apex.
        up = np.clip((bottom - np.arange(rows)) / max(bottom - top, 1), 0, 1)[:, None]
        half = HALF_DEPTH_MM * np.maximum(1 - up**4, 0.0) ** 0.6
        chord = 2 * half * np.maximum(1 - np.clip(radius, 0, 1) ** POWER, 0) ** (1 / POWER)
        return cls(chord, chord * room, radius, np.asarray((bottom - np.arange(rows))[:, None] * mm, np.float64), mm)

    def fluid(self, level: float, rise: float, length: float) -> Array:
        """Path in mm through fluid that stands to ``level`` mm above the costophrenic angle, ``[H, W]``.

        Its surface lies at ``level + rise * exp(-d / length)``, d the distance to the wall.
        """
        above = np.maximum(self.height - level, 1e-9)
        thick = length * np.log(np.maximum(rise / above, 1.0))
        free = np.clip(1 - thick / HALF_DEPTH_MM, 0, 1)
        # What is left to air is the same cross-section, smaller.
        scaled = np.where(free > 0, np.clip(self.radius, 0, 1) / np.maximum(free, 1e-9), 1.0)
        air = free * np.maximum(1 - np.clip(scaled, 0, 1) ** POWER, 0) ** (1 / POWER)
        whole = np.maximum(1 - np.clip(self.radius, 0, 1) ** POWER, 1e-9) ** (1 / POWER)
        # What lung there is behind dome and heart lies at the back wall, in the shell.
        shell = np.minimum(self.depth, self.cage * np.clip(1 - air / whole, 0, 1))
        return np.where(self.height <= level, self.depth, shell)

    def level(self, volume_ml: float, rise: float, length: float) -> float:
        """The level at which the fluid has the volume.

        Raises:
            ParameterError: when the chest cannot hold it.
        """

        # No fluid stands where there is no lung, and most of a film is not lung.
        at = self.depth > 0
        height = np.broadcast_to(self.height, at.shape)
        lung = dataclasses.replace(
            self, cage=self.cage[at], depth=self.depth[at], radius=self.radius[at], height=height[at]
        )

        def missing(level: float) -> float:
            held = float(lung.fluid(level, rise, length).sum()) * (self.mm / MAGNIFIED) ** 2 / 1000
            return held - volume_ml

        low, high = -rise - 60.0, float(self.height.max())
        if missing(high) < 0:
            raise ParameterError(f"This chest cannot hold {volume_ml:g} ml on one side; ask for less.")
        return float(optimize.brentq(missing, low, high, xtol=1e-6))


def shaded(dry: Array, lungs: LungFields, path: Array, depth: Array, mm: float) -> Array:
    """The film ``[H, W]`` after fluid of ``path`` mm took the place of so much lung of ``depth`` mm.

    The tone of the film is not known. It is taken as linear in the logarithm of the exposure between two tones that
    are: of lung, and of the tissue between and beneath the lungs, which is how a chest full of fluid would look.
    """
    lung, dense = tones(dry, lungs)
    full = np.log(1 / (_transmitted(np.array(140.0), np.array(140.0)) + SCATTER) * (1 + SCATTER))
    slope = (dense - lung) / float(full)
    exposure = np.exp(-(dry - lung) / slope)
    inside = lungs.both.astype(np.float64)
    veil = SCATTER / (1 + SCATTER) * physics.broad(np.minimum(exposure, 1.5) * (0.4 + 0.6 * inside), 35 / mm)
    veil = np.minimum(veil, 0.75 * exposure)
    primary = exposure - veil
    through = _transmitted(path, depth)
    # Light that the fluid holds back scatters no more.
    kept = physics.broad(through * inside + (1 - inside), 35 / mm)
    after = primary * through + veil * (0.5 + 0.5 * kept)
    wet = lung - slope * np.log(after)
    # The shoulder of the tone curve: fluid is hardly brighter than what is dense on this film.
    knee = lung + 0.75 * (dense - lung)
    top = dense + 0.3 * max(float(np.percentile(dry, 99)) - dense, 0.05)
    over = np.maximum(wet - knee, 0)
    bent = np.where(wet > knee, knee + (top - knee) * (1 - np.exp(-over / (top - knee))), wet)
    return np.clip(np.maximum(bent, dry), 0, 1)


def tones(film: Array, lungs: LungFields) -> tuple[float, float]:
    """Display value of aerated lung, and of what is as dense as a chest full of fluid.

    Raises:
        ParameterError: when lung is not darker: this is not a normal film.
    """
    rows, columns = np.nonzero(lungs.both)
    top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
    core = ndimage.binary_erosion(lungs.both, iterations=max(1, (right - left) // 40))
    lung = float(np.median(film[core]))
    low = np.zeros(film.shape, bool)
    low[top + (bottom - top) // 2 : bottom + (bottom - top) // 8, left : right + 1] = True
    dense = float(np.percentile(film[low & ~ndimage.binary_dilation(lungs.both, iterations=3)], 45))
    if dense - lung < 0.05:
        raise ParameterError("The lungs of this film are not darker than what lies between them; choose a normal film.")
    return lung, dense


def _transmitted(path: Array, depth: Array) -> Array:
    """Share of the light behind ``depth`` mm of lung that is left when fluid fills ``path`` mm of it."""
    wall = np.full_like(path, WALL_MM)
    wet = physics.transmission({"soft": wall, "lung": depth - path, "fluid": path})
    return np.asarray(wet / physics.transmission({"soft": wall, "lung": depth}))


def _width(lungs: LungFields) -> float:
    first, last = _span(lungs.both.any(0))
    return float(last - first + 1)


def _span(line: Mask | np.bool_) -> tuple[int, int]:
    at = np.flatnonzero(line)
    return int(at[0]), int(at[-1])


def _outer(line: Mask, leftmost: bool) -> float:
    return float(_span(line)[0 if leftmost else 1])


def _inner(lung: Mask, right: bool) -> float:
    """Column of a lung field's inner border, over its upper half, where there is no heart."""
    top, bottom = _span(lung.any(1))
    lines = lung[top + (bottom - top) // 6 : (top + bottom) // 2]
    return float(np.median([_outer(line, not right) for line in lines if line.any()]))


def _dome(lung: Mask, right: bool, mm: float) -> Array:
    """Row of the lower border of a lung field in each column, smooth, level beyond its ends."""
    columns = np.flatnonzero(lung.any(0))
    lowest = np.array([_span(lung[:, c])[1] for c in columns], float)
    # Inner columns end at the heart or the mediastinum rather than at the dome.
    bottom = lowest.max()
    height = bottom - _span(lung.any(1))[0]
    ends = lowest > bottom - 0.34 * height
    columns, lowest = columns[ends], lowest[ends]
    line = np.interp(np.arange(lung.shape[1]), columns, ndimage.median_filter(lowest, max(3, int(8 / mm))))
    return np.asarray(ndimage.gaussian_filter1d(line, 3 / mm, mode="nearest"))
