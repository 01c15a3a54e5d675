"""What a classifier is to Lucency: named classes, an input grid, scores, and (if it is a network) layers."""

from __future__ import annotations

import operator
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lucency.asking import Buffers, one_at_a_time
from lucency.classifier.hooks import hooked
from lucency.classifier.readout import Readout
from lucency.errors import LucencyError, ModelError, QuestionError, ran_out_of_memory
from lucency.scan import Scan
from lucency.work import count

Outputs = Literal["logits", "probabilities", "log-probabilities", "numbers"]
Fit = Literal["stretch", "crop", "pad"]
Interpolation = Literal["linear", "cubic", "nearest"]
Reduce = Literal["mean", "max", "sum"] | NDArray[np.generic] | Tensor
"""How the map of a class becomes one number: over the whole map, or the weighted mean over a region ``[*space]``."""
ExtraInputs = Mapping[str, Any] | Callable[[Tensor], Mapping[str, Any]]
"""What a model reads beside the scan, by name: numbers and arrays for one scan, which get a batch axis in front; or a
function from the normalised batch ``[B, C, *grid]`` to what stands beside it, batch axis and all."""

TINY = torch.finfo(torch.float32).tiny
ALMOST = 1 - torch.finfo(torch.float32).eps / 2


@dataclass(frozen=True)
class Layer:
    """A layer of a network: its dotted module ``name``, its ``kind`` and the ``[C, *spatial]`` shape it puts out."""

    name: str
    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Placement:
    """Where the model's input grid lies on the scan: a centred box of the scan, resampled to ``grid``.

    ``margins`` are the pixels added before and after each spatial axis of the scan (negative = cut off).
    """

    scan_shape: tuple[int, ...]
    margins: tuple[tuple[int, int], ...]
    grid: tuple[int, ...]
    interpolation: Interpolation = "linear"

    @property
    def box_shape(self) -> tuple[int, ...]:
        return tuple(n + a + b for n, (a, b) in zip(self.scan_shape, self.margins, strict=True))

    def _pads(self, sign: int) -> list[int]:
        return [sign * m for pair in reversed(self.margins) for m in pair]

    def to_grid(self, pixels: Tensor) -> Tensor:
        """Scan pixels ``[C, *scan_shape]`` -> ``[C, *grid]``, with antialiasing in 2-D unless the nearest are taken."""
        boxed = F.pad(pixels, self._pads(1))
        return _resample(boxed[None], self.grid, self.interpolation)[0]

    def to_scan(self, heatmap: Tensor) -> Tensor:
        """A map ``[*grid]`` -> ``[*scan_shape]``, linear, zero where the model did not look."""
        boxed = _resample(heatmap[None, None], self.box_shape)[0, 0]
        return F.pad(boxed, self._pads(-1))

    def scan_pixels(self, mm_or_pixels: float, axis: int) -> float:
        """How many grid pixels a length of scan pixels spans along ``axis``."""
        return mm_or_pixels * self.grid[axis] / self.box_shape[axis]

    def to_scan_point(self, index: Sequence[float]) -> tuple[float, ...]:
        """A point of the grid (pixel centres at whole numbers) -> the same point of the scan."""
        return tuple(
            (i + 0.5) * n / g - 0.5 - a
            for i, n, g, (a, _) in zip(index, self.box_shape, self.grid, self.margins, strict=True)
        )


def _resample(batch: Tensor, size: tuple[int, ...], interpolation: Interpolation = "linear") -> Tensor:
    if tuple(batch.shape[2:]) == tuple(size):
        return batch
    if interpolation == "nearest":
        return F.interpolate(batch, size=size, mode="nearest-exact")
    if len(size) == 2:
        mode = "bicubic" if interpolation == "cubic" else "bilinear"
        return F.interpolate(batch, size=size, mode=mode, align_corners=False, antialias=True)
    return F.interpolate(batch, size=size, mode="trilinear", align_corners=False)


