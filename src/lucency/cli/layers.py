"""``lucency layers``: what the feature maps of a network saw on a scan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lucency.cli import INTERRUPTED
from lucency.cli.options import (
    DEFAULT_MODEL,
    AsJson,
    Device,
    Folder,
    FrameNumber,
    Model,
    TrustModel,
    ValueRange,
    Window,
)

if TYPE_CHECKING:
    from lucency.engine import Engine
    from lucency.methods.units import Unit
    from lucency.scan import Scan

EXAMPLES = """[bold]Examples:[/bold]

  lucency layers chest.png

  lucency layers chest.png --layer features.12.expand3 --top 9 --out out/layers

  lucency layers films/ --layer features.12.expand3 --unit 254 --top 9 --out out/unit
"""


def layers(
    scan: Annotated[Path, typer.Argument(metavar="SCAN", help="A scan, or a folder of scans with --unit.")],
    model: Model = DEFAULT_MODEL,
    trust_model: TrustModel = False,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A convolutional layer; may be given several times; all of them if left out."
        ),
    ] = None,
    unit: Annotated[
        int | None, typer.Option(metavar="N", help="A feature map of --layer: which scans of the folder SCAN fire it?")
    ] = None,
    top: Annotated[
        int | None, typer.Option(metavar="N", help="How many feature maps of each layer (1), or scans of a folder (9).")
    ] = None,
    frame: FrameNumber = None,
    window: Window = None,
    value_range: ValueRange = None,
    device: Device = "auto",
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """List the convolutional layers of a model, each with the feature maps that fire most on SCAN.

    With --out, DIR holds layers.png: a contact sheet of the scan, the part that each feature map saw, and its strongest
    activation led back to pixels by a deconvnet. Of a folder of scans, those that fire one feature map (--unit) most.
    """
    from lucency.cli.film import read
    from lucency.cli.model import classifier_named
    from lucency.engine import Engine
    from lucency.errors import ParameterError

    if scan.is_dir() != (unit is not None):
        raise ParameterError(
            f"{scan} is a folder; say which feature map to look for with --layer NAME --unit N."
            if unit is None
            else f"--unit asks which scans of a folder fire a feature map, and {scan} is no folder."
        )
    if unit is not None and len(layer or ()) != 1:
        raise ParameterError("--unit is a feature map of one layer; name that layer with --layer.")
    engine = Engine(classifier_named(model, trust=trust_model), device=device)

    def opened(path: Path) -> Scan:
        return read(path, frame, window, value_range)

    if unit is None:
        _of_scan(engine, opened, scan, layer, 1 if top is None else top, folder, as_json)
    else:
        _of_folder(engine, opened, scan, (layer or [""])[0], unit, 9 if top is None else top, folder, as_json)


def _of_scan(
    engine: Engine,
    opened: Callable[[Path], Scan],
    path: Path,
    layer: list[str] | None,
    top: int,
    folder: Path | None,
    as_json: bool,
) -> None:
    from lucency.cli.console import cancelled_by_ctrl_c, print_json, progress, say
    from lucency.methods.units import strongest_units
    from lucency.render import contact
    from lucency.work import drained

    picture = opened(path)
    with progress() as bar, cancelled_by_ctrl_c() as cancelled:
        bar.start("Deconvnet")
        units = drained(strongest_units.steps(engine, picture, layer, top), on_step=bar.stage, cancel=cancelled)
        title = f"{engine.classifier.name} on {path.name}"
        files = _sheet(folder, "layers.png", lambda: contact.layer_sheet(units, title))
    if as_json:
        found = [{**_record(unit), "shape": list(unit.activations.shape)} for unit in units]
        print_json({"model": engine.classifier.name, "maps": found, "files": files})
    else:
        for unit in units:
            shape = " x ".join(map(str, unit.activations.shape))
            say((unit.layer, "bold"), f"  map {unit.unit} of {shape}, activation {unit.activation:.4g}")
        if files:
            say(f"Wrote layers.png to {folder}")
    if cancelled.is_set():
        raise typer.Exit(INTERRUPTED)


def _of_folder(
    engine: Engine,
    opened: Callable[[Path], Scan],
    place: Path,
    layer: str,
    unit: int,
    top: int,
    folder: Path | None,
    as_json: bool,
) -> None:
    from lucency import LucencyError
    from lucency.cli.console import cancelled_by_ctrl_c, print_json, progress, say
    from lucency.errors import ScanError
    from lucency.methods.units import strongest_scans
    from lucency.render import contact
    from lucency.work import Work

    paths = sorted(p for p in place.iterdir() if p.is_file() and not p.name.startswith("."))
    skipped: dict[str, str] = {}
    with progress() as bar, cancelled_by_ctrl_c() as cancelled:
        bar.start(f"{layer}, map {unit}")

        def scans() -> Iterator[Scan]:
            for path in paths:
                try:
                    picture = opened(path)
                    engine.classifier.prepare(picture)
                except LucencyError as error:
                    skipped[path.name] = str(error)
                    continue
                yield picture

        last = Work(strongest_scans.steps(engine, scans(), layer, unit, top, of=len(paths)), cancel=cancelled).run(
            bar.stage
        )
        if last is None:
            raise ScanError(f"There is no scan in {place} that {engine.classifier.name} can read; name another folder.")
        found = last.known()
        title = f"What fires map {unit} of {layer} most ({engine.classifier.name})"
        files = _sheet(folder, "scans.png", lambda: contact.scan_sheet(found, title))
    if as_json:
        rows = [{"scan": Path(picture.source).name, **_record(one)} for picture, one in found]
        print_json({"model": engine.classifier.name, "scans": rows, "skipped": skipped, "files": files})
    else:
        for picture, one in found:
            where = ", ".join(f"{start}-{stop}" for start, stop in one.box)
            source = Path(picture.source).name
            say((source, "bold"), f"  activation {one.activation:.4g}, patch {where} of the model's grid")
        if skipped:
            say(f"Not read: {', '.join(skipped)}")
        if files:
            say(f"Wrote scans.png to {folder}")
    if cancelled.is_set():
        raise typer.Exit(INTERRUPTED)


def _sheet(folder: Path | None, name: str, make: Callable[[], Any]) -> list[str]:
    from lucency.cli.folder import results
    from lucency.render.contact import save_sheet

    if folder is None:
        return []
    with results(folder, "layers") as place:
        save_sheet(make(), place / name)
    return [str(folder / name)]


def _record(unit: Unit) -> dict[str, Any]:
    return {
        "layer": unit.layer,
        "map": unit.unit,
        "activation": unit.activation,
        "sees": [list(side) for side in unit.box],
    }
