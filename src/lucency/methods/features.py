"""Feature maps and the gradient of the score with respect to them: what the class activation maps are made of.

In a network of convolutions these are the last maps on the grid of its last convolution. In a transformer that
convolution only cuts the scan into patches; there the tokens of the last block are laid out as maps again, without the
class token, at the last place where the score still depends on those of the patches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lucency.asking import asking
from lucency.classifier import Classifier
from lucency.classifier.feature_maps import Grid, Layout, layout_of
from lucency.classifier.hooks import hooked
from lucency.engine import Probe
from lucency.errors import QuestionError

_CONVOLUTIONS = (torch.conv2d, torch.conv3d)
_OF_TOKENS = (nn.Linear, nn.LayerNorm)


@dataclass(frozen=True, eq=False)
class Features:
    """Feature maps of scans, and the gradient of the score by them.

    Attributes:
        maps, gradient: ``[B, K, *spatial]``.
        layer: the module that put them out, or ``after NAME`` for what is computed behind it.
    """

    maps: Tensor
    gradient: Tensor
    layer: str


@dataclass(frozen=True, eq=False)
class _Out:
    """What a module put out, as the ``at``-th thing that was computed."""

    name: str
    tensor: Tensor
    module: nn.Module
    at: int


class _Watching(TorchFunctionMode):
    """Notes what modules put out, and the last maps on the grid of the last convolution with more than one pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.outs: list[_Out] = []
        self.maps: Tensor | None = None
        self.grid: Grid | None = None
        self._computed = 0
        self._mapped = -1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self._computed += 1
        if isinstance(out, Tensor) and out.requires_grad and out.ndim >= 4:
            spatial = tuple(out.shape[2:])
            if spatial == self.grid or (func in _CONVOLUTIONS and math.prod(spatial) > 1):
                self.maps, self.grid, self._mapped = out, spatial, self._computed
        return out

    def put_out(self, name: str, module: nn.Module, _inputs: object, output: object) -> None:
        """The forward hook of a module."""
        if isinstance(output, Tensor) and output.requires_grad:
            self.outs.append(_Out(name, output, module, self._computed))

    @property
    def name(self) -> str:
        """Which module put out the maps: the outermost of those that did, or the last one that was done before."""
        named = [out for out in self.outs if out.name]
        if made := [out.name for out in named if out.tensor is self.maps]:
            return made[-1]
        before = [out.name for out in named if out.at < self._mapped]
        return f"after {before[-1]}" if before else "the last convolution"

    def tokens(self, grid: Grid) -> list[tuple[str, Tensor, Layout]]:
        """Token maps behind the last maps of a convolution, in the order in which they were made."""
        behind = [out for out in self.outs if out.at > self._mapped]
        if not any(isinstance(out.module, _OF_TOKENS) and out.tensor.ndim > 2 for out in behind):
            return []
        # Keys, queries and values are no maps of the scan.
        maps = [out for out in behind if not isinstance(out.module, nn.Linear)]
        laid = [(out.name, out.tensor, layout_of(out.tensor, grid, self.grid)) for out in maps]
        return [(name, tensor, layout) for name, tensor, layout in laid if name and layout is not None]


@contextmanager
def _watched(classifier: Classifier, layer: str | None) -> Iterator[tuple[_Watching, Callable[[], Tensor | None]]]:
    """While it is entered, notes what modules put out; the second part gives what the ``layer`` did."""
    named = dict(classifier.network().named_modules())
    if layer is not None and layer not in named:
        raise QuestionError(f"{classifier.name} has no layer {layer!r}; `lucency layers` lists the layers there are.")
    kept: list[Tensor] = []

    def keep(name: str, module: nn.Module, inputs: object, output: Any) -> Any:
        if name != layer:
            watching.put_out(name, module, inputs, output)
            return None
        first = next((o for o in output if isinstance(o, Tensor)), None) if isinstance(output, tuple) else output
        if not isinstance(first, Tensor):
            return None
        kept.append(first)
        # What comes next may work in place; it gets a copy.
        return first.clone() if output is first else tuple(o.clone() if o is first else o for o in output)

    with _Watching() as watching, hooked(named if layer is None else {layer: named[layer]}, keep):
        yield watching, lambda: kept[-1] if kept else None


@asking()
def features_and_gradient(probe: Probe, x: Tensor, layer: str | None, question: int = 0) -> Features:
    """Feature maps of scans ``[B, C, *grid]``, and the gradient of the score by them.

    Args:
        layer: the module whose output is taken. ``None``: the feature maps that leave the convolutional part, that
            is the last tensor on the grid of the last convolution, after its normalisation, ReLU and residual sum;
            in a transformer the tokens of the last block.
        question: which of the probe's questions gives the score.

    Raises:
        QuestionError: for a black box, a network without a gradient, a layer that does not exist or has no feature
            maps, or a score that does not depend on the layer.
        ModelError: when the gradient is not finite.
    """
    found = [_of_one(probe, one[None], layer, question) for one in x]
    return Features(torch.cat([f.maps for f in found]), torch.cat([f.gradient for f in found]), found[0].layer)


def _of_one(probe: Probe, x: Tensor, layer: str | None, question: int) -> Features:
    classifier = probe.engine.classifier
    candidates: list[tuple[str, Tensor, Layout]] = []

    def score() -> Tensor:
        return probe.watch(x.detach().clone().requires_grad_(True))[:, question]

    def by() -> Sequence[Tensor]:
        if layer is not None:
            if (tensor := kept()) is not None and tensor.is_floating_point():
                layout = layout_of(tensor, probe.grid, watching.grid)
                if layout is None and tensor.ndim == x.ndim:
                    layout = Layout(tuple(tensor.shape[2:]), 0, channels_last=False)
                if layout is not None:
                    candidates.append((layer, tensor, layout))
        else:
            if watching.maps is not None and watching.maps.ndim == x.ndim:
                plain = Layout(tuple(watching.maps.shape[2:]), 0, channels_last=False)
                candidates.append((watching.name, watching.maps, plain))
            candidates.extend(watching.tokens(probe.grid))
        if not candidates:
            what = (
                "no convolution and no tokens that lie on a grid" if layer is None else f"no feature maps in {layer!r}"
            )
            raise QuestionError(
                f"{classifier.name} has {what}, so there is no class activation map; use another method."
            )
        return [tensor for _, tensor, _ in candidates]

    with _watched(classifier, layer) as (watching, kept):
        found, gradients = probe.differentiated(score, by)
    probe.finite(found.detach()[:, None], "score")
    for (name, tensor, layout), gradient in reversed(list(zip(candidates, gradients, strict=True))):
        if gradient is None:
            continue
        maps, slopes = layout.maps(tensor.detach()), layout.maps(gradient)
        # What comes behind the last attention is read from the class token alone.
        if bool(slopes.any()) or len(candidates) == 1 or tensor is candidates[0][1]:
            return Features(maps, probe.finite(slopes, "gradient"), name)
    raise QuestionError(
        f"What is watched ({probe.questions[question].label}) does not depend on these feature maps; "
        "choose an earlier layer."
    )


def onto_grid(heatmap: Tensor, grid: tuple[int, ...]) -> Tensor:
    """A map ``[*spatial]`` of any size, linearly on ``grid``."""
    mode = "bilinear" if len(grid) == 2 else "trilinear"
    return F.interpolate(heatmap[None, None], size=grid, mode=mode, align_corners=False)[0, 0]
