"""What every method must do, whatever it is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from lucency.attribution import Attribution, attribute
from lucency.classifier import Classifier, Question
from lucency.engine import Engine
from lucency.errors import QuestionError
from lucency.explanation import Explanation
from lucency.methods import Method, Step
from lucency.scan import Scan

SIZES = {2: (27, 22), 3: (9, 11, 10)}
KINDS = {2: ("multi-label", "softmax", "resized", "black box"), 3: ("softmax", "black box")}
ENDINGS = ("end", "exception", "closed early", "failed model")


class Network(nn.Module):
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
    """A small classifier with three classes, the same one at every call: one of :data:`KINDS`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = Network(axes).eval()
    return Classifier(
        network,
        name=kind,
        classes=["a", "b", "c"],
        fingerprint=kind,
        exclusive=kind == "softmax",
        input_size=[n - 3 for n in SIZES[axes]] if kind == "resized" else None,
        fit="crop",
        mean=(0.4,),
        std=(0.3,),
        module=None if kind == "black box" else network,
    )


def scan_of(axes: int) -> Scan:
    """A scan of odd sizes, the same one at every call."""
    return Scan(torch.rand((1, *SIZES[axes]), generator=torch.Generator().manual_seed(9)))


def shown(step: Step) -> dict[str, Tensor]:
    """Everything a step shows, copied."""
    maps = {"heatmap": step.heatmap, "perturbed": step.perturbed, **{f"also {k}": v for k, v in step.also.items()}}
    if step.reaction is not None:
        maps["reaction"] = step.reaction
    if step.standard_error is not None:
        maps["standard error"] = step.standard_error
    return {key: make().detach().clone() for key, make in maps.items()}


@dataclass(frozen=True)
class Walk:
    """One run of a method, its steps, and what each step showed when it came."""

    run: Attribution
    steps: tuple[Step, ...]
    at_once: tuple[dict[str, Tensor], ...]

    @cached_property
    def result(self) -> Explanation:
        """What the last step says."""
        return self.run.explanation


def walk(method: Method, kind: str, axes: int) -> Walk:
    """Runs a method on a small classifier of one kind and watches it."""
    run = Attribution(scan_of(axes), Engine(classifier_of(kind, axes), seed=3), method, target=1)
    steps, at_once = [], []
    for step in run:
        steps.append(step)
        at_once.append(shown(step))
    return Walk(run, tuple(steps), tuple(at_once))


def combinations(method: type[Method]) -> Iterator[tuple[str, int]]:
    """The kinds of classifier and the numbers of axes that a method must cope with."""
    for axes, kinds in KINDS.items():
        for kind in kinds:
            if not (kind == "black box" and method.needs_gradients):
                yield kind, axes


def check_map(walked: Walk, axes: int, *, may_be_flat: bool = False) -> None:
    """The maps lie on the scan's own grid, are float32 and finite, and show something."""
    result = walked.result
    maps = [result.heatmap, *result.also.values()]
    if result.standard_error is not None:
        maps.append(result.standard_error)
        assert (result.standard_error >= 0).all(), "a standard error is below 0"
    for m in maps:
        assert m.shape == SIZES[axes], f"a map has the shape {m.shape} and the scan {SIZES[axes]}"
        assert m.dtype == np.float32, f"a map is {m.dtype}"
        assert np.isfinite(m).all(), "a map is not finite"
    assert np.ptp(result.heatmap) > 0 or may_be_flat, "the map is flat"
    assert result.complete, "the last step is not done"
    assert all(math.isfinite(v) for v in result.facts.values() if isinstance(v, float)), "a fact is not finite"
    assert not any("_" in fact for fact in result.facts), "facts are read by people: no underscores"


def check_steps(walked: Walk, method: Method) -> None:
    """Steps go forward to the end, count their evaluations, and show maps on the model's grid."""
    grid = walked.at_once[0]["heatmap"].shape
    for before, after in pairwise(walked.steps):
        assert 0 <= before.done <= after.done, "the share of the work goes back"
        assert before.done < 1, "only the last step is done"
        assert before.evaluations <= after.evaluations, "the count of evaluations goes back"
        assert before.gradients <= after.gradients, "the count of gradients goes back"
    assert walked.steps[-1].done == 1, "the last step is not done"
    assert walked.steps[-1].evaluations > 0, "no evaluation was counted"
    for step, maps in zip(walked.steps, walked.at_once, strict=True):
        assert math.isfinite(step.score), "a score is not finite"
        for name, m in maps.items():
            assert m.shape == ((1, *grid) if name == "perturbed" else grid), f"{name} has the shape {tuple(m.shape)}"
        if method.panel != "map":
            assert step.point is not None, f"a {method.panel} needs a point at every step"
            assert all(math.isfinite(v) for v in step.point), "a point is not finite"
            assert all(method.axes), f"a {method.panel} needs the names of its axes"


