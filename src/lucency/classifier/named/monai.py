"""``monai:FOLDER``: a classifier in a MONAI bundle.

A bundle's configuration is a small programming language: expressions behind ``$`` are run as Python, and ``_target_``
may name any function. Without trust, Lucency takes from it what is plain data: a network of MONAI's own with plain
arguments, and the usual steps of preprocessing. With trust, MONAI builds the network its own way.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lucency.classifier.base import Classifier, Interpolation
from lucency.classifier.copying import fingerprint
from lucency.classifier.making import made
from lucency.classifier.named import needed
from lucency.classifier.named.config import json_object
from lucency.classifier.named.weights import put_into, read_weights
from lucency.errors import ModelError

BUNDLE = "monai: takes the folder of a bundle with configs in JSON."

IDLE = {"EnsureChannelFirst", "AddChannel", "AsChannelFirst", "EnsureType", "CastToType", "ToTensor", "ToDevice"}
PLACING = {"Spacing", "Orientation"}
INTERPOLATIONS: dict[str, Interpolation] = {"nearest": "nearest", "nearest-exact": "nearest", "bicubic": "cubic"}


class Standardised(nn.Module):
    """A network behind MONAI's ``NormalizeIntensity``, which gives each scan a mean of 0 and a spread of 1."""

    def __init__(self, network: nn.Module, channel_wise: bool) -> None:
        super().__init__()
        self.network, self.channel_wise = network, channel_wise

    def forward(self, x: Tensor) -> Any:
        """``[B, C, *grid]`` -> whatever the network gives."""
        axes = tuple(range(2 if self.channel_wise else 1, x.ndim))
        spread = x.std(axes, correction=0, keepdim=True)
        return self.network((x - x.mean(axes, keepdim=True)) / torch.where(spread == 0, 1.0, spread))


@dataclass
class Steps:
    """What the preprocessing does: numbers become ``(gain * display + offset) / divisor``.

    The size is that of the scan as Lucency has it, rows first.
    """

    gain: float = 255.0
    offset: list[float] = field(default_factory=lambda: [0.0])
    divisor: list[float] = field(default_factory=lambda: [1.0])
    turned: bool = False
    standardised: bool | None = None
    size: tuple[int, ...] | None = None
    interpolation: Interpolation = "linear"
    notices: list[str] = field(default_factory=list)


def open_monai(folder: str, *, trust: bool = False, **said: Any) -> Classifier:
    """The classifier in a bundle, its pictures as far as the bundle's preprocessing is made of usual steps.

    Args:
        trust: let MONAI build the network, which can run whatever code the bundle holds or names.

    Raises:
        ModelError: when the folder is no bundle, asks for code without trust, or prepares its pictures in other ways.
    """
    place = Path(folder).expanduser()
    about, config = (json_object(place / "configs" / f"{name}.json", BUNDLE) for name in ("metadata", "inference"))
    needed("monai", "monai")
    network = _trusted(place) if trust else _built(config, place)
    put_into(network, _weights(place), f"the network of {place.name}")
    network.eval().requires_grad_(False)
    try:
        image = about["network_data_format"]["inputs"]["image"]
        named = about["network_data_format"]["outputs"]["pred"].get("channel_def", {})
        channels, shape = int(image["num_channels"]), image.get("spatial_shape", [])
        classes = [named[key] for key in sorted(named, key=int)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{place}/configs/metadata.json tells no network_data_format of one image and one pred ({error}); mend it."
        ) from error
    steps = _steps(config, place)
    if steps.size is None and all(isinstance(n, int) for n in shape):
        steps.size = tuple(shape)[::-1] if steps.turned else tuple(shape)
    options: dict[str, Any] = {
        "channels": channels,
        "outputs": "logits",
        "mean": tuple(-c / steps.gain for c in steps.offset),
        "std": tuple(d / steps.gain for d in steps.divisor),
        "interpolation": steps.interpolation,
        **_activation(config),
    }
    if steps.size is not None:
        options["input_size"] = steps.size
    if steps.standardised is not None:
        network = Standardised(network, steps.standardised)
    own = said.pop("classes", None) or classes or None
    identity = fingerprint(network)
    if not steps.turned:
        return made(network, network, f"monai:{place.name}", own, lambda: identity, {**options, **said}, steps.notices)

    def turned(x: Tensor) -> Any:
        # MONAI reads pictures with x first. Feature maps would lie across the scan, so it stays a black box.
        with torch.no_grad():
            return network(x.cpu().permute(0, 1, *range(x.ndim - 1, 1, -1)))

    steps.notices.append(
        "MONAI reads pictures with their columns first; scans are turned for the network, which stays a black box."
    )
    return made(turned, None, f"monai:{place.name}", own, lambda: identity, {**options, **said}, steps.notices)


