"""A classifier is made: what the caller says is checked, the model is tried, and what was found out is noted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from lucency.classifier.base import Classifier, Fit, Interpolation, Outputs, class_names
from lucency.classifier.copying import still
from lucency.classifier.judging import judged
from lucency.classifier.readout import Readout, heads_named
from lucency.classifier.trial import tried
from lucency.errors import ModelError

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


def sensible(given: dict[str, Any]) -> None:
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


def made(
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
            called = (
                f"outputs are called {names[0]!r} to {names[-1]!r}" if count > 1 else f"output is called {names[0]!r}"
            )
            notes.append(f"No class names were given; the {called}.")
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
