"""From whatever holds a trained classifier to a :class:`~lucency.classifier.Classifier`."""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import warnings
import zipfile
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lucency.classifier.base import Classifier, Fit, Outputs
from lucency.errors import MissingExtraError, ModelError

Scores = Callable[[NDArray[np.float32]], Any]
SHIPPED = "lucency:"
XRAYVISION = "torchxrayvision:"


def available_models() -> list[dict[str, Any]]:
    """What is known about each shipped model (the JSON beside its weights), by name."""
    folder = files("lucency.classifier") / "weights"
    found = [json.loads(f.read_text()) for f in folder.iterdir() if f.name.endswith(".json")] if folder.is_dir() else []
    return sorted(found, key=lambda about: str(about["name"]))


def load_classifier(
    source: str | Path | nn.Module | Scores,
    *,
    classes: Sequence[str] | None = None,
    input_size: Sequence[int] | None = None,
    channels: int | None = None,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    outputs: Outputs = "logits",
    exclusive: bool = True,
    fit: Fit = "stretch",
    clip: bool = False,
) -> Classifier:
    """A classifier from a network, a name, a file or a function.

    Args:
        source: a ``torch.nn.Module`` (copied, put into evaluation mode); ``"lucency:NAME"`` for a shipped model;
            ``"torchxrayvision:NAME"``; the path of an ``.onnx`` file, of a TorchScript file or of a ``.pt2`` program;
            or a function from float32 NumPy ``[B, C, *grid]`` to scores ``[B, K]``.
        classes: the class names; ``output 0``, ``output 1``, ... when left out.
        input_size: spatial size that the model wants; ``None`` takes scans as they are.
        channels: channels that it wants; found from the first convolution of a module.
        mean, std: normalisation of display values, see :class:`Classifier`.
        outputs, exclusive, fit, clip: see :class:`Classifier`. A named model brings its own.

    Raises:
        ModelError: when there is no such model, the file is damaged or is a pickle, or a dry run fails.
        MissingExtraError: when an optional package is needed.
    """
    given = {
        "mean": mean,
        "std": std,
        "outputs": outputs,
        "exclusive": exclusive,
        "fit": fit,
        "clip": clip,
        "input_size": input_size,
        "channels": channels,
    }
    if isinstance(source, nn.Module):
        if _is_xrayvision(source):
            return _xrayvision_classifier(source, type(source).__name__)
        return _of_module(_copied(source), type(source).__name__, classes, given)
    if callable(source):
        return _of_function(source, classes, given)
    name = str(source)
    if name.startswith(SHIPPED):
        return _shipped(name)
    if name.startswith(XRAYVISION):
        return _xrayvision(name.removeprefix(XRAYVISION))
    path = Path(source)
    if not path.is_file():
        names = ", ".join(str(about["name"]) for about in available_models())
        raise ModelError(f"There is no model {name!r}: neither a file nor a name; shipped models are {names}.")
    if path.suffix.lower() == ".onnx":
        return _of_onnx(path, classes, given)
    return _of_program(path, classes, given)


def _copied(module: nn.Module) -> nn.Module:
    try:
        own = copy.deepcopy(module)
    except Exception as error:
        raise ModelError(
            f"{type(module).__name__} cannot be copied ({error}); give a function that calls it instead."
        ) from error
    return own.eval().requires_grad_(False)


def _fingerprint(module: nn.Module) -> str:
    digest = hashlib.sha256(str(module).encode())
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        if isinstance(value, Tensor):
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _checked(classifier: Classifier) -> Classifier:
    """The classifier after a dry run on a grey picture, when its input size is known."""
    if classifier.input_size is not None:
        x = torch.full((1, classifier.channels or 1, *classifier.input_size), 0.5)
        with torch.inference_mode():
            out = classifier(x)
        if not bool(torch.isfinite(out).all()):
            raise ModelError(f"{classifier.name} gives NaN or infinite scores for a grey picture; check its weights.")
        if classifier.outputs == "probabilities" and not bool(((out >= -1e-4) & (out <= 1 + 1e-4)).all()):
            raise ModelError(
                f"{classifier.name} was said to give probabilities and gave {float(out.min()):.3g} to "
                f"{float(out.max()):.3g}; say outputs='logits'."
            )
    return classifier


