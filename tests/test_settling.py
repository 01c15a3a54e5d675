"""Predict, then verify: fewer patches are asked about, and what a reader takes from the map is that of all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lucency.attribution import attribute
from lucency.classifier import Classifier
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.masks import Patches
from lucency.methods import Occlusion
from lucency.methods.settling import Prior, Scale, agreeing, settled
from lucency.scan import Scan
from nets import classifier_of
from test_explainers import Spot

PATCHES = Patches((64, 64), (8, 8), (4, 4))


def network() -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return classifier_of(Spot().eval(), 2)


def film(seed: int) -> Scan:
    """Dim noise with one bright spot."""
    rng = torch.Generator().manual_seed(seed)
    pixels = 0.1 * torch.rand((1, 80, 80), generator=rng)
    row, column = torch.randint(4, 64, (2,), generator=rng).tolist()
    pixels[:, row : row + 12, column : column + 12] = 1
    return Scan(pixels)


def hill(seed: int) -> torch.Tensor:
    """Falls of the score: a hill somewhere, and little elsewhere."""
    rng = torch.Generator().manual_seed(seed)
    places = PATCHES.places.double()
    middle = torch.randint(3, 12, (2,), generator=rng).double()
    wave = torch.sin(places[:, 0] / 3) * torch.cos(places[:, 1] / 4)
    return 0.4 * torch.exp(-((places - middle).square().sum(1)) / 8) + 0.004 * wave


def asked(falls: torch.Tensor, prior: Prior, confidence: float = 0.9) -> tuple[int, torch.Tensor]:
    """How many patches were asked about, and what is then thought of all."""
    count, mean = 0, falls
    kinds = PATCHES.places[:, 0] % 2 * 2 + PATCHES.places[:, 1] % 2
    stream = settled(
        prior, PATCHES, kinds, Scale(0.9, True), lambda w: falls[w], confidence, torch.Generator().manual_seed(0)
    )
    seen: list[int] = []
    for which, found, belief in stream:
        assert torch.equal(found, falls[which])
        seen += which.tolist()
        count += len(which)
        mean = falls if belief is None else belief.mean
    # Nobody is asked twice.
    assert len(set(seen)) == len(seen)
    return count, mean


def test_the_promise_holds_with_fewer_patches() -> None:
    held, counts = [], []
    for seed in range(10):
        falls = hill(seed)
        # Like Grad-CAM: about there, and of another size.
        count, mean = asked(falls, Prior(7 * falls.view(PATCHES.counts).roll(1, 0).flatten(), False))
        held.append(agreeing(PATCHES, falls, mean[None]))
        counts.append(count)
    assert np.mean(held) >= 0.8
    assert np.mean(counts) < 0.7 * len(PATCHES)


def test_a_prior_that_knows_saves_more_and_one_that_is_wrong_costs_only_time() -> None:
    flat, good, wrong = [], [], []
    for seed in range(6):
        falls = hill(seed)
        inner = Scale(0.9, True).inward(falls)
        flat.append(asked(falls, Prior(torch.ones_like(falls), False))[0])
        good.append(asked(falls, Prior(inner, True))[0])
        _, mean = asked(falls, Prior(inner.flip(0), True))
        wrong.append(agreeing(PATCHES, falls, mean[None]))
    assert np.mean(good) < 0.6 * np.mean(flat)
    assert np.mean(wrong) >= 0.8


def test_a_prior_that_knows_where_it_may_be_wrong_is_asked_about_there() -> None:
    silent, frank = [], []
    for seed in range(6):
        falls = hill(seed)
        inner = Scale(0.9, True).inward(falls)
        # It misses another hill, where nothing but its doubt points to.
        other = hill(seed + 50)
        both = falls + 0.5 * other
        silent.append(asked(both, Prior(inner, True))[0])
        frank.append(asked(both, Prior(inner, True, 0.002 + 0.5 * other.abs()))[0])
    assert np.mean(frank) < 0.8 * np.mean(silent)


def test_where_half_of_the_patches_settle_next_to_nothing_the_others_follow_at_once() -> None:
    falls = torch.rand(len(PATCHES), generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.4
    kinds, batches = torch.zeros(len(PATCHES), dtype=torch.long), []
    prior, chance = Prior(torch.ones_like(falls), False), torch.Generator().manual_seed(0)
    for which, _, _ in settled(prior, PATCHES, kinds, Scale(0.9, True), lambda w: falls[w], 0.9, chance):
        batches.append(len(which))
    assert sum(batches) == len(PATCHES)
    assert 0.3 * len(PATCHES) < batches[-1] <= 0.5 * len(PATCHES)
    assert len(batches) < 15


def test_small_errors_of_the_score_as_errors_of_the_log_odds() -> None:
    scale, values = Scale(0.9, True), torch.linspace(-1, 4, 11, dtype=torch.float64)
    little = 1e-6 * torch.ones_like(values)
    there = scale.inward(scale.outward(values) + little) - values
    assert torch.allclose(scale.inward_error(little, values), there, rtol=1e-3)
    assert torch.equal(Scale(3.0, False).inward_error(little, values), little)


def test_what_is_agreed_on() -> None:
    falls = hill(1)
    assert agreeing(PATCHES, falls, falls[None]) == 1
    off = falls.clone()
    off[falls.argmin()] += 0.05
    assert agreeing(PATCHES, falls, off[None]) == 0
    moved = falls.view(PATCHES.counts).roll(5, 0).flatten()
    assert agreeing(PATCHES, falls, moved[None]) == 0
    assert agreeing(PATCHES, falls, torch.stack([falls, off])) == 0.5


def test_falls_of_the_log_odds_and_back() -> None:
    falls = torch.linspace(-0.05, 0.9, 20, dtype=torch.float64)
    for scale in (Scale(0.93, True), Scale(0.93, False)):
        assert torch.allclose(scale.outward(scale.inward(falls)), falls, atol=1e-6)


def test_settled_occlusion_is_the_exact_one_to_a_reader() -> None:
    engine, exact, asked_about = Engine(network()), 0, []
    for seed in range(6):
        quick = attribute(film(seed), engine, Occlusion(patch=8, settle=0.9), target=1)
        slow = attribute(film(seed), engine, Occlusion(patch=8), target=1)
        assert quick.complete
        assert quick.standard_error is not None
        assert quick.facts["prior"] == "Grad-CAM"
        asked_about.append(float(quick.facts["asked"]) / float(quick.facts["patches"]))
        exact += bool(np.abs(quick.heatmap - slow.heatmap).max() <= 0.02 * np.abs(slow.heatmap).max())
        again = attribute(film(seed), engine, Occlusion(patch=8, settle=0.9), target=1)
        assert np.array_equal(again.heatmap, quick.heatmap)
    assert exact >= 5
    assert np.mean(asked_about) < 0.7


def test_a_black_box_is_settled_too() -> None:
    box = network()
    black = Classifier(box.forward, name="box", classes=["a", "b"], fingerprint="box", exclusive=True)
    found = attribute(film(0), Engine(black), Occlusion(patch=8, settle=0.9), target=1)
    assert found.facts["prior"] == "none"
    still = Classifier(
        lambda x: x.new_zeros(len(x), 2), name="still", classes=["a", "b"], fingerprint="s", exclusive=True
    )
    assert not attribute(film(0), Engine(still), Occlusion(patch=8, settle=0.9), target=1).heatmap.any()


@pytest.mark.parametrize("how", [{"settle": 0.0}, {"settle": 1.0}, {"settle": 0.9, "box": (0, 9, 0, 9)}])
def test_what_cannot_be_settled_is_refused(how: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match="settled at a confidence"):
        Occlusion(**how)  # type: ignore[arg-type]


def test_the_mean_beneath_each_patch() -> None:
    patches = Patches((13, 9), (4, 3), (3, 2))
    maps = torch.rand((2, 13, 9), generator=torch.Generator().manual_seed(0))
    hidden = 1 - patches.masks(torch.arange(len(patches)))
    expected = torch.einsum("bhw,nhw->bn", maps, hidden) / hidden.flatten(1).sum(1)
    assert torch.allclose(patches.beneath(maps).flatten(1), expected, atol=1e-5)
