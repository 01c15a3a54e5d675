"""The healthy-tissue in-painter: what it may touch, and that it takes fluid away."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lucency import Scan, explain, load_classifier
from lucency.errors import ParameterError
from lucency.methods.meaningful_perturbation import MeaningfulPerturbation
from lucency.phantom import Phantom, simulate
from lucency.removal import Blur, DatasetMean, Healthy, NoisyLinear, Removal, remove
from lucency.removal.network import Expected

SEED = 7_000_001


@cache
def phantom() -> Phantom:
    """A patient that no model was trained on."""
    return simulate(SEED, volume_ml=400, side="right", size=224)


def wet() -> Tensor:
    return torch.from_numpy(phantom().image)[None]


def dry() -> Tensor:
    return torch.from_numpy(phantom().twin)[None]


def over_the_fluid(margin: int = 4) -> Tensor:
    """``[1, 224, 224]``: 0 where the fluid is, and a little around."""
    gone = ((wet() - dry()).abs() > 0.02).float()
    return 1 - torch.nn.functional.max_pool2d(gone, 2 * margin + 1, 1, margin)


def filled(removal: Removal, pixels: Tensor, masks: Tensor) -> Tensor:
    return remove(pixels, masks, removal.bind(pixels, torch.Generator().manual_seed(0))(masks))


def test_takes_the_fluid_away() -> None:
    masks = over_the_fluid()
    hole = masks[0] < 0.5

    def off(removal: Removal) -> float:
        return float((filled(removal, wet(), masks)[0] - dry())[0][hole].abs().mean())

    assert off(Healthy()) < 0.08
    assert off(Healthy()) < off(Blur()) / 1.5
    assert off(Healthy()) < off(NoisyLinear()) / 1.5


def test_the_classifier_no_longer_sees_it() -> None:
    classifier = load_classifier("lucency:phantom")
    scans = torch.cat([wet()[None], filled(Healthy(), wet(), over_the_fluid()), dry()[None]])
    with_fluid, without, truth = classifier.probabilities(classifier(scans).detach())[:, 0].tolist()
    assert with_fluid > 0.9
    assert without < 0.5
    assert truth < 0.5


def test_nothing_else_changes() -> None:
    masks = over_the_fluid()
    scan = filled(Healthy(), wet(), masks)[0]
    assert torch.equal(scan[masks == 1], wet()[masks == 1])


def test_never_looks_beneath_the_mask() -> None:
    masks = torch.ones(1, 224, 224)
    masks[:, 90:130, 40:90] = 0
    other = wet()
    other[:, 90:130, 40:90] = 1.0
    torch.testing.assert_close(filled(Healthy(), other, masks), filled(Healthy(), wet(), masks), atol=1e-5, rtol=0)


def test_a_mask_gets_the_same_fill_alone_and_among_others() -> None:
    masks = torch.rand(18, 224, 224, generator=torch.Generator().manual_seed(1)).round()
    fill = Healthy().bind(wet(), torch.Generator())
    torch.testing.assert_close(fill(masks)[17], fill(masks[17:])[0], atol=1e-5, rtol=0)


def test_works_at_other_sizes_and_on_grey_in_three_channels() -> None:
    small = torch.nn.functional.interpolate(wet()[None], (150, 131), mode="area")[0].expand(3, -1, -1)
    masks = torch.ones(2, 150, 131)
    masks[0, 60:90, 20:60] = 0
    scans = filled(Healthy(), small, masks)
    assert scans.shape == (2, 3, 150, 131)
    assert torch.equal(scans[1], small)
    assert torch.equal(scans[0, 0], scans[0, 2])
    assert not torch.equal(scans[0], small)


@pytest.mark.parametrize("shape", [(1, 8, 20, 20), (3, 32, 32)], ids=str)
def test_refuses_what_is_no_film(shape: tuple[int, ...]) -> None:
    with pytest.raises(ParameterError, match="another removal"):
        Healthy().bind(torch.rand(shape), torch.Generator())


def test_a_learned_mask_can_use_it_after_scores_were_read() -> None:
    classifier = load_classifier("lucency:phantom")
    how = MeaningfulPerturbation(removal=Healthy(), iterations=2, jitter=1)
    found = explain(Scan(wet()), classifier, target="effusion", method=how)
    assert float(abs(found.heatmap).max()) > 0


def test_gradient_in_the_masks_is_that_of_the_picture() -> None:
    pixels = wet()
    fill = Healthy().bind(pixels, torch.Generator())
    masks = torch.full((1, 224, 224), 0.8)
    masks[:, 120:180, 30:100] = 0.3
    way = torch.zeros_like(masks)
    way[:, 110:160, 40:80] = 1
    weight = torch.rand(1, 1, 224, 224, generator=torch.Generator().manual_seed(2))

    def score(m: Tensor) -> Tensor:
        return (remove(pixels, m, fill(m)) * weight).sum()

    at = masks.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(at), at)
    step = 0.01
    slope = float(score(masks + step * way) - score(masks - step * way)) / (2 * step)
    assert float((gradient * way).sum()) == pytest.approx(slope, rel=0.05)


def test_the_linear_model_is_the_gaussian_posterior_mean() -> None:
    model = Expected(4, 0.1)
    made = torch.Generator().manual_seed(3)
    for name in ("mean", "basis"):
        buffer = model.get_buffer(name)
        buffer.copy_(torch.rand(buffer.shape, generator=made))
    model.get_buffer("variance").copy_(torch.tensor([2.0, 1.0, 0.5, 0.25]))
    mean, basis, variance = (model.get_buffer(n).double() for n in ("mean", "basis", "variance"))
    x = torch.rand(1, 1, 56, 56, generator=made)
    masks = (torch.rand(1, 1, 56, 56, generator=made) > 0.6).float()
    seen = masks.flatten() == 1
    # The textbook's formula, from the covariance of the pixels.
    prior = basis @ torch.diag(variance) @ basis.T
    inner = prior[seen][:, seen] + 0.1 * torch.eye(int(seen.sum()), dtype=torch.double)
    known = x.flatten().double()[seen] - mean[seen]
    truth = mean + prior[:, seen] @ torch.linalg.solve(inner, known)
    torch.testing.assert_close(model(x, masks).flatten().double(), truth, atol=2e-3, rtol=0)


def test_the_mean_of_the_healthy_films_is_a_chest() -> None:
    mean = DatasetMean().bind(wet(), torch.Generator())(torch.zeros(1, 224, 224))
    assert mean.shape == (1, 1, 224, 224)
    seen = torch.corrcoef(torch.stack([mean.flatten(), dry().flatten()]))[0, 1]
    assert float(seen) > 0.6


def test_weights_are_the_ones_that_were_measured() -> None:
    folder = files("lucency.removal") / "weights"
    about = json.loads((folder / "healthy.json").read_text())
    assert hashlib.sha256((folder / "healthy.safetensors").read_bytes()).hexdigest() == about["weights_sha256"]
    assert (Path(__file__).resolve().parents[1] / about["card"]).exists()
