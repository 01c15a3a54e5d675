"""Every metric on cases whose right number is known without it: a linear model and a one-square model.

Linear: f(x) = w . x, so the gradient is w, integrated gradients from black and gradient x input are w * x, and a
removal of what I holds takes w . I. One square: f(x) = mean of the pixels in a square, all ones, so the map of that
square is perfect and any share of it holds that share of the score.

| metric | closed form | where |
| --- | --- | --- |
| `evaluate`, MoRF and LeRF | one square, a quarter for each of its four regions: AOPC 2/3 and 0 | `test_metrics` |
| `evaluate`, random | the k-th region takes k/16 in expectation | `test_metrics` |
| `evaluate`, deletion and insertion | a triangle of width 1/4: AUC 1/8 and 7/8 | `test_metrics` |
| `evaluate`, ROAD | a bright square among ones is imputed as ones: AOPC 0.9 times the rest | `test_metrics` |
| `Estimate` | Student's interval of a known sample | here |
| `infidelity` | linear: 0 for the gradient, for integrated gradients and gradient x input | here |
| `infidelity` | all removed at once: (sum of the map - change)^2 | here |
| `infidelity`, `scaled` | a factor costs nothing, a map of nothing 1 | here, `test_stability` |
| `completeness` | linear: 0 for w * x; half of it leaves half of the change | here |
| `smallest_subset` | one square of 80 of 960 pixels: 80 times the fraction | `test_subset` |
| `localise`, `iou`, `energy_in`, `top_on` | by hand; a flat map gets the area, a perfect one 1 | `test_metrics` |
| `chexlocalize` | counted by hand | `test_chexlocalize` |
| `effects`, `against_gold` | linear: w . (wet - dry) in each region | `test_gold` |
| `agreement` | twice the effects: correlation 1, slope 2, error their root mean square | here |
| `artefacts` | a net that is afraid of 16 black pixels: half of the tiles | `test_artefact` |
| `rank_correlation`, `map_agreement` | 1 under any rising function, -1 under a falling one | `test_stability`, here |
| `max_sensitivity` | linear: 0 for the gradient; for w * x even noise of radius r: r / sqrt(3 mean x^2) | here |
| `stability` | linear: 1 for the gradient | `test_stability` |
| `randomisation`, `check` | a linear layer below a head: the head turns the sign, the layer the map | `test_sanity` |
| `interval` | no width where all agree; a coin: 1.96 standard errors | here |
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lucency import Scan, evaluate
from lucency.attribution import attribute
from lucency.checks.sanity import Randomisation, Randomised, SanityResult
from lucency.checks.stability import Sensitivity, Stability, max_sensitivity, stability
from lucency.engine import Engine
from lucency.errors import OutputError
from lucency.methods import GradientXInput, IntegratedGradients, Method, Occlusion
from lucency.methods.gradient import Gradient
from lucency.metrics import (
    Artefacts,
    Completeness,
    Evaluation,
    GoldStandard,
    Infidelity,
    Localisation,
    Result,
    Subset,
    against_gold,
    artefacts,
    completeness,
    infidelity,
    localise,
    smallest_subset,
)
from lucency.metrics.artefact import patches
from lucency.metrics.bootstrap import interval
from lucency.metrics.gold import Agreement, Twin, agreement, map_agreement
from lucency.metrics.perturbation import Estimate
from lucency.removal import Constant
from lucency.work import drained
from nets import Window, classifier_of


class Linear(nn.Module):
    """The logit of class 0 is w . x."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(3)))

    def forward(self, x: Tensor) -> Tensor:
        inside = (x * self.w).flatten(1).sum(1)
        return torch.stack([inside, torch.zeros_like(inside)], 1)


def linear(channels: int = 1, *, resized: bool = False) -> tuple[Scan, Linear, Engine]:
    net = Linear(channels, 12, 10)
    classifier = classifier_of(net)
    if resized:
        classifier.input_size = (12, 10)
    size = (24, 20) if resized else (12, 10)
    pixels = torch.rand((channels, *size), generator=torch.Generator().manual_seed(1))
    pixels[:, :3] = 0
    return Scan(pixels, value_range=(0.0, 1.0)), net, Engine(classifier)


