"""Model randomisation: maps that follow the weights pass, maps that follow the scan do not, weights come back."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from lucency import Scan, load_classifier
from lucency.checks.sanity import check, known_result, layers_of, randomisation, randomised
from lucency.classifier import Classifier, Question
from lucency.engine import Engine
from lucency.errors import QuestionError
from lucency.methods.base import Method, Step
from lucency.methods.gradient import Gradient
from lucency.methods.occlusion import Occlusion
from nets import classifier_of
from styles import styled


class Weighted(nn.Module):
    """Each pixel has a weight of its own, and the head a sign."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Linear(256, 1, bias=False)
        self.head = nn.Linear(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.first(x.flatten(1)))
        return out


@dataclass(frozen=True)
class Edges(Method):
    """A map of the scan that never asks the model: what the check is there to find out."""

    name: ClassVar[str] = "edges"
    title: ClassVar[str] = "Edges"
    paper: ClassVar[str] = ""
    unit: ClassVar[str] = ""

    def steps(self, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        pixels = engine.classifier.prepare(scan)
        yield Step(1.0, 0.0, lambda: pixels[0].diff(dim=0, append=pixels[0, -1:]), lambda: pixels)


def scan() -> Scan:
    return Scan(torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0)))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def copied(classifier: Classifier) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in classifier.network().state_dict().items()}


def test_what_follows_the_weights_passes_and_an_edge_detector_does_not() -> None:
    classifier = classifier_of(Weighted())
    engine = Engine(classifier)
    for method in (Occlusion(patch=2, features=False), Gradient()):
        assert known_result(classifier, method, target=0, watch="logit") is None
        good = check(method, [scan()], engine, target=0, watch="logit")
        assert good is not None
        assert good.passes
        assert abs(good.correlation) < 0.3
        assert known_result(classifier, method, target=0, watch="logit") == good
    bad = check(Edges(), [scan()], engine, target=0, watch="logit")
    assert bad is not None
    assert not bad.passes
    assert bad.correlation == pytest.approx(1)
    # Other weights, other parameters, another question: another verdict.
    assert known_result(classifier, Edges(), target=1, watch="logit") is None
    assert known_result(classifier, Edges(), target=0) is None
    assert known_result(classifier, Occlusion(patch=4, features=False), target=0, watch="logit") is None
    classifier.fingerprint = "other"
    assert known_result(classifier, Edges(), target=0, watch="logit") is None


