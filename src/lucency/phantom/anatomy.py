"""The parametric patient: shapes that fill space, as intervals in ``x`` at every height ``z`` and depth ``y``.

All functions take broadcastable arrays ``z`` and ``y`` in the patient's own millimetres and return pairs of arrays:
left and right end. An interval whose ends meet is empty. "Right" and "left" are the patient's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lucency.phantom.parameters import PhantomParameters
from lucency.phantom.projection import Array, Interval


def ordered(low: Array, high: Array) -> Interval:
    """The interval, or an empty one in its middle when the ends are the wrong way round."""
    middle = (low + high) / 2
    return np.minimum(low, middle), np.maximum(high, middle)


def ellipsoid(z: Array, y: Array, centre: tuple[float, float, float], axes: tuple[float, float, float],
              tilt: float = 0.0) -> Interval:  # fmt: skip
    """Cut of an ellipsoid whose ``x`` axis is turned down to the patient's left by ``tilt`` radians; NaN beside it."""
    (cx, cy, cz), (ax, ay, az) = centre, axes
    c, s = np.cos(tilt), np.sin(tilt)
    h = z - cz
    room = 1 - ((y - cy) / ay) ** 2
    # With u = c x - s h, v = s x + c h: (u / ax)^2 + (v / az)^2 = room, a quadratic in x.
    a = (c / ax) ** 2 + (s / az) ** 2
    b = c * s * h * (1 / az**2 - 1 / ax**2)
    q = h**2 * ((s / ax) ** 2 + (c / az) ** 2) - room
    root = b**2 - a * q
    half = np.sqrt(np.where((root > 0) & (room > 0), root, np.nan)) / a
    return cx - b / a - half, cx - b / a + half


