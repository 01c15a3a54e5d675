"""The classifier that ``--model`` names."""

from __future__ import annotations

import json
from pathlib import Path

from lucency.classifier import Classifier
from lucency.classifier.loading import load_classifier
from lucency.errors import ModelError

ABOUT = ("classes", "input_size", "channels", "mean", "std", "outputs", "exclusive", "fit", "clip")


def classifier_named(name: str) -> Classifier:
    """A shipped model, a TorchXRayVision model, or a file with what it cannot tell in a JSON file beside it.

    ``model.pt`` takes the keyword arguments of :func:`lucency.load_classifier` from ``model.json``.

    Raises:
        ModelError: when there is no such model, or the JSON file does not say what it should.
    """
    beside = Path(name).with_suffix(".json")
    if not Path(name).is_file() or not beside.is_file():
        return load_classifier(name)
    try:
        about = json.loads(beside.read_text())
        unknown = sorted(set(about) - set(ABOUT))
        if unknown:
            raise ValueError(f"{', '.join(unknown)} means nothing there")
        return load_classifier(name, **about)
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{beside} does not describe a model ({error}); it may hold {', '.join(ABOUT)}.") from error
