"""``lucency explainer``: networks that give in one pass the map that a slow method would."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lucency.cli.options import DEFAULT_MODEL, AsJson, Device, Model, Patient, Seed, Settings, TrustModel

if TYPE_CHECKING:
    from lucency.explainers import Item
    from lucency.scan import Scan

EXAMPLES = """[bold]Examples:[/bold]

  lucency explainer train --scans films/ --target effusion --out effusion.safetensors

  lucency explainer train --model net.pt2 --trust-model --target 1 --method rise --scans films/ --out e.safetensors

  lucency explain chest.png --model net.pt2 --trust-model --method instant --set explainer=e.safetensors
"""

app = typer.Typer(help="Train a network that gives the map of a slow method in one pass.", no_args_is_help=True)


@app.callback()
def explainer() -> None:
    """Train a network that gives the map of a slow method in one pass."""


@app.command(epilog=EXAMPLES)
def train(
    target: Annotated[str, typer.Option("--target", "-t", metavar="C", help="The class, by name or number.")],
    scans: Annotated[Path, typer.Option(metavar="FOLDER", help="Scans of the kind that the model reads.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write, E.safetensors.")],
    model: Model = DEFAULT_MODEL,
    trust_model: TrustModel = False,
    method: Annotated[
        str, typer.Option(metavar="NAME", help="Whose map it learns: occlusion, kernel_shap or rise.")
    ] = "occlusion",
    removal: Annotated[
        str, typer.Option(metavar="R", help="What stands where something is removed; as `lucency explain` has it.")
    ] = "auto",
    settings: Settings = None,
    patient: Patient = ".*",
    looks: Annotated[int, typer.Option(metavar="N", help="Perturbed scans for each scan.")] = 96,
    epochs: Annotated[int, typer.Option(metavar="N", help="Passes over all scans.")] = 60,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Train a network that says in one pass what a slow method would say of a scan.

    It needs a few dozen perturbed scans of each scan in FOLDER and no finished map. Of ten patients eight train, one
    calibrates how far the map may be off, and one measures whether that holds. FILE.training keeps what was done until
    FILE is written: after Ctrl-C the same command goes on.
    """
    from dataclasses import asdict

    import lucency
    from lucency.cli.console import print_json, progress, say
    from lucency.cli.model import classifier_named
    from lucency.errors import ScanError
    from lucency.explainers import Plan
    from lucency.explainers import train as trained
    from lucency.methods.instant import teacher_for

    recipe = lucency.Explainer(
        classifier_named(model, trust=trust_model),
        method=method,
        removal=removal,
        device=device,
        seed=seed,
        settings=settings or (),
    )
    items = items_in(scans, patient)
    if not items:
        raise ScanError(f"There is no file in {scans}; name the folder of the scans.")
    first = _first(items)
    grid = tuple(recipe.classifier.prepare(first).shape[1:])
    teacher = teacher_for(recipe.fitted(first)[0], grid, not recipe.classifier.measures)
    with progress() as bar:
        bar.start("Training")
        learnt, left_out = trained(
            recipe.engine, target, teacher, items, out, Plan(looks, looks, epochs, seed), on_progress=bar.share
        )
    if as_json:
        print_json({"file": str(out), "trust": asdict(learnt.trust), **learnt.history, "left_out": left_out})
        return
    trust, scans_of = learnt.trust, learnt.history["train"]
    say(f"Learnt {teacher.name} of {learnt.model[0]}, {learnt.name}, from {scans_of['scans']} scans")
    say(
        f"The band is to hold the map at 90 % of places; it held {trust.covered:.0%} on {trust.scans[1]} scans "
        "of other patients"
    )
    if left_out:
        say(f"Left out: {', '.join(left_out)}")
    say(f"Wrote {out}")


def items_in(folder: Path, patient: str) -> list[Item]:
    """The files of a folder, each with its patient."""
    import re

    from lucency.errors import ParameterError, ScanError
    from lucency.explainers import Item
    from lucency.reading import read_scan

    if not folder.is_dir():
        raise ScanError(f"{folder} is no folder; name the folder of the scans.")
    try:
        whose = re.compile(patient)
    except re.error as error:
        raise ParameterError(
            f"--patient is {patient!r}, which is no regular expression ({error}); use one such as ^[0-9]+."
        ) from error
    items = []
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        found = whose.search(path.name)
        read: Callable[[], Scan] = partial(read_scan, path)
        items.append(Item(path.name, found[0] if found else path.name, read))
    return items


def _first(items: list[Item]) -> Scan:
    """The first scan that can be read; the file of one that cannot is left out later, with its reason."""
    from lucency.errors import LucencyError

    for item in items:
        try:
            return item.read()
        except LucencyError as error:
            last = error
    raise last
