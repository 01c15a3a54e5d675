"""A model is tried on pictures that look like scans: what it wants to read, and where its scores are."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lucency.classifier.base import Classifier
from lucency.classifier.copying import copied
from lucency.classifier.steps import last_step
from lucency.errors import LucencyError, ModelError

PICTURES = 5
GUESSES: tuple[tuple[int, ...], ...] = ((128, 128), (224, 224), (32, 32, 32))
"""Sizes on which a model is tried that takes any."""
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def scan_like(count: int, channels: int, size: Sequence[int]) -> Tensor:
    """Pictures ``[count, channels, *size]`` in 0..1: smooth and varied, each of another brightness; always the same.

    A flat grey picture would be undefined to a network that standardises what it reads.
    """
    draw = torch.Generator().manual_seed(0)
    mode = "bilinear" if len(size) == 2 else "trilinear"
    pictures = torch.zeros(count, 1, *size)
    for cells, strength in ((3, 0.6), (7, 0.25), (17, 0.15)):
        coarse = torch.rand(count, 1, *(min(cells, n) for n in size), generator=draw)
        pictures += strength * F.interpolate(coarse, size=tuple(size), mode=mode, align_corners=False)
    steps = torch.linspace(0.6, 1.0, count).view(-1, 1, *(1,) * len(size))
    return (pictures * steps).expand(count, channels, *size).clone()


@dataclass(frozen=True)
class Trial:
    """What a model did with the pictures.

    Attributes:
        outputs: float32 ``[N, K]`` or ``[N, K, *space]``; ``None`` where no picture went through.
        last: what kind of step made them, see :func:`~lucency.classifier.steps.last_step`.
        alone: why each scan must go in by itself, if it must.
        trouble: what it said where no picture went through.
    """

    outputs: Tensor | None
    last: str | None = None
    alone: str = ""
    trouble: str = ""


def tried(classifier: Classifier, classes: int | None) -> Trial:
    """Tries a model, and tells it the channels and the precision that go through and where its scores are.

    Args:
        classifier: its ``channels``, ``dtype`` and ``readout`` are set; channels that are given stay.
        classes: how many names there are, if any were given.

    Raises:
        ModelError: when the input size is known and no picture goes through, or there are no scores in what it returns.
    """
    known, module = classifier.input_size, classifier.module
    sizes = GUESSES if known is None else (known,)
    if known is None and module is not None:
        if any(isinstance(m, nn.Conv3d) for m in module.modules()):
            sizes = sizes[::-1]
        if any(nn.parameter.is_lazy(p) for p in module.parameters()):
            raise ModelError(
                f"{classifier.name} has layers without weights yet, which are built for one size; say "
                "input_size=(H, W)."
            )
    trouble: LucencyError | None = None
    for size in sizes:
        for dtype in _precisions(module):
            for channels in _channels(classifier, size, dtype):
                probe = _probe(classifier, channels, dtype)
                try:
                    with _quietly():
                        returned, alone = _answers(probe, scan_like(PICTURES, channels, size))
                except LucencyError as error:
                    trouble = trouble or error
                    continue
                classifier.dtype = dtype
                if classifier.channels is None and not _takes_any(probe, size):
                    classifier.channels = channels
                return _read(classifier, probe, returned, alone, size, classes)
    if known is not None and trouble is not None:
        raise trouble
    return Trial(None, trouble=str(trouble).rstrip("."))


def _probe(classifier: Classifier, channels: int, dtype: torch.dtype) -> Classifier:
    """The classifier with something to try; a network that takes any size is tried in a copy, which it may spoil."""
    probe = copy.copy(classifier)
    probe.channels, probe.dtype = channels, dtype
    if classifier.input_size is None and classifier.module is not None and classifier.forward is classifier.module:
        probe.module = copied(classifier.module)[0]
        probe.forward = probe.module
    return probe


def _answers(probe: Classifier, pictures: Tensor) -> tuple[list[tuple[Any, int]], bool]:
    """What the model returns, with the number of pictures each; and whether it takes them one by one only."""
    try:
        return [(probe.returned(pictures.clone()), len(pictures))], False
    except LucencyError:
        one = [(probe.returned(picture[None].clone()), 1) for picture in pictures]
        return one, True


def _read(
    classifier: Classifier,
    probe: Classifier,
    returned: list[tuple[Any, int]],
    alone: bool,
    size: Sequence[int],
    classes: int | None,
) -> Trial:
    space, name = len(size), classifier.name
    first, count = returned[0]
    readout = classifier.readout.found(first, count, space, classes, name)
    outputs = torch.cat([readout(part, n, space, classes, name) for part, n in returned])
    pictures = scan_like(PICTURES, probe.channels or 1, size)
    if not alone and outputs.shape[1] == PICTURES and readout.paths not in ((), ((),)):
        # As many classes as pictures: lists of rows and lists of columns look alike.
        with _quietly():
            fewer = probe.returned(pictures[:-1].clone())
        readout = classifier.readout.found(fewer, PICTURES - 1, space, classes, name)
        outputs = readout(first, PICTURES, space, classes, name)
    classifier.readout = readout

    def one() -> Tensor:
        return readout(probe.returned(pictures[:1].clone()), 1, space, classes, name)

    with _quietly():
        first_alone, again = one(), one()
        last = None if probe.module is None else last_step(one)
    if alone:
        why = "The model takes one scan at a time"
    elif _alike(first_alone, again, probe.dtype) and not _alike(first_alone, outputs[:1], probe.dtype):
        why = "The answer depends on which scans go in together"
    else:
        why = ""
    return Trial(outputs.detach().cpu(), last, why)


def _alike(one: Tensor, other: Tensor, dtype: torch.dtype) -> bool:
    """Whether outputs are the same but for rounding."""
    slack = 1e-5 if dtype in (torch.float32, torch.float64) else 2e-2
    return bool(((one - other).abs() <= slack * other.abs().max().clamp_min(1e-3)).all())


@contextmanager
def _quietly() -> Iterator[None]:
    """No gradients, and the caller's random numbers as they were; a network that draws weights draws the same ones.

    Not in inference mode: a tensor that a network keeps from there is of no use for gradients later.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        yield


