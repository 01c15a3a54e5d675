"""Trains the explainers behind ``method="instant"`` for the shipped models, and measures them on unseen scans.

    python training/train_explainers.py phantom --work work/explainers
    python training/train_explainers.py effusion --work work/explainers

Simulated patients have seeds of their own, which trained no model: 7,000,000 and up for training and calibration,
7,900,000 and up for the report. On a few of the first what stands here was chosen; these train nothing. Of the real
films those of the training and validation patients of ``lucency:effusion`` train and calibrate, split again by patient,
and test patients are looked at for the report only.
"""

from __future__ import annotations

import argparse
import csv
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from films import part_of as part_of_film
from films import read_boxes, shared
from lucency import load_classifier, read_scan
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.explainers import Item, OcclusionTeacher, Plan, train
from lucency.explainers.training import part_of
from lucency.phantom import Anatomy
from lucency.phantom.parameters import SIDES, draw, stream
from lucency.removal import Healthy

FIRST = {"train": 7_000_000, "report": 7_900_000}
SIZE = 224
PATIENTS = 900
"""Simulated ones, with some 2,250 scans."""
CHOSE = 0.06
"""Share of the simulated patients that train on whom taps and epochs were chosen."""
COUNTS = {"phantom": 1285, "effusion": 591}
"""How many scans of all, in an order that a hash decides, are looked at."""
PLANS = {"phantom": Plan(looks=24, checks=48, epochs=70), "effusion": Plan(looks=32, checks=48, epochs=14)}


def simulated(folder: Path, first: int, count: int) -> None:
    """Patients with little and with more fluid, and every second one without any too, as 16-bit PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + count):
        if any(folder.glob(f"{seed}-*.png")):
            continue
        rng = stream(seed, 98)
        side = SIDES[int(rng.integers(3))]
        volumes = np.exp(rng.uniform(np.log((30, 120)), np.log((150, 1200)))).round()
        anatomy = Anatomy(draw(seed, SIZE, 0.0, "right", None, None, None, None, None))
        for i, volume in enumerate(volumes):
            try:
                shown = anatomy.render(float(volume), side)
            except ParameterError:
                continue
            pictures = {f"{volume:.0f}ml": shown.image, **({"dry": shown.twin} if i == 0 and seed % 2 == 0 else {})}
            for name, picture in pictures.items():
                grey = (picture.clip(0, 1) * 65535).round().astype(np.uint16)
                Image.fromarray(grey).save(folder / f"{seed}-{name}.png")


def items_of(model: str, work: Path, count: int) -> list[Item]:
    """The scans that train, calibrate and measure, with their patients."""
    if model == "phantom":
        pictures = sorted((work / "phantom").glob("*.png"))
        whose = [p.name.split("-")[0] for p in pictures]
        found = [
            Item(p.name, who, partial(read_scan, p))
            for p, who in zip(pictures, whose, strict=True)
            if part_of(who) != "train" or _share(f"dev{who}") >= CHOSE
        ]
    else:
        found = [Item(p.name, who, partial(read_scan, p)) for p, who, part in films() if part != "test"]
    # The scans lie by patient; those left out must not be of one kind.
    found = sorted(found, key=lambda item: sha256(item.name.encode()).hexdigest())[:count]
    met: set[str] = set()
    # Scans of one patient are alike, and a band counts on independent ones.
    return [i for i in found if part_of(i.patient) == "train" or not (i.patient in met or met.add(i.patient))]


def _share(name: str) -> float:
    """A number from 0 to 1 that the name decides."""
    return int(sha256(name.encode()).hexdigest()[:4], 16) / 16**4


def films() -> list[tuple[Path, str, str]]:
    """The real films, their patients, and the part of ``lucency:effusion`` that these are in."""
    root = shared() / "xrays"
    with (root / "nih_labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    boxed = {row["patient"] for row in rows if row["image"] in read_boxes()}
    parts = part_of_film([row["patient"] for row in rows], boxed)
    return [(root / "nih" / row["image"], row["patient"], part) for row, part in zip(rows, parts, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["phantom", "effusion"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, help="scans that train, calibrate and measure")
    arguments = parser.parse_args()
    count = arguments.count or COUNTS[arguments.model]
    if arguments.model == "phantom":
        simulated(arguments.work / "report-phantom", FIRST["report"], 120)
        simulated(arguments.work / "phantom", FIRST["train"], PATIENTS)
    said = ""

    def say(share: float, words: str) -> None:
        nonlocal said
        line = f"{share:.2f} {words}"
        if line[:5] != said[:5] or "epochs" in words:
            print(line, flush=True)
        said = line

    learnt, left_out = train(
        Engine(load_classifier(f"lucency:{arguments.model}")),
        "effusion",
        OcclusionTeacher(removal=Healthy()),
        items_of(arguments.model, arguments.work, count),
        arguments.work / f"{arguments.model}.safetensors",
        PLANS[arguments.model],
        on_progress=say,
    )
    print(learnt.trust, learnt.history, left_out)


if __name__ == "__main__":
    main()
