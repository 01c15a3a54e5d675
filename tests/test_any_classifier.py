"""Any kind of network or function is read as what it is: its scores against plain PyTorch, its maps against a loop."""

from __future__ import annotations

import re
import threading
import warnings
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Occlusion as PlainLoop
from torch import Tensor, nn
from torch.nn import functional as F

from lucency import Scan, load_classifier
from lucency.classifier import Classifier, Question
from lucency.classifier.trial import scan_like
from lucency.engine import Engine
from lucency.errors import ModelError, QuestionError
from lucency.methods import METHODS
from lucency.methods.gradient import Gradient
from lucency.methods.occlusion import Occlusion
from lucency.recipe import explain
from lucency.removal import Constant
from test_every_method import cheap

SIZE = (12, 10)
PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "own-model.md"
Pair = namedtuple("Pair", "features logits")


@dataclass
class Answer:
    """What Hugging Face models return looks so."""

    loss: Tensor | None
    logits: Tensor


class Net(nn.Module):
    """Scores of a few classes from a grey picture, put out as the test wants."""

    def __init__(self, classes: int = 3, end: Callable[[Tensor], Any] = lambda y: y, channels: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU())
        self.head = nn.Linear(5, classes)
        self.end = end
        with torch.no_grad():
            # Far apart, so that a second squashing would be seen.
            self.head.weight.mul_(12)
            self.head.bias.copy_(
                torch.linspace(-1.5, 0.5, classes) - self.head(self.features(self.grey()).mean((2, 3)))[0]
            )

    def grey(self) -> Tensor:
        return torch.full((1, self.features[0].in_channels, *SIZE), 0.4)

    def scores(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.features(x).mean((2, 3)))
        return scores

    def forward(self, x: Tensor) -> Any:
        return self.end(self.scores(x))


class Maps(Net):
    """A segmentation: a map of logits for each class."""

    def scores(self, x: Tensor) -> Tensor:
        return F.conv2d(self.features(x), self.head.weight[:, :, None, None], self.head.bias)


class WithAge(Net):
    def forward(self, x: Tensor, age: Tensor, double: bool = False) -> Tensor:
        assert x.dtype == age.dtype
        scores = self.scores(x) * (1 + age / 100)
        return 2 * scores if double else scores


class Keeps(Net):
    """Keeps its last activations, as networks with built-in Grad-CAM do."""

    def scores(self, x: Tensor) -> Tensor:
        self.kept = self.features(x)
        self.history = [self.kept.sum()]
        scores: Tensor = self.head(self.kept.mean((2, 3)))
        return scores


class Locked(Net):
    """Holds something that cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Builds(Net):
    """Makes its head when it first sees a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.head = None  # type: ignore[assignment]

    def scores(self, x: Tensor) -> Tensor:
        maps = self.features(x).mean((2, 3))
        if self.head is None:
            self.head = nn.Linear(maps.shape[1], 3)
        scores: Tensor = self.head(maps)
        return scores


class Standardises(Net):
    """Undefined on a flat picture."""

    def scores(self, x: Tensor) -> Tensor:
        return super().scores((x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True))


class Backwards(Net):
    """Defines the layer that sees the scan after the others, which read other numbers of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.later, self.first = nn.Conv2d(3, 1, 1), nn.Conv2d(1, 3, 1)

    def scores(self, x: Tensor) -> Tensor:
        return super().scores(self.later(self.first(x)))


class Repeats(Net):
    """Repeats a grey picture itself."""

    def __init__(self) -> None:
        super().__init__(channels=3)

    def scores(self, x: Tensor) -> Tensor:
        return super().scores(x.repeat(1, 3, 1, 1))


class Alone(Net):
    """Takes one scan at a time."""

    def scores(self, x: Tensor) -> Tensor:
        if len(x) != 1:
            raise ValueError("one at a time")
        return super().scores(x)


class Wrapper(nn.Module):
    """As parameter-efficient tuning wraps a network: everything is handed on."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base_model = base

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.base_model, name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.base_model(*args, **kwargs)


def softmax(net: Net, x: Tensor) -> Tensor:
    return net.scores(x).softmax(1)


def sigmoid(net: Net, x: Tensor) -> Tensor:
    return net.scores(x).sigmoid()


