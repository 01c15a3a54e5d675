"""The classifier that ``--model`` names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lucency.classifier import Classifier
from lucency.classifier.loading import load_classifier
from lucency.classifier.making import DEFAULTS
from lucency.errors import ModelError

ABOUT = ("model", "weights", "reference", "classes", *DEFAULTS)
"""What a description may hold: the keyword arguments of :func:`lucency.load_classifier`, but never its trust."""


def classifier_named(name: str, *, trust: bool = False) -> Classifier:
    """A model by name, a file, or a JSON file that describes one.

    ``model.onnx`` takes the keyword arguments of :func:`lucency.load_classifier` from ``model.json`` beside it. Given
    itself, ``model.json`` says in ``model`` which name or file it describes, and in ``weights`` which weights; both
    files are looked for beside it.

    Raises:
        ModelError: when there is no such model, or the JSON file does not say what it should.
    """
    path = Path(name)
    if path.suffix.lower() == ".json" and path.is_file():
        about = _read(path)
        if not isinstance(about.get("model"), str):
            raise ModelError(f'{path} names no model; say in it which one it describes, {{"model": "timm:resnet18"}}.')
        source = about.pop("model")
        if source.startswith(("http:", "https:")) and not trust:
            raise ModelError(f"{path} would send scans to {source}; say --trust-model if you want that.")
        if (path.parent / source).is_file():
            source = str(path.parent / source)
        if "weights" in about:
            about["weights"] = path.parent / str(about["weights"])
        return _load(source, about, path, trust)
    beside = path.with_suffix(".json") if path.name else path
    if not path.is_file() or not beside.is_file():
        return load_classifier(name, trust=trust)
    about = _read(beside)
    if "model" in about:
        raise ModelError(f"{beside} names a model of its own; give --model {beside}, or leave that line out.")
    return _load(name, about, beside, trust)


def _read(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text())
        if not isinstance(about, dict):
            raise ValueError("it is no JSON object")
        if unknown := sorted(set(about) - set(ABOUT)):
            raise ValueError(f"{', '.join(unknown)} means nothing there")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} does not describe a model ({error}); it may hold {', '.join(ABOUT)}.") from error
    return about


def _load(source: str, about: dict[str, Any], path: Path, trust: bool) -> Classifier:
    try:
        if "reference" in about:
            about["reference"] = path.parent / str(about["reference"])
        return load_classifier(source, trust=trust, **about)
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path} does not describe a model ({error}); it may hold {', '.join(ABOUT)}.") from error
