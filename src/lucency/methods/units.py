"""What single feature maps see (Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014).

A deconvnet leads one activation of a layer back to pixel space (section 2.1): all other activations are set to zero,
and the layers are run backwards, each convolution by its transposed filters, each max pooling by the *switches* that
say where the maximum was, each ReLU by a ReLU on the signal. That is a backward pass in which the derivative of the
ReLU is replaced (:class:`~lucency.methods.rectify.Rectified`); switches and transposed filters are what a backward
pass uses anyway. Where pooling windows overlap, signals add up; the paper's unpooling keeps one of them.

The activation of a unit is what its layer hands on: the convolution's output after the normalisation and the
nonlinearity that directly follow, where they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lucency.asking import asking, undisturbed
from lucency.classifier.hooks import hooked
from lucency.engine import Engine
from lucency.errors import ParameterError, QuestionError
from lucency.methods.receptive_field import ReceptiveField, ReceptiveFields
from lucency.methods.rectify import Rectified
from lucency.scan import Scan
from lucency.work import Stage, Streamed, count

Box = tuple[tuple[int, int], ...]
"""Start and stop along each spatial axis."""

_NORMALISATIONS = (F.batch_norm, F.instance_norm, F.group_norm, F.dropout, F.dropout2d, F.dropout3d)
_NONLINEARITIES = (
    *(F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_),
    *(F.relu6, F.hardtanh, F.leaky_relu, F.elu, F.selu, F.silu, F.gelu, F.mish, F.hardswish, F.prelu, F.softplus),
)


@dataclass(frozen=True, eq=False)
class Unit:
    """One feature map of one layer on one scan, and what it saw there.

    Attributes:
        layer, unit: the convolution's module name, and the number of the feature map.
        activation: its strongest activation on this scan.
        at: where in the feature map that is.
        box: the part of the model's grid that this activation depends on; the whole grid where that is not known.
        activations: ``[*spatial]``, the whole feature map.
        projection: ``[*grid]``, the activation led back to pixel space, signed, summed over channels.
        pixels: ``[C, *grid]``, the scan in display values.
    """

    layer: str
    unit: int
    activation: float
    at: tuple[int, ...]
    box: Box
    activations: Tensor
    projection: Tensor
    pixels: Tensor


@dataclass(frozen=True, eq=False)
class Features:
    """What one layer hands on for one scan: ``maps`` ``[1, K, *spatial]`` with their graph, and how far they see."""

    maps: Tensor
    field: ReceptiveField | None


@Streamed
def strongest_units(
    engine: Engine,
    scan: Scan,
    layers: Sequence[str] | None = None,
    top: int = 1,
    *,
    whole: bool = False,
) -> Iterator[Stage[tuple[Unit, ...]]]:
    """For each convolutional layer, the feature maps with the strongest activations, led back to pixel space.

    Args:
        layers: names of convolutions; all of them, in the order in which they run, when ``None``.
        top: how many feature maps of each layer.
        whole: lead the whole feature map back, instead of its strongest activation as in the paper.

    Raises:
        QuestionError: for a black box, a network without convolutions or without a gradient, or a layer that does not
            exist.
        ParameterError: when ``top`` is below 1.
    """
    if top < 1:
        raise ParameterError(f"At least one feature map of a layer must be shown, not {top}.")
    x, found = _run(engine, scan, layers)
    seen: tuple[Unit, ...] = ()
    for number, (name, features) in enumerate(found.items()):
        strongest = features.maps.detach()[0].flatten(1).amax(1).topk(min(top, features.maps.shape[1])).indices
        for n, unit in enumerate(strongest.tolist(), 1):
            seen = (*seen, _view(x, name, features, unit, whole))
            yield Stage((number + n / len(strongest)) / len(found), f"{name}, map {unit}", partial(tuple, seen))


@Streamed
def strongest_scans(
    engine: Engine, scans: Iterable[Scan], layer: str, unit: int, top: int = 9, *, of: int | None = None
) -> Iterator[Stage[tuple[tuple[Scan, Unit], ...]]]:
    """The scans that fire one feature map the most, strongest first, each with its strongest activation led back.

    The patch that fired it is ``unit.pixels`` inside ``unit.box``. Scans are read one after the other, and only those
    in the list are kept.

    Args:
        of: how many scans there are, so that the steps know how far they are.

    Raises:
        QuestionError: for a black box, a layer or a feature map that does not exist.
        ParameterError: when ``top`` is below 1.
    """
    if top < 1:
        raise ParameterError(f"At least one scan must be shown, not {top}.")

    def known(best: Sequence[tuple[float, Scan]]) -> tuple[tuple[Scan, Unit], ...]:
        shown = []
        for _, scan in best:
            x, found = _run(engine, scan, [layer])
            shown.append((scan, _view(x, layer, found[layer], unit, whole=False)))
        return tuple(shown)

    best: list[tuple[float, Scan]] = []
    for number, scan in enumerate(scans, 1):
        _, found = _run(engine, scan, [layer], graph=False)
        maps = found[layer].maps
        if not 0 <= unit < maps.shape[1]:
            raise QuestionError(f"Layer {layer} has feature maps 0 to {maps.shape[1] - 1}; there is no {unit}.")
        best = sorted([*best, (float(maps[0, unit].max()), scan)], key=lambda entry: -entry[0])[:top]
        yield Stage(min(number / of, 1) if of else 0.0, Path(scan.source).name, partial(known, best))


def _view(x: Tensor, name: str, features: Features, unit: int, whole: bool) -> Unit:
    activations = features.maps.detach()[0, unit]
    place = int(activations.argmax())
    at = tuple(int(i) for i in np.unravel_index(place, activations.shape))
    grid = tuple(x.shape[2:])
    return Unit(
        layer=name,
        unit=unit,
        activation=float(activations.max()),
        at=at,
        box=tuple((0, n) for n in grid) if features.field is None else features.field.box(at, grid),
        activations=activations.clone(),
        projection=project(x, features.maps, unit, None if whole else at),
        pixels=x.detach()[0],
    )


@undisturbed()
def project(x: Tensor, maps: Tensor, unit: int, at: tuple[int, ...] | None) -> Tensor:
    """One feature map of ``maps`` ``[1, K, *spatial]``, made from ``x`` ``[1, C, *grid]``, led back: ``[*grid]``.

    With ``at`` only the activation there is kept. Negative activations are no signal.
    """
    if not maps.requires_grad:
        raise QuestionError("The network has no gradient at this layer, so nothing can be led back; choose another.")
    signal = torch.zeros_like(maps)
    kept = (0, unit) if at is None else (0, unit, *at)
    signal[kept] = maps.detach()[kept].clamp_min(0)
    with Rectified(guided=False):
        (back,) = torch.autograd.grad((maps * signal).sum(), x, retain_graph=True)
    count(gradients=1)
    return back[0].sum(0)


@asking()
def _run(
    engine: Engine, scan: Scan, layers: Sequence[str] | None, *, graph: bool = True
) -> tuple[Tensor, dict[str, Features]]:
    x = engine.classifier.prepare(scan)[None].to(engine.device).requires_grad_(graph)
    with torch.set_grad_enabled(graph):
        return x, features_of_layers(engine, x, layers)


def features_of_layers(engine: Engine, x: Tensor, layers: Sequence[str] | None) -> dict[str, Features]:
    """What each convolutional layer hands on, in the order in which they run on ``x`` ``[1, C, *grid]``.

    Raises:
        QuestionError: for a black box, a network without convolutions, or a layer that is none.
    """
    classifier = engine.classifier
    convolutions = classifier.convolutions
    if not convolutions:
        raise QuestionError(f"{classifier.name} has no convolutional layer to look into; use another method.")
    for name in layers or ():
        if name not in convolutions:
            raise QuestionError(
                f"{classifier.name} has no convolutional layer {name!r}; `lucency layers` lists the layers there are."
            )
    fields = ReceptiveFields(x)
    handed = _Handed(fields)
    with fields, handed, hooked({name: convolutions[name] for name in layers or convolutions}, handed.start):
        engine.outputs(x)
    return handed.features


class _Handed(TorchFunctionMode):
    """Follows the outputs of chosen convolutions through the normalisation and the nonlinearity that come directly."""

    def __init__(self, fields: ReceptiveFields) -> None:
        super().__init__()
        self._fields = fields
        self._open: dict[int, tuple[str, Tensor]] = {}
        self.features: dict[str, Features] = {}

    def start(self, name: str, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        """The forward hook of the convolution ``name``."""
        self._keep(name, output)
        self._open[id(output)] = (name, output)

    def _keep(self, name: str, maps: Tensor) -> None:
        # A copy: what comes next may work in place, on the values and on the graph.
        self.features[name] = Features(maps.clone(), self._fields.of(maps))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name, source = self._open.get(id(args[0]), (None, None)) if args else (None, None)
        if name is not None:
            if func in _NORMALISATIONS or func in _NONLINEARITIES:
                self._keep(name, out)
                del self._open[id(source)]
            if func in _NORMALISATIONS:
                self._open[id(out)] = (name, out)
            elif out is source:
                self._open.pop(id(source), None)
        return out