def class_names(names: Any, model: str) -> tuple[str, ...]:
    """Class names, stripped.

    Raises:
        ModelError: when one is no string, is empty, cannot be printed, or is there twice in whatever case.
    """
    if isinstance(names, str) or not isinstance(names, Sequence | np.ndarray | set | frozenset | Mapping):
        raise ModelError(f"The class names of {model} are {names!r:.60}; give a list of strings, one for each class.")
    if isinstance(names, set | frozenset | Mapping):
        raise ModelError(
            f"The class names of {model} are a {type(names).__name__}; give a list, in the outputs' order."
        )
    seen: dict[str, str] = {}
    found = []
    for number, name in enumerate(names):
        if not isinstance(name, str):
            raise ModelError(f"Class {number} of {model} is called {name!r:.60}; class names are strings.")
        own = str(name).strip()
        if not own:
            raise ModelError(f"Class {number} of {model} has an empty name; name each class.")
        if any(unicodedata.category(c) in UNPRINTABLE or c in BIDIRECTIONAL for c in own):
            raise ModelError(f"The class name {own!r:.60} of {model} holds control characters; leave them out.")
        if _key(own) in seen:
            raise ModelError(
                f"{model} has two classes called {own!r:.60} (in whatever case); give each a name of its own."
            )
        seen[_key(own)] = own
        found.append(own)
    return tuple(found)


UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
BIDIRECTIONAL = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def _key(name: str) -> str:
    """What two names share that are taken for the same."""
    return unicodedata.normalize("NFC", name.strip()).casefold()


