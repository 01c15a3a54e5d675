"""Thin things as points that stand for volumes: ribs, spine, clavicles, shoulder blades, lung vessels, leads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lucency.phantom.anatomy import Chest
from lucency.phantom.projection import Array

Points = tuple[Array, Array]
"""Positions ``[N, 3]`` in mm and the volumes ``[N]`` in mm3 that they stand for."""


def join(parts: list[Points]) -> Points:
    """All points of several parts."""
    return np.concatenate([p for p, _ in parts]), np.concatenate([v for _, v in parts])


def at(x: float, y: float, z: float) -> Array:
    """A point or a step."""
    return np.array([x, y, z], float)


def length_of(v: Array) -> Array:
    """Length of vectors, ``[..., 3]`` -> ``[...]``; far less overhead than NumPy's on the many short arrays here."""
    return np.asarray(np.sqrt(np.einsum("...i,...i->...", v, v)))


def unit(v: Array) -> Array:
    """Vectors of length 1."""
    return np.asarray(v / np.maximum(length_of(v), 1e-9)[..., None])


def cross(a: Array, b: Array) -> Array:
    """Cross product along the last axis; far less overhead than NumPy's."""
    x, y, z = a[..., 0], a[..., 1], a[..., 2]
    u, v, w = b[..., 0], b[..., 1], b[..., 2]
    return np.stack([y * w - z * v, z * u - x * w, x * v - y * u], -1)


def along(start: Array, end: Array, r0: Array, r1: Array, step: float) -> tuple[Array, Array, Array, Array]:
    """Samples of straight segments: positions, unit tangents, lengths they stand for, radii."""
    delta = end - start
    length = length_of(delta)
    count = np.maximum(np.ceil(length / step), 1).astype(int)
    of = np.repeat(np.arange(len(count)), count)
    first = np.repeat(np.cumsum(count) - count, count)
    t = (np.arange(len(of)) - first + 0.5) / count[of]
    tangent = unit(delta)[of]
    return start[of] + delta[of] * t[:, None], tangent, (length / count)[of], r0[of] + (r1 - r0)[of] * t


def frame(tangent: Array, up: Array) -> tuple[Array, Array]:
    """Two unit vectors across each tangent, the first as near to ``up`` as it can be."""
    first = unit(up - (tangent @ up)[:, None] * tangent)
    return first, cross(tangent, first)


UP = np.array([0.0, 0.0, 1.0])
AHEAD = np.array([0.0, 1.0, 0.0])


def shell(path: Array, tall: Array, flat: float, thickness: float, step: float, up: Array = UP) -> Points:
    """Cortical shell of a tube of elliptic cut: ``tall`` half-heights along ``up``, ``flat`` times that across."""
    middle, tangent, length, radius = along(path[:-1], path[1:], tall[:-1], tall[1:], 1.7 * step)
    first, second = frame(tangent, up)
    n = max(8, int(2 * np.pi * float(np.sort(tall)[int(0.9 * (len(tall) - 1))]) / (1.35 * step)))
    angle = (np.arange(n) + 0.5) * 2 * np.pi / n
    arc = np.hypot(np.sin(angle), flat * np.cos(angle)) * 2 * np.pi / n
    ring = np.cos(angle)[None, :, None] * first[:, None] + flat * np.sin(angle)[None, :, None] * second[:, None]
    points = middle[:, None] + radius[:, None, None] * ring
    volume = (length * radius)[:, None] * arc[None] * thickness
    return points.reshape(-1, 3), volume.ravel()


