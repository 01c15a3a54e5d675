"""The plot of docs/benchmarks.md, from what the benchmarks have left in out/bench.

python docs/scripts/speed.py [--bench out/bench] [--out docs/images/speed.png]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bench", type=Path, default=Path("out/bench"))
    parser.add_argument("--out", type=Path, default=Path("docs/images/speed.png"))
    args = parser.parse_args()
    occlusion = json.loads((args.bench / "occlusion.json").read_text())["rows"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    names = [f"{row['network']}, {row['size']} px" for row in occlusion]
    for offset, key, label in ((-0.2, "ratio", "measured, to Captum"), (0.2, "bound", "multiplications saved")):
        bars = left.barh([i + offset for i in range(len(names))], [row[key] for row in occlusion], 0.4, label=label)
        left.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    left.set_xscale("log")
    left.set_xlim(1, 60)
    left.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    left.minorticks_off()
    left.set_title("Exact occlusion: times faster", fontsize=10)
    left.legend(fontsize=8, frameon=False)
    for path in sorted(args.bench.glob("anytime*.json")):
        curve = json.loads(path.read_text())
        right.plot([r["processor"] for r in curve["rows"]], [r["rank"] for r in curve["rows"]], label=curve["model"])
    right.axhline(0.9, color="grey", linewidth=0.8)
    right.set_ylim(0, 1.02)
    right.set_xlabel("processor seconds", fontsize=8)
    right.set_title("Occlusion: rank correlation with the finished map", fontsize=10)
    right.legend(fontsize=8, frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, dpi=120)


if __name__ == "__main__":
    main()
