"""The league table: every method on simulated effusions whose place is exactly known.

    python benchmarks/trust/league.py --phantoms 50

Each phantom has an effusion of 100 to 800 ml and comes from a seed that no training has seen. Every method explains
why the model calls it an effusion; its map is compared with the fluid, and the scan is taken apart along it. The
threshold of the overlap is chosen for each method on other phantoms (`--validation`). Each map leaves one line of JSON
behind, so that the run can be stopped (`--minutes`) and started again. One phantom follows the other, so that all
methods have seen the same ones. The table goes into the page between its two marks; what stands around them is kept.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from datetime import UTC, datetime
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lucency import LucencyError, Scan, evaluate, load_classifier
from lucency.attribution import attribute
from lucency.engine import Engine
from lucency.methods import METHODS, Method
from lucency.methods.expected_gradients import ExpectedGradients
from lucency.methods.extremal_perturbation import ExtremalPerturbation
from lucency.methods.igos_pp import IGOSpp
from lucency.methods.kernel_shap import KernelShap
from lucency.methods.lime import Lime
from lucency.methods.meaningful_perturbation import MeaningfulPerturbation
from lucency.methods.rise import Rise
from lucency.methods.smoothgrad import SmoothGrad
from lucency.metrics import iou, localise
from lucency.metrics.localisation import THRESHOLDS
from lucency.phantom import simulate
from lucency.removal import Constant, Mean

ROOT = Path(__file__).resolve().parents[2]
# Training, validation and test of the model draw from 1, 2 and 3 million on (training/train_phantom.py).
TEST_SEEDS, VALIDATION_SEEDS = 7_000_000, 8_000_000
REGION, REGIONS = 18, 25
FLUID_MM = 5.0
SIZE = 224
RESAMPLES = 2000
FEWEST = 4
NOTHING = "nothing"
BEGIN, END = "<!-- begin of what benchmarks/trust/league.py writes -->\n", "<!-- end -->\n"

Record = dict[str, Any]


def contestants() -> dict[str, Method | None]:
    """Every method with its defaults, the slow ones with fewer samples, and a map of noise that knows nothing."""
    quicker: dict[str, Method] = {
        "rise": Rise(samples=500),
        "lime": Lime(samples=400),
        "kernel_shap": KernelShap(samples=400),
        "smoothgrad": SmoothGrad(samples=25),
        "expected_gradients": ExpectedGradients(samples=50),
        "meaningful_perturbation": MeaningfulPerturbation(iterations=100),
        "extremal_perturbation": ExtremalPerturbation(areas=(0.1,), iterations=100),
        "igos_pp": IGOSpp(iterations=10, path=6),
    }
    # The papers' blur leaves these phantoms as sick as they were. The removals and the game were chosen on three of the
    # validation phantoms, after a first look at two of those that are reported on.
    emptying: dict[str, Method] = {
        "meaningful_perturbation:removal=mean": MeaningfulPerturbation(iterations=100, removal=Mean()),
        "extremal_perturbation:removal=mean": ExtremalPerturbation(areas=(0.1,), iterations=100, removal=Mean()),
        "igos_pp:removal=constant": IGOSpp(iterations=10, path=6, removal=Constant()),
    }
    # The shipped explainer has learnt from patients of these very seeds; benchmarks/instant.py has others for it.
    plain = {name: cls() for name, cls in METHODS.items() if name != "instant"}
    return {**plain, **quicker, **emptying, NOTHING: None}


@cache
def phantom(seed: int) -> tuple[Scan, NDArray[np.bool_], float, str]:
    """A scan with 100 to 800 ml of fluid, where at least 5 mm of it lie, the volume in ml and the side."""
    rng = np.random.default_rng([seed, 77])
    volume, side = float(rng.uniform(100, 800)), str(rng.choice(["left", "right"]))
    made = simulate(seed, volume_ml=volume, side=side, size=SIZE)
    scan = Scan(torch.from_numpy(made.image)[None], spacing=made.spacing_mm, source=f"phantom {seed}, {volume:.0f} ml")
    return scan, made.truth_mm >= FLUID_MM, volume, side


def measure(seed: int, validation: bool, name: str, engine: Engine, target: str) -> Record:
    """What one method makes of one phantom."""
    scan, truth, volume, side = phantom(seed)
    how = contestants()[name]
    record: Record = {"seed": seed, "method": name, "validation": validation, "volume_ml": volume, "side": side}
    started = time.process_time()
    try:
        if how is None:
            heatmap = np.random.default_rng(seed).standard_normal(scan.shape).astype(np.float32)
            record |= {"evaluations": 0, "gradients": 0}
        else:
            one = attribute(scan, engine, how, target=target)
            heatmap = one.heatmap
            record |= {"evaluations": one.provenance.cost.evaluations, "gradients": one.provenance.cost.gradients}
            record |= {"probability": one.probability, "parameters": one.provenance.method.parameters}
        # Of the process and not of the clock on the wall: the machine may be shared.
        record["seconds"] = time.process_time() - started
        record |= localise(heatmap, truth).as_dict()
        record["ious"] = [iou(heatmap, truth, threshold) for threshold in THRESHOLDS]
        if not validation:
            fall = evaluate(
                heatmap, scan, engine, target=target, curves=["MoRF"], region=REGION, regions=REGIONS, repeats=1
            )
            record["aopc"] = fall.curves[0].aopc.value
    except LucencyError as error:
        record["error"] = str(error)
    return record | {"took": time.process_time() - started}


def interval(values: list[float], rng: np.random.Generator) -> tuple[float, float, float]:
    """The mean over phantoms and its 95 % percentile bootstrap interval."""
    array = np.asarray(values, float)
    means = array[rng.integers(0, len(array), (RESAMPLES, len(array)))].mean(1)
    return float(array.mean()), *np.percentile(means, [2.5, 97.5]).tolist()


def rows_of(records: list[Record]) -> list[Record]:
    """One row for each method that has both kinds of phantoms behind it, best overlap first."""
    rows = []
    for name in contestants():
        learn = [r for r in records if r["method"] == name and r["validation"]]
        tell = [r for r in records if r["method"] == name and not r["validation"]]
        if not learn or len(tell) < FEWEST:
            continue
        failed = next((r["error"] for r in learn + tell if "error" in r), None)
        if failed is not None:
            rows.append({"method": name, "error": failed})
            continue
        at = int(np.mean([r["ious"] for r in learn], 0).argmax())
        rng = np.random.default_rng(0)
        row: Record = {
            "method": name,
            "threshold": float(THRESHOLDS[at]),
            "phantoms": f"{len(tell)} ({len(learn)})",
            "iou": interval([r["ious"][at] for r in tell], rng),
        }
        for key in ("pointing_game", "energy", "top", "aopc"):
            row[key] = interval([r[key] for r in tell], rng)
        for key in ("evaluations", "gradients", "seconds"):
            row[key] = float(np.median([r[key] for r in tell]))
        rows.append(row)
    if not rows:
        raise SystemExit("No method has seen enough phantoms yet; run for longer.")
    rows.sort(key=lambda r: -r["iou"][0] if "iou" in r else 1.0)
    return rows


def results(records: list[Record], command: str) -> str:
    """The table, how it came about and what its columns mean, for the page of the documentation."""
    rows = rows_of(records)
    test = [r for r in records if not r["validation"]]
    probabilities = {r["seed"]: r["probability"] for r in test if "probability" in r}
    volumes = {r["seed"]: r["volume_ml"] for r in test}
    areas = {r["seed"]: r["area"] for r in test if "area" in r}
    meta = next(r for r in records if "model" in r)
    found = sum(p >= 0.5 for p in probabilities.values())

    def cell(value: tuple[float, float, float]) -> str:
        return f"{value[0]:.2f} ({value[1]:.2f} to {value[2]:.2f})"

    lines = []
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['method']} | did not run: {row['error']} | | | | | | | | | |")
            continue
        cells = [cell(row[key]) for key in ("pointing_game", "iou", "energy", "top", "aopc")]
        costs = [f"{row[key]:,.0f}" for key in ("evaluations", "gradients")] + [f"{row['seconds']:.1f}"]
        rest = [f"{row['threshold']:.2f}", row["phantoms"], *costs]
        lines.append(f"| {row['method']} | " + " | ".join(cells + rest) + " |")
    table = "\n".join(lines)
    missing = sorted(set(contestants()) - {row["method"] for row in rows})
    absent = f"Not in it, for fewer than {FEWEST} phantoms so far: {', '.join(missing)}." if missing else ""
    used = {r["method"]: r["parameters"] for r in test if "parameters" in r}
    settings = "\n".join(
        f"| {name} | {', '.join(f'{key} {json.dumps(value)}' for key, value in used[name].items()) or 'none'} |"
        for name in sorted(used)
    )
    return f"""