def _named(
    forward: Callable[[Tensor], Any], classes: Sequence[str] | None, name: str, given: dict[str, Any]
) -> list[str]:
    """The class names, counted by a dry run when none are given."""
    if classes is not None:
        return list(classes)
    if given["input_size"] is None:
        raise ModelError(f"Nothing tells how many classes {name} has; give classes=[...] or input_size=(H, W).")
    x = torch.full((1, given["channels"] or 1, *given["input_size"]), 0.5)
    probe = Classifier(forward, name=name, classes=(), fingerprint="", **given)
    try:
        with torch.inference_mode():
            out = forward(probe.normalise(x))
    except Exception as error:
        raise ModelError(
            f"{name} raised {type(error).__name__} on a grey picture of shape {list(x.shape)} "
            f"({(str(error).strip() or 'no message').splitlines()[0]}); check input_size and channels."
        ) from error
    if not isinstance(out, Tensor) or out.ndim != 2:
        raise ModelError(f"{name} must give outputs of shape [B, K]; wrap its forward in a function that does.")
    return [f"output {i}" for i in range(out.shape[1])]


def _of_module(module: nn.Module, name: str, classes: Sequence[str] | None, given: dict[str, Any]) -> Classifier:
    first = next((m for m in module.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)), None)
    if given["channels"] is None and first is not None:
        given = {**given, "channels": first.in_channels}
    return _checked(
        Classifier(
            module,
            name=name,
            classes=_named(module, classes, name, given),
            fingerprint=_fingerprint(module),
            module=module,
            **given,
        )
    )


def _of_function(function: Scores, classes: Sequence[str] | None, given: dict[str, Any]) -> Classifier:
    name = getattr(function, "__name__", type(function).__name__)

    def forward(x: Tensor) -> Tensor:
        scores = function(x.detach().cpu().numpy())
        return torch.as_tensor(np.asarray(scores), dtype=torch.float32).to(x.device)

    return _checked(
        Classifier(
            forward,
            name=name,
            classes=_named(forward, classes, name, given),
            fingerprint=f"function {getattr(function, '__module__', '')}.{getattr(function, '__qualname__', name)}",
            **given,
        )
    )


def _shipped(name: str) -> Classifier:
    from safetensors.torch import load

    from lucency.classifier import networks

    about = next((a for a in available_models() if a["name"] == name), None)
    if about is None:
        names = ", ".join(str(a["name"]) for a in available_models())
        raise ModelError(f"No shipped model is called {name!r}; there are {names}.")
    weights = files("lucency.classifier") / "weights" / (name.removeprefix(SHIPPED) + ".safetensors")
    data = weights.read_bytes()
    if hashlib.sha256(data).hexdigest() != about["weights_sha256"]:
        raise ModelError(f"The weights of {name} do not match their checksum; install Lucency again.")
    network: nn.Module = getattr(networks, about["architecture"])(**about["architecture_args"])
    network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load(data).items()})
    network.eval().requires_grad_(False)
    return Classifier(
        network,
        name=name,
        classes=about["classes"],
        fingerprint=str(about["weights_sha256"]),
        input_size=about["input_size"],
        channels=about["channels"],
        mean=about["mean"],
        std=about["std"],
        outputs=about["outputs"],
        exclusive=about["exclusive"],
        clip=True,
        module=network,
        card=str(about["card"]),
    )


