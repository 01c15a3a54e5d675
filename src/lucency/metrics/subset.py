"""The smallest part of a scan, taken in the order of a map, that keeps or kills the score.

Fong & Vedaldi, ICCV 2017, section 5.2, and Dabkowski & Gal, NeurIPS 2017: how little of the scan explains the answer.
A good map needs a small part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lucency.classifier import Classifier
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.metrics.judged import Judged, engine_of, question_about, values_of
from lucency.metrics.result import Better, Result
from lucency.removal import Blur, Removal
from lucency.scan import Scan
from lucency.work import Stage, Streamed


@dataclass(frozen=True, eq=False, repr=False)
class Subset(Result):
    """The smallest part that keeps or kills the score.

    Attributes:
        game: ``"keep"`` (the rest is removed) or ``"kill"`` (the part is removed).
        aim: the score that had to be reached.
        share: the smallest share of the grid that reached it; ``None`` when none did.
        mask: bool ``[*spatial]`` on the scan's grid, that part; all False when none reached it.
        shares, scores: float64 ``[K]``, every share that was tried, rising, and the score there.
    """

    definition: ClassVar[str] = (
        "The smallest share of the pixels, highest of the map first, that keeps (or kills) a fraction of the score "
        "(Fong & Vedaldi 2017; Dabkowski & Gal 2017)."
    )
    better: ClassVar[Better] = "lower"

    game: Literal["keep", "kill"]
    aim: float
    share: float | None
    mask: NDArray[np.bool_]
    shares: NDArray[np.float64]
    scores: NDArray[np.float64]


@Streamed
def smallest_subset(
    explanation: Judged,
    scan: Scan,
    engine: Engine | Classifier,
    *,
    target: str | int | None = None,
    watch: str | None = None,
    game: Literal["keep", "kill"] = "keep",
    fraction: float = 0.9,
    removal: Removal | None = None,
    points: int = 48,
) -> Iterator[Stage[Subset]]:
    """The smallest share of pixels, highest of the map first, that keeps or kills ``fraction`` of the score.

    The score is measured from its value with everything removed. Shares are tried on a geometric scale (small ones
    finely), then once more between the first that does it and the one before; a score that rises and falls again
    between two shares goes unseen. Gives a :class:`Subset`.

    Args:
        explanation, scan, engine, target, watch: as for :func:`lucency.metrics.evaluate`.
        fraction: 0.9 keeps (or kills) 90 % of the score.
        removal: what stands where pixels are gone; a blur of 10 pixels when ``None``.
        points: shares tried in each of the two rounds.

    Raises:
        ParameterError: for a fraction outside 0..1, or a map that does not fit the scan.
    """
    if not 0 < fraction <= 1 or points < 2:
        raise ParameterError(
            f"The fraction lies above 0 and up to 1 and there are 2 points or more, not {fraction}, {points}."
        )
    if game not in ("keep", "kill"):
        raise ParameterError(f"The game is keep or kill, not {game!r}.")
    engine = engine_of(engine, scan)
    worth = values_of(explanation, scan)
    probe = engine.open(scan, question_about([explanation], scan, engine, target, watch), removal or Blur(10.0))
    placement = engine.classifier.placement(scan)
    on_grid = placement.to_grid(worth[None])[0].flatten()
    rank = torch.empty_like(on_grid, dtype=torch.long)
    rank[on_grid.argsort(descending=True, stable=True)] = torch.arange(len(on_grid))
    total = len(on_grid)
    clean, nothing = float(probe.clean[0]), float(probe.scores(torch.zeros(1, *probe.grid))[0, 0])
    aim = nothing + (fraction if game == "keep" else 1 - fraction) * (clean - nothing)
    rising = (clean >= nothing) == (game == "keep")

    def reached(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
        return scores >= aim if rising else scores <= aim

    def found(counts: NDArray[np.int64], scores: NDArray[np.float64]) -> Subset:
        order = counts.argsort()
        counts, scores = counts[order], scores[order]
        hit = reached(scores)
        count = int(counts[hit.argmax()]) if hit.any() else 0
        mask = placement.to_scan((rank < count).float().view(probe.grid)) > 0.5
        return Subset(game, aim, count / total if count else None, mask.numpy(), counts / total, scores)

    tried, scores = np.empty(0, np.int64), np.empty(0)
    counts = np.unique(np.geomspace(1, total, points).round().astype(np.int64))
    for second in (False, True):
        for n, part in enumerate(parts := np.array_split(counts, max(1, len(counts) // probe.batch_size)), 1):
            inside = rank[None] < torch.from_numpy(part)[:, None]
            masks = (inside if game == "keep" else ~inside).float().view(-1, *probe.grid)
            now = probe.scores(masks.to(probe.pixels.device))[:, 0].cpu().double().numpy()
            tried, scores = np.append(tried, part), np.append(scores, now)
            done = (second + n / len(parts)) / 2
            yield Stage(min(done, 0.99), f"{len(tried)} shares tried", partial(found, tried, scores))
        if second or not reached(scores).any():
            break
        first = int(reached(scores).argmax())
        below = counts[first - 1] if first else 0
        between = np.linspace(below, counts[first], points + 1).round().astype(np.int64)[1:]
        counts = np.setdiff1d(between, tried)
        if not len(counts):
            break
    yield Stage(1.0, f"{len(tried)} shares tried", partial(found, tried, scores))