```
{command}
```

made this on {len(volumes)} phantoms with {min(volumes.values()):.0f} to {max(volumes.values()):.0f} ml of fluid on one
side, seeds from {TEST_SEEDS:,} on, none of them used in training; model `{meta["model"]}`
({meta["fingerprint"][:12]}), which calls {found} of the {len(probabilities)} an effusion (probability of 0.5 or more).
The question is always the probability of effusion. {meta["machine"]}, {meta["threads"]} thread, {meta["date"]}.

| method | pointing game | IoU at best fixed threshold | energy on fluid | top 5 % on fluid | AOPC \
| threshold | phantoms | evaluations | gradients | CPU seconds |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
{table}

{absent}
Means over the phantoms, in brackets the 95 % bootstrap interval over phantoms ({RESAMPLES:,} resamples); medians of
evaluations, gradients and seconds of processor time. Sorted by IoU.

- *Phantoms*: how many the row reports on, and in brackets on how many others its threshold was chosen.
- *Fluid* is every pixel whose ray crosses at least {FLUID_MM:g} mm of it: {np.mean(list(areas.values())):.1%} of the
  picture on average, which is what a map that knows nothing gets for energy and for the top 5 %.
- *Pointing game*: how often the maximum of the map lies on fluid (where several pixels share it, the middle one).
- *IoU*: overlap of the fluid with the pixels above a fixed share of the map's maximum. The share was chosen for each
  method as the best one on other phantoms (seeds from {VALIDATION_SEEDS:,} on) and is given under *threshold*.
