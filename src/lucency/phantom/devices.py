"""What lies on or in the patient and must not count as a finding: pacemaker, lines, tubes, leads, side letters."""

from __future__ import annotations

import numpy as np

from lucency.phantom.anatomy import Chest
from lucency.phantom.projection import Array, Geometry
from lucency.phantom.tissue import Points, bezier, chain

STROKES = {
    "L": (((0, 0), (0, 1)), ((0, 0), (0.6, 0))),
    "R": (((0, 0), (0, 1)), ((0, 1), (0.5, 1)), ((0.5, 1), (0.62, 0.76)), ((0.62, 0.76), (0.5, 0.52)),
          ((0, 0.52), (0.5, 0.52)), ((0.25, 0.52), (0.64, 0))),
}  # fmt: skip


def stroke(geometry: Geometry, start: tuple[float, float], end: tuple[float, float], radius: float) -> Array:
    """Coverage 0..1 of a thick line between two points of the detector, in mm from its centre."""
    x, z = geometry.across()[None], -geometry.across()[:, None]
    dx, dz = end[0] - start[0], end[1] - start[1]
    t = np.clip(((x - start[0]) * dx + (z - start[1]) * dz) / (dx * dx + dz * dz + 1e-9), 0, 1)
    distance = np.hypot(x - start[0] - t * dx, z - start[1] - t * dz)
    return np.asarray(np.clip((radius - distance) / geometry.spacing + 0.5, 0, 1))


def letter(chest: Chest, geometry: Geometry, rng: np.random.Generator) -> Array:
    """Path through a lead side marker, as mm of titanium."""
    name = chest.p.marker
    total = np.zeros((geometry.size, geometry.size))
    half = geometry.field_mm / 2
    x, z = half * rng.uniform(0.74, 0.9), half * rng.uniform(0.55, 0.93)
    height, turn = rng.uniform(11, 18), np.radians(rng.normal(0, 7))
    if name == "none":
        return total
    if name == "R":
        x = -x - 0.6 * height
    c, s = np.cos(turn) * height, np.sin(turn) * height
    for a, b in STROKES[name]:
        ends = [(x + q[0] * c - q[1] * s, z - height + q[0] * s + q[1] * c) for q in (a, b)]
        total = np.maximum(total, stroke(geometry, ends[0], ends[1], 0.09 * height))
    return total * rng.uniform(6, 30)


def pacemaker(chest: Chest, geometry: Geometry, rng: np.random.Generator, step: float) -> tuple[Points, Array]:
    """Two leads as points of metal, and the can as a path map (mm of titanium)."""
    p = chest.p
    side = 1.0 if rng.random() < 0.85 else -1.0
    x, z = side * rng.uniform(85, 105), p.lung_apex - rng.uniform(38, 60)
    front = p.chest_half_depth
    w, h = chest.heart_width, chest.heart_centre
    can = np.zeros((geometry.size, geometry.size))
    scale = 1 / float(geometry.shrink(np.array(front)))
    u, v = x * scale, geometry.centre_z + (z - geometry.centre_z) * scale
    for i in range(5):
        can = np.maximum(can, stroke(geometry, (u - 10, v - 12 + 6 * i), (u + 10, v - 12 + 6 * i), 11.0))
    inner = stroke(geometry, (u - 6, v - 5), (u + 6, v - 5), 11.0)
    vein = [(x - side * 8, front, z + 18), (side * 60, 40, p.lung_apex - 22), (side * 22, 18, p.lung_apex - 30)]
    cava = [(-16.0, 12.0, p.lung_apex - 55), (-22.0, 12.0, h + 0.3 * w)]
    ventricle = [*vein, *cava, (-0.1 * w, 20, h - 0.2 * w), (0.32 * w, 40, h - 0.28 * w)]
    atrium = [*vein, *cava, (-0.16 * w, 20, h), (-0.05 * w, 34, h + 0.14 * w)]
    leads = [chain(bezier(q, 90), 0.75, step) for q in (ventricle, atrium)]
    points = np.concatenate([leads[0][0], leads[1][0]]), np.concatenate([leads[0][1], leads[1][1]])
    return points, 1.6 * can + 3.0 * inner


def line(chest: Chest, rng: np.random.Generator, step: float) -> Points:
    """A central venous line from the right side of the neck into the superior vena cava, as metal."""
    p = chest.p
    h, w = chest.heart_centre, chest.heart_width
    start = (-rng.uniform(28, 45), 10.0, p.lung_apex + 70)
    path = [start, (-26, 14, p.lung_apex + 8), (-20, 14, p.lung_apex - 40), (-22, 12, h + rng.uniform(0.2, 0.45) * w)]
    points, volume = chain(bezier(path, 70), 1.0, step)
    return points, volume * 0.35


def tube(chest: Chest, rng: np.random.Generator, step: float) -> Points:
    """A tracheal tube: the opaque stripe in its wall, as metal."""
    p = chest.p
    low = chest.carina + rng.uniform(20, 45)
    path = [(5.0, -5.0, p.lung_apex + 90), (4.0, -8.0, p.lung_apex + 20), (3.5, -10.0, low)]
    points, volume = chain(bezier(path, 60), 1.1, step)
    return points, volume * 0.4


def electrodes(chest: Chest, rng: np.random.Generator, step: float) -> Points:
    """Three to five skin electrodes with their wires, as metal."""
    p = chest.p
    front = p.chest_half_depth + 20
    parts = []
    for i in range(int(rng.integers(3, 6))):
        sign = -1.0 if i % 2 else 1.0
        x = sign * rng.uniform(60, 120)
        z = p.lung_apex - rng.uniform(10, 50) if i < 2 else p.dome_left + rng.uniform(-50, 30)
        disc = np.array([[x, front, z], [x, front + 1.2, z]])
        parts.append(chain(disc, 4.2, min(step, 1.0)))
        off = rng.normal(0, 45, 4)
        wire = [
            (x, front + 2, z),
            (x * 0.7 + off[0], front + 8, z - 25 + off[1]),
            (60 + off[2], front + 8, p.dome_left - 40 + off[3]),
            (150 + off[0], front, p.dome_left - 190),
        ]
        points, volume = chain(bezier(wire, 90), 0.7, step)
        parts.append((points, volume * 0.6))
    return np.concatenate([q for q, _ in parts]), np.concatenate([v for _, v in parts])
