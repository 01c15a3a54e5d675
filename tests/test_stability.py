"""Infidelity and sensitivity against Captum and closed forms; stability where it is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.metrics import infidelity as captum_infidelity
from captum.metrics import sensitivity_max
from torch import Tensor, nn

from lucency import Scan
from lucency.checks.stability import max_sensitivity, stability
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.methods.gradient import Gradient
from lucency.methods.rise import Rise
from lucency.metrics.infidelity import infidelity, infidelity_of
from lucency.metrics.similarity import method_agreement, rank_correlation
from lucency.removal import Constant
from nets import Window, classifier_of


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2)).eval()


def test_a_linear_model_is_told_exactly_by_its_gradient() -> None:
    scan, classifier = Scan(torch.rand(1, 16, 16)), classifier_of(Window((4, 12), (4, 12)))
    engine = Engine(classifier)
    truth = np.zeros((16, 16), np.float32)
    truth[4:12, 4:12] = 1 / 64
    exact = infidelity(truth, scan, engine, target=0, watch="logit", kind="gradient", side=5, samples=50)
    assert exact.value == pytest.approx(0, abs=1e-10)
    assert exact.scaled == pytest.approx(0, abs=1e-6)
    # A factor is forgiven by the scaled number alone, and a map of nothing is worth nothing.
    tenfold = infidelity(10 * truth, scan, engine, target=0, watch="logit", kind="gradient", side=5, samples=50)
    assert tenfold.value > 1e-4
    assert tenfold.scaled == pytest.approx(0, abs=1e-6)
    nothing = infidelity(0 * truth, scan, engine, target=0, watch="logit", kind="gradient", side=5, samples=50)
    assert nothing.scaled == 1


def test_infidelity_is_captums() -> None:
    """The same perturbations go through theirs and through ours."""
    model, x = net(), torch.rand(1, 1, 12, 12)
    heatmap = torch.randn(1, 1, 12, 12)
    taken: list[Tensor] = []

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        mask = (torch.rand(len(inputs), 1, 12, 12) < 0.3).float()
        taken.append(mask * inputs)
        return taken[-1], inputs - taken[-1]

    with torch.no_grad():
        theirs = captum_infidelity(
            model, perturb, x, heatmap, target=1, n_perturb_samples=30, max_examples_per_batch=30, normalize=False
        )
        gone = torch.cat(taken)
        said = (gone * heatmap).flatten(1).sum(1)
        done = (model(x) - model(x - gone))[:, 1]
    ours = infidelity_of(said.double().numpy(), done.double().numpy())
    assert ours.value == pytest.approx(float(theirs), rel=1e-4)


def test_sensitivity_is_captums_in_kind() -> None:
    """Other draws of the same noise: the largest of many changes is nearly the same."""
    model, scan = net(), Scan(torch.rand(1, 12, 12))
    classifier = classifier_of(model)

    def gradient(inputs: tuple[Tensor]) -> Tensor:
        x = inputs[0].detach().requires_grad_(True)
        with torch.enable_grad():
            return torch.autograd.grad(model(x)[:, 1].sum(), x)[0]

    torch.manual_seed(1)
    # One at a time: their Frobenius norm runs over a whole batch of samples with recent PyTorch.
    theirs = float(
        sensitivity_max(
            gradient, scan.pixels[None], perturb_radius=0.2, n_perturb_samples=200, max_examples_per_batch=1
        )
    )
    ours = max_sensitivity(Gradient(), scan, Engine(classifier), target=1, watch="logit", radius=0.2, samples=200)
    assert ours.value == pytest.approx(theirs, rel=0.2)
    assert ours.value > 0.01
    assert ours.value == ours.changes.max()
    assert len(ours.changes) == 200


def test_a_deterministic_method_is_stable_over_seeds_and_a_sampling_one_less() -> None:
    scan, classifier = Scan(torch.rand(1, 16, 16)), classifier_of(Window((4, 12), (4, 12)))
    sure = stability(Gradient(), scan, Engine(classifier), target=0, watch="logit", repeats=2)
    assert sure.seed == 1
    assert sure.noise == 1
    few = stability(Rise(samples=20), scan, Engine(classifier), target=0, watch="logit", repeats=2)
    many = stability(Rise(samples=600), scan, Engine(classifier), target=0, watch="logit", repeats=2)
    assert few.seed < many.seed < 1


def test_agreement_between_methods() -> None:
    a = np.arange(12.0).reshape(3, 4)
    found = method_agreement({"a": a, "b": a**3, "c": -a})
    assert found == pytest.approx({("a", "b"): 1, ("a", "c"): -1, ("b", "c"): -1})
    assert rank_correlation(a, a * 0) == 0
    with pytest.raises(ParameterError, match="compared"):
        rank_correlation(a, a.T)


def test_bad_parameters_are_said() -> None:
    scan, classifier = Scan(torch.rand(1, 8, 8)), classifier_of(Window((2, 4), (2, 4)))
    engine = Engine(classifier)
    with pytest.raises(ParameterError, match="own grid"):
        infidelity(np.ones((3, 3)), scan, engine)
    with pytest.raises(ParameterError, match="at least 1"):
        infidelity(np.ones((8, 8)), scan, engine, removal=Constant(), side=0)
    with pytest.raises(ParameterError, match="above 0"):
        max_sensitivity(Gradient(), scan, engine, target=0, radius=0)
    with pytest.raises(ParameterError, match="above 0"):
        stability(Gradient(), scan, engine, target=0, sigma=0)
