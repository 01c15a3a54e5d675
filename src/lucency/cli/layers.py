"""``lucency layers``: what the feature maps of a network saw on a scan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lucency.cli.options import DEFAULT_MODEL, AsJson, Device, Folder, Model, ScanFile

EXAMPLES = """[bold]Examples:[/bold]

  lucency layers chest.png

  lucency layers chest.png --layer stages.7.conv2 --top 9 --out out/layers
"""


def layers(
    scan: ScanFile,
    model: Model = DEFAULT_MODEL,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A convolutional layer; may be given several times; all of them if left out."
        ),
    ] = None,
    top: Annotated[int, typer.Option(metavar="N", help="How many feature maps of each layer.")] = 1,
    device: Device = "auto",
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """List the convolutional layers of a model, each with the feature maps that fire most on SCAN.

    With --out, DIR holds layers.png: a contact sheet of the scan, the part that each feature map saw, and its strongest
    activation led back to pixels by a deconvnet.
    """
    from lucency import read_scan
    from lucency.cli.console import out, print_json, progress
    from lucency.cli.folder import results
    from lucency.cli.model import classifier_named
    from lucency.engine import Engine
    from lucency.methods.units import look_into

    picture = read_scan(scan)
    engine = Engine(classifier_named(model), device=device)
    with progress() as bar:
        bar.start("Deconvnet")
        units = []
        for unit in look_into(engine, picture, layer, top):
            units.append(unit)
            bar.note(f"{unit.layer}, map {unit.unit}")
        files: list[Path] = []
        if folder is not None:
            from lucency.render.contact import layer_sheet, save_sheet

            with results(folder) as place:
                save_sheet(layer_sheet(units, f"{engine.classifier.name} on {scan.name}"), place / "layers.png")
            files = [folder / "layers.png"]

    found = [
        {
            "layer": unit.layer,
            "shape": list(unit.activations.shape),
            "map": unit.unit,
            "activation": unit.activation,
            "sees": [list(side) for side in unit.box],
        }
        for unit in units
    ]
    if as_json:
        print_json({"model": engine.classifier.name, "maps": found, "files": [str(f) for f in files]})
        return
    for unit in units:
        shape = " x ".join(map(str, unit.activations.shape))
        out.print(f"[bold]{unit.layer}[/bold]  map {unit.unit} of {shape}, activation {unit.activation:.4g}")
    if files:
        out.print(f"Wrote layers.png to {folder}")
