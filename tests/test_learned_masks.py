"""Masks that are optimised: against a window whose right mask is known, and against loops written out."""

from __future__ import annotations

import dataclasses
import math
import threading

import pytest
import torch
from torch import Tensor, nn

from lucency import Scan, explain
from lucency.classifier import Classifier
from lucency.errors import ParameterError, QuestionError
from lucency.masks.smooth import SmoothMax, resized, shifted, total_variation, upsampled
from lucency.methods.base import Method, Step
from lucency.methods.extremal_perturbation import ExtremalPerturbation
from lucency.methods.igos_pp import IGOSpp
from lucency.methods.meaningful_perturbation import MeaningfulPerturbation
from lucency.methods.occlusion import Occlusion
from lucency.removal import Constant
from nets import Window, classifier_of

BOX = ((20, 32), (6, 18))
SMALL = {"removal": Constant(0.0), "cell": 4, "sigma": 2.0, "jitter": 1, "area": 5e-3}
AREA = {"removal": Constant(0.0), "iterations": 60, "cell": 4, "sigma": 6.0}
CASES: list[Method] = [
    MeaningfulPerturbation(iterations=60, **SMALL),
    MeaningfulPerturbation(iterations=60, game="preservation", **SMALL),
    ExtremalPerturbation(areas=(0.1,), **AREA),
    ExtremalPerturbation(areas=(0.1,), game="deletion", **AREA),
    IGOSpp(removal=Constant(0.0), iterations=15, path=4, cell=4, smooth=0.5),
]


def scan() -> Scan:
    return Scan(torch.full((1, 48, 40), 0.8))


def sharp(*box: tuple[int, int], gain: float = 10.0) -> Classifier:
    """A classifier whose probability is near 1 while the box is bright and near 0 when it is black."""

    class Sharp(Window):
        def forward(self, x: Tensor) -> Tensor:
            return gain * (super().forward(x) - torch.tensor([0.4, 0.4]))

    return classifier_of(Sharp(*box))


@pytest.mark.parametrize("how", CASES, ids=lambda m: f"{m.name}-{getattr(m, 'game', '')}")
def test_the_mask_lies_on_the_window_and_does_its_work(how: Method) -> None:
    ours = explain(scan(), sharp(*BOX), target=0, method=how)
    heat = torch.from_numpy(ours.heatmap)
    inside = torch.zeros(heat.shape, dtype=torch.bool)
    inside[tuple(slice(*b) for b in BOX)] = True
    assert heat.min() >= 0
    assert heat.max() <= 1 + 1e-6
    assert heat[inside].mean() > 0.5
    # Far from the window nothing is claimed.
    assert heat[:10].mean() < 0.1
    assert heat[:, 30:].mean() < 0.1
    assert heat[inside].mean() > 4 * heat[~inside].mean()


@pytest.mark.parametrize(
    "how", [MeaningfulPerturbation(iterations=2), ExtremalPerturbation(iterations=2), IGOSpp(iterations=1, path=2)]
)
def test_volumes_odd_sizes_and_clean_networks(how: Method) -> None:
    net = nn.Sequential(nn.Conv3d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(2, 2))
    ours = explain(Scan(torch.rand(1, 9, 13, 11)), classifier_of(net), target=1, method=how)
    assert ours.heatmap.shape == (9, 13, 11)
    assert all(p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks or m._backward_hooks for m in net.modules())


def test_a_black_box_is_refused() -> None:
    blind = Classifier(lambda x: x.flatten(1)[:, :2], name="blind", classes=["a", "b"], fingerprint="")
    for how in CASES:
        with pytest.raises(QuestionError, match="black box"):
            explain(scan(), blind, target=0, method=how)


