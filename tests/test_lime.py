"""LIME against the lime package, its error bars against repetition, and pieces in two and three dimensions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lime.lime_base import LimeBase
from lime.lime_image import LimeImageExplainer
from lime.wrappers.scikit_image import SegmentationAlgorithm
from sklearn.metrics import pairwise_distances
from torch import Tensor, nn

from lucency import Scan, explain
from lucency.classifier import Question
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.masks.designs import balanced_switches
from lucency.masks.superpixels import Cells, Drawn, Quickshift, Slic, Superpixels, painted
from lucency.methods.kernel_shap import KernelShap
from lucency.methods.lime import Lime, kernel, weighted_ridge
from lucency.methods.repeatable import expected_agreement
from lucency.removal import Constant, Removal, SegmentMean
from nets import Window, classifier_of


def smooth(*shape: int, seed: int = 0, channels: int = 1, detail: int = 4) -> Tensor:
    coarse = torch.rand(1, channels, *[detail] * len(shape), generator=torch.Generator().manual_seed(seed))
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    return nn.functional.interpolate(coarse, size=shape, mode=mode)[0]


def small_net(classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, classes))


def test_same_weights_as_the_package() -> None:
    """The package explains by itself; what it drew goes through our fit, and its picture through our pieces."""
    classifier = classifier_of(small_net(), 3)
    pixels = smooth(80, 80, channels=3, detail=12)
    asked: list[np.ndarray] = []

    def predict(images: np.ndarray) -> np.ndarray:
        asked.append(images)
        with torch.no_grad():
            out = classifier(torch.from_numpy(images).permute(0, 3, 1, 2).float())
        return classifier.probabilities(out).numpy()

    segment = SegmentationAlgorithm("quickshift", kernel_size=4, max_dist=200, ratio=0.2)
    theirs = LimeImageExplainer(random_state=1, feature_selection="none").explain_instance(
        pixels.permute(1, 2, 0).double().numpy(),
        predict,
        labels=(1,),
        top_labels=None,
        num_samples=60,
        segmentation_fn=segment,
    )
    labels = Quickshift().labels(pixels)
    assert np.array_equal(labels.numpy(), theirs.segments)
    pieces = int(labels.max()) + 1
    assert pieces > 8

    # A piece is on in the package's picture where its pixels are those of the scan.
    images = torch.from_numpy(np.concatenate(asked)).permute(0, 3, 1, 2)
    same = (images - pixels).abs().amax(1) < 1e-6
    on = torch.stack([same[:, labels == s].all(1) for s in range(pieces)], 1).long()
    engine = Engine(classifier)
    scan = Scan(pixels)
    probe = engine.open(scan, Question.ask(classifier, scan, 1), SegmentMean(Quickshift()))
    scores = probe.scores(on[:, labels].float())[:, 0]
    assert torch.allclose(scores, torch.from_numpy(predict(np.concatenate(asked)))[:, 1], atol=1e-6)
    fit = weighted_ridge(on, scores, kernel(on, 0.25), 1.0)
    want = dict(theirs.local_exp[1])
    assert torch.allclose(fit.weights, torch.tensor([want[s] for s in range(pieces)]).double(), atol=1e-6)
    assert fit.intercept == pytest.approx(theirs.intercept[1], abs=1e-6)
    assert fit.r2 == pytest.approx(theirs.score[1] if isinstance(theirs.score, dict) else theirs.score, abs=1e-6)


def test_the_whole_method_agrees_with_the_packages_fit_on_our_samples() -> None:
    classifier, scan = classifier_of(small_net(), 3), Scan(smooth(40, 40, channels=3))
    how = Lime(superpixels=Cells(4), samples=150, removal=Constant(0.0))
    ours = explain(scan, classifier, target=2, method=how, seed=5)
    on = torch.cat([torch.ones(1, 16).long(), balanced_switches(149, 16, torch.Generator().manual_seed(5))])
    labels = Cells(4).labels(scan.pixels)
    with torch.no_grad():
        out = classifier(scan.pixels * on[:, labels].float()[:, None])
    base = LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / 0.25**2)))
    distances = pairwise_distances(on.numpy(), on[:1].numpy(), metric="cosine").ravel()
    data = on.double().numpy()
    intercept, weights, r2, _ = base.explain_instance_with_data(
        data, classifier.probabilities(out).double().numpy(), distances, 2, 100, feature_selection="none"
    )
    want = painted(labels, torch.tensor([dict(weights)[s] for s in range(16)]))
    assert torch.allclose(torch.from_numpy(ours.heatmap), want, atol=1e-5)
    assert ours.facts["R²"] == pytest.approx(r2, abs=1e-4)
    assert ours.facts["intercept"] == pytest.approx(intercept, abs=1e-4)


class Pairs(nn.Module):
    """Nothing linear about it: opposite corners only count together."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = x[:, 0, :8, :8].mean((1, 2)), x[:, 0, 8:, 8:].mean((1, 2))
        return torch.stack([4 * (a - 0.5) * (b - 0.5), torch.zeros_like(a)], 1)


