"""What an animation remembers of a run: a bounded number of small frames, whatever the run is and however long."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lucency.checks.out_of_distribution import LEVEL, OutOfDistribution
from lucency.errors import ParameterError
from lucency.methods import Step
from lucency.render.palette import Bytes, Floats

T = TypeVar("T")

FRAMES = 60
POINTS = 1000
SHARE = 0.01
"""Share of the run's time that the recorder allows itself; what does not fit is built when the run is over."""
SIDE = {2: 320, 3: 96}
"""Longest side of what is kept, for 2 and 3 spatial dimensions."""


class Thinned(Generic[T]):
    """Keeps at most ``capacity`` of a stream of unknown length, evenly spread: when full, every other one goes."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.kept: list[T] = []
        self.stride = 1
        self._seen = 0

    def offer(self, make: Callable[[], T]) -> bool:
        """Calls ``make`` when the next of the stream is one to keep; says whether it was."""
        if self._seen % self.stride == 0 and len(self.kept) == self.capacity:
            self.kept = self.kept[::2]
            self.stride *= 2
        wanted = self._seen % self.stride == 0
        if wanted:
            self.kept.append(make())
        self._seen += 1
        return wanted


class Picture(Generic[T]):
    """A map or a scan ``[*grid]`` of one step: built once, when asked to, and then kept small."""

    def __init__(self, build: Callable[[], Tensor], pack: Callable[[Tensor], T]) -> None:
        self._build: Callable[[], Tensor] | None = build
        self._pack = pack
        self._packed: T | None = None

    @property
    def built(self) -> bool:
        return self._build is None

    def settle(self) -> T:
        """The packed picture; what it was built from is let go."""
        if self._packed is None:
            assert self._build is not None
            with torch.no_grad():
                self._packed = self._pack(self._build().detach())
            self._build = None
        return self._packed


@dataclass(frozen=True, eq=False)
class SmallMap:
    """A map in half precision: ``values`` in -1..1 times ``unit``, since gradients are too small for a float16."""

    values: NDArray[np.float16]
    unit: float

    @property
    def floats(self) -> Floats:
        found: Floats = self.values.astype(np.float32) * np.float32(self.unit)
        return found


@dataclass(frozen=True, eq=False)
class Perturbed:
    """A perturbed scan ``[*small]``, and whether it is off the distribution that the model knows."""

    grey: Bytes
    odd: bool


@dataclass
class Frame:
    """One step, as far as an animation needs it."""

    done: float
    evaluations: int
    score: float
    point: tuple[float, float] | None
    heatmap: Picture[SmallMap]
    perturbed: Picture[Perturbed]
    reaction: Picture[SmallMap] | None

    @classmethod
    def of(cls, step: Step, known: OutOfDistribution | None = None) -> Frame:
        def perturbed(pixels: Tensor) -> Perturbed:
            odd = known is not None and float(known.p_values(pixels[None])[0]) < LEVEL
            return Perturbed(packed_scan(pixels), odd)

        return cls(
            step.done,
            step.evaluations,
            step.score,
            step.point,
            Picture(step.heatmap, packed_map),
            Picture(step.perturbed, perturbed),
            None if step.reaction is None else Picture(step.reaction, packed_map),
        )


class Recorder:
    """Watches a run (``explain(..., on_step=recorder)``) and keeps what :func:`save_animation` needs.

    At most ``frames`` steps are kept, evenly spread over the run. Maps of kept steps are built on the way only as far
    as that costs no more than one per cent of the run; the others, and all perturbed scans, when the run is over: a
    removal that draws random numbers must not draw more of them because someone watches.

    With ``known``, frames say whether their perturbed scan is off the distribution that the model knows.

    Attributes:
        seconds: what the run has spent in here.
    """

    def __init__(self, frames: int = FRAMES, known: OutOfDistribution | None = None) -> None:
        if frames < 2:
            raise ParameterError(f"An animation needs at least 2 frames, not {frames}.")
        self.seconds = 0.0
        self._known = known
        # One place is for the last step, which is known only when no other follows.
        self._frames: Thinned[Frame] = Thinned(frames - 1)
        self._points: Thinned[tuple[float, tuple[float, float]]] = Thinned(POINTS)
        self._last: Step | None = None
        self._last_kept = True
        self._first: float | None = None
        # Seconds of the dearest picture so far, to begin with a guess: the first must not be a surprise.
        self._dearest = 0.01

    def __call__(self, step: Step) -> None:
        started = time.perf_counter()
        self._first = self._first or started
        self._last = step
        self._last_kept = self._frames.offer(lambda: Frame.of(step, self._known))
        point = step.point
        if point is not None:
            self._points.offer(lambda: (step.done, point))
        for picture in (p for f in self._frames.kept for p in (f.heatmap, f.reaction) if p is not None and not p.built):
            before = time.perf_counter()
            if self.seconds + self._dearest + before - started > SHARE * (before - self._first):
                break
            picture.settle()
            self._dearest = max(self._dearest, time.perf_counter() - before)
        self.seconds += time.perf_counter() - started

    @property
    def frames(self) -> list[Frame]:
        """The kept steps in order, the last one of the run at the end."""
        kept = list(self._frames.kept)
        if self._last is not None and not self._last_kept:
            kept.append(Frame.of(self._last, self._known))
        return kept

    @property
    def points(self) -> list[tuple[float, tuple[float, float]]]:
        """Share of the work done and place ``(x, y)`` in the third panel, of at most a thousand steps."""
        points = list(self._points.kept)
        if self._last is not None and self._last.point is not None and points[-1][0] != self._last.done:
            points.append((self._last.done, self._last.point))
        return points


def packed_map(heatmap: Tensor) -> SmallMap:
    """``[*grid]`` at reduced size."""
    reduced = _reduced(heatmap)
    unit = float(reduced.abs().max()) or 1.0
    return SmallMap((reduced / unit).half().numpy(), unit)


def packed_scan(pixels: Tensor) -> Bytes:
    """Display values ``[C, *grid]`` -> grey uint8 of reduced size, ``[*small]``."""
    grey: Bytes = (_reduced(pixels.mean(0)).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return grey


def _reduced(x: Tensor) -> Tensor:
    ratio = SIDE[x.ndim] / max(x.shape)
    x = x.float()
    if ratio < 1:
        x = F.interpolate(x[None, None], size=[max(1, round(n * ratio)) for n in x.shape], mode="area")[0, 0]
    return x.cpu()
