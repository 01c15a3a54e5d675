"""What a classifier is to Lucency: named classes, an input grid, scores, and (if it is a network) layers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lucency.errors import LucencyError, ModelError, QuestionError, ran_out_of_memory
from lucency.scan import Scan

Outputs = Literal["logits", "probabilities"]
Fit = Literal["stretch", "crop", "pad"]
Interpolation = Literal["linear", "cubic", "nearest"]


@dataclass(frozen=True)
class Layer:
    """A layer of a network: its dotted module ``name``, its ``kind`` and the ``[C, *spatial]`` shape it puts out."""

    name: str
    kind: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Frame:
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


class Classifier:
    """A trained classifier with everything Lucency has to know about it.

    Args:
        forward: float32 ``[B, C, *grid]``, already normalised -> outputs ``[B, K]``.
        name: what to call it in reports.
        classes: the K class names.
        input_size: the spatial size the model wants; ``None`` takes every scan as it is.
        channels: the number of channels it wants; a single-channel scan is repeated, ``None`` takes what comes.
        mean, std: normalisation of 0..1 display values, one number for each channel: ``(x - mean) / std``.
        outputs: whether the K numbers are logits or probabilities.
        exclusive: whether classes exclude each other (softmax) or not (a sigmoid each).
        fit: how a scan of another aspect ratio meets ``input_size``: stretch, crop to the centre, or pad.
        crop_share: the share of the sides that is kept, about the centre, where a model saw resized pictures cropped
            (224 of 256 pixels: 0.875).
        interpolation: how the scan is resampled to ``input_size``; cubic is for 2-D scans.
        clip: cut display values to 0..1, as for a model trained on 8-bit images.
        module: the network behind ``forward``, when there is one; it enables gradients and layers.
        fingerprint: a hash that identifies the weights.

    Raises:
        ModelError: from every call, when the model itself raises or gives outputs of the wrong kind.
    """

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
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
    ) -> None:
        self.forward = forward
        self.name = name
        self.classes = tuple(classes)
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

    def __repr__(self) -> str:
        size = "any size" if self.input_size is None else "x".join(map(str, self.input_size))
        return f"Classifier({self.name!r}, {len(self.classes)} classes, {size}, {self.outputs})"

    def to(self, device: torch.device | str) -> Classifier:
        """Moves the network (in place; a black box stays where it is) and returns the classifier."""
        if self.module is not None:
            self.module.to(device)
        return self

    def frame(self, scan: Scan) -> Frame:
        """Where this model's input grid lies on ``scan``.

        Raises:
            ModelError: when the numbers of spatial axes differ.
        """
        shape = scan.shape
        if self.input_size is None:
            return Frame(shape, ((0, 0),) * len(shape), shape)
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
        return Frame(shape, tuple(margins), self.input_size, self.interpolation)

    def prepare(self, scan: Scan) -> Tensor:
        """The scan on the model's input grid: float32 ``[C, *grid]``, display values, not yet normalised.

        Raises:
            ModelError: when the channels or the number of spatial axes do not fit.
        """
        pixels = scan.display
        if self.clip:
            pixels = pixels.clamp(0.0, 1.0)
        pixels = self.frame(scan).to_grid(pixels)
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
        """``(x - mean) / std`` by channel, for ``x`` of shape ``[B, C, *grid]``."""
        if self.mean == (0.0,) and self.std == (1.0,):
            return x
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return (x - x.new_tensor(self.mean).view(shape)) / x.new_tensor(self.std).view(shape)

    def __call__(self, x: Tensor) -> Tensor:
        """Raw outputs ``[B, K]`` for display values ``[B, C, *grid]``; differentiable when the model is."""
        try:
            out = self.forward(self.normalise(x))
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
        if not isinstance(out, Tensor) or out.ndim != 2 or out.shape[0] != x.shape[0]:
            what = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ModelError(f"{self.name} must give outputs of shape [B, K] and gave {what}; wrap its forward.")
        if out.shape[1] != len(self.classes):
            raise ModelError(
                f"{self.name} gives {out.shape[1]} outputs and has {len(self.classes)} class names; "
                "name each output once."
            )
        return out

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Outputs ``[B, K]`` -> probabilities ``[B, K]``."""
        if self.outputs == "probabilities":
            return outputs
        return outputs.softmax(1) if self.exclusive else outputs.sigmoid()

    def logits(self, outputs: Tensor) -> Tensor:
        """Outputs ``[B, K]`` -> logits ``[B, K]`` (log p, or log-odds where classes do not exclude each other)."""
        if self.outputs == "logits":
            return outputs
        p = outputs.clamp(1e-7, 1 - 1e-7)
        return p.log() if self.exclusive else p.logit()

    def index(self, target: str | int) -> int:
        """The index of a class given by name (any case) or by number.

        Raises:
            QuestionError: naming the classes there are.
        """
        names = [c.lower() for c in self.classes]
        if isinstance(target, str) and target.strip().lower() in names:
            return names.index(target.strip().lower())
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
        named = dict(self.network().named_modules())
        features: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[[nn.Module, object, Tensor], None]:
            def hook(_module: nn.Module, _inputs: object, output: object) -> None:
                if isinstance(output, Tensor) and output.ndim > 2:
                    features[name] = output

            return hook

        with ExitStack() as hooks:
            for layer in layers:
                if layer not in named:
                    raise QuestionError(
                        f"{self.name} has no layer {layer!r}; `lucency layers` lists the layers there are."
                    )
                # A scripted network runs its layers where Python cannot watch, and refuses the hook.
                if not isinstance(named[layer], torch.jit.ScriptModule):
                    handle = named[layer].register_forward_hook(keep(layer))
                    hooks.callback(handle.remove)
            outputs = self(x)
        if missing := [layer for layer in layers if layer not in features]:
            raise QuestionError(
                f"{self.name} gives no feature maps at {missing[0]!r}; choose a convolution of a PyTorch module."
            )
        return outputs, features

    def layers(self, x: Tensor) -> list[Layer]:
        """The convolutional layers in the order they run on ``x`` ``[B, C, *grid]``."""
        module = self.network()
        found: list[Layer] = []
        with ExitStack() as hooks, torch.no_grad():
            for name, child in module.named_modules():
                if isinstance(child, nn.Conv2d | nn.Conv3d):

                    def hook(m: nn.Module, _inputs: object, output: Tensor, name: str = name) -> None:
                        found.append(Layer(name, type(m).__name__, tuple(output.shape[1:])))

                    handle = child.register_forward_hook(hook)
                    hooks.callback(handle.remove)
            self(x)
        return found