ASKED: dict[str, Any] = {"target": 0, "watch": "logit"}


@pytest.mark.parametrize("how", [IntegratedGradients(), GradientXInput(), Gradient()], ids=lambda how: how.name)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_tells_a_linear_network_exactly_has_no_infidelity(how: Method, channels: int) -> None:
    """Integrated gradients had 2e-3: they are in units of the score, and were multiplied by brightness once more."""
    scan, _, engine = linear(channels)
    found = attribute(scan, engine, how, **ASKED)
    if how.per_brightness and channels > 1:
        # A gradient that was summed over channels cannot tell what each of them takes.
        return
    for side in (3, 100):
        ours = infidelity(found, scan, engine, side=side, samples=40)
        assert ours.kind == ("gradient" if how.name == "gradient" else "attribution")
        assert float((ours.done**2).mean()) > 1e-2
        assert ours.value == pytest.approx(0, abs=1e-9)
        assert ours.scaled == pytest.approx(0, abs=1e-8)
    # Taken for the other kind it is wrong.
    other = "attribution" if how.name == "gradient" else "gradient"
    assert infidelity(found, scan, engine, kind=other, side=3, samples=40).value > 1e-2  # type: ignore[arg-type]


def test_infidelity_of_a_wrong_map_is_the_square_of_what_it_misses() -> None:
    scan, net, engine = linear()
    truth = (net.w * scan.pixels).sum(0).detach().numpy()
    change = float(truth.sum())
    # A square as large as the grid takes everything away, whatever the draw.
    for factor, wrong in ((0.0, change), (3.0, 2 * change)):
        ours = infidelity(factor * truth, scan, engine, side=12, samples=5, **ASKED)
        assert ours.value == pytest.approx(wrong**2, rel=1e-4)
        assert ours.scaled == pytest.approx(1.0 if factor == 0 else 0.0, abs=1e-6)
    # Where another value stands in the removed place, the attribution is counted from it.
    grey = infidelity(
        ((scan.pixels - 0.5) * net.w)[0].detach().numpy(), scan, engine, removal=Constant(0.5), side=4, **ASKED
    )
    assert grey.value == pytest.approx(0, abs=1e-9)
    # A score that nothing moves has no scale.
    flat = Scan(torch.zeros(1, 12, 10))
    assert np.isnan(infidelity(truth, flat, engine, side=4, **ASKED).scaled)


def test_a_linear_attribution_adds_up() -> None:
    scan, net, engine = linear()
    truth = (net.w * scan.pixels).sum(0).detach().numpy()
    change = float(truth.sum())
    whole = completeness(attribute(scan, engine, IntegratedGradients(), **ASKED), scan, engine)
    assert whole.gap == pytest.approx(0, abs=1e-4)
    assert whole.change == pytest.approx(change, abs=1e-5)
    half = completeness(torch.from_numpy(truth / 2), scan, engine, **ASKED)
    assert (half.gap, half.share) == pytest.approx((abs(change) / 2, 0.5), rel=1e-4)
    assert half.total == pytest.approx(change / 2, rel=1e-5)
    grey = completeness(
        (net.w * (scan.pixels - 0.5)).sum(0).detach().numpy(), scan, engine, removal=Constant(0.5), **ASKED
    )
    assert grey.gap == pytest.approx(0, abs=1e-5)


def test_a_map_comes_back_to_the_grid_of_the_model_as_it_left() -> None:
    scan, _, engine = linear(resized=True)
    found = attribute(scan, engine, IntegratedGradients(), **ASKED)
    assert found.heatmap.shape == (24, 20)
    assert infidelity(found, scan, engine, side=3, samples=20).scaled < 0.1
    assert completeness(found, scan, engine).share < 0.1


