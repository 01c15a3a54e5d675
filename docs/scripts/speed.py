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
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    names = [f"{row['network']}\n{row['size']} px" for row in occlusion]
    for offset, key, label in ((-0.2, "ratio", "measured, to Captum"), (0.2, "bound", "multiplications saved")):
        bars = left.bar([i + offset for i in range(len(names))], [row[key] for row in occlusion], 0.4, label=label)
        left.bar_label(bars, fmt="%.1f", fontsize=8)
    left.set_xticks(range(len(names)), names, fontsize=8)
    left.axhline(1, color="grey", linewidth=0.8)
    left.set_title("Exact occlusion: times faster", fontsize=10)
    left.set_ylim(0, 1.3 * max(max(row["ratio"], row["bound"]) for row in occlusion))
    left.legend(fontsize=8, frameon=False, loc="upper left", ncols=2)
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
