"""One phantom from a seed: the picture, the patient without the fluid, and where the fluid is."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lucency.errors import ParameterError
from lucency.phantom import devices, physics, tissue
from lucency.phantom.anatomy import Chest
from lucency.phantom.parameters import SIDES, VIEWS, PhantomParameters, draw, stream
from lucency.phantom.projection import Array, Geometry, Interval, heights, project_intervals, splat

DEPTHS = 96
LUNG_FIELD_MM = 12.0
FAINTEST_MM = 0.05


@dataclass(frozen=True, eq=False)
class Phantom:
    """A simulated frontal chest radiograph and its truth.

    Attributes:
        image: float32 ``[H, W]`` display values in 0..1, bright = dense; the patient's right is on the left.
        twin: the same without the fluid: same patient, same grain, same scatter veil, same window. Where
            ``truth_mm`` is 0 it equals ``image`` exactly.
        truth_mm: float32 ``[H, W]``, path of each ray through fluid in mm, as sharp as the picture (focal spot).
        lungs: bool ``[2, H, W]``, rays that cross at least 12 mm of the right and the left lung, fluid counted as lung.
        spacing_mm: row and column spacing of the pixels at the detector.
        parameters: every parameter.
    """

    image: NDArray[np.float32]
    twin: NDArray[np.float32]
    truth_mm: NDArray[np.float32]
    lungs: NDArray[np.bool_]
    spacing_mm: tuple[float, float]
    parameters: PhantomParameters


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A patient in position, whose slow parts are computed once and rendered with any amount of fluid."""

    p: PhantomParameters

    @cached_property
    def chest(self) -> Chest:
        """The shapes."""
        return Chest(self.p)

    @cached_property
    def geometry(self) -> Geometry:
        """Source, patient and detector; the detector touches the chest (PA) or the back (AP)."""
        p = self.p
        skin = p.chest_half_depth + 45
        sign = 1.0 if p.view == "PA" else -1.0
        return Geometry(p.size, p.field_mm, sign * (skin - p.source_detector_mm), sign * skin, p.centre_z)

    @cached_property
    def depths(self) -> Array:
        """Depths at which space is cut."""
        reach = self.p.chest_half_depth + 60
        return np.linspace(-reach, reach, DEPTHS)

    @cached_property
    def grid(self) -> tuple[Array, Array, Array]:
        """Height, depth and sideways shift of every cut ``[size, D]``."""
        z = heights(self.geometry, self.depths)
        y = np.broadcast_to(self.depths[None], z.shape)
        return z, y, self.chest.shift(y, z) - self.p.centre_x

    def project(self, intervals: list[Interval]) -> Array:
        """Path length through bodies given by intervals on :attr:`grid`."""
        shift = self.grid[2]
        moved = [(low + shift, high + shift) for low, high in intervals]
        return project_intervals(self.geometry, self.depths, moved) * self.geometry.obliquity()

    def place(self, points: tissue.Points) -> Array:
        """Path length through matter given as points."""
        q, volume = points
        x = q[:, 0] + self.chest.shift(q[:, 1], q[:, 2]) - self.p.centre_x
        return splat(self.geometry, np.stack([x, q[:, 1], q[:, 2]], 1), volume)

    def ellipsoid(self, centre: tuple[float, float, float], axes: tuple[float, float, float]) -> Array:
        """Path length through an ellipsoid, small against its distance to the source."""
        x0, y0, z0 = centre
        g = self.geometry
        scale = float(g.shrink(np.array(y0)))
        x = g.across()[None] * scale - (x0 + float(self.chest.shift(np.array(y0), np.array(z0))) - self.p.centre_x)
        z = g.centre_z - g.across()[:, None] * scale - z0
        return np.asarray(2 * axes[1] * np.sqrt(np.maximum(1 - (x / axes[0]) ** 2 - (z / axes[2]) ** 2, 0)))

    @cached_property
    def spaces(self) -> list[list[Interval]]:
        """Right and left lung as intervals on :attr:`grid`."""
        z, y, _ = self.grid
        return [self.chest.lung(right, z, y) for right in (True, False)]

    @cached_property
    def lungs(self) -> Array:
        """Path lengths through right and left lung, fluid counted as lung, ``[2, H, W]``."""
        return np.stack([self.project(space) for space in self.spaces])

    @cached_property
    def paths(self) -> dict[str, Array]:
        """Path lengths in mm of the patient without fluid, by material."""
        p, chest, g = self.p, self.chest, self.geometry
        z, y, _ = self.grid
        step = 0.55 * g.spacing
        body = self.project([chest.body(z, y)])
        inner = self.project([chest.body(z, y, p.fat_thickness)])
        arms = self._arms()
        outer = np.maximum(body, arms)
        muscle = np.maximum(inner, np.maximum(arms - 2 * p.fat_thickness, 0))
        fat = outer - muscle
        breasts = self._breasts()
        fat, muscle = fat + 0.6 * breasts, muscle + 0.4 * breasts

        air = self.project([chest.trachea(z, y)]) + self.place(tissue.bronchi(chest, step)) + self._gas()
        lung = self.lungs.sum(0) * (1 + 0.03 * p.texture * physics.texture(stream(p.seed, 3), p.size, 1.2, 6))
        rng = stream(p.seed, 2)
        blood = self.place(tissue.join([tissue.vessels(chest, right, rng, step) for right in (True, False)]))
        blood = blood + self._nodules()

        rng = stream(p.seed, 1)
        rib_shell, rib_marrow = tissue.ribs(chest, rng, step)
        limb_shell, limb_marrow = tissue.shoulders(chest, rng, step)
        cortex = self.place(tissue.join([rib_shell, limb_shell, tissue.spine(chest, rng, step)]))
        marrow = self.place(tissue.join([rib_marrow, limb_marrow]))
        bone = p.bone_density * (cortex + 0.22 * marrow + 0.035 * self.project([chest.marrow(z, y)]))
        soft = muscle - lung - air + blood - bone
        return {"soft": np.maximum(soft, 0), "fat": fat, "lung": lung - blood, "bone": bone, "metal": self._metal(step)}

    def _arms(self) -> Array:
        p, g = self.p, self.geometry
        total = np.zeros((p.size, p.size))
        for sign in (-1.0, 1.0):
            start = (sign * 178.0, p.shoulder_height - 48)
            end = (sign * (205 + 150 * p.arm_out), p.shoulder_height - 300)
            x, z = g.across()[None], g.centre_z - g.across()[:, None]
            x = x + p.centre_x
            t = ((x - start[0]) * (end[0] - start[0]) + (z - start[1]) * (end[1] - start[1])) / (
                (end[0] - start[0]) ** 2 + (end[1] - start[1]) ** 2
            )
            t = np.clip(t, 0, 1)
            away = np.hypot(x - start[0] - t * (end[0] - start[0]), z - start[1] - t * (end[1] - start[1]))
            total = np.maximum(total, 2 * np.sqrt(np.maximum(47.0**2 - away**2, 0)))
        return total

    def _breasts(self) -> Array:
        p = self.p
        if p.breast <= 0:
            return np.zeros((p.size, p.size))
        size, total = p.breast, np.zeros((p.size, p.size))
        x = 0.62 * p.chest_half_width
        z = p.dome_right + 10 - 22 * size
        for sign in (-1.0, 1.0):
            half = 0.5 * self.ellipsoid((sign * x, p.chest_half_depth, z), (58 + 14 * size, 30 * size, 46 + 18 * size))
            total += half
        return total

    def _gas(self) -> Array:
        """Stomach bubble under the left dome and some gas in the bowel."""
        p, rng = self.p, stream(self.p.seed, 4)
        total = np.zeros((p.size, p.size))
        b = p.stomach_bubble
        if b > 0.15:
            centre = (0.50 * p.chest_half_width + rng.normal(0, 6), 5.0, p.dome_left - 9 - 15 * b)
            total += self.ellipsoid(centre, (22 + 16 * b, 19 * b, 14 * b))
        for _ in range(int(rng.integers(2, 7))):
            centre = (rng.uniform(20, 120), 20.0, p.dome_left - rng.uniform(55, 130))
            r = rng.uniform(5, 15)
            total += 0.6 * self.ellipsoid(centre, (r * rng.uniform(0.8, 1.8), r, r))
        return total

    def _nodules(self) -> Array:
        """Round foci: extra tissue in place of lung."""
        p, chest, rng = self.p, self.chest, stream(self.p.seed, 5)
        total = np.zeros((p.size, p.size))
        for _ in range(p.nodules):
            radius = rng.uniform(5.5, 14)
            right = bool(rng.random() < 0.5)
            for _ in range(400):
                q = rng.uniform(-1, 1, 3) * [p.chest_half_width, 0.7 * p.chest_half_depth, 1]
                q[0] = (-1 if right else 1) * abs(q[0])
                q[2] = rng.uniform(p.dome_left, p.lung_apex)
                clear = q + np.array([[0, 0, 0], [radius + 3, 0, 0], [-radius - 3, 0, 0], [0, 0, -radius - 8]])
                if tissue.inside(chest, right, clear, 0.9).all():
                    break
            x, y, z = map(float, q)
            for _ in range(5):
                dx, dz = rng.normal(0, 0.16 * radius, 2)
                r = radius * rng.uniform(0.8, 1.05)
                axes = (r * rng.uniform(0.9, 1.1), r, r * rng.uniform(0.9, 1.1))
                total += self.ellipsoid((x + dx, y, z + dz), axes) / 5
        return total

    def _metal(self, step: float) -> Array:
        p, chest, g, rng = self.p, self.chest, self.geometry, stream(self.p.seed, 6)
        total = devices.letter(chest, g, rng)
        if p.pacemaker:
            leads, can = devices.pacemaker(chest, g, rng, step)
            total = total + self.place(leads) + can
        if p.line:
            total = total + self.place(devices.line(chest, rng, step))
        if p.tube:
            total = total + self.place(devices.tube(chest, rng, step))
        if p.ecg:
            total = total + self.place(devices.electrodes(chest, rng, step))
        return total

    def fluid(self, volume_ml: float, side: str) -> Array:
        """Path length in mm through ``volume_ml`` of fluid on each named side."""
        z, y, _ = self.grid
        intervals: list[Interval] = []
        for right, lung in zip((True, False), self.spaces, strict=True):
            if volume_ml > 0 and side in ("both", "right" if right else "left"):
                level = self.chest.fluid_level(right, volume_ml)
                if not np.isfinite(level):
                    raise ParameterError(
                        f"The {'right' if right else 'left'} chest of phantom {self.p.seed} cannot hold "
                        f"{volume_ml:g} ml; ask for less."
                    )
                intervals += self.chest.fluid(right, z, y, level, lung)
        return self.project(intervals) if intervals else np.zeros((self.p.size, self.p.size))

    def blurred(self, path: Array) -> Array:
        """Path lengths as the focal spot and the detector's aperture show them."""
        p = self.p
        unsharp = p.focal_spot_mm * 110 / (p.source_detector_mm - 110)
        sigma = np.hypot(0.45 * unsharp, 0.18) / self.geometry.spacing
        return np.asarray(ndimage.gaussian_filter(path, sigma, truncate=3))

    @cached_property
    def _bare(self) -> dict[str, Array]:
        return {name: self.blurred(path) for name, path in self.paths.items()}

    @cached_property
    def _shutter(self) -> Array:
        """Share of the beam that the collimator lets through, ``[H, W]``."""
        p, rng, g = self.p, stream(self.p.seed, 7), self.geometry
        cut = rng.uniform(0.0, 0.075, 4) * (rng.random(4) < 0.6)
        if p.collimation == "none":
            return np.ones((p.size, p.size))
        u = np.linspace(0, 1, p.size)
        soft = 2.0 / g.field_mm
        rows = np.clip((u - cut[0]) / soft + 0.5, 0, 1) * np.clip((1 - cut[1] - u) / soft + 0.5, 0, 1)
        columns = np.clip((u - cut[2]) / soft + 0.5, 0, 1) * np.clip((1 - cut[3] - u) / soft + 0.5, 0, 1)
        return np.asarray(rows[:, None] * columns[None])

    def render(self, volume_ml: float, side: str) -> Phantom:
        """The picture with this much fluid on the named side or sides, and its twin without."""
        p, g = self.p, self.geometry
        paths = self._bare
        truth = self.blurred(self.fluid(volume_ml, side))
        truth[truth < FAINTEST_MM] = 0
        beam = self._shutter if p.collimation == "edge" else np.ones((p.size, p.size))
        primary = beam * physics.transmission(paths)
        # Where a vessel was drawn the air is already gone, so there can be more fluid than air left to replace.
        air = np.where(truth > 0, np.maximum(paths["lung"] - truth, 0), paths["lung"])
        wet = beam * physics.transmission({**paths, "lung": air, "fluid": truth})
        # One veil for both: what the fluid takes from it elsewhere is small, and so the twin differs by fluid alone.
        veil = physics.scatter(primary, p.scatter_ratio, g.spacing)
        noise = physics.grain(stream(p.seed, 8), p.size)
        quanta = p.quanta * g.spacing**2

        def exposed(light: Array) -> Array:
            mean = light + veil + 2e-4
            return -np.log(np.maximum(mean + np.sqrt(mean / quanta) * noise, 1e-5))

        dry = exposed(primary)
        slow = physics.broad(np.minimum(dry, 6.0), 30 / g.spacing)
        trunk = paths["soft"] > 40
        low, high = np.percentile(dry[trunk] if trunk.any() else dry, [4, 93])
        span = high - low
        low, high = low - (0.05 + p.window_low) * span, high + (0.10 + p.window_high) * span
        base = float(slow[trunk].mean()) if trunk.any() else float(slow.mean())

        def shown(exposure: Array) -> NDArray[np.float32]:
            flat = exposure - p.compression * (slow - base)
            value = np.clip((flat - low) / (high - low), 0, 2.5)
            value = value**p.gamma
            value = np.where(value > 0.55, 0.55 + 0.45 * (1 - np.exp(-(value - 0.55) / 0.45)), value)
            if p.collimation == "shutter":
                value = value * self._shutter
            return np.asarray(np.clip(value, 0, 1), np.float32)

        return Phantom(
            image=shown(exposed(wet)),
            twin=shown(dry),
            truth_mm=truth.astype(np.float32),
            lungs=self.lungs > LUNG_FIELD_MM,
            spacing_mm=(g.spacing, g.spacing),
            parameters=replace(p, volume_ml=float(volume_ml), side=side, effusion=volume_ml > 0),
        )


