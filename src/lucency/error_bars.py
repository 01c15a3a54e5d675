"""Error bars from slightly moved copies of the scan, for methods that have no standard error of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from lucency.attribution import attribute
from lucency.engine import Engine
from lucency.explanation import Explanation
from lucency.methods import Method
from lucency.records import Cost, ErrorBars
from lucency.scan import Scan

SHIFT = 0.02
"""Of the side of a scan: how far its copies are moved at most. No diagnosis depends on so little."""


def with_error_bars(
    explanation: Explanation,
    scan: Scan,
    engine: Engine,
    method: Method,
    copies: int,
    *,
    on_copy: Callable[[int], None] | None = None,
    cancel: threading.Event | None = None,
) -> Explanation:
    """The explanation with a standard error from ``copies`` moved copies of the scan, each explained with a new seed.

    Each copy costs as much as the map. An explanation whose method knows its own standard error stays as it is.

    Args:
        on_copy: called with the number of copies that are done.
        cancel: set it from anywhere to go on with the copies that are done.

    Raises:
        LucencyError: as the method does.
    """
    if explanation.standard_error is not None or copies < 1:
        return explanation
    started = time.perf_counter()
    about = explanation.provenance
    maps, peaks = [explanation.heatmap], [explanation.peak]
    spent = Cost()
    for copy, offset in shifted(scan, copies, seed=engine.seed):
        if cancel is not None and cancel.is_set():
            break
        again = attribute(
            copy,
            engine.seeded(engine.seed + len(maps)),
            method,
            target=about.question.target,
            watch=about.question.watch,
            budget=about.budget,
            cancel=cancel,
        )
        if cancel is not None and cancel.is_set():
            break
        heatmap = moved(torch.from_numpy(again.heatmap)[None], [-o for o in offset])[0].numpy()
        maps.append(heatmap)
        peaks.append(replace(again, heatmap=heatmap).peak)
        spent += again.provenance.cost
        if on_copy is not None:
            on_copy(len(maps) - 1)
    error, apart = None, None
    if len(maps) > 1:
        error = np.std(maps, axis=0, ddof=1, dtype=np.float32)
        first = peaks[0]
        apart = tuple(
            tuple(a - b for a, b in zip(peak, first, strict=True))
            for peak in peaks[1:]
            if peak is not None and first is not None
        )
    bars = ErrorBars("copies", len(maps) - 1, replace(spent, seconds=time.perf_counter() - started), apart)
    provenance = replace(about, error_bars=bars)
    return replace(explanation, standard_error=error, provenance=provenance)


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
