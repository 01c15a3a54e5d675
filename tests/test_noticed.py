"""Faults that were once put in on purpose and that no other test noticed; each of these fails with its fault."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lucency.attribution import attribute
from lucency.checks.out_of_distribution import KEPT, Doubter
from lucency.classifier import Question
from lucency.engine import Engine
from lucency.error_bars import with_error_bars
from lucency.masks import Cells, Patches
from lucency.methods import Lime, Occlusion, Rise, Step
from lucency.methods.kernel_shap import constrained_fit, random_pairs
from lucency.methods.lime import LocalFit, _facts
from lucency.methods.occlusion import CHECKS, _rounds
from lucency.methods.repeatable import expected_agreement
from lucency.scan import Scan
from nets import Window, classifier_of


class Brightest(nn.Module):
    """Follows the brightest pixel wherever it moves."""

    def forward(self, x: Tensor) -> Tensor:
        top = x.flatten(1).amax(1)
        return torch.stack([4 * top, torch.zeros_like(top)], 1)


def test_copies_are_moved_back_the_way_they_came() -> None:
    pixels = torch.zeros(1, 60, 60)
    pixels[0, 30, 28] = 1
    scan, engine, how = Scan(pixels), Engine(classifier_of(Brightest())), Occlusion(patch=5, stride=1, features=False)
    found = with_error_bars(attribute(scan, engine, how, target=0), scan, engine, method=how, copies=4)
    assert found.standard_error is not None
    # A map that moves with the scan is the same again once it is moved back.
    assert float(found.heatmap.max()) > 0.1
    assert float(found.standard_error.max()) < 1e-6
    assert found.provenance.error_bars.moved == ((0, 0),) * 4


def test_another_seed_is_another_seed() -> None:
    classifier, scan = classifier_of(Window((4, 10), (6, 12))), Scan(torch.rand(1, 24, 20))
    how = Rise(samples=16, cells=4)
    first = Engine(classifier, seed=1)
    again, fresh = (attribute(scan, e, how, target=0).heatmap for e in (first.seeded(5), Engine(classifier, seed=5)))
    assert np.array_equal(again, fresh)
    assert not np.array_equal(again, attribute(scan, first, how, target=0).heatmap)
    assert (first.seed, first.seeded(5).seed) == (1, 5)


class Known:
    """Calls a perturbed scan odd when its first pixel says so."""

    def p_values(self, x: Tensor) -> np.typing.NDArray[np.float64]:
        return np.where(x[:, 0, 0, 0].numpy() > 0.5, 0.001, 0.5)


def test_the_watch_looks_at_the_strongest_reactions_whichever_way_they_go() -> None:
    clean = 0.5
    for strong in (0.95, 0.05):
        doubter = Doubter(Known())  # type: ignore[arg-type]
        for i in range(4 * KEPT):
            odd = i % 4 == 0
            # The weak reactions go the other way, so that a watch of one end would see only them.
            score = strong if odd else clean + 0.01 * np.sign(clean - strong)
            pixels = torch.full((1, 3, 3), float(odd))
            doubter(Step(done=0.5, evaluations=i, score=float(score), heatmap=torch.Tensor, perturbed=pixels.clone))
        doubt = doubter.doubt(clean)
        assert (doubt.odd, doubt.share) == (KEPT, 1.0)


def test_the_patches_that_most_likely_miss_are_checked() -> None:
    patches = Patches((120, 120), (8, 8), (4, 4))
    coarse = patches.coarse
    (between,) = (~coarse).nonzero(as_tuple=True)
    single, known = torch.zeros(1, len(patches)), torch.zeros(len(patches), dtype=torch.bool)
    engine = Engine(classifier_of(Window((4, 10), (6, 12))), tolerance=0.1)
    for at in (17, 101, 144):
        rounds = _rounds(patches, single, known, engine, {})
        assert torch.equal(next(rounds), torch.arange(len(patches))[coarse])
        known[coarse] = True
        single.zero_()
        # One coarse patch differs from those around it by less than the tolerance: what lies next to it is at risk.
        single[0, patches.around(between)[at][0]] = 0.09
        asked = next(rounds)
        around = single[0, patches.around(between)]
        risky = between[around.amax(1) - around.amin(1) > 0.05]
        assert 0 < len(risky) <= CHECKS
        assert torch.isin(risky, asked).all()
        known.zero_()


def test_few_samples_do_not_make_shapley_values_look_surer_than_they_are() -> None:
    pieces, pairs = 8, 24
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(pieces, generator=generator, dtype=torch.float64)
    found, claimed = [], []
    for _ in range(400):
        half = random_pairs(pieces, pairs, generator)
        on = torch.stack([half, 1 - half], 1).flatten(0, 1)
        noise = 0.3 * torch.randn(len(on), generator=generator, dtype=torch.float64)
        scores = on.double() @ truth + noise
        values, errors = constrained_fit(on, scores, torch.ones(len(on)).double(), 0.0, float(truth.sum()), 1.0)
        found.append(values)
        claimed.append(errors)
    seen = torch.stack(found).std(0).mean()
    said = torch.stack(claimed).square().mean(0).sqrt().mean()
    # Without the correction the errors come out at 0.86 of what is seen.
    assert 0.93 < float(said / seen) < 1.12


def test_two_runs_agree_as_often_as_chance_has_it() -> None:
    torch.manual_seed(1)
    equal, even = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    # Two pieces that are alike: the same one comes first in half of the runs.
    half = expected_agreement(equal, even, 1)
    assert half == pytest.approx(0.5, abs=0.1)
    torch.manual_seed(2)
    assert expected_agreement(equal, even, 1) == half
    # A clear lead is found every time; all of them are always all of them.
    assert expected_agreement(torch.tensor([9.0, 0.0, 0.0]), 0.1 * torch.ones(3), 1) == 1
    assert expected_agreement(torch.zeros(3), torch.ones(3), 5) == 1
    # Of three alike two are taken: 1/3 of the pairs are the same (Jaccard 1), the others share one of three.
    three = expected_agreement(torch.zeros(3), torch.ones(3), 2)
    assert three == pytest.approx(1 / 3 + 2 / 3 / 3, abs=0.07)
    # Errors of float32 must not tie what differs behind its digits.
    near = expected_agreement(torch.tensor([1.0, 1.0 + 1e-9], dtype=torch.float64), torch.zeros(2), 1)
    assert near == 1


def test_a_fit_knows_its_error_from_two_and_a_half_samples_for_each_unknown() -> None:
    scan, classifier = Scan(torch.rand(1, 16, 16)), classifier_of(Window((4, 12), (4, 12)))
    engine, question = Engine(classifier, batch_size=4), Question(0, "c0", "logit")
    steps = list(Lime(superpixels=Cells(2), samples=30).steps(scan, question, engine))
    # Four superpixels and a constant: 13 samples.
    known = {step.evaluations - 1: step.standard_error is not None for step in steps}
    assert known == {n: n > 12.5 for n in (2, 6, 10, 14, 18, 22, 26, 30)}


def test_a_poor_fit_says_how_poor_it_is() -> None:
    weights = torch.zeros(7)
    for r2, share in ((0.3, "30%"), (-0.2, "0%")):
        facts = _facts(LocalFit(weights, weights, 0.0, r2))
        assert facts["superpixels"] == 7
        assert f"A poor fit: the linear model explains {share} of how" in str(facts["warning"])
    assert "warning" not in _facts(LocalFit(weights, weights, 0.0, 0.5))
