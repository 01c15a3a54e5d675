"""Incremental inference gives what dense inference gives, for any network it accepts and any box."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from lucency import Scan, explain
from lucency.classifier import Question
from lucency.engine import Engine, scorer
from lucency.engine.folding import Bounded
from lucency.engine.graph import traced
from lucency.engine.incremental import Incremental
from lucency.masks import Patches
from lucency.methods.occlusion import Occlusion
from lucency.removal import Blur, Constant, Removal
from nets import classifier_of


class Drawn(nn.Module):
    """A network drawn by hypothesis: stages of branches that are added or concatenated."""

    def __init__(self, stages: list[list[Any]], join: list[str], inplace: bool) -> None:
        super().__init__()
        self.branches = nn.ModuleList()
        self.join = join
        width = 3
        first: list[nn.Module] = [nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace)]
        self.first = nn.Sequential(*first)
        for stage, how in zip(stages, join, strict=True):
            k, p, s, d, groups, pool = stage
            parts: list[nn.Module] = [
                nn.Conv2d(width, width, k, s, p, d, groups=width if groups else 1),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace),
            ]
            if how in ("add", "cat"):
                parts[0] = nn.Conv2d(width, width, 3, 1, d, d, groups=width if groups else 1)
            if pool == "max":
                self.branches.append(nn.Sequential(*parts))
                self.branches.append(nn.MaxPool2d(3, 2, 1, ceil_mode=bool(p)))
            elif pool == "mean":
                self.branches.append(nn.Sequential(*parts))
                self.branches.append(nn.AvgPool2d(2, 2, p % 2))
            else:
                self.branches.append(nn.Sequential(*parts))
                self.branches.append(nn.Identity())
            if how == "cat":
                width *= 2
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(width, 3)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.3, 0.3)
                module.running_var.uniform_(0.5, 2)
                nn.init.uniform_(module.weight, 0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for i, how in enumerate(self.join):
            y = self.branches[2 * i](x)
            if how == "add":
                y += x
            elif how == "cat":
                y = torch.cat([x, y], 1)
            x = self.branches[2 * i + 1](y)
        return self.head(torch.flatten(self.pool(x), 1))


STAGE = st.tuples(
    st.integers(1, 4), st.integers(0, 2), st.integers(1, 3), st.integers(1, 2), st.booleans(),
    st.sampled_from(["max", "mean", "none"]),
)  # fmt: skip


@given(
    stages=st.lists(STAGE, min_size=1, max_size=3),
    join=st.lists(st.sampled_from(["add", "cat", "none"]), min_size=3, max_size=3),
    inplace=st.booleans(),
    size=st.tuples(st.integers(37, 60), st.integers(37, 60)),
    patch=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    whole_from=st.sampled_from([0.0, 0.3, 0.8, 1.5]),
    seed=st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_same_as_dense(
    stages: list[list[Any]],
    join: list[str],
    inplace: bool,
    size: tuple[int, int],
    patch: tuple[int, int],
    whole_from: float,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    net = Drawn(stages, join[: len(stages)], inplace).eval()
    scan = Scan(torch.rand(1, *size))
    try:
        net(scan.pixels[None])
    except RuntimeError:
        # Too many strides for the scan: the network itself cannot run.
        reject()
    patches = Patches(size, patch, tuple(p // 2 + 1 for p in patch))
    which = torch.randperm(len(patches))[:40]
    masks, boxes = patches.masks(which), patches.boxes[which]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(scorer, "WHOLE_FROM", (whole_from,))
        probes = [
            Engine(classifier_of(net, 3), windows=windows).open(scan, Question(1, "c1", "logit"), Constant(0.0))
            for windows in (True, False)
        ]
        fast, slow = (probe.scores(masks, boxes) for probe in probes)
    assert (probes[0]._fast is not None) == (len(which) >= 4)
    assert probes[0].evaluations == 1 + len(which)
    assert torch.allclose(fast, slow, atol=1e-5)
    # A drawn network may be dead, and proves nothing then.
    assume((slow - probes[1].clean).abs().max() > 1e-7)


class Ceiling(nn.Module):
    """A pooling that looks over the border although it does not pad."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.after = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.after(self.pool(self.first(x))).mean((2, 3)))