def _plain(value: Any, config: Mapping[str, Any], place: Path, depth: int = 0) -> Any:
    """The value with references followed, when all of it is data.

    Raises:
        ModelError: when it holds an expression, a macro or a thing to be built.
    """
    if depth > 20:
        raise ModelError(f"The configuration of {place} refers to itself; mend it.")
    if isinstance(value, str) and value.startswith("@"):
        found: Any = config
        for key in value[1:].replace("::", "#").split("#"):
            try:
                found = found[int(key)] if isinstance(found, list) else found[key]
            except (KeyError, IndexError, ValueError, TypeError):
                raise ModelError(f"The configuration of {place} names {value}, which is not there; mend it.") from None
        return _plain(found, config, place, depth + 1)
    if isinstance(value, str) and value.startswith(("$", "%")):
        raise ModelError(
            f"{place} builds its network by code ({value:.60}), which can do anything on this machine; say trust=True "
            "(--trust-model) if you trust its maker, or build the network in Python and hand it over."
        )
    if isinstance(value, list):
        return [_plain(v, config, place, depth + 1) for v in value]
    if isinstance(value, dict):
        if "_target_" in value:
            raise ModelError(f"{place} builds {value['_target_']!r:.60} on the way; say trust=True (--trust-model).")
        return {key: _plain(v, config, place, depth + 1) for key, v in value.items()}
    return value


def _built(config: Mapping[str, Any], place: Path) -> nn.Module:
    """A network of MONAI's own, from plain arguments."""
    from monai.networks import nets

    about = config.get("network_def", config.get("network"))
    if not isinstance(about, dict) or "_target_" not in about:
        raise ModelError(
            f"{place} says in other ways than network_def which network it holds; say trust=True (--trust-model) "
            "if you trust its maker."
        )
    target = str(about["_target_"])
    kind = getattr(nets, target.removeprefix("monai.networks.nets."), None)
    if not (
        inspect.isclass(kind) and issubclass(kind, nn.Module) and kind.__module__.startswith("monai.networks.nets")
    ):
        raise ModelError(
            f"{place} holds {target!r:.60}, which is no network of MONAI's own and can run any code; say trust=True "
            "(--trust-model) if you trust its maker."
        )
    arguments = _plain({k: v for k, v in about.items() if not k.startswith("_")}, config, place)
    # Weights come from the bundle and from nowhere else.
    arguments = {k: False if "pretrained" in k and isinstance(v, bool) else v for k, v in arguments.items()}
    try:
        return kind(**arguments)
    except Exception as error:
        raise ModelError(f"MONAI cannot build {target} ({error!s:.120}); mend the bundle's network_def.") from error


def _trusted(place: Path) -> nn.Module:
    from monai.bundle.config_parser import ConfigParser

    sys.path.insert(0, str(place))
    try:
        parser = ConfigParser()
        parser.read_config(place / "configs" / "inference.json")
        parser.read_meta(place / "configs" / "metadata.json")
        parser["bundle_root"] = str(place)
        key = "network_def" if parser.get("network_def") is not None else "network"
        network = parser.get_parsed_content(key)
        if not isinstance(network, nn.Module):
            raise TypeError(f"{key} is {type(network).__name__}")
    except Exception as error:
        raise ModelError(
            f"MONAI cannot build the network of {place} ({(str(error) or type(error).__name__).splitlines()[0]})."
        ) from error
    finally:
        sys.path.remove(str(place))
    return network.cpu()


