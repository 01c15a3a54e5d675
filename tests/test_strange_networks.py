"""Networks that do what a network should not, and callers that have PyTorch set up in their own way: the right map, or
one sentence."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lucency import Explanation, Scan, explain
from lucency.attribution import attribute
from lucency.classifier import Classifier, Question
from lucency.engine import Engine, engine
from lucency.errors import ModelError, QuestionError
from lucency.methods import METHODS
from test_every_method import cheap
from test_every_method import untrained as each

GRID = (24, 21)


def scan_of(seed: int = 9) -> Scan:
    return Scan(torch.rand((1, *GRID), generator=torch.Generator().manual_seed(seed), dtype=torch.float32))


ONE_PASS = ("gradient", "gradient_x_input", "guided_backprop", "guided_gradcam", "deconvnet")
CAMS = ("cam", "gradcam", "gradcam_plus_plus", "layercam", "guided_occlusion")


class Plain(nn.Module):
    """A small network with a head that CAM can read, and places for others to misbehave."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1, stride=2)
        self.head = nn.Linear(6, 3)
        self.eval()

    def before(self, x: Tensor) -> Tensor:
        return x - 0.5

    def between(self, x: Tensor) -> Tensor:
        return x

    def after(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = self.between(self.first(self.before(x)).relu())
        out: Tensor = self.after(self.head(self.second(x).relu().flatten(2).mean(2)) * 4)
        return out


def classifier_of(net: Callable[[Tensor], Tensor], module: nn.Module | None = None, **about: Any) -> Classifier:
    return Classifier(
        net,
        name="odd",
        classes=["a", "b", "c"],
        fingerprint="odd",
        module=net if module is None and isinstance(net, nn.Module) else module,
        **about,
    )


def mapped(name: str, classifier: Classifier, **options: Any) -> Explanation:
    return explain(scan_of(), classifier, target=1, method=cheap(name), seed=3, **options)


def same(one: Explanation, other: Explanation) -> bool:
    scale = np.abs(other.heatmap).max()
    return bool(np.abs(one.heatmap - other.heatmap).max() <= 1e-4 * scale + 1e-7)


# -- what a network does to its input, to what it hands over, and to itself -----------------------------------------


class InPlace(Plain):
    def before(self, x: Tensor) -> Tensor:
        x -= 0.5
        return x


class InPlaceByMethods(Plain):
    def before(self, x: Tensor) -> Tensor:
        return x.sub_(0.25).div_(0.5).mul_(0.5).sub_(0.25)


class InPlaceUnseen(Plain):
    """Not even PyTorch sees this one."""

    def before(self, x: Tensor) -> Tensor:
        x.data.copy_(x.data - 0.5)
        return x


class InPlaceInside(Plain):
    def between(self, x: Tensor) -> Tensor:
        y = x.clone()
        y += 0
        return F.relu_(y)


class Accumulating(Plain):
    """Counts what it has seen in a buffer, and its answer depends on the count."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(3))

    def after(self, x: Tensor) -> Tensor:
        x = x + self.seen
        self.seen += torch.tensor([0.0, 0.5, 0.0])
        return x


class Replacing(Accumulating):
    def after(self, x: Tensor) -> Tensor:
        x = x + self.seen
        self.seen = self.seen + torch.tensor([0.0, 0.5, 0.0])
        return x


class Reusing(Plain):
    """Hands over the same tensor every time, with other numbers in it, as a wrapper around a C library may."""

    def __init__(self) -> None:
        super().__init__()
        self.handed: dict[int, Tensor] = {}

    def after(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            return x
        with torch.inference_mode():
            return self.handed.setdefault(len(x), torch.empty_like(x)).copy_(x)


@pytest.mark.parametrize("kind", [InPlace, InPlaceByMethods, InPlaceInside, Accumulating, Replacing, Reusing])
@each
def test_nothing_that_a_network_changes_reaches_the_next_question(name: str, kind: type[Plain]) -> None:
    scan, net = scan_of(), kind()
    before, state = scan.pixels.clone(), {k: v.clone() for k, v in net.state_dict().items()}
    found = explain(scan, classifier_of(net), target=1, method=cheap(name), seed=3)
    assert same(found, mapped(name, classifier_of(Plain())))
    assert torch.equal(scan.pixels, before)
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("windows", [True, False])
def test_an_input_that_is_changed_unseen_is_not_the_scan_either(windows: bool) -> None:
    method = METHODS["occlusion"](patch=4, stride=3)
    found, expected = (
        explain(scan_of(), c, target=1, method=method, engine=Engine(c, windows=windows))
        for c in (classifier_of(InPlaceUnseen()), classifier_of(Plain()))
    )
    assert same(found, expected)


@each
def test_a_function_that_changes_its_array_is_handed_its_own(name: str) -> None:
    if METHODS[name].needs_gradients:
        pytest.skip("a black box has no gradient")
    net = Plain()

    def forward(x: Tensor) -> Tensor:
        array = x.numpy()
        with torch.no_grad():
            out = net(torch.from_numpy(array.copy()))
        array[:] = 7
        return out

    assert same(mapped(name, classifier_of(forward)), mapped(name, classifier_of(net)))


def test_the_watched_layer_is_what_it_put_out_and_not_what_became_of_it() -> None:
    class Residual(Plain):
        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            y += 3
            out: Tensor = self.head(self.second(y).flatten(2).mean(2))
            return out

    net = Residual()
    x = torch.rand(2, 1, *GRID)
    _, features = classifier_of(net).outputs_and_features(x, ["first"])
    assert torch.equal(features["first"], net.first(x))


# -- networks whose answer depends on company or on chance ----------------------------------------------------------


class MeanOverTheBatch(Plain):
    def before(self, x: Tensor) -> Tensor:
        return x - x.mean()


class BatchNorm(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4, track_running_stats=False)

    def between(self, x: Tensor) -> Tensor:
        return self.norm(x)


class OneAtATime(Plain):
    def after(self, x: Tensor) -> Tensor:
        return x.view(1, 3)


class Alone(nn.Module):
    """Another network, asked one scan at a time: what is right."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.net(one[None]) for one in x])


@pytest.mark.parametrize("kind", [MeanOverTheBatch, BatchNorm, OneAtATime])
@each
def test_what_depends_on_company_is_asked_alone(name: str, kind: type[Plain]) -> None:
    classifier = classifier_of(kind())
    engine = Engine(classifier, seed=3)
    found = mapped(name, classifier, engine=engine)
    assert engine.batch_size == 1
    assert all(p.size == 1 for p in engine.chunks.values())
    assert engine.notices[0].endswith("goes in by itself, which is slow.")
    assert engine.notices[0] in found.notices
    if name not in CAMS:
        # Feature maps of a loop over scans are those of its last round.
        assert same(found, mapped(name, classifier_of(Alone(kind()))))


def test_company_is_noticed_on_a_black_scan_too() -> None:
    class Scaled(Plain):
        def before(self, x: Tensor) -> Tensor:
            return x * x.mean()

    machine = Engine(classifier_of(Scaled()))
    machine.open(Scan(torch.zeros(1, *GRID)), Question(1, "b"))
    assert machine.batch_size == 1


def test_ordinary_networks_are_asked_together_and_only_met_once() -> None:
    calls: list[int] = []
    net = Plain()
    net.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    classifier = classifier_of(net)
    for _ in range(2):
        machine = Engine(classifier, batch_size=8)
        machine.open(scan_of(), Question(1, "b"))
        machine.open(scan_of(2), Question(1, "b"))
        assert machine.batch_size == 8
        assert machine.notices == ()
    assert calls == [1, 1, 1, 3, 1, 1, 1]


@pytest.mark.parametrize("size", [1, 3])
@each
def test_a_batch_size_is_obeyed_everywhere(name: str, size: int) -> None:
    net = Plain()
    classifier = classifier_of(net)
    Engine(classifier).open(scan_of(), Question(1, "b"))
    seen: list[int] = []
    handles = [m.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0]))) for m in net.modules()]
    with traced_calls(seen):
        found = mapped(name, classifier, engine=Engine(classifier, seed=3, batch_size=size))
    for handle in handles:
        handle.remove()
    assert max(seen) <= size
    assert same(found, mapped(name, classifier))


