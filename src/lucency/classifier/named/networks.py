"""A network with what its own configuration says about its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from lucency.classifier.base import Classifier, Fit, Interpolation
from lucency.classifier.copying import fingerprint
from lucency.classifier.making import made


@dataclass(frozen=True)
class Pictures:
    """How a network's pictures were made; the fields are those of :class:`~lucency.classifier.Classifier`."""

    input_size: tuple[int, ...]
    channels: int = 3
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    fit: Fit = "stretch"
    crop_share: float = 1.0
    interpolation: Interpolation = "linear"
    clip: bool = True


def network_classifier(
    network: nn.Module, name: str, classes: Sequence[str], pictures: Pictures, said: Mapping[str, Any]
) -> Classifier:
    """The classifier of a network that gives logits; what the caller ``said`` goes before what ``pictures`` say.

    Raises:
        ModelError: when it cannot be tried.
    """
    options = {"outputs": "logits", **asdict(pictures), **said}
    own = options.pop("classes", classes)
    network.eval().requires_grad_(False)
    return made(network, network, name, own, lambda: fingerprint(network), options)


def per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """The values, one for each channel; colour statistics are averaged for a network that reads one channel."""
    known = tuple(float(v) for v in values)
    return known if len(known) in (1, channels) else (sum(known) / len(known),)
