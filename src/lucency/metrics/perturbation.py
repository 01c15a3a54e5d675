"""Evaluation by perturbation: take the scan apart in the order of the map, and watch the score.

Samek, Binder, Montavon, Lapuschkin & Mueller, "Evaluating the Visualization of What a Deep Neural Network Has
Learned", IEEE TNNLS 2017: regions go one after another, most relevant first (MoRF), least relevant first (LeRF) or in
random order, and become uniform noise. With x_k the scan after k of L regions,

    AOPC = 1 / (L + 1) sum_{k=0..L} f(x_0) - f(x_k)                                             (equation 12)

Petsiuk, Das & Saenko (RISE), BMVC 2018: pixels are deleted from the scan, or inserted into a blurred one, most
relevant first; the area under the score over the share of pixels is the number.

Rong, Leemann, Borisov, Kasneci & Kasneci (ROAD), ICML 2022: pixels are removed most relevant first, and what stands
there is imputed from their neighbours, so that the shape of the mask itself says as little as can be. The authors watch
the accuracy over a data set at shares of 10 to 90 %; on one scan that is the score at those shares.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from lucency.attribution import model_record, scan_record
from lucency.classifier import Classifier
from lucency.engine import Engine, Probe
from lucency.errors import ParameterError
from lucency.explanation import describe
from lucency.metrics.judged import Judged, engine_of, name_of, question_about, values_of
from lucency.metrics.procedures import CURVES, USUAL, Procedure
from lucency.metrics.result import Result
from lucency.records import Cost, EvaluationProvenance, QuestionRecord, Record
from lucency.removal import Removal
from lucency.scan import Scan
from lucency.work import Meter, Stage, Streamed


@dataclass(frozen=True)
class Estimate(Record):
    """A mean over repeats and its 95 % interval (Student's t; without width where there was one repeat)."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Estimate:
        """From one value for each repeat."""
        mean, half = _interval(values[:, None])
        return cls(float(mean[0]), float(mean[0] - half[0]), float(mean[0] + half[0]))


@dataclass(frozen=True, eq=False, repr=False)
class Curve(Record):
    """What the score did while a scan was taken apart along one map.

    Attributes:
        map: name of the map; ``"random"`` for the order that no map gave.
        kind: the name of its :class:`~lucency.metrics.procedures.Procedure`, such as ``"MoRF"``.
        definition: what was done, in words.
        measure: the number that sums the curve up: ``"AOPC"`` or ``"AUC"``.
        better: ``"higher"`` or ``"lower"`` values of it speak for the map, or ``"neither"``.
        removal: name and parameters of what stood where pixels were gone.
        seeds: one for each repeat.
        shares: float64 ``[K]``, share of the grid removed (inserted), rising from 0; regions at the border may be
            smaller than others, so it is a mean over the repeats.
        scores: float64 ``[repeats, K]``.
        clean: the score of the untouched scan.
        evaluations: forward passes it took.
        ordered: a map gave the order.
    """

    map: str
    kind: str
    definition: str
    measure: str
    better: str
    removal: Mapping[str, Any]
    seeds: tuple[int, ...]
    shares: NDArray[np.float64]
    scores: NDArray[np.float64]
    clean: float
    evaluations: int
    ordered: bool = True

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean score over the repeats, ``[K]``."""
        return _interval(self.scores)[0]

    @property
    def band(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper end of the 95 % interval of the mean, ``[K]`` each."""
        mean, half = _interval(self.scores)
        return mean - half, mean + half

    @property
    def aopc(self) -> Estimate:
        """Mean fall of the score over all points of the curve, the untouched one among them."""
        return Estimate.of(aopc(self.scores, self.clean))

    @property
    def auc(self) -> Estimate:
        """Area under the score (trapezoid rule) over the share of the grid, divided by the share reached."""
        return Estimate.of(area_under(self.scores, self.shares))

    @property
    def aoc(self) -> Estimate:
        """Area between the clean score and the curve, likewise."""
        return Estimate.of(self.clean - area_under(self.scores, self.shares))

    @property
    def number(self) -> Estimate:
        """The one called :attr:`measure`."""
        return self.aopc if self.measure == "AOPC" else self.auc

    def __repr__(self) -> str:
        number = self.number
        half = number.high - number.value
        return f"Curve({self.map!r}, {self.kind}: {self.measure} {number.value:.3f} ± {half:.3f})"

    def as_dict(self) -> dict[str, Any]:
        """The fields, and what is computed from them, as plain JSON values."""
        low, high = self.band
        return super().as_dict() | {
            "repeats": len(self.seeds),
            **{name: getattr(self, name).as_dict() for name in ("aopc", "auc", "aoc")},
            **{name: array.tolist() for name, array in (("mean", self.mean), ("low", low), ("high", high))},
        }


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Result):
    """The curves of one or several maps of one scan.

    Attributes:
        curves: one for each map and kind, and one for the random order; those so far where the work was stopped.
        question: what was watched.
        clean: its value on the untouched scan.
        provenance: hashes of scan and model, device, seconds, evaluations.
    """

    definition: ClassVar[str] = "Perturbation curves; each says what was done, and which values speak for the map."

    curves: tuple[Curve, ...]
    question: QuestionRecord
    clean: float
    provenance: EvaluationProvenance

    @property
    def maps(self) -> tuple[str, ...]:
        """The names of the maps, in the order given."""
        return tuple(dict.fromkeys(c.map for c in self.curves if c.ordered))

    def curve(self, name: str, kind: str) -> Curve:
        """The curve of that map and kind.

        Raises:
            ParameterError: when it was not asked for.
        """
        for curve in self.curves:
            if curve.kind == kind and (curve.map == name or not curve.ordered):
                return curve
        raise ParameterError(f"There is no {kind} curve of {name!r} here; ask evaluate() for it.")

    def table(self) -> list[dict[str, Any]]:
        """One row for each map (and the random order): each curve's number by kind, as :class:`Estimate`."""
        rows: dict[str, dict[str, Any]] = {}
        for curve in self.curves:
            rows.setdefault(curve.map, {"map": curve.map})[curve.kind] = curve.number
        return list(rows.values())

    def __repr__(self) -> str:
        return f"Evaluation({self.question.label} {self.clean:.3f}; {', '.join(map(repr, self.curves))})"


