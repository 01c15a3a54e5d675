"""The trust table: methods x removals, on scans whose truth is known.

A row is one method with one removal on one scan, or one removal on one scan; rows are plain records that are kept one
by one, so that a run can be stopped and goes on where it was. :func:`summary` turns them into tables. Scans are cut
into validation and test once and for all: thresholds and the recommendation are chosen on the validation part, numbers
are reported on the test part.
"""

from __future__ import annotations

import dataclasses
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from lucency.attribution import attribute
from lucency.classifier import Question
from lucency.engine import Engine
from lucency.errors import OutputError, ParameterError
from lucency.methods import Method, method_named
from lucency.methods.occlusion import Occlusion
from lucency.metrics.artefact import Cut, artefacts, halves, patches
from lucency.metrics.bootstrap import interval
from lucency.metrics.gold import Twin, agreement, effects, map_agreement, random_regions
from lucency.metrics.localisation import THRESHOLDS, iou, localise
from lucency.metrics.perturbation import evaluate
from lucency.phantom import simulate
from lucency.records import Record
from lucency.removal import Removal
from lucency.scan import Scan
from lucency.writing import whole
from trust.record import Artefact, Effects, Interval, MapResult, MethodRow, Part, RemovalResult, RemovalRow, TrustRow

FIRST_SEED = 10_000_000
"""No training and no other table draws phantoms from here on."""
SMALLEST_ML, LARGEST_ML = 25.0, 1000.0
FLUID_MM = 5.0
SIZE = 224
REGION, REGIONS = 18, 25
NOISE = 0.01
PATCHES: dict[str, Cut] = {f"patch {side}": patches(side) for side in (16, 32, 64)}
PIECES: dict[str, Cut] = {**PATCHES, "half of the superpixels": halves()}
WATCHED = ("logit", "probability")
TOLERATED = 0.01
"""The artefact rate up to which a removal can be recommended."""


@dataclass(frozen=True, eq=False)
class Case:
    """A scan with its truth.

    Attributes:
        kind: ``"phantom"``, ``"box"`` (a film with a radiologist's box), ``"normal"`` (a film without a finding) or
            ``"simulated"`` (a normal film with simulated fluid).
        name: what tells it from the others of its kind.
        part: what it is for.
        scan: the scan.
        truth: bool ``[*spatial]``, where the finding is; ``None`` for a normal one.
        twin: the same without the finding, where there is such a thing.
        patient: whose film it is.
        volume_ml, side: of the fluid.
    """

    kind: str
    name: str
    part: Part
    scan: Scan
    truth: NDArray[np.bool_] | None = None
    twin: Scan | None = None
    patient: str | None = None
    volume_ml: float | None = None
    side: str | None = None


def part_of(index: int) -> Part:
    """Every other case is for choosing."""
    return "validation" if index % 2 == 0 else "test"


