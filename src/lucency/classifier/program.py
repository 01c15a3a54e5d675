"""TorchScript archives and exported programs: files that can act, so that they are loaded only when they are trusted.

Running a TorchScript network can write files of its choice, and loading an exported program evaluates Python that the
file brings along. Trust opens those; a free pickle inside stays shut even then.
"""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lucency.errors import ModelError

Shape = tuple[int | None, ...]


def open_program(path: Path, trust: bool) -> tuple[nn.Module, Shape | None]:
    """The network of a TorchScript or ``.pt2`` file and, for the latter, its input's shape (``None`` where free).

    Raises:
        ModelError: when the file is damaged, is something else, holds a free pickle, or can act and is not trusted.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            inside = archive.namelist()
            scripted = any("/code/" in n for n in inside)
            exported = any(n.endswith(("serialized_exported_program.json", "models/model.json")) for n in inside)
            if not (scripted or exported) or (not scripted and _holds_code(archive)):
                raise ModelError(
                    f"{path} holds a pickle or compiled code, which is not opened because that can run anything; "
                    "build the network in Python, load its weights there and hand over the module."
                )
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ModelError(
            f"{path} is not a model file that Lucency reads ({error}); give .onnx, TorchScript or .pt2."
        ) from error
    if not trust:
        acts = "a TorchScript network can write files when it runs" if scripted else "a .pt2 program runs Python"
        raise ModelError(
            f"{path} can act on this machine ({acts}), so it is opened only with trust=True (--trust-model); safe are "
            "ONNX, and weights in a safetensors file with the network's name, such as "
            "load_classifier('timm:resnet18', weights='model.safetensors')."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if scripted:
                return torch.jit.load(str(path), map_location="cpu").eval(), None  # type: ignore[no-untyped-call]
            program = torch.export.load(path)
            return program.module(), input_shape(program)
    except Exception as error:
        raise ModelError(
            f"{path} cannot be loaded ({(str(error) or type(error).__name__).splitlines()[0]}); export it again."
        ) from error


def _holds_code(archive: zipfile.ZipFile) -> bool:
    """Whether loading this exported program would unpickle something, or load a compiled library.

    ``torch.export.load`` falls back to free unpickling where a restricted load fails, so each pickle is tried first.
    """
    names = archive.namelist()
    if len(set(names)) != len(names) or any("aotinductor/" in n for n in names):
        return True
    for name in names:
        if name.endswith("_config.json"):
            entries = json.loads(archive.read(name))["config"].values()
            if any(e.get("use_pickle") or e["path_name"].startswith(("custom_obj", "opaque_obj")) for e in entries):
                return True
        elif name.endswith(".pt") and (data := archive.read(name)):
            try:
                torch.load(io.BytesIO(data), weights_only=True)
            except (pickle.UnpicklingError, RuntimeError, EOFError):
                return True
    return False


def input_shape(program: Any) -> Shape | None:
    wanted = program.graph_signature.user_inputs
    shape = next(
        (n.meta["val"].shape for n in program.graph.nodes if n.op == "placeholder" and n.name == wanted[0]), None
    )
    return None if shape is None else tuple(n if isinstance(n, int) else None for n in shape)
