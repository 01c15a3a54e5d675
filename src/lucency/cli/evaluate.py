"""``lucency evaluate``: does the score fall where the maps say that it should?"""

from __future__ import annotations

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
    ScanFile,
    Seed,
    Target,
    TrustModel,
    ValueRange,
    Watch,
    Window,
)

if TYPE_CHECKING:
    from lucency.explanation import Explanation
    from lucency.metrics import Evaluation

EXAMPLES = """[bold]Examples:[/bold]

  lucency evaluate chest.png --methods occlusion,rise --out out/chest

  lucency evaluate chest.png out/chest/explanation.lucency other.npy --curves MoRF,LeRF --repeats 10 --json
"""


def evaluate(
    scan: ScanFile,
    maps: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[MAP]...", help="Explanations or .npy maps on the grid of SCAN.", show_default=False),
    ] = None,
    methods: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="Methods whose maps are made now, with their defaults.")
    ] = None,
    model: Model = DEFAULT_MODEL,
    trust_model: TrustModel = False,
    target: Target = None,
    watch: Watch = "probability",
    curves: Annotated[
        str, typer.Option(metavar="A,B,C", help="Which of MoRF, LeRF, random, deletion, insertion, ROAD.")
    ] = "MoRF,LeRF,random,deletion,insertion",
    region: Annotated[int, typer.Option(metavar="PIXELS", help="Side of a region in MoRF, LeRF, random.")] = 9,
    regions: Annotated[int, typer.Option(metavar="N", help="How many regions are removed.")] = 100,
    repeats: Annotated[int, typer.Option(metavar="N", help="Runs with a seed each, for the intervals.")] = 5,
    removal: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What stands where pixels are gone; each curve's own if left out."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Time for the curves, as in 30s or 2min; what is done then is kept."),
    ] = None,
    frame: FrameNumber = None,
    window: Window = None,
    value_range: ValueRange = None,
    device: Device = "auto",
    seed: Seed = 0,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Take SCAN apart in the order of each map and watch the score.

    Give maps, or --methods to make some, or both. With --out, DIR holds evaluation.json and curves.png. Ctrl-C keeps
    the curves so far.
    """
    from lucency import Explainer
    from lucency import evaluate as evaluate_maps
    from lucency.cli.console import cancelled_by_ctrl_c, out, print_json, progress, say, tell
    from lucency.cli.film import read
    from lucency.cli.folder import results
    from lucency.cli.model import classifier_named
    from lucency.engine import Engine
    from lucency.errors import ParameterError
    from lucency.methods import method_named
    from lucency.removal import Removal
    from lucency.work import drained

    hows = [method_named(name) for name in named(methods)]
    found: dict[str, Any] = {path.stem: _map(path) for path in maps or []}
    if not hows and not found:
        raise ParameterError("There is no map to evaluate; name files with maps, or methods with --methods.")
    standing = None if removal is None else Removal.of(removal)
    picture = read(scan, frame, window, value_range)
    engine = Engine(classifier_named(model, trust=trust_model), device=device, seed=seed)
    with progress() as bar, cancelled_by_ctrl_c() as cancelled:
        for how in hows:
            bar.start(how.title)
            explainer = Explainer(engine.classifier, method=how.name, watch=watch, engine=engine)
            found[how.name] = explainer(picture, target, on_step=bar.step, cancel=cancelled)
        bar.start("Evaluation")
        steps = evaluate_maps.steps(
            found,
            picture,
            engine,
            target=target,
            watch=watch,
            curves=named(curves),
            region=region,
            regions=regions,
            repeats=repeats,
            removal=standing,
        )
        evaluation = drained(steps, on_step=bar.stage, budget=budget, cancel=cancelled)
        if not evaluation.curves and not cancelled.is_set():
            raise ParameterError("The budget ended before the first curve was done; give it more time.")
        if not evaluation.curves:
            tell("Stopped before the first curve was done.")
            raise typer.Exit(INTERRUPTED)
        files: list[Path] = []
        if folder is not None:
            from lucency.render.curves import save_curves

            with results(folder, "evaluate") as place:
                evaluation.save(place / "evaluation.json")
                save_curves(evaluation, place / "curves.png")
            files = [folder / "curves.png", folder / "evaluation.json"]

    if as_json:
        print_json({**evaluation.as_dict(), "files": [str(f) for f in files]})
    else:
        say(f"{evaluation.question.label}: {evaluation.clean:.3f} on the untouched scan ({engine.classifier.name})")
        out.print(table(evaluation))
        if files:
            say(f"Wrote {', '.join(f.name for f in files)} to {folder}")
    if cancelled.is_set():
        raise typer.Exit(INTERRUPTED)


def named(text: str | None) -> list[str]:
    """The names in ``a,b,c``."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def table(evaluation: Evaluation) -> Any:
    """One row for each map: its numbers, each with the half width of its 95 % interval."""
    from rich.table import Table

    from lucency.cli.console import line

    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("map")
    found = list(dict.fromkeys(curve.kind for curve in evaluation.curves if curve.ordered))
    measures = {curve.kind: (curve.measure, curve.better) for curve in evaluation.curves}
    for kind in found or ["random"]:
        measure, better = measures[kind]
        shown.add_column(line(f"{kind} {measure}\n", (f"{better} is better", "dim")), justify="right")
    for row in evaluation.table():
        numbers = [row.get(kind, row.get("random") if kind == "MoRF" else None) for kind in found or ["random"]]
        shown.add_row(
            line(row["map"]), *("" if n is None else f"{n.value:.3f} ± {n.high - n.value:.3f}" for n in numbers)
        )
    return shown


def _map(path: Path) -> Explanation | Any:
    from lucency.errors import OutputError, ParameterError
    from lucency.explanation import Explanation
    from lucency.reading import read_numbers

    try:
        return read_numbers(path) if path.suffix == ".npy" else Explanation.load(path)
    except OutputError as error:
        raise ParameterError(str(error)) from error
