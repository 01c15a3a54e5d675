"""What every method must do, whatever it is: a new file in methods/ is tested here by being there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lucency import Explanation, Scan, explain
from lucency.classifier import Classifier, Question
from lucency.engine import Engine
from lucency.errors import QuestionError
from lucency.masks import Cells
from lucency.methods import METHODS, Method, Step

CHEAP: dict[str, dict[str, Any]] = {
    "blur_integrated_gradients": {"alphas": 9},
    "expected_gradients": {"samples": 6},
    "extremal": {"iterations": 3, "areas": (0.2, 0.4), "sigma": 3.0},
    "igos": {"iterations": 2, "path": 3, "cell": 3},
    "integrated_gradients": {"alphas": 9},
    "lime": {"samples": 24, "superpixels": Cells(3)},
    "meaningful": {"iterations": 4, "delta": 3, "sigma": 2.0, "tau": 1},
    "occlusion": {"patch": 4, "stride": 3},
    "rise": {"samples": 24, "cells": 3},
    "shapley": {"samples": 24, "superpixels": Cells(3)},
    "smoothgrad": {"samples": 6},
}
"""Parameters that make a method quick; one that is not listed runs with its own defaults."""

SIZES = {2: (27, 22), 3: (9, 11, 10)}
KINDS = {2: ("multi-label", "softmax", "resized", "black box"), 3: ("softmax", "black box")}
# A mask that a few iterations have hardly moved on so small a grid may still be flat.
MAY_BE_FLAT = ("igos", "meaningful")


class Net(nn.Module):
    """Convolution, normalisation, ReLU in place, pooling; a head that CAM can read."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        conv, norm, pool = (
            (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d) if axes == 2 else (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d)
        )
        self.body = nn.Sequential(
            conv(1, 4, 3, padding=1), norm(4), nn.ReLU(inplace=True), pool(2), conv(4, 5, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x).flatten(2).mean(2)) * 4
        return out


def classifier_of(kind: str, axes: int) -> Classifier:
    torch.manual_seed(1)
    net = Net(axes).eval()
    return Classifier(
        net,
        name=kind,
        classes=["a", "b", "c"],
        fingerprint=kind,
        exclusive=kind == "softmax",
        input_size=[n - 3 for n in SIZES[axes]] if kind == "resized" else None,
        fit="crop",
        mean=(0.4,),
        std=(0.3,),
        module=None if kind == "black box" else net,
    )


def scan_of(axes: int) -> Scan:
    return Scan(torch.rand((1, *SIZES[axes]), generator=torch.Generator().manual_seed(9)))


def cheap(name: str) -> Method:
    return METHODS[name](**CHEAP.get(name, {}))


def read(step: Step) -> dict[str, Tensor]:
    """Everything a step shows, copied."""
    shown = {"heatmap": step.heatmap, "perturbed": step.perturbed, **{f"also {k}": v for k, v in step.also.items()}}
    if step.reaction is not None:
        shown["reaction"] = step.reaction
    if step.standard_error is not None:
        shown["standard error"] = step.standard_error
    return {key: make().detach().clone() for key, make in shown.items()}


@cache
def walked(name: str, kind: str, axes: int) -> tuple[Explanation, tuple[Step, ...], tuple[dict[str, Tensor], ...]]:
    """One run of a method: the result, its steps, and what each step showed when it came."""
    steps: list[Step] = []
    at_once: list[dict[str, Tensor]] = []

    def watch(step: Step) -> None:
        steps.append(step)
        at_once.append(read(step))

    classifier = classifier_of(kind, axes)
    result = explain(scan_of(axes), classifier, target=1, method=cheap(name), seed=3, on_step=watch)
    return result, tuple(steps), tuple(at_once)


def combinations() -> Iterator[Any]:
    for name, method in METHODS.items():
        for axes, kinds in KINDS.items():
            for kind in kinds:
                if not (kind == "black box" and method.needs_gradients):
                    yield pytest.param(name, kind, axes, id=f"{name}-{kind}-{axes}D")


every = pytest.mark.parametrize(("name", "kind", "axes"), list(combinations()))
each = pytest.mark.parametrize("name", list(METHODS))


