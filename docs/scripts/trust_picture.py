"""The picture of docs/trust.md, from the tables of docs/appendix/trust.md.

python docs/scripts/trust_picture.py [--out docs/images/trust.png]
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parents[2]
TABLES = {
    "Simulated patients\n(truth exact, 100)": "Methods and removals: Phantoms",
    "Real films, simulated fluid\n(truth exact, 54)": "Methods and removals: Normal films with simulated fluid",
    "Real films with a doctor's box\n(35; chance 7 %)": "Methods and removals: Real films with a radiologist's box",
}
ROWS = {
    ("gradcam", "none"): "Grad-CAM",
    ("layercam", "none"): "LayerCAM",
    ("occlusion:patch=32", "healthy"): "Occlusion 32, healthy",
    ("occlusion:patch=32", "mean"): "Occlusion 32, mean",
    ("occlusion:patch=32", "constant"): "Occlusion 32, black",
    ("occlusion:patch=32", "blur"): "Occlusion 32, blur",
}
FIGURE = re.compile(r"([\d.]+) \(([\d.]+) to ([\d.]+)\)")


def hit_rates(page: str, title: str) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Hit rate and its interval by method and removal, from the table below a heading."""
    table = page.split(f" {title}", 1)[1].split("\n\n", 2)[1]
    found = {}
    for line in table.splitlines()[2:]:
        method, removal, rate = (cell.strip() for cell in line.strip("|").split("|")[:3])
        if match := FIGURE.fullmatch(rate):
            found[method, removal] = (float(match[1]), float(match[2]), float(match[3]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "trust.png")
    args = parser.parse_args()
    page = (ROOT / "docs" / "appendix" / "trust.md").read_text()
    figure, panels = plt.subplots(1, len(TABLES), figsize=(10, 3.1), sharey=True, layout="constrained")
    for panel, (title, heading) in zip(panels, TABLES.items(), strict=True):
        rates = hit_rates(page, heading)
        for row, key in enumerate(ROWS):
            rate, low, high = rates[key]
            panel.plot([low, high], [row, row], color="#9aa5b1", linewidth=5, solid_capstyle="round")
            panel.plot(rate, row, "o", color="#d1620a", markersize=7)
            above = {"xytext": (0, 7), "textcoords": "offset points"}
            panel.annotate(f"{100 * rate:.0f}", (rate, row), **above, ha="center", fontsize=8)
        panel.set_title(title, fontsize=9)
        panel.set_xlim(0, 1.03)
        panel.set_ylim(len(ROWS) - 0.5, -0.7)
        panel.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
        panel.tick_params(labelsize=8, length=0)
        panel.grid(axis="x", color="#e3e7eb", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.spines[:].set_visible(False)
    panels[0].set_yticks(range(len(ROWS)), list(ROWS.values()))
    panels[-1].axvline(0.07, color="#5b6570", linewidth=0.8, linestyle=":")
    figure.get_layout_engine().set(wspace=0.06)
    figure.supxlabel("How often the map's maximum lies on the fluid; bars are 95 % intervals", fontsize=8)
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
