"""Error bars from slightly moved copies of the scan, for methods that have no standard error of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch

from lucency.attribution import Attribution
from lucency.engine import Engine
from lucency.explanation import Explanation, Map
from lucency.methods import Method
from lucency.records import Cost, ErrorBars
from lucency.scan import Scan
from lucency.work import Stage, Streamed

SHIFT = 0.02
"""Of the side of a scan: how far its copies are moved at most. No diagnosis depends on so little."""


@Streamed
def with_error_bars(
    explanation: Explanation, scan: Scan, engine: Engine, *, method: Method, copies: int
) -> Iterator[Stage[Explanation]]:
    """The explanation with a standard error from ``copies`` moved copies of the scan, each explained with a new seed.

    Each copy costs as much as the map, and has as much time. An explanation whose method knows its own standard error
    stays as it is; where the work is stopped, the copies that are done count.

    Raises:
        LucencyError: as the method does.
    """
    if explanation.standard_error is not None or copies < 1:
        yield Stage(1.0, "error bars", lambda: explanation)
        return
    about = explanation.provenance
    found = _Copies(explanation)
    for number, (copy, offset) in enumerate(shifted(scan, copies, seed=engine.seed), 1):
        run = Attribution(
            copy,
            engine.seeded(engine.seed + number),
            method,
            target=about.question.target,
            watch=about.question.watch,
            budget=about.budget,
        )
        doing = f"error bars, copy {number} of {copies}"
        with closing(run):
            for step in run:
                yield Stage((number - 1 + min(step.done, 0.99)) / copies, doing, partial(found.result))
        found = found.and_this(run.explanation, offset)
        yield Stage(number / copies, doing, partial(found.result))


@dataclass(frozen=True, eq=False)
class _Copies:
    """The map and those of its copies, moved back, with the peaks of these and what they took."""

    explanation: Explanation
    maps: tuple[Map, ...] = ()
    peaks: tuple[tuple[int, ...] | None, ...] = ()
    spent: Cost = field(default_factory=Cost)

    def and_this(self, again: Explanation, offset: Sequence[int]) -> _Copies:
        heatmap = moved(torch.from_numpy(again.heatmap)[None], [-o for o in offset])[0].numpy()
        peak = replace(again, heatmap=heatmap).peak
        spent = self.spent + again.provenance.cost
        return _Copies(self.explanation, (*self.maps, heatmap), (*self.peaks, peak), spent)

    def result(self) -> Explanation:
        error, apart = None, None
        if self.maps:
            error = np.std([self.explanation.heatmap, *self.maps], axis=0, ddof=1, dtype=np.float32)
            first = self.explanation.peak
            apart = tuple(
                tuple(a - b for a, b in zip(peak, first, strict=True))
                for peak in self.peaks
                if peak is not None and first is not None
            )
        bars = ErrorBars("copies", len(self.maps), self.spent, apart)
        provenance = replace(self.explanation.provenance, error_bars=bars)
        return replace(self.explanation, standard_error=error, provenance=provenance)


def shifted(scan: Scan, copies: int, *, seed: int = 0) -> Iterator[tuple[Scan, list[int]]]:
    """Copies of a scan moved by up to :data:`SHIFT` of each side, with the pixels moved along each axis.

    What moves in at an edge repeats the edge. A shift along no axis at all is not drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    most = [max(1, round(SHIFT * n)) if n > 1 else 0 for n in scan.shape]
    for _ in range(copies):
        offset = [0] * len(most)
        while not any(offset):
            offset = [int(torch.randint(-m, m + 1, (1,), generator=generator)) for m in most]
        yield replace(scan, pixels=moved(scan.pixels, offset)), offset


def moved(pixels: torch.Tensor, offset: Sequence[int]) -> torch.Tensor:
    """``[C, *spatial]`` moved by whole pixels along each spatial axis, the edges repeated."""
    for axis, by in enumerate(offset, 1):
        at = (torch.arange(pixels.shape[axis]) - by).clamp(0, pixels.shape[axis] - 1)
        pixels = pixels.index_select(axis, at)
    return pixels.contiguous()
