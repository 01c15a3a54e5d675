"""Everything that makes one phantom differ from the next, drawn from a seed."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

SIDES = ("left", "right", "both")
VIEWS = ("PA", "AP")


def stream(seed: int, number: int) -> np.random.Generator:
    """Independent random numbers for one purpose, so that changing one thing leaves all others as they were."""
    return np.random.Generator(np.random.PCG64([seed, number]))


@dataclass(frozen=True)
class PhantomParameters:
    """One phantom, in millimetres, millilitres and degrees unless said otherwise. Equal parameters, equal image."""

    seed: int
    size: int
    volume_ml: float
    side: str
    view: str
    # findings
    effusion: bool
    cardiomegaly: bool
    nodules: int
    pacemaker: bool
    line: bool
    tube: bool
    ecg: bool
    marker: str
    collimation: str
    # body
    female: bool
    chest_half_width: float
    chest_half_depth: float
    chest_shape: float
    chest_power: float
    lung_apex: float
    dome_right: float
    dome_left: float
    dome_drop: float
    posterior_drop: float
    wall_thickness: float
    fat_thickness: float
    breast: float
    shoulder_height: float
    neck_half_width: float
    cardiothoracic_ratio: float
    heart_angle: float
    heart_height: float
    aortic_knob: float
    aorta_unfolding: float
    mediastinum: float
    vessel_calibre: float
    rib_pitch: float
    rib_slope: float
    rib_height: float
    bone_density: float
    stomach_bubble: float
    scapula_out: float
    arm_out: float
    # fluid
    meniscus_rise: float
    meniscus_length: float
    # position
    rotation_deg: float
    lean_deg: float
    scoliosis: float
    field_mm: float
    centre_x: float
    centre_z: float
    # beam, detector, tone
    source_detector_mm: float
    focal_spot_mm: float
    scatter_ratio: float
    quanta: float
    texture: float
    compression: float
    window_low: float
    window_high: float
    gamma: float

    def to_dict(self) -> dict[str, int | float | str | bool]:
        """The fields as a dictionary that :mod:`json` can write."""
        return asdict(self)


def draw(
    seed: int, size: int, volume_ml: float, side: str, view: str | None, nodules: int | None,
    cardiomegaly: bool | None, pacemaker: bool | None, line: bool | None,
) -> PhantomParameters:  # fmt: skip
    """Parameters of phantom ``seed``; what is given wins over what would be drawn and changes nothing else."""
    rng = stream(seed, 0)

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def around(mean: float, sd: float) -> float:
        return float(mean + sd * np.clip(rng.standard_normal(), -2.2, 2.2))

    def chance(p: float) -> bool:
        return bool(rng.random() < p)

    drawn_view = "AP" if chance(0.4) else "PA"
    view = drawn_view if view is None else view
    drawn_big, drawn_nodules = chance(0.33), int(rng.integers(1, 4)) * chance(0.35)
    big = drawn_big if cardiomegaly is None else cardiomegaly
    devices = [chance(0.12), chance(0.15), chance(0.08), chance(0.2)]
    female = chance(0.48)
    scale = around(0.96 if female else 1.04, 0.05)
    breath = between(0.0, 1.0) * (0.75 if view == "AP" else 1.0)
    stout = around(0.0, 1.0)
    apex = around(130, 5) * scale
    right = (-72 - 36 * breath + around(0, 6)) * scale
    normal, enlarged = between(0.40, 0.49), between(0.56, 0.67)
    pa = view == "PA"
    return PhantomParameters(
        seed=seed,
        size=size,
        volume_ml=float(volume_ml),
        side=side,
        view=view,
        effusion=volume_ml > 0,
        cardiomegaly=big,
        nodules=drawn_nodules if nodules is None else nodules,
        pacemaker=devices[0] if pacemaker is None else pacemaker,
        line=devices[1] if line is None else line,
        tube=devices[2],
        ecg=devices[3],
        marker=("L", "R", "L", "none")[int(rng.integers(4))],
        collimation=("none", "none", "shutter", "edge")[int(rng.integers(4))],
        female=female,
        chest_half_width=around(134, 7) * scale,
        chest_half_depth=around(79, 6.5) * scale,
        chest_shape=around(2.9, 0.25),
        chest_power=around(2.25, 0.12),
        lung_apex=apex,
        dome_right=right,
        dome_left=right - around(11, 5),
        dome_drop=around(42, 6),
        posterior_drop=around(48, 8),
        wall_thickness=max(14.0, around(24, 4) + 4 * stout),
        fat_thickness=max(4.0, 11 + 6 * stout),
        breast=max(0.0, around(0.75, 0.35)) if female else 0.0,
        shoulder_height=apex + around(8, 9) - (6 if pa else 0),
        neck_half_width=around(54, 4),
        cardiothoracic_ratio=enlarged if big else normal,
        heart_angle=around(38 - 6 * breath, 5),
        heart_height=around(0, 5),
        aortic_knob=around(20, 3),
        aorta_unfolding=max(0.0, around(0.35, 0.35)),
        mediastinum=around(1.0, 0.12),
        vessel_calibre=around(1.0, 0.13),
        rib_pitch=around(22.5, 0.9) * scale,
        rib_slope=around(1.0, 0.13),
        rib_height=around(6.2, 0.6) * scale,
        bone_density=around(1.0, 0.13),
        stomach_bubble=max(0.0, around(0.8, 0.5)),
        scapula_out=around(26, 9) if pa else around(2, 8),
        arm_out=between(0.3, 1.0) if pa else between(0.0, 0.35),
        meniscus_rise=between(55, 105),
        meniscus_length=between(9, 16),
        rotation_deg=around(0, 2.5 if pa else 4.5),
        lean_deg=around(0, 1.2 if pa else 2.2),
        scoliosis=around(0, 4),
        field_mm=between(375, 425) if pa else between(385, 440),
        centre_x=around(0, 6 if pa else 12),
        centre_z=around(4, 10 if pa else 14),
        source_detector_mm=1800.0 if pa else 1000.0,
        focal_spot_mm=between(0.6, 1.2),
        scatter_ratio=between(0.10, 0.25) if pa else between(0.2, 0.4),
        quanta=float(np.exp(between(np.log(1.5e5), np.log(2e6)))),
        texture=between(0.6, 1.3),
        compression=between(0.0, 0.3),
        window_low=between(-0.08, 0.08),
        window_high=between(-0.05, 0.2),
        gamma=between(0.62, 1.0),
    )
