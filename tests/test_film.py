"""A film that cannot be what the model reads is doubted; one that can is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lucency import Scan, load_classifier
from lucency.checks.film import doubts
from lucency.checks.out_of_distribution import OutOfDistribution
from lucency.classifier import Classifier
from lucency.errors import ModelError, ScanError
from lucency.lungs.upright import orientation, ranked, variants
from lucency.phantom import simulate
from nets import classifier_of
from test_out_of_distribution import Means, scans

WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "negative (air bright": lambda x: 1 - x,
    "upside down": lambda x: torch.rot90(x, 2, (1, 2)),
    "turned by 90 degrees clockwise": lambda x: torch.rot90(x, -1, (1, 2)),
    "turned by 90 degrees anticlockwise": lambda x: torch.rot90(x, 1, (1, 2)),
    "heart seems to lie on the patient's right": lambda x: x.flip(2),
    "upside down and mirrored": lambda x: x.flip(1),
    "bone dark) and to be upside down": lambda x: 1 - torch.rot90(x, 2, (1, 2)),
    "does not look like a frontal chest film": lambda x: torch.rand(
        x.shape, generator=torch.Generator().manual_seed(0)
    ),
}


@pytest.fixture(scope="module")
def film() -> Tensor:
    return torch.from_numpy(simulate(8_000_101, size=192, volume_ml=300, side="left", view="PA").image)[None]


@pytest.fixture(scope="module")
def model() -> Classifier:
    return load_classifier("lucency:phantom")


@pytest.mark.parametrize("words", WAYS)
def test_a_film_that_lies_wrong_is_doubted_in_one_sentence(words: str, film: Tensor, model: Classifier) -> None:
    said = doubts(Scan(WAYS[words](film).contiguous()), model)
    assert len(said) == 1
    assert words in said[0]
    assert said[0].endswith(".")
    assert said[0].count(". ") == 0


def test_good_films_are_not_doubted(film: Tensor, model: Classifier) -> None:
    assert doubts(Scan(film), model) == ()
    brighter = Scan(4000 * film.sqrt() + 100, (100.0, 4100.0))
    assert orientation(brighter).upright
    framed = torch.nn.functional.pad(film, (60, 60, 20, 20))
    assert orientation(Scan(framed)).upright
    assert orientation(Scan(film.expand(3, -1, -1))).upright
    for seed in range(8_000_110, 8_000_116):
        assert doubts(Scan.from_array(simulate(seed, size=160).image), model) == ()


def test_a_lateral_film_is_doubted_by_what_its_file_says(film: Tensor, model: Classifier) -> None:
    said = doubts(dataclasses.replace(Scan(film), view="LATERAL"), model)
    assert "lateral" in said[0]
    assert doubts(dataclasses.replace(Scan(film), view="PA"), model) == ()


def test_a_photograph_is_doubted(model: Classifier) -> None:
    data = pytest.importorskip("skimage.data")
    for picture in (data.coffee(), data.chelsea()):
        grey = torch.from_numpy(picture.astype(np.float32)).mean(2)[None] / 255
        assert "frontal chest film" in doubts(Scan(grey), model)[0]


def test_the_way_a_film_lies_is_named_as_it_was_made(film: Tensor) -> None:
    for negative in (False, True):
        for mirrored in (False, True):
            for turns in range(4):
                x = film.flip(2) if mirrored else film
                x = torch.rot90(1 - x if negative else x, turns, (1, 2))
                found = orientation(Scan(x.contiguous()))
                assert (found.negative, found.mirrored, found.turns) == (negative, mirrored, turns)
                assert found.chest
                assert found.upright is not (negative or mirrored or bool(turns))


def test_variants_undo_what_was_done() -> None:
    x = torch.rand(1, 1, 6, 6)
    undone = variants(torch.rot90(1 - x.flip(3), 3, (2, 3)))[0, 8 + 4 + 3]
    assert torch.allclose(undone, x[0], atol=1e-6)


def test_ranks_take_out_the_tone_and_keep_what_is_plain() -> None:
    x = torch.stack([torch.randperm(64).float().view(1, 8, 8) for _ in range(2)])
    assert torch.allclose(ranked(x), ranked(x**3 + 5))
    assert torch.allclose(ranked(x), 1 - ranked(-x), atol=1e-6)
    x[0, :, :4] = 0
    assert len(ranked(x)[0, 0, :4].unique()) == 1
    with pytest.raises(ScanError, match="slice"):
        orientation(Scan(torch.rand(1, 4, 8, 8)))


def test_of_a_model_without_clean_scans_nothing_is_said(film: Tensor) -> None:
    assert doubts(Scan(1 - film), classifier_of(Means())) == ()


def test_a_model_of_ones_own_gets_the_check_with_its_reference(tmp_path: Path) -> None:
    classifier = classifier_of(Means())
    known = OutOfDistribution.fit(classifier, scans(500))
    assert not known.chest
    known.save(tmp_path / "clean.safetensors")
    with pytest.raises(ModelError, match="no reference"):
        load_classifier(Means(), classes=["a", "b"], reference=tmp_path / "none.safetensors")
    loaded = load_classifier(Means(), classes=["a", "b"], reference=tmp_path / "clean.safetensors")
    assert loaded.reference == tmp_path / "clean.safetensors"
    assert load_classifier(Means(), classes=["a", "b"]).reference is None
    classifier.reference = loaded.reference
    assert doubts(scans(1, seed=7)[0], classifier) == ()
    # It reads no chest films, so nothing is said of how a scan lies; only that this one is far from all it knows.
    assert "has seen nothing like this scan" in doubts(Scan(torch.ones(1, 8, 8)), classifier)[0]
    stranger = classifier_of(Means())
    stranger.fingerprint, stranger.reference = "other weights", classifier.reference
    with pytest.raises(ModelError, match=r"clean\.safetensors was made for other weights"):
        doubts(scans(1)[0], stranger)
    (tmp_path / "bad.safetensors").write_bytes(b"not a reference")
    classifier.reference = tmp_path / "bad.safetensors"
    with pytest.raises(ModelError, match="no reference of clean scans"):
        doubts(scans(1)[0], classifier)


def test_a_reference_knows_whether_its_scans_are_chest_films(film: Tensor) -> None:
    class Small(Means):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(torch.nn.functional.adaptive_avg_pool2d(x, 8))

    generator = torch.Generator().manual_seed(0)
    films = [
        Scan((film[:, ::3, ::3] + 0.02 * torch.randn(1, 64, 64, generator=generator)).contiguous()) for _ in range(400)
    ]
    known = OutOfDistribution.fit(classifier_of(Small()), films)
    assert known.chest
    assert not OutOfDistribution.fit(classifier_of(Small()), [Scan(1 - one.pixels) for one in films]).chest
