"""Trains the surrogates behind ``removal="surrogate"`` for the shipped models, and writes their weights.

    python training/train_surrogates.py phantom --work work/surrogates
    python training/train_surrogates.py effusion --work work/surrogates

What is hidden is to count as healthy tissue of this patient. That is known here: simulated patients come with a twin
without fluid, and fluid is simulated on real films. Simulated patients have seeds of their own, 13,000,000 and up to
train, 13,900,000 and up to measure. Of the real films those of the training patients of ``lucency:effusion`` train and
those of its validation patients measure; no film of a test patient is looked at. A run that was stopped goes on.

The surrogate of ``lucency:phantom`` took the first 600 of its 900 steps on a schedule for 1,400. That of
``lucency:effusion`` was not run to its end yet: after 270 steps it told regions apart worse than the scan's mean does.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from films import shared
from lucency import Scan, load_classifier, read_scan
from lucency.errors import ParameterError
from lucency.explainers.surrogate import Plan, Training
from lucency.lungs import lung_fields
from lucency.phantom import Anatomy
from lucency.phantom.on_film import add_fluid
from lucency.phantom.parameters import SIDES, draw, stream
from train_effusion import FROZEN
from train_explainers import films

FIRST = {"train": 13_000_000, "checked": 13_900_000}
SIZE, SHARD = 224, 50
LEAST_ML, MOST_ML = 25.0, 1200.0
PATIENTS = {"train": 500, "checked": 50}
FILMS = {"train": 450, "checked": 100}
"""Real films without fluid, at most; half as many with fluid."""
DRAWS = 1
"""How often fluid is added to each real film."""
PLANS = {
    "phantom": Plan(steps=900, scans=8, holes=4, rate=1.5e-3),
    "effusion": Plan(steps=1500, scans=5, holes=4, rate=7e-4),
}
WEIGHTS = Path(__file__).resolve().parents[1] / "src" / "lucency" / "removal" / "weights"

Pair = tuple[Tensor, Tensor]
"""A scan on the model's grid and the same without fluid, ``[1, 224, 224]`` in display values."""


