"""``timm:NAME``: the networks of PyTorch Image Models (timm), with its trained weights or one's own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from lucency.classifier.base import Classifier, Fit, Interpolation
from lucency.classifier.named import needed
from lucency.classifier.named.networks import Pictures, network_classifier, per_channel
from lucency.classifier.named.weights import on_meta, put_into, read_weights, sizes_in, unique
from lucency.errors import ModelError

INTERPOLATIONS: dict[str, Interpolation] = {"bilinear": "linear", "bicubic": "cubic", "nearest": "nearest"}
FITS: dict[str, Fit] = {"center": "crop", "squash": "stretch", "border": "pad"}


def open_timm(name: str, *, weights: str | Path | None = None, **said: Any) -> Classifier:
    """The network of that name, its pictures as its own configuration says.

    Args:
        name: as timm spells it, ``resnet18`` or ``resnet18.a1_in1k``.
        weights: a safetensors file of one's own; else timm's, when they were fetched before. Nothing is fetched here.

    Raises:
        ModelError: when timm has no such network, its weights are not on this machine, or one's own do not fit.
    """
    timm = needed("timm", "timm")
    if not timm.is_model(name.partition(".")[0]):
        close = ", ".join(timm.list_models(f"*{name.partition('.')[0]}*")[:5]) or "timm.list_models() names them"
        raise ModelError(f"timm has no network {name!r:.60}; there are {close}.")
    try:
        if weights is None:
            network = _trained(timm, name)
        else:
            skeleton: Any = on_meta(partial(timm.create_model, name, pretrained=False))
            state = read_weights(weights, skeleton)
            known = skeleton.pretrained_cfg
            classes, channels = sizes_in(
                state, skeleton, classes=int(known["num_classes"]), channels=int(known["input_size"][0])
            )
            network = timm.create_model(name, pretrained=False, num_classes=classes, in_chans=channels)
            put_into(network, state, f"timm:{name}")
    except (RuntimeError, ValueError, KeyError) as error:
        raise ModelError(
            f"timm cannot build {name!r} ({(str(error) or type(error).__name__).splitlines()[0]}); check its name."
        ) from error
    if weights is None:
        said = {"exclusive": True, **said}
    return network_classifier(network, f"timm:{name}", _classes(network), _pictures(network), said)


def _trained(timm: Any, name: str) -> Any:
    about = timm.get_pretrained_cfg(name)
    file = None if about is None else _fetched(about)
    if file is None:
        raise ModelError(
            f"The weights of timm:{name} are not on this machine and Lucency fetches nothing; run "
            f"timm.create_model({name!r}, pretrained=True) once in Python, or give your own with weights=."
        )
    return timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": file})


def _fetched(about: Any) -> str | None:
    """Where timm's own download lies, if it was made; only safetensors."""
    from huggingface_hub import try_to_load_from_cache

    if not about.hf_hub_id:
        return None
    for name in filter(None, (about.hf_hub_filename, "model.safetensors")):
        file = try_to_load_from_cache(about.hf_hub_id, name)
        if isinstance(file, str) and file.endswith(".safetensors"):
            return file
    return None


def _pictures(network: Any) -> Pictures:
    from timm.data import resolve_model_data_config

    about = resolve_model_data_config(network)
    _, *size = about["input_size"]
    channels = int(getattr(network, "in_chans", 0) or _first_channels(network) or about["input_size"][0])
    return Pictures(
        input_size=tuple(size),
        channels=channels,
        mean=per_channel(about["mean"], channels),
        std=per_channel(about["std"], channels),
        fit=FITS.get(about.get("crop_mode", "center"), "crop"),
        crop_share=min(1.0, size[0] / int(size[0] / about["crop_pct"])),
        interpolation=INTERPOLATIONS.get(about["interpolation"], "cubic"),
    )


def _first_channels(network: Any) -> int | None:
    first = network.pretrained_cfg.get("first_conv")
    first = first[0] if isinstance(first, tuple | list) else first
    if not first:
        return None
    weight = network.get_submodule(str(first)).weight
    return int(weight.shape[1])


def _classes(network: Any) -> list[str]:
    from timm.data import ImageNetInfo, infer_imagenet_subset

    count = int(network.num_classes)
    about = network.pretrained_cfg
    if about.get("label_names") and len(about["label_names"]) == count:
        return unique(about["label_names"])
    subset = infer_imagenet_subset(network) if count == about.get("num_classes") else None
    if subset is None:
        return [f"output {i}" for i in range(count)]
    info = ImageNetInfo(subset)
    return unique([info.index_to_description(i) for i in range(count)])