@Streamed
def evaluate(
    explanation: Judged | Mapping[str, Judged],
    scan: Scan,
    engine: Engine | Classifier,
    *,
    target: str | int | None = None,
    watch: str | None = None,
    curves: Sequence[str | Procedure] = USUAL,
    region: int = 9,
    regions: int = 100,
    points: int = 224,
    removal: Removal | None = None,
    repeats: int = 5,
) -> Iterator[Stage[Evaluation]]:
    """Whether the score falls where a map says that it should: an :class:`Evaluation`.

    A curve is run once for each repeat, with a seed of its own for the removal, for the random order and for ties
    between equal regions; once in all where none of these plays a part.

    Args:
        explanation: an explanation or a map ``[*spatial]`` on the scan's grid, or several by name.
        scan: what they explain.
        engine: runs the classifier, and decides the first seed; a classifier gets an engine of its own.
        target, watch: the question; that of the explanations when ``None`` (and the most probable class, its
            probability, where there are none).
        curves: which of ``MoRF``, ``LeRF``, ``random``, ``deletion``, ``insertion``, and ``ROAD``, which is slow; or
            procedures with their own parameters, such as ``MoRF(region=18)``.
        region, regions, points: parameters of the curves that are given by name.
        removal: what stands where pixels are gone; ``None`` takes that of the paper for each curve (uniform noise;
            the mean of the scan for deletion; a blur of 5 pixels for insertion; noisy linear imputation for ROAD).

    Raises:
        ParameterError: when a map does not fit the scan, or a parameter makes no sense.
    """
    started, meter = time.perf_counter(), Meter()
    engine = engine_of(engine, scan)
    classifier = engine.classifier
    procedures = [Procedure.of(c, region=region, regions=regions, points=points) for c in curves]
    if removal is not None:
        procedures = [dataclasses.replace(procedure, removal=removal) for procedure in procedures]
    if not procedures:
        raise ParameterError(f"No curve is named; use some of {', '.join(CURVES)}.")
    if repeats < 1:
        raise ParameterError(f"repeats must be at least 1, not {repeats}.")
    named = dict(explanation) if isinstance(explanation, Mapping) else {name_of(explanation): explanation}
    if not named:
        raise ParameterError("There is no map to evaluate.")
    placement = classifier.placement(scan)
    values = {name: placement.to_grid(values_of(m, scan, name)[None])[0] for name, m in named.items()}
    with meter:
        question = question_about(named.values(), scan, engine, target, watch)
        clean = float(engine.open(scan, question).clean[0])
    jobs = [(name, procedure) for name in values for procedure in procedures if procedure.ordered]
    jobs += [(procedure.name, procedure) for procedure in procedures if not procedure.ordered]

    def so_far(found: tuple[Curve, ...], spent: int, seconds: float) -> Evaluation:
        return Evaluation(
            curves=found,
            question=QuestionRecord(question.target, question.name, question.watch, question.label, clean),
            clean=clean,
            provenance=EvaluationProvenance(
                scan=scan_record(scan),
                model=model_record(classifier, placement),
                device=str(engine.device),
                cost=Cost(spent, 0, seconds),
            ),
        )

    done: list[Curve] = []
    for number, (name, procedure) in enumerate(jobs):
        how = procedure.removal
        pieces = procedure.pieces(placement.grid)
        worth = procedure.worth(sums(values[name] if procedure.ordered else torch.zeros(placement.grid), pieces))
        ties = not procedure.ordered or len(torch.unique(worth)) < len(worth)
        seeds = tuple(engine.seed + r for r in range(repeats if ties or not how.deterministic else 1))
        counts = procedure.counts(len(worth))
        size = torch.bincount(pieces.flatten()).double()
        scores: list[NDArray[np.float64]] = []
        shares: list[NDArray[np.float64]] = []
        before = meter.evaluations
        for repeat, one in enumerate(seeds):
            again = engine.seeded(one)
            with meter:
                probe = again.open(scan, question, how)
            rank = ranks(worth, again.generator())
            asked: list[NDArray[np.float64]] = []
            for batch in torch.split(counts, probe.batch_size):
                with meter:
                    asked.append(_without(probe, rank[pieces], batch, insert=procedure.inserts))
                if len(asked) * probe.batch_size >= len(counts):
                    scores.append(np.concatenate(asked))
                    shares.append(_shares(rank, size, counts))
                    curve = Curve(
                        map=name,
                        kind=procedure.name,
                        definition=procedure.definition(len(worth), len(counts) - 1),
                        measure=procedure.measure,
                        better=procedure.better,
                        removal={"name": how.name, **describe(how)},
                        seeds=seeds[: len(scores)],
                        shares=np.mean(shares, axis=0),
                        scores=np.stack(scores),
                        clean=clean,
                        evaluations=meter.evaluations - before,
                        ordered=procedure.ordered,
                    )
                    done[number:] = [curve]
                part = (repeat + min(1.0, len(asked) * probe.batch_size / len(counts))) / len(seeds)
                known = partial(so_far, tuple(done), meter.evaluations, time.perf_counter() - started)
                yield Stage((number + part) / len(jobs), f"{name}, {procedure.name}", known)