def solid(start: Array, end: Array, r0: Array, r1: Array, step: float, flat: float = 1.0, up: Array = UP) -> Points:
    """Filled tubes along segments, cut ``flat`` times as wide across ``up`` as along it.

    Seen from the side, a cut is a row of points that carry its chords; seen end on, it is a disc of points.
    """
    middle, tangent, length, radius = along(start, end, r0, r1, step)
    first, second = frame(tangent, up)
    side = unit(cross(tangent, AHEAD))
    reach = np.hypot((side * first).sum(1), flat * (side * second).sum(1)) * radius
    end_on = np.abs(tangent[:, 1]) > 0.8
    area = np.pi * flat * radius**2 * length
    parts = []
    for low, high in ((0.0, 0.6), (0.6, 1.5), (1.5, 3.0), (3.0, 6.0), (6.0, 12.0), (12.0, 1e9)):
        in_bin = (radius / step > low) & (radius / step <= high)
        for chosen, disc in ((in_bin & ~end_on, False), (in_bin & end_on, True)):
            if not chosen.any():
                continue
            across = min(float(radius[chosen].max()) / step, 40)
            n = max(1, int(2.5 * across**2) if disc else int(2.4 * across + 0.5))
            k = np.arange(n) + 0.5
            if disc:
                r, angle = np.sqrt(k / n) * (n > 1), k * 2.399963
                offset = (r * np.cos(angle))[None, :, None] * first[chosen, None]
                offset = offset + flat * (r * np.sin(angle))[None, :, None] * second[chosen, None]
                offset, share = offset * radius[chosen, None, None], np.full(n, 1 / n)
            else:
                t = 2 * k / n - 1
                offset = t[None, :, None] * (reach[chosen, None] * side[chosen])[:, None]
                share = np.sqrt(1 - t**2) / np.sqrt(1 - t**2).sum()
            points = middle[chosen, None] + offset
            parts.append((points.reshape(-1, 3), (area[chosen, None] * share[None]).ravel()))
    return join(parts)


def chain(path: Array, radius: Array | float, step: float, flat: float = 1.0) -> Points:
    """A filled tube along a path ``[N, 3]``."""
    r = np.broadcast_to(np.asarray(radius, float), (len(path),))
    return solid(path[:-1], path[1:], r[:-1], r[1:], step, flat)


def bezier(points: Sequence[tuple[float, float, float] | Array], count: int) -> Array:
    """A smooth path ``[count, 3]`` through given points (Catmull-Rom)."""
    p = np.array([points[0], *points, points[-1]], float)
    t = np.linspace(0, len(points) - 1 - 1e-9, count)
    i = t.astype(int)
    f = (t - i)[:, None]
    a, b, c, d = p[i], p[i + 1], p[i + 2], p[i + 3]
    curve = 2 * b + (c - a) * f + (2 * a - 5 * b + 4 * c - d) * f**2 + (3 * b - 3 * c + d - a) * f**3
    return np.asarray(0.5 * curve)


def plate(corners: Array, thickness: float, step: float) -> Points:
    """A flat triangle ``[3, 3]`` of given thickness."""
    a, b, c = corners
    n = max(2, int(max(np.linalg.norm(b - a), np.linalg.norm(c - a)) / step))
    u, v = np.meshgrid((np.arange(n) + 0.5) / n, (np.arange(n) + 0.5) / n)
    inside = u + v < 1
    area = float(np.linalg.norm(cross(b - a, c - a))) / 2
    points = a + u[inside][:, None] * (b - a) + v[inside][:, None] * (c - a)
    return points, np.full(len(points), area * thickness / len(points))


def ribs(chest: Chest, rng: np.random.Generator, step: float) -> tuple[Points, Points]:
    """Twelve pairs: (cortical shell, marrow)."""
    p = chest.p
    shells, marrows = [], []
    for number in range(1, 13):
        head = p.lung_apex + 4 - (number - 1) * p.rib_pitch
        drop = p.rib_slope * (26 + 8.5 * min(number, 8)) * (0.75 if number == 1 else 1.0)
        reach = (150, 148, 146, 145, 143, 140, 134, 124, 112, 100, 84, 62)[number - 1]
        for sign in (-1, 1):
            angle = np.radians(np.linspace(6, reach + rng.normal(0, 2), 60))
            rise = 5 * np.sin(np.minimum(angle, 1.2) * 1.6)
            turn = np.clip((angle - 0.5) / 2.2, 0, 1.2)
            z = head + rise - drop * turn**1.15 + rng.normal(0, 0.8)
            n = p.chest_power
            c, s = np.cos(angle), np.sin(angle)
            r = (np.abs(s) ** n + np.abs(c) ** n) ** (-1 / n)
            wide = chest.half_width(z) + 4
            deep = chest.half_depth(z) + 4
            x = sign * wide * r * s
            y = chest.mid_depth(z) - deep * r * c
            # The head of the rib meets the side of its vertebra rather than the midline.
            inner = smooth_start(angle)
            x, y = x + sign * 21 * (1 - inner), y - 4 * (1 - inner)
            path = np.stack([x, y, z], 1)
            ends = np.clip((angle[-1] - angle) / 0.12, 0.45, 1)
            grow = 1.0 - 0.18 * np.clip(angle / 2.5, 0, 1)
            tall = p.rib_height * (0.85 if number in (1, 11, 12) else 1.0) * ends * grow
            shells.append(shell(path, tall, 0.46, 1.15, step))
            marrows.append(solid(path[:-1], path[1:], tall[:-1], tall[1:], 2.5 * step, 0.46))
    return join(shells), join(marrows)