def smoothstep(low: float, high: float, x: Array) -> Array:
    """0 below ``low``, 1 above ``high``, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


@dataclass(frozen=True)
class Chest:
    """The cavities and organs of one patient."""

    p: PhantomParameters

    # --- the cage -------------------------------------------------------------------------------------------------
    def half_width(self, z: Array) -> Array:
        """Inner half-width of the rib cage at height ``z``."""
        base = self.p.dome_right - 60
        t = np.clip((z - base) / (self.p.lung_apex - base), 0, 1)
        low = smoothstep(base - 60, base + 60, z)
        return (34 + (self.p.chest_half_width - 34) * (1 - t**self.p.chest_shape) ** 0.62) * (0.94 + 0.06 * low)

    def half_depth(self, z: Array) -> Array:
        """Inner half-depth of the rib cage at height ``z``."""
        base = self.p.dome_right - 60
        t = np.clip((z - base) / (self.p.lung_apex - base), 0, 1)
        return np.asarray(np.maximum(self.p.chest_half_depth * (1 - t**4) ** 0.6, 0.5))

    def mid_depth(self, z: Array) -> Array:
        """Depth of the middle of the cage, which leans back towards the apex."""
        return -26 * smoothstep(-40, self.p.lung_apex, z)

    def radius(self, x: Array, y: Array, z: Array) -> Array:
        """0 on the axis of the cage, 1 at its wall."""
        n = self.p.chest_power
        a = np.abs(x / self.half_width(z)) ** n
        return np.asarray((a + np.abs((y - self.mid_depth(z)) / self.half_depth(z)) ** n) ** (1 / n))

    def wall_at(self, y: Array, z: Array, radius: Array | float = 1.0) -> Array:
        """Half-width at depth ``y`` of the surface at ``radius``; 0 where it is not met."""
        n = self.p.chest_power
        free = radius**n - np.abs((y - self.mid_depth(z)) / self.half_depth(z)) ** n
        return np.asarray(self.half_width(z) * np.maximum(free, 0) ** (1 / n) * (z < self.p.lung_apex))

    # --- organs ---------------------------------------------------------------------------------------------------
    @property
    def heart_width(self) -> float:
        """Transverse diameter of the heart."""
        return self.p.cardiothoracic_ratio * 2 * self.p.chest_half_width

    @property
    def heart_centre(self) -> float:
        """Height of the middle of the heart."""
        return (self.p.dome_right + self.p.dome_left) / 2 + 0.25 * self.heart_width + self.p.heart_height

    @property
    def knob(self) -> float:
        """Height of the aortic knob."""
        return max(self.p.lung_apex - 72, self.heart_centre + 0.46 * self.heart_width + 8)

    @property
    def carina(self) -> float:
        """Height at which the trachea divides."""
        return self.knob - 16

    def mediastinum(self, z: Array, y: Array) -> Interval:
        """What lies between the lungs: spine, heart, great vessels, as one interval."""
        p, w, h = self.p, self.heart_width, self.heart_centre
        top = smoothstep(p.lung_apex - 60, p.lung_apex + 5, z)
        front = smoothstep(20, 70, y)
        column = (31 + 2 * top) * np.clip(1 - (y + p.chest_half_depth) / 78, 0, 1) ** 0.8
        core = np.maximum((15 + 10 * top + 4 * np.cos(y / 14)) * p.mediastinum * (1 - 0.55 * front), column)
        low, high = -core * np.ones_like(z + y), (core + 1.5 * top) * np.ones_like(z + y)
        k, u = p.aortic_knob, p.aorta_unfolding
        beneath = 1 - smoothstep(self.knob - 5, self.knob + 5, z)
        tall = p.lung_apex - h
        shapes: list[Interval] = [
            ellipsoid(z, y, (0.15 * w, 24, h), (0.54 * w, 0.50 * w, 0.40 * w), np.radians(p.heart_angle)),
            ellipsoid(z, y, (-0.115 * w, 20, h - 2), (0.215 * w, 0.40 * w, 0.38 * w)),
            ellipsoid(z, y, (16, 12, h + 0.38 * w), (17 + 0.05 * w, 22, 0.16 * w + 6)),
            ellipsoid(z, y, (12, -18, self.knob), (k + 3 * u, 26, k * 0.95)),
            ellipsoid(z, y, (-8, 20, h + 0.45 * w), (17 + 9 * u, 20, 0.30 * w + 10)),
            ellipsoid(z, y, (-14, 8, h + 0.5 * tall), (17 * p.mediastinum, 20, 0.66 * tall)),
            ellipsoid(z, y, (13, -12, p.lung_apex - 12), (16 * p.mediastinum, 20, 56)),
        ]
        descending = np.where(np.abs(y + 46) < 13, np.sqrt(np.maximum(169 - (y + 46) ** 2, 0)), np.nan) * beneath
        shapes.append((np.full_like(z + y, np.nan), 12 + 9 * u + descending))
        for left, right in shapes:
            low, high = np.fmin(low, left), np.fmax(high, right)
        return low, high

    def dome(self, right: bool, z: Array, y: Array) -> Interval:
        """What the diaphragm, liver or stomach cover of a lung at height ``z``."""
        p = self.p
        top = p.dome_right if right else p.dome_left
        centre = 0.52 * p.chest_half_width
        outer, inner = 0.50 * p.chest_half_width, 0.80 * p.chest_half_width
        ahead = y - 12
        fall = np.where(ahead < 0, p.posterior_drop, 0.35 * p.posterior_drop) * (ahead / p.chest_half_depth) ** 2
        room = np.maximum((top - fall - z) / p.dome_drop, 0)
        spread = room ** (1 / 2.3)
        near, far = centre - inner * spread, centre + outer * spread
        # A narrow notch at the wall: the sulcus is deeper than the plain curve of the dome.
        return (-far, -near) if right else (near, far)

    def lung(self, right: bool, z: Array, y: Array) -> list[Interval]:
        """One lung (with its pleural space): inside the cage, beside the mediastinum, above the diaphragm."""
        wall = self.wall_at(y, z)
        left_edge, right_edge = self.mediastinum(z, y)
        low, high = ordered(-wall, left_edge) if right else ordered(right_edge, wall)
        dome_low, dome_high = self.dome(right, z, y)
        a = ordered(low, np.clip(dome_low, low, high))
        b = ordered(np.clip(dome_high, low, high), high)
        return [a, b]

    def fluid(self, right: bool, z: Array, y: Array, level: float, lung: list[Interval]) -> list[Interval]:
        """The part of a ``lung`` (its intervals on this grid) that free fluid standing to ``level`` fills.

        The surface lies at ``level + rise * exp(-d / length)``, d the distance to the wall, so at a height above the
        level the fluid is a shell that thins upwards, behind, in front and at the side: seen from the front, where
        rays run along the shell, its border is concave and rises to the side.
        """
        p = self.p
        above = np.maximum(z - level, 1e-9)
        depth = p.meniscus_length * np.log(np.maximum(p.meniscus_rise / above, 1e-9))
        radius = np.where(z <= level, 0.0, np.clip(1 - depth / p.chest_half_depth, 0, 1))
        inner = np.where(z <= level, -np.inf, self.wall_at(y, z, radius))
        pieces = []
        for low, high in lung:
            pieces.append(
                ordered(low, np.clip(-inner, low, high)) if right else ordered(np.clip(inner, low, high), high)
            )
        return pieces

    def fluid_level(self, right: bool, volume_ml: float) -> float:
        """The level at which the fluid on one side has the volume; infinite when the lung cannot hold it."""
        p = self.p
        z = np.linspace(p.dome_right - 130, p.lung_apex + 5, 150)[:, None]
        y = np.linspace(-p.chest_half_depth - 30, p.chest_half_depth + 5, 90)[None]
        lung = self.lung(right, z, y)
        cell = float((z[1, 0] - z[0, 0]) * (y[0, 1] - y[0, 0])) / 1000

        def volume(level: float) -> float:
            return cell * sum(float((high - low).sum()) for low, high in self.fluid(right, z, y, level, lung))

        low, high = p.dome_right - 130 - p.meniscus_rise, p.lung_apex
        if volume(high) < volume_ml:
            return float("inf")
        for _ in range(16):
            middle = (low + high) / 2
            if volume(middle) < volume_ml:
                low = middle
            else:
                high = middle
        return (low + high) / 2

    # --- the body -------------------------------------------------------------------------------------------------
    def body(self, z: Array, y: Array, inset: float = 0.0) -> Interval:
        """The trunk with shoulders and neck, ``inset`` below the skin."""
        p = self.p
        s = p.shoulder_height
        torso = p.chest_half_width + 9 + p.wall_thickness + p.fat_thickness - 0.03 * (z + 60)
        reach = 212.0
        wide = torso + (reach - torso) * smoothstep(s - 95, s - 25, z)
        slope = np.clip(1 - (z - s) / 62, 0, 1)
        neck = p.neck_half_width + 3 * smoothstep(s + 60, s + 110, z)
        width = np.where(z > s, neck + (reach - neck) * slope**1.7, wide) - inset
        deep = p.chest_half_depth + 13 + 0.5 * p.wall_thickness + 0.7 * p.fat_thickness
        up = smoothstep(s - 110, s + 20, z)
        depth = deep * (1 - up) + 74 * up - 14 * smoothstep(s + 20, s + 80, z) - inset
        middle = self.mid_depth(z) * 0.9 - 4
        free = 1 - np.abs((y - middle) / depth) ** 2.5
        half = width * np.maximum(free, 0) ** (1 / 2.5)
        return -half, half

    def trachea(self, z: Array, y: Array) -> Interval:
        """The air column, from the carina up."""
        middle = -14 + 0.08 * (z - self.carina)
        half = np.sqrt(np.maximum(8.2**2 - (y - middle) ** 2, 0)) * smoothstep(self.carina - 6, self.carina + 2, z)
        centre = -2.5 * (1 - smoothstep(self.carina, self.carina + 45, z))
        return centre - half, centre + half

    def marrow(self, z: Array, y: Array) -> Interval:
        """Vertebral bodies, discs left out."""
        gap = np.abs((z / self.p.rib_pitch) % 1 - 0.5) < 0.39
        half = 16.5 * np.sqrt(np.maximum(1 - ((y - self.spine_depth) / 15) ** 2, 0)) * gap
        return -half, half

    @property
    def spine_depth(self) -> float:
        """Depth of the middle of the vertebral bodies."""
        return -self.p.chest_half_depth + 14

    # --- posture --------------------------------------------------------------------------------------------------
    def shift(self, y: Array, z: Array) -> Array:
        """How far rotation, lean and the curve of the spine move what is at this depth and height, in ``x``.

        Rotation by a few degrees is taken as the shear that it is to first order.
        """
        p = self.p
        curve = p.scoliosis * np.sin(z / 75)
        return np.asarray(np.tan(np.radians(p.rotation_deg)) * y + np.tan(np.radians(p.lean_deg)) * z + curve)
