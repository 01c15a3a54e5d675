"""What methods that draw samples share: batches that grow, and the mean of gradient maps over random scans."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lucency.engine import Probe
from lucency.errors import ParameterError
from lucency.methods.base import Step

Draw = Callable[[], tuple[Tensor, Tensor | float]]
"""One random scan ``[C, *grid]``, and what its gradient is multiplied by before it is summed over channels."""


def growing(n: int, first: int, most: int) -> Iterator[Tensor]:
    """0..n-1, int64, in batches that double from ``first`` to ``most``: a first map soon, however slow the network."""
    at, size = 0, min(first, most)
    while at < n:
        yield torch.arange(at, min(at + size, n))
        at, size = at + size, min(2 * size, most)


def average(probe: Probe, draw: Draw, samples: int) -> Iterator[Step]:
    """The mean map of ``samples`` random scans with its standard error, one scan a step.

    Raises:
        ParameterError: for fewer than two samples, which have no standard error.
        QuestionError: when the classifier is a black box.
    """
    if samples < 2:
        raise ParameterError(f"A mean with a standard error needs at least 2 samples, not {samples}.")
    mean = torch.zeros(probe.grid, device=probe.pixels.device)
    squares = torch.zeros_like(mean)
    n = 0
    for which in growing(samples, 1, probe.batch_size):
        drawn = [draw() for _ in which]
        scores, gradients = probe.gradient(torch.stack([scan for scan, _ in drawn]))
        for (scan, factor), score, gradient in zip(drawn, scores.tolist(), gradients, strict=True):
            n += 1
            sample = (gradient * factor).sum(0)
            # Welford: one pass, and no difference of large numbers.
            away = sample - mean
            mean = mean + away / n
            squares = squares + away * (sample - mean)
            yield _step(probe, n, samples, score, scan, sample, mean, squares)


def _step(
    probe: Probe, n: int, samples: int, score: float, scan: Tensor, sample: Tensor, mean: Tensor, squares: Tensor
) -> Step:
    return Step(
        done=n / samples,
        score=score,
        heatmap=lambda: mean,
        standard_error=(lambda: (squares / (n - 1) / n).sqrt()) if n > 1 else None,
        perturbed=lambda: scan,
        reaction=lambda: sample,
        facts={"samples": n},
    )