def both(net: Net, x: Tensor) -> Tensor:
    p = net.scores(x).sigmoid()
    return torch.cat([1 - p, p], 1)


@dataclass
class Kind:
    """A kind of model, what happens to it (a row of the page), and what its probabilities are."""

    name: str
    happens: str
    make: Callable[[], Any]
    truth: Callable[[Any, Tensor], Tensor]
    options: dict[str, Any] = field(default_factory=dict)
    outputs: str = "logits"
    exclusive: bool = True
    notice: str = ""
    tolerance: float = 1e-5
    """Of probabilities; that of logits is larger, by what a half precision rounds."""


def ended(end: Callable[[Tensor], Any], classes: int = 3) -> Callable[[], Net]:
    return lambda: Net(classes, end)


def quietly(make: Callable[[], Any]) -> Callable[[], Any]:
    """What PyTorch is about to give up still loads."""

    def made() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make()

    return made


def scripted() -> Any:
    return torch.jit.script(Plain().eval())


class Plain(nn.Module):
    """The same scores, in words that TorchScript reads."""

    def __init__(self) -> None:
        super().__init__()
        net = Net()
        self.features, self.head = net.features, net.head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean(dim=[2, 3]))


def plain(_: Any, x: Tensor) -> Tensor:
    return Net().scores(x).softmax(1)


def quantised(by: float = 1) -> nn.Module:
    net = Plain().eval()
    with torch.no_grad():
        net.head.weight.mul_(by)
    return torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)


def normed() -> nn.Module:
    torch.manual_seed(1)
    first, second = nn.utils.weight_norm(nn.Conv2d(1, 4, 3)), nn.utils.spectral_norm(nn.Conv2d(4, 5, 3))
    net = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))
    return used(net).eval()


def used(net: nn.Module) -> nn.Module:
    """After a pass with gradients, so that whatever it keeps belongs to a graph."""
    net(torch.rand(2, 1, *SIZE)).sum().backward()
    return net


def on_arrays(x: np.ndarray) -> np.ndarray:
    assert isinstance(x, np.ndarray)
    with torch.no_grad():
        return Net()(torch.from_numpy(x)).numpy()


def on_tensors(x: Tensor) -> Tensor:
    return Net()(x)  # type: ignore[no-any-return]


def row_by_row(x: np.ndarray) -> list[list[float]]:
    return [Net()(torch.from_numpy(one[None]))[0].tolist() for one in x]


