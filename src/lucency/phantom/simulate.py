"""A simulated frontal chest radiograph whose pleural effusion is known exactly.

Rays run from a point source through a parametric three-dimensional chest to the detector. Along each ray the lengths
in lung, soft tissue, fat, bone, fluid and metal are added up and attenuate a four-line spectrum (Beer-Lambert); then
come scatter, blur, quantum noise, and the logarithm and tone curve of a digital radiograph.

Millimetres, in the frame of the picture: x to the right (towards the patient's left), y down, z from the detector
to the source. A picture of ``size`` pixels shows ``field_mm``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from scipy.fft import irfft2, rfft2

from lucency.errors import ParameterError

Array = NDArray[np.float32]
Side = Literal["left", "right", "both"]

# Mass attenuation in cm2/g at 50, 60, 80 and 100 keV (Hubbell & Seltzer, NISTIR 5632, ICRU-44 materials), times the
# density in g/cm3, in 1/mm. The weights are the energy fluence of a 120 kV beam filtered by 3 mm Al behind a patient.
SPECTRUM = np.array([0.20, 0.30, 0.32, 0.18])
MU = {
    "soft": np.array([0.2262, 0.2048, 0.1823, 0.1693]) * 1.05 / 10,
    "fat": np.array([0.2123, 0.1974, 0.1800, 0.1688]) * 0.95 / 10,
    "lung": np.array([0.2270, 0.2053, 0.1826, 0.1695]) * 0.26 / 10,
    "bone": np.array([0.4242, 0.3148, 0.2229, 0.1855]) * 1.92 / 10,
    "fluid": np.array([0.2269, 0.2059, 0.1837, 0.1707]) * 1.02 / 10,
    "metal": np.array([1.213, 0.7661, 0.4052, 0.2721]) * 4.51 / 10,
}
PLANES = 72
COARSE = 256
"""The volume is sampled at this many pixels at most; what is finer (ribs, vessels, wires) is drawn at full size."""


@dataclass(frozen=True)
class PhantomParameters:
    """Everything a phantom is made from; lengths in mm, volumes in ml."""

    seed: int
    volume_ml: float
    side: Side
    size: int
    view: str
    sex: str
    source_mm: float
    thickness_mm: float
    field_mm: float
    half_width: float
    half_depth: float
    apex: float
    dome_right: float
    dome_left: float
    wall: float
    fat_share: float
    rotation_deg: float
    tilt_deg: float
    shift_x: float
    shift_y: float
    heart_scale: float
    heart_angle_deg: float
    aorta_scale: float
    lung_density: float
    vessel_scale: float
    rib_pitch: float
    rib_drop: float
    breast_mm: float
    stomach_bubble: bool
    meniscus_mm: float
    meniscus_reach: float
    scatter: float
    photons: float
    tone: float
    sharpen: float
    cardiomegaly: bool
    nodules: int
    pacemaker: bool
    line: bool
    tube: bool
    electrodes: bool
    marker: bool
    collimated: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Phantom:
    """A radiograph, the same patient without the fluid, and where the fluid is.

    Attributes:
        image: float32 ``[H, W]`` in 0..1, bright = dense.
        twin: the same patient, exposure and noise without the fluid; it differs where the fluid is, and by the
            scatter that the fluid takes from its surroundings.
        truth_mm: float32 ``[H, W]``, length of the ray in fluid.
        lungs: bool ``[2, H, W]``, the projected lungs, the patient's right (left in the picture) first.
        spacing_mm: pixel spacing on the detector, rows and columns.
        parameters: what it was made from.
    """

    image: Array
    twin: Array
    truth_mm: Array
    lungs: NDArray[np.bool_]
    spacing_mm: tuple[float, float]
    parameters: PhantomParameters


def draw_parameters(
    seed: int,
    *,
    volume_ml: float = 0.0,
    side: Side = "right",
    size: int = 512,
    nodules: int | None = None,
    cardiomegaly: bool | None = None,
) -> PhantomParameters:
    """A patient and an exposure from the seed (NumPy's PCG64, whose streams are stable between versions).

    The draws do not depend on fluid, size or findings, so changing these keeps the patient.

    Raises:
        ParameterError: for a size, volume, side or count that makes no phantom.
    """
    if not 32 <= size <= 4096:
        raise ParameterError(f"A phantom has 32 to 4096 pixels a side, not {size}.")
    if not 0 <= volume_ml <= 2000:
        raise ParameterError(f"A pleural effusion has 0 to 2000 ml a side here, not {volume_ml}.")
    if side not in ("left", "right", "both"):
        raise ParameterError(f"The side is left, right or both, not {side!r}.")
    if nodules is not None and not 0 <= nodules <= 20:
        raise ParameterError(f"A phantom has 0 to 20 nodules, not {nodules}.")
    rng = np.random.default_rng([seed, 1])

    def u(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    view = "PA" if rng.random() < 0.65 else "AP"
    sex = "F" if rng.random() < 0.45 else "M"
    build = u(0.9, 1.08) * (0.94 if sex == "F" else 1.03)
    inspiration = u(-14, 10) - (8 if view == "AP" else 0)
    big_heart = rng.random() < 0.3
    heart = (u(1.28, 1.5), u(0.84, 1.06))
    many = int(rng.integers(1, 4)) if rng.random() < 0.3 else 0
    big = big_heart if cardiomegaly is None else cardiomegaly
    half_depth = u(84, 104) * build
    wall = u(20, 42)
    return PhantomParameters(
        seed=seed,
        volume_ml=float(volume_ml),
        side=side,
        size=size,
        view=view,
        sex=sex,
        source_mm=1800.0 if view == "PA" else 1050.0,
        thickness_mm=2 * (half_depth + wall * 0.8) + 30,
        field_mm=u(385, 430),
        half_width=u(126, 146) * build,
        half_depth=half_depth,
        apex=-u(142, 158) * build,
        dome_right=u(62, 80) + inspiration,
        dome_left=u(74, 94) + inspiration,
        wall=wall,
        fat_share=u(0.15, 0.45),
        rotation_deg=float(rng.normal(0, 2.5)),
        tilt_deg=float(rng.normal(0, 1.5)),
        shift_x=float(rng.normal(0, 6)),
        shift_y=float(rng.normal(-6, 7)),
        heart_scale=heart[0] if big else heart[1],
        heart_angle_deg=u(24, 46),
        aorta_scale=u(0.8, 1.25),
        lung_density=u(0.85, 1.25),
        vessel_scale=u(0.85, 1.2),
        rib_pitch=u(21.5, 24.5) * build,
        rib_drop=u(48, 76),
        breast_mm=u(10, 34) if sex == "F" else u(0, 6),
        stomach_bubble=bool(rng.random() < 0.6),
        meniscus_mm=u(28, 60),
        meniscus_reach=u(9, 20),
        scatter=u(0.15, 0.35) if view == "PA" else u(0.3, 0.6),
        photons=float(np.exp(u(math.log(1500), math.log(20000)))),
        tone=u(0.75, 1.2),
        sharpen=u(0.0, 0.7),
        cardiomegaly=bool(big),
        nodules=many if nodules is None else nodules,
        pacemaker=bool(rng.random() < 0.12),
        line=bool(rng.random() < 0.2),
        tube=bool(rng.random() < 0.1),
        electrodes=bool(rng.random() < 0.2),
        marker=bool(rng.random() < 0.75),
        collimated=bool(rng.random() < 0.3),
    )


class Anatomy:
    """One patient in one position: the path lengths that do not change with the fluid.

    Making it is the slow part; :meth:`render` is quick, so a training set takes several volumes of each patient.
    """

    def __init__(self, parameters: PhantomParameters) -> None:
        self.parameters = parameters
        p = parameters
        self._rng = np.random.default_rng([p.seed, 2])
        self._pixel = p.field_mm / p.size
        n = min(p.size, COARSE)
        axis = (np.arange(n, dtype=np.float32) + 0.5) / n * p.field_mm - p.field_mm / 2
        self._dz = np.float32(p.thickness_mm / PLANES)
        depth = (np.arange(PLANES, dtype=np.float32) + 0.5) * self._dz
        shrink = (1 - depth / p.source_mm)[:, None, None]
        self._x = axis[None, None, :] * shrink
        self._y = axis[None, :, None] * shrink
        self._a = self._from_centre(depth)[:, None, None]
        self._cell = (shrink * p.field_mm / n) ** 2 * self._dz
        self._volume()
        self._fine()

    def _from_centre(self, depth: Any) -> Any:
        """Distance towards the patient's back, from the middle of the chest, for distances from the detector."""
        half = self.parameters.thickness_mm / 2
        return depth - half if self.parameters.view == "PA" else half - depth

    def _depth(self, back: Any) -> Any:
        half = self.parameters.thickness_mm / 2
        return half + back if self.parameters.view == "PA" else half - back

    def _body(self, x: Any, y: Any, a: Any) -> tuple[Any, Any, Any]:
        """Detector-side coordinates -> the patient's own (rotated about the long axis, tilted, shifted)."""
        p = self.parameters
        turn, tilt = math.radians(p.rotation_deg), math.radians(p.tilt_deg)
        x, y = x - p.shift_x, y - p.shift_y
        x, y = x * math.cos(tilt) + y * math.sin(tilt), y * math.cos(tilt) - x * math.sin(tilt)
        return x * math.cos(turn) + a * math.sin(turn), y, a * math.cos(turn) - x * math.sin(turn)

    def _seen(self, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Points of the patient ``[N, 3]`` (x, y, back) -> pixel positions ``[N, 2]`` (row, column), magnification."""
        p = self.parameters
        turn, tilt = math.radians(p.rotation_deg), math.radians(p.tilt_deg)
        x = points[:, 0] * math.cos(turn) - points[:, 2] * math.sin(turn)
        a = points[:, 2] * math.cos(turn) + points[:, 0] * math.sin(turn)
        y = points[:, 1]
        x, y = x * math.cos(tilt) - y * math.sin(tilt), y * math.cos(tilt) + x * math.sin(tilt)
        grow = p.source_mm / (p.source_mm - self._depth(a))
        column = ((x + p.shift_x) * grow + p.field_mm / 2) / self._pixel - 0.5
        row = ((y + p.shift_y) * grow + p.field_mm / 2) / self._pixel - 0.5
        return np.stack([row, column], 1), grow

    def _cage(self, y: Any) -> tuple[Any, Any]:
        """Half width and half depth of the chest cavity at height y."""
        p = self.parameters
        t = np.clip((y - p.apex) / 235, 1e-3, 1)
        return p.half_width * (1 - (1 - t) ** 3) ** 0.62, p.half_depth * (1 - (1 - t) ** 3.4) ** 0.6

    def _wall_gap(self, x: Any, y: Any, a: Any) -> Any:
        """About the distance to the inner chest wall, positive inside."""
        wide, deep = self._cage(y)
        return (1 - np.sqrt((x / wide) ** 2 + (a / deep) ** 2)) * np.minimum(wide, deep)

    def _diaphragm(self, x: Any, a: Any) -> Any:
        """Height y of the diaphragm: a dome a side, low at the wall and lowest at the back."""
        p = self.parameters
        wide, deep = p.half_width, p.half_depth
        right, left = -0.46 * wide, 0.48 * wide
        lateral_r = np.clip((right - x) / (wide + right), 0, 1.2)
        medial_r = np.clip((x - right) / -right, 0, 1.2)
        lateral_l = np.clip((x - left) / (wide - left), 0, 1.2)
        medial_l = np.clip((left - x) / left, 0, 1.2)
        back = np.clip((a + 0.1 * deep) / (1.1 * deep), 0, 1.2)
        front = np.clip((-a - 0.1 * deep) / (0.9 * deep), 0, 1.2)
        slope = 78 * back**2 + 30 * front**2
        on_right = p.dome_right + 62 * lateral_r**2 + 16 * medial_r**2 + slope
        on_left = p.dome_left + 60 * lateral_l**2 + 14 * medial_l**2 + slope
        return np.where(x < 0, on_right, on_left)

    def _middle(self, x: Any, y: Any, a: Any) -> Any:
        """Heart, great vessels and mediastinum: positive inside, about mm."""
        p = self.parameters
        s, k = p.heart_scale, p.aorta_scale
        drop = (p.dome_left + p.dome_right) / 2 - 76

        def egg(cx: float, cy: float, ca: float, rx: float, ry: float, ra: float, turn: float = 0.0) -> Any:
            c, n = math.cos(math.radians(turn)), math.sin(math.radians(turn))
            ux, uy = (x - cx) * c + (y - cy) * n, (y - cy) * c - (x - cx) * n
            return (1 - np.sqrt((ux / rx) ** 2 + (uy / ry) ** 2 + ((a - ca) / ra) ** 2)) * min(rx, ry, ra)

        parts = egg(24 + 12 * (s - 1), 46 + drop, -18, 66 * s, 46 * s, 46, p.heart_angle_deg)
        for other in (
            egg(-20, 40 + drop, -12, 27 * s, 46 * s, 38),
            egg(-12, -18, -6, 25 * k, 58, 26),
            egg(23 * k, -52, 16, 19 * k, 19 * k, 24),
            egg(30, -22, -8, 19, 24, 22, 20),
            egg(0, -95, 0, 27, 75, 40),
        ):
            parts = np.maximum(parts, other)
        aorta = 13 * k - np.sqrt((x - 19 * k) ** 2 + (a - 40) ** 2)
        centre = 21 + 9 * np.exp(-(((a - 62) / 25) ** 2)) - np.abs(x)
        return np.maximum(parts, np.maximum(np.where(y > -50, aorta, -50), centre))

    def _volume(self) -> None:
        p = self.parameters
        x, y, a = self._body(self._x, self._y, self._a)
        x, y, a = (v.astype(np.float32) for v in np.broadcast_arrays(x, y, a))
        gap = self._wall_gap(x, y, a)
        below = self._diaphragm(x, a) - y
        inside = np.minimum(np.minimum(gap, below * 0.8), -self._middle(x, y, a))
        lung = np.clip(inside / self._dz + 0.5, 0, 1)
        wide, deep = self._cage(np.maximum(y, p.apex + 60))
        shoulder = 95 * np.clip((-y - 70) / 120, 0, 1) ** 1.5
        skin = 1 - np.sqrt((x / (wide + p.wall + shoulder)) ** 2 + (a / (deep + p.wall * 0.8)) ** 2)
        body = np.clip(skin * (deep + p.wall) / self._dz + 0.5, 0, 1)
        air = np.zeros_like(lung)
        if p.stomach_bubble:
            top = p.dome_left + 12
            bubble = 1 - np.sqrt(((x - 62) / 34) ** 2 + ((y - top - 20) / 20) ** 2 + ((a + 10) / 32) ** 2)
            bubble = np.minimum(bubble * 20, np.minimum(-below - 5, top + 30 - y))
            air = np.clip(bubble / self._dz + 0.5, 0, 1)
        windpipe = 8.5 - np.sqrt((x - 2) ** 2 + (a - 22) ** 2)
        air = np.maximum(air, np.clip(np.minimum(windpipe, -32 - y) / self._dz + 0.5, 0, 1))
        air = air * (1 - lung)

        # The ray is longer than dz where it runs obliquely.
        oblique = np.sqrt(1 + (self._x[0] ** 2 + self._y[0] ** 2) / p.source_mm**2).astype(np.float32)
        self._oblique = oblique * self._dz
        self._sides = [lung * (x < 0), lung * (x >= 0)]
        self._paths = {
            "lung": self._grown(lung.sum(0) * self._oblique),
            "tissue": self._grown((body * (1 - lung - air)).sum(0) * self._oblique),
        }
        self.lungs = np.stack([self._grown(s.sum(0) * self._oblique) > 12 for s in self._sides])
        # How high above its level the fluid is drawn up along the wall: the meniscus.
        self._rank = y + p.meniscus_mm * np.exp(-np.clip(gap, 0, None) / p.meniscus_reach)
        self._inside = np.argwhere(lung > 0.9)
        self._spots = np.stack([v[tuple(self._inside.T)] for v in (x, y, a)], 1).astype(np.float64)

    def _grown(self, coarse: Any) -> Array:
        """A map of the coarse grid at full size."""
        n = self.parameters.size
        if coarse.shape[0] == n:
            return coarse.astype(np.float32)
        grown = np.asarray(
            Image.fromarray(coarse.astype(np.float32)).resize((n, n), Image.Resampling.BICUBIC), np.float32
        )
        return np.maximum(grown, 0)

    def _drawn(
        self, points: NDArray[np.float64], lengths: NDArray[np.float64], radius: float, hollow: float = 0.0
    ) -> Array:
        """Path length through tubes around sampled centre lines.

        Each point is a ball's share: balls of chord ``2 sqrt(r^2 - d^2)`` strung along a line add up to a rod, whatever
        its slant to the ray. ``hollow`` is the radius of a core that holds a third of the mineral.
        """
        n = self.parameters.size
        image = np.zeros((n, n), np.float32)
        if len(points) == 0:
            return image
        where, grow = self._seen(points)
        weight = lengths * grow
        row, column = np.floor(where).astype(int).T
        fr, fc = (where - np.floor(where)).T
        for dr, dc, share in (
            (0, 0, (1 - fr) * (1 - fc)),
            (0, 1, (1 - fr) * fc),
            (1, 0, fr * (1 - fc)),
            (1, 1, fr * fc),
        ):
            r, c = row + dr, column + dc
            good = (r >= 0) & (r < n) & (c >= 0) & (c < n)
            np.add.at(image, (r[good], c[good]), (weight * share)[good])
        scale = float(grow.mean()) / self._pixel
        reach = max(1, math.ceil(radius * scale) + 1)
        t = np.arange(-reach, reach + 1) / scale
        fine = (np.arange(-2, 3) / 5 / scale)[:, None]
        tt = (t[None, :] + fine).ravel()
        d2 = tt[:, None] ** 2 + tt[None, :] ** 2

        def balls(r: float) -> NDArray[np.float64]:
            # Strung at unit density the chords add up to pi (r^2 - d^2); divided by pi r / 2 the middle is 2 r deep.
            chord = np.sqrt(np.clip(r * r - d2, 0, None)) * 2 / (math.pi * r / 2)
            return chord.reshape(5, len(t), 5, len(t)).mean((0, 2)) if r > 0 else 0 * chord[: len(t), : len(t)]

        kernel = balls(radius) - (0.67 * balls(hollow) * hollow / radius if hollow else 0)
        return _convolved(image, kernel)

    def _curve(self, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """A polyline resampled at half a pixel, with the length that each sample stands for."""
        steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
        at = np.concatenate([[0], np.cumsum(steps)])
        count = max(2, int(at[-1] / (0.5 * self._pixel)))
        where = (np.arange(count) + 0.5) * at[-1] / count
        dense = np.stack([np.interp(where, at, points[:, i]) for i in range(3)], 1)
        return dense, np.full(count, at[-1] / count)

    def _fine(self) -> None:
        rng, p = self._rng, self.parameters
        bone = self._ribs(rng) + self._clavicles(rng) + self._spine(rng) + self._scapulae(rng)
        self._paths["bone"] = bone
        self._vessels = self._tree(rng)
        self._nodules = self._balls(rng)
        self._paths["metal"] = self._devices(rng)
        grain = ndimage.gaussian_filter(rng.standard_normal((p.size, p.size)).astype(np.float32), 2.2 / self._pixel)
        self._texture = grain / grain.std()
        self._noise = rng.standard_normal((p.size, p.size)).astype(np.float32)
        self._breast = self._breasts(rng)

    def _ribs(self, rng: np.random.Generator) -> Array:
        p = self.parameters
        groups: dict[int, list[tuple[NDArray[np.float64], NDArray[np.float64]]]] = {}
        for number in range(11):
            top = p.apex + 6 + number * p.rib_pitch + rng.normal(0, 1.2)
            reach = min(1.0, 0.72 + 0.05 * number) if number < 8 else 0.85 - 0.17 * (number - 8)
            drop = p.rib_drop * (0.45 + 0.09 * min(number, 7)) * reach
            for side in (-1, 1):
                s = np.linspace(0, reach, 60)
                angle = np.radians(78 - 145 * s)
                y = top + drop * s**1.15 + rng.normal(0, 0.8) + 5 * np.sin(2.2 * np.pi * s)
                wide, deep = self._cage(np.maximum(y, p.apex + 18))
                x = side * np.maximum((wide + 4) * np.cos(angle), 20)
                back = (deep + 3) * np.sin(angle)
                thick = 4 + min(number, 4) // 2
                groups.setdefault(thick, []).append(self._curve(np.stack([x, y, back], 1)))
        total = np.zeros((p.size, p.size), np.float32)
        for thick, curves in groups.items():
            points, lengths = (np.concatenate(c) for c in zip(*curves, strict=True))
            total += self._drawn(points, lengths, thick + 0.5, thick - 0.9)
        return total * 0.8

    def _clavicles(self, rng: np.random.Generator) -> Array:
        p = self.parameters
        curves = []
        for side in (-1, 1):
            lift = rng.normal(0, 5)
            s = np.linspace(0, 1, 40)
            x = side * (16 + 142 * s)
            y = p.apex + 34 - 26 * s + 7 * np.sin(2 * np.pi * s) - lift * s
            curves.append(self._curve(np.stack([x, y, -70 + 55 * s], 1)))
        points, lengths = (np.concatenate(c) for c in zip(*curves, strict=True))
        return self._drawn(points, lengths, 6.5, 4.6) * 0.8

    def _spine(self, rng: np.random.Generator) -> Array:
        p = self.parameters
        pitch = p.rib_pitch
        bend = rng.normal(0, 3)
        total = np.zeros((p.size, p.size), np.float32)
        y0 = p.apex + 10
        n = p.size
        at, grow = self._seen(np.stack([np.zeros(2), np.array([0.0, 100.0]), np.full(2, 62.0)], 1))
        per_mm = (at[1, 0] - at[0, 0]) / 100
        row, column = np.mgrid[0:n, 0:n].astype(np.float32)
        y = (row - at[0, 0]) / per_mm
        x = (column - at[0, 1] - (at[1, 1] - at[0, 1]) * (y / 100)) / per_mm - bend * np.sin(y / 90)
        near = np.abs(x) < 40
        phase = (y - y0) / pitch
        within = np.abs(phase - np.round(phase)) * pitch
        half = pitch * 0.40
        body = np.clip((half - within) / 1.5 + 0.5, 0, 1)
        waist = 15 + 2.5 * (within / half) ** 2
        across = np.clip(1 - (x / waist) ** 2, 0, None) ** 0.5
        total += near * across * (7.0 * body + 2.0 * np.exp(-(((within - half) / 1.6) ** 2)))
        for side in (-1, 1):
            ring = np.sqrt((x - side * 10.5) ** 2 + ((within + 1) * 1.0) ** 2)
            total += near * 3.0 * np.exp(-(((ring - 4.0) / 1.5) ** 2))
        total += (
            near
            * 4.0
            * np.exp(-((x / 2.2) ** 2))
            * np.clip((4 - np.abs(phase - np.round(phase) - 0.3) * pitch) / 2, 0, 1)
        )
        wings = np.clip((4.0 - within) / 2, 0, 1) * np.clip((34 - np.abs(x)) / 4, 0, 1)
        total += near * 2.0 * wings
        return total.astype(np.float32)

    def _scapulae(self, rng: np.random.Generator) -> Array:
        p = self.parameters
        n = p.size
        total = np.zeros((n, n), np.float32)
        out = (22 if p.view == "PA" else -6) + rng.normal(0, 6)
        for side in (-1, 1):
            corners = np.array(
                [[104, -118], [150, -112], [168, -92], [146, -60], [122, 12], [113, 16], [106, -40]], float
            )
            corners[:, 0] = side * (corners[:, 0] + out * (0.4 + 0.6 * (corners[:, 1] + 118) / 134))
            corners[:, 1] += rng.normal(0, 4) + (p.apex + 150)
            points = np.column_stack([corners, np.full(len(corners), 70.0)])
            where, _ = self._seen(points)
            canvas = Image.new("F", (n, n), 0.0)
            outline = [(float(c), float(r)) for r, c in where]
            ImageDraw.Draw(canvas).polygon(outline, fill=2.2)
            total += ndimage.gaussian_filter(np.asarray(canvas, np.float32), 1.2 / self._pixel)
            edge = points[[2, 3, 4]]
            curve, lengths = self._curve(edge)
            total += 0.7 * self._drawn(curve, lengths, 4.0, 2.6)
            spine, lengths = self._curve(points[[6, 1]] * np.array([1, 0.92, 1]))
            total += 0.5 * self._drawn(spine, lengths, 3.5, 2.2)
        return total

    def _tree(self, rng: np.random.Generator) -> Array:
        """Vessels that branch from each hilum towards points spread through the lung, thinning as they split."""
        p = self.parameters
        segments: dict[int, list[tuple[NDArray[np.float64], float]]] = {}

        def grow(at: NDArray[np.float64], goals: NDArray[np.float64], calibre: float) -> None:
            if len(goals) < 2 or calibre < 0.45:
                return
            middle = goals.mean(0)
            end = at + (middle - at) * rng.uniform(0.35, 0.6) + rng.normal(0, 2.5, 3)
            between = (at + end) / 2 + rng.normal(0, 2.5, 3)
            segments.setdefault(max(1, round(calibre * 2)), []).append((np.stack([at, between, end]), calibre))
            spread = goals - middle
            _, _, axes = np.linalg.svd(spread, full_matrices=False)
            part = spread @ axes[0] > 0
            share = part.mean()
            for members, fraction in ((part, share), (~part, 1 - share)):
                grow(end, goals[members], calibre * max(0.35, fraction) ** 0.42)

        left_of = self._spots[:, 0] < 0
        for side, members in ((-1, left_of), (1, ~left_of)):
            pool = self._spots[members]
            if len(pool) < 50:
                continue
            hilum = np.array([side * 34.0, -8.0 if side < 0 else -14.0, 8.0])
            for _ in range(2):
                goals = pool[rng.integers(0, len(pool), 420)] + rng.normal(0, 3, (420, 3))
                far = np.abs(goals - hilum).sum(1)
                grow(hilum + rng.normal(0, 5, 3), goals[far < 260], 6.3 * p.vessel_scale)
        total = np.zeros((p.size, p.size), np.float32)
        for twice, parts in segments.items():
            curves = [self._curve(points) for points, _ in parts]
            points, lengths = (np.concatenate(c) for c in zip(*curves, strict=True))
            total += self._drawn(points, lengths, twice / 2)
        return total * np.clip(self._paths["lung"] / 40, 0, 1)

    def _balls(self, rng: np.random.Generator) -> Array:
        p = self.parameters
        total = np.zeros((p.size, p.size), np.float32)
        spots = self._spots[rng.permutation(len(self._spots))[:40]]
        radii = rng.uniform(6, 15, 40)
        for spot, radius in list(zip(spots, radii, strict=True))[: p.nodules]:
            where, grow = self._seen(spot[None])
            row, column = np.mgrid[0 : p.size, 0 : p.size]
            d = np.hypot(row - where[0, 0], column - where[0, 1]) * self._pixel / grow[0]
            wobble = 1 + 0.08 * np.sin(3 * np.arctan2(row - where[0, 0], column - where[0, 1]) + radius)
            total += 2 * np.sqrt(np.clip((radius * wobble) ** 2 - d**2, 0, None)).astype(np.float32)
        return total

    def _breasts(self, rng: np.random.Generator) -> Array:
        p = self.parameters
        total = np.zeros((p.size, p.size), np.float32)
        row, column = np.mgrid[0 : p.size, 0 : p.size]
        for side in (-1, 1):
            centre = np.array([[side * (72 + rng.normal(0, 5)), 34 + rng.normal(0, 9), -95.0]])
            where, grow = self._seen(centre)
            dy = (row - where[0, 0]) * self._pixel / grow[0]
            dx = (column - where[0, 1]) * self._pixel / grow[0]
            r = (dx / 66) ** 2 + (np.where(dy > 0, dy / 46, dy / 80)) ** 2
            total += p.breast_mm * np.sqrt(np.clip(1 - r, 0, None)).astype(np.float32)
        return total

    def _devices(self, rng: np.random.Generator) -> Array:
        p = self.parameters
        total = np.zeros((p.size, p.size), np.float32)

        def wire(points: list[tuple[float, float, float]], radius: float, opacity: float) -> Array:
            knots = np.array(points)
            t, dense = np.arange(len(knots)), np.linspace(0, len(knots) - 1, 80)
            smooth = np.stack([np.interp(dense, t, ndimage.gaussian_filter1d(knots[:, i], 0.01)) for i in range(3)], 1)
            smooth = ndimage.gaussian_filter1d(smooth, 6, axis=0, mode="nearest")
            return opacity * self._drawn(*self._curve(smooth), radius)

        jitter = rng.normal(0, 6, (6, 2))
        side = -1 if rng.random() < 0.5 else 1
        if p.pacemaker:
            box = np.array([[88.0 + jitter[0, 0], -88.0 + jitter[0, 1], -95.0]])
            where, grow = self._seen(box)
            row, column = np.mgrid[0 : p.size, 0 : p.size]
            d = np.maximum(np.abs(row - where[0, 0]) / 19, np.abs(column - where[0, 1]) / 23) * self._pixel / grow[0]
            corner = np.hypot((row - where[0, 0]) / 24, (column - where[0, 1]) / 28) * self._pixel / grow[0]
            total += (2.2 * np.clip((1 - np.maximum(d, corner)) * 12, 0, 1)).astype(np.float32)
            total += wire(
                [(75, -88, -95), (40, -105, -60), (-20, -85, -20), (-26, -20, -10), (-20, 40, -20), (38, 72, -40)],
                0.9,
                0.7,
            )
        if p.line:
            total += wire(
                [(side * 60, p.apex - 30, -40), (side * 38, p.apex + 15, -30), (-24, -70, -10), (-25, 0, -8)], 1.1, 0.25
            )
        if p.tube:
            total += wire([(3, p.apex - 60, 20), (2, -90, 20), (3, -52, 20)], 1.0, 0.3)
            total += wire([(5, p.apex - 60, 30), (4, -40, 34), (12, 60, 30), (40, 125, 0)], 1.2, 0.3)
        if p.electrodes:
            for i in range(3):
                x, y = rng.uniform(-120, 120), rng.uniform(-90, 100)
                total += wire(
                    [(x, y, -115), (x + rng.normal(0, 50), y + 50, -115), (side * 170, y + 130, -115)], 0.7, 0.35
                )
                where, grow = self._seen(np.array([[x, y, -115.0]]))
                row, column = np.mgrid[0 : p.size, 0 : p.size]
                d = np.hypot(row - where[0, 0], column - where[0, 1]) * self._pixel / grow[0]
                total += (0.35 * np.clip(6 - d, 0, 1)).astype(np.float32)
        letter = "R" if rng.random() < 0.5 else "L"
        height, across = rng.uniform(0.04, 0.2), rng.uniform(0.03, 0.12)
        if p.marker:
            canvas = Image.new("F", (p.size, p.size), 0.0)
            size = max(8, round(17 / self._pixel))
            column = across if letter == "R" else 1 - across - 0.04
            ImageDraw.Draw(canvas).text(
                (column * p.size, height * p.size), letter, fill=3.0, font=ImageFont.load_default(size)
            )
            total += np.asarray(canvas, np.float32)
        return total

    def fluid(self, volume_ml: float, side: Side) -> Array:
        """Length of each ray in ``volume_ml`` of free fluid a side, mm: float32 ``[size, size]``.

        The fluid fills the pleural space from below up to a level that rises along the wall; the level is the one
        below which there are exactly ``volume_ml``.

        Raises:
            ParameterError: when the lung is smaller than the volume.
        """
        total = np.zeros_like(self._sides[0][0])
        for name, lung in zip(("right", "left"), self._sides, strict=True):
            if side not in (name, "both") or volume_ml == 0:
                continue
            where = lung > 0
            rank = self._rank[where]
            share = (lung * self._cell)[where] / 1000
            order = np.argsort(-rank)
            filled = np.cumsum(share[order], dtype=np.float64)
            if filled[-1] < volume_ml:
                raise ParameterError(
                    f"This phantom's {name} lung holds {filled[-1]:.0f} ml, less than {volume_ml:g} ml of fluid; ask for less."
                )
            last = int(np.searchsorted(filled, volume_ml))
            wet = np.zeros(len(order), np.float32)
            wet[order[:last]] = 1
            before = filled[last - 1] if last else 0.0
            wet[order[last]] = (volume_ml - before) / share[order[last]]
            volume = np.zeros_like(lung)
            volume[where] = wet
            total += (volume * lung).sum(0)
        grown = self._grown(total * self._oblique)
        grown[grown < 0.05] = 0
        return grown

    def render(self, volume_ml: float, side: Side, noise: int = 0) -> Phantom:
        """The radiograph with that much fluid, and its twin without; ``noise`` other than 0 draws another grain."""
        p = self.parameters
        truth = self.fluid(volume_ml, side)
        grain = self._noise
        if noise:
            grain = np.random.default_rng([p.seed, 3, noise]).standard_normal(grain.shape).astype(np.float32)
        window = None
        pictures = []
        for wet in (np.zeros_like(truth), truth):
            density, window = self._film(wet, grain, window)
            pictures.append(density)
        return Phantom(
            image=pictures[1],
            twin=pictures[0],
            truth_mm=truth,
            lungs=self.lungs,
            spacing_mm=(self._pixel, self._pixel),
            parameters=p,
        )

    def _film(self, wet: Array, grain: Array, window: tuple[float, float] | None) -> tuple[Array, tuple[float, float]]:
        p = self.parameters
        air = np.clip(self._paths["lung"] - wet, 0, None)
        dry = air / np.maximum(self._paths["lung"], 1e-3)
        solid = (self._vessels * 0.9 + self._nodules) * dry
        lung = air * p.lung_density * (1 + 0.03 * self._texture)
        tissue = self._paths["tissue"] + self._breast
        paths = {
            "lung": np.clip(lung - solid, 0, None),
            "soft": tissue * (1 - p.fat_share) + solid,
            "fat": tissue * p.fat_share,
            "bone": self._paths["bone"],
            "fluid": wet,
            "metal": self._paths["metal"],
        }
        primary = np.zeros_like(wet)
        for i, share in enumerate(SPECTRUM):
            total = sum(np.float32(MU[name][i]) * path for name, path in paths.items())
            primary += np.float32(share) * np.exp(-total)
        primary = ndimage.gaussian_filter(primary, 0.3 / self._pixel)
        scattered = p.scatter * _broad(primary, 38 / self._pixel)
        signal = primary + scattered
        exposed = signal[self.lungs.any(0)].mean() if window is None else window[0]
        count = np.maximum(signal / exposed, 1e-4) * p.photons * self._pixel**2
        counted = signal * (1 + grain / np.sqrt(count))
        density = -np.log(np.maximum(ndimage.gaussian_filter(counted, 0.25 / self._pixel), 1e-6))
        if p.sharpen:
            density = density + np.float32(p.sharpen) * (density - _broad(density, 7 / self._pixel))
        if window is None:
            inner = density[int(0.1 * p.size) : int(0.9 * p.size), int(0.12 * p.size) : int(0.88 * p.size)]
            window = (float(exposed), *np.percentile(inner, [0.5, 98.5]).tolist())  # type: ignore[assignment]
        low, high = window[1], window[2]
        shade = np.clip((density - low) / (high - low), -0.3, 1.35)
        shade = 1 / (1 + np.exp(-4.2 * (shade - 0.5)))
        shade = np.clip((shade - 0.08) / 0.84, 0, 1) ** np.float32(p.tone)
        if p.collimated:
            rng = np.random.default_rng([p.seed, 4])
            top, bottom, left, right = (rng.uniform(0, 0.06, 4) * p.size).astype(int)
            edge = np.zeros_like(shade)
            edge[top : p.size - bottom, left : p.size - right] = 1
            shade = shade * ndimage.gaussian_filter(edge, 0.8 / self._pixel)
        return shade.astype(np.float32), window


def _broad(image: Array, sigma: float) -> Array:
    """A wide Gaussian at a quarter of the size, the border repeated."""
    n = image.shape[0]
    step = max(1, min(8, int(sigma / 3)))
    small = ndimage.gaussian_filter(
        ndimage.uniform_filter(image, step)[step // 2 :: step, step // 2 :: step], sigma / step, mode="nearest"
    )
    return np.asarray(Image.fromarray(small.astype(np.float32)).resize((n, n), Image.Resampling.BILINEAR), np.float32)


def _convolved(image: Array, kernel: NDArray[np.float64]) -> Array:
    """Same-size convolution by FFT."""
    shape = [a + b - 1 for a, b in zip(image.shape, kernel.shape, strict=True)]
    full = irfft2(rfft2(image, shape) * rfft2(kernel.astype(np.float32), shape), shape)
    r, c = kernel.shape[0] // 2, kernel.shape[1] // 2
    return np.clip(full[r : r + image.shape[0], c : c + image.shape[1]], 0, None).astype(np.float32)


def simulate(
    seed: int,
    volume_ml: float = 0.0,
    side: Side = "right",
    size: int = 512,
    *,
    nodules: int | None = None,
    cardiomegaly: bool | None = None,
) -> Phantom:
    """A chest radiograph from a seed, with ``volume_ml`` of free pleural fluid on that side (on each, for both).

    Raises:
        ParameterError: for a size, volume, side or count that makes no phantom.
    """
    parameters = draw_parameters(
        seed, volume_ml=volume_ml, side=side, size=size, nodules=nodules, cardiomegaly=cardiomegaly
    )
    return Anatomy(parameters).render(volume_ml, side)
