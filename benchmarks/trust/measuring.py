"""The trust table: methods x removals, on scans whose truth is known.

A row is one method with one removal on one scan, or one removal on one scan; rows are plain records that are kept one
by one, so that a run can be stopped and goes on where it was. :func:`summary` turns them into tables. Scans are cut
into two halves once and for all: thresholds and the recommendation are chosen on one, numbers are reported on the
other.
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
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from lucency.attribution import attribute
from lucency.classifier import Question
from lucency.engine import Engine
from lucency.errors import LucencyError, OutputError, ParameterError
from lucency.methods import Method
from lucency.methods.occlusion import Occlusion
from lucency.metrics.artefact import Pieces, artefacts, halves, patches
from lucency.metrics.bootstrap import interval
from lucency.metrics.gold import Twin, agreement, effects, map_agreement, random_regions
from lucency.metrics.localisation import THRESHOLDS, iou, localise
from lucency.metrics.perturbation import evaluate
from lucency.phantom import simulate
from lucency.removal import Removal
from lucency.scan import Scan
from lucency.writing import whole

Record = dict[str, Any]
Half = Literal["choose", "report"]

FIRST_SEED = 10_000_000
"""No training and no other table draws phantoms from here on."""
SMALLEST_ML, LARGEST_ML = 25.0, 1000.0
FLUID_MM = 5.0
SIZE = 224
REGION, REGIONS = 18, 25
NOISE = 0.01
PATCHES: dict[str, Pieces] = {f"patch {side}": patches(side) for side in (16, 32, 64)}
PIECES: dict[str, Pieces] = {**PATCHES, "half of the superpixels": halves()}
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
        half: what it is for.
        scan: the scan.
        truth: bool ``[*spatial]``, where the finding is; ``None`` for a normal one.
        twin: the same without the finding, where there is such a thing.
        about: more about it, as plain values.
    """

    kind: str
    name: str
    half: Half
    scan: Scan
    truth: NDArray[np.bool_] | None = None
    twin: Scan | None = None
    about: Mapping[str, float | str] = dataclasses.field(default_factory=dict)


def half_of(index: int) -> Half:
    """Every other case is for choosing."""
    return "choose" if index % 2 == 0 else "report"


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
    about: dict[str, float | str] = {"volume_ml": float(arrays["volume_ml"]), "side": side}
    return Case("phantom", str(seed), half_of(index), wet, truth, dry, about)


def map_row(
    case: Case, method: Method, engine: Engine, target: str, watch: str, gold: NDArray[np.float32] | None
) -> Record:
    """What one method makes of one case with a truth: localisation and gold standard.

    Of the half that is reported on also perturbation curves and stability.

    Args:
        gold: the gold-standard map of the case (:func:`gold_map`), where it has a twin.
    """
    started = time.process_time()
    assert case.truth is not None
    try:
        one = attribute(case.scan, engine, method, target=target, watch=watch)
        # Of the process and not of the clock on the wall: the machine may be shared.
        row: Record = {"seconds": time.process_time() - started}
        row |= {"evaluations": one.provenance.cost.evaluations, "gradients": one.provenance.cost.gradients}
        row |= {"probability": one.probability, **localise(one.heatmap, case.truth).as_dict()}
        row["ious"] = [round(iou(one.heatmap, case.truth, threshold), 4) for threshold in THRESHOLDS]
        if gold is not None:
            row["gold"], row["gold_rank"] = map_agreement(gold, one.heatmap)
        if case.half == "report":
            # Nothing is chosen by these, and they take most of the time.
            judged = evaluate(
                case.scan, engine.classifier, one, watch="probability", target=target, curves=["MoRF", "ROAD"],
                region=REGION, regions=REGIONS, repeats=1, engine=engine,
            )  # fmt: skip
            row |= {name: curve.aopc.value for name, curve in zip(("aopc", "road"), judged.curves, strict=True)}
            row["stability"] = _stability(case.scan, one.heatmap, method, engine, target, watch)
    except LucencyError as error:
        row = {"error": str(error)}
    return row | {"took": time.process_time() - started}


def gold_map(case: Case, engine: Engine, target: str, watch: str) -> NDArray[np.float32]:
    """Occlusion with the twin as removal: the true effect of every patch."""
    assert case.twin is not None
    how = Occlusion(removal=Twin(engine.classifier.prepare(case.twin)), features=False)
    return attribute(case.scan, engine, how, target=target, watch=watch).heatmap


