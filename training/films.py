"""The real films: decoding, labels, boxes, and a split in which no patient stands on two sides.

The films lie beside the checkout (``LUCENCY_SHARED``, by default ``../shared``) and are never part of it.
"""

from __future__ import annotations

import csv
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FINDINGS = (
    "effusion", "atelectasis", "cardiomegaly", "consolidation", "edema", "emphysema", "fibrosis", "hernia",
    "infiltration", "mass", "nodule", "pleural_thickening", "pneumonia", "pneumothorax", "no finding",
)  # fmt: skip
SALT = "lucency-films-1"


def shared() -> Path:
    """The folder of real data."""
    return Path(os.environ.get("LUCENCY_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@dataclass(frozen=True)
class Films:
    """``pixels`` uint8 ``[N, S, S]``, ``labels`` float32 ``[N, 15]`` in the order of FINDINGS, and who is who."""

    names: list[str]
    patients: NDArray[np.str_]
    views: NDArray[np.str_]
    collections: NDArray[np.str_]
    labels: NDArray[np.float32]
    pixels: NDArray[np.uint8]


def part_of(patients: list[str], held_out: set[str], test: float = 0.15, validation: float = 0.12) -> list[str]:
    """``"train"``, ``"validation"`` or ``"test"`` for each patient; those in ``held_out`` are always test.

    A hash of the patient decides, so a film that is added later never moves another.
    """
    parts = []
    for patient in patients:
        at = int(hashlib.sha256(f"{SALT}/{patient}".encode()).hexdigest()[:12], 16) / 16**12
        if patient in held_out or at < test:
            parts.append("test")
        else:
            parts.append("validation" if at < test + validation else "train")
    return parts


def read_films(cache: Path, size: int = 256) -> Films:
    """All films, reduced to ``size`` pixels once and kept in ``cache``."""
    root = shared() / "xrays"
    with (root / "nih_labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [row["image"] for row in rows]
    kept = cache / f"films-{size}.npy"
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        films = [Image.open(root / "nih" / n).convert("L").resize((size, size), Image.Resampling.BOX) for n in names]
        np.save(kept, np.stack([np.asarray(film) for film in films]))
    labels = np.zeros((len(rows), len(FINDINGS)), np.float32)
    for i, row in enumerate(rows):
        for finding in row["findings"].lower().split("|"):
            labels[i, FINDINGS.index(finding)] = 1
    return Films(
        names,
        np.array([row["patient"] for row in rows]),
        np.array([row["view"] for row in rows]),
        np.array([row["collection"] for row in rows]),
        labels,
        np.load(kept),
    )


def read_boxes(finding: str = "Effusion") -> dict[str, tuple[float, float, float, float]]:
    """The radiologists' box ``(x, y, w, h)`` of each film that has one, in pixels of the 512 x 512 grid."""
    with (shared() / "xrays" / "nih_boxes.csv").open() as file:
        return {
            row["image"]: (float(row["x"]), float(row["y"]), float(row["w"]), float(row["h"]))
            for row in csv.DictReader(file)
            if row["finding"] == finding
        }