def simulate(
    seed: int,
    *,
    volume_ml: float = 0.0,
    side: str = "right",
    size: int = 512,
    view: str | None = None,
    nodules: int | None = None,
    cardiomegaly: bool | None = None,
    pacemaker: bool | None = None,
    line: bool | None = None,
) -> Phantom:
    """A simulated frontal chest radiograph of an upright patient, with exactly known pleural fluid.

    Equal arguments give equal pictures on every machine to float tolerance (random numbers: NumPy's PCG64). Whatever
    is not given is drawn from the seed, and what is given changes nothing else about the patient.

    Args:
        seed: which patient, 0 or more.
        volume_ml: free fluid on each side named, in ml; 0 is healthy.
        side: "left", "right" or "both", the patient's.
        size: pixels along each side, at least 32.
        view: "PA" or "AP".
        nodules: how many lung nodules.
        cardiomegaly: whether the heart is enlarged (cardiothoracic ratio above 0.55).
        pacemaker, line: whether there is a pacemaker, a central venous line.

    Raises:
        ParameterError: when a parameter is out of range or the chest cannot hold the fluid.
    """
    try:
        seed, size = operator.index(seed), operator.index(size)
        nodules = None if nodules is None else operator.index(nodules)
    except TypeError as error:
        raise ParameterError("Seed, size and number of nodules must be whole numbers.") from error
    if seed < 0:
        raise ParameterError(f"The seed must be 0 or more, not {seed}.")
    if not 32 <= size <= 4096:
        raise ParameterError(f"The size must be between 32 and 4096 pixels, not {size}.")
    if not (np.isfinite(volume_ml) and volume_ml >= 0):
        raise ParameterError(f"The volume must be 0 ml or more, not {volume_ml}.")
    if side not in SIDES:
        raise ParameterError(f'The side must be one of {", ".join(SIDES)}, not "{side}".')
    if view is not None and view not in VIEWS:
        raise ParameterError(f'The view must be one of {", ".join(VIEWS)}, not "{view}".')
    if nodules is not None and not 0 <= nodules <= 50:
        raise ParameterError(f"The number of nodules must be between 0 and 50, not {nodules}.")
    drawn = draw(seed, size, volume_ml, side, view, nodules, cardiomegaly, pacemaker, line)
    return Anatomy(drawn).render(volume_ml, side)
