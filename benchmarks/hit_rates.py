"""How often a map's maximum lies on a known effusion, and the verdict names its side.

    python benchmarks/hit_rates.py --methods occlusion:healthy,occlusion:constant,gradcam --phantoms 50 --films

Writes ``src/lucency/checks/hits.json``, from which verdicts quote; a row that is there is replaced. Phantoms are
like those of the league table; films are those with a radiologist's box around an effusion (``LUCENCY_SHARED``), from
which no model has learnt. A box marks one side; on a film with fluid on both, the other side counts as wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucency import Scan, load_classifier, read_scan
from lucency.attribution import attribute
from lucency.checks.verdict import judge
from lucency.engine import Engine
from lucency.lungs import lung_fields
from lucency.lungs.zones import midline
from lucency.methods import method_named
from lucency.phantom import simulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from films import read_boxes, shared

FIRST = 7_000_000
DEEP = 5.0
"""Millimetres of fluid from which on a ray is on it."""
STORED = Path(__file__).resolve().parents[1] / "src" / "lucency" / "checks" / "hits.json"

Case = tuple[Scan, NDArray[np.bool_], str]
"""A scan, where its effusion is, and on which side of the patient (empty where that cannot be told)."""


def phantoms(count: int) -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for i in range(count):
        side, volume = ("right", "left")[i % 2], float(np.exp(rng.uniform(np.log(125), np.log(800))))
        phantom = simulate(FIRST + i, volume_ml=volume, side=side)
        yield Scan.from_array(phantom.image), phantom.truth_mm >= DEEP, side


def films() -> Iterator[Case]:
    for name, (x, y, w, h) in sorted(read_boxes().items()):
        scan = read_scan(shared() / "xrays" / "nih" / name)
        truth = np.zeros(scan.shape, bool)
        truth[round(y) : round(y + h), round(x) : round(x + w)] = True
        lungs = lung_fields(scan)
        yield scan, truth, "" if lungs is None else "right" if x + w / 2 < midline(lungs) else "left"


def measured(cases: list[Case], truth: str, model: str, word: str) -> dict[str, Any]:
    classifier = load_classifier(model)
    engine = Engine(classifier)
    name, _, removal = word.partition(":")
    if name == "instant" and truth.startswith("phantoms"):
        raise SystemExit("The shipped explainer has learnt from these phantoms; benchmarks/instant.py measures it.")
    method = method_named(name, **({"removal": removal} if removal else {}))
    peak = sided = side = 0
    settings: dict[str, Any] = {}
    for scan, where, right in cases:
        found = attribute(scan, engine, method, target="effusion")
        if found.peak is None:
            continue
        peak += bool(where[found.peak])
        said = judge(found).side
        sided += bool(said and right)
        side += bool(said and said == right)
        settings = {k: v for k, v in found.provenance.method.parameters.items() if k in ("patch", "samples")}
        removal = found.removal
    return {
        "model": model, "fingerprint": classifier.fingerprint, "target": "effusion", "method": name,
        "settings": settings, "removal": removal, "truth": truth,
        "scans": len(cases), "peak": peak, "sided": sided, "side": side,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--methods", required=True, help="names, with a removal after a colon where it is not the default"
    )
    parser.add_argument("--phantoms", type=int, default=0)
    parser.add_argument("--films", action="store_true")
    args = parser.parse_args()
    kinds: list[tuple[list[Case], str, str]] = []
    if args.phantoms:
        kinds.append((list(phantoms(args.phantoms)), "phantoms with a known effusion", "lucency:phantom"))
    if args.films:
        kinds.append((list(films()), "films with a radiologist's box around an effusion", "lucency:effusion"))
    for cases, truth, model in kinds:
        for word in args.methods.split(","):
            row = measured(cases, truth, model, word)
            print(row, flush=True)
            keys = ("model", "target", "method", "removal", "settings")
            stored = [old for old in json.loads(STORED.read_text()) if any(old[key] != row[key] for key in keys)]
            rows = sorted([*stored, row], key=lambda r: (r["model"], r["method"], r["removal"], str(r["settings"])))
            STORED.write_text("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")


if __name__ == "__main__":
    main()