def volumes(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """One from each of ``count`` equal parts of the logarithmic range, in ml."""
    edges = np.linspace(np.log(LEAST_ML), np.log(MOST_ML), count + 1)
    found: NDArray[np.float64] = np.exp(rng.uniform(edges[:-1], edges[1:]))
    return found


def patient(seed: int) -> Iterator[Pair]:
    """A simulated patient without fluid, and with three volumes."""
    rng = stream(seed, 97)
    anatomy = Anatomy(draw(seed, SIZE, 0.0, "right", None, None, None, None, None))
    for i, volume in enumerate(volumes(rng, 3)):
        try:
            shown = anatomy.render(float(volume), SIDES[int(rng.integers(3))])
        except ParameterError:
            continue
        wet, dry = (torch.from_numpy(picture)[None].clamp(0, 1) for picture in (shown.image, shown.twin))
        if i == 0:
            yield dry, dry
        yield wet, dry


def film(path: Path, seed: int, prepare: Callable[[Scan], Tensor]) -> Iterator[Pair]:
    """A real film without fluid as it is, and with some on one side or both where its lungs are found."""
    scan = read_scan(path)
    dry = prepare(scan)
    yield dry, dry
    lungs = lung_fields(scan)
    if lungs is None:
        return
    rng = stream(seed, 97)
    for volume in volumes(rng, DRAWS):
        try:
            made = add_fluid(scan.display.mean(0).numpy(), lungs, float(volume), SIDES[int(rng.integers(3))])
        except ParameterError:
            continue
        yield prepare(Scan(torch.from_numpy(made.image)[None])), dry


def kept(file: Path, make: Callable[[], Iterator[Pair]]) -> Pair:
    """The pairs in a file, made and written there when it is missing; half precision."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        pairs = list(make())
        part = file.with_suffix(".part")
        torch.save(tuple(torch.stack([pair[i] for pair in pairs]).half() for i in (0, 1)), part)
        part.replace(file)
    found: Pair = torch.load(file, weights_only=True)
    return found


@dataclass(frozen=True)
class Part:
    """Scans ``[N, 1, 224, 224]``, the twins of the first of them, and films with fluid, which have no twin."""

    scans: Tensor
    twins: Tensor

    @classmethod
    def of(cls, pairs: list[Pair], alone: list[Pair]) -> Part:
        scans, twins = (torch.cat([pair[i] for pair in pairs]) for i in (0, 1))
        return cls(torch.cat([scans, *(a for a, _ in alone)]), twins)

    def mirrored(self) -> Part:
        """All of it twice, as it is and left for right."""
        known, alone = self.scans[: len(self.twins)], self.scans[len(self.twins) :]
        return Part(
            torch.cat([known, known.flip(3), alone, alone.flip(3)]), torch.cat([self.twins, self.twins.flip(3)])
        )


def phantoms(part: str, work: Path) -> Part:
    """Simulated patients."""
    found = []
    for first in range(FIRST[part], FIRST[part] + PATIENTS[part], SHARD):

        def made(first: int = first) -> Iterator[Pair]:
            return (pair for seed in range(first, first + SHARD) for pair in patient(seed))

        found.append(kept(work / f"phantom-{first}.pt", made))
        print(f"{part}, patient {first}", flush=True)
    return Part.of(found, [])


def real(part: str, work: Path) -> Part:
    """Real films: those without fluid, and some simulated on them; and those with fluid."""
    prepare = load_classifier("lucency:effusion").prepare
    whose = {"train": "train", "checked": "validation"}[part]
    wet = with_fluid()
    some = sorted((path for path, _, who in films() if who == whose), key=lambda p: sha256(p.name.encode()).digest())
    found: dict[bool, list[Pair]] = {True: [], False: []}
    for has in (False, True):
        here = list(enumerate(path for path in some if (path.name in wet) == has))[: FILMS[part] // (1 + has)]
        for first in range(0, len(here), SHARD):

            def made(which: list[tuple[int, Path]] = here[first : first + SHARD], has: bool = has) -> Iterator[Pair]:
                for number, path in which:
                    if has:
                        alone = prepare(read_scan(path))
                        yield alone, alone
                    else:
                        yield from film(path, FIRST[part] + number, prepare)

            found[has].append(kept(work / f"{'wet' if has else 'film'}-{part}-{first:04}.pt", made))
            print(f"{part}, {'with fluid' if has else 'without'}, film {first}", flush=True)
    return Part.of(found[False], found[True])


def with_fluid() -> set[str]:
    """The films that are labelled with fluid."""
    with (shared() / "xrays" / "nih_labels.csv").open() as file:
        return {row["image"] for row in csv.DictReader(file) if "effusion" in row["findings"].lower()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["phantom", "effusion"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--simulate", action="store_true", help="stop when the scans are made")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    make = phantoms if arguments.model == "phantom" else real
    train, checked = make("train", arguments.work).mirrored(), make("checked", arguments.work)
    print(f"{len(train.scans)} scans, {len(train.twins)} with a twin; {len(checked.scans)} measure", flush=True)
    if arguments.simulate:
        return
    folder = arguments.work / arguments.model
    folder.mkdir(exist_ok=True)
    training = Training(
        load_classifier(f"lucency:{arguments.model}"),
        train.scans,
        checked.scans,
        folder,
        twins=train.twins,
        twins_checked=checked.twins,
        target=0,
        plan=PLANS[arguments.model],
        bfloat16=True,
    )
    if arguments.model == "effusion":
        # They stayed as ImageNet left them when the classifier was trained, too.
        training.surrogate.network().get_submodule("features")[:FROZEN].requires_grad_(False)
    for step, now in enumerate(training, 1):
        if step % 50 == 0:
            print(f"{now.done:.3f} loss {now.loss:.4f}", flush=True)
    found = training.agreement()
    print(found)
    training.save(arguments.out / f"surrogate-{arguments.model}.safetensors", found)


if __name__ == "__main__":
    main()
