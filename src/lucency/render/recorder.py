"""What an animation remembers of a run: a bounded number of small frames, whatever the run is and however long."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator
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
from lucency.removal.surrogate import hatched
from lucency.viewer.palette import Bytes, Floats

T = TypeVar("T")

FRAMES = 60
POINTS = 1000
TELLING = 0.1
"""Share of the largest reaction from which on one is shown whatever its place in the run."""
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


class Trace:
    """A stream of scores of unknown length as at most ``2 * capacity`` points, none of its extremes lost."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.points: list[tuple[float, float]] = []
        self._stride = 1
        self._since = 0

    def add(self, number: int, score: float, clean: float) -> None:
        """The score of the trial ``number`` of the run, beside that of the clean scan."""

        def farther(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
            return a if abs(a[1] - clean) >= abs(b[1] - clean) else b

        new = (float(number), score)
        if self._since:
            self.points[-1] = farther(self.points[-1], new)
        else:
            self.points.append(new)
        self._since = (self._since + 1) % self._stride
        if len(self.points) == 2 * self.capacity and not self._since:
            self.points = [farther(*pair) for pair in zip(self.points[::2], self.points[1::2], strict=True)]
            self._stride *= 2


class Picture(Generic[T]):
    """A map or a scan ``[*grid]`` of one step: built once, when asked to, and then kept small."""

    def __init__(self, build: Callable[[], Tensor], pack: Callable[[Tensor], T]) -> None:
        self._build: Callable[[], Tensor] | None = build
        self._pack = pack
        self._packed: T | None = None

    @classmethod
    def ready(cls, packed: T) -> Picture[T]:
        """One that was built and packed elsewhere."""
        picture = cls(lambda: torch.empty(0), lambda _: packed)
        picture._build, picture._packed = None, packed
        return picture

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
    """One step, or one trial of a step, as far as an animation needs it.

    Attributes:
        also: the first of the further maps, with its name.
        number: its place in the run, from 0.
        telling: whether its reaction is among the largest of the run.
    """

    done: float
    evaluations: int
    score: float
    point: tuple[float, float] | None
    heatmap: Picture[SmallMap]
    perturbed: Picture[Perturbed]
    reaction: Picture[SmallMap] | None
    also: tuple[str, Picture[SmallMap]] | None
    number: int
    telling: bool = False

    @classmethod
    def of(cls, step: Step, number: int, known: OutOfDistribution | None = None) -> Frame:
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
            next(((name, Picture(make, packed_map)) for name, make in step.also.items()), None),
            number,
        )

    @property
    def unbuilt(self) -> Iterator[Picture[SmallMap]]:
        """The maps that are still to be built."""
        maps = (self.heatmap, self.reaction, None if self.also is None else self.also[1])
        return (m for m in maps if m is not None and not m.built)


class Recorder:
    """Watches a run (``explain(..., on_step=recorder)``) and keeps what :func:`save_animation` needs.

    At most ``frames`` moments are kept: those with the largest reactions, where a step tells the trials behind it
    (:class:`~lucency.methods.Trials`), and the rest evenly spread over the run. Maps of kept moments are built on the
    way only as far as that costs no more than one per cent of the run; the others, and all perturbed scans, when the
    run is over: a removal that draws random numbers must not draw more of them because someone watches.

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
        self._most = frames - 1
        self._even: Thinned[Frame] = Thinned(self._most)
        # The largest reactions so far, the smallest of them first; of equal ones the earlier counts more.
        self._largest: list[tuple[float, int, Frame]] = []
        self._points: Thinned[tuple[float, tuple[float, float]]] = Thinned(POINTS)
        self._trace = Trace(POINTS // 2)
        self._last: Step | None = None
        self._seen = 0
        self._first: float | None = None
        # Seconds of the dearest picture so far, to begin with a guess: the first must not be a surprise.
        self._dearest = 0.01

    def __call__(self, step: Step) -> None:
        started = time.perf_counter()
        self._first = self._first or started
        self._last = step
        if step.trials is None:
            number = self._next()
            self._even.offer(lambda: Frame.of(step, number, self._known))
        else:
            self._offer_trials(step)
        point = step.point
        if point is not None:
            self._points.offer(lambda: (step.done, point))
        kept = [*self._even.kept, *(frame for _, _, frame in self._largest)]
        for picture in (picture for frame in kept for picture in frame.unbuilt):
            before = time.perf_counter()
            if self.seconds + self._dearest + before - started > SHARE * (before - self._first):
                break
            picture.settle()
            self._dearest = max(self._dearest, time.perf_counter() - before)
        self.seconds += time.perf_counter() - started

    def _next(self) -> int:
        self._seen += 1
        return self._seen - 1

    def _offer_trials(self, step: Step) -> None:
        trials = step.trials
        assert trials is not None
        most = self._most // 2
        for i, score in enumerate(trials.scores):
            number, reaction = self._next(), abs(score - trials.clean)
            made: list[Frame] = []

            def make(i: int = i, number: int = number, made: list[Frame] = made) -> Frame:
                made.append(Frame.of(trials.show(i), number, self._known))
                return made[0]

            self._even.offer(make)
            if most and (len(self._largest) < most or reaction > self._largest[0][0]):
                entry = (reaction, -number, made[0] if made else make())
                (heapq.heappush if len(self._largest) < most else heapq.heappushpop)(self._largest, entry)
            self._trace.add(number + 1, score, trials.clean)

    @property
    def frames(self) -> list[Frame]:
        """The kept moments in order, the last one of the run at the end."""
        largest = max((reaction for reaction, _, _ in self._largest), default=0.0)
        telling = {-n: frame for reaction, n, frame in self._largest if reaction >= TELLING * largest > 0}
        for frame in telling.values():
            frame.telling = True
        rest = [frame for frame in self._even.kept if frame.number not in telling]
        room = self._most - len(telling)
        if len(rest) > room:
            rest = [rest[i] for i in np.linspace(0, len(rest) - 1, room).round().astype(int)]
        kept = sorted((*rest, *telling.values()), key=lambda frame: frame.number)
        if self._last is not None and kept[-1].number != self._seen - 1:
            last, trials = self._last, self._last.trials
            if trials is not None:
                last = trials.show(len(trials.scores) - 1)
            kept.append(Frame.of(last, self._seen - 1, self._known))
        return kept

    @property
    def scores(self) -> list[tuple[float, float]]:
        """Number (from 1) and score of at most a thousand trials, all extremes among them."""
        return self._trace.points

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
    grey: Bytes = (hatched(_reduced(pixels.mean(0))) * 255).round().to(torch.uint8).numpy()
    return grey


def _reduced(x: Tensor) -> Tensor:
    ratio = SIDE[x.ndim] / max(x.shape)
    x = x.float()
    if ratio < 1:
        x = F.interpolate(x[None, None], size=[max(1, round(n * ratio)) for n in x.shape], mode="area")[0, 0]
    return x.cpu()
