"""The instant map and settled occlusion against all patches, on scans that trained nothing.

    python benchmarks/instant.py phantom --work work/explainers --scans 100
    python benchmarks/instant.py effusion --work work/explainers --scans 100 --bound
    python benchmarks/instant.py phantom --work work/explainers --scans 40 --part calibrate --wider 1 1.5 2
    python benchmarks/instant.py phantom --work work/explainers --time

Whole maps (patch 16, stride 8, healthy tissue in the patch) are computed once for each scan and kept in ``--work``, so
that a run goes on where it was stopped, and a further one takes seconds. What settled occlusion asks is looked up in
them: the counts are those of a real run. Simulated patients are those of seeds 7,900,000 and up, films those of the
test patients of ``lucency:effusion``, one of each patient. ``--part calibrate`` takes those patients instead that
calibrate the bands of explainers; on them ``--wider`` chose how much wider settling draws what is still possible.
``--bound`` asks the patches where the model is farthest off first, as only somebody can who knows the map, and stops
as soon as the promise holds: nobody who asks by this model can save more. ``--time`` measures the time of an instant
map and of a forward pass, in turn.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))

from lucency import load_classifier, read_scan
from lucency.classifier import Question
from lucency.engine import Engine
from lucency.explainers.shelf import explainer_for, predicted
from lucency.explainers.training import part_of
from lucency.masks import Patches
from lucency.methods import Instant, settling
from lucency.methods.settling import Prior, Scale, agreeing, settled
from lucency.removal import Healthy
from train_explainers import COUNTS, FIRST, films, items_of, simulated

PATCHES = Patches((224, 224), (16, 16), (8, 8))
CONFIDENCE = 0.9


def scans_of(model: str, work: Path, count: int, part: str = "report") -> list[Path]:
    """The files that are reported on, or calibrated with: one of each patient, in an order that a hash decides."""

    def by_hash(path: Path) -> str:
        return sha256(path.name.encode()).hexdigest()

    if part == "calibrate":
        items = [item for item in items_of(model, work, COUNTS[model]) if part_of(item.patient) == part]
        found = [(item.read.args[0], item.patient) for item in items]
    elif model == "phantom":
        simulated(work / "report-phantom", FIRST["report"], 120)
        found = [(p, p.name.split("-")[0]) for p in (work / "report-phantom").glob("*.png")]
    else:
        found = [(p, who) for p, who, part in films() if part == "test"]
    one_each: dict[str, Path] = {}
    for path, who in sorted(found, key=lambda pair: by_hash(pair[0])):
        one_each.setdefault(who, path)
    return sorted(one_each.values(), key=by_hash)[:count]


@dataclass(frozen=True)
class Whole:
    """All patches of a scan: the clean score, and float64 ``[N]`` falls."""

    path: Path
    clean: float
    falls: torch.Tensor
    seconds: float

    @property
    def heatmap(self) -> NDArray[np.float32]:
        """The map, ``[224, 224]``."""
        found: NDArray[np.float32] = PATCHES.averaged(self.falls.view(1, *PATCHES.counts))[0].numpy()
        return found


def whole_maps(engine: Engine, paths: list[Path], kept: Path) -> Iterator[Whole]:
    """Every patch of every scan, asked about once for all runs of this script."""
    kept.mkdir(parents=True, exist_ok=True)
    for path in paths:
        file = kept / f"{path.stem}.npz"
        if not file.exists():
            began, one = time.process_time(), engine.remembering()
            scan = read_scan(path)
            probe = one.open(scan, one.question(scan, "effusion"), Healthy())
            falls = torch.zeros(len(PATCHES))
            for batch in probe.together(PATCHES.boxes, torch.arange(len(PATCHES))):
                falls[batch] = probe.clean[0] - probe.scores(PATCHES.masks(batch), PATCHES.boxes[batch])[:, 0]
            np.savez(file, falls=falls.numpy(), clean=float(probe.clean[0]), seconds=time.process_time() - began)
        stored = np.load(file)
        yield Whole(path, float(stored["clean"]), torch.from_numpy(stored["falls"]).double(), float(stored["seconds"]))


def compared(engine: Engine, whole: Whole, widers: list[float], bound: bool) -> dict[str, float]:
    """What the instant map and the settled answer are worth on one scan."""
    classifier, scan = engine.classifier, read_scan(whole.path)
    learnt = explainer_for(classifier, None)
    assert learnt is not None
    found = predicted(learnt, scan, Question.ask(classifier, scan, "effusion"), engine)[1]
    mine, true = found.heatmap.numpy(), whole.heatmap
    tops = [m >= np.quantile(m, 0.9) for m in (mine, true)]
    peaks = [np.array(np.unravel_index(m.argmax(), m.shape)) for m in (mine, true)]
    row = {
        "p": whole.clean,
        "pearson": float(np.corrcoef(mine.ravel(), true.ravel())[0, 1]),
        "peak": float(np.abs(peaks[0] - peaks[1]).max()),
        "iou": float((tops[0] & tops[1]).sum() / (tops[0] | tops[1]).sum()),
        "covered": float((np.abs(mine - true) <= found.band.numpy() + 1e-9).mean()),
        "far": float(found.distance > 1),
    }
    scan_engine = engine.remembering()
    probe = scan_engine.open(scan, scan_engine.question(scan, "effusion"), Healthy())
    kinds = probe.alignment(PATCHES.boxes)
    prior = Prior(found.inner.double().flatten(), True, found.error.double().flatten())
    for wider in widers:
        row |= {f"{name}{wider}": value for name, value in answered(whole, prior, kinds, wider).items()}
    if bound:
        row["bound"] = fewest(whole, prior)
    return row | {"seconds of all": whole.seconds}


def answered(whole: Whole, prior: Prior, kinds: torch.Tensor, wider: float) -> dict[str, float]:
    """How many patches settled occlusion asks, and whether its promise holds."""
    settling.WIDER = wider
    began, asked, mean = time.process_time(), 0, whole.falls
    scale, chance = Scale(whole.clean, True), torch.Generator().manual_seed(0)
    for which, _, belief in settled(prior, PATCHES, kinds, scale, lambda w: whole.falls[w], CONFIDENCE, chance):
        asked += len(which)
        mean = whole.falls if belief is None else belief.mean
    seconds, true = time.process_time() - began, whole.heatmap
    return {
        "asked": asked,
        "held": agreeing(PATCHES, whole.falls, mean[None]),
        "error": float(np.abs(PATCHES.averaged(mean.view(1, 27, 27))[0].numpy() - true).max() / np.abs(true).max()),
        "own seconds": seconds,
    }


def fewest(whole: Whole, prior: Prior) -> int:
    """How many patches are asked by somebody who knows the map: always those where the model is farthest off."""
    scale, known = Scale(whole.clean, True), torch.zeros(len(PATCHES), dtype=torch.bool)
    inner = scale.inward(whole.falls)
    known[whole.falls.abs().argsort(descending=True)[: settling.FIRST]] = True
    fitted_with, field = 0, None
    while not known.all():
        if field is None or int(known.sum()) >= settling.REFIT * fitted_with:
            field, fitted_with = settling._Field.fitted(prior, PATCHES, scale, inner, known), int(known.sum())
        mean = scale.outward(field.guess(inner, known).mean)
        mean[known] = whole.falls[known]
        if agreeing(PATCHES, whole.falls, mean[None]) == 1:
            break
        known[(mean - whole.falls).abs().argsort(descending=True)[: settling.ROUND]] = True
    return int(known.sum())


def timed(model: str, rounds: int = 60) -> None:
    """An instant map beside a forward pass, in turn, on one and on two threads."""
    classifier = load_classifier(f"lucency:{model}")
    scan = read_scan(Path(__file__).resolve().parents[1] / "src" / "lucency" / "phantom" / "demo.png")
    engine, x = Engine(classifier), classifier.prepare(scan)[None]
    question = Question.ask(classifier, scan, "effusion")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        seconds: dict[str, list[float]] = {"pass": [], "map": []}
        for _ in range(rounds):
            began = time.perf_counter()
            with torch.inference_mode():
                classifier(x)
            seconds["pass"].append(time.perf_counter() - began)
            began = time.perf_counter()
            for step in Instant().steps(scan, question, engine):
                step.heatmap()
            seconds["map"].append(time.perf_counter() - began)
        middle = {name: 1e3 * statistics.median(values[5:]) for name, values in seconds.items()}
        least = {name: 1e3 * min(values[5:]) for name, values in seconds.items()}
        print(
            f"{model}, {threads} thread(s): a pass {middle['pass']:.1f} ms (least {least['pass']:.1f}), an instant map "
            f"{middle['map']:.1f} ms (least {least['map']:.1f}), {middle['map'] / middle['pass']:.2f} passes "
            f"({least['map'] / least['pass']:.2f})"
        )


def summed_up(model: str, rows: list[dict[str, float]], widers: list[float], words: str) -> None:
    """One paragraph about some scans."""
    column = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    low, high = np.quantile(column["pearson"], (0.25, 0.75))
    print(
        f"{model}, {len(rows)} scans {words}: Pearson {np.median(column['pearson']):.3f} (quartiles {low:.2f} to "
        f"{high:.2f}), distance of peaks {np.median(column['peak']):.0f} px (within one patch on "
        f"{np.mean(column['peak'] <= 16):.0%}), IoU {np.median(column['iou']):.2f}, band holds "
        f"{np.mean(column['covered']):.1%}, called far {np.mean(column['far']):.0%}"
    )
    for wider in widers:
        asked, own, error = (column[f"{name}{wider}"] for name in ("asked", "own seconds", "error"))
        quick = own.sum() + (column["seconds of all"] * asked / len(PATCHES)).sum()
        print(
            f"  settled, wider {wider}: promise held {np.mean(column[f'held{wider}']):.1%}, {np.median(asked):.0f} "
            f"patches asked in the median, {len(PATCHES) * len(rows) / asked.sum():.2f} times fewer in all, "
            f"{column['seconds of all'].sum() / quick:.2f} times quicker, error {np.median(error):.4f} in the median, "
            f"{error.max():.4f} at most"
        )
    if "bound" in column:
        most = len(PATCHES) * len(rows) / column["bound"].sum()
        print(f"  bound: {np.median(column['bound']):.0f} patches in the median, {most:.2f} times fewer in all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["phantom", "effusion"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--scans", type=int, default=100)
    parser.add_argument("--part", choices=["report", "calibrate"], default="report")
    parser.add_argument("--wider", type=float, nargs="+", default=[settling.WIDER])
    parser.add_argument("--bound", action="store_true")
    parser.add_argument("--time", action="store_true")
    arguments = parser.parse_args()
    if arguments.time:
        timed(arguments.model)
        return
    torch.set_num_threads(1)
    engine = Engine(load_classifier(f"lucency:{arguments.model}"))
    paths = scans_of(arguments.model, arguments.work, arguments.scans, arguments.part)
    rows = []
    for whole in whole_maps(engine, paths, arguments.work / "whole" / arguments.model):
        rows.append(compared(engine, whole, arguments.wider, arguments.bound))
        print(whole.path.name, {name: round(value, 3) for name, value in rows[-1].items()}, flush=True)
    called = [row for row in rows if row["p"] >= 0.5]
    others = [row for row in rows if row["p"] < 0.5]
    for some, words in ((rows, "in all"), (called, "called an effusion (p >= 0.5)"), (others, "not called one")):
        if some:
            summed_up(arguments.model, some, arguments.wider, words)


if __name__ == "__main__":
    main()