def check_memory(walked: Walk) -> None:
    """A step shows later what it showed at once: its callables hold on to values, not to the method's state."""
    for step, at_once in zip(walked.steps, walked.at_once, strict=True):
        later = shown(step)
        for key, value in at_once.items():
            assert torch.equal(later[key], value), f"{key} of a step changes after the step"


def check_seed(method: Method, axes: int, first: Walk) -> None:
    """The same seed gives the same map, bit for bit; ``first`` is a run with a softmax classifier."""
    again = attribute(scan_of(axes), Engine(classifier_of("softmax", axes), seed=3), method, target=1)
    assert np.array_equal(again.heatmap, first.result.heatmap), "two runs with one seed differ"


def check_budget(method: Method) -> None:
    """A budget that is too short for anything ends in a map, or says that it was too short."""
    found = attribute(scan_of(2), Engine(classifier_of("softmax", 2)), method, target=1, budget="1ms")
    assert np.isfinite(found.heatmap).all(), "the map so far is not finite"
    said = found.complete or found.heatmap.any() or "more time" in str(found.facts["warning"])
    assert said, "an empty map says nothing of its time"


def check_black_box(method: Method) -> None:
    """A method that needs gradients refuses a black box in one sentence."""
    if method.needs_gradients:
        said = ""
        try:
            attribute(scan_of(2), Engine(classifier_of("black box", 2)), method, target=1)
        except QuestionError as error:
            said = str(error)
        assert "black box" in said, "a black box is not refused, or not with the reason"


def check_clean(method: Method, ending: str) -> None:
    """Nothing stays in the network, however the run ends (one of :data:`ENDINGS`)."""
    classifier, scan = classifier_of("softmax", 2), scan_of(2)
    network = classifier.network()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    engine = Engine(classifier)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    def interrupted(on_step: bool) -> None:
        try:
            if on_step:
                attribute(scan, engine, method, target=1, on_step=fail)
            else:
                list(method.steps(scan, Question(1, "b"), engine))
        except KeyboardInterrupt:
            return
        raise AssertionError("an interruption was swallowed")

    if ending == "end":
        attribute(scan, engine, method, target=1)
    elif ending == "exception":
        interrupted(on_step=True)
    elif ending == "closed early":
        steps = method.steps(scan, Question.ask(classifier, scan, 1), engine)
        next(iter(steps))
        steps.close()  # type: ignore[attr-defined]
    else:
        # The model itself fails half-way, while a method may have its hooks in it.
        handle = network.get_submodule("head").register_forward_hook(fail)
        interrupted(on_step=False)
        handle.remove()
    assert not traces(network), f"something stays in the network after: {ending}"
    same = all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert same, f"weights or statistics are changed after: {ending}"


def traces(network: nn.Module) -> list[object]:
    """Everything a method could leave behind in a network: hooks, gradients, modes."""
    left: list[object] = []
    for module in network.modules():
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            left += getattr(module, kind).values()
    left += [p.grad for p in network.parameters() if p.grad is not None]
    left += [p for p in network.parameters() if not p.requires_grad]
    left += [m for m in network.modules() if m.training]
    return left


def check_method(method: Method | type[Method], *, may_be_flat: bool = False) -> None:
    """Everything above, for one method, in 2-D and 3-D, with networks and black boxes.

    Args:
        method: a class, tried with its defaults, or an instance with parameters that make it quick.
        may_be_flat: whether its map may be flat on a small random network.

    Raises:
        AssertionError: saying which promise is not kept.
    """
    how = method() if isinstance(method, type) else method
    for name in ("name", "title", "paper", "unit"):
        assert isinstance(getattr(how, name, None), str), f"{type(how).__name__} has no {name}"
    for kind, axes in combinations(type(how)):
        walked = walk(how, kind, axes)
        check_steps(walked, how)
        check_map(walked, axes, may_be_flat=may_be_flat)
        check_memory(walked)
        if kind == "softmax":
            check_seed(how, axes, walked)
    check_budget(how)
    check_black_box(how)
    for ending in ENDINGS:
        check_clean(how, ending)
