"""ONNX graphs, run by ONNX Runtime as black boxes."""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lucency.classifier.layout import Layout, beside, cast
from lucency.errors import MissingExtraError, ModelError

DTYPES = {
    "float": np.float32, "float16": np.float16, "double": np.float64, "bool": np.bool_, "uint8": np.uint8,
    "int8": np.int8, "uint16": np.uint16, "int16": np.int16, "int32": np.int32, "int64": np.int64,
}  # fmt: skip
"""What ONNX Runtime calls ``tensor(...)``, as NumPy has it."""
LAST = {
    "Softmax": "softmax",
    "LogSoftmax": "log-softmax",
    "Sigmoid": "sigmoid",
    "HardSigmoid": "sigmoid",
    "Gemm": "linear",
    "MatMul": "linear",
    "Conv": "linear",
}
CARRIES = {"Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Transpose", "Dropout"}
"""Nodes behind which probabilities are still probabilities."""
TO_CHANNELS_FIRST = ([0, 3, 1, 2], [0, 4, 1, 2, 3])


@dataclass(frozen=True)
class Graph:
    """A graph and what it tells about itself.

    Attributes:
        layout: how it wants the scan.
        classes: the class names in its metadata, if there are any.
        last: what kind of node makes the scores, see :mod:`lucency.classifier.steps`.
        whole: whether it reads whole numbers, which are 0..255 in pictures.
    """

    session: Any
    scan: Any
    others: tuple[Any, ...]
    layout: Layout
    classes: tuple[str, ...] | None
    last: str | None

    @property
    def whole(self) -> bool:
        return _dtype(self.scan).kind in "iu"

    def __call__(self, x: Tensor, **extras: Any) -> Any:
        """``[B, C, *grid]`` and the other inputs by name -> the tensor that the graph gives, or several by name."""
        return self.layout.in_batches(self._run, x, extras)

    def _run(self, x: Tensor, extras: Mapping[str, Any]) -> Any:
        if missing := [wanted.name for wanted in self.others if wanted.name not in extras]:
            raise ModelError(f"The graph reads {', '.join(missing)} beside the scan; give that with extra_inputs=.")
        feed = {self.scan.name: cast(self.layout.laid(x), _dtype(self.scan))}
        for wanted in self.others:
            feed[wanted.name] = cast(beside(extras[wanted.name], wanted.shape), _dtype(wanted))
        made = {
            output.name: torch.from_numpy(np.array(value, np.float32)).to(x.device)
            for output, value in zip(self.session.get_outputs(), self.session.run(None, feed), strict=True)
            if isinstance(value, np.ndarray) and value.dtype.kind in "fiu"
        }
        if self.layout.unbatched(x):
            made = {name: value[None] for name, value in made.items()}
        return next(iter(made.values())) if len(made) == 1 else made


def open_onnx(path: Path, channels: int | None, output: object) -> Graph:
    """The graph in a file, with weights in files beside it if it has such.

    Args:
        channels: how many channels the caller says that the scan has.
        output: which output the caller says that holds the scores.

    Raises:
        ModelError: when ONNX Runtime cannot read the file, or none of its inputs can be a scan.
        MissingExtraError: without ONNX Runtime.
    """
    runtime, onnx = _needed("onnxruntime"), _needed("onnx")
    try:
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:
        raise ModelError(
            f"{path} is not a model that ONNX Runtime can read ({(str(error) or 'no message').splitlines()[0]}); "
            "export it again."
        ) from error
    scan = _scan_of(session.get_inputs(), path)
    first = next((one for one in graph.node if scan.name in one.input), None)
    turned = first is not None and first.op_type == "Transpose" and _perm(first) in TO_CHANNELS_FIRST
    outputs = [o for o in session.get_outputs() if _number(o)]
    if not outputs:
        raise ModelError(f"{path} gives no tensor of numbers; export the scores themselves.")
    chosen = next((o for i, o in enumerate(outputs) if output in (i, o.name)), outputs[0])
    decided = len(outputs) == 1 or output is not None
    return Graph(
        session=session,
        scan=scan,
        others=tuple(wanted for wanted in session.get_inputs() if wanted.name != scan.name),
        layout=Layout.of(scan.shape, channels, turned),
        classes=_names(session.get_modelmeta().custom_metadata_map),
        last=_last(graph, chosen.name) if decided else None,
    )


def hash_of(path: Path) -> str:
    """A hash of the graph and of the files beside it that hold its weights."""
    onnx = _needed("onnx")
    digest = hashlib.sha256(path.read_bytes())
    graph = onnx.load(path, load_external_data=False).graph
    places = {e.value for weight in graph.initializer for e in weight.external_data if e.key == "location"}
    for place in sorted(places):
        beside = path.parent / place
        if beside.is_file():
            with beside.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _needed(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError("Reading .onnx needs ONNX and ONNX Runtime; pip install 'lucency[onnx]'.") from error


def _number(wanted: Any) -> bool:
    return wanted.type.startswith("tensor(") and wanted.type[7:-1] in DTYPES and wanted.type != "tensor(bool)"


def _dtype(wanted: Any) -> np.dtype[Any]:
    if wanted.type[7:-1] not in DTYPES:
        raise ModelError(f"The graph's input {wanted.name!r} is {wanted.type}, which cannot be given; export it anew.")
    return np.dtype(DTYPES[wanted.type[7:-1]])


def _scan_of(inputs: Sequence[Any], path: Path) -> Any:
    """The input that a scan goes into: the one with the most axes.

    Raises:
        ModelError: when there is none, or several could be.
    """
    pictures = [one for one in inputs if _number(one) and len(one.shape) in (3, 4, 5)]
    most = max((len(one.shape) for one in pictures), default=0)
    pictures = [one for one in pictures if len(one.shape) == most]
    if len(pictures) != 1:
        told = ", ".join(f"{one.name} {one.type} {list(one.shape)}" for one in inputs)
        raise ModelError(
            f"{path} reads {told}; export a graph with exactly one input of [B, C, H, W] or [B, C, D, H, W] numbers, "
            "or [B, H, W, C]."
        )
    return pictures[0]


def _perm(node: Any) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == "perm"), [])


def _last(graph: Any, name: str) -> str | None:
    """What kind of node makes an output, seen through those that only rearrange."""
    makers = {made: node for node in graph.node for made in node.output}
    while (node := makers.get(name)) is not None and node.op_type in CARRIES and node.input:
        name = node.input[0]
    if (
        node is not None
        and node.op_type == "Add"
        and any((maker := makers.get(part)) is not None and LAST.get(maker.op_type) == "linear" for part in node.input)
    ):
        return "linear"
    return None if node is None else LAST.get(node.op_type, node.op_type.lower())


def _names(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """Class names from the metadata: a list, or a mapping from numbers, as JSON or as Python writes them."""
    for key in ("classes", "class_names", "labels", "names"):
        text = metadata.get(key, "")
        for parse in (json.loads, ast.literal_eval):
            try:
                names = parse(text)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
            if isinstance(names, dict) and all(str(n).isdigit() for n in names):
                names = [names[n] for n in sorted(names, key=int)]
            if isinstance(names, list) and names and all(isinstance(n, str) for n in names):
                return tuple(names)
    return None
