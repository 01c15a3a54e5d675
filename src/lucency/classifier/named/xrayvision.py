"""``torchxrayvision:NAME``: the published chest X-ray classifiers of TorchXRayVision."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lucency.classifier.base import Classifier
from lucency.classifier.copying import copied, fingerprint
from lucency.classifier.named.weights import put_into, read_weights
from lucency.errors import MissingExtraError, ModelError

PREFIX = "torchxrayvision:"


def is_xrayvision(module: nn.Module) -> bool:
    """Whether the network is one of TorchXRayVision's."""
    return type(module).__module__.startswith("torchxrayvision.")


def open_xrayvision(name: str, *, weights: str | Path | None = None, trust: bool = False) -> Classifier:
    """The classifier of that name.

    Args:
        weights: its weights as a safetensors file; a DenseNet only.
        trust: unpickle the weights as TorchXRayVision keeps them after a first download, which can run any code.

    Raises:
        ModelError: when there is no such model, its weights are not on this machine, or they are not trusted.
        MissingExtraError: without TorchXRayVision.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            models = importlib.import_module("torchxrayvision.models")
    except Exception as error:
        raise MissingExtraError(
            f"TorchXRayVision cannot be imported ({error}); pip install 'lucency[xrayvision]' beside a matching torch."
        ) from error
    about = models.model_urls.get(name)
    if about is None:
        raise ModelError(f"TorchXRayVision could not give {name!r:.60}; there are {', '.join(models.model_urls)}.")
    resnet = name.startswith("resnet")
    if weights is not None:
        if resnet:
            raise ModelError(f"{PREFIX}{name} takes no weights=; build the network in Python and hand it over.")
        module = models.DenseNet(num_classes=len(about["labels"]))
        state = read_weights(weights, module)
        state.pop("op_threshs", None)
        put_into(module, state, f"{PREFIX}{name}")
        module.pathologies = about["labels"]
        module.op_threshs = torch.tensor(about["op_threshs"]) if "op_threshs" in about else None
        return xrayvision_classifier(module, f"{PREFIX}{name}")
    if not _kept(about).is_file():
        raise ModelError(
            f"The weights of {PREFIX}{name} are not on this machine and Lucency fetches nothing; run "
            f"torchxrayvision.models.get_model({name!r}) once in Python."
        )
    if not trust:
        raise ModelError(
            f"TorchXRayVision keeps the weights of {name} as a pickle, which can act on this machine, so it is opened "
            "only with trust=True (--trust-model); safe is a safetensors file of its state dict, with weights=."
        )
    try:
        module = (models.ResNet if resnet else models.DenseNet)(weights=name)
    except Exception as error:
        raise ModelError(
            f"TorchXRayVision could not give {name!r} ({(str(error) or type(error).__name__).splitlines()[0]}); "
            "check that its weights are whole."
        ) from error
    return xrayvision_classifier(module, f"{PREFIX}{name}")


def _kept(about: dict[str, Any]) -> Path:
    """Where TorchXRayVision keeps a download."""
    utils = importlib.import_module("torchxrayvision.utils")
    usual = Path("~/.torchxrayvision/models_data")
    folder = Path(utils.get_cache_dir()) if hasattr(utils, "get_cache_dir") else usual
    return folder.expanduser() / str(about["weights_url"]).rpartition("/")[2]


def xrayvision_classifier(module: nn.Module, name: str) -> Classifier:
    """Its own conventions: one channel in [-1024, 1024], a centred square, sigmoid outputs when so built."""
    module = copied(module)[0]
    side = int(getattr(module, "input_resolution", 512 if type(module).__name__ == "ResNet" else 224))
    squashed = bool(getattr(module, "apply_sigmoid", False)) or getattr(module, "op_threshs", None) is not None
    names = getattr(module, "pathologies", None) or getattr(module, "targets", [])
    return Classifier(
        module,
        name=name,
        classes=[n or f"unnamed {i}" for i, n in enumerate(names)],
        fingerprint=fingerprint(module),
        input_size=(side, side),
        channels=1,
        mean=(0.5,),
        std=(1 / 2048,),
        outputs="probabilities" if squashed else "logits",
        exclusive=False,
        fit="crop",
        clip=True,
        module=module,
    )