def test_refinement_starts_from_the_other_map() -> None:
    rough = Occlusion(patch=8, stride=8, removal=Constant(0.0))
    settings = {"removal": Constant(0.0), "iterations": 1, "cell": 4, "sigma": 1.0, "jitter": 0, "rate": 1e-6}
    refined = explain(scan(), sharp(*BOX), target=0, method=MeaningfulPerturbation(start=rough, **settings))
    blank = explain(scan(), sharp(*BOX), target=0, method=MeaningfulPerturbation(start="blank", **settings))
    assert blank.heatmap.max() < 1e-3
    assert refined.heatmap.max() > 0.9
    assert refined.heatmap[26, 12] > 0.9
    assert refined.heatmap[2:8].max() < 0.05
    assert refined.provenance.cost.evaluations > 30


def test_a_start_from_a_method_can_be_stopped_too() -> None:
    rough = Occlusion(patch=4, stride=2, removal=Constant(0.0))
    seen: list[Step] = []
    stopped = threading.Event()

    def stop(step: Step) -> None:
        seen.append(step)
        if len(seen) == 3:
            stopped.set()

    how = MeaningfulPerturbation(start=rough, removal=Constant(0.0), iterations=2)
    whole = explain(scan(), sharp(*BOX), target=0, method=how)
    part = explain(scan(), sharp(*BOX), target=0, method=how, on_step=stop, cancel=stopped)
    assert part.provenance.cost.evaluations < whole.provenance.cost.evaluations / 2
    assert not part.complete
    assert whole.complete
    assert len(seen) == 3
    assert all(s.point == (0.0, s.score) for s in seen)
    assert 0 < seen[-1].done < 0.5
    assert how.anytime().start == rough.anytime() != rough


def test_the_loss_is_that_of_the_paper() -> None:
    """Equation 4 written out with loops, at a random mask."""
    how = MeaningfulPerturbation(area=0.3, smooth=0.7, exponent=3.0)
    mask = torch.rand(1, 5, 6, dtype=torch.float64)
    area = sum(1 - float(v) for v in mask.flatten())
    variation = 0.0
    for i in range(5):
        for j in range(6):
            if i:
                variation += abs(float(mask[0, i, j] - mask[0, i - 1, j])) ** 3
            if j:
                variation += abs(float(mask[0, i, j] - mask[0, i, j - 1])) ** 3
    assert math.isclose(float(how.regularisation(mask)), 0.3 * area + 0.7 * variation, rel_tol=1e-9)
    assert math.isclose(float(total_variation(mask, 3.0)), variation, rel_tol=1e-9)


def test_gradients_of_the_smooth_masks() -> None:
    up = SmoothMax((7, 9), 3, 3.0, torch.device("cpu"))
    up._kernel = up._kernel.double()
    parameters = torch.rand(2, *up.coarse, dtype=torch.float64) * 0.8 + 0.1
    assert torch.autograd.gradcheck(up, parameters.requires_grad_(True))
    coarse = torch.rand(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: upsampled(m, (8, 9), 1.5), coarse)


