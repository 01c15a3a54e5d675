"""Does the map of the same patient, taken twice, point to the same place?

    python benchmarks/stability.py --out out/stability --films 30 --seconds 30 --phantoms 20
    python benchmarks/stability.py --out out/stability --report

The first command measures and goes on where it was stopped; the second prints the tables from what is there.

The rule of what is reported, written before any number was seen:

1. **Films** (``LUCENCY_SHARED``) are of test patients of ``lucency:effusion``, one a patient, in the order of a hash,
   if the model calls an effusion (probability of 0.5 or more): where it calls none, a maximum points to nothing.
   **Phantoms** are those of seeds 7,950,000 and up with 125 to 800 ml on one side, under the same condition.
2. **Copies** of each: shifted by 2 % of the width, turned by 3 degrees, darker or lighter (display values to the power
   of 1.25 or 0.8), with noise (2 % of the range), saved as JPEG (quality 50), resampled to half of the pixels; and,
   for methods that draw by chance, the film itself with another seed. A coin that the scan's number tosses decides on
   the sign. One copy of a kind each, so that scans and not copies make the number of cases.
3. **A second film** is one of the same patient, collection and view, called an effusion as well. Time lies between
   them, so a part of the movement is the patient's. The two are laid over each other by their lung fields. Beside it
   stands what **another patient's** film gives when it is laid over in the same way: what is not nearer than that has
   shown nothing about the patient.
4. **Movement** is the distance between the maxima of the two maps, carried back into the first film, over its width;
   in mm as well where the spacing is known. Median, 90th percentile, and the share within 10 % of the width, over all
   pairs in which both maps have a maximum, whatever the probability does.
5. **Place** is the one that the verdict names. Same or not is counted over the pairs in which the probability is the
   same (both 0.5 or more, and no more than 0.1 apart) and both verdicts name one; how many pairs that are is said.
   The target is 95 %.
6. Nothing is left out by its outcome. Intervals are 95 % bootstrap intervals over patients. Every method has the budget
   of ``METHODS``, which is small; the numbers hold for it.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))

from films import shared
from lucency import Scan, load_classifier, read_scan
from lucency.archive.evidence import Landmarks, regions
from lucency.attribution import attribute
from lucency.checks.verdict import judge
from lucency.classifier import Classifier
from lucency.engine import Engine
from lucency.methods import Method, method_named
from lucency.metrics.bootstrap import interval
from lucency.phantom import simulate
from train_explainers import films as films_by_part

METHODS: dict[str, Method] = {
    "Grad-CAM": method_named("gradcam"),
    "instant": method_named("instant"),
    "occlusion, healthy": method_named("occlusion", removal="healthy", patch=32, stride=16),
    "occlusion, mean": method_named("occlusion", removal="mean", patch=32, stride=16),
    "occlusion, black": method_named("occlusion", removal="constant", patch=32, stride=16),
    "LIME, 160 samples": method_named("lime", samples=160),
    "RISE, 160 samples": method_named("rise", samples=160),
    "integrated gradients": method_named("integrated_gradients"),
}
BY_CHANCE = ("LIME, 160 samples", "RISE, 160 samples")
TARGET, FIRST = "effusion", 7_950_000
CALLED, SAME, NEAR = 0.5, 0.1, 0.1
FEW = 5
"""Patients below which there is no interval."""
SHIFT, TURN, GAMMA, NOISE, QUALITY = 0.02, 3.0, 1.25, 0.02, 50
ITSELF, SEED, SECOND, ANOTHER = "itself", "another seed", "second film", "another patient"

Point = tuple[float, float]
"""Row and column as shares of the film's height and width."""
Back = Callable[[Point], Point]
"""From a place on the copy to the same place on the film."""
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Subject:
    """A scan with what is done to it.

    Attributes:
        name, patient: which and whose.
        model: short name of the model that reads it.
        scan: the scan.
        copies: whether its copies are explained too.
    """

    name: str
    patient: str
    model: str
    scan: Scan
    copies: bool = True


