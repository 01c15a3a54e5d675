"""What every method must do, whatever it is: a new file in methods/ is tested here by being there.

The checks are those of :mod:`lucency.testing`, which outsiders' methods pass too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, ClassVar

import pytest
import torch

from explaining import explainer_of
from lucency.classifier import Question
from lucency.engine import Engine
from lucency.masks import Cells
from lucency.methods import METHODS, Method, Occlusion, Step
from lucency.scan import Scan
from lucency.testing import check_method
from lucency.testing.methods import (
    ENDINGS,
    SIZES,
    Walk,
    check_black_box,
    check_budget,
    check_clean,
    check_map,
    check_memory,
    check_seed,
    check_steps,
    combinations,
    walk,
)

CHEAP: dict[str, dict[str, Any]] = {
    "blur_integrated_gradients": {"alphas": 9},
    "expected_gradients": {"samples": 6},
    "extremal_perturbation": {"iterations": 3, "areas": (0.2, 0.4), "sigma": 3.0},
    "igos_pp": {"iterations": 2, "path": 3, "cell": 3},
    "integrated_gradients": {"alphas": 9},
    "lime": {"samples": 24, "superpixels": Cells(3)},
    "meaningful_perturbation": {"iterations": 4, "cell": 3, "sigma": 2.0, "jitter": 1},
    "guided_occlusion": {"patch": 4, "stride": 3},
    "occlusion": {"patch": 4, "stride": 3},
    "rise": {"samples": 24, "cells": 3},
    "kernel_shap": {"samples": 24, "superpixels": Cells(3)},
    "smoothgrad": {"samples": 6},
}
"""Parameters that make a method quick; one that is not listed runs with its own defaults."""

# A mask that a few iterations have hardly moved on so small a grid may still be flat.
# Where nothing speaks for the class, a mask hides nothing and a product is 0.
MAY_BE_FLAT = ("guided_occlusion", "igos_pp", "meaningful_perturbation")


def cheap(name: str, kind: str = "softmax", axes: int = 2) -> Method:
    if name == "instant":
        return METHODS[name](explainer=explainer_of(kind, axes))
    return METHODS[name](**CHEAP.get(name, {}))


@cache
def walked(name: str, kind: str, axes: int) -> Walk:
    return walk(cheap(name, kind, axes), kind, axes)


every = pytest.mark.parametrize(
    ("name", "kind", "axes"),
    [
        pytest.param(name, kind, axes, id=f"{name}-{kind}-{axes}D")
        for name, method in METHODS.items()
        for kind, axes in combinations(method)
    ],
)
each = pytest.mark.parametrize("name", list(METHODS))
untrained = pytest.mark.parametrize("name", [name for name in METHODS if name != "instant"])
"""Those that explain a network that nobody has trained an explainer for."""


@every
def test_the_map_lies_on_the_scan(name: str, kind: str, axes: int) -> None:
    check_map(walked(name, kind, axes), axes, may_be_flat=name in MAY_BE_FLAT)


@every
def test_steps_go_forward_to_the_end(name: str, kind: str, axes: int) -> None:
    check_steps(walked(name, kind, axes), cheap(name, kind, axes))


@every
def test_a_step_shows_later_what_it_showed_at_once(name: str, kind: str, axes: int) -> None:
    check_memory(walked(name, kind, axes))


@pytest.mark.parametrize("axes", list(SIZES))
@each
def test_the_same_seed_gives_the_same_map(name: str, axes: int) -> None:
    check_seed(cheap(name, "softmax", axes), axes, walked(name, "softmax", axes))


@each
def test_a_budget_ends_in_a_map(name: str) -> None:
    check_budget(cheap(name))


@each
def test_a_black_box_is_explained_or_refused_in_one_sentence(name: str) -> None:
    check_black_box(cheap(name))


@pytest.mark.parametrize("ending", ENDINGS)
@each
def test_nothing_stays_in_the_network(name: str, ending: str) -> None:
    check_clean(cheap(name), ending)


@dataclass(frozen=True)
class Honest(Method):
    """An outsider's method, which the faulty ones below are made from: occlusion under another name."""

    name: ClassVar[str] = "honest"
    title: ClassVar[str] = "Honest"
    paper: ClassVar[str] = "none"
    unit: ClassVar[str] = "fall"

    def steps(self, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        for step in Occlusion(patch=9, stride=9, features=False).steps(scan, question, engine):
            yield self.changed(step, engine)

    def changed(self, step: Step, engine: Engine) -> Step:
        return step


class Backwards(Honest):
    def changed(self, step: Step, engine: Engine) -> Step:
        return replace(step, done=1 - step.done)


class NotFinite(Honest):
    def changed(self, step: Step, engine: Engine) -> Step:
        return replace(step, heatmap=lambda: step.heatmap() * torch.nan)


class Forgetful(Honest):
    def changed(self, step: Step, engine: Engine) -> Step:
        return replace(step, heatmap=lambda: step.heatmap() + torch.rand(()))


class WrongGrid(Honest):
    def changed(self, step: Step, engine: Engine) -> Step:
        return replace(step, also={"other": lambda: torch.zeros(2, *[3] * step.heatmap().ndim)})


class LeavesHooks(Honest):
    def changed(self, step: Step, engine: Engine) -> Step:
        if engine.classifier.module is not None:
            engine.classifier.module.register_forward_hook(partial(print, end=""))
        return step


def test_the_suite_for_outsiders_passes_an_honest_method() -> None:
    check_method(Honest)


@pytest.mark.parametrize("faulty", [Backwards, NotFinite, Forgetful, WrongGrid, LeavesHooks])
def test_the_suite_for_outsiders_finds_each_fault(faulty: type[Honest], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError):
        check_method(faulty)
