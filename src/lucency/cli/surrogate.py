"""``lucency surrogate``: a copy of a classifier that has learnt to answer from a part of the scan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lucency.cli.options import DEFAULT_MODEL, AsJson, Device, Model, Patient, Seed, TrustModel

EXAMPLES = """[bold]Examples:[/bold]

  lucency surrogate train --model net.pt2 --trust-model --scans films/ --out s.safetensors

  lucency explain chest.png --model net.pt2 --trust-model --removal surrogate --set removal.path=s.safetensors
"""

app = typer.Typer(help="Train a copy of a classifier that answers from a part of the scan.", no_args_is_help=True)


@app.callback()
def surrogate() -> None:
    """Train a copy of a classifier that answers from a part of the scan."""


@app.command(epilog=EXAMPLES)
def train(
    scans: Annotated[Path, typer.Option(metavar="FOLDER", help="Scans of the kind that the model reads.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write, S.safetensors.")],
    model: Model = DEFAULT_MODEL,
    trust_model: TrustModel = False,
    target: Annotated[
        str | None,
        typer.Option("--target", "-t", metavar="C", help="The class that counts most; all count the same without."),
    ] = None,
    patient: Patient = ".*",
    steps: Annotated[int, typer.Option(metavar="N", help="Batches of 8 scans with 2 holes each.")] = 3000,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Train a copy of the model to say of what is left of a scan what the model says of the whole.

    Then nothing needs to stand where something was removed: --removal surrogate. Of ten patients nine train and one
    measures. FILE.training keeps what was done until FILE is written: after Ctrl-C the same command goes on.
    """
    from dataclasses import asdict

    from lucency.cli.console import print_json, progress, say
    from lucency.cli.explainer import items_in
    from lucency.cli.model import classifier_named
    from lucency.engine import Engine
    from lucency.explainers.surrogate import Plan, train_from

    engine = Engine(classifier_named(model, trust=trust_model), device=device)
    items = items_in(scans, patient)
    with progress() as bar:
        bar.start("Training")
        found, left_out = train_from(engine.classifier, items, out, target, Plan(steps, seed=seed), bar.share)
    if as_json:
        print_json({"file": str(out), **asdict(found), "left_out": left_out})
        return
    say(f"With nothing hidden it is {found.whole:.3f} from {engine.classifier.name} on average, on {found.scans} scans")
    say(f"With holes it is {found.hidden:.3f} from that, and the model itself {found.before:.3f}")
    if left_out:
        say(f"Left out: {', '.join(left_out)}")
    say(f"Wrote {out}")
