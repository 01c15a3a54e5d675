"""From whatever holds a trained classifier to a :class:`~lucency.classifier.Classifier`."""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import warnings
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lucency.classifier.base import Classifier, Fit, Interpolation, Outputs
from lucency.classifier.named import WAYS, opened
from lucency.classifier.onnx import open_onnx
from lucency.classifier.program import open_program
from lucency.errors import MissingExtraError, ModelError

Scores = Callable[[NDArray[np.float32]], Any]
SHIPPED = "lucency:"
XRAYVISION = "torchxrayvision:"
DEFAULTS: dict[str, Any] = {
    "mean": (0.0,),
    "std": (1.0,),
    "outputs": "logits",
    "exclusive": True,
    "fit": "stretch",
    "crop_share": 1.0,
    "interpolation": "linear",
    "clip": False,
    "input_size": None,
    "channels": None,
}
"""What :func:`load_classifier` takes for what is neither said nor found."""


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
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    outputs: Outputs | None = None,
    exclusive: bool | None = None,
    fit: Fit | None = None,
    crop_share: float | None = None,
    interpolation: Interpolation | None = None,
    clip: bool | None = None,
    weights: str | Path | None = None,
    trust: bool = False,
) -> Classifier:
    """A classifier from a network, a name, a file or a function.

    What is left out is what the model's own configuration says, where it has one, and else the default.

    Args:
        source: a ``torch.nn.Module`` (copied, put into evaluation mode); ``"lucency:NAME"`` for a shipped model, or
            another prefix and name (:mod:`lucency.classifier.named`); the path of an ``.onnx`` file, of a TorchScript
            file or of a ``.pt2`` program; or a function from float32 NumPy ``[B, C, *grid]`` to scores ``[B, K]``.
        classes: the class names; ``output 0``, ``output 1``, ... when left out.
        input_size: spatial size that the model wants; ``None`` takes scans as they are, or what the file says.
        channels: channels that it wants; found from the first convolution of a module, or from the graph of a file.
        mean, std: normalisation of display values (0 and 1), see :class:`Classifier`.
        outputs, exclusive, fit, clip: see :class:`Classifier` (logits, true, stretch, false).
        crop_share, interpolation: see :class:`Classifier` (1, linear).
        weights: a safetensors file of trained weights for a named architecture (``"timm:resnet18"``).
        trust: open a file that can act on this machine when it is loaded or runs (TorchScript, ``.pt2``).

    Raises:
        ModelError: when there is no such model, the file is damaged, is a pickle or can act and is not trusted, or a
            dry run fails.
        MissingExtraError: when an optional package is needed.
    """
    options = {
        "mean": mean,
        "std": std,
        "outputs": outputs,
        "exclusive": exclusive,
        "fit": fit,
        "crop_share": crop_share,
        "interpolation": interpolation,
        "clip": clip,
        "input_size": input_size,
        "channels": channels,
    }
    said = {option: value for option, value in options.items() if value is not None}
    given = {**DEFAULTS, **said}
    _sensible(given)
    if isinstance(source, type):
        raise ModelError(f"{source.__name__} is a class; hand over a trained instance of it.")
    if isinstance(source, nn.Module):
        if _is_xrayvision(source):
            return _xrayvision_classifier(source, type(source).__name__)
        return _of_module(_copied(source), type(source).__name__, classes, given)
    if callable(source):
        return _of_function(source, classes, given)
    if not isinstance(source, str | Path):
        raise ModelError(f"{source!r:.60} is no classifier; give a PyTorch module, a name, a file or a function.")
    name = str(source)
    beyond = {"classes": classes, "weights": weights, "trust": trust or None}
    if isinstance(source, str):
        named = opened(name, {**said, **{option: value for option, value in beyond.items() if value is not None}})
        if named is not None:
            return named
    if weights is not None:
        raise ModelError(f"{name:.60} holds its own weights; weights= goes with a name, such as timm:resnet18.")
    path = Path(source)
    if not path.is_file():
        names = ", ".join(str(about["name"]) for about in available_models())
        ways = ", ".join(f"{prefix}:" for prefix in WAYS)
        raise ModelError(
            f"There is no model {name!r}: neither a file nor a name; shipped models are {names}, other names begin "
            f"with one of {ways}."
        )
    return _of_file(path, classes, given, trust)