def test_error_bars_are_no_smaller_than_what_repetition_shows() -> None:
    """Four pieces in whole designs are the worst case: balance between the pairs helps most, and no bar knows of it."""
    classifier, scan = classifier_of(Pairs()), Scan(torch.ones(1, 16, 16))
    how = Lime(superpixels=Cells(2), samples=200, removal=Constant(0.0), width=1.0, alpha=1e-6)
    runs = [explain(scan, classifier, target=0, watch="logit", method=how, seed=seed) for seed in range(60)]
    spread = np.stack([r.heatmap for r in runs]).std(0, ddof=1)
    claimed = np.stack([r.standard_error for r in runs]).mean(0)  # type: ignore[misc]
    assert spread.min() > 0.005
    assert (claimed > 0.8 * spread).all()
    assert (claimed < 3 * spread).all()


def test_balanced_switches_are_coin_flips_one_by_one_and_balanced_together() -> None:
    switches = balanced_switches(4 * 32, 13, torch.Generator().manual_seed(0))
    assert switches.shape == (128, 13)
    signs = 2 * switches - 1
    for block in signs.split(32):
        assert torch.equal(block.T @ block, 32 * torch.eye(13).long())
        assert torch.equal(block[::2], -block[1::2])
    # Any single sample is any of the possible ones, equally often.
    first = torch.stack([balanced_switches(1, 3, torch.Generator().manual_seed(seed))[0] for seed in range(400)])
    counts = torch.bincount(first @ torch.tensor([1, 2, 4]), minlength=8)
    assert counts.min() > 25


@pytest.mark.parametrize("how", [Lime, KernelShap])
def test_sampling_stops_when_the_pieces_on_top_are_stable(how: type[Lime] | type[KernelShap]) -> None:
    torch.manual_seed(0)
    classifier, scan = classifier_of(small_net(), 3), Scan(smooth(40, 40, channels=3))
    given = {"superpixels": Cells(4), "removal": Constant(0.0), "samples": 2000}
    full = explain(scan, classifier, target=2, watch="logit", method=how(**given))
    few = explain(scan, classifier, target=2, watch="logit", method=how(**given, repeatability=0.9, top=3))
    assert few.complete
    assert few.provenance.cost.evaluations < 0.5 * full.provenance.cost.evaluations
    best = [{tuple(v) for v in np.argsort(-e.heatmap[::10, ::10].ravel())[:3, None]} for e in (few, full)]
    assert len(best[0] & best[1]) >= 2
    with pytest.raises(ParameterError, match="repeatability"):
        how(repeatability=1.5)


