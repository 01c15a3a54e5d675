"""ONNX graphs, run by ONNX Runtime as black boxes."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lucency.errors import MissingExtraError, ModelError

Shape = tuple[int | None, ...]


def open_onnx(path: Path) -> tuple[Callable[[Tensor], Tensor], Shape, list[str] | None]:
    """The graph as a function, the shape of its input (``None`` where free), and its class names if it holds any.

    Class names are read from the metadata entry ``classes``, a JSON list of strings.

    Raises:
        ModelError: when ONNX Runtime cannot read the file, or it wants several inputs.
        MissingExtraError: without ONNX Runtime.
    """
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingExtraError("Reading .onnx needs ONNX Runtime; pip install 'lucency[onnx]'.") from error
    try:
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(
            f"{path} is not a model that ONNX Runtime can read ({str(error).splitlines()[0]}); export it again."
        ) from error
    if len(session.get_inputs()) != 1:
        raise ModelError(
            f"{path} wants {len(session.get_inputs())} inputs; export a graph whose only input is the scan."
        )
    wanted, result = session.get_inputs()[0], session.get_outputs()[0].name

    def forward(x: Tensor) -> Tensor:
        data = x.detach().cpu().numpy().astype(np.float32)
        return torch.from_numpy(np.asarray(session.run([result], {wanted.name: data})[0], np.float32)).to(x.device)

    try:
        names = json.loads(session.get_modelmeta().custom_metadata_map.get("classes", "null"))
    except ValueError:
        names = None
    shape = tuple(n if isinstance(n, int) and n > 0 else None for n in wanted.shape)
    return forward, shape, [str(n) for n in names] if isinstance(names, list) else None
