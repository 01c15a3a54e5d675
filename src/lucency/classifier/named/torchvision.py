"""``torchvision:NAME``: the networks of torchvision, with its trained weights or one's own."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lucency.classifier.base import Classifier, Interpolation
from lucency.classifier.named import needed
from lucency.classifier.named.networks import Pictures, network_classifier, per_channel
from lucency.classifier.named.weights import State, on_meta, put_into, read_weights, sizes_in, unique
from lucency.errors import ModelError

INTERPOLATIONS: dict[str, Interpolation] = {"bilinear": "linear", "bicubic": "cubic", "nearest": "nearest"}
AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
"""Heads that serve in training alone."""


def open_torchvision(name: str, *, weights: str | Path | None = None, **said: Any) -> Classifier:
    """The classification network of that name, its pictures as its weights' own transforms say.

    Args:
        name: as torchvision spells it, ``resnet50``, or with a choice of weights, ``resnet50.IMAGENET1K_V2``.
        weights: a safetensors file of one's own; else torchvision's, when they were fetched before. Nothing is fetched
            here.

    Raises:
        ModelError: when torchvision has no such network, its weights are not on this machine, or one's own do not fit.
    """
    models = needed("torchvision.models", "torchvision")
    builder, _, choice = name.partition(".")
    known = models.list_models(module=models)
    if builder not in known:
        raise ModelError(f"torchvision has no classifier {builder!r:.60}; there are {', '.join(known)}.")
    choices = models.get_model_weights(builder)
    if choice and choice not in choices.__members__:
        raise ModelError(
            f"torchvision has no weights {choice!r:.60} for {builder}; there are {', '.join(choices.__members__)}."
        )
    trained = choices[choice] if choice else choices.DEFAULT
    names = unique(trained.meta["categories"])
    build = partial(models.get_model, builder, weights=None, **_as_trained(builder, trained))
    skeleton = on_meta(build)
    state = _fetched(trained, f"torchvision:{name}") if weights is None else read_weights(weights, skeleton)
    count, channels = sizes_in(state, skeleton, classes=len(names), channels=3)
    if channels != 3:
        raise ModelError(
            f"torchvision's {builder} reads 3 channels and the weights {channels}; build the network in Python and "
            "hand it over."
        )
    if weights is not None and count != len(names):
        names = [f"output {i}" for i in range(count)]
    if builder in AUXILIARY:
        state = {key: value for key, value in state.items() if not key.startswith(AUXILIARY[builder])}
    network = put_into(build(num_classes=count), state, f"torchvision:{name}")
    if weights is None:
        said = {"exclusive": True, **said}
    return network_classifier(network, f"torchvision:{name}", names, _pictures(trained.transforms()), said)


def _as_trained(builder: str, trained: Any) -> dict[str, Any]:
    """What torchvision itself sets when it builds a network for trained weights, without heads for training alone."""
    if builder in AUXILIARY:
        return {"transform_input": True, "init_weights": False, "aux_logits": False}
    if builder.startswith("vit_"):
        return {"image_size": trained.meta["min_size"][0]}
    return {}


def _fetched(trained: Any, what: str) -> State:
    file = Path(torch.hub.get_dir()) / "checkpoints" / trained.url.rpartition("/")[2]
    if not file.is_file():
        builder = what.partition(":")[2].partition(".")[0]
        raise ModelError(
            f"The weights of {what} are not on this machine and Lucency fetches nothing; run "
            f"torchvision.models.get_model({builder!r}, weights={trained.name!r}) once in Python, or give your own "
            "with weights=."
        )
    try:
        state: State = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            f"{file} is damaged or no state dict; delete it and let torchvision fetch it again."
        ) from error
    # DenseNets were saved under names that a module cannot have any more.
    return {re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", key): v for key, v in state.items()}


def _pictures(transforms: Any) -> Pictures:
    size = tuple(transforms.crop_size) * (2 if len(transforms.crop_size) == 1 else 1)
    return Pictures(
        input_size=size,
        mean=per_channel(transforms.mean, 3),
        std=per_channel(transforms.std, 3),
        fit="crop",
        crop_share=min(1.0, min(size) / min(transforms.resize_size)),
        interpolation=INTERPOLATIONS.get(transforms.interpolation.value, "cubic"),
    )