def sums(heatmap: Tensor, pieces: Tensor) -> Tensor:
    """Sum of a map over each piece, float64 ``[P]``."""
    out = torch.zeros(int(pieces.max()) + 1, dtype=torch.float64)
    return out.index_add_(0, pieces.flatten(), heatmap.flatten().double())


def ranks(worth: Tensor, generator: torch.Generator) -> Tensor:
    """The place of each piece, int64 ``[P]``: 0 for the highest ``worth`` ``[P]``; equal ones in random order."""
    mixed = torch.randperm(len(worth), generator=generator)
    order = mixed[torch.sort(worth[mixed], descending=True, stable=True).indices]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    return place


def aopc(scores: NDArray[np.float64], clean: float) -> NDArray[np.float64]:
    """Equation 12 for each row of ``scores`` ``[R, L + 1]``, whose first column is the untouched scan: ``[R]``."""
    return np.asarray((clean - scores).mean(1))


def area_under(scores: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Trapezoid area under each row of ``scores`` ``[R, K]`` over ``shares`` ``[K]``, over their span: ``[R]``."""
    widths = np.diff(shares)
    return np.asarray(((scores[:, 1:] + scores[:, :-1]) / 2 * widths).sum(1) / widths.sum())


def _without(probe: Probe, rank: Tensor, counts: Tensor, *, insert: bool) -> NDArray[np.float64]:
    """The score without (or with nothing but) the first ``counts`` ``[B]`` pieces by ``rank`` ``[*grid]``: ``[B]``."""
    gone = rank < counts.view(-1, *[1] * rank.ndim)
    return probe.scores((gone if insert else ~gone).float())[:, 0].double().cpu().numpy()


def _shares(rank: Tensor, size: Tensor, counts: Tensor) -> NDArray[np.float64]:
    """Share of the grid in the first pieces by ``rank`` ``[P]`` for pieces of ``size`` pixels ``[P]``."""
    gone = torch.zeros(len(rank) + 1, dtype=torch.float64)
    gone[rank + 1] = size
    return (gone.cumsum(0) / size.sum())[counts].numpy()


def _interval(scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and half the width of its 95 % interval over the first axis."""
    n = len(scores)
    mean = np.asarray(scores.mean(0))
    if n == 1:
        return mean, np.zeros_like(mean)
    return mean, np.asarray(stats.t.ppf(0.975, n - 1) * scores.std(0, ddof=1) / np.sqrt(n))
