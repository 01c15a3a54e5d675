"""``lucency models``: the classifiers that come with the package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lucency.cli.options import AsJson


def models(as_json: AsJson = False) -> None:
    """List the shipped classifiers, what they read and how well."""
    from lucency.classifier.loading import available_models
    from lucency.cli.console import print_json, say

    found = available_models()
    if as_json:
        print_json(found)
        return
    for about in found:
        say((about["name"], "bold"), f"  {about['architecture']}, {' x '.join(map(str, about['input_size']))}")
        say(f"  classes: {', '.join(about['classes'])}")
        for line in _auc(about.get("results", {})):
            say(f"  {line}")
        say((f"  model card: {about['card']}", "dim"))
    say("\nOther models: a file (.onnx, TorchScript, .pt2) or torchxrayvision:NAME.")


def _auc(results: Mapping[str, Any]) -> list[str]:
    """What the training measured on its test part, for the class that the model is for."""
    return [
        f"AUC for effusion, {part}: {auc['auc']:.3f} (95 % interval {auc['low']:.3f} to {auc['high']:.3f})"
        for part, auc in results.get("effusion", {}).items()
        if "auc" in auc
    ]