class Apart(nn.Module):
    """Branches whose strides do not divide each other."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(1, 4, 3, one, 1), nn.Conv2d(1, 4, 3, other, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([F.relu(branch(x)).mean((2, 3)) for branch in (self.one, self.other)], 1))


@pytest.mark.parametrize(
    ("net", "size", "patch"),
    [
        (Ceiling, (41, 37), 4),
        (Ceiling, (40, 37), 6),
        (lambda: Apart(2, 3), (8, 8), 2),
        (lambda: Apart(2, 3), (41, 37), 5),
        (lambda: Apart(4, 6), (17, 17), 5),
        (lambda: Apart(4, 6), (64, 64), 5),
    ],
)
def test_borders_and_strides_that_few_networks_have(
    net: Callable[[], nn.Module], size: tuple[int, int], patch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer, "WHOLE_FROM", (1.5,))
    torch.manual_seed(0)
    classifier, scan = classifier_of(net(), 3), Scan(torch.rand(1, *size))
    patches = Patches(size, (patch, patch), (1, 1))
    masks = patches.masks(torch.arange(len(patches)))
    probe, plain = (
        Engine(classifier, windows=windows).open(scan, Question(1, "c1", "logit"), Constant(0.0))
        for windows in (True, False)
    )
    expected = plain.scores(masks)
    assert torch.allclose(probe.scores(masks, patches.boxes), expected, atol=1e-6)
    assert probe._fast is not None
    assert (expected - plain.clean).abs().max() > 1e-4


class Odd(nn.Module):
    """Operators without a rule: the graph goes on dense from there."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.after = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)
        nn.init.normal_(self.head.weight, std=10.0)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x), inplace=True)
        x = x * torch.softmax(x, 1)
        x = F.relu(self.after(x))
        return self.head(x.mean((2, 3)))


class Branching(Odd):
    """Control flow on values: no graph."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * 2 if float(x.sum()) > 0 else x)


class Sized(Odd):
    """Computes with the batch size, which in the clean run is one."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        return self.head(x.mean((2, 3)).view(x.size(0), 4))


class Overwrites(Odd):
    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x.relu_()
        return self.head(x.mean((2, 3)))