def squashed(x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return Net().scores(torch.from_numpy(x)).softmax(1).numpy()


REGION = np.zeros((SIZE[0] - 2, SIZE[1] - 2))
REGION[2:6, 3:5] = 1

KINDS = [
    Kind("logits", "softmax, and a notice that classes are taken to exclude each other", Net, softmax,
         notice="taken to exclude each other"),
    Kind("logits, said not to exclude each other", "a sigmoid each", Net, sigmoid, {"exclusive": False},
         exclusive=False),
    Kind("one logit, one name", "sigmoid", lambda: Net(1), sigmoid, exclusive=False),
    Kind("one logit, two names", "sigmoid; the names are the negative and the positive class, `1 - p` and `p`",
         lambda: Net(1), both, {"classes": ["healthy", "effusion"]}, exclusive=False),
    Kind("one logit for each scan, shape `[B]`", "sigmoid", ended(lambda y: y.squeeze(), 1), sigmoid,
         exclusive=False),
    Kind("one probability, two names", "taken as it is; `1 - p` and `p`", ended(torch.sigmoid, 1), both,
         {"classes": ["healthy", "effusion"]}, "probabilities", False, "last step is a sigmoid"),
    Kind("ends in a softmax", "probabilities that exclude each other, not squashed again",
         ended(lambda y: y.softmax(1)), softmax, outputs="probabilities", notice="last step is a softmax"),
    Kind("ends in a sigmoid", "probabilities that do not exclude each other", ended(torch.sigmoid), sigmoid,
         outputs="probabilities", exclusive=False, notice="last step is a sigmoid"),
    Kind("ends in a hard sigmoid", "the same", ended(F.hardsigmoid), lambda n, x: F.hardsigmoid(n.scores(x)),
         outputs="probabilities", exclusive=False, notice="last step is a sigmoid"),
    Kind("ends in a log-softmax", "logarithms of probabilities", ended(lambda y: F.log_softmax(y, 1)), softmax,
         outputs="log-probabilities", notice="logarithms"),
    Kind("ends in a log-sigmoid", "logarithms of probabilities that do not exclude each other", ended(F.logsigmoid),
         sigmoid, outputs="log-probabilities", exclusive=False, notice="logarithms"),
    Kind("logits with a temperature", "logits", ended(lambda y: y / 1.5), lambda n, x: (n.scores(x) / 1.5).softmax(1),
         notice="linear layer"),
    Kind("probabilities made in another way", "judged by the numbers: rows that add up to 1",
         ended(lambda y: y.exp() / y.exp().sum(1, keepdim=True)), softmax, outputs="probabilities",
         notice="add up to 1"),
    Kind("a tuple of scores and feature maps", "the scores",
         ended(lambda y: (y[:, :, None, None].repeat(1, 1, 4, 4), y)), softmax, notice="'1' is taken"),
    Kind("a dictionary with `logits`", "the logits", ended(lambda y: {"features": y * 2, "logits": y}), softmax,
         notice="'logits'"),
    Kind("a named tuple with `logits`", "the logits", ended(lambda y: Pair(y * 2, y)), softmax, notice="'logits'"),
    Kind("a dataclass with `.logits` (Hugging Face)", "the logits", ended(lambda y: Answer(None, y)), softmax,
         notice="'logits'"),
    Kind("nested containers, `output=\"heads.finding\"`", "the named part",
         ended(lambda y: {"heads": {"view": y * 2, "finding": y}}), softmax, {"output": "heads.finding"},
         notice="'heads.finding'"),
    Kind("a list, `output=1`", "that element", ended(lambda y: [y * 2, y]), softmax, {"output": 1}, notice="'1'"),
    Kind("anything, `output=` a function", "what the function gives", ended(lambda y: [y * 2, (y,)]), softmax,
         {"output": lambda returned: returned[1][0]}),
    Kind("a head of `[B, 1]` for each class", "put side by side",
         ended(lambda y: {"nodule": y[:, :1], "mass": y[:, 1:2], "effusion": y[:, 2:]}), softmax, notice="'nodule'"),
    Kind("segmentation `[B, K, H, W]`, `reduce=\"mean\"`", "the mean of the probabilities (or logits) of all pixels",
         Maps, lambda n, x: n.scores(x).softmax(1).mean((2, 3)), {"reduce": "mean"}),
    Kind("segmentation, `reduce=\"max\"`", "the largest over the map", Maps,
         lambda n, x: n.scores(x).softmax(1).amax((2, 3)), {"reduce": "max"}),
    Kind("segmentation, `reduce=\"sum\"`", "the sum over the map: pixels that the class is expected to take", Maps,
         lambda n, x: n.scores(x).softmax(1).sum((2, 3)), {"reduce": "sum"}),
    Kind("segmentation, `reduce=` a mask", "the weighted mean over the region", Maps,
         lambda n, x: n.scores(x).softmax(1)[:, :, 2:6, 3:5].mean((2, 3)), {"reduce": REGION}),
    Kind("segmentation of one class, ends in a sigmoid", "probabilities of each pixel, then reduced",
         lambda: Maps(1, torch.sigmoid), lambda n, x: n.scores(x).sigmoid().mean((2, 3)), {"reduce": "mean"},
         "probabilities", False, "last step is a sigmoid"),
    Kind("regression, `outputs=\"numbers\"`", "the number itself is watched", lambda: Net(1), lambda n, x: n.scores(x),
         {"outputs": "numbers", "classes": ["age"]}, "numbers", False),
    Kind("float64", "scans are converted, scores come back as float32", lambda: Net().double(), plain,
         notice="computes in float64"),
    Kind("float16", "the same", lambda: Net().half(), plain, notice="computes in float16", tolerance=5e-3),
    Kind("bfloat16", "the same", lambda: Net().bfloat16(), plain, notice="computes in bfloat16", tolerance=4e-2),
    Kind("`nn.DataParallel`", "the network inside", lambda: nn.DataParallel(Net()), plain),
    Kind("`torch.compile`", "the network inside, not compiled", quietly(lambda: torch.compile(Net())), plain),
    Kind("either of them around a part of the network", "the part inside",
         lambda: nn.Sequential(nn.DataParallel(nn.Sequential(quietly(lambda: torch.compile(Net()))()))), plain),
    Kind("a wrapper that hands everything on (as PEFT's)", "as any network", lambda: Wrapper(Net()), plain),
    Kind("TorchScript in Python, scripted", "scores and gradients; no layers", quietly(scripted), plain),
    Kind("TorchScript in Python, traced", "the same",
         quietly(lambda: torch.jit.trace(Plain().eval(), torch.rand(2, 1, *SIZE))), plain),
    Kind("an exported program in Python", "scores and gradients",
         lambda: torch.export.export(Net().eval(), (torch.rand(2, 1, *SIZE),),
                                     dynamic_shapes={"x": {0: torch.export.Dim("n", min=1, max=512)}}), plain),
    Kind("dynamically quantised (int8)", "asked one by one, as its scales depend on the batch", quietly(quantised),
         lambda n, x: torch.cat([n(one).softmax(1) for one in x.split(1)]), notice="depends on which scans"),
    Kind("a further input, `extra_inputs={\"age\": [63.0]}`", "given with every scan", WithAge,
         lambda n, x: n(x, torch.full((len(x), 1), 63.0)).softmax(1), {"extra_inputs": {"age": [63.0]}}),
    Kind("further inputs, `extra_inputs=` a function", "what it makes of the batch", WithAge,
         lambda n, x: n(x, 50 * x.mean((2, 3)), double=True).softmax(1),
         {"extra_inputs": lambda x: {"age": 50 * x.mean((2, 3)), "double": True}}),
    Kind("keeps its activations", "copied without the graph that they belong to", lambda: used(Keeps()), plain),
    Kind("old `weight_norm` and `spectral_norm`", "the same", quietly(normed), lambda n, x: n(x).softmax(1)),
    Kind("holds a lock, an open file", "shared with your network, and a notice", Locked, plain, notice="lock"),
    Kind("`nn.Lazy...` layers", "built for `input_size`, and a notice that it has not been trained",
         quietly(lambda: nn.Sequential(nn.LazyConv2d(3, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))),
         lambda n, x: torch.full((len(x), 3), torch.nan), notice="has not been trained"),
    Kind("makes a layer when it first runs", "the same", Builds, lambda n, x: torch.full((len(x), 3), torch.nan),
         notice="has not been trained"),
    Kind("standardises each scan", "tried on pictures that vary, as a flat one would give NaN", Standardises,
         lambda n, x: n.scores(x).softmax(1)),
    Kind("the layer that sees the scan is defined last", "channels are found by trying", Backwards,
         lambda n, x: n.scores(x).softmax(1)),
    Kind("repeats a grey scan itself", "the same", Repeats, lambda n, x: n.scores(x).softmax(1)),
    Kind("takes one scan at a time", "asked one by one, and a notice", Alone, plain, notice="one scan at a time"),
    Kind("a function of arrays", "a black box", lambda: on_arrays, plain),
    Kind("a function of tensors", "a black box as well", lambda: on_tensors, plain),
    Kind("a function that returns lists", "the same", lambda: row_by_row, plain),
    Kind("a function that returns probabilities", "judged by the numbers", lambda: squashed, plain,
         outputs="probabilities", notice="add up to 1"),
]  # fmt: skip
NAMES = [kind.name for kind in KINDS]


def load(kind: Kind, source: Any) -> Classifier:
    return load_classifier(source, **{"input_size": SIZE, **kind.options})


def films(count: int = 1) -> Tensor:
    return torch.rand(count, 1, *SIZE, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_probabilities_are_those_of_the_model(kind: Kind) -> None:
    source = kind.make()
    classifier = load(kind, source)
    assert (classifier.outputs, classifier.exclusive, classifier.channels or 1) == (kind.outputs, kind.exclusive, 1)
    assert re.search(re.escape(kind.notice), " ".join(classifier.notices)), classifier.notices
    assert all(notice.endswith(".") and "\n" not in notice for notice in classifier.notices)
    for count in (1, 3, 4):
        x = films(count)
        with torch.no_grad():
            found = classifier.probabilities(classifier(x))
            truth = kind.truth(source.eval() if isinstance(source, nn.Module) and not jitted(source) else source, x)
        assert found.dtype == torch.float32
        if not truth.isnan().all():
            assert found.shape == truth.shape
            assert torch.allclose(found, truth, atol=kind.tolerance)


def jitted(source: object) -> bool:
    return isinstance(source, torch.jit.ScriptModule)


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_maps_are_those_of_a_plain_loop(kind: Kind) -> None:
    classifier = load(kind, kind.make())
    scan, target = Scan(films()[0]), len(classifier.classes) - 1
    how = Occlusion(patch=4, stride=3, removal=Constant(0.25), features=False)
    engines = Engine(classifier), Engine(classifier, windows=False)
    for watch in ("probability", "logit", "margin", "number"):
        if watch in ("logit", "margin") and (kind.outputs == "numbers" or (watch, target) == ("margin", 0)):
            with pytest.raises(QuestionError, match=r"watch the (number|logit)"):
                Question.ask(classifier, scan, target, watch)
            continue
        question = Question.ask(classifier, scan, target, watch)

        def score(x: Tensor, question: Question = question) -> Tensor:
            with torch.no_grad():
                return torch.cat([question.read(classifier, classifier(one[None]), {}) for one in x])

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loop = PlainLoop(score).attribute(
                scan.pixels[None], sliding_window_shapes=(1, 4, 4), strides=(1, 3, 3), baselines=0.25
            )[0, 0]
        for engine in engines:
            heat = explain(scan, classifier, target=target, watch=watch, method=how, engine=engine).heatmap
            assert np.allclose(heat, loop, atol=max(1e-4, 10 * kind.tolerance) * max(1, np.abs(heat).max()))
            assert np.abs(heat).max() > 0


TRACED = [kind for kind in KINDS if kind.truth in (softmax, sigmoid, both) or "segmentation" in kind.name]


@pytest.mark.parametrize("kind", TRACED, ids=[kind.name for kind in TRACED])
def test_whatever_comes_out_the_fast_path_is_taken(kind: Kind) -> None:
    classifier = load(kind, kind.make())
    scan = Scan(films()[0])
    probe = Engine(classifier).open(scan, Question.ask(classifier, scan, 0), Constant(0.25))
    assert probe._scorer(8) is not None


def test_every_row_of_the_page_is_a_kind_that_was_tried() -> None:
    table = PAGE.read_text().partition("| kind of model | what happens |\n| --- | --- |\n")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", table, re.MULTILINE)
    assert rows == [(kind.name, kind.happens) for kind in KINDS]


THE_SAME: list[tuple[str, Callable[[], Any], Callable[[], Any], dict[str, Any]]] = [
    ("a dictionary", Net, ended(lambda y: {"features": y * 2, "logits": y}), {}),
    ("float64", Net, lambda: Net().double(), {}),
    ("softmax", Net, ended(lambda y: y.softmax(1)), {}),
    ("one number", lambda: Net(1), ended(lambda y: y.squeeze(), 1), {"classes": ["fluid"]}),
    ("negative and positive", lambda: Net(1), ended(torch.sigmoid, 1), {"classes": ["none", "fluid"]}),
    ("a wrapper", Net, lambda: nn.DataParallel(Net()), {}),
]
"""Networks that put the same thing otherwise."""


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_the_map_of_the_plain_network(method: str) -> None:
    scan = Scan(films()[0])

    def mapped(source: Any, **options: Any) -> np.ndarray | str:
        classifier = load_classifier(source, input_size=SIZE, **options)
        try:
            return explain(scan, classifier, target=-1 % len(classifier.classes), method=cheap(method), seed=3).heatmap
        except QuestionError as error:
            return str(error)

    for what, one, other, options in THE_SAME:
        plain, same = mapped(one()), mapped(other(), **options)
        if isinstance(plain, str) or isinstance(same, str):
            # Class activation mapping needs the linear layer to come last.
            assert isinstance(plain, str) == isinstance(same, str) or method == "cam", what
        else:
            assert np.allclose(plain, same, atol=1e-3 * np.abs(plain).max() + 1e-6), what


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_networks_are_left_as_they_were(kind: Kind) -> None:
    source = kind.make()
    if not isinstance(source, nn.Module) or isinstance(source, torch.jit.ScriptModule):
        pytest.skip("only modules are copied")
    source.train()
    wanted = [p.requires_grad for p in source.parameters()]
    classifier = load(kind, source)
    assert source.training
    assert [p.requires_grad for p in source.parameters()] == wanted
    assert classifier.module is not source
    assert not any(p.requires_grad for p in classifier.network().parameters())
    assert load(kind, source).fingerprint == classifier.fingerprint


def test_quantised_weights_tell_networks_apart() -> None:
    one, same, other = (
        load_classifier(quietly(lambda by=by: quantised(by))(), input_size=SIZE).fingerprint for by in (1, 1, 2)
    )
    assert one == same != other


def test_what_is_read_beside_the_scan_belongs_to_the_fingerprint() -> None:
    def load_with(age: Any) -> str:
        return load_classifier(WithAge(), input_size=SIZE, extra_inputs={"age": age}).fingerprint

    assert load_with([63.0]) == load_with([63.0]) == load_with(torch.tensor([63.0]))
    assert load_with([63.0]) != load_with([36.0])
    maps = [load_classifier(Maps(), input_size=SIZE, reduce=how).fingerprint for how in ("mean", "max", REGION)]
    assert len(set(maps)) == 3


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        (ended(lambda y: (y, y + 1)), {}, "say it with output=, such as output=0"),
        (ended(lambda y: {"one": y, "two": y}), {"output": "three"}, "no output 'three'"),
        (ended(lambda y: y), {"output": 1}, "returns one tensor"),
        (ended(lambda y: [y]), {"output": lambda r: r["x"]}, "function given as output= raised TypeError"),
        (ended(lambda y: y), {"output": 1.5}, "output is 1.5"),
        (Maps, {}, "say how a map becomes a number"),
        (Maps, {"reduce": "median"}, "reduce is 'median'"),
        (Maps, {"reduce": np.zeros((3, 3))}, "above 0 somewhere"),
        (Maps, {"reduce": np.ones((3, 3))}, "on the grid of the maps"),
        (lambda: Net(1), {"outputs": "numbers", "classes": ["a", "b"]}, "give one name"),
        (Net, {"classes": ["a", "b"]}, "3 outputs and has 2 class names"),
        (Net, {"outputs": "log-probabilities"}, "say outputs='logits'"),
        (Net, {"exclusive": "no"}, "exclusive is 'no'"),
        (Net, {"channels": 1, "mean": (0.5, 0.5, 0.5)}, "mean has 3 numbers"),
        (Net, {"mean": (0.5, 0.5, 0.5), "std": (1, 1)}, "different numbers"),
        (Net, {"channels": 0}, "channels is 0"),
        (Net, {"channels": 2}, "check input_size, channels and device"),
        (Net, {"extra_inputs": 63}, "extra_inputs is 63"),
        (WithAge, {}, "age"),
        (lambda: Net().to("meta"), {}, "no weights"),
        (ended(lambda y: "effusion"), {}, "no outputs of shape"),
        (ended(lambda y: y[:2]), {}, r"gave \[2, 3\] for 5 scan"),
        (lambda: lambda x: None, {}, "no outputs of shape"),
        (ended(lambda y: y.argmax(1)), {}, "whole numbers, as labels are"),
        (ended(lambda y: y.topk(2)), {}, "in order of size"),
        (ended(lambda y: y.sort(1)), {}, "in order of size"),
        (lambda: lambda x: x.nothing, {}, "on a NumPy array .* on a tensor"),
        (quietly(lambda: nn.Sequential(nn.LazyConv2d(3, 3))), {"input_size": None}, "say input_size"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(source: Callable[[], Any], options: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelError, match=says) as told:
        load_classifier(source(), **{"input_size": SIZE, **options})
    assert str(told.value).endswith(".")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["a", "b", "A "], "two classes called 'A'"),
        (["stra\u00dfe", "b", "STRASSE"], "two classes"),
        (["a", "", "c"], "empty name"),
        (["a", 2, "c"], "class names are strings"),
        (["a", None, "c"], "class names are strings"),
        (["a", "b\x07", "c"], "control characters"),
        (["a", "b\u202e", "c"], "control characters"),
        ("abc", "give a list of strings"),
        (3, "give a list of strings"),
        ({"a", "b", "c"}, "in the outputs' order"),
    ],
)
def test_class_names_are_strings_of_their_own(names: Any, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        load_classifier(Net(), input_size=SIZE, classes=names)
    with pytest.raises(ModelError, match=says):
        Classifier(Net(), name="net", classes=names, fingerprint="")


def test_class_names_are_stripped_and_found_in_any_case() -> None:
    classifier = load_classifier(Net(), input_size=SIZE, classes=np.array([" Effusion ", "mass", "\u00c9panchement"]))
    assert classifier.classes == ("Effusion", "mass", "\u00c9panchement")
    assert [classifier.index(n) for n in ("EFFUSION", "Mass ", "e\u0301panchement", 1)] == [0, 1, 2, 1]


def test_logits_come_back_from_probabilities() -> None:
    logits = torch.tensor([[-60.0, 3.0, 9.0], [0.5, -2.0, 1.0]])
    for end, kind in ((lambda y: y.softmax(1), True), (torch.sigmoid, False)):
        classifier = load_classifier(Net(end=end), input_size=SIZE)
        found = classifier.logits(end(logits))
        assert classifier.exclusive is kind
        wanted = logits.log_softmax(1) if kind else logits
        # A probability of 1 - 1e-8 is 1 in float32, and one of 1e-40 is 0.
        assert torch.allclose(found[wanted < 9], wanted[wanted < 9], atol=1e-3)
        assert bool(torch.isfinite(classifier.logits(torch.tensor([[0.0, 1.0, 0.5]]))).all())
    logs = load_classifier(Net(end=F.logsigmoid), input_size=SIZE)
    assert torch.allclose(logs.logits(F.logsigmoid(logits)), logits, rtol=1e-3)


def test_said_logits_that_look_squashed_are_doubted() -> None:
    for end in (lambda y: y.softmax(1), torch.sigmoid):
        classifier = load_classifier(Net(end=end), input_size=SIZE, outputs="logits")
        assert classifier.outputs == "logits"
        assert "look squashed already" in " ".join(classifier.notices)
    assert "squashed" not in " ".join(load_classifier(Net(), input_size=SIZE, outputs="logits").notices)


def test_a_model_of_any_size_is_judged_as_well() -> None:
    classifier = load_classifier(Net(end=torch.sigmoid))
    assert (classifier.outputs, classifier.exclusive, len(classifier.classes)) == ("probabilities", False, 3)
    never = load_classifier(lambda x: 1 / 0, classes=["a"])
    assert "without a look" in " ".join(never.notices)


def test_one_softmax_over_one_number_is_told() -> None:
    classifier = load_classifier(Net(1, lambda y: y.softmax(1)), input_size=SIZE)
    assert "always 1" in " ".join(classifier.notices)


def test_measurements_taken_for_logits_are_doubted() -> None:
    notices = load_classifier(Net(1, lambda y: 60 + y), input_size=SIZE).notices
    assert "say outputs='numbers'" in " ".join(notices)
    assert "numbers" not in " ".join(load_classifier(Net(1), input_size=SIZE).notices)


def test_a_classifier_is_one_already() -> None:
    classifier = load_classifier(Net(), input_size=SIZE)
    assert load_classifier(classifier) is classifier
    with pytest.raises(ModelError, match="loaded already"):
        load_classifier(classifier, outputs="logits")


def test_normalisation_by_channel_tells_the_channels() -> None:
    classifier = load_classifier(lambda x: x.mean((2, 3)), input_size=SIZE, mean=(0.1, 0.2, 0.3), std=(1, 1, 1))
    assert (classifier.channels, len(classifier.classes)) == (3, 3)


@pytest.mark.parametrize("classes", [1, 3, 4, 5, 6])
@pytest.mark.parametrize("rows", [True, False])
def test_lists_of_rows_and_lists_of_heads_are_told_apart(classes: int, rows: bool) -> None:
    net = Net(classes)

    def by_row(x: Tensor) -> list[Tensor]:
        return [net(torch.as_tensor(one)[None])[0] for one in x]

    def by_head(x: Tensor) -> list[Tensor]:
        return list(net(torch.as_tensor(x)).unbind(1))

    classifier = load_classifier(by_row if rows else by_head, input_size=SIZE)
    for count in (1, 2, classes, 7):
        assert torch.allclose(classifier(films(count)), net(films(count)), atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_a_program_of_a_fixed_batch_is_asked_as_often_as_needed(batch: int) -> None:
    net = Net(end=lambda y: {"features": y * 2, "logits": y}).eval()
    classifier = load_classifier(torch.export.export(net, (torch.rand(batch, 1, *SIZE),)))
    assert (classifier.input_size, classifier.channels, classifier.name) == (SIZE, 1, "exported program")
    for count in (1, 3, 5):
        assert torch.allclose(classifier(films(count)), net.scores(films(count)), atol=1e-5)


def test_slow_models_are_tried_on_fewer_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def slow(x: np.ndarray) -> np.ndarray:
        seen.append(len(x))
        return squashed(x)

    for seconds, most in ((0.0, 2), (2.0, 5)):
        monkeypatch.setattr("lucency.classifier.trial.SLOW", seconds)
        seen.clear()
        assert load_classifier(slow, input_size=SIZE).outputs == "probabilities"
        assert max(seen) == most


def test_what_does_not_fit_together_goes_in_one_by_one() -> None:
    def large(x: np.ndarray) -> np.ndarray:
        if len(x) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return squashed(x)

    most = 1
    classifier = load_classifier(large, input_size=SIZE)
    assert (classifier.outputs, classifier.alone) == ("probabilities", False)
    most = 0
    with pytest.raises(ModelError, match="does not fit into the memory"):
        load_classifier(large, input_size=SIZE)


def test_the_number_is_watched_where_there_is_nothing_else() -> None:
    classifier = load_classifier(Net(1), input_size=SIZE, outputs="numbers", classes=["age"])
    question = Question.ask(classifier, Scan(films()[0]))
    assert (question.watch, question.label) == ("number", "age")


def test_pictures_look_like_scans() -> None:
    for size in (SIZE, (5, 6, 7), (1, 1)):
        pictures = scan_like(4, 3, size)
        assert pictures.shape == (4, 3, *size)
        assert bool(((pictures >= 0) & (pictures <= 1)).all())
        assert torch.equal(pictures, scan_like(4, 3, size))
    assert float(scan_like(4, 1, SIZE).std((2, 3)).min()) > 0.02


def test_loading_leaves_random_numbers_alone() -> None:
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    load_classifier(Builds(), input_size=SIZE)
    torch.manual_seed(7)
    load_classifier(Net2(), input_size=SIZE)
    assert torch.equal(torch.rand(3), wanted)


class Net2(nn.Sequential):
    """Made without touching the random numbers; drops some of its scan by chance, whatever its mode."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(super().forward(x), 0.5, training=True)[:, :3]


@pytest.mark.parametrize("name", ["TorchScript in Python, scripted", "an exported program in Python", "float16",
                                  "a dictionary with `logits`", "segmentation, `reduce=\"max\"`"])  # fmt: skip
def test_gradients_go_through(name: str) -> None:
    kind = KINDS[NAMES.index(name)]
    classifier = load(kind, kind.make())
    heat = explain(Scan(films()[0]), classifier, target=2, method=Gradient()).heatmap
    assert np.isfinite(heat).all()
    assert np.abs(heat).max() > 0


def test_a_lightning_module_that_has_a_trainer() -> None:
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def forward(self, x: Tensor) -> Any:
            return self.net(x)

    module = Module()
    module.trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    classifier = load_classifier(module, input_size=SIZE)
    assert torch.allclose(classifier(films(2)), Net()(films(2)), atol=1e-5)


def test_a_network_that_peft_has_wrapped() -> None:
    peft = pytest.importorskip("peft")
    wrapped = peft.get_peft_model(Net(), peft.LoraConfig(target_modules=["head"], r=2, init_lora_weights=False))
    classifier = load_classifier(wrapped, input_size=SIZE)
    with torch.no_grad():
        assert torch.allclose(classifier(films(2)), wrapped.eval()(films(2)), atol=1e-5)
