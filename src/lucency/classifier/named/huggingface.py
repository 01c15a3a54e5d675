"""``hf:FOLDER``: an image classifier that Hugging Face Transformers saved into a local folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lucency.classifier.base import Classifier, Fit, Interpolation
from lucency.classifier.named import needed
from lucency.classifier.named.config import json_object
from lucency.classifier.named.networks import Pictures, network_classifier, per_channel
from lucency.classifier.named.weights import unique
from lucency.errors import ModelError
from lucency.scan import Scan

INTERPOLATIONS: dict[int, Interpolation] = {0: "nearest", 2: "linear", 3: "cubic"}
"""By Pillow's number."""
EDGE = 384
"""From this edge on, Transformers' ConvNeXt stretches a picture instead of cropping it."""
PROBLEMS: dict[str | None, dict[str, Any]] = {
    "single_label_classification": {"exclusive": True},
    "multi_label_classification": {"exclusive": False},
    "regression": {"outputs": "numbers"},
}
ALIKE = 0.05
"""How far pictures may lie apart, of display values: half a pixel where a crop falls between two."""
ACTS = ("auto_map", "custom_pipelines", "quantization_config")


def open_huggingface(folder: str, **said: Any) -> Classifier:
    """The classifier in ``folder``, as ``save_pretrained`` wrote it, its pictures as its image processor says.

    Weights are read from safetensors only; code that a folder brings along is never run, and nothing is fetched.

    Raises:
        ModelError: when the folder holds something else, wants code of its own, or its weights do not fit.
    """
    place = Path(folder).expanduser()
    about = json_object(place / "config.json", "hf: takes a local folder that save_pretrained wrote.")
    if asks := [key for key in ACTS if about.get(key)]:
        raise ModelError(
            f"{place} asks for {', '.join(asks)}, which needs more than Transformers itself; build the network in "
            "Python and hand it over."
        )
    if (place / "adapter_config.json").exists() or not list(place.glob("*.safetensors")):
        raise ModelError(
            f"{place} holds no whole model in safetensors; save it with model.save_pretrained(folder) after merging "
            "adapters."
        )
    transformers = needed("transformers", "hf")
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        with _quiet():
            network, report = transformers.AutoModelForImageClassification.from_pretrained(
                place, use_safetensors=True, output_loading_info=True, **local
            )
            processor = transformers.AutoImageProcessor.from_pretrained(place, **local)
    except Exception as error:
        # Transformers raises whatever a wrong configuration leads it into.
        raise ModelError(
            f"Transformers cannot load {place} ({(str(error).strip() or type(error).__name__).splitlines()[0]}); save "
            "model and image processor there with save_pretrained."
        ) from error
    lost = [str(key) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for key in report.get(kind, ())]
    if lost:
        raise ModelError(
            f"The weights in {place} do not fit its config.json ({', '.join(lost[:3])}); save the whole classifier."
        )
    config = network.config
    names = unique([config.id2label[i] for i in range(config.num_labels)])
    pictures = _pictures(processor.to_dict(), int(getattr(config, "num_channels", 3)), place)
    kind = PROBLEMS.get(config.problem_type, {})
    classifier = network_classifier(network.float(), f"hf:{place.name}", names, pictures, {**kind, **said})
    if not {"input_size", "mean", "std", "fit", "crop_share", "interpolation"} & set(said):
        _same_pictures(classifier, processor, place)
    return classifier


def _same_pictures(classifier: Classifier, processor: Any, place: Path) -> None:
    """Tries both on a coloured film: an image processor may do what its configuration does not tell.

    Raises:
        ModelError: when it does more than resize, crop and normalise.
    """
    y, x = np.mgrid[0:1:288j, 0:1:384j]
    channels = [np.sin(5 * x + y), np.cos(4 * y), x * y][: classifier.channels]
    film = np.rint(np.stack(channels) * 127 + 128).astype(np.uint8)
    ours = classifier.normalise(classifier.prepare(Scan.from_array(film, value_range=(0, 255)))[None])[0]
    try:
        theirs = torch.as_tensor(np.asarray(processor(film, return_tensors="np")["pixel_values"][0]))
    except Exception as error:
        raise ModelError(f"The image processor in {place} fails on a picture ({error}); save a working one.") from error
    far = theirs.shape != ours.shape or float((theirs - ours).abs().max() * min(classifier.std)) > ALIKE
    if far:
        raise ModelError(
            f"The image processor in {place} does more than resize, crop and normalise; hand over the network in "
            "Python, or say input_size, mean and std."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Transformers reports on what it loads by its logger and a bar; here the report is looked at instead."""
    reports: Any = import_module("transformers.utils.logging")
    log, bar = logging.getLogger("transformers"), reports.is_progress_bar_enabled()
    level = log.level
    log.setLevel(logging.CRITICAL)
    reports.disable_progress_bar()
    try:
        yield
    finally:
        log.setLevel(level)
        if bar:
            reports.enable_progress_bar()


def _pictures(about: Mapping[str, Any], channels: int, place: Path) -> Pictures:
    resized, cropped = about.get("size") or {}, about.get("crop_size") or {}
    fit: Fit = "stretch"
    edge = resized.get("shortest_edge")
    size: tuple[Any, Any] = (resized.get("height", edge), resized.get("width", edge))
    whole = size
    if edge is not None:
        crops = bool(about.get("do_center_crop"))
        fit = "stretch" if "crop_pct" in about and edge >= EDGE and not crops else "crop"
        if "crop_pct" in about and (edge < EDGE or crops):
            whole = (int(edge / about["crop_pct"]),) * 2
    if about.get("do_center_crop") and cropped:
        size = (cropped["height"], cropped["width"])
    if None in size or not about.get("do_resize", True):
        raise ModelError(
            f"The image processor in {place} does not say a size ({resized or 'none'}); say height and width in "
            "its preprocessor_config.json."
        )
    # What reaches mean and std is 0..255 times the factor, perhaps moved; display values are 0..1.
    factor = 255 * float(about.get("rescale_factor", 1 / 255)) if about.get("do_rescale", True) else 255.0
    offset = 1.0 if about.get("do_rescale", True) and about.get("rescale_offset") else 0.0
    normal = about.get("do_normalize", True)
    mean = about.get("image_mean") if normal else (0.0,)
    std = about.get("image_std") if normal else (1.0,)
    if about.get("include_top"):
        # Transformers' EfficientNet divides twice, as the original did for its classifier.
        std = [s * t for s, t in zip(std or (1.0,), about["image_std"], strict=True)]
    return Pictures(
        input_size=(int(size[0]), int(size[1])),
        channels=channels,
        mean=tuple((m + offset) / factor for m in per_channel(mean or (0.0,), channels)),
        std=tuple(s / factor for s in per_channel(std or (1.0,), channels)),
        fit=fit,
        crop_share=min(1.0, max(size) / max(whole)),
        interpolation=INTERPOLATIONS.get(int(about.get("resample", 2)), "cubic"),
    )
