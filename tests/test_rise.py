"""RISE against a reference written from the paper with scikit-image, and its error bars against repetition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lucency import Scan, explain
from lucency.classifier import Question
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.masks.grids import RandomGrids
from lucency.methods.rise import Rise
from nets import Window, classifier_of


def enlarged(coins: Tensor, shift: Tensor, grid: tuple[int, ...]) -> Tensor:
    """One mask, step by step as the paper says it: enlarge, then cut at the shift."""
    cell = [-(-n // c) for n, c in zip(grid, coins.shape, strict=True)]
    size = [(c + 1) * k for c, k in zip(coins.shape, cell, strict=True)]
    mode = "bilinear" if len(grid) == 2 else "trilinear"
    large = F.interpolate(coins[None, None], size=size, mode=mode, align_corners=False)[0, 0]
    return large[tuple(slice(int(s), int(s) + n) for s, n in zip(shift, grid, strict=True))]


@pytest.mark.parametrize(("grid", "cells"), [((24, 31), 8), ((16, 16), 5), ((9, 12, 10), 4)])
def test_masks_are_the_papers(grid: tuple[int, ...], cells: int) -> None:
    grids = RandomGrids(grid, cells)
    coins, shifts = grids.draw(20, torch.Generator().manual_seed(0))
    ours = grids.masks(coins, shifts)
    theirs = torch.stack([enlarged(c, s, grid) for c, s in zip(coins, shifts, strict=True)])
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert len({tuple(s) for s in shifts.tolist()}) > 3
    assert shifts.amax(0).tolist() == [-(-n // cells) - 1 for n in grid]


@pytest.mark.parametrize("p", [0.5, 0.2])
def test_agrees_with_the_equation(p: float) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    scan, classifier = Scan(torch.rand(1, 24, 20)), classifier_of(net, 3)
    ours = explain(scan, classifier, target=1, method=Rise(samples=50, cells=5, p=p, centre=False), seed=7)
    coins, shifts = RandomGrids((24, 20), 5, p).draw(50, torch.Generator().manual_seed(7))
    total = np.zeros((24, 20))
    weighted = []
    for coin, shift in zip(coins, shifts, strict=True):
        mask = enlarged(coin, shift, (24, 20))
        with torch.no_grad():
            score = net(scan.pixels[None] * mask).softmax(1)[0, 1]
        total += (score * mask).numpy() / (50 * p)
        weighted.append((score * mask).numpy() / p)
    assert np.allclose(ours.heatmap, total, atol=1e-5)
    error = np.stack(weighted).std(0, ddof=1) / np.sqrt(50)
    assert ours.standard_error is not None
    assert np.allclose(ours.standard_error, error, rtol=1e-3, atol=1e-7)


def spread_and_claim(how: Rise) -> tuple[np.ndarray, np.ndarray]:
    """What 60 runs show the standard error to be, and what they claim on average."""
    scan, classifier = Scan(torch.ones(1, 16, 16)), classifier_of(Window((2, 6), (8, 12)))
    runs = [explain(scan, classifier, target=0, watch="logit", method=how, seed=seed) for seed in range(60)]
    claimed = np.stack([r.standard_error for r in runs]).mean(0)  # type: ignore[misc]
    return np.stack([r.heatmap for r in runs]).std(0, ddof=1), claimed


@pytest.mark.parametrize("centre", [False, True])
def test_error_bars_are_what_repetition_shows(centre: bool) -> None:
    spread, claimed = spread_and_claim(Rise(samples=100, cells=4, centre=centre, p=0.49))
    assert spread.min() > 1e-3
    assert np.median(claimed / spread) == pytest.approx(1, abs=0.1)
    assert np.allclose(claimed, spread, rtol=0.4)


def test_balanced_masks_are_quieter_and_their_error_bars_never_too_short() -> None:
    alone, _ = spread_and_claim(Rise(samples=128, cells=4, p=0.49))
    balanced, claimed = spread_and_claim(Rise(samples=128, cells=4))
    assert np.median(balanced / alone) < 0.7
    assert np.median(claimed / balanced) > 1


def test_centring_moves_the_map_to_zero_and_quietens_it() -> None:
    scan, classifier = Scan(torch.ones(1, 24, 24)), classifier_of(Window((3, 9), (3, 9)))
    plain = explain(scan, classifier, target=0, watch="logit", method=Rise(samples=400, centre=False))
    centred = explain(scan, classifier, target=0, watch="logit", method=Rise(samples=400))
    far = (slice(16, None), slice(16, None))
    mean = float(plain.facts["mean score"])
    assert mean == pytest.approx(0.5, abs=0.05)
    assert abs(plain.heatmap[far].mean() - mean) < 0.05
    assert abs(centred.heatmap[far].mean()) < 0.02
    assert plain.standard_error is not None
    assert centred.standard_error is not None
    assert centred.standard_error[far].mean() < 0.7 * plain.standard_error[far].mean()
    for ours in (plain, centred):
        assert 3 <= ours.peak[0] < 9
        assert 3 <= ours.peak[1] < 9


def test_steps_keep_their_values_and_volumes_work() -> None:
    scan, classifier = Scan(torch.ones(1, 8, 12, 12)), classifier_of(Window((0, 4), (0, 6), (0, 6)))
    question = Question.ask(classifier, scan, 0, "logit")
    steps = list(Rise(samples=40, cells=4).steps(scan, question, Engine(classifier, batch_size=16)))
    early = next(Rise(samples=40, cells=4).steps(scan, question, Engine(classifier, batch_size=16)))
    assert [s.facts["masks"] for s in steps] == [2, 6, 14, 30, 40]
    assert torch.equal(steps[0].heatmap(), early.heatmap())
    assert steps[-1].heatmap().shape == (8, 12, 12)
    with torch.no_grad():
        score = classifier(steps[1].perturbed()[None])[0, 0]
    assert float(score) == pytest.approx(steps[1].score, abs=1e-6)


def test_sampling_stops_when_the_cells_on_top_are_known() -> None:
    classifier, scan = classifier_of(Window((4, 8), (12, 16))), Scan(torch.ones(1, 24, 24))
    question = Question.ask(classifier, scan, 0, "logit")

    def masks(**rule: float) -> int:
        how = Rise(samples=2000, cells=6, top=1, **rule)
        return list(how.steps(scan, question, Engine(classifier)))[-1].facts["masks"]

    assert 64 <= masks(repeatability=0.9) < masks(repeatability=0.999) < 2000
    assert masks() == 2000
    with pytest.raises(ParameterError, match="repeatability"):
        Rise(repeatability=1.5)


@pytest.mark.parametrize(
    ("how", "says"), [(lambda: Rise(cells=99), "does not fit"), (lambda: Rise(p=1.0), "between"), (Rise, "at least 2")]
)
def test_bad_parameters_are_said(how, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ParameterError, match=says):
        explain(
            Scan(torch.rand(1, 20, 20)),
            classifier_of(Window((3, 6), (3, 6))),
            method=how() if how is not Rise else Rise(samples=1),
        )
