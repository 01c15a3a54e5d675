"""The counterfactual gold standard: what a region truly means to this model, because the healthy twin is known.

Of a simulated patient there is a twin: the same scan without the finding. Exchange a region with the twin's, and the
fall of the score is the true effect of the finding in that region on this very model:

    true effect of region r = f(x) - f(x with r taken from the twin)

Every removal tries to come close to that without a twin. How close is measured on many random regions, and on maps:
:class:`Twin` is a removal like any other, so that every method can be run with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import Tensor

from lucency.classifier import Classifier, Question
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.masks.superpixels import Slic, Superpixels
from lucency.metrics.judged import engine_of
from lucency.metrics.result import Better, Result
from lucency.records import Record
from lucency.removal import Fill, Removal
from lucency.scan import Scan
from lucency.work import Stage, Streamed

RESOLUTION = 1e-4
"""Differences between scores below this are arithmetic, not evidence: they would give ties an order."""


@dataclass(frozen=True, eq=False)
class Twin(Removal):
    """Removed = what the same patient shows there without the finding.

    Attributes:
        image: float32 ``[C, *grid]``, the twin's display values on the model's grid (``classifier.prepare(twin)``).
    """

    name: ClassVar[str] = "twin"
    deterministic: ClassVar[bool] = True
    image: Tensor = field(repr=False)

    def bind(self, pixels: Tensor, generator: torch.Generator) -> Fill:
        if self.image.shape != pixels.shape:
            raise ParameterError(
                f"A twin of shape {list(self.image.shape)} does not fit a scan of {list(pixels.shape)} on the model's "
                "grid; prepare both with the same classifier."
            )
        fill = self.image.to(pixels)[None]
        return lambda masks: fill


@dataclass(frozen=True)
class Agreement(Record):
    """How well the effects that a removal finds agree with the true ones.

    Attributes:
        pearson, spearman: correlation over the regions; 0 where a removal finds the same effect everywhere.
        error: root of the mean squared difference, in units of the score.
        slope: least-squares slope through zero of the found effects on the true ones; 1 where none is lost or added.
        regions: how many regions.
    """

    pearson: float
    spearman: float
    error: float
    slope: float
    regions: int


@dataclass(frozen=True, eq=False, repr=False)
class GoldStandard(Result):
    """How close removals come to the true effects of the same random regions.

    Attributes:
        agreements: of each removal, by its name.
        true: float64 ``[N]``, the true effects.
        found: float64 ``[N]``, the effects that each removal finds.
    """

    definition: ClassVar[str] = (
        "Correlation, error and slope of the fall of the score that a removal finds in random regions, against the "
        "fall when the region is exchanged with that of the healthy twin."
    )
    better: ClassVar[Better] = "higher"

    agreements: Mapping[str, Agreement]
    true: NDArray[np.float64]
    found: Mapping[str, NDArray[np.float64]]


def random_regions(
    pixels: Tensor,
    count: int,
    generator: torch.Generator,
    *,
    superpixels: Superpixels | None = None,
    smallest: float = 0.04,
    largest: float = 0.4,
) -> Tensor:
    """Bool ``[count, *grid]``, True inside: boxes, and unions of neighbouring superpixels, by turns.

    Args:
        pixels: float32 ``[C, *grid]``, display values.
        superpixels: what the unions are made of; 60 of SLIC's when ``None``.
        smallest, largest: edges of boxes as a share of each axis, even on a logarithmic scale; a union has as many
            superpixels as a box of such edges would hold.
    """
    grid = tuple(pixels.shape[1:])
    labels = (superpixels or Slic(60)).labels(pixels)
    pieces = int(labels.max()) + 1
    centres = torch.stack([_centre(labels, axis, pieces) for axis in range(len(grid))], 1)
    out = torch.zeros((count, *grid), dtype=torch.bool)
    for i in range(count):
        drawn = torch.rand(2 * len(grid) + 1, generator=generator).double()
        edges = smallest * (largest / smallest) ** drawn[: len(grid)]
        if i % 2 == 0:
            box: list[slice] = []
            for n, edge, at in zip(grid, edges, drawn[len(grid) :], strict=False):
                length = max(1, round(float(edge) * n))
                start = int(float(at) * (n - length + 1))
                box.append(slice(start, start + length))
            out[i][tuple(box)] = True
        else:
            first = int(float(drawn[-1]) * pieces)
            near = (centres - centres[first]).square().sum(1).argsort()
            chosen = near[: max(1, min(pieces - 1, round(float(edges.prod()) * pieces)))]
            out[i] = torch.isin(labels, chosen)
    return out


def effects(
    scan: Scan, question: Question, engine: Engine, removal: Removal, regions: Tensor, also: Sequence[Question] = ()
) -> NDArray[np.float64]:
    """The fall of the score when each of ``regions`` (bool ``[N, *grid]``) alone is removed, float64 ``[N, Q]``.

    One column for the question, and one for each of ``also``, from the same forward passes.
    """
    probe = engine.open(scan, question, removal, also)
    scores = probe.scores((~regions).to(torch.float32), _boxes(regions))
    return (probe.clean - scores).double().cpu().numpy()


def agreement(true: ArrayLike, found: ArrayLike) -> Agreement:
    """Compares effects ``[N]`` of the same regions, both rounded to :data:`RESOLUTION`.

    Raises:
        ParameterError: for fewer than 3 regions, or when no region has a true effect: nothing can agree with that.
    """
    t, f = (np.round(np.asarray(a, np.float64) / RESOLUTION) * RESOLUTION for a in (true, found))
    if t.shape != f.shape or t.ndim != 1 or len(t) < 3:
        raise ParameterError(f"Effects of shapes {list(t.shape)} and {list(f.shape)} cannot be compared.")
    if np.ptp(t) == 0:
        raise ParameterError("No region has a true effect, so no removal can agree with it; draw more regions.")
    flat = np.ptp(f) == 0
    return Agreement(
        pearson=0.0 if flat else float(stats.pearsonr(t, f).statistic),
        spearman=0.0 if flat else float(stats.spearmanr(t, f).statistic),
        error=float(np.sqrt(np.mean((t - f) ** 2))),
        slope=float(t @ f / (t @ t)),
        regions=len(t),
    )


@Streamed
def against_gold(
    removals: Mapping[str, Removal],
    scan: Scan,
    engine: Engine | Classifier,
    *,
    twin: Scan,
    target: str | int | None = None,
    watch: str = "probability",
    regions: int = 200,
) -> Iterator[Stage[GoldStandard]]:
    """How close each removal comes to the true effects of the same random regions, drawn by the engine's seed.

    Gives a :class:`GoldStandard`.

    Args:
        removals: what is judged, by name.
        scan, engine, target, watch: as for :func:`lucency.metrics.evaluate`.
        twin: the same scan without the finding.

    Raises:
        ParameterError: when the twin does not differ from the scan anywhere that the model reacts to.
    """
    engine = engine_of(engine, scan)
    question = engine.question(scan, target, watch)
    where = random_regions(engine.classifier.prepare(scan), regions, engine.generator())
    true = effects(scan, question, engine, Twin(engine.classifier.prepare(twin)), where)[:, 0]
    found: dict[str, NDArray[np.float64]] = {}
    for name, how in removals.items():
        found = {**found, name: effects(scan, question, engine, how, where)[:, 0]}
        agreements = {name: agreement(true, one) for name, one in found.items()}
        yield Stage(len(found) / len(removals), f"removal {name}", partial(GoldStandard, agreements, true, found))


def map_agreement(gold: ArrayLike, heatmap: ArrayLike) -> tuple[float, float]:
    """Pearson and Spearman correlation of two maps ``[*spatial]``; 0 where one of them is flat.

    Raises:
        ParameterError: when the shapes differ.
    """
    a, b = np.asarray(gold, np.float64).ravel(), np.asarray(heatmap, np.float64).ravel()
    if np.shape(gold) != np.shape(heatmap):
        raise ParameterError(f"Maps of shapes {list(np.shape(gold))} and {list(np.shape(heatmap))} cannot be compared.")
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0, 0.0
    return float(stats.pearsonr(a, b).statistic), float(stats.spearmanr(a, b).statistic)


def _centre(labels: Tensor, axis: int, pieces: int) -> Tensor:
    at = torch.arange(labels.shape[axis], dtype=torch.float64)
    at = at.view([-1 if a == axis else 1 for a in range(labels.ndim)]).expand(labels.shape)
    total = torch.zeros(pieces, dtype=torch.float64).index_add_(0, labels.flatten(), at.flatten())
    return total / torch.bincount(labels.flatten(), minlength=pieces)


def _boxes(regions: Tensor) -> Tensor:
    """int64 ``[N, axes, 2]``: the box around each region, for the engine."""
    spans = []
    for axis in range(1, regions.ndim):
        line = regions.movedim(axis, 1).flatten(2).any(2)
        first = line.int().argmax(1)
        last = line.shape[1] - line.flip(1).int().argmax(1)
        spans.append(torch.stack([first, last], 1))
    return torch.stack(spans, 1)