- *Energy*: share of the map's positive part on fluid. *Top 5 %*: share of the highest 5 % of the pixels on fluid.
- *AOPC*: mean fall of the probability while {REGIONS} regions of {REGION} x {REGION} pixels of the model's grid become
  uniform noise, most relevant first ([Evaluation](evaluation.md)); one run for each phantom.
- *{NOTHING}* is a map of white noise: the line to beat.

Settings (all others are the defaults; a removal is written with its own parameters):

| method | parameters |
| --- | --- |
{settings}

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lucency:phantom")
    parser.add_argument("--target", default="effusion")
    parser.add_argument("--phantoms", type=int, default=50)
    parser.add_argument(
        "--validation", "--tuning", dest="validation", type=int, default=10, help="phantoms to choose thresholds on"
    )
    parser.add_argument("--methods", help="only these, with commas between; all when left out")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after the map at hand")
    parser.add_argument("--records", type=Path, default=ROOT / "out" / "league.jsonl")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "league.md")
    arguments = parser.parse_args()

    engine = Engine(load_classifier(arguments.model))
    print(f"{engine.classifier!r} on {engine.device}, {torch.get_num_threads()} thread(s)")
    about = {
        "model": arguments.model,
        "fingerprint": engine.classifier.fingerprint,
        "machine": f"{platform.machine()}, {platform.system()}, PyTorch {torch.__version__}, {engine.device.type}",
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    arguments.records.parent.mkdir(parents=True, exist_ok=True)
    lines = arguments.records.read_text().splitlines() if arguments.records.exists() else []
    records = [r for r in map(json.loads, lines) if r["fingerprint"] == about["fingerprint"]]
    # One phantom to tune on for every two to report on, so that a method that is stopped early has both.
    validation = [(VALIDATION_SEEDS + i, True) for i in range(arguments.validation)]
    jobs = []
    for i in range(arguments.phantoms):
        if i % 2 == 0 and validation:
            jobs.append(validation.pop(0))
        jobs.append((TEST_SEEDS + i, False))
    jobs += validation
    done = {(r["method"], r["seed"]) for r in records}
    names = arguments.methods.split(",") if arguments.methods else list(contestants())
    started = time.perf_counter()
    with arguments.records.open("a") as file:
        for (seed, tune), name in product(jobs, names):
            if (name, seed) in done or time.perf_counter() - started > 60 * arguments.minutes:
                continue
            records.append(measure(seed, tune, name, engine, arguments.target) | about)
            file.write(json.dumps(records[-1]) + "\n")
            file.flush()
            print(
                f"{time.perf_counter() - started:6.0f} s  {name}, phantom {seed}: {records[-1]['took']:.1f} s",
                flush=True,
            )
    command = f"python benchmarks/trust/league.py --phantoms {arguments.phantoms} --validation {arguments.validation}"
    before, _, rest = arguments.page.read_text().partition(BEGIN)
    arguments.page.write_text(before + BEGIN + results(records, command) + END + rest.partition(END)[2])
    print(f"wrote {arguments.page}")


if __name__ == "__main__":
    main()
