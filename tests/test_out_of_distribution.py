"""The out-of-distribution score against scikit-learn, closed forms, and its own promise about the error rate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from lucency import Scan, explain, load_classifier
from lucency.checks.out_of_distribution import WHERE, Doubter, OutOfDistribution, features, ledoit_wolf
from lucency.classifier.networks import SqueezeNet
from lucency.engine import Engine
from lucency.errors import ParameterError, QuestionError
from lucency.methods.occlusion import Occlusion
from lucency.phantom import simulate
from lucency.removal import Constant, Mean
from lucency.viewer.maps import every_map
from nets import classifier_of


class Means(nn.Module):
    """Features are the means of four quarters; the score is their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2, bias=False)
        nn.init.ones_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))
        return out


def scans(count: int, seed: int = 0) -> list[Scan]:
    generator = torch.Generator().manual_seed(seed)
    return [Scan(0.5 + 0.05 * torch.randn(1, 8, 8, generator=generator)) for _ in range(count)]


def test_the_covariance_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(40, 12)) @ rng.normal(size=(12, 12))
    ours, shrinkage = ledoit_wolf(samples)
    theirs = LedoitWolf().fit(samples)
    assert shrinkage == pytest.approx(theirs.shrinkage_)
    assert np.allclose(ours, theirs.covariance_)
    assert 0.01 < shrinkage < 0.99


def test_the_distances_are_scikit_learns() -> None:
    rng = np.random.default_rng(1)
    reference, held_out, new = rng.normal(size=(60, 5)), rng.normal(size=(220, 5)), rng.normal(size=(9, 5))
    known = OutOfDistribution(classifier_of(Means()), reference, held_out)
    found = known.distances(new)
    assert np.allclose(found[:, 0], LedoitWolf().fit(reference).mahalanobis(new))
    unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in (reference, new)]
    assert np.allclose(found[:, 1], NearestNeighbors(n_neighbors=5).fit(unit[0]).kneighbors(unit[1])[0][:, -1])


def test_one_clean_scan_in_a_hundred_at_most_is_called_odd() -> None:
    rng = np.random.default_rng(2)
    known = OutOfDistribution(classifier_of(Means()), rng.normal(size=(300, 6)), rng.normal(size=(999, 6)))
    p = known.p_values_of(rng.normal(size=(20000, 6)))
    assert 0.002 < (p < 0.01).mean() < 0.015
    assert 0.02 < (p < 0.05).mean() < 0.06
    # Far out along one axis, and in another direction altogether.
    assert (known.p_values_of(rng.normal(size=(50, 6)) + 8) < 0.01).all()