@contextmanager
def traced_calls(seen: list[int]) -> Iterator[None]:
    """Notes the batches of the traced network, too."""
    run = engine.Incremental.run

    def noted(self: Any, values: Tensor, *rest: Any) -> Any:
        seen.append(len(values))
        return run(self, values, *rest)

    engine.Incremental.run = noted  # type: ignore[method-assign]
    try:
        yield
    finally:
        engine.Incremental.run = run  # type: ignore[method-assign]


class Dropout(Plain):
    def after(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, training=True)


class Remembering(Plain):
    last: Tensor | None = None

    def after(self, x: Tensor) -> Tensor:
        x = x if self.last is None else x + self.last
        self.last = x.detach()[:1].clone()
        return x


@pytest.mark.parametrize("kind", [Dropout, Remembering])
@each
def test_what_depends_on_chance_is_refused_in_one_sentence(name: str, kind: type[Plain]) -> None:
    with pytest.raises(ModelError, match=r"answers the same scan differently .* first\.$"):
        mapped(name, classifier_of(kind()))


def test_dropout_left_on_is_named() -> None:
    net = nn.Sequential(Plain(), nn.Dropout(0.5))
    net[1].train()
    with pytest.raises(ModelError, match=r"1 of it is in training mode: call eval\(\)"):
        mapped("occlusion", classifier_of(net))