def films(count: int, seconds: int, classifier: Classifier) -> Iterator[Subject]:
    """Films that are called an effusion: one of each test patient, and a second one of so many patients."""
    with (shared() / "xrays" / "nih_labels.csv").open() as file:
        about = {row["image"]: (row["collection"], row["view"]) for row in csv.DictReader(file)}
    whose: dict[str, list[Path]] = defaultdict(list)
    for path, who, part in films_by_part():
        if part == "test":
            whose[who].append(path)
    found = paired = 0
    for who in sorted(whose, key=_digest):
        called: list[tuple[Path, Scan]] = []
        for path in sorted(whose[who], key=lambda p: _digest(p.name)):
            alike = not called or about[path.name] == about[called[0][0].name]
            if (
                alike
                and len(called) < 1 + (paired < seconds)
                and _probability(classifier, scan := read_scan(path)) >= CALLED
            ):
                called.append((path, scan))
        found += bool(called)
        paired += len(called) == 2
        # Few patients have a second film, so those who do are taken beyond the count.
        if found <= count or len(called) == 2:
            for path, scan in called:
                yield Subject(path.name, who, "effusion", scan, copies=found <= count and path == called[0][0])
        if found >= count and paired >= seconds:
            return


def phantoms(count: int, classifier: Classifier) -> Iterator[Subject]:
    """Simulated patients that are called an effusion, with their spacing."""
    rng, found, seed = np.random.default_rng(0), 0, FIRST
    while found < count:
        volume = float(np.exp(rng.uniform(np.log(125), np.log(800))))
        phantom = simulate(seed, volume_ml=volume, side=("right", "left")[seed % 2])
        scan = Scan.from_array(phantom.image, spacing=phantom.spacing_mm)
        if _probability(classifier, scan) >= CALLED:
            yield Subject(str(seed), str(seed), "phantom", scan)
            found += 1
        seed += 1


def copies(scan: Scan, number: int) -> Iterator[tuple[str, Scan, Back]]:
    """The altered copies of a scan by kind, and the way back from each.

    Args:
        number: tosses the coins.
    """
    rng = np.random.default_rng(number)
    grey = scan.display.mean(0).numpy()

    def as_scan(values: NDArray[Any]) -> Scan:
        low, high = scan.value_range
        pixels = torch.from_numpy(np.ascontiguousarray(low + (high - low) * values.clip(0, 1), np.float32))[None]
        return dataclasses.replace(scan, pixels=pixels)

    def signs(count: int) -> list[int]:
        return [int(sign) for sign in rng.choice((-1, 1), count)]

    yield "shift", *_moved(grey, np.eye(2), np.array(signs(2)) * SHIFT * grey.shape[1], as_scan)
    angle = np.deg2rad(TURN) * signs(1)[0]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    yield "turn", *_moved(grey, turn, np.zeros(2), as_scan)
    yield "exposure", as_scan(np.power(grey, np.float32(GAMMA ** signs(1)[0]))), _same
    yield "noise", as_scan(grey + rng.normal(0, NOISE, grey.shape).astype(np.float32)), _same
    file = io.BytesIO()
    Image.fromarray((255 * grey).round().astype(np.uint8)).save(file, "JPEG", quality=QUALITY)
    yield "JPEG", as_scan(np.asarray(Image.open(file), np.float32) / 255), _same
    half = F.interpolate(torch.from_numpy(grey)[None, None], scale_factor=0.5, mode="bilinear", antialias=True)
    smaller = as_scan(half[0, 0].numpy())
    spacing = None if scan.spacing is None else tuple(2 * step for step in scan.spacing)
    yield "resampling", dataclasses.replace(smaller, spacing=spacing), _same


def _same(point: Point) -> Point:
    return point


def _moved(
    grey: NDArray[Any], turn: NDArray[Any], shift: NDArray[Any], as_scan: Callable[[NDArray[Any]], Scan]
) -> tuple[Scan, Back]:
    """A copy in which everything is turned about the centre and shifted; what comes in from outside is the edge's."""
    size = np.array(grey.shape)
    centre = (size - 1) / 2
    offset = centre - turn @ (centre + shift)
    moved = ndimage.affine_transform(grey, turn, offset, order=1, mode="nearest")

    def back(point: Point) -> Point:
        row, column = (turn @ (np.array(point) * size - 0.5) + offset + 0.5) / size
        return float(row), float(column)

    return as_scan(moved), back