@dataclass(frozen=True)
class Fading(Edges):
    """The edges, and nothing at all where the model has lost its weights for the first time."""

    asked: ClassVar[int] = 0

    def steps(self, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        type(self).asked += 1
        gone = type(self).asked == 2
        for step in super().steps(scan, question, engine):
            yield replace(step, heatmap=partial(torch.mul, step.heatmap(), float(not gone)))


def test_a_map_without_relief_does_not_pass_for_another_map() -> None:
    Fading.asked = 0
    found = check(Fading(), [scan()], Engine(classifier_of(Weighted())), target=0, watch="logit", seeds=1)
    assert Fading.asked == 3
    assert found is not None
    assert not found.passes


def test_cascading_keeps_what_is_gone_and_independent_does_not() -> None:
    engine = Engine(classifier_of(Weighted()))
    cascade = randomisation(Gradient(), scan(), engine, target=0, watch="logit").layers
    alone = randomisation(Gradient(), scan(), engine, target=0, watch="logit", order="independent").layers
    assert [one.layer for one in cascade] == ["head", "first"] == [one.layer for one in alone]
    # Without its head the map is the same but for a factor; without its first layer it is another one.
    assert abs(cascade[0].signed) == pytest.approx(1)
    assert cascade[0].absolute == pytest.approx(1)
    assert abs(cascade[1].signed) < 0.3
    assert abs(alone[1].signed) < 0.3
    assert alone[1].signed != pytest.approx(cascade[1].signed)


@pytest.mark.parametrize("style", ["resnet", "densenet", "vgg"])
def test_weights_come_back_exactly_even_after_a_fault(style: str) -> None:
    classifier = classifier_of(styled(style), 3)
    before = copied(classifier)
    randomisation(Gradient(), scan(), Engine(classifier), target=0, layers=layers_of(classifier)[:3])
    now: dict[str, Tensor] = {}

    def fail() -> None:
        with randomised(classifier, layers_of(classifier), torch.Generator()):
            now.update(copied(classifier))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    after = copied(classifier)
    assert all(torch.equal(before[name], after[name]) for name in before)
    for name, p in classifier.network().named_parameters():
        # What is the same everywhere has learnt nothing (a fresh normalisation), and stays.
        assert torch.equal(before[name], now[name]) == bool((p == p.flatten()[0]).all() and p.numel() > 1), name
    assert all(torch.isfinite(value).all() for value in now.values())


def test_a_black_box_has_nothing_to_randomise() -> None:
    black = load_classifier(lambda x: x.reshape(len(x), -1)[:, :2], classes=["a", "b"])
    with pytest.raises(QuestionError, match="black box"):
        randomisation(Occlusion(), scan(), Engine(black), target=0)
    with pytest.raises(QuestionError, match="no layer 'middle'"):
        randomisation(Gradient(), scan(), Engine(classifier_of(Weighted())), target=0, layers=["middle"])


@dataclass(frozen=True)
class Asked(Edges):
    """Notes what it is asked with."""

    asked: ClassVar[list[tuple[str, int, int]]] = []

    def steps(self, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        self.asked.append((question.label, engine.seed, engine.batch_size))
        yield from super().steps(scan, question, engine)


def test_every_map_is_of_the_same_question_seed_and_batch() -> None:
    Asked.asked.clear()
    engine = Engine(classifier_of(Weighted()), seed=5, batch_size=3)
    check(Asked(), [scan()], engine, target=1, watch="logit")
    randomisation(Asked(), scan(), engine, target=1, watch="logit")
    assert Asked.asked == [("logit of c1", 5, 3)] * 6


def test_random_weights_have_the_mean_and_the_spread_of_the_learnt_ones() -> None:
    classifier = classifier_of(nn.Sequential(nn.Flatten(), nn.Linear(400, 300, bias=False), nn.Linear(300, 1)))
    first, head = (classifier.network().get_submodule(name) for name in ("1", "2"))
    with torch.no_grad():
        first.weight.normal_(3.0, 0.5)  # type: ignore[operator, union-attr]
        head.bias.fill_(-2.0)  # type: ignore[operator, union-attr]
    learnt = copied(classifier)
    drawn: list[dict[str, Tensor]] = []
    for seed in (7, 7, 8):
        with randomised(classifier, ["1", "2"], torch.Generator().manual_seed(seed)):
            drawn.append(copied(classifier))
    weight = drawn[0]["1.weight"]
    assert float(weight.mean()) == pytest.approx(3.0, abs=0.01)
    assert float(weight.std()) == pytest.approx(0.5, rel=0.01)
    assert float(torch.corrcoef(torch.stack([weight.flatten(), learnt["1.weight"].flatten()]))[0, 1].abs()) < 0.02
    # A single number spreads as far as it lies from 0.
    assert drawn[0]["2.bias"] != -2.0
    assert float(drawn[0]["2.bias"] + 2.0) == pytest.approx(2.0 * _third_draw(7, learnt), abs=1e-5)
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in learnt)
    assert not torch.equal(drawn[0]["1.weight"], drawn[2]["1.weight"])


def _third_draw(seed: int, weights: dict[str, Tensor]) -> float:
    """What a normal distribution gives for the bias, which comes after both weights."""
    generator = torch.Generator().manual_seed(seed)
    for name in ("1.weight", "2.weight"):
        torch.randn(weights[name].shape, generator=generator)
    return float(torch.randn((1,), generator=generator))


def test_what_has_nothing_to_randomise_is_refused() -> None:
    empty = classifier_of(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = classifier_of(torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(256, 2))))
    for classifier in (empty, scripted):
        with pytest.raises(QuestionError, match="test has no weights that can be randomised"):
            layers_of(classifier)
    outer = classifier_of(nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), nn.Flatten(), nn.Linear(392, 2)))
    assert layers_of(outer) == ["2", "0.0"]
