"""A model is tried on pictures that look like scans: what it wants to read, and where its scores are."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lucency.classifier.base import Classifier
from lucency.classifier.copying import copied
from lucency.classifier.hooks import hooked
from lucency.classifier.steps import last_step
from lucency.errors import LucencyError, ModelError, ran_out_of_memory

PICTURES = 5
SLOW = 2.0
"""Seconds for one picture from which on two have to do."""
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
                probe, pictures = _probe(classifier, channels, dtype), scan_like(PICTURES, channels, size)
                try:
                    began = time.perf_counter()
                    one = _asked(probe, pictures[:1])
                    seconds = time.perf_counter() - began
                except LucencyError as error:
                    trouble = trouble or error
                    continue
                classifier.dtype = dtype
                if classifier.channels is None and not _takes_any(probe, size):
                    classifier.channels = channels
                return _read(classifier, probe, one, pictures if seconds < SLOW else pictures[:2], classes)
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


def _asked(probe: Classifier, pictures: Tensor) -> Any:
    """What the model returns.

    Raises:
        ModelError: whatever the model raises, a lack of memory too.
    """
    try:
        with _quietly():
            return probe.returned(pictures.clone())
    except RuntimeError as error:
        if not ran_out_of_memory(error):
            raise
        raise ModelError(
            f"{probe.name} does not fit into the memory with {len(pictures)} picture(s) of "
            f"{' x '.join(map(str, pictures.shape[1:]))}; give a smaller input_size."
        ) from error


def _read(classifier: Classifier, probe: Classifier, one: Any, pictures: Tensor, classes: int | None) -> Trial:
    """Where the scores are, what they are on all pictures, and whether they depend on the company."""
    space, name, count = pictures.ndim - 2, classifier.name, len(pictures)

    def read(returned: Any, batch: int) -> Tensor:
        return readout(returned, batch, space, classes, name).detach().cpu()

    together: Any = None
    why = ""
    try:
        together = _asked(probe, pictures)
    except LucencyError as error:
        if not (isinstance(error.__cause__, RuntimeError) and ran_out_of_memory(error.__cause__)):
            why = "The model takes one scan at a time"
    if together is None:
        readout = classifier.readout.found(one, 1, space, classes, name)
        outputs = torch.cat([read(_asked(probe, picture[None]), 1) for picture in pictures])
    else:
        readout = classifier.readout.found(together, count, space, classes, name)
        outputs = read(together, count)
        if outputs.shape[1] == count and readout.paths not in ((), ((),)):
            # As many classes as pictures: lists of rows and lists of columns look alike.
            readout = classifier.readout.found(_asked(probe, pictures[:-1]), count - 1, space, classes, name)
            outputs = read(together, count)
        lone = read(one, 1)
        if not _alike(lone, outputs[:1], probe.dtype) and _alike(
            lone, read(_asked(probe, pictures[:1]), 1), probe.dtype
        ):
            why = "The answer depends on which scans go in together"
    classifier.readout = readout
    last = None
    if probe.module is not None:
        last = last_step(lambda: readout(_asked(probe, pictures[:1]), 1, space, classes, name))
    return Trial(outputs, last, why)


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
    if (normalised := max(len(classifier.mean), len(classifier.std))) > 1:
        return [normalised]
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

    def watch(_name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        wants = getattr(layer, "in_channels", None) or getattr(layer, "num_features", None)
        if isinstance(wants, int) and inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim > 2:
            found.append(wants)
            raise _Seen

    probe = _probe(classifier, 1, dtype)
    assert probe.module is not None
    leaves = {name: layer for name, layer in probe.module.named_modules() if next(layer.children(), None) is None}
    # It is watched as far as it gets.
    with hooked(leaves, before=watch), _quietly(), suppress(LucencyError):
        probe.returned(scan_like(1, 1, size))
    return found


class _Seen(Exception):  # noqa: N818
    """The layer that reads the scan has been found; the rest of the pass is of no use."""


def _takes_any(probe: Classifier, size: Sequence[int]) -> bool:
    """Whether the model takes another number of channels as well."""
    if max(len(probe.mean), len(probe.std)) > 1:
        return False
    if probe.module is not None and any(isinstance(m, CONVOLUTIONS) for m in probe.module.modules()):
        return False
    try:
        with _quietly():
            probe.returned(scan_like(1, 3 if probe.channels == 1 else 1, size))
    except LucencyError:
        return False
    return True
