"""From whatever holds a trained classifier to a :class:`~lucency.classifier.Classifier`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lucency.classifier.base import Classifier, ExtraInputs, Fit, Interpolation, Outputs, Reduce
from lucency.classifier.copying import copied, fingerprint, still, unwrapped
from lucency.classifier.function import Function
from lucency.classifier.judging import Auto
from lucency.classifier.making import DEFAULTS, made, sensible
from lucency.classifier.named import WAYS, opened
from lucency.classifier.named.xrayvision import is_xrayvision, xrayvision_classifier
from lucency.classifier.onnx import hash_of, open_onnx
from lucency.classifier.program import input_shape, open_program
from lucency.classifier.readout import Output
from lucency.errors import ModelError

Scores = Callable[..., Any]
SHIPPED = "lucency:"


def available_models() -> list[dict[str, Any]]:
    """What is known about each shipped model (the JSON beside its weights), by name."""
    folder = files("lucency.classifier") / "weights"
    found = [json.loads(f.read_text()) for f in folder.iterdir() if f.name.endswith(".json")] if folder.is_dir() else []
    return sorted(found, key=lambda about: str(about["name"]))


def load_classifier(
    source: str | Path | nn.Module | Scores | Classifier,
    *,
    classes: Sequence[str] | None = None,
    input_size: Sequence[int] | None = None,
    channels: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    outputs: Outputs | Auto | None = None,
    exclusive: bool | Auto | None = None,
    fit: Fit | None = None,
    crop_share: float | None = None,
    interpolation: Interpolation | None = None,
    clip: bool | None = None,
    output: Output | None = None,
    reduce: Reduce | None = None,
    extra_inputs: ExtraInputs | None = None,
    weights: str | Path | None = None,
    reference: str | Path | None = None,
    trust: bool = False,
) -> Classifier:
    """A classifier from a network, a name, a file or a function.

    What is left out is what the model's own configuration says, where it has one, and else the default. A network or
    a function is tried on a few pictures that look like scans; what had to be taken for granted stands in
    :attr:`Classifier.notices`.

    Args:
        source: a ``torch.nn.Module``, a scripted or an exported one too (copied, put into evaluation mode, taken out of
            ``DataParallel`` and ``torch.compile``); ``"lucency:NAME"`` for a shipped model, or another prefix and name
            (:mod:`lucency.classifier.named`); the path of an ``.onnx`` file, of a TorchScript file or of a ``.pt2``
            program; or a function from ``[B, C, *grid]``, a float32 array or a tensor on the CPU, to scores.
        classes: the class names; ``output 0``, ``output 1``, ... when left out. A model with one output may have two,
            the negative class first.
        input_size: spatial size that the model wants; ``None`` takes scans as they are, or what the file says.
        channels: channels that it wants; found by trying.
        mean, std: normalisation of display values (0 and 1), see :class:`Classifier`.
        outputs: ``"logits"``, ``"probabilities"``, ``"log-probabilities"`` or ``"numbers"`` (a regression);
            ``"auto"`` judges by the last step of a network and by the outputs on several pictures.
        exclusive: whether classes exclude each other; ``"auto"`` where probabilities add up to 1, and for logits.
        fit, clip: see :class:`Classifier` (stretch, false).
        crop_share, interpolation: see :class:`Classifier` (1, linear).
        output: which part of what the model returns holds the scores: a name (``"head.logits"``), a place, or a
            function; not needed where it is obvious.
        reduce: how a map for each class ``[B, K, *space]`` becomes a number: ``"mean"``, ``"max"`` or ``"sum"`` over
            the map, or an array ``[*space]`` that weighs a region, such as a mask. A segmentation needs one.
        extra_inputs: what the model reads beside the scan, see :data:`~lucency.classifier.base.ExtraInputs`.
        weights: a safetensors file of trained weights for a named architecture (``"timm:resnet18"``).
        reference: features of clean scans, against which scans are checked before they are explained; the file that
            :meth:`lucency.checks.out_of_distribution.OutOfDistribution.save` wrote.
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
        "output": output,
        "reduce": reduce,
        "extra_inputs": extra_inputs,
    }
    said = {option: value for option, value in options.items() if value is not None}
    sensible({**DEFAULTS, **said})
    if isinstance(source, Classifier):
        if said or any(option is not None for option in (classes, weights, reference)):
            raise ModelError(f"{source.name} is loaded already; give what is to be known of it when it is loaded.")
        return source
    if reference is not None and not Path(reference).is_file():
        raise ModelError(f"There is no reference {reference}; OutOfDistribution.fit(...).save(path) writes one.")
    classifier = _loaded(source, classes, said, weights, trust)
    classifier.reference = None if reference is None else Path(reference)
    return classifier


