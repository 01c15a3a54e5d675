"""The engine: the same numbers whatever way they are computed, and no way that fails."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lucency import Scan, explain
from lucency.classifier import Classifier, Question
from lucency.engine import Engine, chunks, engine, scorer
from lucency.engine.footprint import Footprint
from lucency.engine.incremental import Plan
from lucency.errors import ModelError, ParameterError
from lucency.masks import Patches
from lucency.methods.occlusion import Occlusion
from lucency.removal import Constant
from lucency.work import Meter
from nets import classifier_of

WATCHED = Question(1, "c1", "logit")


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 8, 3, 1, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    ).eval()  # fmt: skip


def scan(*size: int) -> Scan:
    return Scan(torch.rand(1, *size, generator=torch.Generator().manual_seed(1)))


def some(*size: int) -> tuple[Tensor, Tensor]:
    patches = Patches(size, (5,) * len(size), (4,) * len(size))
    which = torch.arange(min(30, len(patches)))
    return patches.masks(which), patches.boxes[which]


def test_memory_that_runs_out_halves_the_batch_and_is_told_once() -> None:
    net = small()
    calls: list[int] = []

    def forward(x: Tensor) -> Tensor:
        calls.append(len(x))
        if len(x) > 5:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        out: Tensor = net(x)
        return out

    box = Classifier(forward, name="greedy", classes=["a", "b", "c"], fingerprint="x")
    masks, _ = some(24, 24)
    engine = Engine(box, batch_size=8)
    probe = engine.open(scan(24, 24), WATCHED, Constant(0.0))
    with pytest.warns(UserWarning, match="batches of 4") as told:
        scores = probe.scores(masks)
    assert len(told) == 1
    assert engine.chunks["scores"].size == 4
    expected = Engine(classifier_of(net, 3), windows=False).open(scan(24, 24), WATCHED, Constant(0.0)).scores(masks)
    assert torch.allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize(("knee", "settles"), [(4, 4), (8, 8), (64, 16)])
def test_batches_grow_for_as_long_as_that_is_quicker(knee: int, settles: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose time for each scan halves with each doubling of the batch, up to a knee."""
    clock = [0.0]
    monkeypatch.setattr(chunks.time, "perf_counter", lambda: clock[0])

    def work(part: Tensor) -> Tensor:
        clock[0] += len(part) * (1 / min(len(part), knee) + 0.05 * (len(part) > knee))
        return part

    found = chunks.Chunks(4, 16, torch.device("cpu"))
    items = torch.arange(200)
    assert torch.equal(torch.cat(found.through(items, work)), items)
    assert found.size == settles


