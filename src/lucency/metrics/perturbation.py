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

import copy
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from torch import Tensor

from lucency.attribution import fitting
from lucency.classifier import Classifier, Question
from lucency.engine import Engine, Probe
from lucency.errors import ParameterError
from lucency.explanation import Explanation, describe
from lucency.privacy import shown_source
from lucency.removal import Blur, Mean, NoisyLinear, Removal, Uniform
from lucency.scan import Scan

Kind = Literal["MoRF", "LeRF", "random", "deletion", "insertion", "ROAD"]
USUAL: tuple[Kind, ...] = ("MoRF", "LeRF", "random", "deletion", "insertion")
CURVES: tuple[Kind, ...] = (*USUAL, "ROAD")
ROAD_SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

_WORDS = {
    "MoRF": ("most relevant first by the sum of the map over the region", "AOPC", "higher"),
    "LeRF": ("least relevant first by the sum of the map over the region", "AOPC", "lower"),
    "random": ("in random order", "AOPC", "neither"),
    "deletion": ("Pixels are removed, those with the highest value of the map first", "AUC", "lower"),
    "insertion": ("Pixels are shown on a scan that is all removed, highest value of the map first", "AUC", "higher"),
    "ROAD": ("Pixels are removed and imputed from what is left, highest value of the map first", "AOPC", "higher"),
}


@dataclass(frozen=True)
class Estimate:
    """A mean over repeats and its 95 % interval (Student's t; without width where there was one repeat)."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Estimate:
        """From one value for each repeat."""
        mean, half = _interval(values[:, None])
        return cls(float(mean[0]), float(mean[0] - half[0]), float(mean[0] + half[0]))


@dataclass(frozen=True, eq=False)
class Curve:
    """What the score did while a scan was taken apart along one map.

    Attributes:
        map: name of the map; ``"random"`` for the order that no map gave.
        kind: ``"MoRF"``, ``"LeRF"``, ``"random"``, ``"deletion"`` or ``"insertion"``.
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
    """

    map: str
    kind: Kind
    definition: str
    measure: str
    better: str
    removal: Mapping[str, Any]
    seeds: tuple[int, ...]
    shares: NDArray[np.float64]
    scores: NDArray[np.float64]
    clean: float
    evaluations: int

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

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        low, high = self.band
        return {
            "map": self.map,
            "kind": self.kind,
            "definition": self.definition,
            "measure": self.measure,
            "better": self.better,
            "removal": dict(self.removal),
            "repeats": len(self.seeds),
            "seeds": list(self.seeds),
            "clean": self.clean,
            "evaluations": self.evaluations,
            **{name: dataclasses.asdict(getattr(self, name)) for name in ("aopc", "auc", "aoc")},
            **{name: array.tolist() for name, array in (("shares", self.shares), ("mean", self.mean))},
            "low": low.tolist(),
            "high": high.tolist(),
            "scores": self.scores.tolist(),
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The curves of one or several maps of one scan.

    Attributes:
        curves: one for each map and kind, and one for the random order.
        question: what was watched.
        clean: its value on the untouched scan.
        provenance: hashes of scan and model, device, seconds, evaluations.
    """

    curves: tuple[Curve, ...]
    question: Question
    clean: float
    provenance: Mapping[str, Any]

    @property
    def maps(self) -> tuple[str, ...]:
        """The names of the maps, in the order given."""
        return tuple(dict.fromkeys(c.map for c in self.curves if c.kind != "random"))

    def curve(self, name: str, kind: Kind) -> Curve:
        """The curve of that map and kind.

        Raises:
            ParameterError: when it was not asked for.
        """
        for curve in self.curves:
            if curve.kind == kind and (curve.map == name or kind == "random"):
                return curve
        raise ParameterError(f"There is no {kind} curve of {name!r} here; ask evaluate() for it.")

    def table(self) -> list[dict[str, Any]]:
        """One row for each map (and the random order): each curve's number by kind, as :class:`Estimate`."""
        rows: dict[str, dict[str, Any]] = {}
        for curve in self.curves:
            rows.setdefault(curve.map, {"map": curve.map})[curve.kind] = curve.number
        return list(rows.values())

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return {
            "question": dataclasses.asdict(self.question),
            "clean": self.clean,
            "provenance": dict(self.provenance),
            "curves": [curve.as_dict() for curve in self.curves],
        }


