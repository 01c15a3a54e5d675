"""Chooses method and removal of `lucency explain` by a rule that was written before the numbers were looked at.

    python benchmarks/default.py --out out/default --films FOLDER

THE RULE, as it stood before the first row was made:

1. Cases of three kinds: P, phantoms that no training and no other table has drawn (``lucency:phantom``, 25 to
   1,000 ml); S, normal films of test patients with simulated fluid, one draw a patient; B, films with a radiologist's
   box around an effusion (both ``lucency:effusion``). Every second phantom, and every second patient,
   chooses; the others confirm.
2. Five numbers: the share of maps whose maximum lies on the truth in P, in S and in B (a map that is nowhere above 0
   misses), and the mean Pearson correlation with occlusion by the twin in P and in S. The score is their mean.
3. Out is who removes in pieces with which 1 % or more of the copies of normal scans are called abnormal, on phantoms
   or on films (the table of artefacts: patches of 16 and 32 pixels for occlusion, half of the superpixels for
   LIME, SHAP, RISE and learned masks), and whose median map on a film takes over 30 s of processor time.
4. The leader is who has the highest score on the choosing half. Whoever is not worse than the leader by the paired
   bootstrap over patients (95 % interval of the difference reaches 0) is its equal. Of these the one with the least
   processor time (median over S and B) is the default.
5. The other half confirms: the score of the one chosen, and its difference from the default of before (occlusion with
   `healthy`), with intervals, whatever they are. If it is worse there (interval below 0), the default stays.

Boxes and test films have been looked at in earlier tables (docs/appendix/trust.md); the phantoms are new. A map that
combines two others costs both.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from lucency import LucencyError, load_classifier
from lucency.attribution import attribute
from lucency.engine import Engine
from trust.films import boxed, simulated
from trust.measuring import Case, gold_map, phantom_case
from trust.rows import contestants

FIRST = 1000
"""Phantoms from here on are in no other table."""
METHODS = "gradcam,gradcam_plus_plus,layercam,integrated_gradients,occlusion,occlusion:patch=32"
REMOVALS = "constant,mean,healthy"
OLD = "occlusion:healthy"
MODELS = {"phantom": "lucency:phantom", "simulated": "lucency:effusion", "box": "lucency:effusion"}
NUMBERS = (("phantom", "hit"), ("simulated", "hit"), ("box", "hit"), ("phantom", "gold"), ("simulated", "gold"))
DRAWS = 2000

Heat = NDArray[np.float32]


def ranks(*maps: Heat) -> Heat:
    """Mean of the ranks in 0..1."""
    return np.mean([rankdata(m).reshape(m.shape) / m.size for m in maps], axis=0, dtype=np.float32)


def product(*maps: Heat) -> Heat:
    """Geometric mean of what speaks for the class."""
    return np.prod([m.clip(0, None) / max(float(m.max()), 1e-12) for m in maps], axis=0) ** (1 / len(maps))


COMBINED: Mapping[str, Callable[..., Heat]] = {"ranks": ranks, "product": product}


def cases(count: int, films: Path | None, kept: Path) -> Iterator[tuple[str, Callable[[], Case]]]:
    """A name and how to get it; kinds in turns, so that a run that is stopped has some of each."""
    lists: list[list[tuple[str, Callable[[], Case]]]] = [
        [(f"phantom {FIRST + i}", lambda i=i: phantom_case(FIRST + i, kept)) for i in range(count)]
    ]
    if films is not None:
        lists += [[(f"{film.kind} {film}", film.case) for film in some] for some in (simulated(films, 1), boxed(films))]
    while any(lists):
        for some in lists:
            if some:
                yield some.pop(0)


def measured(case: Case, engine: Engine, hows: list[tuple[str, str, Any]]) -> Iterator[dict[str, Any]]:
    """A row for every contestant: the plain ones, then those of two."""
    assert case.truth is not None
    gold = None if case.twin is None else gold_map(case, engine, "effusion", "probability").ravel()
    maps: dict[str, tuple[Heat, float]] = {}
    for method, removal, how in hows:
        started = time.process_time()
        heat = attribute(case.scan, engine, how, target="effusion").heatmap
        maps[f"{method}:{removal}".rstrip(":")] = heat, time.process_time() - started
    plain = list(maps)
    for cam in ("gradcam", "layercam"):
        for fine in (name for name in plain if name.startswith("occlusion")):
            for word, how in COMBINED.items():
                (a, s), (b, t) = maps[cam], maps[fine]
                maps[f"{word}({cam}, {fine})"] = how(a, b), s + t
    for name, (heat, seconds) in maps.items():
        agreed = None
        if gold is not None and np.ptp(gold) > 1e-3:
            agreed = float(np.corrcoef(heat.ravel(), gold)[0, 1]) if np.ptp(heat) > 0 else 0.0
        hit = bool(heat.max() > 0 and case.truth.ravel()[int(heat.argmax())])
        yield {
            "kind": case.kind, "case": case.name, "patient": case.patient or case.name, "part": case.part,
            "how": name, "hit": float(hit), "gold": agreed, "seconds": round(seconds, 3),
        }  # fmt: skip


def table(rows: list[dict[str, Any]], part: str) -> dict[tuple[str, str], dict[str, dict[str, float]]]:
    """``{(kind, number): {contestant: {patient: value}}}`` of the cases that every contestant has."""
    names = sorted({row["how"] for row in rows})
    seen: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        seen[row["kind"], row["case"]].add(row["how"])
    found: dict[tuple[str, str], dict[str, dict[str, list[float]]]] = {}
    for row in rows:
        if row["part"] != part or seen[row["kind"], row["case"]] < set(names):
            continue
        for kind, number in NUMBERS:
            if row["kind"] == kind and row[number] is not None:
                of = found.setdefault((kind, number), {}).setdefault(row["how"], {})
                of.setdefault(row["patient"], []).append(row[number])
    return {
        k: {how: {p: float(np.mean(v)) for p, v in per.items()} for how, per in of.items()} for k, of in found.items()
    }


def scores(values: dict[tuple[str, str], dict[str, dict[str, float]]]) -> tuple[list[str], Heat, Heat]:
    """Contestants, their scores ``[N]``, and the scores of the same draws of patients for all ``[DRAWS, N]``."""
    names = sorted(next(iter(values.values())))
    rng = np.random.default_rng(0)
    drawn = {}
    for kind in sorted({kind for kind, _ in values}):
        patients = sorted({p for (k, _), of in values.items() if k == kind for p in of[names[0]]})
        drawn[kind] = patients, rng.integers(len(patients), size=(DRAWS, len(patients)))
    means, draws = [], []
    for (kind, _), of in sorted(values.items()):
        patients, picks = drawn[kind]
        grid = np.array([[of[how].get(p, np.nan) for p in patients] for how in names], np.float32)
        means.append(np.nanmean(grid, axis=1))
        draws.append(np.nanmean(grid[:, picks], axis=2).T)
    return names, np.mean(means, axis=0), np.mean(draws, axis=0)


def interval(values: Heat) -> str:
    return f"{np.mean(values):.2f} ({np.quantile(values, 0.025):.2f} to {np.quantile(values, 0.975):.2f})"


def report(rows: list[dict[str, Any]]) -> str:
    """The table of both halves, and what the rule says."""
    lines, chosen = [], ""
    seconds = {
        how: float(np.median([r["seconds"] for r in rows if r["how"] == how and r["kind"] != "phantom"]))
        for how in {r["how"] for r in rows}
        if any(r["kind"] != "phantom" for r in rows)
    }
    for part, title in (("validation", "The half that chooses"), ("test", "The half that confirms")):
        values = table(rows, part)
        if len(values) < len(NUMBERS):
            return "There are not yet rows of each kind."
        names, mean, draws = scores(values)
        order = sorted(range(len(names)), key=lambda i: -mean[i])
        allowed = [i for i in order if seconds[names[i]] <= 30]
        counts = {key: len(next(iter(of.values()))) for key, of in values.items()}
        lines += [f"### {title}", "", "| | score | " + " | ".join(f"{k} {n} ({counts[k, n]})" for k, n in NUMBERS)
                  + " | CPU s on a film |", "| --- " * (len(NUMBERS) + 3) + "|"]  # fmt: skip
        for i in order:
            cells = [f"{np.mean(list(values[key][names[i]].values())):.2f}" for key in NUMBERS]
            lines.append(f"| {names[i]} | {mean[i]:.3f} | {' | '.join(cells)} | {seconds[names[i]]:.1f} |")
        lines.append("")
        if part == "validation":
            leader = allowed[0]
            equal = [i for i in allowed if np.quantile(draws[:, i] - draws[:, leader], 0.975) >= 0]
            chosen = names[min(equal, key=lambda i: seconds[names[i]])]
            lines += [
                f"Leader: {names[leader]}. Its equals: {', '.join(names[i] for i in equal)}. Cheapest: {chosen}.",
                "",
            ]
        else:
            one, old = draws[:, names.index(chosen)], draws[:, names.index(OLD)]
            lines += [f"Chosen: {chosen}, score {interval(one)}; the default of before, {OLD}, {interval(old)}; "
                      f"difference {interval(one - old)}.", ""]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--phantoms", type=int, default=70)
    parser.add_argument(
        "--films", type=Path, help="nih/, nih_boxes.csv, nih_labels.csv; without it only phantoms are made"
    )
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--removals", default=REMOVALS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "rows.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {row["asked"] for row in rows}
    engines = {name: Engine(load_classifier(name)) for name in set(MODELS.values())}
    hows = contestants(args.methods, args.removals)
    for asked, get in cases(args.phantoms, args.films, args.out / "cases"):
        if asked in done:
            continue
        try:
            case = get()
            made = [{"asked": asked, **row} for row in measured(case, engines[MODELS[case.kind]], hows)]
        except LucencyError as error:
            print(f"{asked} is left out: {error}", file=sys.stderr, flush=True)
            continue
        rows += made
        with file.open("a") as kept:
            kept.writelines(json.dumps(row) + "\n" for row in made)
        print(asked, flush=True)
    (args.out / "default.md").write_text(report(rows) + "\n")
    print(report(rows))


if __name__ == "__main__":
    main()
