"""Real films with a radiologist's box, without a finding, and with simulated fluid, from a folder as of ChestX-ray14.

The folder holds ``nih/`` with the films and, on the grid of 512 x 512 pixels, ``nih_boxes.csv`` (image, finding, x, y,
w, h) and ``nih_labels.csv`` (image, patient, findings). Only test patients of ``lucency:effusion`` are taken.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lucency.errors import ParameterError
from lucency.lungs import lung_fields
from lucency.phantom.on_film import add_fluid
from lucency.reading import read_scan
from lucency.scan import Scan
from trust.measuring import FLUID_MM, Case, part_of

SALT = "lucency-films-1"
TEST_SHARE = 0.15
BOX_GRID = 512


@dataclass(frozen=True)
class Film:
    """Where a film lies and what is known about it.

    Attributes:
        path: where it lies.
        patient: whose it is.
        index: the number of that patient.
        box: (x, y, w, h) on the grid of 512.
        fluid: which of several draws of fluid is added; 0 for none.
        finding: the class that the box is of, or that is asked about.
    """

    path: Path
    patient: str
    index: int
    box: tuple[float, float, float, float] | None = None
    fluid: int = 0
    finding: str = "effusion"

    def __str__(self) -> str:
        return self.path.name if self.fluid < 2 else f"{self.path.name}, fluid {self.fluid}"

    @property
    def kind(self) -> str:
        """The kind of its case."""
        if self.box is None:
            return "simulated" if self.fluid else "normal"
        return "box" if self.finding == "effusion" else f"box {self.finding}"

    def case(self) -> Case:
        """The film read, with its truth.

        Raises:
            ScanError: when it cannot be read.
            ParameterError: when fluid is to be added and its lungs are not found, or cannot hold it.
        """
        scan = read_scan(self.path)
        if self.fluid:
            return self._wet(scan)
        if self.box is None:
            return Case("normal", self.path.stem, part_of(self.index), scan, patient=self.patient)
        truth = np.zeros(scan.shape, np.bool_)
        down, across = (n / BOX_GRID for n in scan.shape)
        x, y, w, h = self.box
        truth[
            int(y * down) : max(int(y * down) + 1, round((y + h) * down)),
            int(x * across) : max(int(x * across) + 1, round((x + w) * across)),
        ] = True
        return Case(self.kind, self.path.stem, part_of(self.index), scan, truth, patient=self.patient)

    def _wet(self, scan: Scan) -> Case:
        """The film with 100 to 1,000 ml of fluid on one side, evenly on a logarithmic scale."""
        lungs = lung_fields(scan)
        if lungs is None:
            raise ParameterError(f"No lungs are found on {self.path.name}; it is left out.")
        rng = np.random.default_rng([self.index, 3] if self.fluid == 1 else [self.index, 3, self.fluid])
        volume, side = float(np.exp(rng.uniform(np.log(100), np.log(1000)))), str(rng.choice(["left", "right"]))
        made = add_fluid(scan.display.mean(0).numpy(), lungs, volume, side)
        wet, dry = (Scan(torch.from_numpy(a)[None], source=self.path.name) for a in (made.image, made.twin))
        truth = made.truth_mm >= min(FLUID_MM, float(made.truth_mm.max()) / 2)
        name = self.path.stem if self.fluid == 1 else f"{self.path.stem}-{self.fluid}"
        return Case(
            "simulated", name, part_of(self.index), wet, truth, dry, patient=self.patient, volume_ml=volume, side=side
        )


def held_out(patient: str) -> bool:
    """Whether a patient without a box is one of the test patients of ``lucency:effusion``."""
    return int(hashlib.sha256(f"{SALT}/{patient}".encode()).hexdigest()[:12], 16) / 16**12 < TEST_SHARE


def boxed(folder: Path, finding: str = "effusion") -> list[Film]:
    """The films with a box of that finding (a class); all are of test patients, who are cut into halves as a whole.

    Raises:
        ParameterError: when the folder does not hold what it should.
    """
    patients = {row["image"]: row["patient"] for row in _rows(folder, "nih_labels.csv", ("image", "patient"))}
    rows = [
        row
        for row in _rows(folder, "nih_boxes.csv", ("image", "finding", "x", "y", "w", "h"))
        if _class(row["finding"]) == finding and row["image"] in patients
    ]
    order = {p: i for i, p in enumerate(sorted({patients[row["image"]] for row in rows}))}
    films = []
    for row in rows:
        box = (float(row["x"]), float(row["y"]), float(row["w"]), float(row["h"]))
        patient = patients[row["image"]]
        films.append(Film(folder / "nih" / row["image"], patient, order[patient], box, finding=finding))
    return films


def findings(folder: Path) -> list[str]:
    """The classes that boxes are of, effusion first.

    Raises:
        ParameterError: when the folder does not hold what it should.
    """
    found = {_class(row["finding"]) for row in _rows(folder, "nih_boxes.csv", ("finding",))}
    return sorted(found, key=lambda name: (name != "effusion", name))


def _class(finding: str) -> str:
    name = finding.lower()
    return {"infiltrate": "infiltration"}.get(name, name)


def normal(folder: Path) -> list[Film]:
    """The films of test patients that are labelled with no finding.

    Raises:
        ParameterError: when the folder does not hold what it should.
    """
    rows = _rows(folder, "nih_labels.csv", ("image", "patient", "findings"))
    found = [row for row in rows if row["findings"] == "No Finding" and held_out(row["patient"])]
    order = {p: i for i, p in enumerate(sorted({row["patient"] for row in found}))}
    return [Film(folder / "nih" / row["image"], row["patient"], order[row["patient"]]) for row in found]


def simulated(folder: Path, draws: int = 3) -> list[Film]:
    """The upright ones (PA) of :func:`normal`, one a patient, to each of which fluid is added in so many ways.

    Raises:
        ParameterError: when the folder does not hold what it should.
    """
    views = {row["image"]: row["view"] for row in _rows(folder, "nih_labels.csv", ("image", "view"))}
    upright = {film.patient: film for film in reversed(normal(folder)) if views[film.path.name] == "PA"}
    return [dataclasses.replace(film, fluid=1 + draw) for draw in range(draws) for film in upright.values()]


def _rows(folder: Path, name: str, columns: tuple[str, ...]) -> list[dict[str, str]]:
    file = folder / name
    try:
        with file.open(newline="") as opened:
            rows = list(csv.DictReader(opened))
    except OSError as error:
        raise ParameterError(
            f"{file} cannot be read ({error.strerror or error}); --films names a folder with nih/, nih_boxes.csv and "
            "nih_labels.csv."
        ) from error
    missing = [c for c in columns if not rows or c not in rows[0]]
    if missing:
        raise ParameterError(f"{file} has no column {', '.join(missing)}; it needs {', '.join(columns)}.")
    return rows
