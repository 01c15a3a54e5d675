"""The smallest part of a scan, taken in the order of a map, that keeps or kills the score.

Fong & Vedaldi, ICCV 2017, section 5.2, and Dabkowski & Gal, NeurIPS 2017: how little of the scan explains the answer.
A good map needs a small part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lucency.classifier import Question
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.removal import Blur, Removal
from lucency.scan import Scan


@dataclass(frozen=True, eq=False)
class Subset:
    """What was found.

    Attributes:
        game: ``"keep"`` (the rest is removed) or ``"kill"`` (the part is removed).
        aim: the score that had to be reached.
        share: the smallest share of the grid that reached it; ``None`` when none did.
        mask: bool ``[*spatial]`` on the scan's grid, that part; all False when none reached it.
        shares, scores: float64 ``[K]``, every share that was tried, rising, and the score there.
    """

    game: Literal["keep", "kill"]
    aim: float
    share: float | None
    mask: NDArray[np.bool_]
    shares: NDArray[np.float64]
    scores: NDArray[np.float64]


def smallest_subset(
    scan: Scan,
    question: Question,
    engine: Engine,
    heatmap: ArrayLike,
    *,
    game: Literal["keep", "kill"] = "keep",
    fraction: float = 0.9,
    removal: Removal | None = None,
    points: int = 48,
) -> Subset:
    """The smallest share of pixels, highest of the map first, that keeps or kills ``fraction`` of the score.

    The score is measured from its value with everything removed. Shares are tried on a geometric scale (small ones
    finely) in one batch, then once more between the first that does it and the one before; a score that rises and
    falls again between two shares goes unseen.

    Args:
        heatmap: map ``[*spatial]`` on the scan's grid.
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
    worth = torch.as_tensor(np.asarray(heatmap, np.float32))
    if tuple(worth.shape) != scan.shape:
        raise ParameterError(f"The map has shape {list(worth.shape)} and the scan {list(scan.shape)}; they must agree.")
    probe = engine.open(scan, question, removal or Blur(10.0))
    frame = engine.classifier.frame(scan)
    on_grid = frame.to_grid(worth[None])[0].flatten()
    rank = torch.empty_like(on_grid, dtype=torch.long)
    rank[on_grid.argsort(descending=True, stable=True)] = torch.arange(len(on_grid))

    def scores_at(counts: NDArray[np.int64]) -> NDArray[np.float64]:
        found = []
        for part in np.array_split(counts, max(1, len(counts) // probe.batch_size)):
            inside = rank[None] < torch.from_numpy(part)[:, None]
            masks = (inside if game == "keep" else ~inside).float().view(-1, *probe.grid)
            found.append(probe.scores(masks.to(probe.pixels.device))[:, 0].cpu().double().numpy())
        return np.concatenate(found)

    total = len(on_grid)
    clean, nothing = float(probe.clean[0]), float(probe.scores(torch.zeros(1, *probe.grid))[0, 0])
    aim = nothing + (fraction if game == "keep" else 1 - fraction) * (clean - nothing)
    rising = (clean >= nothing) == (game == "keep")

    def reached(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
        return scores >= aim if rising else scores <= aim

    counts = np.unique(np.geomspace(1, total, points).round().astype(np.int64))
    scores = scores_at(counts)
    if reached(scores).any():
        first = int(reached(scores).argmax())
        below = counts[first - 1] if first else 0
        between = np.setdiff1d(np.linspace(below, counts[first], points + 1).round().astype(np.int64)[1:], counts)
        if len(between):
            counts, scores = np.append(counts, between), np.append(scores, scores_at(between))
    order = counts.argsort()
    counts, scores = counts[order], scores[order]
    hit = reached(scores)
    count = int(counts[hit.argmax()]) if hit.any() else 0
    mask = frame.to_scan((rank < count).float().view(probe.grid)) > 0.5
    return Subset(game, aim, count / total if count else None, mask.numpy(), counts / total, scores)
