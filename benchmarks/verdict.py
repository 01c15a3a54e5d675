"""How well the lung fields and the verdict's places do on simulated patients that they have not seen.

    python benchmarks/verdict.py

Prints the Dice coefficients of the lung fields without and with fluid, and on how many patients the verdict on the true
fluid map names the right side, and base or costophrenic angle. Then discs of growing size at places chosen by chance:
what share of the probability goes with them, and how often the verdict finds that no other place lowers it as much.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from lucency import Explanation, Scan, load_classifier
from lucency.checks.verdict import judge, moved
from lucency.classifier import Question
from lucency.engine import Engine
from lucency.lungs import lung_fields
from lucency.phantom import Anatomy
from lucency.phantom.parameters import draw
from lucency.removal import Constant

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
    for area in (0.01, 0.04, 0.1, 0.2):
        gone, lowest = by_chance(area, args.patients)
        print(f"discs of {area:.0%} of the scan: {gone:.0%} of the probability gone, lowest in {lowest:.0%}")


def by_chance(area: float, patients: int, discs: int = 8) -> tuple[float, float]:
    """Share of the probability that goes with a disc at any place, and how often no other place lowers it as much."""
    engine = Engine(load_classifier("lucency:phantom"))
    rng, gone, lowest = np.random.default_rng(0), [], []
    for k in range(patients):
        phantom = Anatomy(draw(FIRST + k, 224, 0.0, "right", None, None, None, None, None)).render(400, "right")
        scan = Scan.from_array(phantom.image)
        question = Question.ask(engine.classifier, scan, "effusion", "probability")
        probe = engine.open(scan, question, Constant())
        clean = float(probe.scores(torch.ones(1, *probe.grid))[0, 0])
        radius = float(np.sqrt(area / np.pi)) * probe.grid[0]
        for _ in range(discs):
            centre = rng.uniform(radius, probe.grid[0] - radius, 2)
            far = np.hypot(*(np.indices(probe.grid) - centre[:, None, None]))
            disc = torch.from_numpy((far <= radius).astype(np.float32))
            scores = probe.scores(1 - torch.cat([disc[None], moved(disc, None)]))[:, 0].tolist()
            gone.append(1 - scores[0] / clean)
            lowest.append(min(scores[1:]) > scores[0])
    return float(np.mean(gone)), float(np.mean(lowest))


if __name__ == "__main__":
    main()
