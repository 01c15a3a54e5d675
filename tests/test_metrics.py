"""Evaluation by perturbation against Quantus and closed forms; localisation against cases counted by hand."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lucency import Scan, evaluate, explain
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.masks.superpixels import Cells
from lucency.methods.kernel_shap import KernelShap
from lucency.methods.occlusion import Occlusion
from lucency.metrics import best_threshold, completeness_gap, energy_in, iou, localise, top_on
from lucency.metrics.perturbation import ranks, sums
from lucency.metrics.procedures import Deletion, MoRF, tiles
from lucency.removal import Constant, Mean, Noise
from nets import Window, classifier_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import quantus


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3), nn.Tanh()
    ).eval()


def box(*sides: tuple[int, int], shape: tuple[int, ...] = (16, 16)) -> np.ndarray:
    out = np.zeros(shape, np.float32)
    out[tuple(slice(a, b) for a, b in sides)] = 1
    return out


@pytest.mark.parametrize(("kind", "order"), [("MoRF", "morf"), ("LeRF", "lerf")])
def test_region_perturbation_agrees_with_quantus(kind: str, order: str) -> None:
    model, scan = net(), Scan(torch.rand(1, 24, 24, generator=torch.Generator().manual_seed(0)))
    heatmap = torch.randn(24, 24, generator=torch.Generator().manual_seed(1)).numpy()
    metric = quantus.RegionPerturbation(
        patch_size=4,
        order=order,
        regions_evaluation=20,
        perturb_baseline=0.25,
        normalise=False,
        disable_warnings=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = metric(model, scan.pixels[None].numpy(), np.array([1]), heatmap[None, None], device="cpu")
    ours = evaluate(
        heatmap,
        scan,
        classifier_of(model, 3),
        target=1,
        curves=[kind],  # type: ignore[list-item]
        region=4,
        regions=20,
        removal=Constant(0.25),
    ).curves[0]
    falls = ours.clean - ours.mean[1:]
    assert np.abs(falls).max() > 1e-3
    assert np.allclose(falls, np.asarray(theirs).ravel(), atol=1e-5)


def test_pixel_flipping_agrees_with_quantus() -> None:
    model, scan = net(), Scan(torch.rand(1, 12, 12, generator=torch.Generator().manual_seed(0)))
    heatmap = torch.randn(12, 12, generator=torch.Generator().manual_seed(1)).numpy()
    metric = quantus.PixelFlipping(features_in_step=3, perturb_baseline=0.0, normalise=False, disable_warnings=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = metric(model, scan.pixels[None].numpy(), np.array([2]), heatmap[None, None], device="cpu")
    ours = evaluate(
        heatmap, scan, classifier_of(model, 3), target=2, curves=["deletion"], points=48, removal=Constant(0.0)
    ).curves[0]
    assert np.allclose(ours.mean[1:], np.asarray(theirs).ravel(), atol=1e-5)
    # Theirs leaves the untouched scan out of the area and does not divide by the number of steps.
    area = np.trapezoid(np.asarray(theirs).ravel())
    assert ours.auc.value * 48 == pytest.approx(area + (ours.mean[0] + ours.mean[1]) / 2, abs=1e-5)


def test_a_perfect_map_gives_the_aopc_it_must() -> None:
    scan, classifier = Scan(torch.ones(1, 16, 16)), classifier_of(Window((4, 12), (4, 12)))
    good = evaluate(
        box((4, 12), (4, 12)),
        scan,
        classifier,
        target=0,
        watch="logit",
        region=4,
        regions=8,
        removal=Constant(0.0),
        points=16,
        repeats=200,
    )
    # Four of the sixteen regions hold the whole score; each takes a quarter.
    morf, lerf, chance = (good.curve("map", k) for k in ("MoRF", "LeRF", "random"))  # type: ignore[arg-type]
    assert morf.aopc.value == pytest.approx((0 + 0.25 + 0.5 + 0.75 + 5) / 9, abs=1e-6)
    assert lerf.aopc.value == pytest.approx(0, abs=1e-6)
    # In random order the k-th region takes k / 16 in expectation; three half widths of the interval are allowed.
    half = (chance.aopc.high - chance.aopc.low) / 2
    assert half == pytest.approx(1.97 * 0.147 / 200**0.5, rel=0.1)
    assert abs(chance.aopc.value - 8 / (2 * 16)) < 1.5 * half
    assert chance.mean == pytest.approx(1 - np.arange(9) / 16, abs=0.06)
    # Deleted from the top, a quarter of the pixels ends it: a triangle of width 1/4.
    assert good.curve("map", "deletion").auc.value == pytest.approx(1 / 8, abs=1e-6)
    assert good.curve("map", "insertion").auc.value == pytest.approx(1 - 1 / 8, abs=1e-6)
    assert morf.aoc.value == pytest.approx(1 - morf.auc.value)
    assert np.allclose(morf.shares, np.arange(9) / 16)


def test_noise_is_repeated_and_its_interval_holds_the_truth() -> None:
    scan, classifier = Scan(torch.ones(1, 16, 16)), classifier_of(Window((4, 8), (4, 8)))
    ours = evaluate(
        box((4, 8), (4, 8)),
        scan,
        Engine(classifier, seed=2),
        target=0,
        watch="logit",
        curves=["MoRF"],
        region=4,
        regions=3,
        repeats=30,
    ).curves[0]
    assert ours.seeds == tuple(range(2, 32))
    assert ours.removal["name"] == "uniform"
    # Even noise in 0..1 has the mean 1/2; a region keeps its noise while others go.
    assert ours.aopc.low < (0 + 0.5 + 0.5 + 0.5) / 4 < ours.aopc.high
    assert ours.aopc.high > ours.aopc.low
    assert np.ptp(ours.scores[:, 1:], axis=1).max() < 1e-6
    again = evaluate(
        box((4, 8), (4, 8)),
        scan,
        Engine(classifier, seed=2),
        target=0,
        watch="logit",
        curves=["MoRF"],
        region=4,
        regions=3,
        repeats=30,
    ).curves[0]
    assert np.array_equal(again.scores, ours.scores)


def test_what_is_certain_is_asked_once_and_ties_are_not_certain() -> None:
    scan, classifier = Scan(torch.rand(1, 16, 16)), classifier_of(Window((4, 8), (4, 8)))
    unique = np.random.default_rng(0).random((16, 16)).astype(np.float32)
    once = evaluate(unique, scan, classifier, target=0, curves=["MoRF"], region=4, removal=Mean(), repeats=7)
    assert len(once.curves[0].seeds) == 1
    assert once.curves[0].aopc.low == once.curves[0].aopc.high
    for heatmap, removal in ((np.zeros((16, 16)), Mean()), (unique, Noise())):
        ours = evaluate(heatmap, scan, classifier, target=0, curves=["MoRF"], region=4, removal=removal, repeats=7)
        assert len(ours.curves[0].seeds) == 7
        assert ours.curves[0].scores.std(0).max() > 0


def test_a_procedure_with_its_own_parameters_is_the_named_one_with_them() -> None:
    scan, classifier = Scan(torch.rand(1, 20, 14)), classifier_of(net(), 3)
    heatmap = np.random.default_rng(0).random((20, 14))
    named = evaluate(heatmap, scan, classifier, target=0, curves=["morf", "DELETION"], region=4, points=9, repeats=2)
    given = evaluate(heatmap, scan, classifier, target=0, curves=[MoRF(region=4), Deletion(points=9)], repeats=2)
    assert [curve.as_dict() for curve in named.curves] == [curve.as_dict() for curve in given.curves]
    assert repr(MoRF(region=4)) == "MoRF(removal=Uniform(), region=4, regions=100)"
    with pytest.raises(ParameterError, match="region of the curve MoRF must be at least 1"):
        MoRF(region=0)
    with pytest.raises(ParameterError, match=r"no curve 'delete'.*did you mean deletion"):
        evaluate(heatmap, scan, classifier, target=0, curves=["delete"])


def test_several_maps_share_the_question_and_the_random_curve() -> None:
    scan, classifier = Scan(torch.rand(1, 20, 14)), classifier_of(net(), 3)
    one = explain(scan, classifier, target=2, watch="logit", method=Occlusion(patch=4))
    two = explain(scan, classifier, target=2, watch="logit", method=KernelShap(superpixels=Cells(2)))
    both = evaluate(
        {"occlusion": one, "kernel_shap": two},
        scan,
        classifier,
        region=5,
        points=10,
        repeats=2,
    )
    assert (both.question.target, both.question.name, both.question.watch) == (2, "c2", "logit")
    assert both.maps == ("occlusion", "kernel_shap")
    assert [c.kind for c in both.curves].count("random") == 1
    rows = both.table()
    assert [r["map"] for r in rows] == ["occlusion", "kernel_shap", "random"]
    assert rows[0]["deletion"].value == both.curve("occlusion", "deletion").auc.value
    assert both.curve("kernel_shap", "random").map == "random"
    other = explain(scan, classifier, target=1, watch="logit", method=Occlusion(patch=4))
    with pytest.raises(ParameterError, match="different classes"):
        evaluate({"a": one, "b": other}, scan, classifier)
    assert evaluate({"a": one, "b": other}, scan, classifier, target=0, curves=["MoRF"]).question.name == "c0"
    # 20 x 14 pixels in regions of 5: the last column is cut off, and the whole is reached all the same.
    assert both.curve("occlusion", "MoRF").shares[-1] == pytest.approx(1)
    record = json.loads(json.dumps(both.as_dict(), allow_nan=False))
    assert {"definition", "better", "removal", "repeats", "seeds", "mean", "low", "high"} <= set(record["curves"][0])
    # The clean scan goes through once for all of them.
    assert both.provenance.cost.evaluations == 1 + sum(c.evaluations for c in both.curves)


def test_volumes_and_other_grids() -> None:
    window = classifier_of(Window((0, 4), (0, 4), (0, 4)))
    window.input_size = (8, 8, 8)
    scan = Scan(torch.ones(1, 16, 8, 8))
    ours = evaluate(
        box((0, 8), (0, 4), (0, 4), shape=(16, 8, 8)),
        scan,
        window,
        target=0,
        watch="logit",
        curves=["MoRF", "insertion"],
        region=4,
        removal=Constant(0.0),
        points=8,
    )
    assert ours.curve("map", "MoRF").mean[:2] == pytest.approx([1, 0], abs=1e-6)
    assert ours.curve("map", "insertion").mean[1] == pytest.approx(1, abs=0.2)


@given(shape=st.lists(st.integers(1, 12), min_size=2, max_size=3), side=st.integers(1, 5), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_tiles_and_ranks(shape: list[int], side: int, seed: int) -> None:
    pieces = tiles(shape, side)
    count = int(np.prod([-(-n // side) for n in shape]))
    assert pieces.unique().tolist() == list(range(count))
    assert int(torch.bincount(pieces.flatten()).max()) <= side ** len(shape)
    heatmap = torch.randint(0, 3, tuple(shape), generator=torch.Generator().manual_seed(seed)).float()
    worth = sums(heatmap, pieces)
    assert float(worth.sum()) == pytest.approx(float(heatmap.sum()))
    place = ranks(worth, torch.Generator().manual_seed(seed))
    assert sorted(place.tolist()) == list(range(count))
    falling = worth[place.argsort()]
    assert bool((falling[1:] <= falling[:-1]).all())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"maps": np.zeros((3, 3))}, "own grid"),
        ({"maps": np.full((16, 16), np.nan)}, "NaN"),
        ({"maps": {}}, "no map"),
        ({"curves": ["x"]}, "use one of LeRF"),
        ({"curves": []}, "use some of LeRF"),
        ({"repeats": 0}, "at least 1"),
    ],
)
def test_bad_parameters_are_said(arguments: dict[str, object], says: str) -> None:
    given = {"maps": np.zeros((16, 16)), **arguments}
    maps: Any = given.pop("maps")
    with pytest.raises(ParameterError, match=says):
        evaluate(maps, Scan(torch.rand(1, 16, 16)), classifier_of(Window((4, 8), (4, 8))), **given)  # type: ignore[arg-type]


def test_an_engine_is_left_as_it_was() -> None:
    classifier = classifier_of(Window((4, 8), (4, 8)))
    engine = Engine(classifier, seed=11)
    ours = evaluate(np.eye(16), Scan(torch.rand(1, 16, 16)), engine, repeats=3, points=4)
    assert engine.seed == 11
    assert ours.curve("map", "MoRF").seeds == (11, 12, 13)


def test_localisation_counted_by_hand() -> None:
    truth = box((0, 4), (0, 4)) > 0
    heatmap = np.zeros((16, 16), np.float32)
    heatmap[0:2, 0:4] = 4
    heatmap[8:10, 0:4] = 2
    heatmap[15, 15] = -8
    ours = localise(heatmap, truth, threshold=0.4)
    assert ours.pointing_game
    assert ours.iou == pytest.approx(8 / (16 + 8))
    assert iou(heatmap, truth, 0.6) == pytest.approx(8 / 16)
    assert ours.energy == pytest.approx(8 * 4 / (8 * 4 + 8 * 2))
    # 13 pixels are 5 %: the 8 on truth, and 5 of the 8 ties elsewhere.
    assert ours.top == pytest.approx(8 / 13)
    assert ours.area == pytest.approx(16 / 256)
    assert 0.5 < best_threshold([heatmap], [truth]) <= 0.99
    assert not localise(-heatmap, truth).pointing_game
    assert energy_in(-np.abs(heatmap), truth) == 0
    json.dumps(ours.as_dict())


def test_a_flat_map_is_worth_its_area_and_a_perfect_one_everything() -> None:
    truth = box((2, 6), (3, 9)) > 0
    flat = np.ones((16, 16), np.float32)
    assert energy_in(flat, truth) == pytest.approx(truth.mean())
    assert top_on(flat, truth, 0.05) == pytest.approx(truth.mean())
    best = localise(truth.astype(np.float32), truth)
    assert (best.pointing_game, best.iou, best.energy, best.top) == (True, 1.0, 1.0, 1.0)


def test_localisation_says_what_is_wrong() -> None:
    with pytest.raises(ParameterError, match="empty"):
        localise(np.ones((4, 4)), np.zeros((4, 4)))
    with pytest.raises(ParameterError, match="shape"):
        localise(np.ones((4, 4)), np.ones((5, 4)))
    with pytest.raises(ParameterError, match="NaN"):
        localise(np.full((4, 4), np.nan), np.ones((4, 4)))
    with pytest.raises(ParameterError, match="no map"):
        best_threshold([], [])


def test_completeness() -> None:
    assert completeness_gap([1.0, 2.0], 5.0, 1.0) == (1.0, 0.25)
    assert completeness_gap([0.0], 1.0, 1.0) == (0.0, 0.0)
    assert completeness_gap([1.0], 1.0, 1.0)[1] == float("inf")


def test_road_removes_what_it_says_and_imputes_the_rest() -> None:
    scan, classifier = Scan(torch.ones(1, 16, 16)), classifier_of(Window((4, 8), (4, 8)))
    scan.pixels[:, 4:8, 4:8] = 3.0
    heatmap = box((4, 8), (4, 8)) + 1e-3 * np.random.default_rng(0).random((16, 16)).astype(np.float32)
    road = evaluate(heatmap, scan, classifier, target=0, watch="logit", curves=["ROAD"], repeats=1).curves[0]
    assert road.measure == "AOPC"
    assert np.allclose(road.shares, np.arange(10) / 10, atol=0.01)
    assert road.clean == pytest.approx(3.0)
    # 16 of 256 pixels are the spot, which goes first and whose neighbours are 1: with 10 % removed it is as they are.
    assert road.mean[1:] == pytest.approx(1.0, abs=0.05)
    assert road.aopc.value == pytest.approx(0.9 * 2, abs=0.05)
    late = evaluate(-heatmap, scan, classifier, target=0, watch="logit", curves=["ROAD"], repeats=1).curves[0]
    assert late.mean[:9] == pytest.approx(3.0, abs=0.05)
