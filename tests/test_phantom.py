"""The phantom against closed forms, and the promises of its truth."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lucency.errors import LucencyError
from lucency.phantom import Anatomy, simulate
from lucency.phantom.parameters import draw, stream
from lucency.phantom.physics import ATTENUATION, ENERGIES_KEV, FLUENCE, broad, transmission
from lucency.phantom.projection import Geometry, heights, project_intervals, splat
from lucency.phantom.tissue import solid

FAR = Geometry(96, 192.0, -1e7, 0.0)
NEAR = Geometry(128, 256.0, -1000.0, 100.0)


def patient(seed: int, size: int = 96) -> Anatomy:
    return Anatomy(draw(seed, size, 0.0, "right", None, None, None, None, None))


def ball(geometry: Geometry, radius: float, depths: np.ndarray) -> np.ndarray:
    z = heights(geometry, depths)
    half = np.sqrt(np.maximum(radius**2 - z**2 - depths[None] ** 2, 0))
    return project_intervals(geometry, depths, [(-half, half)]) * geometry.obliquity()


def test_path_through_a_sphere_is_its_chord() -> None:
    depths = np.linspace(-60, 60, 241)
    x = FAR.across()
    chord = 2 * np.sqrt(np.maximum(50**2 - x[:, None] ** 2 - x[None] ** 2, 0))
    deep = chord > 40
    assert np.abs(ball(FAR, 50, depths) - chord)[deep].max() < 0.6


def test_a_point_source_magnifies_a_sphere_and_shows_its_diameter() -> None:
    depths = np.linspace(-60, 60, 241)
    path = ball(NEAR, 50, depths)
    assert path.max() == pytest.approx(100, abs=0.5)
    # The rim of a ball at distance d from the source is met by rays of slope r / sqrt(d^2 - r^2).
    rim = 1100 * 50 / np.sqrt(1000**2 - 50**2)
    wide = (path[64] > 2).sum() * NEAR.spacing / 2
    assert wide == pytest.approx(rim, abs=1.5 * NEAR.spacing)


def test_a_block_cut_by_the_border_keeps_its_thickness() -> None:
    depths = np.linspace(-20, 20, 41)
    wide = np.full((96, 41), 500.0)
    path = project_intervals(FAR, depths, [(-wide, wide)])
    np.testing.assert_allclose(path, 40, rtol=1e-6)


def test_points_keep_their_volume_and_show_chords() -> None:
    a, b = np.array([[-70.0, 0, 0]]), np.array([[70.0, 0, 0]])
    points, volume = solid(a, b, np.array([12.0]), np.array([12.0]), 1.0)
    path = splat(FAR, points, volume)
    assert path.sum() * FAR.spacing**2 == pytest.approx(np.pi * 12**2 * 140, rel=1e-6)
    z = FAR.across()
    chord = 2 * np.sqrt(np.maximum(144 - z**2, 0))
    assert np.abs(path[:, 48] - chord)[chord > 12].max() < 1.2


def test_a_tube_seen_end_on_is_a_disc() -> None:
    a, b = np.array([[0.0, -30, 0]]), np.array([[0.0, 30, 0]])
    points, volume = solid(a, b, np.array([20.0]), np.array([20.0]), 1.0)
    path = splat(FAR, points, volume)
    x = FAR.across()
    within = np.hypot(x[:, None], x[None]) < 16
    assert np.median(path[within]) == pytest.approx(60, rel=0.06)


def test_transmission_is_beer_lambert() -> None:
    water = np.array([[0.0, 10.0], [100.0, 220.0]])
    weights = FLUENCE * ENERGIES_KEV / (FLUENCE * ENERGIES_KEV).sum()
    for at in np.ndindex(2, 2):
        expected = sum(w * np.exp(-m * water[at]) for w, m in zip(weights, ATTENUATION["fluid"], strict=True))
        assert transmission({"fluid": water})[at] == pytest.approx(expected, rel=1e-5)
    # NIST: water 0.2059 cm2/g at 60 keV.
    assert ATTENUATION["fluid"][1] == pytest.approx(0.2059 * 1.015 / 10)


def test_broad_blur_keeps_the_mean_of_a_smooth_picture() -> None:
    y, x = np.mgrid[:97, :97]
    picture = np.exp(-((x - 48) ** 2 + (y - 48) ** 2) / 200.0)
    assert broad(picture, 12.0).sum() == pytest.approx(picture.sum(), rel=0.03)


@pytest.mark.parametrize("seed", [3, 11])
@pytest.mark.parametrize("volume", [60.0, 300.0, 900.0])
def test_the_fluid_has_the_volume_asked_for(seed: int, volume: float) -> None:
    # From a source far away the picture is not magnified, so the truth sums up to the volume.
    p = replace(patient(seed).p, source_detector_mm=1e7, field_mm=420.0, centre_x=0.0, centre_z=-20.0)
    truth = Anatomy(p).render(volume, "right").truth_mm
    assert float(truth.sum()) * (420 / 96) ** 2 / 1000 == pytest.approx(volume, rel=0.04)


def test_without_fluid_the_twin_is_the_image() -> None:
    p = simulate(4, size=64)
    np.testing.assert_array_equal(p.image, p.twin)
    assert not p.truth_mm.any()
    assert not p.parameters.effusion


@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_image_and_twin_differ_only_where_there_is_fluid(side: str) -> None:
    p = simulate(5, volume_ml=400, side=side, size=128)
    wet = p.truth_mm > 0
    np.testing.assert_array_equal(p.image[~wet], p.twin[~wet])
    # Fluid is denser than the air it replaces.
    thick = p.truth_mm > 20
    assert thick.any()
    # What the fluid covers gets brighter, up to single noisy pixels behind a collimator or a marker.
    assert np.quantile((p.image - p.twin)[thick], 0.1) > 0
    left_half = p.truth_mm[:, :64].sum() / p.truth_mm.sum()
    assert {"right": left_half > 0.8, "left": left_half < 0.2, "both": 0.2 < left_half < 0.8}[side]


def test_the_twin_is_the_same_patient_without_the_fluid() -> None:
    np.testing.assert_array_equal(simulate(6, volume_ml=500, size=64).twin, simulate(6, size=64).image)


def test_more_fluid_covers_more() -> None:
    anatomy = patient(8)
    paths = [anatomy.fluid(v, "left") for v in (50, 150, 400, 1000)]
    for less, more in pairwise(paths):
        assert (more - less).min() > -0.5
        assert more.sum() > less.sum()


def test_the_fluid_is_deep_below_and_climbs_the_wall() -> None:
    a = patient(12, 192)
    truth = a.fluid(500, "right")
    rows = np.flatnonzero(truth.max(1) > 2)
    highest = {name: np.flatnonzero(truth[:, columns].max(1) > 6)[0] for name, columns in (
        ("wall", slice(np.flatnonzero(truth.max(0) > 2)[0], np.flatnonzero(truth.max(0) > 2)[0] + 16)),
        ("middle", slice(70, 78)),
    )}  # fmt: skip
    assert highest["wall"] < highest["middle"]
    assert truth[rows[len(rows) // 4 * 3]].max() > truth[rows[len(rows) // 8]].max()


def test_fluid_lies_in_the_lung_fields() -> None:
    p = simulate(9, volume_ml=400, side="left", size=128)
    deep = p.truth_mm > 15
    assert p.lungs[1][deep].mean() > 0.97
    assert p.lungs.dtype == bool
    columns = [np.flatnonzero(lung.any(0)).mean() for lung in p.lungs]
    assert columns[0] < columns[1]


def test_what_is_given_changes_nothing_else() -> None:
    plain, nodular = simulate(10, size=96, nodules=0), simulate(10, size=96, nodules=2)
    changed = np.abs(plain.image - nodular.image) > 0.02
    assert 0 < changed.mean() < 0.12
    same = replace(nodular.parameters, nodules=0)
    assert same == plain.parameters
    assert simulate(10, size=96, cardiomegaly=True).parameters.cardiothoracic_ratio > 0.55
    assert simulate(10, size=96, cardiomegaly=False).parameters.cardiothoracic_ratio < 0.5


@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    size=st.integers(32, 57),
    volume=st.floats(0, 700),
    side=st.sampled_from(["left", "right", "both"]),
    view=st.sampled_from(["PA", "AP", None]),
)
def test_any_phantom_keeps_its_promises(seed: int, size: int, volume: float, side: str, view: str | None) -> None:
    p = simulate(seed, volume_ml=volume, side=side, size=size, view=view)
    for picture in (p.image, p.twin, p.truth_mm):
        assert picture.shape == (size, size)
        assert picture.dtype == np.float32
        assert np.isfinite(picture).all()
    assert p.image.min() >= 0
    assert p.image.max() <= 1
    assert p.truth_mm.min() >= 0
    assert np.array_equal(p.image[p.truth_mm == 0], p.twin[p.truth_mm == 0])
    again = simulate(seed, volume_ml=volume, side=side, size=size, view=view)
    assert np.array_equal(p.image, again.image)
    assert json.loads(json.dumps(p.parameters.to_dict()))["seed"] == seed


def test_the_random_stream_is_the_documented_one() -> None:
    assert stream(7, 0).random() == np.random.Generator(np.random.PCG64([7, 0])).random()
    p = simulate(7, size=64).parameters
    assert (p.view, p.female, round(p.chest_half_width, 3)) == ("PA", False, 131.971)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "whole"),
        ({"size": 8}, "size"),
        ({"size": 10**6}, "size"),
        ({"volume_ml": -3.0}, "volume"),
        ({"volume_ml": float("nan")}, "volume"),
        ({"volume_ml": 1e5}, "cannot hold"),
        ({"side": "top", "volume_ml": 10.0}, "side"),
        ({"view": "lateral"}, "view"),
        ({"nodules": -1}, "nodules"),
    ],
)
def test_bad_parameters_say_what_is_wrong(change: dict[str, object], words: str) -> None:
    arguments: dict[str, object] = {"seed": 1, "size": 32, **change}
    with pytest.raises(LucencyError, match=words):
        simulate(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=words):
        simulate(**arguments)  # type: ignore[arg-type]