def _precisions(module: nn.Module | None) -> list[torch.dtype]:
    """The floating-point types that a network may want to read, the likeliest first."""
    if module is None:
        return [torch.float32]
    used = [t.dtype for t in (*module.parameters(), *module.buffers()) if t.dtype in FLOATS]
    return list(dict.fromkeys([*used, torch.float32])) if used else list(FLOATS)


def _channels(classifier: Classifier, size: Sequence[int], dtype: torch.dtype) -> list[int]:
    """Numbers of channels that a model may want to read, the likeliest first."""
    if classifier.channels is not None:
        return [classifier.channels]
    if classifier.module is None:
        return [1, 3]
    shapes = [
        int(p.shape[1]) for p in classifier.module.parameters() if not nn.parameter.is_lazy(p) and p.ndim in (4, 5)
    ]
    return list(dict.fromkeys([*_first_reader(classifier, size, dtype), 1, 3, *shapes]))


def _first_reader(classifier: Classifier, size: Sequence[int], dtype: torch.dtype) -> list[int]:
    """The channels of the first layer that is run on something of a scan's shape."""
    module, found = classifier.module, list[int]()
    assert module is not None
    if any(nn.parameter.is_lazy(p) for p in module.parameters()):
        return []

    def watch(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        wants = getattr(layer, "in_channels", None) or getattr(layer, "num_features", None)
        if not found and isinstance(wants, int) and inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim > 2:
            found.append(wants)

    probe = _probe(classifier, 1, dtype)
    assert probe.module is not None
    with ExitStack() as hooks, _quietly():
        for layer in probe.module.modules():
            if not isinstance(layer, torch.jit.ScriptModule) and next(layer.children(), None) is None:
                hooks.callback(layer.register_forward_pre_hook(watch).remove)
        # It is watched as far as it gets.
        with suppress(LucencyError):
            probe.returned(scan_like(1, 1, size))
    return found


def _takes_any(probe: Classifier, size: Sequence[int]) -> bool:
    """Whether the model takes another number of channels as well."""
    if probe.module is not None and any(isinstance(m, CONVOLUTIONS) for m in probe.module.modules()):
        return False
    try:
        with _quietly():
            probe.returned(scan_like(1, 3 if probe.channels == 1 else 1, size))
    except LucencyError:
        return False
    return True
