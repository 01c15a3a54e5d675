"""Occlusion against Captum and against cases whose answer is known in closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from captum.attr import Occlusion as CaptumOcclusion
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lucency import Scan, explain
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.masks import Patches
from lucency.methods.occlusion import Occlusion, spread_order
from lucency.removal import Constant
from nets import Window, classifier_of


@pytest.mark.parametrize(("size", "patch", "stride"), [((20, 23), 6, 4), ((16, 16), (5, 3), (2, 3)), ((9, 31), 4, 4)])
def test_agrees_with_captum(size: tuple[int, int], patch: int | tuple[int, int], stride: int | tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)).eval()
    pixels = torch.rand(1, *size)
    ours = explain(
        Scan(pixels),
        classifier_of(net, 3),
        target=1,
        watch="logit",
        method=Occlusion(patch=patch, stride=stride, removal=Constant(0.25)),
    )
    pair = lambda n: (n, n) if isinstance(n, int) else n  # noqa: E731
    theirs = CaptumOcclusion(net).attribute(
        pixels[None],
        target=1,
        sliding_window_shapes=(1, *pair(patch)),
        strides=(1, *pair(stride)),
        baselines=0.25,
    )
    assert torch.allclose(torch.from_numpy(ours.heatmap), theirs[0, 0], atol=1e-5)


@given(
    side=st.integers(7, 20),
    depth=st.integers(4, 7),
    volume=st.booleans(),
    patch=st.integers(1, 4),
    batch=st.integers(1, 9),
    data=st.data(),
)
@settings(max_examples=25, deadline=None)
def test_one_window_answers_only_there(
    side: int, depth: int, volume: bool, patch: int, batch: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, patch))
    shape = (depth, side, side + 1) if volume else (side, side + 3)
    box = [(n // 3, n // 3 + 2) for n in shape]
    ours = explain(
        Scan(torch.full((1, *shape), 0.75)),
        classifier_of(Window(*box)),
        target="c0",
        watch="logit",
        method=Occlusion(patch=patch, stride=stride, removal=Constant(0.0)),
    )
    assert ours.heatmap.shape == shape
    far = torch.ones(shape, dtype=torch.bool)
    far[tuple(slice(max(0, a - patch + 1), b + patch - 1) for a, b in box)] = False
    assert not torch.from_numpy(ours.heatmap)[far].any()
    if patch == 1:
        # One pixel hidden takes its share of the mean with it.
        share = 0.75 / 2 ** len(shape)
        assert torch.allclose(torch.from_numpy(ours.heatmap)[~far], torch.tensor(share), atol=1e-6)


def test_order_does_not_change_the_answer_and_spreads() -> None:
    scan = Scan(torch.rand(1, 12, 12, generator=torch.Generator().manual_seed(1)))
    how = Occlusion(patch=4, stride=2, removal=Constant(0.0))
    window = classifier_of(Window((3, 6), (3, 6)))
    one = explain(scan, window, target=0, method=how).heatmap
    two = explain(scan, window, target=0, method=how.anytime()).heatmap
    assert torch.allclose(torch.from_numpy(one), torch.from_numpy(two), atol=1e-6)
    order = spread_order(25).tolist()
    assert sorted(order) == list(range(25))
    assert {n // 7 for n in order[:4]} == {0, 1, 2, 3}


def test_the_strongest_feature_map_is_watched_too() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([1.0, 5.0]).view(2, 1, 1, 1))
        net[0].bias.zero_()
    ours = explain(Scan(torch.full((1, 8, 8), 0.5)), classifier_of(net), target=0, method=Occlusion(patch=2))
    (name,) = ours.also
    assert "map 1" in name
    # Hiding 4 of 64 pixels takes 4/64 of the mean activation 2.5.
    assert torch.allclose(torch.from_numpy(ours.also[name]), torch.tensor(2.5 * 4 / 64), atol=1e-5)
    assert not any(m._forward_hooks for m in net.modules())


def test_millimetres() -> None:
    scan = Scan(torch.rand(1, 20, 20), spacing=(2.0, 1.0))
    steps = list(_steps(Occlusion(patch="8mm", stride="8mm"), scan))
    assert steps[-1].facts["patches"] == 5 * 3


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (Occlusion(patch=0), "does not fit"),
        (Occlusion(patch=99), "does not fit"),
        (Occlusion(patch=4, stride=5), "gaps"),
        (Occlusion(patch="8mm"), "spacing"),
        (Occlusion(patch="8 parsec"), "15mm"),
        (Occlusion(patch=(4, 4, 4)), "2 numbers"),
    ],
)
def test_bad_parameters_are_said(how: Occlusion, says: str) -> None:
    with pytest.raises(ParameterError, match=says):
        list(_steps(how, Scan(torch.rand(1, 20, 20))))


def _steps(how: Occlusion, scan: Scan):  # type: ignore[no-untyped-def]
    from lucency.classifier import Question
    from lucency.engine import Engine

    window = classifier_of(Window((3, 6), (3, 6)))
    yield from how.steps(scan, Question.ask(window, scan, 0), Engine(window))


class Corner(nn.Module):
    """Looks at one corner closely, and at the mean of all a little."""

    def forward(self, x: Tensor) -> Tensor:
        near = (x[:, 0, :16, :16] * torch.linspace(1, 0, 16)[:, None] ** 3).mean((1, 2))
        return torch.stack([near + 0.01 * x.mean((1, 2, 3)), torch.zeros(len(x))], 1)


def test_a_tolerance_saves_the_patches_between_that_are_like_their_neighbours() -> None:
    classifier, scan = classifier_of(Corner()), Scan(torch.ones(1, 64, 72))
    how = Occlusion(patch=8, stride=4, features=False)
    exact = explain(scan, classifier, target=0, watch="logit", method=how)
    engine = Engine(classifier, tolerance=0.01, windows=False)
    for order in ("raster", "spread"):
        near = explain(scan, classifier, target=0, watch="logit", method=replace(how, order=order), engine=engine)
        assert near.complete
        # Of the map alone: the verdict costs the same whatever the map did.
        asked = [found.provenance.costs["map"].evaluations for found in (near, exact)]
        assert asked[0] < 0.5 * asked[1]
        assert near.facts["interpolation error"] <= 0.01
        worst = np.abs(near.heatmap - exact.heatmap).max()
        assert near.facts["interpolated patches"] > 0
        assert worst < 0.01
    # Where a check misses by more than the tolerance, every patch is asked about.
    striped, stripes = Scan(torch.arange(64.0).remainder(8).ge(4).float().expand(1, 64, 64)), classifier_of(Stripes())
    engine, how = Engine(stripes, tolerance=0.01, windows=False), replace(how, patch=4, stride=4)
    fine = explain(striped, stripes, target=0, watch="logit", method=how, engine=engine)
    # Half precision was tried on nine more.
    assert fine.provenance.costs["map"].evaluations == 257 + 9
    assert fine.facts["interpolation error"] > 0.01


class Stripes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([10 * x.mean((1, 2, 3)), torch.zeros(len(x))], 1)


@pytest.mark.parametrize("grid", [(20, 23), (9, 8, 11), (12,)])
def test_coarse_patches_surround_the_others(grid: tuple[int, ...]) -> None:
    patches = Patches(grid, (4,) * len(grid), (2,) * len(grid))
    every = torch.arange(len(patches))
    around = patches.around(every)
    assert bool(patches.coarse[around].all())
    # Both ends are as far away, and at most one place; a coarse patch is its own neighbour.
    away = patches.places[around] - patches.places[:, None]
    assert int(away.abs().max()) <= 1
    assert not bool(away.sum(1).any())
    assert bool((around[patches.coarse] == every[patches.coarse, None]).all())