def test_agreement_is_what_two_runs_show() -> None:
    assert expected_agreement(torch.tensor([3.0, 2.0, 1.0]), torch.zeros(3), 2) == 1
    # Three values that only chance tells apart: two of three agree fully in a third of the cases, else to a third.
    assert expected_agreement(torch.zeros(3), torch.ones(3), 2) == pytest.approx(1 / 3 + 2 / 9, abs=0.06)


def test_a_poor_fit_is_said_aloud_and_a_good_one_is_not() -> None:
    scan = Scan(torch.ones(1, 16, 16))
    how = Lime(superpixels=Cells(2), samples=100, removal=Constant(0.0))
    poor = explain(scan, classifier_of(Pairs()), target=0, watch="logit", method=how).facts
    assert poor["R²"] < 0.5
    assert "poor fit" in str(poor["warning"])
    good = explain(scan, classifier_of(Window((0, 8), (0, 8))), target=0, watch="logit", method=how)
    assert good.facts["R²"] > 0.98
    assert "warning" not in good.facts
    # The window is one of the four pieces: it has all of the weight.
    assert good.peak[0] < 8
    assert good.peak[1] < 8
    assert np.abs(good.heatmap[8:]).max() < 0.02


def test_every_step_is_a_map_of_its_own_and_early_ones_do_not_change() -> None:
    classifier, scan = classifier_of(small_net(), 3), Scan(smooth(40, 40, channels=3))
    engine = Engine(classifier, batch_size=16, seed=3)
    question = Question.ask(classifier, scan, 1)
    steps = list(Lime(samples=40).steps(scan, question, engine))
    assert [s.evaluations for s in steps] == [3, 7, 15, 31, 41]
    assert steps[-1].done == 1
    early = next(Lime(samples=40).steps(scan, question, engine))
    assert torch.equal(early.heatmap(), steps[0].heatmap())
    assert not torch.equal(steps[0].heatmap(), steps[-1].heatmap())
    assert all(s.standard_error is None for s in steps)
    x, y = steps[0].point or (0, 0)
    assert y == steps[0].score
    assert x == round(x)
    # What the step shows is what was asked.
    with torch.no_grad():
        score = classifier.probabilities(classifier(steps[0].perturbed()[None]))[0, 1]
    assert float(score) == pytest.approx(steps[0].score, abs=1e-6)


@pytest.mark.parametrize("removal", [SegmentMean(), Constant(0.0)])
def test_volumes(removal: Removal) -> None:
    scan = Scan(smooth(8, 16, 16))
    how = Lime(superpixels=Slic(count=12), samples=60, removal=removal)
    window = classifier_of(Window((0, 4), (0, 8), (0, 8)))
    ours = explain(scan, window, target=0, watch="logit", method=how)
    assert ours.heatmap.shape == (8, 16, 16)
    assert ours.standard_error is not None


@pytest.mark.parametrize("superpixels", [Slic(20), Quickshift(kernel_size=2, max_dist=6), Cells(4)])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_labels_number_every_piece(superpixels: Superpixels, channels: int) -> None:
    labels = superpixels.labels(smooth(40, 37, channels=channels))
    assert labels.dtype == torch.int64
    assert labels.shape == (40, 37)
    assert torch.equal(labels.unique(), torch.arange(int(labels.max()) + 1))
    assert len(labels.unique()) > 3


def test_a_repeated_channel_changes_no_piece() -> None:
    grey = smooth(40, 40)
    assert torch.equal(Slic().labels(grey), Slic().labels(grey.expand(3, -1, -1)))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (lambda: Lime(samples=1), "2 samples"),
        (lambda: Slic(count=0), "at least 1"),
        (lambda: Cells(99).labels(torch.rand(1, 8, 8)), "does not fit"),
        (lambda: Quickshift().labels(torch.rand(1, 8, 8, 8)), "2-D scans only"),
        (lambda: Drawn(torch.zeros(3, 3)).labels(torch.rand(1, 8, 8)), "do not fit"),
    ],
)
def test_bad_parameters_are_said(how, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ParameterError, match=says):
        how()
