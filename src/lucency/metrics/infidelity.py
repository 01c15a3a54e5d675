"""Does a map say what the score does?

Yeh, Hsieh, Suggala, Inouye & Ravikumar, "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lucency.classifier import Question
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.removal import Constant, Removal
from lucency.scan import Scan


@dataclass(frozen=True)
class Infidelity:
    """How far a map is from predicting what removals do; both numbers are better when lower.

    Attributes:
        value: ``E[(I . map - (f(x) - f(x - I)))^2]`` (definition 2.1).
        scaled: the same for the map times the factor that suits it best (their section 2.3), over the mean square of
            the reaction: 0 for a map that predicts every reaction, 1 for one that knows nothing; NaN where the score
            reacts to nothing. Maps that are no attributions in units of the score are to be compared by this one.
    """

    value: float
    scaled: float


def infidelity(
    scan: Scan,
    question: Question,
    engine: Engine,
    heatmap: ArrayLike,
    *,
    removal: Removal | None = None,
    side: int = 32,
    samples: int = 200,
) -> Infidelity:
    """Infidelity under the removal of random squares (their section 4.2).

    Args:
        heatmap: map ``[*spatial]`` on the scan's grid; of a scan with several channels, the attribution of all of them.
        removal: what stands where a square was removed, so that I is what it takes away; black when ``None``.
        side: grid pixels along each side of a square.
        samples: how many squares.

    Raises:
        ParameterError: when the map does not fit the scan or the square is not above 0.
    """
    if side < 1 or samples < 1:
        raise ParameterError(f"The square and the samples must be at least 1, not {side} and {samples}.")
    values = _fitting(heatmap, scan)
    probe = engine.open(scan, question, removal or Constant())
    attribution = engine.classifier.frame(scan).to_grid(values[None])[0].to(probe.pixels.device)
    generator = engine.generator()
    masks = torch.ones(samples, *probe.grid)
    boxes = torch.zeros(samples, len(probe.grid), 2, dtype=torch.int64)
    for i in range(samples):
        for axis, n in enumerate(probe.grid):
            start = int(torch.randint(0, max(1, n - side + 1), (1,), generator=generator))
            boxes[i, axis] = torch.tensor([start, min(n, start + side)])
        masks[i][tuple(slice(int(a), int(b)) for a, b in boxes[i])] = 0
    said = torch.cat([
        ((probe.pixels - probe.removed(part)).sum(1) * attribution).flatten(1).sum(1)
        for part in torch.split(masks, probe.batch_size)
    ])  # fmt: skip
    done = probe.clean[0] - probe.scores(masks, boxes)[:, 0]
    return infidelity_of(said.double().cpu().numpy(), done.double().cpu().numpy())


def infidelity_of(said: NDArray[np.float64], done: NDArray[np.float64]) -> Infidelity:
    """From what the map says of each perturbation and what the score did, ``[N]`` each."""
    power, reaction = float((said**2).mean()), float((done**2).mean())
    factor = float((said * done).mean()) / power if power > 0 else 0.0
    best = float(((factor * said - done) ** 2).mean())
    return Infidelity(float(((said - done) ** 2).mean()), best / reaction if reaction > 0 else float("nan"))


def _fitting(heatmap: ArrayLike, scan: Scan) -> Tensor:
    values = torch.from_numpy(np.array(heatmap, dtype=np.float32))
    if tuple(values.shape) != scan.shape:
        raise ParameterError(
            f"The map has shape {list(values.shape)} and the scan {list(scan.shape)}; they must agree."
        )
    return values