# -- what the traced network cannot do ------------------------------------------------------------------------------


class Attention(Plain):
    """Heads by ``view``, which a layout other than the usual one breaks for more than one scan."""

    def between(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q = x.view(b, 2, c // 2, h * w)
        weight = (q.transpose(2, 3) @ q / 10).softmax(-1)
        return (q @ weight).view(b, c, h, w)


class InstanceNormByReshaping(Plain):
    def between(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return F.batch_norm(x.view(1, b * c, h, w), None, None, training=True).view(b, c, h, w)


class DynamicConvolution(Plain):
    """Each scan has filters of its own, as groups of one convolution."""

    def between(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        filters = (x.mean((2, 3)).view(b * c, 1, 1, 1) * self.first.weight.mean()).expand(b * c, 1, 3, 3)
        return x + F.conv2d(x.view(1, b * c, h, w), filters, padding=1, groups=b * c).view(b, c, h, w)


@pytest.mark.parametrize("kind", [Attention, InstanceNormByReshaping, DynamicConvolution])
@each
def test_what_the_traced_network_cannot_do_falls_back(name: str, kind: type[Plain]) -> None:
    found = mapped(name, classifier_of(kind()))
    plain = classifier_of(kind())
    assert same(found, mapped(name, plain, engine=Engine(plain, seed=3, windows=False)))


@pytest.mark.parametrize("fault", ["raises", "is wrong"])
def test_a_fault_that_shows_at_some_batch_size_only(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run, calls = engine.Incremental.run, []

    def faulty(self: Any, values: Tensor, *rest: Any) -> Any:
        calls.append(len(values))
        outputs, features = run(self, values, *rest)
        if fault == "raises" and len(values) > 3:
            raise RuntimeError("view size is not compatible with input tensor's size and stride")
        return (outputs * 2 if fault == "is wrong" and len(values) > 1 else outputs), features

    monkeypatch.setattr(engine.Incremental, "run", faulty)
    classifier = classifier_of(Plain())
    machine = Engine(classifier, device="cpu", seed=3)
    for method in ("occlusion", "rise"):
        found = mapped(method, classifier, engine=machine)
        plain = classifier_of(Plain())
        expected = mapped(method, plain, engine=Engine(plain, seed=3, windows=False))
        assert same(found, expected)
        assert found.provenance.cost.evaluations == expected.provenance.cost.evaluations
    assert calls
    seen = len(calls)
    mapped("rise", classifier, engine=machine)
    assert len(calls) == seen, "once and for good"


# -- what has no gradient, and scores that are not finite -----------------------------------------------------------


class Frozen(Plain):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(x)


class Whole(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x * 255).to(torch.uint8).float())


class Detached(Plain):
    def between(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy().copy())


class Array(Plain):
    """Refuses what has a gradient."""

    def before(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy() - 0.5)


def quantised() -> nn.Module:
    net = nn.Sequential(
        torch.ao.quantization.QuantStub(),
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
        torch.ao.quantization.DeQuantStub(),
    ).eval()
    net.qconfig = torch.ao.quantization.get_default_qconfig("x86")  # type: ignore[assignment]
    prepared = torch.ao.quantization.prepare(net)
    prepared(torch.rand(4, 1, *GRID))
    return torch.ao.quantization.convert(prepared)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [Frozen, Whole, Detached, Array, quantised])
@each
def test_what_has_no_gradient_says_so(name: str, make: Callable[[], nn.Module]) -> None:
    classifier = classifier_of(make())
    if not METHODS[name].needs_gradients or (make in (Whole, Detached) and name in CAMS):
        # Behind the step that has none, feature maps have a gradient.
        assert np.isfinite(mapped(name, classifier).heatmap).all()
        return
    with pytest.raises(QuestionError) as said:
        mapped(name, classifier)
    text = str(said.value)
    assert text.endswith((".", "occlusion."))
    assert not any(word in text for word in ("tensor", "grad_fn", "requires_grad", "aten"))


@contextmanager
def told(error: type[Exception], words: str) -> Iterator[None]:
    with pytest.raises(error, match=words):
        yield


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@each
def test_scores_that_are_not_finite_stop_every_method(name: str, value: float) -> None:
    """Only the clean scan has a finite one."""

    class Picky(Plain):
        def after(self, x: Tensor) -> Tensor:
            return x

        def forward(self, x: Tensor) -> Tensor:
            unlike = (x - scan_of().pixels).abs().amax((1, 2, 3), keepdim=True)[:, 0, 0] > 1e-3
            return torch.where(unlike, value, super().forward(x))

    # Met on the clean scan before, which is all that it can answer.
    classifier = classifier_of(Picky())
    engine = Engine(classifier, seed=3)
    engine.habits.met = True
    ends = name in (*ONE_PASS, *CAMS) and name not in ("cam", "guided_occlusion")
    with nullcontext() if ends else told(ModelError, r"not finite on \d+ of \d+ perturbed scans"):
        # The bare map: the verdict hides parts of the scan.
        found = attribute(scan_of(), engine, cheap(name), target=1)
        assert np.isfinite(found.heatmap).all()


@each
def test_gradients_that_are_not_finite_stop_every_method(name: str) -> None:
    if not METHODS[name].needs_gradients:
        pytest.skip("it needs none")

    class Root(Plain):
        def between(self, x: Tensor) -> Tensor:
            return x + (x * 0).sqrt()

    with nullcontext() if name in CAMS else told(ModelError, "gradient that is not finite"):
        # Behind the root, feature maps have a gradient.
        assert np.isfinite(mapped(name, classifier_of(Root())).heatmap).all()


@each
def test_a_network_that_reacts_to_nothing_gives_an_empty_map(name: str) -> None:
    class Flat(Plain):
        def after(self, x: Tensor) -> Tensor:
            return x * 0 + 1

    for watch in ("probability", "logit"):
        found = explain(scan_of(), classifier_of(Flat()), target=1, method=cheap(name), watch=watch)
        assert np.isfinite(found.heatmap).all()
        if name not in ("meaningful_perturbation", "igos_pp", "extremal_perturbation"):
            # A mask is what is left when nothing pulls at it.
            assert not found.heatmap.any()
        if found.standard_error is not None:
            assert np.isfinite(found.standard_error).all()


# -- callers --------------------------------------------------------------------------------------------------------


@contextmanager
def another_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        assert torch.get_default_dtype() == torch.float64, "given back"
        torch.set_default_dtype(torch.float32)


CALLERS: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "dtype": another_dtype,
    "device": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("caller", list(CALLERS))
@each
def test_how_pytorch_is_set_up_around_it_does_not_reach_the_map(name: str, caller: str) -> None:
    classifier = classifier_of(Plain())
    expected = mapped(name, classifier)
    with CALLERS[caller]():
        scan = Scan(scan_of().pixels.clone()) if caller == "inference_mode" else scan_of_outside
        found = explain(scan, classifier, target=1, method=cheap(name), seed=3)
    assert np.array_equal(found.heatmap, expected.heatmap)
    assert found.provenance.question.score == expected.provenance.question.score


scan_of_outside = scan_of()


@pytest.mark.parametrize("caller", list(CALLERS))
@each
def test_steps_leave_the_caller_as_they_find_it(name: str, caller: str) -> None:
    classifier = classifier_of(Plain())
    with CALLERS[caller]():
        steps = cheap(name).steps(scan_of_outside, Question(1, "b"), Engine(classifier, device="cpu", seed=3))
        before = around()
        for step in steps:
            assert around() == before
            heatmap = step.heatmap
        inside = heatmap()
    assert torch.equal(inside.detach(), torch.from_numpy(mapped(name, classifier).heatmap))


def around() -> tuple[object, ...]:
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch.get_default_device(),
    )


@pytest.mark.parametrize("shared", ["engine", "classifier"])
def test_threads_get_the_map_of_their_own_scan(shared: str) -> None:
    classifier = classifier_of(Plain())
    engine = Engine(classifier, seed=3)
    names = [
        n for n in ("occlusion", "gradcam", "rise", "deconvnet", "layercam", "integrated_gradients") if n in METHODS
    ]
    jobs = [(name, seed) for seed in range(4) for name in names]
    expected = {job: explain(scan_of(job[1]), classifier, target=1, method=cheap(job[0]), seed=3) for job in jobs}
    found: dict[tuple[str, int], Explanation] = {}
    failed: list[BaseException] = []

    def work(mine: list[tuple[str, int]]) -> None:
        try:
            for name, seed in mine:
                used = {"engine": engine} if shared == "engine" else {"seed": 3}
                found[name, seed] = explain(scan_of(seed), classifier, target=1, method=cheap(name), **used)  # type: ignore[arg-type]
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(jobs[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert all(same(found[job], expected[job]) for job in jobs)


def test_threads_give_the_default_dtype_back() -> None:
    classifier = classifier_of(Plain())
    with another_dtype():
        threads = [threading.Thread(target=mapped, args=("rise", classifier)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def test_a_running_event_loop_is_no_hindrance() -> None:
    classifier = classifier_of(Plain())

    async def ask() -> Explanation:
        await asyncio.sleep(0)
        return mapped("occlusion", classifier)

    assert np.array_equal(asyncio.run(ask()).heatmap, mapped("occlusion", classifier).heatmap)


class Maps(torch.utils.data.Dataset[Tensor]):
    def __init__(self) -> None:
        self.classifier = classifier_of(Plain())

    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> Tensor:
        found = explain(scan_of(i), self.classifier, target=1, method=cheap("occlusion"), seed=3)
        return torch.from_numpy(found.heatmap)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_data_loader_worker_explains_too() -> None:
    maps = Maps()
    # Somebody else is asking when the worker comes into being.
    with engine.asking():
        found = [heatmap[0] for heatmap in DataLoader(maps, num_workers=1)]
    for i, heatmap in enumerate(found):
        assert torch.allclose(heatmap, maps[i], atol=1e-6)