def explained(subject: Subject, engine: Engine, name: str) -> list[Row]:
    """A row for each copy of a scan, by the method of that name."""
    number = int(_digest(subject.name)[:8], 16)
    there: list[tuple[str, Scan, Back]] = [(ITSELF, subject.scan, _same)]
    if subject.copies:
        there += copies(subject.scan, number)
        there += [(SEED, subject.scan, _same)] if name in BY_CHANCE else []
    landmarks = regions(subject.scan).landmarks
    width = None if subject.scan.spacing is None else subject.scan.spacing[1] * subject.scan.shape[1]
    rows = []
    for kind, scan, back in there:
        one = engine.seeded(engine.seed + 1) if kind == SEED else engine
        found = attribute(scan, one, METHODS[name], target=TARGET)
        said = judge(found)
        peak = None if found.peak is None else back(_shares(found.peak, scan.shape))
        rows.append(
            {
                "scan": subject.name, "patient": subject.patient, "model": subject.model,
                "fingerprint": engine.classifier.fingerprint, "kind": kind, "method": name, "copies": subject.copies,
                "probability": found.probability, "peak": peak, "place": said.place, "side": said.side,
                "size": list(subject.scan.shape), "width_mm": width,
                "landmarks": None if landmarks is None else dataclasses.astuple(landmarks),
            }
        )  # fmt: skip
    return rows


def _shares(peak: tuple[int, ...], shape: tuple[int, ...]) -> Point:
    row, column = ((i + 0.5) / n for i, n in zip(peak, shape, strict=True))
    return row, column


def carried(point: Point, source: Landmarks, target: Landmarks) -> Point:
    """A place on one film to the same place in the lung fields of another."""
    down = (point[0] - source.top) / (source.bottom - source.top)
    outer = (source.right, target.right) if point[1] < source.middle else (source.left, target.left)
    across = (point[1] - source.middle) / (outer[0] - source.middle)
    return target.top + down * (target.bottom - target.top), target.middle + across * (outer[1] - target.middle)


@dataclass(frozen=True)
class Pair:
    """Two maps of one method.

    Attributes:
        kind: of the copy, :data:`SECOND` or :data:`ANOTHER`.
        patient: of the first.
        moved: distance of the maxima over the film's width, ``None`` where a map is flat or no lungs were found.
        width_mm: of the film.
        alike: whether the probability is the same.
        same: whether the verdict's place is; ``None`` where one of them names none.
    """

    kind: str
    patient: str
    moved: float | None
    width_mm: float | None
    alike: bool
    same: bool | None


def pairs(rows: list[Row]) -> Iterator[tuple[str, Pair]]:
    """All pairs, with the names of their methods."""
    first = {(row["scan"], row["method"]): row for row in rows if row["kind"] == ITSELF}
    for row in rows:
        if row["kind"] != ITSELF:
            yield row["method"], _pair(row["kind"], first[row["scan"], row["method"]], row)
    for method in METHODS:
        mine = sorted((row for (_, name), row in first.items() if name == method), key=lambda row: _digest(row["scan"]))
        by_patient: dict[str, list[Row]] = defaultdict(list)
        for row in mine:
            by_patient[row["patient"]].append(row)
        for one, two, *_ in (of for of in by_patient.values() if len(of) > 1):
            yield method, _pair(SECOND, one, two)
        firsts = [of[0] for of in by_patient.values()]
        for one, two in zip(firsts, firsts[1:] + firsts[:1], strict=True):
            if one is not two:
                yield method, _pair(ANOTHER, one, two)


def _pair(kind: str, one: Row, two: Row) -> Pair:
    start, end = one["peak"], two["peak"]
    if kind in (SECOND, ANOTHER) and end is not None:
        known = one["landmarks"] and two["landmarks"]
        end = carried(end, Landmarks(*two["landmarks"]), Landmarks(*one["landmarks"])) if known else None
    moved = None
    if start is not None and end is not None:
        height, width = one["size"]
        moved = float(np.hypot((end[0] - start[0]) * height / width, end[1] - start[1]))
    both = (one["probability"], two["probability"])
    alike = min(both) >= CALLED and abs(both[0] - both[1]) <= SAME
    same = one["place"] == two["place"] if one["place"] and two["place"] else None
    return Pair(kind, one["patient"], moved, one["width_mm"], alike, same)


def tables(rows: list[Row]) -> Iterator[str]:
    """Markdown, by model."""
    for model in sorted({row["model"] for row in rows}):
        mine = [row for row in rows if row["model"] == model]
        by_method: dict[str, list[Pair]] = {name: [] for name in METHODS}
        for method, pair in pairs(mine):
            by_method[method].append(pair)
        kinds = list(dict.fromkeys(pair.kind for found in by_method.values() for pair in found))
        kinds.sort(key=lambda kind: [SEED, SECOND, ANOTHER].index(kind) if kind in (SEED, SECOND, ANOTHER) else -1)
        scans = len({row["scan"] for row in mine if row["copies"]})
        yield f"`lucency:{model}`, {scans} scans with copies\n"
        width = [row["width_mm"] for row in mine if row["width_mm"]]
        if width:
            middle = float(np.median(width))
            yield f"The film is {middle:.0f} mm wide in the median, so 1 % is {middle / 100:.1f} mm.\n"
        yield from _summary(by_method)
        yield "\nBy kind: median movement in % of the width (90th percentile); place the same / pairs that count\n"
        yield "| method | " + " | ".join(kinds) + " |"
        yield "| --- |" + " --- |" * len(kinds)
        for method, found in by_method.items():
            groups = ([pair for pair in found if pair.kind == kind] for kind in kinds)
            if found:
                yield f"| {method} | " + " | ".join(_cell(group) for group in groups) + " |"
        yield ""


