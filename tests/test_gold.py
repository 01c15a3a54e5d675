"""The gold standard against a net whose true effects are known on paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from lucency import Scan, explain
from lucency.classifier import Question
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.methods.occlusion import Occlusion
from lucency.metrics.gold import Twin, against_gold, agreement, effects, map_agreement, random_regions
from lucency.metrics.gold import _boxes as boxes_of
from lucency.removal import Constant
from nets import Window, classifier_of

BOX = (slice(4, 10), slice(6, 12))


def wet_and_dry() -> tuple[Scan, Scan]:
    """A patch of 1 on noise, and the same noise without the patch."""
    dry = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.5
    wet = dry.clone()
    wet[(0, *BOX)] = 1.0
    return Scan(wet), Scan(dry)


def test_the_true_effect_of_a_region_is_what_it_takes_from_the_sum() -> None:
    wet, dry = wet_and_dry()
    classifier = classifier_of(Window((0, 16), (0, 16)))
    engine = Engine(classifier)
    question = Question.ask(classifier, wet, 0, "logit")
    regions = random_regions(wet.pixels, 40, torch.Generator().manual_seed(1))
    found = effects(wet, question, engine, Twin(dry.pixels), regions)
    # The logit is the mean of all pixels, so a region counts by what it holds of the difference.
    expected = ((wet.pixels - dry.pixels)[0] * regions).flatten(1).mean(1).numpy()
    assert found.shape == (40, 1)
    assert np.allclose(found[:, 0], expected, atol=1e-6)
    assert (expected > 0).any()
    assert (expected == 0).any()
    both = effects(wet, question, engine, Twin(dry.pixels), regions, [Question.ask(classifier, wet, 1, "logit")])
    assert np.allclose(both[:, 0], expected, atol=1e-6)
    assert np.abs(both[:, 1]).max() == 0


def test_a_removal_agrees_as_far_as_it_knows_the_twin() -> None:
    wet, dry = wet_and_dry()
    classifier = classifier_of(Window((0, 16), (0, 16)))
    result = against_gold(
        {"twin": Twin(dry.pixels), "black": Constant(0.0)}, wet, classifier, twin=dry, target=0, watch="logit",
        regions=60,
    )  # fmt: skip
    found = result.agreements
    assert result.found["twin"] == pytest.approx(result.true)
    assert found["twin"].pearson == pytest.approx(1)
    assert found["twin"].slope == pytest.approx(1)
    assert found["twin"].error == 0
    # Black takes everything in a region away, the patch or not.
    assert found["black"].spearman < 0.8
    assert found["black"].slope > 1.2
    assert found["black"].regions == 60


def test_agreement_is_scipys_and_leaves_arithmetic_aside() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=50), rng.normal(size=50)
    ours = agreement(a, b)
    assert ours.pearson == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-3)
    assert ours.spearman == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-3)
    assert ours.error == pytest.approx(np.sqrt(np.mean((a - b) ** 2)), abs=1e-3)
    # Zeros with the dust of floats on them stay tied: only the three true effects have an order.
    true = np.array([0.0] * 20 + [1.0, 2.0, 3.0])
    dusty = true + rng.normal(scale=1e-6, size=23)
    assert agreement(true, dusty).spearman == pytest.approx(1, abs=1e-12)
    assert agreement(true, np.full(23, 0.7)).pearson == 0


def test_regions_are_boxes_and_unions_of_every_size() -> None:
    pixels = torch.rand(1, 40, 60, generator=torch.Generator().manual_seed(0))
    regions = random_regions(pixels, 80, torch.Generator().manual_seed(2))
    assert regions.shape == (80, 40, 60)
    share = regions.flatten(1).float().mean(1)
    assert float(share.min()) > 0
    assert float(share.max()) < 0.5
    around = boxes_of(regions)
    size = (around[:, :, 1] - around[:, :, 0]).prod(1) / (40 * 60)
    assert torch.allclose(share[::2], size[::2])
    assert not torch.allclose(share[1::2], size[1::2])
    again = random_regions(pixels, 80, torch.Generator().manual_seed(2))
    assert torch.equal(regions, again)
    volume = random_regions(torch.rand(1, 8, 10, 12), 6, torch.Generator().manual_seed(0))
    assert bool(volume.flatten(1).any(1).all())
    assert boxes_of(volume).shape == (6, 3, 2)


def test_the_gold_map_is_occlusion_with_the_twin() -> None:
    wet, dry = wet_and_dry()
    classifier = classifier_of(Window((0, 16), (0, 16)))
    gold = explain(wet, classifier, target=0, method=Occlusion(patch=2, removal=Twin(dry.pixels)), watch="logit")
    assert gold.heatmap[BOX].min() > 0
    outside = gold.heatmap.copy()
    outside[3:11, 5:13] = 0
    assert np.abs(outside).max() < 1e-6
    assert gold.provenance.method.parameters["removal"]["name"] == "twin"
    assert map_agreement(gold.heatmap, gold.heatmap) == pytest.approx((1, 1))
    assert map_agreement(gold.heatmap, -gold.heatmap)[0] == pytest.approx(-1)
    assert map_agreement(gold.heatmap, gold.heatmap * 0) == (0, 0)


def test_what_cannot_be_compared_is_said() -> None:
    wet, dry = wet_and_dry()
    classifier = classifier_of(Window((0, 16), (0, 16)))
    question = Question.ask(classifier, wet, 0, "logit")
    with pytest.raises(ParameterError, match="does not fit"):
        effects(wet, question, Engine(classifier), Twin(dry.pixels[:, :8]), torch.ones(1, 16, 16, dtype=torch.bool))
    with pytest.raises(ParameterError, match="No region has a true effect"):
        against_gold({"black": Constant()}, wet, classifier, twin=wet, target=0)
    with pytest.raises(ParameterError, match="compared"):
        map_agreement(np.ones((3, 3)), np.ones((3, 4)))