def test_sensitivity_of_a_linear_network() -> None:
    scan, _, engine = linear()
    still = max_sensitivity(Gradient(), scan, engine, **ASKED, samples=3)
    assert still.value == pytest.approx(0, abs=1e-6)
    ones, flat = Scan(torch.full((1, 40, 40), 0.8), value_range=(0.0, 1.0)), classifier_of(Window((0, 40), (0, 40)))
    moved = max_sensitivity(GradientXInput(), ones, flat, **ASKED, radius=0.1, samples=20)
    # |n| / |x| with even noise in -r..r of variance r^2 / 3 on each of 1,600 pixels.
    assert moved.changes.mean() == pytest.approx(0.1 / 3**0.5 / 0.8, rel=0.01)
    assert moved.value == moved.changes.max()
    assert (moved.radius, len(moved.changes)) == (0.1, 20)
    # Noise is in display values, whatever the file's own are.
    hounsfield = Scan(ones.pixels * 1500 - 1000, value_range=(-1000.0, 500.0))
    again = max_sensitivity(GradientXInput(), hounsfield, flat, **ASKED, radius=0.1, samples=20)
    assert again.changes == pytest.approx(moved.changes, rel=1e-3)


def test_agreement_of_effects_that_are_twice_too_large() -> None:
    true = np.array([0.0, 0.1, 0.2, 0.5])
    ours = agreement(true, 2 * true)
    assert (ours.pearson, ours.spearman, ours.slope) == pytest.approx((1, 1, 2))
    assert ours.error == pytest.approx(np.sqrt((true**2).mean()))
    assert agreement(true, -true).slope == pytest.approx(-1)
    assert map_agreement(true, np.exp(true))[1] == pytest.approx(1)
    assert map_agreement(true, 3 - 2 * true) == pytest.approx((-1, -1))


def test_intervals_of_known_samples() -> None:
    assert interval([0.3] * 9) == pytest.approx((0.3, 0.3, 0.3))
    coin = [0.0, 1.0] * 200
    mean, low, high = interval(coin)
    assert mean == 0.5
    assert (high - low) / 2 == pytest.approx(1.96 * 0.5 / 20, rel=0.1)
    # A patient with all her scans is drawn as one: ten patients of ten like scans are ten scans.
    few = interval([float(i) for i in range(10) for _ in range(10)], [str(i) for i in range(10) for _ in range(10)])
    assert few == pytest.approx(interval([float(i) for i in range(10)]))
    # t of two degrees of freedom is 4.303; the standard error of 1, 2, 3 is 1 / sqrt(3).
    three = Estimate.of(np.array([1.0, 2.0, 3.0]))
    assert (three.value, three.high - three.value) == pytest.approx((2, 4.3027 / 3**0.5), rel=1e-4)
    assert Estimate.of(np.array([1.0])) == Estimate(1.0, 1.0, 1.0)


def results() -> dict[str, Result]:
    scan, net, engine = linear()
    truth = (net.w * scan.pixels).sum(0).detach().numpy()
    normal = Scan(torch.full((1, 16, 16), 0.4), value_range=(0.0, 1.0))
    square = Engine(classifier_of(Window((4, 8), (4, 8))))
    dry = Scan(scan.pixels * 0.5, value_range=(0.0, 1.0))
    return {
        "evaluation": evaluate(
            truth, scan, engine, **ASKED, curves=["MoRF", "deletion"], region=3, points=4, repeats=2
        ),
        "infidelity": infidelity(truth, scan, engine, **ASKED, side=3, samples=9),
        "completeness": completeness(truth, scan, engine, **ASKED),
        "subset": smallest_subset(truth, scan, engine, **ASKED, points=4),
        "no subset": smallest_subset(-np.eye(16), normal, square, **ASKED, points=2, fraction=1.0),
        "localisation": localise(truth, truth > 0.2),
        "gold": against_gold({"black": Constant()}, scan, engine, twin=dry, **ASKED, regions=6),
        "artefacts": artefacts(Constant(), [normal], square, pieces=patches(8), target=0, threshold=0.9),
        "sensitivity": max_sensitivity(GradientXInput(), scan, engine, **ASKED, samples=2),
        "stability": stability(Gradient(), scan, engine, **ASKED, repeats=2),
        "randomisation": Randomisation("cascading", (Randomised("head", 0.5, 0.25), Randomised("first", 0.1, 0.2))),
        "sanity": SanityResult(True, 0.1, 2),
    }


