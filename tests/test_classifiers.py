"""Loading classifiers: every kind gives the scores of the network it came from, every wrong one a sentence."""

from __future__ import annotations

import importlib
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from bad_inputs import BAD_MODELS, BAD_QUESTIONS, SIZE, Harm, Net, message, program, written
from lucency import Scan, explain, load_classifier
from lucency.classifier import Question
from lucency.classifier.loading import available_models
from lucency.errors import LucencyError, ModelError, QuestionError
from lucency.methods.gradient import Gradient
from lucency.methods.occlusion import Occlusion


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
    program(tmp_path / "m.pt2")
    program(tmp_path / "three.pt2", batch=3)
    recwarn.clear()
    for name in ("m.pt", "m.pt2", "three.pt2"):
        classifier = load_classifier(tmp_path / name, input_size=SIZE if name == "m.pt" else None, trust=True)
        assert (classifier.channels, classifier.input_size) == (1, SIZE)
        assert torch.allclose(classifier(x), net(x), atol=1e-5)
        assert [str(w.message) for w in recwarn] == []
        heat = explain(Scan(x[0]), classifier, target=2, method=Occlusion(patch=4, stride=4, features=False)).heatmap
        assert np.abs(heat).max() > 0
        slope = explain(Scan(x[0]), classifier, target=2, method=Gradient()).heatmap
        own = load_classifier(net, input_size=SIZE)
        assert np.allclose(slope, explain(Scan(x[0]), own, target=2, method=Gradient()).heatmap, atol=1e-6)
        with pytest.raises(QuestionError, match="no feature maps"):
            Question.ask(classifier, Scan(x[0]), 0, "layer:conv")
        recwarn.clear()


def test_layers_are_listed_and_watched_in_two_and_three_dimensions(net: Net) -> None:
    deep = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(2, 4))
    for module, size, name, maps in ((net, SIZE, "conv", 3), (deep, (4, 5, 6), "0", 2)):
        classifier = load_classifier(module, input_size=size)
        x = torch.rand(1, 1, *size)
        (layer,) = classifier.layers(x)
        assert (classifier.channels, layer.name, layer.shape) == (1, name, (maps, *size))
        question = Question.ask(classifier, Scan(x[0]), 0, f"layer:{name}")
        outputs, features = classifier.outputs_and_features(x, [name])
        fired = features[name].clamp_min(0).flatten(2).mean(2)
        assert torch.allclose(question.read(classifier, outputs, features), fired.max())


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
    frame = classifier.placement(scan)
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


def test_a_torchxrayvision_network_as_the_package_builds_it(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            models = importlib.import_module("torchxrayvision.models")
    except Exception as error:
        pytest.skip(f"TorchXRayVision cannot be imported here: {error}")
    torch.manual_seed(0)
    module = models.DenseNet(growth_rate=4, block_config=(1, 1), num_init_features=4, num_classes=18).eval()
    classifier = load_classifier(module)
    assert classifier.classes[:2] == ("Atelectasis", "Consolidation")
    display = torch.rand(2, 1, 224, 224)
    assert torch.allclose(classifier(display), module((2 * display - 1) * 1024), atol=1e-5)
    assert classifier.outputs == "logits"
    module.apply_sigmoid = True
    p = load_classifier(module)
    assert p.outputs == "probabilities"
    assert torch.allclose(p(display), module((2 * display - 1) * 1024), atol=1e-6)
    module.op_threshs = torch.full((18,), 0.3)
    module.op_threshs[3] = torch.nan
    q = load_classifier(module)(display)
    assert bool(((q >= 0) & (q <= 1)).all())
    assert capsys.readouterr().out == ""
    with pytest.raises(ModelError, match="could not give 'densenet121-nothing'"):
        load_classifier("torchxrayvision:densenet121-nothing")


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


@pytest.mark.parametrize(
    ("what", "name", "act", "says"), BAD_MODELS + BAD_QUESTIONS, ids=[b[0] for b in BAD_MODELS + BAD_QUESTIONS]
)
def test_a_wrong_model_or_question_is_one_sentence(
    tmp_path: Path, what: str, name: str, act: Callable[[Path], object], says: str
) -> None:
    text = message(act, tmp_path / name)
    assert re.search(says, text)
    assert text.count("\n") == 0
    assert text.endswith(".")
    assert not Harm.ran


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(LucencyError, match=r"lucency\[onnx\]"):
        load_classifier(written(tmp_path / "m.onnx", b"x"))


def test_weights_that_were_changed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    about = {**available_models()[0], "weights_sha256": "0"} if available_models() else None
    if about is None:
        pytest.skip("no model is shipped yet")
    monkeypatch.setattr("lucency.classifier.loading.available_models", lambda: [about])
    with pytest.raises(ModelError, match="checksum"):
        load_classifier(str(about["name"]))
