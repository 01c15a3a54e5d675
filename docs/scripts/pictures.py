"""Makes the pictures of the documentation: `python docs/scripts/pictures.py [NAME ...]`.

`phantoms` shows four patients, `phantom-fluid` one with more and more fluid. The others show the phantom of
`make demo`: `layers` is the contact sheet of `lucency layers`, every other one the animation of a method.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import lucency
from lucency.engine import Engine
from lucency.methods.meaningful_perturbation import MeaningfulPerturbation
from lucency.methods.units import strongest_units
from lucency.phantom import simulate
from lucency.removal import Mean
from lucency.render import Recorder, save_animation
from lucency.render.contact import layer_sheet, save_sheet

ROOT = Path(__file__).resolve().parent.parent.parent
IMAGES = ROOT / "docs" / "images"
PICTURES = (
    "phantoms", "phantom-fluid", "layers", "occlusion", "lime", "kernel_shap", "rise",
    "integrated_gradients", "gradient", "gradcam", "meaningful_perturbation",
)  # fmt: skip


def phantoms() -> np.ndarray:
    """Two patients without fluid and two with, side by side, 0..1."""
    chosen = ((13, 0, "right"), (3, 0, "right"), (27, 400, "right"), (28, 900, "left"))
    return np.hstack([simulate(seed, volume_ml=ml, side=side, size=320).image for seed, ml, side in chosen])


def fluid() -> np.ndarray:
    """One patient with more and more fluid, and the path through it below (square root, white at 150 mm), 0..1."""
    shown = [
        simulate(7, volume_ml=ml, side="right", size=320, nodules=0, cardiomegaly=False, pacemaker=False, line=False)
        for ml in (50, 150, 300, 800)
    ]
    truth = [np.sqrt(np.clip(p.truth_mm / 150, 0, 1)) for p in shown]
    return np.vstack([np.hstack([p.image for p in shown]), np.hstack(truth)])


def main(names: list[str]) -> None:
    IMAGES.mkdir(exist_ok=True)
    scan = lucency.read_scan(ROOT / "src" / "lucency" / "phantom" / "demo.png")
    classifier = lucency.load_classifier("lucency:phantom")
    for name in names or PICTURES:
        if name in ("phantoms", "phantom-fluid"):
            grey = phantoms() if name == "phantoms" else fluid()
            Image.fromarray(np.round(grey * 255).astype(np.uint8)).save(IMAGES / f"{name}.png", optimize=True)
            continue
        if name == "layers":
            units = strongest_units(Engine(classifier), scan)
            save_sheet(layer_sheet(units, "What the strongest feature map of each layer saw"), IMAGES / "layers.png")
            continue
        recorder = Recorder()
        # The blur of the paper leaves the fluid of this phantom as visible as it was.
        how = MeaningfulPerturbation(removal=Mean()) if name == "meaningful_perturbation" else name
        explanation = lucency.explain(scan, classifier, target="effusion", method=how, on_step=recorder)
        save_animation(explanation, recorder, IMAGES / f"{name}.webp")
        print(f"{name}: {explanation.provenance.cost.seconds:.1f} s, maximum at {explanation.peak}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
