"""Makes the pictures of the methods in the documentation: `python docs/scripts/pictures.py [NAME ...]`.

All of them show the phantom of `make demo`. `layers` is the contact sheet of `lucency layers`, every other one the
animation of a method.
"""

from __future__ import annotations

import sys
from pathlib import Path

import lucency
from lucency.engine import Engine
from lucency.methods.units import strongest_units
from lucency.render import Recorder, save_animation
from lucency.render.contact import layer_sheet, save_sheet

ROOT = Path(__file__).resolve().parent.parent.parent
IMAGES = ROOT / "docs" / "images"
PICTURES = (
    "layers", "occlusion", "lime", "shapley", "rise",
    "integrated_gradients", "gradient", "gradcam", "meaningful",
)  # fmt: skip


def main(names: list[str]) -> None:
    IMAGES.mkdir(exist_ok=True)
    scan = lucency.read_scan(ROOT / "src" / "lucency" / "phantom" / "demo.png")
    classifier = lucency.load_classifier("lucency:phantom")
    for name in names or PICTURES:
        if name == "layers":
            units = strongest_units(Engine(classifier), scan)
            save_sheet(layer_sheet(units, "What the strongest feature map of each layer saw"), IMAGES / "layers.png")
            continue
        recorder = Recorder()
        explanation = lucency.explain(scan, classifier, target="effusion", method=name, on_step=recorder)
        save_animation(explanation, recorder, IMAGES / f"{name}.webp")
        print(f"{name}: {explanation.provenance['seconds']:.1f} s, maximum at {explanation.peak}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
