"""The one stream: what it counts is what the model saw, and a watcher, a budget and Ctrl-C stop it everywhere alike."""

from __future__ import annotations

import ast
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lucency import Explainer
from lucency.attribution import attribute
from lucency.checks.out_of_distribution import OutOfDistribution
from lucency.checks.sanity import check, known_result
from lucency.classifier import Classifier, Question
from lucency.engine import Engine
from lucency.error_bars import with_error_bars
from lucency.errors import ParameterError
from lucency.methods import METHODS
from lucency.records import Cost
from lucency.removal import Constant
from lucency.scan import Scan
from lucency.testing.methods import Network, classifier_of
from lucency.work import Meter, Stage, Work, count, drained, introducing
from test_every_method import cheap

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "lucency"


class Counted(nn.Module):
    """Knows how many scans it was shown."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.inner = Network(2).eval()
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        out: Tensor = self.inner(x)
        return out


def counted(*, black: bool = False) -> tuple[Counted, Classifier]:
    network = Counted().eval()
    classes = ["a", "b", "c"]
    module = None if black else network
    return network, Classifier(network, name="counted", classes=classes, fingerprint="counted", module=module)


def scan() -> Scan:
    return Scan(torch.rand((1, 20, 18), generator=torch.Generator().manual_seed(9)))


@pytest.mark.parametrize("name", [name for name in METHODS if name != "instant"])
@pytest.mark.parametrize("target", [None, 1])
def test_the_record_of_a_method_says_what_the_model_saw(name: str, target: int | None) -> None:
    for black in (False, True):
        if black and METHODS[name].needs_gradients:
            continue
        network, classifier = counted(black=black)
        # Traced, a network is computed node by node and would see nothing.
        engine = Engine(classifier, windows=False)
        for met in (False, True):
            network.seen = 0
            with Meter() as meter:
                found = attribute(scan(), engine, cheap(name), target=target)
            assert network.seen == meter.evaluations + meter.overhead
            assert meter.evaluations == found.provenance.cost.evaluations
            assert meter.gradients == found.provenance.cost.gradients
            if met:
                assert meter.overhead == 0


@pytest.mark.parametrize("name", [name for name in METHODS if name != "instant"])
def test_an_explanation_counts_everything_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its verdict, error bars, doubts and sanity check."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    network, classifier = counted()
    films = [Scan(torch.rand((1, 20, 18), generator=torch.Generator().manual_seed(i))) for i in range(400)]
    OutOfDistribution.fit(classifier, films).save(tmp_path / "clean.safetensors")
    classifier.reference = tmp_path / "clean.safetensors"
    explainer = Explainer(
        classifier, method=cheap(name), engine=Engine(classifier, windows=False), error_bars=2, sanity=True
    )
    network.seen = 0
    found = explainer(scan()).provenance
    assert network.seen == found.cost.evaluations + found.cost.overhead
    parts = set(found.costs)
    assert {"film", "map", "sanity check"} <= parts
    # A gradient takes nothing away, so there is no perturbed scan to doubt; maps of some methods name no place to hide.
    assert parts <= {"film", "map", "error bars", "out-of-distribution", "sanity check", "verdict"}
    assert sum(found.costs.values(), Cost()) == found.cost
    assert found.costs["film"].evaluations == 1
    if name == "occlusion":
        assert parts == {"film", "map", "error bars", "out-of-distribution", "sanity check", "verdict"}
        assert found.costs["verdict"].evaluations == 20
        # Another run knows the answer of the sanity check, and the engine the classifier.
        network.seen = 0
        again = explainer(scan()).provenance
        assert network.seen == again.cost.evaluations
        assert again.costs == {
            part: replace(cost, seconds=again.costs[part].seconds, overhead=0)
            for part, cost in found.costs.items() if part != "sanity check"
        }  # fmt: skip


def test_a_black_box_is_asked_as_often_as_the_record_says() -> None:
    network, classifier = counted(black=True)
    explainer = Explainer(classifier, method="lime", samples=9, superpixels="cells", engine=Engine(classifier))
    for target in (None, "b"):
        network.seen = 0
        found = explainer(scan(), target).provenance
        assert found.costs["map"].evaluations == 10
        assert network.seen == found.cost.evaluations + found.cost.overhead


def test_a_traced_network_is_counted_as_the_network_itself() -> None:
    costs = []
    for windows in (False, True):
        classifier, how = classifier_of("softmax", 2), cheap("occlusion")
        engine = Engine(classifier, windows=windows)
        costs.append([attribute(scan(), engine, how, target=1).provenance.cost.evaluations for _ in range(2)])
        assert bool(engine.checked) == windows
    assert costs[0] == costs[1]


def test_a_clean_scan_goes_through_once_in_a_run_and_again_in_the_next() -> None:
    network, classifier = counted(black=True)
    engine = Engine(classifier)
    attribute(scan(), engine, cheap("occlusion"))
    film = scan()
    run = engine.remembering()
    network.seen = 0
    for watch in ("probability", "logit"):
        run.open(film, run.question(film, None, watch), Constant())
    assert network.seen == 1
    # The weights may have been changed since.
    engine.open(film, Question(0, "a"), Constant())
    engine.remembering().clean(film)
    assert network.seen == 3


def test_only_the_engine_runs_a_classifier() -> None:
    rooms = ("methods", "checks", "metrics", "recipe.py", "error_bars.py", "attribution.py")
    files = [
        f for room in rooms for f in ([PACKAGE / room] if room.endswith(".py") else (PACKAGE / room).rglob("*.py"))
    ]
    found = []
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called.split(".")[-1] in ("classifier", "outputs_and_features", "returned", "forward"):
                    found.append(f"{file.name}: {called}")
    assert not found


def stopped(event: threading.Event, when: str) -> Callable[[Stage[Any]], None]:
    """Sets the event at the first stage that says so and is done with it."""

    def watch(stage: Stage[Any]) -> None:
        if when in stage.doing:
            event.set()

    return watch


def test_error_bars_that_are_stopped_have_the_copies_that_are_done() -> None:
    _, classifier = counted(black=True)
    film, engine, how = scan(), Engine(classifier), cheap("occlusion")
    found, cancel = attribute(film, engine, how, target=1), threading.Event()
    bars = drained(
        with_error_bars.steps(found, film, engine, method=how, copies=5), on_step=stopped(cancel, "copy 3"),
        cancel=cancel,
    ).provenance.error_bars  # fmt: skip
    assert bars.copies == 2
    assert bars.moved is not None
    assert len(bars.moved) == 2
    assert bars.cost.evaluations == 2 * found.provenance.cost.evaluations
    whole = with_error_bars(found, film, engine, method=how, copies=2)
    assert whole.provenance.error_bars.moved == bars.moved
    none = drained(with_error_bars.steps(found, film, engine, method=how, copies=5), cancel=cancel)
    assert none.standard_error is None


def test_a_sanity_check_that_is_stopped_says_and_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    network, classifier = counted()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    engine, how, cancel = Engine(classifier, windows=False), cheap("gradient"), threading.Event()
    steps = check.steps(how, [scan()], engine, target=1)
    seen: list[dict[str, Tensor]] = []

    def watch(stage: Stage[Any]) -> None:
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        stopped(cancel, "random weights 1")(stage)

    assert drained(steps, on_step=watch, cancel=cancel) is None
    assert known_result(classifier, how, target=1) is None
    # Whoever watches finds the weights of the model, never random ones.
    assert len(seen) == 2
    assert all(torch.equal(state[name], before[name]) for state in seen for name in before)
    assert check(how, [scan()], engine, target=1) == known_result(classifier, how, target=1)


def stages(most: int, closed: list[str], pause: float = 0.0) -> Iterator[Stage[int]]:
    try:
        for i in range(1, most + 1):
            count(2, 1)
            with introducing():
                count(5)
            time.sleep(pause)
            yield Stage(i / most, f"part {i}", lambda i=i: i)  # type: ignore[misc]
    finally:
        closed.append("closed")


def test_a_stream_is_watched_counted_and_closed() -> None:
    seen: list[Stage[int]] = []
    closed: list[str] = []
    with Meter() as outer:
        assert drained(stages(3, closed), on_step=seen.append) == 3
        count(1)
    assert [(s.done, s.doing, s.evaluations, s.gradients) for s in seen] == [
        (1 / 3, "part 1", 2, 1), (2 / 3, "part 2", 4, 2), (1.0, "part 3", 6, 3),
    ]  # fmt: skip
    assert (outer.evaluations, outer.gradients, outer.overhead) == (7, 3, 15)
    count(1)
    assert outer.evaluations == 7
    assert closed == ["closed"]
    with pytest.raises(ParameterError, match="nothing to do"):
        drained(stages(0, closed))


def test_a_stream_ends_after_the_step_at_which_it_is_cancelled_or_late() -> None:
    cancel, closed = threading.Event(), list[str]()

    def stop(stage: Stage[int]) -> None:
        if stage.done >= 0.5:
            cancel.set()

    assert drained(stages(4, closed), on_step=stop, cancel=cancel) == 2
    # What is cancelled before it begins makes one step all the same.
    assert drained(stages(4, closed), cancel=cancel) == 1
    assert drained(stages(50, closed, pause=0.02), budget="30ms") < 5
    assert len(closed) == 3
    with pytest.raises(ParameterError, match="budget"):
        drained(stages(4, closed), budget="soon")


def test_a_watcher_that_fails_closes_the_stream() -> None:
    closed: list[str] = []

    def fail(stage: Stage[int]) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        drained(stages(4, closed), on_step=fail)
    assert closed == ["closed"]


def test_threads_count_for_themselves() -> None:
    work = Work(stages(2, []))
    other = threading.Thread(target=lambda: count(100))
    with work.meter:
        other.start()
        other.join()
    work.run()
    assert work.meter.evaluations == 4