@every
def test_the_map_lies_on_the_scan(name: str, kind: str, axes: int) -> None:
    result, _, _ = walked(name, kind, axes)
    maps = [result.heatmap, *result.also.values()]
    if result.standard_error is not None:
        maps.append(result.standard_error)
        assert (result.standard_error >= 0).all()
    for m in maps:
        assert m.shape == SIZES[axes]
        assert m.dtype == np.float32
        assert np.isfinite(m).all()
    assert np.ptp(result.heatmap) > 0 or name in MAY_BE_FLAT
    assert result.complete
    assert all(math.isfinite(v) for v in result.facts.values() if isinstance(v, float))
    assert not any("_" in fact for fact in result.facts), "facts are read by people"


@every
def test_steps_go_forward_to_the_end(name: str, kind: str, axes: int) -> None:
    _, steps, shown = walked(name, kind, axes)
    method, grid = METHODS[name], shown[0]["heatmap"].shape
    for before, after in pairwise(steps):
        assert 0 <= before.done <= after.done
        assert before.done < 1, "only the last step is done"
        assert before.evaluations <= after.evaluations
        assert before.gradients <= after.gradients
    assert steps[-1].done == 1
    assert steps[-1].evaluations > 0
    for step, maps in zip(steps, shown, strict=True):
        assert math.isfinite(step.score)
        assert maps.pop("perturbed").shape == (1, *grid)
        assert all(m.shape == grid for m in maps.values())
        if method.panel != "map":
            assert step.point is not None
            assert all(math.isfinite(v) for v in step.point)
            assert all(method.axes)


@every
def test_a_step_shows_later_what_it_showed_at_once(name: str, kind: str, axes: int) -> None:
    _, steps, shown = walked(name, kind, axes)
    for step, at_once in zip(steps, shown, strict=True):
        later = read(step)
        for key, value in at_once.items():
            assert torch.equal(later[key], value), key


@pytest.mark.parametrize("axes", list(SIZES))
@each
def test_the_same_seed_gives_the_same_map(name: str, axes: int) -> None:
    result, _, _ = walked(name, "softmax", axes)
    again = explain(scan_of(axes), classifier_of("softmax", axes), target=1, method=cheap(name), seed=3)
    assert np.array_equal(again.heatmap, result.heatmap)


@each
def test_a_budget_ends_in_a_map(name: str) -> None:
    result = explain(scan_of(2), classifier_of("softmax", 2), target=1, method=cheap(name), budget="1ms")
    assert np.isfinite(result.heatmap).all()
    assert result.complete or result.heatmap.any() or "more time" in str(result.facts["warning"])


@each
def test_a_black_box_is_explained_or_refused_in_one_sentence(name: str) -> None:
    if METHODS[name].needs_gradients:
        with pytest.raises(QuestionError, match="black box"):
            explain(scan_of(2), classifier_of("black box", 2), target=1, method=cheap(name))
    else:
        assert walked(name, "black box", 2)[0].complete


def traces(net: nn.Module) -> list[object]:
    """Everything a method could leave behind in a network."""
    left: list[object] = []
    for module in net.modules():
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            left += getattr(module, kind).values()
    left += [p.grad for p in net.parameters() if p.grad is not None]
    left += [p for p in net.parameters() if not p.requires_grad]
    left += [m for m in net.modules() if m.training]
    return left


@pytest.mark.parametrize("ending", ["end", "exception", "closed early", "failed model"])
@each
def test_nothing_stays_in_the_network(name: str, ending: str) -> None:
    classifier, scan = classifier_of("softmax", 2), scan_of(2)
    net = classifier.network()
    before = {key: value.clone() for key, value in net.state_dict().items()}

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    if ending == "end":
        explain(scan, classifier, target=1, method=cheap(name))
    elif ending == "exception":
        with pytest.raises(KeyboardInterrupt):
            explain(scan, classifier, target=1, method=cheap(name), on_step=fail)
    elif ending == "closed early":
        steps = cheap(name).steps(scan, Question.ask(classifier, scan, 1), Engine(classifier))
        next(iter(steps))
        steps.close()  # type: ignore[attr-defined]
    else:
        # The model itself fails half-way, while a method may have its hooks in it.
        handle = net.get_submodule("head").register_forward_hook(fail)
        with pytest.raises(KeyboardInterrupt):
            list(cheap(name).steps(scan, Question(1, "b"), Engine(classifier)))
        handle.remove()
    assert not traces(net)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