def test_every_result_says_itself_is_kept_and_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = results()
    kinds = {
        *(Evaluation, Infidelity, Completeness, Subset, Localisation, GoldStandard, Artefacts),
        *(Sensitivity, Stability, Randomisation, SanityResult),
    }
    assert {type(one) for one in found.values()} == kinds == set(Result.__subclasses__())
    for name, one in found.items():
        again = type(one).load(one.save(tmp_path / f"{name}.json"))
        assert again.as_dict() == one.as_dict()
        assert repr(again) == repr(one)
        assert repr(one).startswith(type(one).__name__)
        assert len(repr(one)) < 400
        for f in fields(one):  # type: ignore[arg-type]
            ours, theirs = getattr(one, f.name), getattr(again, f.name)
            assert type(ours) is type(theirs), f.name
            if isinstance(ours, np.ndarray):
                assert ours.dtype == theirs.dtype
                assert np.array_equal(ours, theirs)
        assert one.definition
        assert one.better in ("higher", "lower", "neither")
        one.plot().savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000


def test_a_file_of_another_result_is_refused(tmp_path: Path) -> None:
    path = SanityResult(True, 0.1, 2).save(tmp_path / "sanity.json")
    with pytest.raises(OutputError, match="holds no Infidelity that Lucency wrote"):
        Infidelity.load(path)
    for text in ("", "[]", '{"result": "SanityResult"}', '{"result": "SanityResult", "passes": 3}', "[" * 100_000):
        path.write_text(text)
        with pytest.raises(OutputError, match="holds no SanityResult"):
            SanityResult.load(path)
    with pytest.raises(OutputError, match="holds no SanityResult"):
        SanityResult.load(tmp_path / "nowhere.json")


def test_every_metric_tells_how_far_it_is_and_what_it_knows() -> None:
    scan, net, engine = linear()
    truth = (net.w * scan.pixels).sum(0).detach().numpy()
    twin = {"black": Constant(), "twin": Twin(scan.pixels * 0.5)}
    streams = {
        "evaluate": evaluate.steps(truth, scan, engine, **ASKED, curves=["MoRF", "deletion"], repeats=3, points=30),
        "infidelity": infidelity.steps(truth, scan, engine, **ASKED, side=3, samples=200),
        "completeness": completeness.steps(truth, scan, engine, **ASKED),
        "subset": smallest_subset.steps(truth, scan, engine, **ASKED),
        "gold": against_gold.steps(
            twin, scan, engine, twin=Scan(scan.pixels * 0.5, value_range=(0.0, 1.0)), **ASKED, regions=6
        ),
        "artefacts": artefacts.steps(Constant(), [scan] * 3, engine, pieces=patches(4), target=1, threshold=0.999),
        "sensitivity": max_sensitivity.steps(Occlusion(patch=3), scan, engine, **ASKED, samples=2),
        "stability": stability.steps(Occlusion(patch=3), scan, engine, **ASKED, repeats=2),
    }
    for name, steps in streams.items():
        seen: list[Any] = []
        last = drained(steps, on_step=seen.append)
        shares = [one.done for one in seen]
        assert shares == sorted(shares), name
        assert shares[-1] == 1, name
        assert len(seen) > 1 or name == "completeness"
        assert seen[-1].evaluations > 0
        assert all(one.doing for one in seen)
        if name in ("sensitivity", "stability"):
            maps = {"sensitivity": 3, "stability": 5}[name]
            assert list(dict.fromkeys(one.doing for one in seen))[:-1] == [
                f"map {i + 1} of {maps}" for i in range(maps)
            ]
            # A map that is done is not yet compared.
            assert all(one.done < int(one.doing.split()[1]) / maps for one in seen[:-1])
        # What was known half-way is of the same kind as what is known at the end.
        assert {type(one.known()) for one in seen} == {type(last)}, name
    first = next(evaluate.steps(truth, scan, engine, **ASKED, curves=["deletion"], points=90, repeats=2)).known()
    assert first.curves == ()
    assert first.clean == pytest.approx(float(truth.sum()), abs=1e-4)


def test_an_agreement_is_a_record() -> None:
    one = Agreement(0.5, 0.4, 0.1, 1.2, 9)
    assert Agreement.from_dict(one.as_dict()) == one
