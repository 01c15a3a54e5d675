"""Loading classifiers: every kind gives the scores of the network it came from, every wrong one a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from lucency import Scan, explain, load_classifier
from lucency.classifier import Question
from lucency.classifier.loading import available_models
from lucency.errors import LucencyError, ModelError, QuestionError
from lucency.methods.occlusion import Occlusion

SIZE = (12, 10)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.pool(self.relu(self.conv(x))).flatten(1))
        return out


def onnx_file(path: Path, net: Net, batch: int | str) -> Path:
    """The same network as a graph, written by hand so that no exporter is needed."""
    weights = {k: v.detach().numpy() for k, v in net.state_dict().items()}
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "head.weight", "head.bias"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 1, *SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4])],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"classes": json.dumps(["a", "b", "c", "d"])})
    onnx.save(model, path)
    return path


@pytest.fixture
def net() -> Net:
    return Net().eval()


@pytest.mark.parametrize("batch", ["n", 1, 3])
def test_onnx_gives_the_same_scores(tmp_path: Path, net: Net, batch: int | str) -> None:
    classifier = load_classifier(onnx_file(tmp_path / "m.onnx", net, batch))
    x = torch.rand(5, 1, *SIZE)
    assert classifier.classes == ("a", "b", "c", "d")
    assert classifier.input_size == SIZE
    assert torch.allclose(classifier(x), net(x), atol=1e-5)


def test_torchscript_and_exported_programs(tmp_path: Path, net: Net, recwarn: pytest.WarningsRecorder) -> None:
    x = torch.rand(2, 1, *SIZE)
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.save(torch.jit.script(net), str(tmp_path / "m.pt"))
    dynamic = {"x": {0: torch.export.Dim("n", min=1, max=64)}}
    torch.export.save(torch.export.export(net, (x,), dynamic_shapes=dynamic), tmp_path / "m.pt2")
    recwarn.clear()
    for name in ("m.pt", "m.pt2"):
        classifier = load_classifier(tmp_path / name, input_size=SIZE)
        assert classifier.channels == 1
        assert torch.allclose(classifier(x), net(x), atol=1e-5)
        heat = explain(Scan(x[0]), classifier, target=2, method=Occlusion(patch=4, stride=4, features=False)).heatmap
        assert np.abs(heat).max() > 0
    assert not len(recwarn)


def test_modules_are_copied_and_left_alone(net: Net) -> None:
    net.train()
    classifier = load_classifier(net, input_size=SIZE, exclusive=False)
    assert net.training
    assert all(p.requires_grad for p in net.parameters())
    before = classifier(torch.ones(1, 1, *SIZE))
    with torch.no_grad():
        net.head.bias.add_(1)
    assert torch.equal(before, classifier(torch.ones(1, 1, *SIZE)))
    assert load_classifier(net, input_size=SIZE).fingerprint != classifier.fingerprint


def test_functions_are_black_boxes(net: Net) -> None:
    def score(x: NDArray[np.float32]) -> NDArray[np.float32]:
        assert x.dtype == np.float32
        with torch.no_grad():
            return net(torch.from_numpy(x)).numpy()

    classifier = load_classifier(score, classes=["a", "b", "c", "d"])
    scan = Scan(torch.rand(1, *SIZE))
    how = Occlusion(patch=4, stride=3)
    one = explain(scan, classifier, target="b", method=how)
    two = explain(scan, load_classifier(net, classes=["a", "b", "c", "d"]), target="b", method=how)
    assert np.allclose(one.heatmap, two.heatmap, atol=1e-6)
    with pytest.raises(QuestionError, match="black box"):
        Question.ask(classifier, scan, 0, "layer:conv")


@given(h=st.integers(5, 40), w=st.integers(5, 40), fit=st.sampled_from(["stretch", "crop", "pad"]))
@settings(max_examples=40, deadline=None)
def test_frames_bring_a_point_back_to_where_it_was(h: int, w: int, fit: str) -> None:
    classifier = load_classifier(Net(), input_size=SIZE, fit=fit)  # type: ignore[arg-type]
    scan = Scan(torch.rand(1, h, w))
    frame = classifier.frame(scan)
    assert classifier.prepare(scan).shape == (1, *SIZE)
    back = frame.to_scan(torch.ones(SIZE))
    assert back.shape == (h, w)
    if fit != "crop":
        assert torch.allclose(back, torch.ones(h, w), atol=1e-5)
    first, last = frame.to_scan_point((-0.5, -0.5)), frame.to_scan_point((SIZE[0] - 0.5, SIZE[1] - 0.5))
    assert all(abs((b - a) - n) < 1e-6 for a, b, n in zip(first, last, frame.box_shape, strict=True))


def test_probabilities_logits_and_margins() -> None:
    scan = Scan(torch.rand(1, *SIZE))
    net = Net()
    for exclusive in (True, False):
        soft = load_classifier(net, input_size=SIZE, exclusive=exclusive)
        p = soft.probabilities(soft(scan.pixels[None]))
        hard = load_classifier(
            lambda x, s=soft: s.probabilities(s(torch.from_numpy(x))).numpy(),
            classes=soft.classes,
            outputs="probabilities",
            exclusive=exclusive,
        )
        assert torch.allclose(hard.probabilities(hard(scan.pixels[None])), p)
        for watch in ("logit", "margin"):
            a, b = (Question.ask(c, scan, 1, watch).read(c, c(scan.pixels[None]), {}) for c in (soft, hard))
            # log p is a logit up to a constant that all classes share, so margins agree where classes exclude.
            if watch == "margin" or not exclusive:
                assert torch.allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("about", available_models(), ids=lambda a: str(a["name"]))
def test_shipped_models_load_and_answer(about: dict[str, object]) -> None:
    classifier = load_classifier(str(about["name"]))
    scan = Scan(torch.rand(1, 300, 260))
    assert "effusion" in classifier.classes
    with torch.inference_mode():
        p = classifier.probabilities(classifier(classifier.prepare(scan)[None]))
    assert p.shape == (1, len(classifier.classes))
    assert bool(((p > 0) & (p < 1)).all())


def test_a_torchxrayvision_module_brings_its_own_conventions() -> None:
    kind = type("DenseNet", (Net,), {"__module__": "torchxrayvision.models"})
    module = kind()
    module.pathologies = ["Effusion", "", "Mass", "Edema"]
    module.apply_sigmoid = False
    classifier = load_classifier(module)
    assert classifier.classes == ("Effusion", "unnamed 1", "Mass", "Edema")
    assert (classifier.input_size, classifier.fit, classifier.exclusive) == ((224, 224), "crop", False)
    x = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3)
    assert classifier.normalise(x).flatten().tolist() == [-1024, 0, 1024]


class Raises(Net):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no such thing\nsecond line")


class Nan(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * torch.nan


class Pair(Net):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().forward(x), x


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: load_classifier("lucency:nothing"), "No shipped model"),
        (lambda p: load_classifier("nothing.onnx"), "There is no model"),
        (lambda p: load_classifier(Net()), "how many classes"),
        (lambda p: load_classifier(Net(), classes=["a"], input_size=SIZE), "4 outputs and has 1"),
        (lambda p: load_classifier(Raises(), classes=["a"], input_size=SIZE), "no such thing; check"),
        (lambda p: load_classifier(Nan(), input_size=SIZE), "NaN"),
        (lambda p: load_classifier(Pair(), input_size=SIZE), r"shape \[B, K\]"),
        (lambda p: load_classifier(Net(), input_size=SIZE, outputs="probabilities"), "said to give probabilities"),
        (lambda p: load_classifier(_written(p / "m.onnx", b"rubbish")), "ONNX Runtime"),
        (lambda p: load_classifier(_written(p / "m.pt", b"rubbish")), "not a model file"),
        (lambda p: load_classifier(_pickled(p / "m.pt")), "unpickling can run code"),
        (lambda p: explain(Scan(torch.rand(1, 4, 4, 4)), load_classifier(Net(), input_size=SIZE)), "2-D"),
        (lambda p: explain(Scan(torch.rand(2, 9, 9)), load_classifier(Net(), input_size=SIZE)), "channel"),
        (lambda p: explain(Scan(torch.rand(1, 9, 9)), load_classifier(Net(), input_size=SIZE), target="x"), "no class"),
        (lambda p: explain(Scan(torch.rand(1, 9, 9)), load_classifier(Net(), input_size=SIZE), target=4), "0 to 3"),
        (
            lambda p: explain(Scan(torch.rand(1, 9, 9)), load_classifier(Net(), input_size=SIZE), watch="colour"),
            "Nothing called",
        ),
        (
            lambda p: explain(Scan(torch.rand(1, 9, 9)), load_classifier(Net(), input_size=SIZE), watch="layer:x"),
            "no layer",
        ),
    ],
)
def test_a_wrong_model_or_question_is_one_sentence(tmp_path: Path, make: object, says: str) -> None:
    with pytest.raises(LucencyError, match=says) as caught:
        make(tmp_path)  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _pickled(path: Path) -> Path:
    torch.save(Net().state_dict(), path)
    return path


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(LucencyError, match=r"lucency\[onnx\]"):
        load_classifier(_written(tmp_path / "m.onnx", b"x"))


def test_weights_that_were_changed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    about = {**available_models()[0], "weights_sha256": "0"} if available_models() else None
    if about is None:
        pytest.skip("no model is shipped yet")
    monkeypatch.setattr("lucency.classifier.loading.available_models", lambda: [about])
    with pytest.raises(ModelError, match="checksum"):
        load_classifier(str(about["name"]))
