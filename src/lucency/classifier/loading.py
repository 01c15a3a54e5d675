"""From whatever holds a trained classifier to a :class:`~lucency.classifier.Classifier`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lucency.classifier.base import Classifier, ExtraInputs, Fit, Interpolation, Outputs, Reduce, class_names
from lucency.classifier.copying import copied, fingerprint, still, unwrapped
from lucency.classifier.function import Function
from lucency.classifier.judging import Auto, judged
from lucency.classifier.named import WAYS, opened
from lucency.classifier.named.xrayvision import is_xrayvision, xrayvision_classifier
from lucency.classifier.onnx import hash_of, open_onnx
from lucency.classifier.program import input_shape, open_program
from lucency.classifier.readout import Output, Readout, heads_named
from lucency.classifier.trial import tried
from lucency.errors import ModelError

Scores = Callable[..., Any]
SHIPPED = "lucency:"
REDUCERS = ("mean", "max", "sum")
DEFAULTS: dict[str, Any] = {
    "mean": (0.0,),
    "std": (1.0,),
    "outputs": "auto",
    "exclusive": "auto",
    "fit": "stretch",
    "crop_share": 1.0,
    "interpolation": "linear",
    "clip": False,
    "input_size": None,
    "channels": None,
    "output": None,
    "reduce": None,
    "extra_inputs": None,
}
"""What :func:`load_classifier` takes for what is neither said nor found."""


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
    _sensible({**DEFAULTS, **said})
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


def _sensible(given: dict[str, Any]) -> None:
    """Refuses what a reader of a hand-written description would otherwise meet as wrong scores.

    Raises:
        ModelError: naming the option.
    """
    for option, allowed in (
        ("outputs", (*get_args(Outputs), "auto")),
        ("exclusive", (True, False, "auto")),
        ("fit", get_args(Fit)),
        ("interpolation", get_args(Interpolation)),
    ):
        if not isinstance(given[option], str | bool) or given[option] not in allowed:
            raise ModelError(f"{option} is {_shown(given[option])}; say {' or '.join(map(repr, allowed))}.")
    size = given["input_size"]
    if size is not None and not (_numbers(size) and len(size) in (2, 3) and all(n == int(n) > 0 for n in size)):
        raise ModelError(
            f"input_size is {_shown(size)}; give two (or three) positive whole numbers, such as (224, 224)."
        )
    for option in ("mean", "std"):
        if not _numbers(given[option]):
            raise ModelError(f"{option} is {_shown(given[option])}; give one number for each channel, such as (0.5,).")
    share = given["crop_share"]
    if not (_numbers((share,)) and 0 < share <= 1):
        raise ModelError(
            f"crop_share is {_shown(share)}; give the share of each side that is kept, above 0 and at most 1."
        )
    if 0 in tuple(given["std"]):
        raise ModelError("std is 0 for a channel; give the spread that the network was trained with.")
    if given["channels"] is not None and not (
        _numbers((given["channels"],)) and given["channels"] == int(given["channels"]) > 0
    ):
        raise ModelError(f"channels is {_shown(given['channels'])}; give a positive whole number.")
    for option in ("mean", "std"):
        if given["channels"] is not None and len(given[option]) not in (1, given["channels"]):
            raise ModelError(
                f"{option} has {len(given[option])} numbers and the model {given['channels']} channel(s); give one "
                "number for each."
            )
    if len({1, len(given["mean"]), len(given["std"])}) > 2:
        raise ModelError("mean and std have different numbers of channels; give one number for each channel.")
    if not (given["output"] is None or isinstance(given["output"], str | int) or callable(given["output"])):
        raise ModelError(
            f"output is {_shown(given['output'])}; give the name or the place of an output, or a function."
        )
    extra = given["extra_inputs"]
    if not (
        extra is None or callable(extra) or (isinstance(extra, Mapping) and all(isinstance(k, str) for k in extra))
    ):
        raise ModelError(f"extra_inputs is {_shown(extra)}; give a mapping from names to values, or a function.")
    _region(given["reduce"])


def _region(reduce: Any) -> Any:
    """A reducer by name, or the weights of a region as a float32 tensor.

    Raises:
        ModelError: for anything else.
    """
    if reduce is None or (isinstance(reduce, str) and reduce in REDUCERS):
        return reduce
    try:
        region = torch.as_tensor(reduce).to(torch.float32)
    except (TypeError, ValueError, RuntimeError):
        region = torch.zeros(0)
    if region.ndim not in (2, 3) or not bool(torch.isfinite(region).all()) or float(region.sum()) <= 0:
        raise ModelError(
            f"reduce is {_shown(reduce)}; say {', '.join(map(repr, REDUCERS))}, or give a region of 2 or 3 axes whose "
            "weights are above 0 somewhere."
        )
    return region


def _shown(value: Any) -> str:
    return " ".join(repr(value).split())[:60]


def _numbers(values: Any) -> bool:
    try:
        return not isinstance(values, str) and all(np.isfinite(float(v)) for v in values)
    except (TypeError, ValueError):
        return False


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _made(
    forward: Callable[..., Any],
    module: nn.Module | None,
    name: str,
    classes: Sequence[str] | None,
    print_of: Callable[[], str],
    said: dict[str, Any],
    notices: Sequence[str] = (),
    last: str | None = None,
) -> Classifier:
    """The classifier, tried on pictures, with what was found out about it.

    Args:
        forward, module, name, classes: see :class:`Classifier`.
        print_of: gives the fingerprint, when the model has all its weights.
        said: what the caller gave to :func:`load_classifier`.
        notices: what was taken for granted so far.
        last: what kind of step makes the outputs, where the kind of file tells.

    Raises:
        ModelError: when the model raises, or gives something else than finite scores, one for each class.
    """
    given = {**DEFAULTS, **said}
    outputs, exclusive, output = (given.pop(option) for option in ("outputs", "exclusive", "output"))
    reduce = _region(given.pop("reduce"))
    classifier = Classifier(
        forward,
        name=name,
        classes=(),
        fingerprint="",
        module=module,
        readout=Readout(output, dense=reduce is not None),
        reduce=reduce,
        **given,
    )
    names = None if classes is None else list(class_names(classes, name))
    stored = _stored(module)
    trial = tried(classifier, None if names is None else len(names))
    notes = list(notices)
    if trial.outputs is None:
        if names is None:
            raise ModelError(
                f"Nothing tells how many classes {name} has, as it could not be tried ({trial.trouble}); give "
                "classes=[...] or input_size=(H, W)."
            )
    else:
        if not bool(torch.isfinite(trial.outputs).all()):
            raise ModelError(
                f"{name} gives NaN or infinite scores for pictures that look like scans; check its weights, mean "
                "and std."
            )
        count = trial.outputs.shape[1]
        if names is None:
            names = list(heads_named(classifier.readout) or (f"output {i}" for i in range(count)))
            notes.append(f"No class names were given; the outputs are called {names[0]!r} to {names[-1]!r}.")
    assert names is not None
    if module is not None and _stored(module) != stored:
        still(module)
        notes.append("The network made itself weights when it was first run, so it has not been trained.")
    judgement = judged(outputs, exclusive, trial.outputs, last or trial.last, len(names), classifier.dtype, name)
    classifier.classes = class_names(names, name)
    classifier.outputs, classifier.exclusive = judgement.outputs, judgement.exclusive
    notes += judgement.notices
    if trial.outputs is not None:
        # What does not fit is said now and not with the first scan.
        classifier.probabilities(classifier.fitted(trial.outputs))
    classifier.alone = bool(trial.alone)
    if trial.alone:
        notes.append(f"{trial.alone}, so each scan goes in by itself, which is slow.")
    if classifier.readout.words is not None:
        notes.append(f"Of what the model returns, {classifier.readout.words} is taken for the scores.")
    if reduce is not None and trial.outputs is not None and trial.outputs.ndim == 2:
        notes.append("The model gives a score for each class and no map, so reduce= does nothing.")
    if classifier.dtype != torch.float32:
        notes.append(f"The network computes in {str(classifier.dtype).removeprefix('torch.')}; scans are converted.")
    if {"mean", "std"}.isdisjoint(said):
        notes.append("Pixels go in as they are displayed, from 0 to 1, as neither mean= nor std= was given.")
    classifier.notices = tuple(notes)
    classifier.fingerprint = _told_apart(print_of(), output, reduce, given["extra_inputs"])
    return classifier


def _stored(module: nn.Module | None) -> list[tuple[str, bool]]:
    """The weights of a network by name, and whether they are still to be made."""
    if module is None:
        return []
    return [(name, bool(nn.parameter.is_lazy(p))) for name, p in module.named_parameters()]


def _told_apart(fingerprint: str, *settings: Any) -> str:
    """The fingerprint of a model that is read in its own way, or reads something beside the scan."""
    if all(setting is None for setting in settings):
        return fingerprint
    digest = hashlib.sha256(fingerprint.encode())
    for setting in settings:
        parts = setting.items() if isinstance(setting, Mapping) else [("", setting)]
        for name, value in parts:
            if isinstance(value, Tensor | np.ndarray):
                value = torch.as_tensor(value).tolist()
            digest.update(f"{name}={getattr(value, '__qualname__', value)!r};".encode())
    return digest.hexdigest()


def _name_of(module: nn.Module) -> str:
    return str(getattr(module, "original_name", type(module).__name__))


def _of_module(module: nn.Module, name: str, classes: Sequence[str] | None, said: dict[str, Any]) -> Classifier:
    own, shared = copied(module)
    notices = [f"{', '.join(shared)} could not be copied and is shared with your network."] if shared else []
    return _made(own, own, name, classes, lambda: fingerprint(own), said, notices)


def _of_function(function: Scores, classes: Sequence[str] | None, said: dict[str, Any]) -> Classifier:
    name = getattr(function, "__name__", type(function).__name__)
    identity = f"function {getattr(function, '__module__', '')}.{getattr(function, '__qualname__', name)}"
    return _made(Function(function, name), None, name, classes, lambda: identity, said)


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
    return _made(forward, module, name, classes, print_of, said)


def _of_graph(path: Path, classes: Sequence[str] | None, said: dict[str, Any]) -> Classifier:
    graph = open_onnx(path, said.get("channels"), said.get("output"))
    found, notices = _found(graph.layout.shape, path.name), []
    if graph.whole and {"mean", "std"}.isdisjoint(said):
        found |= {"std": (1 / 255,), "clip": True}
        notices.append("The graph reads whole numbers, so pixels go in from 0 to 255.")
    return _made(
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