def kept_array(file: Path, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """The array in a file, made and written there when it is missing or damaged.

    Raises:
        OutputError: when it cannot be written.
    """
    found = _stored(file)
    if not found:
        found = {"array": make()}
        _store(file, found)
    return found["array"]


def _stored(file: Path) -> dict[str, NDArray[Any]]:
    """The arrays in a file; none where it is missing or damaged."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error):
        return {}


def _store(file: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{file.parent} cannot be made ({error.strerror or error}); name another folder.") from error
    with whole(file) as part:
        np.savez(part, allow_pickle=False, **arrays)


def phantom_case(index: int, kept: Path | None = None) -> Case:
    """A phantom with 25 to 1,000 ml, evenly on a logarithmic scale, and its twin; slow, so ``kept`` may be a folder.

    Pictures are rounded to 16 bit, as in a file.
    """
    seed = FIRST_SEED + index
    file = None if kept is None else kept / f"phantom-{seed}.npz"
    rng = np.random.default_rng([seed, 1])
    volume = float(np.exp(rng.uniform(np.log(SMALLEST_ML), np.log(LARGEST_ML))))
    side = str(rng.choice(["left", "right"]))
    arrays = {} if file is None else _stored(file)
    if not arrays:
        try:
            made = simulate(seed, volume_ml=volume, side=side, size=SIZE)
        except ParameterError:
            # A small chest cannot hold a litre.
            made = simulate(seed, volume_ml=volume / 2, side=side, size=SIZE)
        arrays = {
            "wet": (made.image * 65535).round().astype(np.uint16),
            "dry": (made.twin * 65535).round().astype(np.uint16),
            "truth_mm": made.truth_mm.astype(np.float16),
            "spacing_mm": np.array(made.spacing_mm),
            "volume_ml": np.array(made.parameters.volume_ml),
        }
        if file is not None:
            _store(file, arrays)
    spacing = tuple(float(s) for s in arrays["spacing_mm"])
    wet, dry = (
        Scan(
            torch.from_numpy(arrays[which].astype(np.float32) / 65535)[None], spacing=spacing, source=f"phantom {seed}"
        )
        for which in ("wet", "dry")
    )
    depth = arrays["truth_mm"].astype(np.float32)
    # A little fluid is nowhere 5 mm deep; then the deeper half of it counts.
    truth = depth >= min(FLUID_MM, float(depth.max()) / 2)
    volume = float(arrays["volume_ml"])
    return Case("phantom", str(seed), part_of(index), wet, truth, dry, volume_ml=volume, side=side)


def map_result(
    case: Case, method: Method, engine: Engine, target: str, watch: str, gold: NDArray[np.float32] | None
) -> MapResult:
    """What one method makes of one case with a truth: localisation and gold standard.

    Of the test part also perturbation curves and stability.

    Args:
        gold: the gold-standard map of the case (:func:`gold_map`), where it has a twin.

    Raises:
        LucencyError: as the method does.
    """
    started = time.process_time()
    assert case.truth is not None
    one = attribute(case.scan, engine, method, target=target, watch=watch)
    # Of the process and not of the clock on the wall: the machine may be shared.
    seconds = time.process_time() - started
    cost, found = one.provenance.cost, localise(one.heatmap, case.truth)
    aopc = road = stability = None
    if case.part == "test":
        # Nothing is chosen by these, and they take most of the time.
        judged = evaluate(
            one, case.scan, engine, watch="probability", target=target, curves=["MoRF", "ROAD"],
            region=REGION, regions=REGIONS, repeats=1,
        )  # fmt: skip
        aopc, road = (curve.aopc.value for curve in judged.curves)
        stability = _stability(case.scan, one.heatmap, method, engine, target, watch)
    agreed, ranked = (None, None) if gold is None else map_agreement(gold, one.heatmap)
    return MapResult(
        seconds, cost.evaluations, cost.gradients, one.probability,
        found.pointing_game, found.iou, found.threshold, found.energy, found.top, found.area,
        tuple(round(iou(one.heatmap, case.truth, threshold), 4) for threshold in THRESHOLDS),
        agreed, ranked, aopc, road, stability,
    )  # fmt: skip


def gold_map(case: Case, engine: Engine, target: str, watch: str) -> NDArray[np.float32]:
    """Occlusion with the twin as removal: the true effect of every patch."""
    assert case.twin is not None
    how = Occlusion(removal=Twin(engine.classifier.prepare(case.twin)), features=False)
    return attribute(case.scan, engine, how, target=target, watch=watch).heatmap


def removal_result(case: Case, removal: Removal, engine: Engine, target: str, regions: int = 120) -> RemovalResult:
    """What one removal does to one case: closeness to the gold standard, and artefacts on its healthy scan.

    Raises:
        LucencyError: as the removal does.
    """
    agreed: dict[str, Effects] = {}
    if case.twin is not None:
        questions, where, true = _true_effects(case, engine, target, regions)
        found = effects(case.scan, questions[0], engine, removal, where, questions[1:]).T
        for watch, truth, guess in zip(WATCHED, true, found, strict=True):
            # Where the model does not react to the fluid there is no truth to agree with.
            if np.ptp(truth) > 1e-3:
                one = agreement(truth, guess)
                agreed[watch] = Effects(one.pearson, one.spearman, one.slope)
    normal = case.twin if case.twin is not None else case.scan
    made: dict[str, Artefact] = {}
    # The twin of a film with simulated fluid is a normal film, which has a row of its own.
    for name, pieces in PIECES.items() if case.kind != "simulated" else ():
        try:
            here = artefacts(removal, [normal], engine, pieces=pieces, target=target)
        except ParameterError:
            # Called abnormal as it is, so there is nothing to count.
            break
        made[name] = Artefact(here.rate, here.rise, float(here.worst[0]), here.copies)
    return RemovalResult(agreed, made)


@lru_cache(1)
def _true_effects(
    case: Case, engine: Engine, target: str, regions: int
) -> tuple[list[Question], Tensor, NDArray[np.float64]]:
    """The questions, random regions, and the true effects of these ``[Q, N]``; the same for every removal."""
    assert case.twin is not None
    questions = [Question.ask(engine.classifier, case.scan, target, watch) for watch in WATCHED]
    where = random_regions(engine.classifier.prepare(case.scan), regions, engine.generator())
    twin = Twin(engine.classifier.prepare(case.twin))
    return questions, where, effects(case.scan, questions[0], engine, twin, where, questions[1:]).T


def _stability(
    scan: Scan, heatmap: NDArray[np.float32], method: Method, engine: Engine, target: str, watch: str
) -> float:
    """Rank correlation with the map of the same scan under a little noise, from another seed."""
    generator = torch.Generator().manual_seed(engine.seed + 1)
    low, high = scan.value_range
    noise = NOISE * (high - low) * torch.randn(scan.pixels.shape, generator=generator)
    again = Engine(engine.classifier, device=engine.device, seed=engine.seed + 1)
    other = attribute(
        dataclasses.replace(scan, pixels=scan.pixels + noise), again, method, target=target, watch=watch
    ).heatmap
    if np.ptp(heatmap) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(stats.spearmanr(heatmap.ravel(), other.ravel()).statistic)


def summary(rows: Sequence[TrustRow], kind: str, part: Part = "test", fewest: int = 3) -> list[MethodRow]:
    """One row for each method and removal on the cases of ``kind``, best overlap first.

    Every number has its bootstrap interval over the patients of that ``part``; the threshold of the overlap is always
    the best one of the validation part. Contestants with fewer than ``fewest`` cases in either part are left out.
    """
    found = []
    maps = [(row, row.map) for row in rows if row.kind == kind and row.map is not None]
    for who in dict.fromkeys(row.who for row, _ in maps):
        learn = [one for row, one in maps if row.who == who and row.part == "validation"]
        tell = [(row, one) for row, one in maps if row.who == who and row.part == part]
        if len(tell) < fewest or len(learn) < fewest:
            continue
        at = int(np.mean([one.ious for one in learn], 0).argmax())
        numbers = {
            "iou": _over([(row, one.ious[at]) for row, one in tell]),
            "pointing_game": _over([(row, one.pointing_game) for row, one in tell]),
            "energy": _over([(row, one.energy) for row, one in tell]),
            "top": _over([(row, one.top) for row, one in tell]),
            "aopc": _over([(row, one.aopc) for row, one in tell]),
            "road": _over([(row, one.road) for row, one in tell]),
            "gold": _over([(row, one.gold) for row, one in tell]),
            "gold_rank": _over([(row, one.gold_rank) for row, one in tell]),
            "stability": _over([(row, one.stability) for row, one in tell]),
            "area": _over([(row, one.area) for row, one in tell]),
        }
        large = [(row, one) for row, one in tell if row.volume_ml is not None and row.volume_ml >= 200]
        if len(large) >= fewest:
            numbers["pointing_game_large"] = _over([(row, one.pointing_game) for row, one in large])
            numbers["iou_large"] = _over([(row, one.ious[at]) for row, one in large])
        found.append(
            MethodRow(
                *who,
                cases=len(tell),
                threshold=float(THRESHOLDS[at]),
                numbers={name: number for name, number in numbers.items() if number is not None},
                evaluations=float(np.median([one.evaluations for _, one in tell])),
                gradients=float(np.median([one.gradients for _, one in tell])),
                seconds=float(np.median([one.seconds for _, one in tell])),
            )
        )
    return sorted(found, key=lambda row: -row.numbers["iou"][0])


def removals_summary(
    rows: Sequence[TrustRow], kind: str, part: Part | None = None, fewest: int = 3
) -> list[RemovalRow]:
    """One row for each removal on the cases of ``kind`` (of one part, or all): gold standard and artefacts.

    Removals with fewer than ``fewest`` cases are left out.
    """
    found = []
    known = [(row, row.removed) for row in rows if row.kind == kind and row.removed is not None]
    known = [(row, one) for row, one in known if part in (None, row.part)]
    for removal in dict.fromkeys(row.removal for row, _ in known):
        mine = [(row, one) for row, one in known if row.removal == removal]
        if len(mine) < fewest:
            continue
        numbers: dict[str, Interval | None] = {}
        for watch in WATCHED:
            agreed = [(row, one.effects[watch]) for row, one in mine if watch in one.effects]
            numbers[f"{watch} pearson"] = _over([(row, one.pearson) for row, one in agreed])
            numbers[f"{watch} spearman"] = _over([(row, one.spearman) for row, one in agreed])
            numbers[f"{watch} slope"] = _over([(row, one.slope) for row, one in agreed])
        normal = 0
        for name in PIECES:
            counted = [(row, one.artefacts[name]) for row, one in mine if name in one.artefacts]
            numbers[f"{name} rate"] = _over([(row, one.rate) for row, one in counted])
            numbers[f"{name} rise"] = _over([(row, one.rise) for row, one in counted])
            normal = len(counted) or normal
        there = {name: number for name, number in numbers.items() if number is not None}
        found.append(RemovalRow(removal, len(mine), there, normal))
    return sorted(found, key=lambda row: -row.numbers.get("logit pearson", (0.0,))[0])


def _over(values: Sequence[tuple[TrustRow, float | None]]) -> Interval | None:
    """The mean over the rows that have a value, with its interval over patients; ``None`` where none has."""
    known = [(float(value), row.patient_or_case) for row, value in values if value is not None]
    return interval([value for value, _ in known], [who for _, who in known]) if known else None


@dataclass(frozen=True)
class Recommendation(Record):
    """What the numbers say that `explain` should use.

    Attributes:
        method, removal: chosen on the validation phantoms.
        score: its mean of pointing game, overlap and agreement with the gold standard, there.
        chosen, reported: its row on the validation and on the test phantoms.
        rival: the next best one (method, removal).
        lead: by how much the score is higher than the rival's on the test phantoms, with its interval over phantoms.
    """

    method: str
    removal: str
    score: float
    chosen: MethodRow
    reported: MethodRow
    rival: tuple[str, str] | None
    lead: Interval | None


def recommend(rows: Sequence[TrustRow]) -> Recommendation | None:
    """The contestant with the highest mean of pointing game, overlap and agreement with the gold standard.

    It is chosen on the validation phantoms alone. Contestants whose removal makes artefacts there at a rate
    above :data:`TOLERATED`, with pieces as the method takes them away, are passed over, unless none is below. ``None``
    while there are too few phantoms.
    """
    learnt, told = summary(rows, "phantom", "validation"), summary(rows, "phantom", "test")
    if not learnt:
        return None
    rates = {row.who: artefact_rate(rows, row, "phantom", "validation") or (0.0, 0.0, 0.0) for row in learnt}
    allowed = [row for row in learnt if rates[row.who][0] <= TOLERATED] or learnt
    allowed.sort(key=lambda row: row.score, reverse=True)
    best, rival = allowed[0], (allowed[1] if len(allowed) > 1 else None)
    reported = next((row for row in told if row.who == best.who), None)
    if reported is None:
        return None
    lead = None
    if rival is not None:
        other = next((row for row in told if row.who == rival.who), None)
        ours, theirs = (_by_case(rows, row) for row in (reported, other or rival))
        both = sorted(set(ours) & set(theirs))
        if len(both) >= 3:
            lead = interval([ours[name] - theirs[name] for name in both])
    return Recommendation(
        best.method, best.removal, best.score, best, reported, None if rival is None else rival.who, lead
    )


def artefact_rate(rows: Sequence[TrustRow], row: MethodRow, kind: str, part: Part | None = None) -> Interval | None:
    """How often the removal of a row of :func:`summary` makes dry cases of ``kind`` look abnormal.

    Counted with the pieces that are most like what its method takes away. ``None`` for a method that takes no piece
    away, as one that follows gradients from a baseline, and where nothing was counted.
    """
    taken = _taken(row.method)
    known = [one for one in removals_summary(rows, kind, part) if one.removal == row.removal]
    return known[0].numbers.get(f"{taken} rate") if known and taken else None


def _taken(method: str) -> str:
    """The pieces of :data:`PIECES` that are most like those of a method with its settings; empty if it takes none."""
    name, *settings = method.split(":")
    how = method_named(name, settings)
    if how.takes == "nothing":
        return ""
    if not isinstance(how, Occlusion) or not isinstance(how.patch, int):
        return "half of the superpixels"
    side = how.patch
    return min(PATCHES, key=lambda piece: abs(np.log(float(piece.split()[1]) / side)))


def _by_case(rows: Sequence[TrustRow], contestant: MethodRow) -> dict[str, float]:
    at = int(np.abs(THRESHOLDS - contestant.threshold).argmin())
    return {
        row.case: float(np.mean([float(row.map.pointing_game), row.map.ious[at], row.map.gold]))
        for row in rows
        if row.kind == "phantom" and row.map is not None and row.map.gold is not None and row.part == "test"
        and row.who == contestant.who
    }  # fmt: skip