def test_smooth_max_is_a_maximum_under_the_kernel() -> None:
    """Against the definition, pixel by pixel: equation 4 of the paper with its temperature."""
    up = SmoothMax((10, 7), 4, 4.0, torch.device("cpu"))
    parameters = torch.rand(1, *up.coarse)
    got = up(parameters)[0]
    rows = [4 * (i - up.radius) + 1.5 for i in range(up.coarse[0])]
    columns = [4 * (j - up.radius) + 1.5 for j in range(up.coarse[1])]
    for u, v in [(0, 0), (9, 6), (5, 3)]:
        terms = []
        for i, y in enumerate(rows):
            for j, x in enumerate(columns):
                if abs(u // 4 - (i - up.radius)) <= up.radius and abs(v // 4 - (j - up.radius)) <= up.radius:
                    far = math.hypot(u - y, v - x) / 4.0
                    terms.append(math.exp(-2 * max(far - 0.5, 0) ** 2) * float(parameters[0, i, j]))
        weights = [math.exp(20 * t) for t in terms]
        expected = sum(w * t for w, t in zip(weights, terms, strict=True)) / sum(weights)
        assert math.isclose(float(got[u, v]), expected, abs_tol=1e-5)
    assert up(torch.ones(1, *up.coarse)).min() > 0.9
    assert up(torch.zeros(1, *up.coarse)).max() == 0


@pytest.mark.parametrize("area", [0.1, 0.3])
def test_the_area_asked_for_is_the_area_found(area: float) -> None:
    ours = explain(
        scan(),
        sharp(*BOX),
        target=0,
        method=ExtremalPerturbation(areas=(area,), **AREA),
    )
    assert abs(ours.heatmap.mean() - area) < 0.05


def test_what_a_classifier_says_of_an_empty_scan_does_not_decide_where_the_mask_goes() -> None:
    class Startled(Window):
        """As above, and taken aback by a dark scan, on which a corner matters far more than the box."""

        def forward(self, x: Tensor) -> Tensor:
            dark = (0.6 - x.mean((1, 2, 3))).clamp_min(0)
            corner = x[:, :, 36:, 28:].flatten(1).mean(1)
            odd = torch.stack([200 * dark * corner, torch.zeros_like(dark)], 1)
            return 10 * (super().forward(x) - 0.4) + odd

    how = ExtremalPerturbation(areas=(0.1,), game="deletion", **AREA)
    heat = torch.from_numpy(explain(scan(), classifier_of(Startled(*BOX)), target=0, method=how).heatmap)
    assert heat[tuple(slice(*b) for b in BOX)].mean() > 0.5
    assert heat[36:, 28:].mean() < 0.1


def test_a_classifier_that_reacts_to_nothing_gets_a_map_of_numbers() -> None:
    class Deaf(Window):
        def forward(self, x: Tensor) -> Tensor:
            return 0 * super().forward(x)

    for how in CASES:
        quick = dataclasses.replace(how, iterations=3)
        assert math.isfinite(explain(scan(), classifier_of(Deaf(*BOX)), target=0, method=quick).heatmap.sum())


def test_the_seed_decides_the_jitter() -> None:
    how = MeaningfulPerturbation(removal=Constant(0.0), iterations=4, cell=4, sigma=2.0, jitter=3)
    one, two, other = (explain(scan(), sharp(*BOX), target=0, method=how, seed=s).heatmap for s in (1, 1, 2))
    assert (one == two).all()
    assert (one != other).any()


def test_shifted_repeats_the_border() -> None:
    line = torch.arange(5.0)[None]
    assert shifted(line, [2]).tolist() == [[0, 0, 0, 1, 2]]
    assert shifted(line, [-1]).tolist() == [[1, 2, 3, 4, 4]]
    assert resized(torch.ones(1, 4, 6), (2, 3)).tolist() == [[[1, 1, 1], [1, 1, 1]]]


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (MeaningfulPerturbation, {"game": "chess"}),
        (MeaningfulPerturbation, {"start": "x"}),
        (ExtremalPerturbation, {"areas": (1.5,)}),
        (IGOSpp, {"path": 0}),
    ],
)
def test_bad_parameters_are_said(kind: type[Method], wrong: dict[str, object]) -> None:
    with pytest.raises(ParameterError):
        kind(**wrong)


@pytest.mark.parametrize("how", CASES[::2], ids=lambda m: m.name)
def test_a_removal_that_the_classifier_does_not_notice_is_said_aloud(how: Method) -> None:
    short = dataclasses.replace(how, iterations=1)
    assert "warning" not in explain(scan(), sharp(*BOX), target=0, method=short).facts
    deaf = dataclasses.replace(short, removal=Constant(0.8))
    facts = explain(scan(), sharp(*BOX), target=0, method=deaf).facts
    assert "choose another --removal" in str(facts["warning"])
    assert facts["score with all removed"] == pytest.approx(float(torch.sigmoid(torch.tensor(8.0))), abs=0.02)