def removal_row(case: Case, removal: Removal, engine: Engine, target: str, regions: int = 120) -> Record:
    """What one removal does to one case: closeness to the gold standard, and artefacts on its healthy scan."""
    started = time.process_time()
    row: Record = {}
    try:
        if case.twin is not None:
            questions, where, true = _true_effects(case, engine, target, regions)
            found = effects(case.scan, questions[0], engine, removal, where, questions[1:]).T
            # Where the model does not react to the fluid there is no truth to agree with.
            row |= {
                w: dataclasses.asdict(agreement(t, f))
                for w, t, f in zip(WATCHED, true, found, strict=True)
                if np.ptp(t) > 1e-3
            }
        normal = case.twin if case.twin is not None else case.scan
        # The twin of a film with simulated fluid is a normal film, which has a row of its own.
        for name, pieces in PIECES.items() if case.kind != "simulated" else ():
            try:
                found_here = artefacts([normal], engine, removal, pieces, target=target)
            except ParameterError:
                # Called abnormal as it is, so there is nothing to count.
                break
            row.setdefault("artefacts", {})[name] = {
                "rate": found_here.rate, "rise": found_here.rise, "worst": float(found_here.worst[0]),
                "copies": found_here.copies,
            }  # fmt: skip
    except LucencyError as error:
        row = {"error": str(error)}
    return row | {"took": time.process_time() - started}


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


def summary(records: Sequence[Record], kind: str, half: Half = "report", fewest: int = 3) -> list[Record]:
    """One row for each method and removal on the cases of ``kind``, best overlap first.

    Every number is ``(mean, low, high)`` with its bootstrap interval over the patients of that ``half``; the threshold
    of the overlap is always the best one of the choosing half. Contestants with fewer than ``fewest`` cases in either
    half are left out.
    """
    rows = []
    maps = [r for r in records if r["kind"] == kind and r["what"] == "map" and "error" not in r]
    for contestant in dict.fromkeys((r["method"], r["removal"]) for r in maps):
        mine = [r for r in maps if (r["method"], r["removal"]) == contestant]
        learn, tell = [r for r in mine if r["half"] == "choose"], [r for r in mine if r["half"] == half]
        if len(tell) < fewest or len(learn) < fewest:
            continue
        at = int(np.mean([r["ious"] for r in learn], 0).argmax())
        row: Record = {
            "method": contestant[0],
            "removal": contestant[1],
            "cases": len(tell),
            "threshold": float(THRESHOLDS[at]),
            "iou": _over(tell, "ious", at),
        }
        for key in ("hit", "mass", "top", "aopc", "road", "gold", "gold_rank", "stability", "area"):
            known = [r for r in tell if key in r]
            if known:
                row[key] = _over(known, key)
        large = [r for r in tell if r.get("volume_ml", 0.0) >= 200]
        if len(large) >= fewest:
            row["hit_large"] = _over(large, "hit")
            row["iou_large"] = _over(large, "ious", at)
        for key in ("evaluations", "gradients", "seconds"):
            row[key] = float(np.median([r[key] for r in tell]))
        rows.append(row)
    return sorted(rows, key=lambda r: -r["iou"][0])


def removals_summary(records: Sequence[Record], kind: str, half: Half | None = None, fewest: int = 3) -> list[Record]:
    """One row for each removal on the cases of ``kind`` (of one half, or all): gold standard and artefacts.

    Removals with fewer than ``fewest`` cases are left out.
    """
    rows = []
    found = [r for r in records if r["kind"] == kind and r["what"] == "removal" and "error" not in r]
    found = [r for r in found if half in (None, r["half"])]
    for removal in dict.fromkeys(r["removal"] for r in found):
        mine = [r for r in found if r["removal"] == removal]
        if len(mine) < fewest:
            continue
        row: Record = {"removal": removal, "cases": len(mine)}
        for watch in WATCHED:
            for key in ("pearson", "spearman", "slope"):
                known = [r for r in mine if watch in r]
                if known:
                    row[f"{watch} {key}"] = _over(known, watch, key)
        for name in PIECES:
            counted = [r for r in mine if name in r.get("artefacts", {})]
            if counted:
                for key in ("rate", "rise"):
                    row[f"{name} {key}"] = _over(counted, "artefacts", name, key)
                row["normal"] = len(counted)
        rows.append(row)
    return sorted(rows, key=lambda r: -r.get("logit pearson", (0.0,))[0])