class Deep(Odd):
    """Five axes inside, which no layout for images fits."""

    def __init__(self) -> None:
        super().__init__()
        self.after = nn.Conv3d(4, 4, (1, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        return self.head(F.relu(self.after(x.unsqueeze(2))).mean((2, 3, 4)))


class Named(Odd):
    """A batch norm whose input is given by name."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(input=self.conv(x))).mean((2, 3)))


@pytest.mark.parametrize("kind", [Odd, Branching, Sized, Overwrites, Deep, Named])
@pytest.mark.parametrize("removal", [Constant(0.3), Blur(2.0)])
def test_what_is_not_known_is_never_wrong(kind: type[Odd], removal: Removal) -> None:
    torch.manual_seed(1)
    classifier = classifier_of(kind(), 3)
    scan = Scan(torch.rand(1, 33, 29))
    how = Occlusion(patch=5, stride=3, removal=removal)
    fast = explain(scan, classifier, target=2, watch="logit", method=how)
    slow = explain(scan, classifier, target=2, watch="logit", method=how, engine=Engine(classifier, windows=False))
    assert abs(fast.heatmap - slow.heatmap).max() < 1e-5
    assert abs(slow.heatmap).max() > 1e-4
    for name, also in slow.also.items():
        assert abs(fast.also[name] - also).max() < 1e-5


class Dense(nn.Module):
    """Layers that read all before them, gathered as torchvision does it, or by one more concatenation each."""

    def __init__(self, nested: bool) -> None:
        super().__init__()
        self.nested = nested
        self.first = nn.Conv2d(1, 4, 3, 2, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4 + 3 * i) for i in range(4))
        self.convs = nn.ModuleList(nn.Conv2d(4 + 3 * i, 3, 3, padding=1) for i in range(4))
        self.head = nn.Linear(16, 3)
        for norm in self.norms:
            norm.running_mean.uniform_(-0.3, 0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        features = [x]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            new = conv(F.relu(norm(x)))
            features.append(new)
            x = torch.cat([x, new] if self.nested else features, 1)
        return self.head(F.avg_pool2d(x, 2).mean((2, 3)))


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("whole_from", [0.1, 0.3, 1.5])
def test_concatenations_share_a_buffer(nested: bool, whole_from: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "WHOLE_FROM", (whole_from,))
    torch.manual_seed(2)
    net = Dense(nested).eval()
    patches = Patches((40, 36), (6, 6), (3, 3))
    every = torch.arange(len(patches))
    fast, slow = (
        Engine(classifier_of(net, 3), windows=windows)
        .open(Scan(torch.rand(1, 40, 36, generator=torch.Generator().manual_seed(3))), Question(1, "c1", "logit"),
              Constant(0.0))
        .scores(patches.masks(every), patches.boxes)
        for windows in (True, False)
    )  # fmt: skip
    assert torch.allclose(fast, slow, atol=1e-5)
    assert slow.std() > 2e-4


def test_windows_stay_small() -> None:
    """Two 3 x 3 convolutions and a 2 x 2 pooling: the sizes that pen and paper give."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1), nn.MaxPool2d(2)).eval()
    scan = torch.rand(1, 1, 64, 64)
    graph = traced(net, scan)
    assert graph is not None
    state = Incremental(graph, scan)
    plan = state.plan((8, 8), 0.9)
    assert plan.stride == (2, 2)
    places = [p for n, p in state.places(plan, (0, 1)).items() if n.op == "call_module"]
    assert [(p.top, p.left, p.height, p.width) for p in places] == [
        (-1, 0, 10, 10),
        (-2, -1, 12, 12),
        (-1, -1, 6, 7),
    ]


class BeforeConvolution(nn.Module):
    """Batch norm and rectifier before a convolution, as DenseNets have them; some slopes are negative."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.one = nn.Conv2d(6, 5, 1)
        self.norm2 = nn.BatchNorm2d(6)
        self.three = nn.Conv2d(6, 5, 3, bias=False)
        self.head = nn.Linear(5, 3)
        for norm in (self.norm, self.norm2):
            norm.weight.data = torch.tensor([1.5, -0.7, 0.3, -2.0, 1.0, 0.5])
            norm.bias.data.uniform_(-0.5, 0.5)
            norm.running_mean.uniform_(-0.3, 0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.three(F.relu(self.norm2(torch.cat([x], 1))))
        z = self.one(self.relu(self.norm(torch.cat([x], 1))))
        return self.head(y.mean((2, 3)) + z.mean((2, 3)))


@pytest.mark.parametrize("dead", [False, True])
def test_norm_and_rectifier_before_a_convolution_are_one(dead: bool) -> None:
    torch.manual_seed(4)
    net = BeforeConvolution().eval()
    if dead:
        # A slope of nothing has no bound to stand for it.
        net.norm.weight.data[2] = 0.0
    x = torch.rand(3, 1, 20, 20)
    graph = traced(net, x[:1])
    assert graph is not None
    bounded = sum(isinstance(m, Bounded) for m in graph.modules())
    assert bounded == (1 if dead else 2)
    assert torch.allclose(graph(x), net(x), atol=1e-6)
    kept = traced(net, x[:1], ["norm", "norm2"])
    assert kept is not None
    assert not any(isinstance(m, Bounded) for m in kept.modules())


def test_copying_an_exported_program_does_not_reach_the_user() -> None:
    program = torch.export.export(BeforeConvolution().eval(), (torch.rand(1, 1, 20, 20),)).module()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        traced(program, torch.rand(1, 1, 20, 20))
    assert not told
