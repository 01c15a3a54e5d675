"""ONNX graphs of every layout, type and number of outputs give the scores of the network that they came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from bad_inputs import SIZE, Net
from lucency import Scan, explain, load_classifier
from lucency.classifier.onnx import open_onnx
from lucency.errors import ModelError
from lucency.methods.occlusion import Occlusion

H, W = SIZE
FLOAT = TensorProto.FLOAT


def graph_file(
    path: Path,
    net: Net,
    *,
    shape: tuple[int | str, ...] = ("n", 1, H, W),
    dtype: int = FLOAT,
    first: list[Any] | None = None,
    last: list[Any] | None = None,
    inputs: list[Any] | None = None,
    outputs: tuple[str, ...] = ("y",),
    props: dict[str, str] | None = None,
    external: bool = False,
) -> Path:
    """The network behind ``first`` (from ``x`` to ``a``), before ``last`` (from ``l``)."""
    weights = {k: v.detach().numpy() for k, v in net.state_dict().items()}
    weights |= {"scale": np.array(255, np.float32), "one": np.array([1], np.int64), "two": np.array([2], np.int64)}
    nodes = [
        *(first or [helper.make_node("Identity", ["x"], ["a"])]),
        helper.make_node("Conv", ["a", "conv.weight", "conv.bias"], ["b"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["b"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "head.weight", "head.bias"], ["l"], transB=1),
        *(last or [helper.make_node("Identity", ["l"], ["y"])]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", dtype, shape), *(inputs or [])],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, props or {})
    onnx.save(
        model, path, save_as_external_data=external, location=f"{path.stem}.bin" if external else None, size_threshold=0
    )
    return path


def node(kind: str, *ends: str, **attributes: Any) -> Any:
    *into, out = ends
    return helper.make_node(kind, into, [out], **attributes)


TURN = node("Transpose", "x", "a", perm=[0, 3, 1, 2])
LAYOUTS: list[tuple[str, dict[str, Any]]] = [
    ("channels first", {}),
    ("channels last", {"shape": ("n", H, W, 1), "first": [TURN]}),
    ("channels last, all free", {"shape": ("n", "h", "w", "c"), "first": [TURN]}),
    ("all free", {"shape": ("n", "c", "h", "w")}),
    ("channels last, fixed batch", {"shape": (3, H, W, 1), "first": [TURN]}),
    ("no channels", {"shape": ("n", H, W), "first": [node("Unsqueeze", "x", "one", "a")]}),
    ("one scan", {"shape": (1, H, W), "first": [node("Unsqueeze", "x", "one", "a")]}),
    ("float16", {"dtype": TensorProto.FLOAT16, "first": [node("Cast", "x", "a", to=FLOAT)]}),
    ("float64", {"dtype": TensorProto.DOUBLE, "first": [node("Cast", "x", "a", to=FLOAT)]}),
    (
        "bytes",
        {"dtype": TensorProto.UINT8, "first": [node("Cast", "x", "f", to=FLOAT), node("Div", "f", "scale", "a")]},
    ),
    ("weights beside", {"external": True}),
]


@pytest.mark.parametrize(("what", "how"), LAYOUTS, ids=[what for what, _ in LAYOUTS])
def test_every_layout_and_type(tmp_path: Path, what: str, how: dict[str, Any]) -> None:
    net = Net().eval()
    free = "all free" in what
    size = {"input_size": SIZE} if free else {}
    classifier = load_classifier(graph_file(tmp_path / "m.onnx", net, **how), **size)
    assert (classifier.channels, classifier.input_size, classifier.outputs) == (1, SIZE, "logits")
    x = torch.rand(5, 1, *SIZE)
    tolerance = {"float16": 1e-3, "bytes": 4e-3}.get(what, 1e-5)
    assert torch.allclose(classifier(x), net(x), atol=tolerance)
    assert ("whole numbers" in " ".join(classifier.notices)) == (what == "bytes")
    heat = explain(Scan(x[0]), classifier, target=2, method=Occlusion(patch=4, stride=4)).heatmap
    own = load_classifier(net, input_size=SIZE)
    wanted = explain(Scan(x[0]), own, target=2, method=Occlusion(patch=4, stride=4)).heatmap
    assert np.allclose(heat, wanted, atol=tolerance)


def test_colour_without_a_batch_axis(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Net().eval()
    net.conv = torch.nn.Conv2d(3, net.conv.out_channels, 3, padding=1).eval()
    x = torch.rand(4, 3, *SIZE)
    zero = helper.make_node("Constant", [], ["zero"], value_ints=[0])
    for shape, first in (
        ((3, H, W), [zero, node("Unsqueeze", "x", "zero", "a")]),
        ((H, W, 3), [zero, node("Unsqueeze", "x", "zero", "t"), node("Transpose", "t", "a", perm=[0, 3, 1, 2])]),
        (("n", H, W, 3), [TURN]),
    ):
        last = [node("Squeeze", "l", "zero", "y")] if len(shape) == 3 else None
        classifier = load_classifier(graph_file(tmp_path / "m.onnx", net, shape=shape, first=first, last=last))
        assert (classifier.channels, classifier.input_size) == (3, SIZE)
        with torch.no_grad():
            assert torch.allclose(classifier(x), net(x), atol=1e-5)


@pytest.mark.parametrize(
    ("last", "outputs", "exclusive"),
    [
        ([node("Softmax", "l", "y", axis=1)], "probabilities", True),
        ([node("Softmax", "l", "s", axis=1), node("Cast", "s", "y", to=FLOAT)], "probabilities", True),
        ([node("Sigmoid", "l", "y")], "probabilities", False),
        ([node("LogSoftmax", "l", "y", axis=1)], "log-probabilities", True),
        (None, "logits", True),
    ],
)
def test_the_last_node_tells_what_comes_out(
    tmp_path: Path, last: list[Any] | None, outputs: str, exclusive: bool
) -> None:
    net = Net().eval()
    classifier = load_classifier(graph_file(tmp_path / "m.onnx", net, last=last))
    assert (classifier.outputs, classifier.exclusive) == (outputs, exclusive)
    x = torch.rand(2, 1, *SIZE)
    with torch.no_grad():
        wanted = net(x).softmax(1) if exclusive else net(x).sigmoid()
    assert torch.allclose(classifier.probabilities(classifier(x)), wanted, atol=1e-5)


def test_one_of_several_outputs(tmp_path: Path) -> None:
    net = Net().eval()
    last = [node("Sigmoid", "l", "chance"), node("Identity", "l", "y")]
    path = graph_file(tmp_path / "m.onnx", net, last=last, outputs=("maps", "chance", "y"))
    x = torch.rand(3, 1, *SIZE)
    with torch.no_grad():
        wanted = net(x)
    for output, outputs in (("y", "logits"), (2, "logits"), ("chance", "probabilities"), (1, "probabilities")):
        classifier = load_classifier(path, output=output)
        assert classifier.outputs == outputs
        assert torch.allclose(classifier(x), wanted if outputs == "logits" else wanted.sigmoid(), atol=1e-5)
    with pytest.raises(ModelError, match=r"several tensors .*output="):
        load_classifier(path)
    with pytest.raises(ModelError, match="no output 'nothing'"):
        load_classifier(path, output="nothing")


@pytest.mark.parametrize("batch", ["n", 2])
def test_inputs_beside_the_scan(tmp_path: Path, batch: int | str) -> None:
    net = Net().eval()
    path = graph_file(
        tmp_path / "m.onnx",
        net,
        shape=(batch, 1, H, W),
        inputs=[helper.make_tensor_value_info("age", FLOAT, [batch, 1])],
        last=[node("Add", "l", "age", "y")],
    )
    x = torch.rand(5, 1, *SIZE)
    with torch.no_grad():
        assert torch.allclose(load_classifier(path, extra_inputs={"age": 3.0})(x), net(x) + 3, atol=1e-5)
        ages = torch.arange(5.0)
        told = load_classifier(path, extra_inputs=lambda x: {"age": ages[: len(x)]})
        assert torch.allclose(told(x), net(x) + ages[:, None], atol=1e-5)
    with pytest.raises(ModelError, match=r"reads age beside the scan; give that with extra_inputs="):
        load_classifier(path)
    two = [helper.make_tensor_value_info("z", FLOAT, [batch, 1, H, W])]
    with pytest.raises(ModelError, match="exactly one input"):
        load_classifier(graph_file(tmp_path / "two.onnx", net, inputs=two, last=[node("Identity", "l", "y")]))


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("classes", json.dumps(["a", "b", "c", "d"])),
        ("labels", json.dumps({"0": "a", "1": "b", "2": "c", "3": "d"})),
        ("names", "{0: 'a', 1: 'b', 2: 'c', 3: 'd'}"),
        ("names", "__import__('os').getcwd()"),
    ],
)
def test_class_names_in_the_metadata(tmp_path: Path, key: str, text: str) -> None:
    classes = load_classifier(graph_file(tmp_path / "m.onnx", Net(), props={key: text})).classes
    assert classes == (tuple("abcd") if "'a'" in text or '"a"' in text else tuple(f"output {i}" for i in range(4)))


def test_weights_in_a_file_beside_count_in_the_fingerprint(tmp_path: Path) -> None:
    one = load_classifier(graph_file(tmp_path / "m.onnx", Net(), external=True))
    graph = (tmp_path / "m.onnx").read_bytes()
    (tmp_path / "m.bin").unlink()
    other = Net()
    other.head.bias.data += 1
    two = load_classifier(graph_file(tmp_path / "m.onnx", other, external=True))
    assert (tmp_path / "m.onnx").read_bytes() == graph
    assert one.fingerprint != two.fingerprint
    (tmp_path / "m.bin").unlink()
    with pytest.raises(ModelError, match="ONNX Runtime"):
        load_classifier(tmp_path / "m.onnx")


def test_a_graph_takes_as_many_threads_as_torch(tmp_path: Path) -> None:
    graph = open_onnx(graph_file(tmp_path / "m.onnx", Net()), None, None)
    assert graph.session.get_session_options().intra_op_num_threads == torch.get_num_threads()


def test_graphs_that_are_no_classifiers(tmp_path: Path) -> None:
    net = Net()
    first = [helper.make_node("Constant", [], ["s"], value_ints=[-1, 1, H, W]), node("Reshape", "x", "s", "a")]
    with pytest.raises(ModelError, match="exactly one input"):
        load_classifier(graph_file(tmp_path / "m.onnx", net, shape=("n", H * W), first=first))