def evaluate(
    scan: Scan,
    classifier: Classifier,
    maps: Explanation | ArrayLike | Mapping[str, Explanation | ArrayLike],
    *,
    target: str | int | None = None,
    watch: str | None = None,
    curves: Sequence[Kind] = USUAL,
    region: int = 9,
    regions: int = 100,
    points: int = 224,
    removal: Removal | None = None,
    repeats: int = 5,
    device: str = "auto",
    seed: int = 0,
    engine: Engine | None = None,
    on_curve: Callable[[Curve, float], None] | None = None,
) -> Evaluation:
    """Whether the score falls where the maps say that it should.

    A curve is run once for each repeat, with a seed of its own for the removal, for the random order and for ties
    between equal regions; once in all where none of these plays a part.

    Args:
        maps: an explanation or a map ``[*spatial]`` on the scan's grid, or several by name.
        target, watch: the question; that of the explanations when ``None`` (and the most probable class, its
            probability, where there are none).
        curves: which of ``MoRF``, ``LeRF``, ``random``, ``deletion``, ``insertion``, and ``ROAD``, which is slow.
        region: pixels of the model's grid along each side of a region (MoRF, LeRF, random); 1 = single pixels.
        regions: how many regions are removed, L; all of them where there are fewer.
        points: in how many equal parts deletion and insertion go through all pixels.
        removal: what stands where pixels are gone; ``None`` takes that of the paper for each curve (uniform noise;
            the mean of the scan for deletion; a blur of 5 pixels for insertion; noisy linear imputation for ROAD).
        engine: an engine to use again; it then decides device and first seed.
        on_curve: called with each finished curve and the share of curves done.

    Raises:
        ParameterError: when a map does not fit the scan, or a parameter makes no sense.
    """
    started = time.perf_counter()
    fitting(scan, classifier)
    unknown = [c for c in curves if c not in CURVES]
    if unknown or not curves:
        raise ParameterError(f"There is no curve {', '.join(map(repr, unknown))}; use some of {', '.join(CURVES)}.")
    if min(region, regions, points, repeats) < 1:
        raise ParameterError("region, regions, points and repeats must each be at least 1.")
    named = dict(maps) if isinstance(maps, Mapping) else {_name(maps): maps}
    if not named:
        raise ParameterError("There is no map to evaluate.")
    engine = engine or Engine(classifier, device=device, seed=seed)
    classifier = engine.classifier
    question = _question(scan, classifier, named.values(), target, watch)
    frame = classifier.frame(scan)
    values = {name: frame.to_grid(_array(m, scan, name)[None])[0] for name, m in named.items()}
    jobs: list[tuple[str, Kind]] = [(name, kind) for name in values for kind in curves if kind != "random"]
    if "random" in curves:
        jobs.append(("random", "random"))

    done: list[Curve] = []
    for name, kind in jobs:
        how = removal or {"deletion": Mean(), "insertion": Blur(5.0), "ROAD": NoisyLinear()}.get(kind, Uniform())
        pieces = tiles(frame.grid, 1 if kind in ("deletion", "insertion", "ROAD") else region)
        worth = sums(values.get(name, torch.zeros(frame.grid)), pieces)
        ties = kind == "random" or len(torch.unique(worth)) < len(worth)
        seeds = tuple(engine.seed + r for r in range(repeats if ties or not how.deterministic else 1))
        counts = steps_of(kind, len(worth), regions, points)
        size = torch.bincount(pieces.flatten()).double()
        scores, shares, evaluations = [], [], 0
        for one in seeds:
            again = copy.copy(engine)
            again.seed = one
            probe = again.open(scan, question, how)
            rank = ranks(worth if kind != "LeRF" else -worth, again.generator())
            scores.append(_walk(probe, rank[pieces], counts, insert=kind == "insertion"))
            shares.append(_shares(rank, size, counts))
            evaluations += probe.evaluations
        done.append(
            Curve(
                map=name,
                kind=kind,
                definition=_definition(kind, region, len(worth), len(counts) - 1),
                measure=_WORDS[kind][1],
                better=_WORDS[kind][2],
                removal={"name": how.name, **describe(how)},
                seeds=seeds,
                shares=np.mean(shares, axis=0),
                scores=np.stack(scores),
                clean=float(probe.clean[0]),
                evaluations=evaluations,
            )
        )
        if on_curve is not None:
            on_curve(done[-1], len(done) / len(jobs))
    return Evaluation(
        curves=tuple(done),
        question=question,
        clean=done[0].clean,
        provenance={
            "scan": {"source": shown_source(scan.source), "sha256": scan.sha256, "shape": list(scan.shape)},
            "model": {"name": classifier.name, "fingerprint": classifier.fingerprint, "grid": list(frame.grid)},
            "device": str(engine.device),
            "evaluations": sum(c.evaluations for c in done),
            "seconds": time.perf_counter() - started,
        },
    )