def _summary(by_method: dict[str, list[Pair]]) -> Iterator[str]:
    names = ["copies", "moved by, % of the width (90th percentile)", "within 10 %, %", "place stays, % (same / pairs)"]
    others = [kind for kind in (SECOND, ANOTHER) if any(p.kind == kind for found in by_method.values() for p in found)]
    for kind in others:
        names += [f"{kind}: pairs", "moved by", "within 10 %", "place stays"]
    yield "| method | " + " | ".join(names) + " |"
    yield "| --- |" + " --- |" * len(names)
    for method, found in by_method.items():
        cells: list[str] = []
        for kind in ("", *others):
            group = [p for p in found if (p.kind == kind if kind else p.kind not in (SEED, SECOND, ANOTHER))]
            there = [(p.moved, p.patient) for p in group if p.moved is not None]
            known = [(float(bool(p.same)), p.patient) for p in group if p.alike and p.same is not None]
            moved = [100 * one for one, _ in there]
            cells += [str(len(there)), f"{np.median(moved):.1f} ({np.percentile(moved, 90):.0f})" if moved else ""]
            cells += [_percent([(float(one <= NEAR), who) for one, who in there])]
            cells += [f"{_percent(known)}; {sum(one for one, _ in known):.0f} / {len(known)}" if known else ""]
        yield f"| {method} | " + " | ".join(cells) + " |"


def _cell(group: list[Pair]) -> str:
    moved = [100 * pair.moved for pair in group if pair.moved is not None]
    known = [pair for pair in group if pair.alike and pair.same is not None]
    if not moved:
        return ""
    said = f"{np.median(moved):.1f} ({np.percentile(moved, 90):.0f})"
    return f"{said}; {sum(bool(pair.same) for pair in known)} / {len(known)}" if known else said


def _percent(values: list[tuple[float, str]]) -> str:
    """A share, with its interval where there are enough patients for one."""
    if not values:
        return ""
    shares, patients = zip(*values, strict=True)
    mean, low, high = (100 * number for number in interval(shares, patients))
    return f"{mean:.0f}" + (f" ({low:.0f} to {high:.0f})" if len(set(patients)) >= FEW else "")


def _probability(classifier: Classifier, scan: Scan) -> float:
    with torch.inference_mode():
        found = classifier.probabilities(classifier(classifier.prepare(scan)[None]))
    return float(found[0, classifier.index(TARGET)])


def _digest(name: str) -> str:
    return sha256(name.encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--films", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=0, help="of how many patients a second film is read")
    parser.add_argument("--phantoms", type=int, default=0)
    parser.add_argument("--methods", default=";".join(METHODS), help="names, with a semicolon between them")
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.report:
        found = [row for file in sorted(args.out.glob("*.json")) for row in json.loads(file.read_text())]
        print("\n".join(tables(found)))
        return
    torch.set_num_threads(1)
    engines = {model: Engine(load_classifier(f"lucency:{model}")) for model in ("effusion", "phantom")}
    by_kind = (
        films(args.films, args.seconds, engines["effusion"].classifier),
        phantoms(args.phantoms, engines["phantom"].classifier),
    )
    # In turn, so that both are there whenever it is stopped.
    for subject in filter(None, chain.from_iterable(zip_longest(*by_kind))):
        for name in args.methods.split(";"):
            file = args.out / f"{subject.model}-{subject.name}-{'-'.join(re.findall('[a-z0-9]+', name.lower()))}.json"
            # What was measured without copies, for a smaller number of films, is measured again with them.
            if not file.exists() or subject.copies > json.loads(file.read_text())[0]["copies"]:
                part = file.with_suffix(".part")
                part.write_text(json.dumps(explained(subject, engines[subject.model], name)))
                part.replace(file)
                print(file.name, flush=True)


if __name__ == "__main__":
    main()
