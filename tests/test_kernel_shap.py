"""Shapley values against the definition, against Captum, and their error bars against repetition."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from captum.attr import ShapleyValues
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lucency import Scan, explain
from lucency.classifier import Question
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.masks.superpixels import Cells, Drawn
from lucency.methods.kernel_shap import KernelShap, constrained_fit, every_pair, kernel, random_pairs
from lucency.removal import Constant
from nets import Window, classifier_of


def by_definition(game: dict[tuple[int, ...], float], pieces: int) -> np.ndarray:
    """The mean of what a piece adds over all orders in which pieces can come."""
    values = np.zeros(pieces)
    for i in range(pieces):
        rest = [j for j in range(pieces) if j != i]
        for size in range(pieces):
            share = math.factorial(size) * math.factorial(pieces - size - 1) / math.factorial(pieces)
            for others in combinations(rest, size):
                values[i] += share * (game[tuple(sorted((*others, i)))] - game[others])
    return values


class Interacting(nn.Module):
    """Columns of four pixels that help and hinder each other."""

    def __init__(self, pieces: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.linear = nn.Parameter(torch.randn(pieces, generator=generator))
        self.both = nn.Parameter(0.7 * torch.randn(pieces, pieces, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        z = x[:, 0, 0, ::4]
        out = z @ self.linear + torch.einsum("bi,bj,ij->b", z, z, self.both) + z.prod(1)
        return torch.stack([out, torch.zeros_like(out)], 1)


def columns(pieces: int) -> tuple[Scan, Drawn]:
    labels = (torch.arange(4 * pieces) // 4).expand(4, -1)
    return Scan(torch.ones(1, 4, 4 * pieces)), Drawn(labels)


def values_of(heatmap: np.ndarray) -> np.ndarray:
    return heatmap[0, ::4]


@pytest.mark.parametrize("pieces", [2, 3, 5, 8])
def test_few_pieces_give_the_definition(pieces: int) -> None:
    scan, drawn = columns(pieces)
    net = Interacting(pieces)
    classifier = classifier_of(net)
    ours = explain(
        scan,
        classifier,
        target=0,
        watch="logit",
        method=KernelShap(superpixels=drawn, removal=Constant(0.0), samples=254),
    )
    game = {}
    for size in range(pieces + 1):
        for on in combinations(range(pieces), size):
            x = torch.zeros(1, 1, 4, 4 * pieces)
            for i in on:
                x[..., 4 * i : 4 * i + 4] = 1
            with torch.no_grad():
                game[on] = float(net(x)[0, 0])
    assert np.allclose(values_of(ours.heatmap), by_definition(game, pieces), atol=1e-5)
    assert ours.facts["exact"] is True
    assert ours.standard_error is not None
    assert not ours.standard_error.any()


def test_agrees_with_captum() -> None:
    """Captum adds the pieces in every possible order: another road to the same values."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)).eval()
    pixels = torch.rand(1, 12, 15)
    drawn = Drawn((torch.arange(15) // 3).expand(12, -1))
    ours = explain(
        Scan(pixels),
        classifier_of(net, 3),
        target=2,
        watch="logit",
        method=KernelShap(superpixels=drawn, removal=Constant(0.3)),
    )
    theirs = ShapleyValues(net).attribute(
        pixels[None],
        target=2,
        baselines=0.3,
        feature_mask=drawn.regions[None, None].contiguous(),
        perturbations_per_eval=10,
    )
    assert torch.allclose(torch.from_numpy(ours.heatmap), theirs[0, 0], atol=1e-5)


@given(pieces=st.integers(3, 30), samples=st.integers(1, 40), batch=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_sum_is_exact_at_every_step(pieces: int, samples: int, batch: int, seed: int) -> None:
    scan, drawn = columns(pieces)
    classifier = classifier_of(Interacting(pieces))
    engine = Engine(classifier, batch_size=batch, seed=seed)
    question = Question.ask(classifier, scan, 0, "logit")
    how = KernelShap(superpixels=drawn, removal=Constant(0.0), samples=2 * samples)
    with torch.no_grad():
        full, none = (classifier(v * scan.pixels[None])[0, 0] for v in (1.0, 0.0))
    for step in how.steps(scan, question, engine):
        assert float(step.heatmap()[0, ::4].sum()) == pytest.approx(float(full - none), rel=1e-4, abs=1e-4)
        assert step.facts["completeness gap"] < 1e-8 * max(1, abs(float(full)))
    assert step.done == 1
    assert step.evaluations <= 2 * samples + 2


def test_error_bars_are_what_repetition_shows() -> None:
    pieces = 12
    scan, drawn = columns(pieces)
    classifier = classifier_of(Interacting(pieces))
    how = KernelShap(superpixels=drawn, removal=Constant(0.0), samples=200)
    runs = [explain(scan, classifier, target=0, watch="logit", method=how, seed=seed) for seed in range(50)]
    spread = np.stack([values_of(r.heatmap) for r in runs]).std(0, ddof=1)
    claimed = np.stack([values_of(r.standard_error) for r in runs]).mean(0)  # type: ignore[arg-type]
    assert spread.min() > 1e-3
    assert np.allclose(np.median(claimed / spread), 1, atol=0.2)
    exact = explain(
        scan,
        classifier,
        target=0,
        watch="logit",
        method=KernelShap(superpixels=drawn, removal=Constant(0.0), samples=2**12),
    )
    mean = np.stack([values_of(r.heatmap) for r in runs]).mean(0)
    assert np.abs(mean - values_of(exact.heatmap)).max() < 4 * spread.max() / math.sqrt(50)


def test_coalitions_follow_the_kernel() -> None:
    drawn = random_pairs(6, 40_000, torch.Generator().manual_seed(0))
    share = torch.bincount(drawn.sum(1), minlength=6)[1:].double() / len(drawn)
    on = torch.tensor([[1] * s + [0] * (6 - s) for s in range(1, 6)])
    want = kernel(on) * torch.tensor([math.comb(6, s) for s in range(1, 6)])
    assert torch.allclose(share, want / want.sum(), atol=0.01)
    assert torch.allclose(drawn.double().mean(0), torch.tensor(0.5).double(), atol=0.01)
    half = every_pair(6, torch.Generator().manual_seed(0))
    both = {tuple(z) for z in torch.cat([half, 1 - half]).tolist()}
    assert len(both) == 2**6 - 2


def test_a_linear_game_is_solved_from_few_pairs_without_error() -> None:
    on = random_pairs(10, 20, torch.Generator().manual_seed(1))
    on = torch.stack([on, 1 - on], 1).flatten(0, 1)
    worth = torch.arange(10).double()
    values, error = constrained_fit(on, 3 + on.double() @ worth, torch.ones(len(on)).double(), 3.0, 48.0, 1.0)
    assert torch.allclose(values, worth, atol=1e-9)
    assert float(error.max()) < 1e-9


def test_no_error_is_claimed_before_there_is_enough_to_know_it() -> None:
    scan, drawn = columns(12)
    classifier = classifier_of(Interacting(12))
    question = Question.ask(classifier, scan, 0, "logit")
    how = KernelShap(superpixels=drawn, removal=Constant(0.0), samples=100)
    steps = list(how.steps(scan, question, Engine(classifier, batch_size=10)))
    assert steps[5].standard_error is None
    assert steps[6].standard_error is not None


def test_volumes_and_the_right_piece() -> None:
    window = classifier_of(Window((0, 4), (0, 4), (4, 8)))
    ours = explain(
        Scan(torch.ones(1, 8, 8, 8)),
        window,
        target=0,
        watch="logit",
        method=KernelShap(superpixels=Cells(2), removal=Constant(0.0)),
    )
    want = np.zeros((8, 8, 8))
    want[:4, :4, 4:] = 1
    assert np.allclose(ours.heatmap, want, atol=1e-5)


def test_bad_parameters_are_said() -> None:
    with pytest.raises(ParameterError, match="even"):
        KernelShap(samples=3)
    with pytest.raises(ParameterError, match="smaller pieces"):
        explain(
            Scan(torch.rand(1, 8, 8)), classifier_of(Window((0, 2), (0, 2))), method=KernelShap(superpixels=Cells(1))
        )