def test_features_are_what_enters_the_last_linear_layer() -> None:
    x = torch.rand(3, 1, 8, 8)
    classifier = classifier_of(Means())
    expected = torch.stack([x[:, 0, i : i + 4, j : j + 4].mean((1, 2)) for i in (0, 4) for j in (0, 4)], 1)
    assert torch.allclose(features(Engine(classifier), x), expected, atol=1e-6)
    assert not classifier.network().head._forward_pre_hooks  # type: ignore[union-attr]
    squeeze = load_classifier(SqueezeNet(3), channels=1, classes=["a", "b", "c"])
    assert features(Engine(squeeze), torch.rand(2, 1, 64, 64)).shape == (2, 512)
    full = classifier_of(
        nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Conv2d(5, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    )
    assert features(Engine(full), x).shape == (3, 5)
    with pytest.raises(QuestionError, match="black box"):
        features(Engine(load_classifier(lambda a: a.reshape(len(a), -1)[:, :2], classes=["a", "b"])), x)


def test_a_black_patch_is_doubted_and_a_mean_one_is_not() -> None:
    classifier = classifier_of(Means())
    known = OutOfDistribution.fit(classifier, scans(500))
    scan = scans(1, seed=9)[0]
    found = {}
    for name, removal in {"black": Constant(0.0), "mean": Mean()}.items():
        watcher = Doubter(known)
        one = explain(
            scan, classifier, target=0, watch="logit", on_step=watcher,
            method=Occlusion(patch=4, stride=4, removal=removal),
        )  # fmt: skip
        found[name] = watcher.doubt(one.provenance.question.score)
        noted = watcher.noted(one, scan)
        if name == "mean":
            assert WHERE not in noted.also
            continue
        # What the odd scans changed are whole patches; beside them nothing is said.
        where = noted.also[WHERE]
        assert where.shape == scan.shape
        patches = where.reshape(2, 4, 2, 4).transpose(0, 2, 1, 3).reshape(4, 16)
        assert (patches == patches[:, :1]).all()
        assert ((patches[:, 0] == 0) | (patches[:, 0] > 2)).all()
        assert where.any()
        (layer,) = [one for one in every_map(noted) if one.name == WHERE]
        assert (layer.kind, layer.signed) == ("ood", False)
    assert found["black"].share == 1
    assert "like nothing the model has seen" in str(found["black"].facts["warning"])
    assert found["mean"].share == 0
    assert "warning" not in found["mean"].facts


def test_what_perturbs_nothing_is_not_called_normal() -> None:
    classifier = load_classifier("lucency:phantom")
    known = OutOfDistribution.shipped(classifier)
    assert known is not None
    watcher = Doubter(known)
    wet = Scan(torch.from_numpy(simulate(9_900_001, size=224, volume_ml=300).image)[None])
    found = watcher.noted(explain(wet, classifier, target="effusion", method="gradcam", on_step=watcher), wet)
    assert "out-of-distribution evidence" not in found.facts


def test_it_is_kept_for_the_weights_it_was_made_for(tmp_path: Path) -> None:
    classifier = classifier_of(Means())
    known = OutOfDistribution.fit(classifier, scans(500))
    known.save(tmp_path / "clean.safetensors")
    again = OutOfDistribution.load(classifier, tmp_path / "clean.safetensors")
    assert again is not None
    x = torch.stack([s.pixels for s in scans(30, seed=5)])
    assert np.allclose(known.p_values(x), again.p_values(x), atol=0.1)
    classifier.fingerprint = "other weights"
    assert OutOfDistribution.load(classifier, tmp_path / "clean.safetensors") is None
    assert OutOfDistribution.shipped(classifier) is None


def test_too_few_scans_are_refused() -> None:
    with pytest.raises(ParameterError, match="too few"):
        OutOfDistribution.fit(classifier_of(Means()), scans(100))


@pytest.mark.parametrize("name", ["phantom", "effusion", "effusion-320"])
def test_the_shipped_models_know_clean_scans(name: str) -> None:
    classifier = load_classifier(f"lucency:{name}")
    known = OutOfDistribution.shipped(classifier)
    assert known is not None, "made for other weights; run training/clean_features.py again"
    assert (known.p_values(torch.rand(4, 1, *classifier.input_size)) < 0.01).all()


def test_a_frame_says_that_its_scan_is_odd() -> None:
    from lucency.render import Recorder
    from lucency.render.panels import Panels

    classifier = classifier_of(Means())
    known = OutOfDistribution.fit(classifier, scans(500))
    shown = {}
    for name, removal in {"black": Constant(0.0), "mean": Mean()}.items():
        recorder = Recorder(known=known)
        one = explain(
            scans(1, seed=9)[0], classifier, target=0, on_step=recorder, method=Occlusion(patch=4, removal=removal)
        )
        assert {frame.perturbed.settle().odd for frame in recorder.frames} == {name == "black"}
        shown[name] = np.asarray(list(Panels(one, recorder).images())[-1])
    # The caption is the only white in the middle panel of such a small and grey scan.
    white = {name: int((image[72:368, 330:630] > 230).all(2).sum()) for name, image in shown.items()}
    assert white["black"] > 50
    assert white["mean"] == 0