def _sensible(given: dict[str, Any]) -> None:
    """Refuses what a reader of a hand-written description would otherwise meet as wrong scores.

    Raises:
        ModelError: naming the option.
    """
    for option, allowed in (
        ("outputs", get_args(Outputs)),
        ("fit", get_args(Fit)),
        ("interpolation", get_args(Interpolation)),
    ):
        if given[option] not in allowed:
            raise ModelError(f"{option} is {given[option]!r}; say {' or '.join(map(repr, allowed))}.")
    size = given["input_size"]
    if size is not None and not (_numbers(size) and len(size) in (2, 3) and all(n == int(n) > 0 for n in size)):
        raise ModelError(f"input_size is {size!r}; give two (or three) positive whole numbers, such as (224, 224).")
    for option in ("mean", "std"):
        if not _numbers(given[option]):
            raise ModelError(f"{option} is {given[option]!r}; give one number for each channel, such as (0.5,).")
    share = given["crop_share"]
    if not (_numbers((share,)) and 0 < share <= 1):
        raise ModelError(f"crop_share is {share!r}; give the share of each side that is kept, above 0 and at most 1.")
    if 0 in tuple(given["std"]):
        raise ModelError("std is 0 for a channel; give the spread that the network was trained with.")


def _numbers(values: Any) -> bool:
    try:
        return not isinstance(values, str) and all(np.isfinite(float(v)) for v in values)
    except (TypeError, ValueError):
        return False


def _copied(module: nn.Module) -> nn.Module:
    try:
        own = copy.deepcopy(module)
    except Exception as error:
        raise ModelError(
            f"{type(module).__name__} cannot be copied ({error}); give a function that calls it instead."
        ) from error
    return own.cpu().eval().requires_grad_(False)


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


def _shipped(short: str) -> Classifier:
    from safetensors.torch import load

    from lucency.classifier import networks

    name = SHIPPED + short
    about = next((a for a in available_models() if a["name"] == name), None)
    if about is None:
        names = ", ".join(str(a["name"]) for a in available_models())
        raise ModelError(f"No shipped model is called {name!r}; there are {names}.")
    weights = files("lucency.classifier") / "weights" / (short + ".safetensors")
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


def _of_file(path: Path, classes: Sequence[str] | None, given: dict[str, Any], trust: bool) -> Classifier:
    forward: Callable[[Tensor], Any]
    shape: tuple[int | None, ...] | None
    module, written = None, None
    if path.suffix.lower() == ".onnx":
        forward, shape, written = open_onnx(path)
    else:
        module, shape = open_program(path, trust)
        forward = module
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        given = {**given, "channels": given["channels"] or _channels(module)}
    if shape is not None:
        if len(shape) not in (4, 5):
            raise ModelError(
                f"{path} wants {len(shape)} axes; export a network that reads [B, C, H, W] or [B, C, D, H, W]."
            )
        batch, channels, *size = shape
        given = {**given, "channels": given["channels"] or channels}
        if given["input_size"] is None and None not in size:
            given = {**given, "input_size": tuple(size)}
        if batch is not None:
            forward = _in_batches_of(batch, forward)
    return _checked(
        Classifier(
            forward,
            name=path.name,
            classes=_named(forward, classes or written, path.name, given),
            fingerprint=_sha256(path),
            module=module,
            **given,
        )
    )


def _in_batches_of(size: int, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A graph of a fixed batch, asked as often as needed; its last batch is filled up and the filling dropped."""

    def looped(x: Tensor) -> Tensor:
        scores = []
        for part in torch.split(x, size):
            filling = part[-1:].expand(size - len(part), *part.shape[1:])
            scores.append(forward(torch.cat([part, filling]))[: len(part)])
        return torch.cat(scores)

    return looped


def _channels(module: nn.Module) -> int | None:
    """Input channels from the first convolution's weights ``[out, in, k, k]``, if there is one."""
    weight = next((p for p in module.parameters() if p.ndim in (4, 5)), None)
    return None if weight is None else int(weight.shape[1])
