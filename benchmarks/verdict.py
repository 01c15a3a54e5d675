"""How well the lung fields and the verdict's places do on simulated patients that they have not seen.

    python benchmarks/verdict.py

Prints the Dice coefficients of the lung fields without and with fluid, and on how many patients the verdict on the true
fluid map names the right side, and base or costophrenic angle.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from lucency import Explanation, Scan
from lucency.checks.verdict import judge
from lucency.lungs import lung_fields
from lucency.phantom import Anatomy
from lucency.phantom.parameters import draw

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from train_lungs import visible_lungs

FIRST = 8_100_000
VOLUMES = (60, 100, 150, 200, 300, 400, 600, 800, 1000, 500)
ASKED = {
    "question": {"name": "effusion", "watch": "probability", "label": "probability of effusion"},
    "scan": {"spacing": None},
    "complete": True,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=20)
    args = parser.parse_args()
    sides, zones = [], []
    dice: dict[str, list[tuple[float, float]]] = {"without fluid": [], "with fluid": []}
    for k in range(args.patients):
        side, volume = ("right", "left")[k % 2], VOLUMES[k // 2 % len(VOLUMES)]
        anatomy = Anatomy(draw(FIRST + k, 256, 0.0, "right", None, None, None, None, None))
        phantom, truth = anatomy.render(volume, side), visible_lungs(anatomy)
        for kind, image in (("without fluid", phantom.twin), ("with fluid", phantom.image)):
            lungs = lung_fields(Scan.from_array(image))
            if lungs is not None:
                pairs = ((lungs.right, truth[0]), (lungs.left, truth[1]))
                right, left = (float(2 * (a & b).sum() / (a.sum() + b.sum())) for a, b in pairs)
                dice[kind].append((right, left))
        said = judge(Explanation(phantom.truth_mm, phantom.image[None], None, {}, {"effusion": 1.0}, {}, ASKED))
        sides.append(said.side == side)
        zones.append(said.zone in ("base", "costophrenic angle"))
        print(f"{FIRST + k}: {volume} ml {side}: {said.place or 'no lungs found'}", flush=True)
    for kind, found in dice.items():
        mean, least = np.mean(found, 0), np.min(found, 0)
        print(
            f"lung fields {kind}: found on {len(found)} of {args.patients}, Dice right {mean[0]:.3f} (least "
            f"{least[0]:.3f}), left {mean[1]:.3f} (least {least[1]:.3f})"
        )
    print(f"right side {sum(sides)} of {len(sides)}; base or costophrenic angle {sum(zones)} of {len(zones)}")


if __name__ == "__main__":
    main()
