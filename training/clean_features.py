"""What clean scans look like to a shipped model, for the out-of-distribution score: writes its reference features.

    python training/clean_features.py lucency:phantom --work work/phantom
    python training/clean_features.py lucency:effusion --work work/effusion
    python training/clean_features.py lucency:effusion-320 --work work/effusion-320

``--work`` is that of the model's training, where the pictures are cached. The reference is feature vectors, no
pictures: training patients make the distances, validation patients set the error rate, and test patients, of whom
nothing is kept, measure it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from films import part_of, read_boxes, read_films
from lucency import load_classifier
from lucency.checks.out_of_distribution import LEVEL, OutOfDistribution, features
from lucency.engine import Engine

LARGEST = 600
"""Reference vectors that are kept."""
PARTS = {"reference": "train", "held_out": "validation", "check": "test"}
PLACE = Path(__file__).resolve().parents[1] / "src" / "lucency" / "checks" / "clean"

Pictures = NDArray[np.uint8]


def simulated(work: Path) -> dict[str, Pictures]:
    """The phantoms that the training of ``lucency:phantom`` drew, by part."""
    short = {"train": "train", "validation": "val", "test": "test"}
    found = {}
    for part, name in PARTS.items():
        shards = sorted(work.glob(f"{short[name]}-[0-9]*.npz"))
        if not shards:
            raise SystemExit(f"There are no phantoms of {short[name]} in {work}; name the --work of the training.")
        found[part] = np.concatenate([np.load(shard)["pixels"] for shard in shards])
    return found


def real(work: Path, size: int) -> dict[str, Pictures]:
    """The films at least ``size`` pixels wide, by part."""
    films = read_films(work, 256 if size <= 256 else 512)
    boxed = {str(films.patients[films.names.index(name)]) for name in read_boxes() if name in films.names}
    parts = np.array(part_of(list(films.patients), boxed))
    return {part: films.pixels[parts == name] for part, name in PARTS.items()}


def features_of(engine: Engine, pictures: Pictures) -> NDArray[np.float64]:
    """Float64 ``[N, D]``."""
    found, (size, _) = [], engine.classifier.input_size
    for start in range(0, len(pictures), 64):
        x = torch.from_numpy(pictures[start : start + 64]).float()[:, None] / 255
        if x.shape[-1] != size:
            x = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
        found.append(features(engine, x.clamp(0, 1)).cpu().double().numpy())
    return np.concatenate(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["lucency:phantom", "lucency:effusion", "lucency:effusion-320"])
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()

    name = arguments.model.removeprefix("lucency:")
    classifier = load_classifier(arguments.model)
    pictures = simulated(arguments.work) if name == "phantom" else real(arguments.work, int(classifier.input_size[0]))
    rng = np.random.default_rng(0)
    some = pictures["reference"]
    pictures["reference"] = some[np.sort(rng.permutation(len(some))[:LARGEST])]
    engine = Engine(classifier)
    found = {part: features_of(engine, those) for part, those in pictures.items()}
    known = OutOfDistribution(classifier, found["reference"], found["held_out"], chest=True)
    PLACE.mkdir(exist_ok=True)
    known.save(PLACE / f"{name}.safetensors")
    stored = OutOfDistribution.load(classifier, PLACE / f"{name}.safetensors")
    assert stored is not None
    for part, those in found.items():
        p = stored.p_values_of(those)
        rates = ", ".join(f"p < {level:g} for {np.mean(p < level):.2%}" for level in (LEVEL, 0.05))
        print(f"{part}: {len(those)} scans, {rates}")


if __name__ == "__main__":
    main()