class Classifier:
    """A trained classifier with everything Lucency has to know about it.

    Args:
        forward: ``[B, C, *grid]`` of ``dtype``, already normalised, and the extra inputs by name -> whatever
            ``readout`` finds the outputs ``[B, K]`` in.
        name: what to call it in reports.
        classes: the K class names, each a string of its own in whatever case. Where the model gives one number there
            may be two, the negative class first: they get ``1 - p`` and ``p``.
        input_size: the spatial size the model wants; ``None`` takes every scan as it is.
        channels: the number of channels it wants; a single-channel scan is repeated, ``None`` takes what comes.
        mean, std: normalisation of 0..1 display values, one number for each channel: ``(x - mean) / std``.
        outputs: whether the K numbers are logits, probabilities, logarithms of probabilities, or just numbers (an age,
            a volume) that are watched as they are.
        exclusive: whether classes exclude each other (softmax) or not (a sigmoid each); one output has nothing to
            exclude.
        fit: how a scan of another aspect ratio meets ``input_size``: stretch, crop to the centre, or pad.
        crop_share: the share of the sides that is kept, about the centre, where a model saw resized pictures cropped
            (224 of 256 pixels: 0.875).
        interpolation: how the scan is resampled to ``input_size``; cubic is for 2-D scans.
        clip: cut display values to 0..1, as for a model trained on 8-bit images.
        module: the network behind ``forward``, when there is one; it enables gradients and layers.
        fingerprint: a hash that identifies the weights.
        dtype: the floating-point type of the model's input.
        readout: where the scores are in what the model returns.
        reduce: how the map of each class ``[B, K, *space]`` becomes one number; after softmax or sigmoid where the
            probability is watched, before them where the logit is.
        extra_inputs: what the model reads beside the scan.
        alone: whether each scan goes in by itself, because the answer depends on what else is in the batch.
        notices: what loading took for granted, one sentence each.

    Raises:
        ModelError: from every call, when the model itself raises or gives outputs of the wrong kind.
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        *,
        name: str,
        classes: Sequence[str],
        fingerprint: str,
        input_size: Sequence[int] | None = None,
        channels: int | None = None,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        outputs: Outputs = "logits",
        exclusive: bool = True,
        fit: Fit = "stretch",
        crop_share: float = 1.0,
        interpolation: Interpolation = "linear",
        clip: bool = False,
        module: nn.Module | None = None,
        card: str = "",
        dtype: torch.dtype = torch.float32,
        readout: Readout | None = None,
        reduce: Reduce | None = None,
        extra_inputs: ExtraInputs | None = None,
        alone: bool = False,
        notices: Sequence[str] = (),
    ) -> None:
        self.forward = forward
        self.name = name
        self.classes = class_names(classes, name)
        self.fingerprint = fingerprint
        self.input_size = None if input_size is None else tuple(int(n) for n in input_size)
        self.channels = channels
        self.mean = tuple(float(m) for m in mean)
        self.std = tuple(float(s) for s in std)
        self.outputs: Outputs = outputs
        self.exclusive = exclusive
        self.fit: Fit = fit
        self.crop_share = float(crop_share)
        self.interpolation: Interpolation = interpolation
        self.clip = clip
        self.module = module
        self.card = card
        self.dtype = dtype
        self.readout = readout or Readout(dense=reduce is not None)
        self.reduce = reduce
        self.extra_inputs = extra_inputs
        self.alone = alone
        self.notices = tuple(notices)
        self.reference: Path | None = None
        """Features of clean scans, as :class:`~lucency.checks.out_of_distribution.OutOfDistribution` saves them."""
        self._buffers = Buffers(module)

    def __repr__(self) -> str:
        size = "any size" if self.input_size is None else "x".join(map(str, self.input_size))
        return f"Classifier({self.name!r}, {len(self.classes)} classes, {size}, {self.outputs})"

    def to(self, device: torch.device | str) -> Classifier:
        """Moves the network (in place; a black box stays where it is) and returns the classifier."""
        if self.module is not None:
            self.module.to(device)
        return self

    def placement(self, scan: Scan) -> Placement:
        """Where this model's input grid lies on ``scan``.

        Raises:
            ModelError: when the numbers of spatial axes differ.
        """
        shape = scan.shape
        if self.input_size is None:
            return Placement(shape, ((0, 0),) * len(shape), shape)
        if len(self.input_size) != len(shape):
            raise ModelError(
                f"{self.name} reads {len(self.input_size)}-D scans and this one is {len(shape)}-D; "
                "pick a slice or another model."
            )
        ratios = [n / g for n, g in zip(shape, self.input_size, strict=True)]
        if self.fit != "stretch":
            ratios = [min(ratios) if self.fit == "crop" else max(ratios)] * len(ratios)
        margins = []
        for n, g, ratio in zip(shape, self.input_size, ratios, strict=True):
            extra = max(1, round(g * ratio * self.crop_share)) - n
            margins.append((extra // 2, extra - extra // 2))
        return Placement(shape, tuple(margins), self.input_size, self.interpolation)

    def prepare(self, scan: Scan) -> Tensor:
        """The scan on the model's input grid: float32 ``[C, *grid]``, display values, not yet normalised.

        Raises:
            ModelError: when the channels or the number of spatial axes do not fit.
        """
        pixels = scan.display
        if self.clip:
            pixels = pixels.clamp(0.0, 1.0)
        pixels = self.placement(scan).to_grid(pixels)
        if self.clip and self.interpolation == "cubic":
            # A cubic overshoots at edges.
            pixels = pixels.clamp(0.0, 1.0)
        if self.channels is not None and pixels.shape[0] != self.channels:
            if pixels.shape[0] != 1:
                raise ModelError(
                    f"{self.name} reads {self.channels} channel(s) and the scan has {pixels.shape[0]}; "
                    "convert the scan to grey or to the channels of the model."
                )
            pixels = pixels.expand(self.channels, *pixels.shape[1:])
        return pixels.contiguous()

    def normalise(self, x: Tensor) -> Tensor:
        """``(x - mean) / std`` by channel, for ``x`` of shape ``[B, C, *grid]``: always a new tensor.

        A network may work in place on its input, so it gets one that nobody else looks at.
        """
        if self.mean == (0.0,) and self.std == (1.0,):
            return x.clone()
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return (x - x.new_tensor(self.mean).view(shape)) / x.new_tensor(self.std).view(shape)

    def enter(self, x: Tensor) -> Tensor:
        """What goes into the model for display values ``[B, C, *grid]``: normalised, in the model's own precision."""
        return self.normalise(x).to(self.dtype)

    def extras(self, x: Tensor) -> dict[str, Any]:
        """What the model reads beside a batch ``[B, C, *grid]`` that goes into it, by name."""
        if self.extra_inputs is None:
            return {}
        if callable(self.extra_inputs):
            return dict(self.extra_inputs(x))
        return {name: _for_each(value, x) for name, value in self.extra_inputs.items()}

    def read_out(self, returned: Any, x: Tensor) -> Tensor:
        """The outputs, float32 ``[B, K]``, in what the model returned for the batch ``x``.

        They are ``[B, K, *space]`` where each class has a map that is reduced.

        Raises:
            ModelError: when they are not there, or are not one for each class.
        """
        return self.fitted(self.readout(returned, len(x), x.ndim - 2, len(self.classes), self.name).to(x.device))

    def fitted(self, out: Tensor) -> Tensor:
        """Outputs ``[B, K]`` or ``[B, K, *space]``, one for each class name.

        Raises:
            ModelError: when they are not that many.
        """
        names = len(self.classes)
        if out.shape[1] == 1 and names == 2:
            out = self._both(out)
        if out.shape[1] != names:
            raise ModelError(
                f"{self.name} gives {out.shape[1]} outputs and has {names} class names; name each output once."
            )
        return out

    def _both(self, out: Tensor) -> Tensor:
        """The one output of a binary model for the negative and the positive class."""
        if self.outputs == "probabilities":
            return torch.cat([1 - out, out], 1)
        if self.outputs == "logits":
            return torch.cat([-out, out], 1)
        if self.outputs == "log-probabilities":
            return torch.cat([_log_of_rest(out), out], 1)
        raise ModelError(f"{self.name} gives one number, not the probability of a class; give one name.")

    def __call__(self, x: Tensor) -> Tensor:
        """Raw outputs ``[B, K]`` for display values ``[B, C, *grid]``; differentiable when the model is.

        They are ``[B, K, *space]`` where each class has a map that is reduced.
        """
        if self.alone and len(x) > 1:
            return torch.cat([self(one) for one in torch.split(x, 1)])
        return self.read_out(self.returned(x), x)

    def returned(self, x: Tensor) -> Any:
        """Whatever the model returns for display values ``[B, C, *grid]``."""
        try:
            inner = self.enter(x)
            with one_at_a_time(), self._buffers.kept(len(x)):
                returned = self.forward(inner, **self.extras(inner))
            count(len(x))
            return returned
        except LucencyError:
            raise
        except Exception as error:
            if ran_out_of_memory(error):
                # The engine goes on with smaller batches.
                raise
            raise ModelError(
                f"{self.name} raised {type(error).__name__} on an input of shape {list(x.shape)}: "
                f"{str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}; "
                "check input_size, channels and device."
            ) from error

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Outputs -> probabilities ``[B, K]``; numbers stay the numbers that they are."""
        if self.outputs == "logits":
            outputs = outputs.softmax(1) if self._softmax(outputs) else outputs.sigmoid()
        elif self.outputs == "log-probabilities":
            outputs = outputs.exp()
        return self.reduced(outputs)

    def logits(self, outputs: Tensor) -> Tensor:
        """Outputs -> logits ``[B, K]`` (log p, or log-odds where classes do not exclude each other)."""
        return self.reduced(self._logits(outputs))

    def margins(self, outputs: Tensor, target: int) -> Tensor:
        """Outputs -> the logit of one class minus the largest other one, ``[B]``."""
        others = self._logits(outputs).clone()
        own = others[:, target : target + 1].clone()
        others[:, target] = -torch.inf
        return self.reduced(own - others.amax(1, keepdim=True))[:, 0]

    @property
    def measures(self) -> bool:
        """Whether what it gives is a measurement (an age, a number of pixels) and no probability."""
        return self.outputs == "numbers" or (isinstance(self.reduce, str) and self.reduce == "sum")

    def numbers(self, outputs: Tensor) -> Tensor:
        """Outputs -> the numbers ``[B, K]`` that the model gives, whatever they mean."""
        return self.reduced(outputs)

    def _softmax(self, outputs: Tensor) -> bool:
        return self.exclusive and outputs.shape[1] > 1

    def _logits(self, outputs: Tensor) -> Tensor:
        if self.outputs == "logits":
            return outputs
        if self.outputs == "log-probabilities":
            return outputs if self._softmax(outputs) else outputs - _log_of_rest(outputs)
        if self.outputs == "numbers":
            raise QuestionError(f"{self.name} gives numbers and no scores of classes; watch the number.")
        # As far as float32 tells a probability from 0 and from 1.
        p = outputs.clamp(TINY, ALMOST)
        return p.log() if self._softmax(outputs) else p.log() - torch.log1p(-p)

    def reduced(self, maps: Tensor) -> Tensor:
        """Maps ``[B, K, *space]`` -> one number each ``[B, K]``; ``[B, K]`` stays as it is.

        Raises:
            ModelError: when the region is not of the maps' shape.
        """
        if maps.ndim == 2 or self.reduce is None:
            return maps
        if isinstance(self.reduce, str):
            flat = maps.flatten(2)
            return flat.mean(2) if self.reduce == "mean" else flat.amax(2) if self.reduce == "max" else flat.sum(2)
        region = torch.as_tensor(self.reduce).to(maps.device, maps.dtype)
        if region.shape != maps.shape[2:]:
            raise ModelError(
                f"The region for {self.name} has shape {list(region.shape)} and its maps have "
                f"{list(maps.shape[2:])}; give it on the grid of the maps."
            )
        return (maps * region).flatten(2).sum(2) / region.sum()

    @property
    def device(self) -> torch.device:
        """Where the network is; a black box is asked from the CPU."""
        if self.module is not None:
            for tensor in (*self.module.parameters(), *self.module.buffers()):
                return tensor.device
        return torch.device("cpu")

    def about(self) -> dict[str, Any]:
        """Everything that is known about the model, for printing and for JSON."""
        reduce = self.reduce if isinstance(self.reduce, str | None) else f"region of {list(self.reduce.shape)}"
        extra = self.extra_inputs
        return {
            "name": self.name,
            "classes": list(self.classes),
            "input_size": None if self.input_size is None else list(self.input_size),
            "channels": self.channels,
            "mean": list(self.mean),
            "std": list(self.std),
            "fit": self.fit,
            "crop_share": self.crop_share,
            "interpolation": self.interpolation,
            "clip": self.clip,
            "outputs": self.outputs,
            "exclusive": self.exclusive,
            "output": self.readout.words,
            "reduce": reduce,
            "alone": self.alone,
            "extra_inputs": getattr(extra, "__name__", "a function") if callable(extra) else sorted(extra or ()),
            "dtype": str(self.dtype).removeprefix("torch."),
            "network": None if self.module is None else type(self.module).__name__,
            "fingerprint": self.fingerprint,
            "card": self.card,
            "notices": list(self.notices),
        }

    def index(self, target: str | int) -> int:
        """The index of a class given by name (any case) or by number.

        Raises:
            QuestionError: naming the classes there are.
        """
        names = [_key(c) for c in self.classes]
        if isinstance(target, str) and _key(target) in names:
            return names.index(_key(target))
        try:
            number = int(target) if isinstance(target, str) else operator.index(target)
        except (TypeError, ValueError):
            number = -1
        if 0 <= number < len(names):
            return number
        shown = ", ".join(self.classes[:20]) + (", ..." if len(names) > 20 else "")
        raise QuestionError(f"{self.name} has no class {target!r}; it knows {shown} (or 0 to {len(names) - 1}).")

    def network(self) -> nn.Module:
        """The network, for whatever needs its gradients or its layers.

        Raises:
            QuestionError: when the classifier is a black box.
        """
        if self.module is None:
            raise QuestionError(
                f"{self.name} is a black box: its layers and gradients are out of reach; "
                "load the PyTorch module itself, or use a method that needs scores only."
            )
        return self.module

    def outputs_and_features(self, x: Tensor, layers: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Outputs and what the named layers put out, each ``[B, C, *spatial]``; leaves no hook behind.

        Raises:
            QuestionError: for a black box, or a layer that does not exist.
        """
        if self.alone and len(x) > 1:
            parts = [self.outputs_and_features(one, layers) for one in torch.split(x, 1)]
            return torch.cat([out for out, _ in parts]), {
                layer: torch.cat([found[layer] for _, found in parts]) for layer in layers
            }
        named = dict(self.network().named_modules())
        features: dict[str, Tensor] = {}

        def keep(name: str, _module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim > 2:
                # What comes next may work in place.
                features[name] = output.clone()

        if unknown := [layer for layer in layers if layer not in named]:
            raise QuestionError(
                f"{self.name} has no layer {unknown[0]!r}; `lucency layers` lists the layers there are."
            )
        with hooked({layer: named[layer] for layer in layers}, keep):
            outputs = self(x)
        if missing := [layer for layer in layers if layer not in features]:
            raise QuestionError(
                f"{self.name} gives no feature maps at {missing[0]!r}; choose a convolution of a PyTorch module."
            )
        return outputs, features

    def layers(self, x: Tensor) -> list[Layer]:
        """The convolutional layers in the order they run on ``x`` ``[B, C, *grid]``."""
        found: list[Layer] = []

        def ran(name: str, module: nn.Module, _inputs: object, output: Tensor) -> None:
            found.append(Layer(name, type(module).__name__, tuple(output.shape[1:])))

        with hooked(self.convolutions, ran), torch.no_grad():
            self(x)
        return found

    @property
    def convolutions(self) -> dict[str, nn.Module]:
        """The convolutional layers by their dotted names, in the order in which they are registered.

        Raises:
            QuestionError: for a black box.
        """
        every = self.network().named_modules()
        return {name: module for name, module in every if isinstance(module, nn.Conv2d | nn.Conv3d)}


def _log_of_rest(log: Tensor) -> Tensor:
    """``log(1 - p)`` from ``log p``."""
    return torch.log(-torch.expm1(log.clamp(max=-torch.finfo(torch.float32).eps / 2)))


def _for_each(value: Any, x: Tensor) -> Any:
    """An extra input for every scan of a batch: numbers get a batch axis, words and switches stay as they are."""
    if value is None or isinstance(value, str | bool):
        return value
    tensor = torch.as_tensor(value).to(x.device)
    if tensor.is_floating_point():
        tensor = tensor.to(x.dtype)
    # Each pass gets its own: a network may write into it.
    return tensor.expand(len(x), *tensor.shape).clone()