def smooth_start(angle: Array) -> Array:
    """Grows from 0 at the midline to 1 a little to the side."""
    return np.asarray(np.clip(angle / 0.5, 0, 1) ** 0.5)


def vertebra(pitch: float, y: float, step: float) -> Points:
    """Side walls, end plates, pedicles, transverse and spinous processes of one vertebra in the middle of ``z = 0``."""
    high, wide = 0.39 * pitch, 16.5 / 14.5
    waist = np.array([1.0, 0.93, 0.9, 0.93, 1.0]) * 14.5
    body = np.stack([np.zeros(5), np.full(5, y), np.linspace(-high, high, 5)], 1)
    parts = [shell(body, waist, wide, 0.5, step, AHEAD)]
    r = np.array([14.0])
    low, top = (np.array([at(0, y, end + edge) for end in (-high, high)]) for edge in (-0.3, 0.3))
    parts.append(solid(low, top, np.repeat(r, 2), np.repeat(r, 2), max(step, 0.9), wide, AHEAD))
    for sign in (-1, 1):
        pedicle = np.array([[sign * 10.5, y - 12, 3], [sign * 10.5, y - 20, 3]])
        parts.append(shell(pedicle, np.array([5.2, 5.2]), 0.62, 0.9, step))
        side = np.array([[sign * 10.0, y - 24, 2], [sign * 20, y - 29, 3], [sign * 30, y - 33, 5]])
        parts.append(shell(side, np.array([4.5, 4, 4.0]), 0.8, 0.7, step))
    tip = np.array([[0, y - 28, -2], [0, y - 42, -12], [0, y - 50, -19.0]])
    parts.append(shell(tip, np.array([4.0, 4, 5]), 0.55, 0.8, step))
    return join(parts)


def spine(chest: Chest, rng: np.random.Generator, step: float) -> Points:
    """The vertebrae from the neck to the abdomen, narrower above and wider below."""
    p = chest.p
    points, volume = vertebra(p.rib_pitch, chest.spine_depth, step)
    parts = []
    for i in range(int(np.floor((p.dome_left - 130) / p.rib_pitch)), int((p.lung_apex + 110) / p.rib_pitch)):
        z = (i + 0.5) * p.rib_pitch
        wide = (1 - 0.24 * float(np.clip((z - p.lung_apex) / 60, 0, 1))) * (1 + 0.1 * (z < -40))
        parts.append((points * at(wide, 1, 1) + at(0, 0, z + rng.normal(0, 0.3)), volume * wide))
    return join(parts)


def shoulders(chest: Chest, rng: np.random.Generator, step: float) -> tuple[Points, Points]:
    """Clavicles, shoulder blades and upper arms: (cortical shell, marrow)."""
    p = chest.p
    top = p.shoulder_height
    shells, marrows = [], []
    front = p.chest_half_depth
    for sign in (-1, 1):
        j = rng.normal(0, 2.5, 6)
        out = p.scapula_out
        clavicle = bezier(
            [(sign * 14, 30, top - 48 + j[0]), (sign * 48, 38, top - 36 + j[1]), (sign * 98, 4, top - 15 + j[2]),
             (sign * 146, -22, top - 9 + j[3])], 40,
        )  # fmt: skip
        thick = np.interp(np.arange(40), [0, 6, 20, 39], [9.0, 6.5, 5.4, 6.8])
        shells.append(shell(clavicle, thick, 0.85, 1.8, step))
        marrows.append(solid(clavicle[:-1], clavicle[1:], thick[:-1], thick[1:], 2.5 * step, 0.85))

        back = -front - 6
        x0 = 92 + out
        upper = np.array([sign * (x0 - 12), back + 18, top - 26 + j[4]])
        lower = np.array([sign * (x0 + 14), back - 4, top - 148 + j[5]])
        socket = np.array([sign * (x0 + 50), back + 40, top - 46 + j[4]])
        shells.append(plate(np.stack([upper, lower, socket]), 2.2, 1.5 * step))
        for path, r in (
            ([lower, 0.5 * (lower + socket) + at(sign * -3, 0, 0), socket], 4.2),
            ([upper, 0.5 * (upper + lower) + at(sign * -5, 0, 0), lower], 2.0),
            ([0.6 * upper + 0.4 * lower, 0.5 * (upper + socket) + at(0, -14, 4), socket + at(sign * 10, -2, 26)], 4.0),
            ([socket + at(0, 10, 8), socket + at(sign * -12, 28, 14), socket + at(sign * -4, 42, 4)], 5.0),
        ):
            curve = bezier(path, 24)
            shells.append(shell(curve, np.full(24, r), 0.9, 1.0, step))
        head = socket + np.array([sign * 27.0, 4, -2])
        elbow = head + np.array([sign * (30 + 150 * p.arm_out), 0, -260.0])
        t = np.linspace(-0.075, 1, 60)
        arm = head + (elbow - head) * t[:, None]
        far = length_of(arm - head)
        ball = np.sqrt(np.maximum(22**2 - far**2, 1.0))
        shaft = np.where(t > 0, 11.5 + 11 * np.exp(-far / 22), 0)
        size = np.maximum(ball, shaft)
        shells.append(shell(arm, size, 1.0, 2.0, step))
        marrows.append(solid(arm[:25], arm[1:26], size[:25], size[1:26], 3.0 * step))
    return join(shells), join(marrows)


