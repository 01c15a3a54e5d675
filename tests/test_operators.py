"""Every operator on windows gives what the plain network gives, alone and in networks that are drawn."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lucency import Scan, explain
from lucency.classifier import Question
from lucency.engine import Engine, scorer
from lucency.engine.graph import traced
from lucency.engine.incremental import Incremental
from lucency.masks import Patches
from lucency.methods.occlusion import Occlusion
from lucency.removal import Constant
from nets import classifier_of

WIDTH = 8


class Call(nn.Module):
    """A function with the weights that it needs."""

    def __init__(self, work: Callable[..., Tensor], **weights: Tensor | nn.Module) -> None:
        super().__init__()
        self.work = work
        self.names = list(weights)
        for name, weight in weights.items():
            if isinstance(weight, nn.Module):
                self.add_module(name, weight)
            else:
                self.register_parameter(name, nn.Parameter(weight))

    def forward(self, x: Tensor) -> Tensor:
        return self.work(x, *(getattr(self, name) for name in self.names))


def last(work: nn.Module) -> nn.Module:
    """On a map whose channels are last."""
    return Call(lambda x, m: m(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), m=work)


class LayerNorm2d(nn.LayerNorm):
    """As torchvision and timm spell it: channels first."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class ByHand(nn.Module):
    """A norm over channels as the authors of ConvNeXt spell it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(WIDTH)), nn.Parameter(torch.rand(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        u = x.mean(1, keepdim=True)
        s = (x - u).pow(2).mean(1, keepdim=True)
        x = (x - u) / torch.sqrt(s + 1e-3)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class ConvNeXt(nn.Module):
    """A block: depthwise 7 x 7, then by channels of one pixel, a scale for each channel, and a shortcut."""

    def __init__(self, transpose: bool) -> None:
        super().__init__()
        self.transpose = transpose
        self.depthwise = nn.Conv2d(WIDTH, WIDTH, 7, padding=3, groups=WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.one, self.two = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.gamma = nn.Parameter(torch.rand(WIDTH) + 0.5)
        self.path = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x)
        y = y.transpose(1, 2).transpose(2, 3) if self.transpose else y.permute(0, 2, 3, 1)
        y = self.gamma * self.two(F.gelu(self.one(self.norm(y))))
        y = y.movedim(3, 1) if self.transpose else y.permute((0, 3, 1, 2))
        return x + self.path(y)


class NormAct(nn.BatchNorm2d):
    """As timm spells a norm with an activation: a check, and the norm as a function."""

    def forward(self, x: Tensor) -> Tensor:
        torch._assert(x.ndim == 4, "four axes")
        x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.1, self.eps)
        return F.relu(x, inplace=True)


class Standardised(nn.Conv2d):
    """A convolution whose weight is computed from constants."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Split(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv = nn.Conv2d(WIDTH // 2, WIDTH // 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "chunk":
            a, b = x.chunk(2, dim=1)
        elif self.how == "split":
            a, b = torch.split(x, [WIDTH // 2, WIDTH // 2], 1)
        else:
            a, b = x[:, : WIDTH // 2], x[:, WIDTH // 2 :]
        return torch.cat([a, self.conv(b)], dim=1)


class Gated(nn.Module):
    """Squeeze and excitation: windows end here, and the rest is whole."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first = first
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.one, self.two = nn.Conv2d(WIDTH, 4, 1), nn.Conv2d(4, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.conv(x), inplace=True)
        gate = torch.sigmoid(self.two(F.relu(self.one(F.adaptive_avg_pool2d(y, 1)))))
        return x + (gate * y if self.first else y * gate)


class Attention(nn.Module):
    """A map as a row of tokens, and back: windows end here too."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(x, 8)
        b, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attend(tokens, tokens, tokens, need_weights=False)[0]
        return tokens.transpose(1, 2).reshape(b, c, h, w)


WHOLE: dict[str, Callable[[], nn.Module]] = {
    "gate": lambda: Gated(False),
    "gate in front": lambda: Gated(True),
    "group norm": lambda: nn.GroupNorm(2, WIDTH),
    "attention": Attention,
    "reflecting": lambda: nn.Conv2d(WIDTH, WIDTH, 3, padding=1, padding_mode="reflect"),
    "bilinear": lambda: nn.Upsample(scale_factor=1.5, mode="bilinear"),
}


def conv(kernel: int, stride: int = 1, padding: int | str = 0, dilation: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(WIDTH, WIDTH, kernel, stride, padding, dilation, groups)


def weights(kernel: int, groups: int = 1) -> Tensor:
    return torch.randn(WIDTH, WIDTH // groups, kernel, kernel) / kernel


PIECES: dict[str, Callable[[], nn.Module]] = {
    "convolution": lambda: conv(3, 1, 1),
    "convolution, stride 2": lambda: conv(3, 2, 1),
    "convolution, even": lambda: conv(4, 2, 1),
    "convolution, dilated": lambda: conv(3, 1, 2, 2),
    "convolution, same": lambda: conv(3, padding="same"),
    "convolution, same, even": lambda: conv(4, padding="same", dilation=2),
    "convolution, valid": lambda: conv(3, padding="valid"),
    "convolution, depthwise": lambda: conv(7, 1, 3, groups=WIDTH),
    "F.conv2d": lambda: Call(lambda x, w: F.conv2d(x, w, stride=2, padding=1), w=weights(3)),
    "F.conv2d, same": lambda: Call(lambda x, w: F.conv2d(x, w, padding="same"), w=weights(3)),
    "standardised weights": lambda: Standardised(WIDTH, WIDTH, 3, padding=1),
    "batch norm": lambda: nn.BatchNorm2d(WIDTH),
    "norm and activation": lambda: NormAct(WIDTH),
    "layer norm, channels first": lambda: LayerNorm2d(WIDTH),
    "layer norm, channels last": lambda: last(nn.LayerNorm(WIDTH)),
    "layer norm by hand": ByHand,
    "linear, channels last": lambda: last(nn.Linear(WIDTH, WIDTH)),
    "ConvNeXt": lambda: ConvNeXt(False),
    "ConvNeXt, transposed": lambda: ConvNeXt(True),
    "maximum": lambda: nn.MaxPool2d(3, 2, 1),
    "maximum, ceil": lambda: nn.MaxPool2d(2, 2, ceil_mode=True),
    "F.max_pool2d": lambda: Call(lambda x: F.max_pool2d(x, 3, 1, 1)),
    "mean": lambda: nn.AvgPool2d(2),
    "mean, padded": lambda: nn.AvgPool2d(3, 2, 1),
    "mean of what is there": lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "mean, ceil": lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "F.avg_pool2d": lambda: Call(lambda x: F.avg_pool2d(x, 3, 2, 1, True, False)),
    "pad": lambda: nn.Sequential(nn.ZeroPad2d((1, 2, 0, 1)), conv(3)),
    "F.pad": lambda: Call(lambda x, m: m(F.pad(x, [0, 1, 2, 1], value=0.3)), m=conv(3, 2)),
    "crop": lambda: Call(lambda x: x[:, :, 1:, 2:-1]),
    "every second": lambda: Call(lambda x: x[..., ::2, 1::2]),
    "chunk": lambda: Split("chunk"),
    "split": lambda: Split("split"),
    "slices": lambda: Split("slices"),
    "pixel shuffle": lambda: nn.Sequential(nn.Conv2d(WIDTH, 4 * WIDTH, 1), nn.PixelShuffle(2)),
    "nearest": lambda: nn.Upsample(scale_factor=2),
    "F.interpolate": lambda: Call(lambda x: F.interpolate(F.avg_pool2d(x, 2), scale_factor=3.0)),
    "sum": lambda: Call(lambda x, m: x + m(x), m=conv(3, 1, 1)),
    "sum in place": lambda: Call(lambda x, m: operator.iadd(m(x), x), m=conv(3, 1, 1)),
    "weighted sum": lambda: Call(lambda x, m: torch.add(x, m(x), alpha=0.3), m=conv(5, 1, 2)),
    "difference": lambda: Call(lambda x, m: m(x) - x, m=conv(3, 1, 1)),
    "product": lambda: Call(lambda x, m: x * torch.sigmoid(m(x)), m=conv(3, 1, 1)),
    "quotient": lambda: Call(lambda x, m: x / (1 + m(x).abs()), m=conv(3, 1, 1)),
    "larger": lambda: Call(lambda x, m: torch.maximum(x, m(x)), m=conv(3, 1, 1)),
    "one gate for all channels": lambda: Call(lambda x, m: x * m(x).sigmoid(), m=nn.Conv2d(WIDTH, 1, 3, padding=1)),
    "numbers": lambda: Call(lambda x: (2.0 * x - 0.3) / 1.7 + 0.1),
    "numbers in front": lambda: Call(lambda x: 0.5 - 1.0 * x),
    "scale of channels": lambda: Call(lambda x, s: s * x, s=torch.rand(WIDTH, 1, 1)),
    "concatenation": lambda: Call(lambda x, m: m(torch.cat([x, -x], 1)), m=nn.Conv2d(2 * WIDTH, WIDTH, 1)),
    "PReLU": lambda: nn.PReLU(WIDTH),
    "softmax": lambda: Call(lambda x: x * torch.softmax(x, 1)),
    "normalised": lambda: Call(lambda x: F.normalize(x, dim=1)),
    "view method": lambda: Call(lambda x: x.clone().contiguous()),
    "shape test": lambda: Call(lambda x: x * 2 if x.shape[-1] % 2 or x.shape[1] == WIDTH else x),
} | {
    activation.__name__: activation
    for activation in (
        nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid,
        nn.Mish, nn.Softplus, nn.SELU, nn.CELU, nn.Softsign, nn.Hardtanh, nn.LogSigmoid,
    )
} | {
    name: lambda work=work: Call(work)
    for name, work in {
        "F.leaky_relu": lambda x: F.leaky_relu(x, 0.2, True), "F.hardswish": F.hardswish, "F.mish": F.mish,
        "F.silu": lambda x: F.silu(x, inplace=True), "F.gelu": lambda x: F.gelu(x, approximate="tanh"),
        "F.elu": lambda x: F.elu(x, 0.7), "F.softplus": F.softplus, "sigmoid": lambda x: x.sigmoid(),
        "tanh": torch.tanh, "clamp": lambda x: x.clamp(-0.5, 0.5), "relu_": lambda x: torch.relu_(x * 2),
    }.items()
}  # fmt: skip

HEADS: dict[str, Callable[[], nn.Module]] = {
    "pool": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "mean": lambda: Call(lambda x: x.mean((2, 3))),
    "mean, kept": lambda: Call(lambda x: x.mean((2, 3), True).flatten(1)),
    "mean, view": lambda: Call(lambda x: x.mean([-1, -2]).view(x.size(0), -1)),
    "channels last": lambda: Call(lambda x: x.permute(0, 2, 3, 1).mean((1, 2))),
    "several": lambda: Call(lambda x: F.adaptive_avg_pool2d(x, 1).view(x.shape[0], -1)),
    "view": lambda: Call(lambda x: F.adaptive_max_pool2d(x, 3).view(x.size(0), -1)[:, :WIDTH]),
}


class Stack(nn.Module):
    """Pieces one after the other; ``forward`` as people write it, with a check and an argument too many."""

    def __init__(self, pieces: list[str], head: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, WIDTH, 3, padding=1)
        self.pieces = nn.ModuleList({**PIECES, **WHOLE}[name]() for name in pieces)
        self.pool = HEADS[head]()
        self.head = nn.Linear(WIDTH, 3)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.3, 0.3)
                module.running_var.uniform_(0.5, 2)
                nn.init.uniform_(module.weight, 0.5, 1.5)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        assert x.shape[1] == 1, "one channel"
        if x.dim() != 4 or (mask is not None and mask.shape != x.shape):
            raise ValueError
        x = self.stem(x)
        for piece in self.pieces:
            x = piece(x)
        return self.head(self.pool(x))


def check(net: nn.Module, size: tuple[int, int], patch: tuple[int, int]) -> Incremental:
    """Scores of patches all over the scan, and in its corners, with windows and without."""
    net.eval()
    scan = Scan(torch.rand(1, *size))
    patches = Patches(size, patch, (max(1, patch[0] // 2), max(1, patch[1] // 2)))
    which = torch.cat([torch.randperm(len(patches))[:30], torch.tensor([0, len(patches) - 1])])
    masks, boxes = patches.masks(which), patches.boxes[which]
    fast, plain = (
        Engine(classifier_of(net, 3), windows=windows).open(scan, Question(1, "c1", "logit"), Constant(0.0))
        for windows in (True, False)
    )
    expected = plain.scores(masks)
    found = fast.scores(masks, boxes)
    assert fast._fast is not None
    size_of_it = float(expected.abs().max().clamp_min(1))
    assert torch.allclose(found, expected, atol=2e-6 * size_of_it, rtol=1e-5)
    return fast._fast._state


@pytest.fixture(autouse=True)
def always_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "WHOLE_FROM", (1.5,))


@pytest.mark.parametrize("name", PIECES)
def test_each_alone(name: str) -> None:
    torch.manual_seed(len(name))
    net = Stack([name, "convolution"], "mean")
    state = check(net, (37, 41), (5, 6))
    plan = state.plan((5, 6), 1.5)
    # Everything up to the mean is computed on windows.
    pooled = next(n for n in state.nodes if n in state.operators and state.operators[n].axes is None and n.users)
    before = [n for n in state.nodes[: state.nodes.index(pooled)] if n not in state.constant]
    assert [n for n in before if n not in plan.windows] == []


@pytest.mark.parametrize("name", WHOLE)
def test_what_mixes_the_whole_map_ends_the_windows(name: str) -> None:
    torch.manual_seed(len(name))
    check(Stack(["convolution", name, "ConvNeXt", "sum", "SiLU"], "mean"), (33, 38), (4, 4))


@pytest.mark.parametrize("head", HEADS)
def test_each_head(head: str) -> None:
    torch.manual_seed(1)
    check(Stack(["convolution", "ReLU"], head), (33, 38), (4, 4))


@pytest.mark.parametrize("seed", range(30))
def test_drawn(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of pieces at random, on sizes and strides at random, from windows all through to half of them."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    monkeypatch.setattr(scorer, "WHOLE_FROM", (draw.choice([0.3, 0.8, 1.5]),))
    pieces = draw.sample(list(PIECES), draw.randint(2, 6))
    if draw.random() < 0.5:
        pieces.insert(draw.randrange(len(pieces)), draw.choice(list(WHOLE)))
    net = Stack(pieces, draw.choice(list(HEADS)))
    size = (draw.randint(61, 83), draw.randint(61, 83))
    check(net, size, (draw.randint(1, 11), draw.randint(1, 11)))


def test_an_explanation_says_what_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(5)
    net = Stack(["convolution", "ReLU", "convolution, stride 2"], "mean")
    how = Occlusion(patch=6, stride=3, removal=Constant(0.0), features=False)
    scan = Scan(torch.rand(1, 40, 40))
    for from_where, engine, said in (
        (1.5, Engine(classifier_of(net, 3)), "windows, 3 of 4 layers"),
        (0.0, Engine(classifier_of(net, 3)), "whole scans, folded network"),
        (1.5, Engine(classifier_of(net, 3), windows=False), "whole scans, network as it is"),
    ):
        monkeypatch.setattr(scorer, "WHOLE_FROM", (from_where,))
        found = explain(scan, engine.classifier, target=1, method=how, engine=engine)
        assert found.facts["engine"] == said


def test_exported_programs_run_on_windows() -> None:
    torch.manual_seed(2)
    net = Stack(["norm and activation", "ConvNeXt", "maximum", "F.hardswish", "split", "GELU"], "pool").eval()
    batch = torch.export.Dim("batch", max=64)
    x = torch.rand(2, 1, 40, 36)
    program = torch.export.export(net, (x,), dynamic_shapes=({0: batch},)).module()
    graph = traced(program, x[:1])
    assert graph is not None
    with torch.inference_mode():
        state = Incremental(graph, x[:1])
    assert torch.allclose(state.clean[state.nodes[-1]], net(x[:1]), atol=1e-6)
    known = [n for n in state.nodes if n in state.operators]
    assert len(state.plan((5, 5), 1.5).windows) >= len(known) - 1


def test_what_depends_on_the_batch_is_not_baked_in() -> None:
    class Folded(nn.Module):
        """The batch and the channels in one axis, and back."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 3, 3, padding=1), nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            batch, channels, height, width = x.shape
            y = self.conv(x.reshape(batch * channels, 1, height, width)).reshape(batch, -1, height, width)
            return self.head(F.adaptive_avg_pool2d(y, 2).flatten(1))

    torch.manual_seed(3)
    check(Folded(), (20, 21), (4, 4))
