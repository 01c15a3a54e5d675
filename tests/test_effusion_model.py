"""The shipped models for real films: what they take, what they give, and how their training treats the films."""

from __future__ import annotations

import csv
import os
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from lucency import Scan, load_classifier, read_scan

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "training"))
from films import FINDINGS, Films, part_of, read_boxes  # noqa: E402
from train_effusion import (  # noqa: E402
    MEAN,
    STD,
    augmented,
    film_weights,
    halves,
    loss_of,
    normalised,
    platt,
    pretrained,
    resized,
)

SHARED = Path(os.environ.get("LUCENCY_SHARED", ROOT.parent / "shared"))
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the real films are not beside the checkout")


MODELS = {"effusion": 224, "effusion-320": 320}
"""The pixels that each reads along a side."""
both = pytest.mark.parametrize(("name", "size"), MODELS.items())


@both
def test_it_is_small_and_knows_its_findings(name: str, size: int) -> None:
    classifier = load_classifier(f"lucency:{name}")
    assert classifier.classes == FINDINGS
    assert classifier.input_size == (size, size)
    assert (ROOT / str(classifier.card)).is_file()
    assert len((files("lucency.classifier") / "weights" / f"{name}.safetensors").read_bytes()) < 4_000_000
    with torch.inference_mode():
        assert classifier(torch.rand(2, 1, size, size)).shape == (2, len(FINDINGS))


@both
def test_the_library_prepares_scans_as_the_training_did(name: str, size: int) -> None:
    classifier = load_classifier(f"lucency:{name}")
    pixels = np.random.default_rng(0).integers(0, 256, (1, 512, 512), dtype=np.uint8)
    scan = Scan(torch.from_numpy(pixels).float(), value_range=(0, 255))
    network = classifier.network()
    with torch.inference_mode():
        assert torch.allclose(
            classifier(classifier.prepare(scan)[None]), network(normalised(resized(pixels, size))), rtol=1e-4, atol=1e-4
        )


def test_fluid_weighs_half_in_every_collection() -> None:
    rng = np.random.default_rng(1)
    where = np.repeat(["a", "b"], 200)
    labels = np.zeros((400, len(FINDINGS)), np.float32)
    fluid = rng.random(400) < np.where(where == "a", 0.2, 0.6)
    healthy = ~fluid & (rng.random(400) < 0.3)
    labels[:, 0], labels[:, -1] = fluid, healthy
    nobody = np.array([""] * 400)
    films = Films([], nobody, nobody, where, labels, np.zeros((400, 1, 1), np.uint8))
    weights = film_weights(films, np.arange(400)).numpy()
    for collection in "ab":
        here = where == collection
        assert weights[here & fluid].sum() == pytest.approx(weights[here].sum() / 2, rel=1e-4)
        assert weights[here].sum() / weights.sum() == pytest.approx((here & fluid).sum() / fluid.sum(), rel=1e-4)
        ill = here & ~fluid & ~healthy
        assert np.allclose(weights[here & healthy], weights[ill][0] / 3)


def test_a_mixture_of_a_film_with_itself_costs_what_the_film_costs() -> None:
    logits, weights = torch.randn(4, 15), torch.rand(4)
    labels = (torch.rand(4, 15) < 0.5).float()
    share = torch.rand(4)
    mixed = loss_of(logits, labels, weights, share) + loss_of(logits, labels, weights, 1 - share)
    assert torch.allclose(mixed, loss_of(logits, labels, weights))


def test_augmented_films_stay_films_and_do_not_alias() -> None:
    # Lines one pixel wide, black and white in turn, are grey at 224 pixels, however they are turned.
    lines = np.tile((np.arange(512) % 2 * 255).astype(np.uint8), (3, 512, 1))
    views = augmented(lines, torch.Generator().manual_seed(0))
    assert views.shape == (3, 1, 224, 224)
    assert views.min() >= 0
    assert views.max() <= 1
    assert all(view[0, 80:140, 80:140].std() < 0.15 for view in views)


@pytest.mark.parametrize("spread", [1.0, 20.0])
def test_scaling_finds_the_fit_even_from_wild_logits(spread: float) -> None:
    rng = torch.Generator().manual_seed(0)
    honest = torch.randn(4000, 15, generator=rng) - 2
    labels = (torch.rand(4000, 15, generator=rng) < honest.sigmoid()).float()
    scale, shift = platt(honest * spread - 3, labels, torch.ones_like(labels))
    # Logistic regression on 4,000 films of which a sixth are positive leaves about 0.05 (scale) and 0.1 (shift).
    assert torch.allclose(scale * spread, torch.ones(15), atol=0.2)
    assert torch.allclose(shift - 3 * scale, torch.zeros(15), atol=0.4)


def test_scaling_as_if_half_had_it_moves_one_half_to_equal_odds() -> None:
    rng = torch.Generator().manual_seed(0)
    honest = torch.randn(20_000, 1, generator=rng) - 2
    labels = (torch.rand(20_000, 1, generator=rng) < honest.sigmoid()).float()
    weights = torch.from_numpy(halves(labels.numpy()))
    assert float((weights * labels).sum() / weights.sum()) == pytest.approx(0.5, rel=1e-3)
    scale, shift = platt(honest, labels, weights)
    prevalence = float(labels.mean())
    assert float(scale) == pytest.approx(1, abs=0.1)
    assert float(shift) == pytest.approx(np.log((1 - prevalence) / prevalence), abs=0.2)


def test_scaling_never_turns_a_finding_upside_down() -> None:
    logits = torch.linspace(-2, 2, 60)[:, None]
    scale, _ = platt(logits, (logits < -1.5).float(), torch.ones_like(logits))
    assert float(scale) > 0


@needs_shared
def test_the_grey_first_layer_is_the_published_one_on_a_grey_film() -> None:
    old = load_file(SHARED / "weights" / "squeezenet1_0-imagenet-fp16.safetensors")
    grey = torch.rand(1, 1, 40, 40)
    colour = 255 * grey.expand(-1, 3, -1, -1) - torch.tensor([104.0, 117.0, 123.0]).view(1, 3, 1, 1)
    expected = F.conv2d(colour, old["conv1.weight"].float(), old["conv1.bias"].float(), stride=2)
    assert torch.allclose(pretrained().features[0]((grey - MEAN) / STD), expected, rtol=1e-3, atol=0.05)


@needs_shared
@both
def test_boxed_effusions_score_above_normal_films_of_unseen_patients(name: str, size: int) -> None:
    with (SHARED / "xrays" / "nih_labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    boxed = read_boxes()
    parts = part_of([row["patient"] for row in rows], {row["patient"] for row in rows if row["image"] in boxed})
    fluid = [row["image"] for row in rows if row["image"] in boxed]
    normal = [
        row["image"]
        for row, part in zip(rows, parts, strict=True)
        if part == "test" and row["findings"] == "No Finding"
    ]
    classifier = load_classifier(f"lucency:{name}")
    medians = []
    for images in (fluid[:12], normal[:12]):
        scans = torch.stack([classifier.prepare(read_scan(SHARED / "xrays" / "nih" / image)) for image in images])
        with torch.inference_mode():
            medians.append(classifier(scans)[:, 0].median())
    assert medians[0] > medians[1]