def _weights(place: Path) -> dict[str, Tensor]:
    safe, pickled = place / "models" / "model.safetensors", place / "models" / "model.pt"
    if safe.is_file():
        return read_weights(safe, nn.Module())
    try:
        state = torch.load(pickled, map_location="cpu", weights_only=True)
        state = state.get("model", state)
        if not all(isinstance(v, Tensor) for v in state.values()):
            raise ValueError("it holds more than tensors")
    except Exception as error:
        raise ModelError(
            f"{pickled} is no plain state dict ({(str(error) or type(error).__name__).splitlines()[0]:.120}); save the "
            "weights as models/model.safetensors."
        ) from error
    return dict(state)


def _transforms(config: Mapping[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    about = config.get(key) or {}
    steps = about.get("transforms", []) if isinstance(about, dict) else about
    if isinstance(steps, str) and steps.startswith("@"):
        steps = config.get(steps[1:], [])
    for step in steps if isinstance(steps, list) else []:
        if isinstance(step, dict) and step.get("_disabled_") is not True and "_target_" in step:
            name = str(step["_target_"]).rpartition(".")[2]
            yield name.removesuffix("Dict").removesuffix("d").removesuffix("D"), step


def _activation(config: Mapping[str, Any]) -> dict[str, Any]:
    for name, step in _transforms(config, "postprocessing"):
        if name == "Activations" and (step.get("softmax") is True or step.get("sigmoid") is True):
            return {"exclusive": step.get("softmax") is True}
    return {}


def _steps(config: Mapping[str, Any], place: Path) -> Steps:
    """The preprocessing, in the terms of a classifier.

    Raises:
        ModelError: at a step that has no counterpart.
    """
    does = Steps()
    for name, step in _transforms(config, "preprocessing"):
        given = _plain({k: v for k, v in step.items() if not k.startswith("_")}, config, place)
        try:
            known = _step(does, name, given)
        except (TypeError, ValueError, KeyError, ZeroDivisionError) as error:
            raise ModelError(f"{place} has a step {name} that makes no sense ({error}); mend it.") from error
        if not known:
            raise ModelError(
                f"The preprocessing of {place} has a step {name} that Lucency cannot do; hand over the network in "
                "Python, in a module that does it."
            )
    return does


def _step(does: Steps, name: str, given: Mapping[str, Any]) -> bool:
    """Notes what a step does; whether it is known."""
    if name == "LoadImage":
        does.turned = given.get("reverse_indexing", True) is not False
    elif name == "Transpose":
        if given["indices"] not in ([0, 2, 1], [0, 3, 2, 1]):
            return False
        does.turned = not does.turned
    elif name == "ScaleIntensity":
        if given.get("factor") is not None or given.get("channel_wise"):
            return False
        low, high = float(given.get("minv", 0)), float(given.get("maxv", 1))
        does.gain, does.offset, does.divisor = high - low, [low], [1.0]
        does.notices.append(
            "MONAI stretches each scan from its own darkest to its brightest pixel; here it is as shown."
        )
    elif name == "ScaleIntensityRange":
        low, high = float(given["b_min"]), float(given["b_max"])
        does.gain, does.offset, does.divisor = high - low, [low], [1.0]
        if (given["a_min"], given["a_max"]) != (0, 255):
            does.notices.append(
                f"The model reads intensities from {given['a_min']:g} to {given['a_max']:g}: show scans in that window."
            )
    elif name == "NormalizeIntensity":
        if given.get("nonzero"):
            does.notices.append("MONAI leaves out pixels of 0 when it standardises; here they count.")
        if given.get("subtrahend") is None and given.get("divisor") is None:
            does.standardised = bool(given.get("channel_wise"))
        else:
            less, by = _each(given.get("subtrahend", 0)), _each(given.get("divisor", 1))
            does.offset = [does.offset[0] - one for one in less]
            does.divisor = by
    elif name == "Resize":
        if given.get("size_mode", "all") != "all":
            return False
        size = given["spatial_size"]
        does.size = tuple(int(n) for n in size) if isinstance(size, list) else (int(size),) * 2
        does.size = does.size[::-1] if does.turned else does.size
        does.interpolation = INTERPOLATIONS.get(str(given.get("mode", "area")), "linear")
    elif name in PLACING:
        does.notices.append(f"MONAI's {name} is not done: hand over scans that already are so.")
    else:
        return name in IDLE
    return True


def _each(value: Any) -> list[float]:
    return [float(v) for v in value] if isinstance(value, list) else [float(value)]