def _is_xrayvision(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torchxrayvision.")


def _xrayvision(weights: str) -> Classifier:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            models = importlib.import_module("torchxrayvision.models")
    except Exception as error:
        raise MissingExtraError(
            f"TorchXRayVision cannot be imported ({error}); pip install 'lucency[xrayvision]' beside a matching torch."
        ) from error
    kind = models.ResNet if weights.startswith("resnet") else models.DenseNet
    try:
        module = kind(weights=weights)
    except Exception as error:
        raise ModelError(
            f"TorchXRayVision could not give {weights!r} ({(str(error) or type(error).__name__).splitlines()[0]}); "
            "check the name and that its weights are downloaded."
        ) from error
    return _xrayvision_classifier(_copied(module), f"{XRAYVISION}{weights}")


def _xrayvision_classifier(module: nn.Module, name: str) -> Classifier:
    """Its own conventions: one channel in [-1024, 1024], a centred square, sigmoid outputs when so built."""
    module = _copied(module)
    side = int(getattr(module, "input_resolution", 512 if type(module).__name__ == "ResNet" else 224))
    squashed = bool(getattr(module, "apply_sigmoid", False)) or getattr(module, "op_threshs", None) is not None
    names = getattr(module, "pathologies", None) or getattr(module, "targets", [])
    return Classifier(
        module,
        name=name,
        classes=[n or f"unnamed {i}" for i, n in enumerate(names)],
        fingerprint=_fingerprint(module),
        input_size=(side, side),
        channels=1,
        mean=(0.5,),
        std=(1 / 2048,),
        outputs="probabilities" if squashed else "logits",
        exclusive=False,
        fit="crop",
        clip=True,
        module=module,
    )


def _of_onnx(path: Path, classes: Sequence[str] | None, given: dict[str, Any]) -> Classifier:
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
    wanted = session.get_inputs()[0]
    batch, inner, *spatial = wanted.shape
    size = tuple(n for n in spatial if isinstance(n, int))
    if given["input_size"] is None and len(size) == len(spatial):
        given = {**given, "input_size": size}
    if given["channels"] is None and isinstance(inner, int):
        given = {**given, "channels": inner}
    step = batch if isinstance(batch, int) and batch > 0 else None
    result = session.get_outputs()[0].name

    def forward(x: Tensor) -> Tensor:
        data = x.detach().cpu().numpy().astype(np.float32)
        if step is None:
            return torch.from_numpy(np.asarray(session.run([result], {wanted.name: data})[0], np.float32))
        parts = []
        for start in range(0, len(data), step):
            part = data[start : start + step]
            # A graph of a fixed batch gets its last batch filled up, and the filling is dropped again.
            full = np.concatenate([part, np.repeat(part[-1:], step - len(part), 0)])
            parts.append(np.asarray(session.run([result], {wanted.name: full})[0], np.float32)[: len(part)])
        return torch.from_numpy(np.concatenate(parts))

    written = session.get_modelmeta().custom_metadata_map.get("classes")
    if classes is None and written:
        classes = json.loads(written)
    return _checked(
        Classifier(
            forward,
            name=path.name,
            classes=_named(forward, classes, path.name, given),
            fingerprint=_sha256(path),
            **given,
        )
    )


def _of_program(path: Path, classes: Sequence[str] | None, given: dict[str, Any]) -> Classifier:
    """A TorchScript archive or an exported program; both are zip files that hold no free pickle to run."""
    try:
        with zipfile.ZipFile(path) as archive:
            inside = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise ModelError(
            f"{path} is not a model file that Lucency reads ({error}); give .onnx, TorchScript or .pt2."
        ) from error
    scripted = any("/code/" in n for n in inside)
    exported = any(n.endswith(("serialized_exported_program.json", "models/model.json")) for n in inside)
    if not scripted and not exported:
        raise ModelError(
            f"{path} holds pickled weights or a pickled module, which is not opened because unpickling can run code; "
            "build the network in Python, load its state dict there and hand over the module."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module: nn.Module
            if scripted:
                module = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
            else:
                module = torch.export.load(path).module()
    except Exception as error:
        raise ModelError(
            f"{path} cannot be loaded ({(str(error) or type(error).__name__).splitlines()[0]}); export it again."
        ) from error
    given = {**given, "channels": given["channels"] or _channels(module)}
    return _checked(
        Classifier(
            module,
            name=path.name,
            classes=_named(module, classes, path.name, given),
            fingerprint=_sha256(path),
            module=module,
            **given,
        )
    )


def _channels(module: nn.Module) -> int | None:
    """Input channels from the first convolution's weights ``[out, in, k, k]``, if there is one."""
    weight = next((p for p in module.parameters() if p.ndim in (4, 5)), None)
    return None if weight is None else int(weight.shape[1])