def vessels(chest: Chest, right: bool, rng: np.random.Generator, step: float) -> Points:
    """Branching lung vessels: every tip joins the tree that stands where that is nearest; calibres after Murray."""
    p = chest.p
    sign = -1.0 if right else 1.0
    hilum = np.array([sign * (0.18 * p.chest_half_width + 8), -6.0, chest.carina - (24 if right else 14)])
    tips: list[Array] = []
    room = np.array([p.chest_half_width, p.chest_half_depth, 0])
    while len(tips) < 420:
        q = rng.uniform(-1, 1, (1200, 3)) * room
        q[:, 2] = rng.uniform(p.dome_right - 60, p.lung_apex, 1200)
        q[:, 0] = sign * np.abs(q[:, 0])
        tips.extend(q[inside(chest, right, q, 0.985)])
    goals = np.array(tips[:420])
    goals = goals[np.argsort(length_of(goals - hilum) + rng.normal(0, 10, 420))]
    # Arteries lead, and veins of the lower lobes run flatter, towards the left atrium.
    roots = np.array([hilum, hilum + at(sign * 2, 8, -22)])
    nodes = np.concatenate([roots, goals])
    parent = np.full(len(nodes), -1)
    far = np.zeros(len(nodes))
    for i in range(2, len(nodes)):
        reach = length_of(nodes[:i] - nodes[i])
        best = int(np.argmin(reach + 0.42 * far[:i]))
        parent[i], far[i] = best, far[best] + reach[best]
    flow = np.full(len(nodes), 1.0)
    for i in range(len(nodes) - 1, 1, -1):
        flow[parent[i]] += flow[i]
    radius = 0.82 * p.vessel_calibre * flow ** (1 / 2.6)
    child = np.arange(2, len(nodes))
    a, b = nodes[parent[child]], nodes[child]
    bend = 0.5 * (a + b) + rng.normal(0, 0.07, a.shape) * length_of(b - a)[:, None]
    r = np.minimum(radius[child], 7.5 * p.vessel_calibre)
    t = np.linspace(0, 1, 5)[:, None, None]
    curve = (1 - t) ** 2 * a + 2 * t * (1 - t) * bend + t**2 * b
    start, end = curve[:-1].reshape(-1, 3), curve[1:].reshape(-1, 3)
    taper = np.linspace(1.08, 0.92, 5)[:, None] * r
    kept = inside(chest, right, (start + end) / 2, 0.985)
    return solid(start[kept], end[kept], taper[:-1].ravel()[kept], taper[1:].ravel()[kept], step)


def inside(chest: Chest, right: bool, q: Array, radius: float) -> Array:
    """Which points lie in a lung, away from its wall."""
    x, y, z = q.T
    low, high = chest.mediastinum(z, y)
    dome_low, dome_high = chest.dome(right, z, y)
    free = (x < low) if right else (x > high)
    return np.asarray(free & ((x <= dome_low) | (x >= dome_high)) & (chest.radius(x, y, z) < radius))


def bronchi(chest: Chest, step: float) -> Points:
    """The air in the two main bronchi."""
    c = chest.carina
    right = bezier([(-3, -14, c + 3), (-18, -16, c - 16), (-34, -14, c - 30)], 14)
    left = bezier([(1, -14, c + 3), (20, -16, c - 14), (42, -16, c - 28)], 14)
    return join([chain(right, np.linspace(7.5, 5, 14), step), chain(left, np.linspace(6.5, 4.5, 14), step)])
