"""How soon an occlusion map is useful: its rank correlation with the finished map, against time.

    python benchmarks/anytime.py [--model lucency:phantom] [--scan FILE] [--out FILE]

Time is counted from opening the scan on: in processor seconds of this process (which a busy machine does not stretch),
and on the wall.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from scipy.stats import spearmanr
from torch import Tensor

from lucency import load_classifier, read_scan
from lucency.classifier import Question
from lucency.engine import Engine
from lucency.methods.occlusion import Occlusion


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="lucency:phantom")
    parser.add_argument("--scan", type=Path, default=Path("src/lucency/phantom/demo.png"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("out/bench/anytime.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    classifier, scan = load_classifier(args.model), read_scan(args.scan)
    question = Question.ask(classifier, scan, None, "probability")
    engine = Engine(classifier, device="cpu")
    wall, processor = time.perf_counter(), time.process_time()
    maps: list[tuple[float, float, int, Tensor]] = [
        (time.process_time() - processor, time.perf_counter() - wall, step.evaluations, step.heatmap().flatten())
        for step in Occlusion(patch=16, stride=8).anytime().steps(scan, question, engine)
    ]
    last = maps[-1][3]
    rows = [
        {"processor": p, "wall": w, "evaluations": n, "rank": float(spearmanr(m, last).statistic)}
        for p, w, n, m in maps
    ]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"model": args.model, "threads": args.threads, "rows": rows}, indent=1))
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