def _loaded(
    source: Any, classes: Sequence[str] | None, said: dict[str, Any], weights: str | Path | None, trust: bool
) -> Classifier:
    if isinstance(source, type):
        raise ModelError(f"{source.__name__} is a class; hand over a trained instance of it.")
    if isinstance(source, torch.export.ExportedProgram):
        program = source.module()
        return _of_program(
            program, input_shape(source), "exported program", classes, said, lambda: fingerprint(program)
        )
    if isinstance(source, nn.Module):
        source = unwrapped(source)
        if is_xrayvision(source):
            return xrayvision_classifier(source, type(source).__name__)
        return _of_module(source, _name_of(source), classes, said)
    if callable(source):
        return _of_function(source, classes, said)
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
    return _of_file(path, classes, said, trust)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _name_of(module: nn.Module) -> str:
    return str(getattr(module, "original_name", type(module).__name__))


def _of_module(module: nn.Module, name: str, classes: Sequence[str] | None, said: dict[str, Any]) -> Classifier:
    own, shared = copied(module)
    notices = [f"{', '.join(shared)} could not be copied and is shared with your network."] if shared else []
    return made(own, own, name, classes, lambda: fingerprint(own), said, notices)


def _of_function(function: Scores, classes: Sequence[str] | None, said: dict[str, Any]) -> Classifier:
    name = getattr(function, "__name__", type(function).__name__)
    identity = f"function {getattr(function, '__module__', '')}.{getattr(function, '__qualname__', name)}"
    return made(Function(function, name), None, name, classes, lambda: identity, said)


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


def _of_file(path: Path, classes: Sequence[str] | None, said: dict[str, Any], trust: bool) -> Classifier:
    if path.suffix.lower() == ".onnx":
        return _of_graph(path, classes, said)
    module, shape = open_program(path, trust)
    return _of_program(module, shape, path.name, classes, said, lambda: _sha256(path))


def _of_program(
    module: nn.Module,
    shape: tuple[int | None, ...] | None,
    name: str,
    classes: Sequence[str] | None,
    said: dict[str, Any],
    print_of: Callable[[], str],
) -> Classifier:
    still(module)
    forward: Callable[..., Any] = module
    if shape is not None:
        said = {**_found(shape, name), **said}
        if shape[0] is not None:
            forward = _in_batches_of(shape[0], forward)
    return made(forward, module, name, classes, print_of, said)


def _of_graph(path: Path, classes: Sequence[str] | None, said: dict[str, Any]) -> Classifier:
    graph = open_onnx(path, said.get("channels"), said.get("output"))
    found, notices = _found(graph.layout.shape, path.name), []
    if graph.whole and {"mean", "std"}.isdisjoint(said):
        found |= {"std": (1 / 255,), "clip": True}
        notices.append("The graph reads whole numbers, so pixels go in from 0 to 255.")
    return made(
        graph, None, path.name, classes or graph.classes, lambda: hash_of(path), {**found, **said}, notices, graph.last
    )


def _found(shape: tuple[int | None, ...], name: str) -> dict[str, Any]:
    """What the shape ``[B, C, *grid]`` of an input tells.

    Raises:
        ModelError: when it is none of a scan.
    """
    if len(shape) not in (4, 5):
        raise ModelError(
            f"{name} wants {len(shape)} axes; export a network that reads [B, C, H, W] or [B, C, D, H, W]."
        )
    found = {"channels": shape[1], "input_size": None if None in shape[2:] else shape[2:]}
    return {option: value for option, value in found.items() if value is not None}


def _in_batches_of(size: int, forward: Callable[..., Any]) -> Callable[..., Any]:
    """A graph of a fixed batch, asked as often as needed; its last batch is filled up and the filling dropped."""

    def looped(x: Tensor, **extras: Any) -> Any:
        parts = []
        for start in range(0, len(x), size):
            place = torch.arange(start, start + size, device=x.device).clamp(max=len(x) - 1)
            each = {name: v[place] if isinstance(v, Tensor) and len(v) == len(x) else v for name, v in extras.items()}
            parts.append(forward(x[place], **each))
        return tree_map(lambda *pieces: torch.cat(pieces)[: len(x)], *parts)

    return looped