def tiles(grid: Sequence[int], side: int) -> Tensor:
    """The tile that each pixel belongs to: int64 ``[*grid]``, tiles of ``side`` pixels from the first corner on."""
    found = torch.zeros(tuple(grid), dtype=torch.int64)
    for axis, n in enumerate(grid):
        tile = torch.arange(n) // side
        found = found * (int(tile[-1]) + 1) + tile.view([-1 if a == axis else 1 for a in range(len(grid))])
    return found


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


def steps_of(kind: Kind, pieces: int, regions: int, points: int) -> Tensor:
    """How many pieces are gone at each point of the curve, int64 ``[K]``, from 0 on."""
    if kind == "ROAD":
        return (torch.tensor(ROAD_SHARES, dtype=torch.float64) * pieces).round().long()
    if kind in ("deletion", "insertion"):
        return torch.linspace(0, pieces, min(points, pieces) + 1, dtype=torch.float64).round().long()
    return torch.arange(min(regions, pieces) + 1)


def aopc(scores: NDArray[np.float64], clean: float) -> NDArray[np.float64]:
    """Equation 12 for each row of ``scores`` ``[R, L + 1]``, whose first column is the untouched scan: ``[R]``."""
    return np.asarray((clean - scores).mean(1))


def area_under(scores: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Trapezoid area under each row of ``scores`` ``[R, K]`` over ``shares`` ``[K]``, over their span: ``[R]``."""
    widths = np.diff(shares)
    return np.asarray(((scores[:, 1:] + scores[:, :-1]) / 2 * widths).sum(1) / widths.sum())


def _walk(probe: Probe, rank: Tensor, counts: Tensor, *, insert: bool) -> NDArray[np.float64]:
    rank = rank.to(probe.pixels.device)
    found = []
    for part in torch.split(counts.to(rank.device), probe.batch_size):
        gone = rank < part.view(-1, *[1] * rank.ndim)
        found.append(probe.scores((gone if insert else ~gone).float())[:, 0])
    return torch.cat(found).double().cpu().numpy()


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


def _definition(kind: Kind, region: int, pieces: int, steps: int) -> str:
    words, measure, better = _WORDS[kind]
    if kind == "ROAD":
        what = f"{words}, {ROAD_SHARES[1]:.0%} to {ROAD_SHARES[-1]:.0%} of them (Rong et al. 2022)."
    elif kind in ("deletion", "insertion"):
        what = f"{words}, in {steps} equal parts (Petsiuk et al. 2018)."
    else:
        what = (
            f"{steps} of {pieces} regions of {region} pixels a side are removed one after another, {words} "
            "(Samek et al. 2017)."
        )
    sums_up = {
        "AOPC": "AOPC is the mean fall of the score over all points, the untouched scan among them",
        "AUC": "AUC is the area under the score over the share of pixels, trapezoid rule",
    }[measure]
    verdict = "" if better == "neither" else f"; {better} is better"
    return f"{what} {sums_up}{verdict}. Equal values are ordered at random."


def _question(
    scan: Scan,
    classifier: Classifier,
    maps: Iterable[Explanation | ArrayLike],
    target: str | int | None,
    watch: str | None,
) -> Question:
    asked = [m.provenance["question"] for m in maps if isinstance(m, Explanation)]
    if target is None and len({q["target"] for q in asked}) > 1:
        raise ParameterError("These explanations are of different classes; say which target to watch.")
    if watch is None and len({q["watch"] for q in asked}) > 1:
        raise ParameterError("These explanations watched different numbers; say what to watch.")
    for question in asked[:1]:
        target = question["target"] if target is None else target
        watch = question["watch"] if watch is None else watch
    return Question.ask(classifier, scan, target, watch or "probability")


def _name(one: Explanation | ArrayLike) -> str:
    return str(one.provenance["method"]["name"]) if isinstance(one, Explanation) else "map"


def _array(one: Explanation | ArrayLike, scan: Scan, name: str) -> Tensor:
    try:
        values = torch.from_numpy(np.array(one.heatmap if isinstance(one, Explanation) else one, dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise ParameterError(f"The map {name!r} is a {type(one).__name__}; give an explanation or an array.") from error
    if tuple(values.shape) != scan.shape:
        raise ParameterError(
            f"The map {name!r} has shape {list(values.shape)} and the scan {list(scan.shape)}; "
            "a map lies on its scan's own grid."
        )
    if not bool(torch.isfinite(values).all()):
        raise ParameterError(f"The map {name!r} has values that are NaN or infinite.")
    return values
