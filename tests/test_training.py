"""What training and reporting rest on: a split by patient, and areas under curves."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "training"))
from films import part_of, read_boxes  # noqa: E402
from scoring import auc, auc_interval, calibration  # noqa: E402

SHARED = Path(os.environ.get("LUCENCY_SHARED", ROOT.parent / "shared"))


@settings(deadline=None)
@given(st.lists(st.integers(0, 400).map(str), min_size=1, max_size=300), st.sets(st.integers(0, 400).map(str)))
def test_no_patient_stands_on_two_sides(patients: list[str], held_out: set[str]) -> None:
    parts = part_of(patients, held_out)
    sides: dict[str, set[str]] = {}
    for patient, part in zip(patients, parts, strict=True):
        sides.setdefault(patient, set()).add(part)
        assert patient not in held_out or part == "test"
    assert all(len(s) == 1 for s in sides.values())
    # A film that is added later moves no other.
    assert part_of([*patients, "new"], held_out)[:-1] == parts


def test_shares_of_the_split() -> None:
    parts = part_of([str(i) for i in range(5000)], set())
    assert abs(parts.count("test") / 5000 - 0.15) < 0.02
    assert abs(parts.count("validation") / 5000 - 0.12) < 0.02


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real films are not beside the checkout")
def test_films_with_an_effusion_box_are_never_trained_on() -> None:
    boxed = {name.split("_")[0] for name in read_boxes()}
    assert len(read_boxes()) == 75
    assert set(part_of(sorted(boxed), boxed)) == {"test"}


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40))
def test_auc_is_the_share_of_pairs_in_order(pairs: list[tuple[bool, int]]) -> None:
    truth = np.array([t for t, _ in pairs], float)
    score = np.array([s for _, s in pairs], float)
    wins = [(p > n) + 0.5 * (p == n) for p in score[truth > 0.5] for n in score[truth < 0.5]]
    if not wins:
        assert np.isnan(auc(truth, score))
    else:
        assert auc(truth, score) == pytest.approx(float(np.mean(wins)))


def test_intervals_and_calibration() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random(400) < 0.4).astype(float)
    score = truth + rng.normal(0, 1, 400)
    found = auc_interval(truth, score, np.arange(400).astype(str), repeats=200)
    assert found["low"] < found["auc"] < found["high"]
    # An estimate from 40 % and 60 % of 400 has a standard error of about 0.022 here.
    assert 0.06 < found["high"] - found["low"] < 0.12
    probability = rng.random(4000)
    honest = (rng.random(4000) < probability).astype(float)
    assert calibration(honest, probability)["ece"] < 0.04
    assert calibration(honest, probability**3)["ece"] > 0.15