def _over(rows: Sequence[Record], *where: str | int) -> tuple[float, float, float]:
    """The mean over rows of what lies at ``where`` in each, with its interval over patients."""
    values: list[Any] = list(rows)
    for key in where:
        values = [value[key] for value in values]
    return interval([float(v) for v in values], [str(r.get("patient", r["case"])) for r in rows])


@dataclass(frozen=True)
class Recommendation:
    """What the numbers say that `explain` should use.

    Attributes:
        method, removal: chosen on one half of the phantoms.
        score: its mean of hit rate, overlap and agreement with the gold standard, there.
        chosen, reported: its row on the half it was chosen on, and on the other.
        rival: the next best one (method, removal).
        lead: by how much the score is higher than the rival's on the other half, with its interval over phantoms.
    """

    method: str
    removal: str
    score: float
    chosen: Record
    reported: Record
    rival: tuple[str, str] | None
    lead: tuple[float, float, float] | None


def recommend(records: Sequence[Record]) -> Recommendation | None:
    """The contestant with the highest mean of hit rate, overlap and agreement with the gold standard.

    It is chosen on the phantoms of the choosing half alone. Contestants whose removal makes artefacts there at a rate
    above :data:`TOLERATED`, with pieces as the method takes them away, are passed over, unless none is below. ``None``
    while there are too few phantoms.
    """
    learnt, told = summary(records, "phantom", "choose"), summary(records, "phantom", "report")
    if not learnt:
        return None
    nothing = {"artefacts": (0.0, 0.0, 0.0)}
    rates = {_who(row): (artefact_rate(records, row, "phantom", "choose") or nothing)["artefacts"][0] for row in learnt}
    allowed = [row for row in learnt if rates[_who(row)] <= TOLERATED] or learnt
    allowed.sort(key=_score, reverse=True)
    best, rival = allowed[0], (allowed[1] if len(allowed) > 1 else None)
    reported = next((r for r in told if _who(r) == _who(best)), None)
    if reported is None:
        return None
    lead = None
    if rival is not None:
        other = next((r for r in told if _who(r) == _who(rival)), None)
        ours, theirs = (_by_case(records, row) for row in (reported, other or rival))
        both = sorted(set(ours) & set(theirs))
        if len(both) >= 3:
            lead = interval([ours[name] - theirs[name] for name in both])
    return Recommendation(
        best["method"], best["removal"], _score(best), best, reported, None if rival is None else _who(rival), lead
    )


def artefact_rate(records: Sequence[Record], row: Record, kind: str, half: Half | None = None) -> Record:
    """``artefacts``: how often the removal of a row of :func:`summary` makes dry cases of ``kind`` look abnormal.

    Counted with the pieces that are most like what its method takes away: a patch of about its size for occlusion, half
    of the superpixels for all others. Empty for a method that takes no piece away, as one that follows gradients from a
    baseline, and where nothing was counted.
    """
    if "gradients" in row["method"]:
        return {}
    key = f"{_taken(row['method'])} rate"
    known = [r for r in removals_summary(records, kind, half) if r["removal"] == row["removal"] and key in r]
    return {"artefacts": known[0][key]} if known else {}


def _taken(method: str) -> str:
    name, *settings = method.split(":")
    side = dict(setting.split("=", 1) for setting in settings).get("patch", str(Occlusion.patch))
    if name != "occlusion" or not side.isdigit():
        return "half of the superpixels"
    return min(PATCHES, key=lambda piece: abs(np.log(float(piece.split()[1]) / float(side))))


def _who(row: Record) -> tuple[str, str]:
    return row["method"], row["removal"]


def _score(row: Record) -> float:
    return float(np.mean([row[key][0] for key in ("hit", "iou", "gold") if key in row]))


def _by_case(records: Sequence[Record], row: Record) -> dict[str, float]:
    at = int(np.abs(THRESHOLDS - row["threshold"]).argmin())
    return {
        r["case"]: float(np.mean([float(r["hit"]), r["ious"][at], r["gold"]]))
        for r in records
        if r["kind"] == "phantom" and r["what"] == "map" and "error" not in r and r["half"] == "report"
        and _who(r) == _who(row) and "gold" in r
    }  # fmt: skip