def test_a_processor_without_memory_left_halves_the_batch_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch has no class of its own for that."""
    net = small()

    def full(x: Tensor) -> Tensor:
        if len(x) > 3:
            torch.empty(2**52)
        out: Tensor = net(x)
        return out

    masks, boxes = some(24, 24)
    box = Classifier(full, name="greedy", classes=["a", "b", "c"], fingerprint="x")
    expected = Engine(classifier_of(net, 3), windows=False).open(scan(24, 24), WATCHED, Constant(0.0)).scores(masks)
    with pytest.warns(UserWarning, match="batches of 2"):
        scores = Engine(box).open(scan(24, 24), WATCHED, Constant(0.0)).scores(masks)
    assert torch.allclose(scores, expected, atol=1e-6)

    probe = Engine(classifier_of(net, 3), device="cpu").open(scan(24, 24), WATCHED, Constant(0.0))
    probe.scores(masks[:4], boxes[:4])
    assert probe._fast is not None
    outputs = scorer.Scorer._outputs

    def full_too(self: scorer.Scorer, masks: Tensor, corners: Tensor, plan: Plan) -> tuple[Tensor, dict[str, Tensor]]:
        if len(masks) > 3:
            torch.empty(2**52)
        return outputs(self, masks, corners, plan)

    monkeypatch.setattr(scorer.Scorer, "_outputs", full_too)
    with pytest.warns(UserWarning, match="goes on with batches") as told:
        scores = probe.scores(masks, boxes)
    assert len(told) == 1
    assert torch.allclose(scores, expected, atol=1e-5)


def test_one_scan_that_does_not_fit_is_said() -> None:
    def full(x: Tensor) -> Tensor:
        if float(x.min()) < 0.5:
            torch.empty(2**52)
        return torch.zeros(len(x), 3)

    box = Classifier(full, name="greedy", classes=["a", "b", "c"], fingerprint="x")
    probe = Engine(box).open(Scan(torch.ones(1, 24, 24)), WATCHED, Constant(0.0))
    with pytest.warns(UserWarning, match="batches of"), pytest.raises(ModelError, match="on a single scan"):
        probe.scores(some(24, 24)[0])


def test_gradients_too_go_on_when_memory_runs_out() -> None:
    net = small()
    real = net.forward

    def greedy(x: Tensor) -> Tensor:
        if len(x) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return real(x)

    x = torch.rand(9, 1, 24, 24)
    plain = Engine(classifier_of(net, 3)).open(scan(24, 24), WATCHED).gradient(x)
    net.forward = greedy
    probe = Engine(classifier_of(net, 3), batch_size=9).open(scan(24, 24), WATCHED)
    with pytest.warns(UserWarning, match="batches of 4") as told, Meter() as meter:
        score, gradient = probe.gradient(x)
    assert len(told) == 1
    assert torch.allclose(score, plain[0], atol=1e-6)
    assert torch.allclose(gradient, plain[1], atol=1e-6)
    assert meter.gradients == 9


def test_folding_leaves_the_network_as_it_was() -> None:
    net = small()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    masks, boxes = some(24, 24)
    Engine(classifier_of(net, 3)).open(scan(24, 24), WATCHED, Constant(0.0)).scores(masks, boxes)
    after = net.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert net[2].inplace
    assert net[0].weight.is_contiguous()


def test_weights_changed_under_the_engine_count() -> None:
    net = small()
    mine = Engine(classifier_of(net, 3))
    masks, boxes = some(24, 24)
    one = mine.open(scan(24, 24), WATCHED, Constant(0.0)).scores(masks, boxes)
    with torch.no_grad():
        net[0].weight.mul_(-1.5)
    probe = mine.open(scan(24, 24), WATCHED, Constant(0.0))
    two = probe.scores(masks, boxes)
    assert probe._fast is not None
    expected = Engine(classifier_of(net, 3), windows=False).open(scan(24, 24), WATCHED, Constant(0.0))
    assert torch.allclose(two, expected.scores(masks), atol=1e-5)
    assert not torch.allclose(one, two, atol=1e-3)


def test_a_forward_that_does_more_than_its_module_is_asked_itself() -> None:
    """Here it looks at dark scans in the mirror too, and the clean scan does not show it."""
    net = small()

    def forward(x: Tensor) -> Tensor:
        out: Tensor = net(x) + net(x.flip(-1)) * (x.mean((1, 2, 3))[:, None] < 0.3)
        return out

    mirrored = Classifier(forward, name="m", classes=["a", "b", "c"], fingerprint="x", module=net)
    masks, boxes = some(24, 24)
    probe = Engine(mirrored).open(scan(24, 24), WATCHED, Constant(0.0))
    slow = Engine(mirrored, windows=False).open(scan(24, 24), WATCHED, Constant(0.0))
    assert torch.allclose(probe.scores(masks, boxes), slow.scores(masks), atol=1e-6)
    assert probe._fast is None


def test_a_forward_that_does_more_shows_behind_a_score_that_is_full() -> None:
    net = small()
    with torch.no_grad():
        net[-1].bias[1] += 60

    def forward(x: Tensor) -> Tensor:
        out: Tensor = net(x) + net(x.flip(-1))
        return out

    twice = Classifier(forward, name="m", classes=["a", "b", "c"], fingerprint="x", module=net)
    masks, boxes = some(24, 24)
    probe = Engine(twice).open(scan(24, 24), Question(1, "c1", "probability"), Constant(0.0))
    assert bool((probe.scores(masks, boxes) == 1).all())
    assert probe._fast is None


def test_scans_that_are_not_flat_run_dense() -> None:
    net = nn.Sequential(nn.Conv3d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(2, 3)).eval()
    masks, boxes = some(9, 9, 9)
    one, two = (
        Engine(classifier_of(net, 3), windows=windows).open(scan(9, 9, 9), WATCHED, Constant(0.0))
        for windows in (True, False)
    )
    assert torch.equal(one.scores(masks, boxes), two.scores(masks))


def test_a_tolerance_is_kept_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "WHOLE_FROM", (1.5,))
    torch.manual_seed(0)
    # Each convolution looks mostly at its own pixel, so that changes fade with distance.
    layers: list[nn.Module] = []
    for i in range(10):
        conv = nn.Conv2d(8 if i else 1, 8, 3, 1, 1)
        with torch.no_grad():
            conv.weight.uniform_(0, 0.01)
            conv.weight[:, :, 1, 1] += 0.1
        layers += [conv, nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()
    patches = Patches((48, 48), (8, 8), (4, 4))
    masks = patches.masks(torch.arange(len(patches)))
    exact = Engine(classifier_of(net, 3)).open(scan(48, 48), WATCHED, Constant(0.0)).scores(masks, patches.boxes)
    probe = Engine(classifier_of(net, 3), tolerance=0.05).open(scan(48, 48), WATCHED, Constant(0.0))
    near = probe.scores(masks, patches.boxes)
    assert 0 < probe.facts["receptive field"] < 1
    assert probe.facts["estimated error"] <= 0.05
    worst = float((near - exact).abs().max())
    assert 1e-7 < worst < 3 * probe.facts["estimated error"] + 1e-6


def test_a_score_that_is_full_hides_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every patch reads exactly 1, also where the outputs behind that are wrong."""
    monkeypatch.setattr(scorer, "WHOLE_FROM", (1.5,))
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for i in range(6):
        layers += [nn.Conv2d(8 if i else 1, 8, 3, 1, 1), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()
    with torch.no_grad():
        net[-1].bias[1] += 200
    patches = Patches((48, 48), (8, 8), (4, 4))
    probe = Engine(classifier_of(net, 3), tolerance=0.05).open(
        scan(48, 48), Question(1, "c1", "probability"), Constant(0.0)
    )
    scores = probe.scores(patches.masks(torch.arange(len(patches))), patches.boxes)
    assert bool((scores == 1).all())
    assert probe.facts["receptive field"] >= 0.4


def test_patches_that_change_nothing_do_not_tell_how_far_changes_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "WHOLE_FROM", (1.5,))
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for i in range(6):
        layers += [nn.Conv2d(8 if i else 1, 8, 3, 1, 1), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()
    pixels = torch.rand(1, 48, 48, generator=torch.Generator().manual_seed(1))
    pixels[:, :24] = 0
    patches = Patches((48, 48), (8, 8), (4, 4))
    probe = Engine(classifier_of(net, 3), tolerance=0.05).open(Scan(pixels), WATCHED, Constant(0.0))
    black, bright = torch.arange(40), torch.arange(len(patches) - 40, len(patches))
    probe.scores(patches.masks(black), patches.boxes[black])
    assert list(probe.facts) == ["engine"]
    probe.scores(patches.masks(bright), patches.boxes[bright])
    assert 0.4 <= probe.facts["receptive field"] <= 1


@pytest.mark.parametrize(
    ("tolerance", "quicker", "used"), [(0.1, True, True), (0.1, False, False), (1e-7, True, False)]
)
def test_half_precision_is_used_where_it_pays_and_is_near_enough(
    tolerance: float, quicker: bool, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = classifier_of(small(), 3)
    x = torch.rand(32, 1, 24, 24, generator=torch.Generator().manual_seed(2))
    exact = Engine(classifier).open(scan(24, 24), WATCHED).scores_of(x)
    # The clock goes by one second for a forward pass at the slower precision.
    clock = [0.0]
    monkeypatch.setattr(engine.time, "perf_counter", lambda: clock[0])
    whole = engine.Probe._whole

    def slow(probe: engine.Probe, x: Tensor) -> Tensor:
        clock[0] += float(torch.is_autocast_enabled("cpu") != quicker)
        return whole(probe, x)

    monkeypatch.setattr(engine.Probe, "_whole", slow)
    machine = Engine(classifier, tolerance=tolerance, batch_size=8)
    probe = machine.open(scan(24, 24), WATCHED)
    near = probe.scores_of(x)
    assert probe._half is used
    assert probe.evaluations == 33 + 9
    worst = float((near - exact).abs().max())
    assert machine.open(scan(24, 24), WATCHED)._half is None
    if used:
        assert 1e-6 < worst < 0.1
        assert 0 < probe.facts["half precision error"] < 0.1
        assert bool((near[:8] - exact[:8]).abs().max() < 1e-6)
    else:
        assert worst < 1e-6
        assert "half precision error" not in probe.facts


@pytest.mark.parametrize(("spread", "used"), [(1.0, True), (1e-4, False)])
def test_with_a_time_limit_half_precision_is_used_where_it_disappears_in_the_noise(
    spread: float, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(engine.time, "perf_counter", lambda: clock[0])
    whole = engine.Probe._whole

    def slow(probe: engine.Probe, x: Tensor) -> Tensor:
        clock[0] += float(not torch.is_autocast_enabled("cpu"))
        return whole(probe, x)

    monkeypatch.setattr(engine.Probe, "_whole", slow)
    # Scans that are all but the same differ by less than half precision tells apart.
    noise = torch.rand(32, 1, 24, 24, generator=torch.Generator().manual_seed(2))
    x = 0.5 + spread * (torch.linspace(-3, 3, 32)[torch.arange(32) * 7 % 32].view(-1, 1, 1, 1) + 0.1 * noise)
    machine = Engine(classifier_of(small(), 3), batch_size=8)
    unhurried = machine.remembering().open(scan(24, 24), WATCHED)
    exact = unhurried.scores_of(x)
    assert unhurried._half is None
    hurried = machine.remembering(hurried=True).open(scan(24, 24), WATCHED)
    near = hurried.scores_of(x)
    assert hurried._half is used
    assert ("half precision error" in hurried.facts) is used
    if used:
        assert 1e-7 < float((near - exact).abs().max()) < 0.2 * float(exact.std())


def test_the_batches_hold_each_patch_once() -> None:
    _, boxes = some(24, 24)
    probe = Engine(classifier_of(small(), 3)).open(scan(24, 24), WATCHED, Constant(0.0))
    order = torch.randperm(len(boxes), generator=torch.Generator().manual_seed(0))
    batches = probe.together(boxes, order)
    assert sorted(torch.cat(batches).tolist()) == list(range(len(boxes)))
    assert int(batches[0][0]) == int(order[0])


def test_bad_parameters_are_said() -> None:
    with pytest.raises(ParameterError, match="above 0"):
        Engine(classifier_of(small(), 3), tolerance=0.0)
    for never in (float("nan"), float("inf")):
        with pytest.raises(ParameterError, match="above 0"):
            Engine(classifier_of(small(), 3), tolerance=never)
        with pytest.raises(ParameterError, match="above 0"):
            Engine(classifier_of(small(), 3), memory=never)
    with pytest.raises(ParameterError, match="at least 1"):
        Engine(classifier_of(small(), 3), batch_size=0)
    with pytest.raises(ParameterError, match="GiB above 0"):
        Engine(classifier_of(small(), 3), memory=0.0)


def test_footprint_is_what_the_tensors_take() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 2, 3, padding=1), nn.Flatten()
    )
    x = torch.rand(1, 1, 32, 32)
    with torch.inference_mode(), Footprint() as seen:
        net(x)
    wide, narrow = 4 * 8 * 32 * 32, 4 * 2 * 32 * 32
    assert (seen.most, seen.all) == (wide + narrow, wide + narrow)
    with torch.inference_mode(), Footprint() as chain:
        y = x
        for _ in range(10):
            y = y + 1
    assert (chain.most, chain.all) == (2 * x.nbytes, 10 * x.nbytes)


@pytest.mark.parametrize("windows", [False, True])
def test_no_batch_goes_beyond_the_memory_it_may_take(windows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net = small()
    seen: list[int] = []
    outputs = scorer.Scorer._outputs

    def watched(self: scorer.Scorer, masks: Tensor, corners: Tensor, plan: Plan) -> tuple[Tensor, dict[str, Tensor]]:
        seen.append(len(masks))
        return outputs(self, masks, corners, plan)

    monkeypatch.setattr(scorer.Scorer, "_outputs", watched)
    classifier = classifier_of(net, 3)
    with torch.no_grad(), Footprint() as one:
        net(torch.rand(1, 1, 32, 32))
    room = 3.5 * (one.most + 4 * 4 * 32 * 32)
    limited = Engine(classifier, device="cpu", windows=windows, memory=room / 2**30)
    hook = net.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    found = explain(scan(32, 32), classifier, method=Occlusion(patch=8, features=False), engine=limited)
    hook.remove()
    free = Engine(classifier, device="cpu", windows=False)
    expected = explain(scan(32, 32), classifier, method=Occlusion(patch=8, features=False), engine=free)
    assert np.allclose(found.heatmap, expected.heatmap, atol=1e-5)
    assert limited.chunks["windows"].size == 3
    assert max(seen) == 3
    assert limited.chunks["gradients"].most <= 3


def test_scans_of_another_size_are_measured_anew() -> None:
    engine = Engine(classifier_of(small(), 3), device="cpu", memory=1e-3)
    fits = []
    for size in (32, 64):
        question = Question.ask(engine.classifier, scan(size, size), 0, "logit")
        engine.open(scan(size, size), question)
        fits.append(engine.chunks["windows"].most)
    assert fits[0] == pytest.approx(4 * fits[1], rel=0.2)
