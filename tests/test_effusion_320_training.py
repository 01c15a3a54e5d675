"""The training of ``lucency:effusion-320``: what its losses say, how it chooses, and that it draws what it marks."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "training"))
import train_effusion_320  # noqa: E402
import wet_films as bank  # noqa: E402
from films import FINDINGS, Films  # noqa: E402
from lucency.classifier.networks import SqueezeNet  # noqa: E402
from scoring import auc, auc_difference  # noqa: E402
from train_effusion_320 import beside, chosen, maps_of, share, varied, within  # noqa: E402


def test_a_map_beside_its_mark_costs_what_its_share_says() -> None:
    marked = torch.zeros(3, 4, 5)
    marked[:, 1, 2:4] = 1
    maps = torch.zeros(3, 4, 5)
    maps[1, 1, 2] = 30
    maps[2, 0, 0] = 30
    flat, right, wrong = beside(maps, marked).tolist()
    assert flat == pytest.approx(-math.log(2 / 20), abs=1e-3)
    assert right == pytest.approx(0, abs=1e-3)
    assert wrong > 10


def test_the_mean_of_a_map_is_the_logit_without_its_bias() -> None:
    torch.manual_seed(0)
    net = SqueezeNet(len(FINDINGS)).eval()
    x = torch.rand(2, 1, 96, 96)
    with torch.inference_mode():
        for finding in (0, 5):
            maps = maps_of(net, net.features(x), torch.full((2,), finding))
            assert torch.allclose(maps.mean((1, 2)) + net.head.bias[finding], net(x)[:, finding], atol=1e-5)


def test_to_know_the_collection_is_worth_nothing() -> None:
    rng = np.random.default_rng(0)
    where = np.repeat(["a", "b"], 300)
    truth = (rng.random(600) < np.where(where == "a", 0.1, 0.8)).astype(np.float32)
    score = (where == "b").astype(np.float32)
    assert auc(truth, score) > 0.8
    assert within(truth, score, where) == pytest.approx(0.5)
    assert within(truth, truth + 9 * (where == "a"), where) == pytest.approx(1)
    # A collection without fluid has no pairs.
    assert within(np.float32([1, 0, 0]), np.float32([1, 0, 5]), np.array(["a", "a", "b"])) == 1


@pytest.mark.parametrize(
    ("plain", "fluid", "best"),
    [
        ((0.71, 0.50), (0.70, 0.60), "fluid"),
        ((0.75, 0.55), (0.71, 0.57), "plain"),
        ((0.66, 0.95), (0.60, 0.60), "effusion"),
        ((0.60, 0.40), (0.69, 0.49), "effusion"),
    ],
)
def test_the_rule(plain: tuple[float, float], fluid: tuple[float, float], best: str) -> None:
    numbers = {"effusion": (0.70, 0.50), "plain": plain, "fluid": fluid}
    assert chosen({name: {"auc_within": a, "on_fluid": f} for name, (a, f) in numbers.items()}) == best


def test_marks_move_with_the_film(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_effusion_320, "_hardware", lambda film, rng: None)
    pixels = np.zeros((6, 256, 256), np.uint8)
    pixels[:, 150:190, 60:120] = 255
    films, marked = varied(pixels, (pixels > 0)[:, None], np.random.default_rng(0))
    assert films.shape == (6, 1, 320, 320)
    assert marked.shape == (6, 1, 19, 19)
    assert bool(((films >= 0) & (films <= 1)).all())
    assert torch.equal(marked.amax((1, 2, 3)), torch.ones(6))
    seen = torch.nn.functional.adaptive_avg_pool2d(films, 19)
    for film, mark in zip(seen, marked, strict=True):
        assert np.corrcoef(film.flatten(), mark.flatten())[0, 1] > 0.85
    places = {divmod(int(mark.argmax()), 19) for mark in marked}
    assert len(places) > 3
    nothing = varied(pixels, np.zeros((6, 2, 256, 256), bool), np.random.default_rng(0))[1]
    assert not nothing.any()


def test_hardware_is_drawn_on_films_of_every_kind() -> None:
    films = torch.full((60, 320, 320), 0.4)
    rng = np.random.default_rng(0)
    for film in films:
        train_effusion_320._hardware(film, rng)
    touched = (films != 0.4).flatten(1).float().mean(1)
    assert 0.4 < float((touched > 0).float().mean()) < 1
    assert float(touched.max()) < 0.6
    assert bool(((films >= 0) & (films <= 1)).all())


def test_the_bank_of_fluid_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16), dtype=np.uint8)
    nobody = np.array([""] * 5)
    films = Films([], nobody, nobody, nobody, np.zeros((5, len(FINDINGS)), np.float32), pixels)
    asked: list[int] = []

    def wet(film: np.ndarray, rng: np.random.Generator, wide: bool) -> tuple[np.ndarray, np.ndarray] | None:
        asked.append(int(film[0, 0]))
        if len(asked) == 4:
            raise KeyboardInterrupt
        return (film, film > rng.integers(255)) if film[0, 0] != pixels[1, 0, 0] else None

    monkeypatch.setattr(bank, "_wet", wet)
    monkeypatch.setattr(bank, "CHUNK", 2)
    rows = np.arange(5)
    with pytest.raises(KeyboardInterrupt):
        bank.wet_films(films, rows, tmp_path, 0, wide=True)
    found = bank.wet_films(films, rows, tmp_path, 0, wide=True)
    assert found.rows.tolist() == [0, 2, 3, 4]
    assert np.array_equal(found.pixels, pixels[[0, 2, 3, 4]])
    # The first two were kept, the second two begun again.
    assert asked == [int(pixels[i, 0, 0]) for i in (0, 1, 2, 3, 2, 3, 4)]


def test_fluid_is_marked_where_a_film_changed() -> None:
    from lucency.phantom import simulate

    dry = np.round(simulate(3, volume_ml=0, size=256).image * 255).astype(np.uint8)
    made = bank._wet(dry, np.random.default_rng(0), wide=False)
    assert made is not None
    wet, fluid = made
    assert fluid.any()
    changed = np.abs(wet.astype(int) - dry.astype(int))
    assert (changed[fluid] > 0).mean() > 0.9
    assert changed[fluid].sum() > 0.5 * changed.sum()
    assert bank._wet(np.zeros((256, 256), np.uint8), np.random.default_rng(0), wide=False) is None


def test_the_difference_of_two_scores_and_the_interval_of_a_share() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random(300) < 0.4).astype(float)
    good, poor = truth + rng.normal(0, 0.5, 300), truth + rng.normal(0, 3, 300)
    who = np.arange(300).astype(str)
    found = auc_difference(truth, good, poor, who, repeats=200)
    assert found["low"] < found["auc"] < found["high"]
    assert found["low"] > 0.1
    assert auc_difference(truth, good, good, who, repeats=50) == {"auc": 0, "low": 0, "high": 0}
    # Wilson, 41 % of 75.
    half = share([1.0] * 31 + [0.0] * 44)
    assert (half["low"], half["high"]) == (pytest.approx(0.309, abs=1e-3), pytest.approx(0.526, abs=1e-3))
