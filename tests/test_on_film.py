"""Fluid added to a film: as much as asked, where the simulated patients have it, and nowhere else."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from lucency import Scan
from lucency.errors import ParameterError
from lucency.lungs import LungFields, lung_fields
from lucency.phantom import Anatomy, Phantom
from lucency.phantom.on_film import MAGNIFIED, add_fluid
from lucency.phantom.parameters import draw

sys.path.insert(0, str(Path(__file__).parent.parent / "training"))
from train_lungs import visible_lungs

VOLUME = 400


@pytest.fixture(scope="module")
def patient() -> tuple[Phantom, LungFields]:
    anatomy = Anatomy(draw(7_000_001, 192, 0.0, "right", "PA", None, None, None, None))
    return anatomy.render(VOLUME, "right"), LungFields(*visible_lungs(anatomy))


def test_it_looks_as_in_the_simulated_patient(patient: tuple[Phantom, LungFields]) -> None:
    phantom, lungs = patient
    wet = add_fluid(phantom.twin, lungs, VOLUME, "right")
    assert np.corrcoef(wet.truth_mm.ravel(), phantom.truth_mm.ravel())[0, 1] > 0.9
    fluid = phantom.truth_mm > 30
    # Where there is much fluid, most of what the true film gained is gained, and not much more.
    gained, truly = (film[fluid].mean() - phantom.twin[fluid].mean() for film in (wet.image, phantom.image))
    assert 0.6 * truly < gained < 1.5 * truly
    assert wet.mm == pytest.approx(phantom.spacing_mm[0], rel=0.15)


def test_volume_side_and_twin_are_as_asked(patient: tuple[Phantom, LungFields]) -> None:
    phantom, lungs = patient
    for side, volume in (("left", 150.0), ("right", 800.0)):
        wet = add_fluid(phantom.twin, lungs, volume, side)
        assert wet.truth_mm.sum() * (wet.mm / MAGNIFIED) ** 2 / 1000 == pytest.approx(volume, rel=0.03)
        dry = wet.truth_mm == 0
        assert np.array_equal(wet.image[dry], wet.twin[dry])
        assert np.array_equal(wet.twin, phantom.twin)
        assert (wet.image >= wet.twin).all()
        assert wet.image.max() <= 1
        columns = (wet.truth_mm > 5).any(0)
        middle = phantom.twin.shape[1] / 2
        assert (
            (np.flatnonzero(columns) < middle + 8).all()
            if side == "right"
            else (np.flatnonzero(columns) > middle - 8).all()
        )
    both = add_fluid(phantom.twin, lungs, 150, "both")
    assert both.truth_mm.sum() * (both.mm / MAGNIFIED) ** 2 / 1000 == pytest.approx(300, rel=0.03)


def test_a_little_fluid_blunts_the_angle_first(patient: tuple[Phantom, LungFields]) -> None:
    phantom, lungs = patient
    little, much = (add_fluid(phantom.twin, lungs, v, "right").truth_mm for v in (80, 600))
    rows = np.flatnonzero(lungs.right.any(1))
    height = len(rows)
    whitest = np.unravel_index(int(little.argmax()), little.shape)
    assert whitest[0] > rows[-1] - 0.3 * height
    assert whitest[1] < np.flatnonzero(lungs.right.any(0)).mean()
    # The surface climbs towards the wall, and the more fluid the higher it stands.
    edges = [np.flatnonzero((much > 40)[:, c]).min() for c in np.flatnonzero((much > 40).any(0))]
    outer, inner = edges[: len(edges) // 4], edges[len(edges) // 2 : 3 * len(edges) // 4]
    assert np.mean(outer) < np.mean(inner) - 5
    assert np.flatnonzero((much > 40).any(1)).min() < np.flatnonzero((little > 40).any(1)).min() - 10
    assert (much >= little - 1e-3).all()


def test_what_cannot_be_is_refused(patient: tuple[Phantom, LungFields]) -> None:
    phantom, lungs = patient
    for volume, side, says in (
        (0, "right", "above 0"),
        (100, "up", "left, right or both"),
        (9000, "left", "cannot hold"),
    ):
        with pytest.raises(ParameterError, match=says):
            add_fluid(phantom.twin, lungs, volume, side)
    with pytest.raises(ParameterError, match="not darker"):
        add_fluid(np.full_like(phantom.twin, 0.5), lungs, 100, "right")


def test_lungs_can_be_found_rather_than_known(patient: tuple[Phantom, LungFields]) -> None:
    phantom, lungs = patient
    found = lung_fields(Scan.from_array(phantom.twin))
    assert found is not None
    a, b = (add_fluid(phantom.twin, one, VOLUME, "right").truth_mm for one in (lungs, found))
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.9
