"""The artefact rate: how often removal itself makes a normal scan look abnormal.

"A sudden black patch in the middle of an X-ray is very well likely to be an abnormal case": then the score answers the
patch and not the patient. On scans that the model calls normal, nothing that is taken away can be evidence of disease,
so each perturbed copy that it calls abnormal is an artefact of the removal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.masks import Patches
from lucency.masks.superpixels import Slic, switched
from lucency.metrics.result import Better, Result
from lucency.removal import Removal
from lucency.scan import Scan
from lucency.work import Stage, Streamed

Cut = Callable[[Tensor, torch.Generator], tuple[Tensor, Tensor | None]]
"""Pixels ``[C, *grid]`` -> masks ``[B, *grid]`` (1 = kept) and, where they are known, boxes ``[B, axes, 2]``."""


@dataclass(frozen=True, eq=False, repr=False)
class Artefacts(Result):
    """What a removal did to scans that the model calls normal.

    Attributes:
        rates: float64 ``[S]``, for each such scan the share of its perturbed copies that are called abnormal.
        rises: float64 ``[S]``, mean rise of the probability over its copies.
        worst: float64 ``[S]``, highest probability among its copies.
        copies: perturbed copies in all.
        abnormal: how many of the given scans the model calls abnormal as they are; they are left out.
        threshold: the probability from which on a scan is called abnormal.
    """

    definition: ClassVar[str] = "The share of perturbed copies of scans called normal that the model calls abnormal."
    better: ClassVar[Better] = "lower"

    rates: NDArray[np.float64]
    rises: NDArray[np.float64]
    worst: NDArray[np.float64]
    copies: int
    abnormal: int
    threshold: float

    @property
    def rate(self) -> float:
        """Mean share over the scans, 0..1."""
        return float(self.rates.mean())

    @property
    def rise(self) -> float:
        """Mean rise of the probability over the scans."""
        return float(self.rises.mean())


def patches(side: int) -> Cut:
    """Every patch of ``side`` grid pixels of a tiling, one at a time (occlusion)."""

    def pieces(pixels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        grid = tuple(pixels.shape[1:])
        sides = tuple(min(side, n) for n in grid)
        found = Patches(grid, sides, sides)
        every = torch.arange(len(found))
        return found.masks(every), found.boxes

    return pieces


def halves(copies: int = 64, count: int = 50) -> Cut:
    """Each of ``count`` superpixels on or off by the toss of a coin (LIME)."""

    def pieces(pixels: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
        labels = Slic(count).labels(pixels)
        on = torch.rand(copies, int(labels.max()) + 1, generator=generator) < 0.5
        return switched(labels, on), None

    return pieces


@Streamed
def artefacts(
    removal: Removal,
    scans: Sequence[Scan],
    engine: Engine,
    *,
    pieces: Cut,
    target: str | int,
    threshold: float = 0.5,
) -> Iterator[Stage[Artefacts]]:
    """Perturbs every scan that the model calls normal and counts the copies that it calls abnormal: :class:`Artefacts`.

    Args:
        removal: what is judged.
        scans: scans without the finding, from data that the model was not trained on.
        engine: runs the classifier.
        pieces: what is removed: :func:`patches` of a size, or :func:`halves`.
        target: the class that would be the abnormal one.
        threshold: the probability from which on the model's answer is "abnormal".

    Raises:
        ParameterError: when the model calls none of the scans normal, or the threshold is not a probability.
    """
    if not 0 < threshold < 1:
        raise ParameterError(f"The threshold is a probability between 0 and 1, not {threshold}.")
    found = _Found()
    for number, scan in enumerate(scans, 1):
        probe = engine.open(scan, engine.question(scan, target), removal)
        clean = float(probe.clean[0])
        if clean >= threshold:
            found = replace(found, abnormal=found.abnormal + 1)
        else:
            found = found.and_these(probe.scores(*pieces(probe.pixels, engine.generator()))[:, 0], clean, threshold)
        yield Stage(number / len(scans), f"scan {number} of {len(scans)}", partial(found.result, threshold))


@dataclass(frozen=True)
class _Found:
    rates: tuple[float, ...] = ()
    rises: tuple[float, ...] = ()
    worst: tuple[float, ...] = ()
    copies: int = 0
    abnormal: int = 0

    def and_these(self, scores: Tensor, clean: float, threshold: float) -> _Found:
        now = scores.double().cpu().numpy()
        return _Found(
            (*self.rates, float((now >= threshold).mean())),
            (*self.rises, float((now - clean).mean())),
            (*self.worst, float(now.max())),
            self.copies + len(now),
            self.abnormal,
        )

    def result(self, threshold: float) -> Artefacts:
        if not self.rates:
            raise ParameterError(
                f"The model calls none of these {self.abnormal} scans normal, so there is no artefact to count; "
                "give scans without the finding."
            )
        rates, rises, worst = (np.array(one) for one in (self.rates, self.rises, self.worst))
        return Artefacts(rates, rises, worst, self.copies, self.abnormal, threshold)
