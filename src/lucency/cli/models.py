"""``lucency models``: the classifiers that come with the package, or what is known about one of any kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from lucency.cli.options import AsJson, TrustModel


def models(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]", help="A model by name, a file or a description: how it is read.", show_default=False
        ),
    ] = None,
    trust_model: TrustModel = False,
    as_json: AsJson = False,
) -> None:
    """List the shipped classifiers, what they read and how well; or show how one model of any kind is read."""
    from lucency.classifier.loading import available_models
    from lucency.cli.console import print_json, say

    if model is not None:
        from lucency.cli.model import classifier_named

        described = classifier_named(model, trust=trust_model).about()
        if as_json:
            print_json(described)
            return
        say((described["name"], "bold"))
        for words, value in _lines(described):
            say((f"  {words}: ", "dim"), value)
        for notice in described["notices"]:
            say(("  ! ", "yellow"), notice)
        return
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
    say(
        "\nOther models: a file (.onnx, TorchScript, .pt2), timm:NAME, torchvision:NAME, torchxrayvision:NAME, "
        "hf:FOLDER, monai:FOLDER, https://HOST/..., or a JSON file that describes one; lucency models MODEL shows it."
    )


def _lines(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is known about a model, in words; what it does not have is left out."""
    size = " x ".join(map(str, about["input_size"] or ())) or "any size"
    channels = about["channels"] or "any number of"
    each = {True: ", classes exclude each other", False: ", each class by itself"}[about["exclusive"]]
    fit = about["fit"] + ("" if about["crop_share"] == 1 else f", {about['crop_share']:.3g} of it")
    found = [
        ("classes", ", ".join(about["classes"])),
        ("reads", f"{size}, {channels} channel(s), {about['dtype']}, scans of another shape: {fit}"),
        ("resampled", about["interpolation"]),
        ("pixels", f"(x - {_numbers(about['mean'])}) / {_numbers(about['std'])} of display values from 0 to 1"),
        ("outputs", about["outputs"] + ("" if about["outputs"] == "numbers" else each)),
        ("scores are in", about["output"]),
        ("each map becomes", about["reduce"]),
        (
            "reads besides",
            about["extra_inputs"] if isinstance(about["extra_inputs"], str) else ", ".join(about["extra_inputs"]),
        ),
        ("network", about["network"] or "a black box: scores only"),
        ("model card", about["card"]),
    ]
    return [(words, str(value)) for words, value in found if value]


def _numbers(values: list[float]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"({', '.join(f'{v:g}' for v in values)})"


def _auc(results: Mapping[str, Any]) -> list[str]:
    """What the training measured on its test part, for the class that the model is for."""
    return [
        f"AUC for effusion, {part}: {auc['auc']:.3f} (95 % interval {auc['low']:.3f} to {auc['high']:.3f})"
        for part, auc in results.get("effusion", {}).items()
        if "auc" in auc
    ]
