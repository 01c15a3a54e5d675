"""``lucency explain``: why the classifier said so, as numbers, pictures and files."""

from __future__ import annotations

from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lucency.cli import INTERRUPTED
from lucency.cli.options import (
    DEFAULT_MODEL,
    Anonymous,
    AsJson,
    Budget,
    Device,
    Folder,
    FrameNumber,
    Memory,
    Model,
    ScanFile,
    Seed,
    Settings,
    Target,
    Tolerance,
    TrustModel,
    ValueRange,
    Watch,
    Window,
    Workers,
)

if TYPE_CHECKING:
    from rich.text import Text

    from lucency.checks.out_of_distribution import OutOfDistribution
    from lucency.explanation import Explanation
    from lucency.methods import Step
    from lucency.render import Recorder

EXAMPLES = """[bold]Examples:[/bold]

  lucency explain chest.dcm --out out/chest

  lucency explain chest.png --target effusion --method lime --budget 5s --out out/chest

  lucency explain chest.png --method occlusion --set patch=24 --set removal=blur --set removal.sigma=20

  lucency explain chest.png --json | jq .peak

  lucency explain films/ --target effusion --method grad-cam --out out/films
"""


class Animation(StrEnum):
    gif = "gif"
    webp = "webp"
    mp4 = "mp4"
    none = "none"


def explain(
    context: typer.Context,
    scan: ScanFile,
    model: Model = DEFAULT_MODEL,
    trust_model: TrustModel = False,
    target: Target = None,
    method: Annotated[
        str, typer.Option("--method", metavar="NAME", help="How to find the evidence; `lucency methods` lists them.")
    ] = "occlusion",
    settings: Settings = None,
    watch: Watch = "probability",
    removal: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What stands where a piece was removed: constant, mean, blur, ... Left out, that of the method's "
            "paper, and for occlusion of the shipped chest models healthy tissue, which is nearest to the truth on "
            "simulated films and takes two to five times as long as --removal constant.",
        ),
    ] = None,
    budget: Budget = None,
    tolerance: Tolerance = None,
    memory: Memory = None,
    frame: FrameNumber = None,
    window: Window = None,
    value_range: ValueRange = None,
    device: Device = "auto",
    seed: Seed = 0,
    error_bars: Annotated[
        int,
        typer.Option(
            "--error-bars",
            metavar="K",
            help="Explain K slightly moved copies too, to see how sure the map is (K times the cost; methods that "
            "sample know it anyway).",
        ),
    ] = 0,
    sanity: Annotated[
        bool,
        typer.Option(
            "--sanity",
            help="Check that the method's maps depend on what the model has learnt, at the cost of three more maps; "
            "the answer is remembered for this model, method and question.",
        ),
    ] = False,
    folder: Folder = None,
    workers: Workers = None,
    animation: Annotated[Animation, typer.Option(help="The format of the animation in DIR.")] = Animation.gif,
    anonymous: Anonymous = False,
    as_json: AsJson = False,
) -> None:
    """Show why a classifier read SCAN as it did.

    With --out, DIR holds heatmap.npy (the map on the scan's own grid), overlay.png, the animation, report.html and
    explanation.lucency. Ctrl-C stops after the current step and keeps the map so far. A folder of films, or a glob in
    quotes, gets an index.html with a folder for each film in DIR/films; stopped, the same command goes on.
    """
    from lucency import Explainer
    from lucency.cli.console import cancelled_by_ctrl_c, out, print_json, progress, tell
    from lucency.cli.film import read
    from lucency.cli.model import classifier_named
    from lucency.privacy import shown_command

    if of_many(scan):
        _many(context, scan, folder, workers, as_json, animation)
        return
    explainer = Explainer(
        classifier_named(model, trust=trust_model),
        method=method,
        settings=settings or [],
        removal=removal or "auto",
        watch=watch,
        budget=budget,
        error_bars=error_bars,
        sanity=sanity,
        device=device,
        seed=seed,
        memory=memory,
        tolerance=tolerance,
    )
    picture = read(scan, frame, window, value_range)
    recorder = _recorder(explainer.known) if folder is not None and animation is not Animation.none else None

    with progress() as bar, cancelled_by_ctrl_c() as cancelled:
        bar.start(explainer.method.title)

        def on_step(step: Step) -> None:
            bar.step(step)
            if recorder is not None:
                recorder(step)

        run = explainer.steps(picture, target, on_progress=bar.share, cancel=cancelled)
        with closing(run):
            for number, step in enumerate(run):
                # A film in doubt is doubted before anybody waits for its map.
                for doubt in run.doubts if number == 0 else ():
                    tell(f"Note: {doubt}")
                on_step(step)
        explanation = run.explanation
        if anonymous:
            explanation = explanation.anonymous()
        files = []
        if folder is not None:
            command = shown_command(context.obj, anonymous=anonymous)
            files = write(folder, explanation, recorder, animation, command)

    if as_json:
        print_json(record(explanation, files))
    else:
        for said in sentences(explanation, files):
            out.print(said)
    if cancelled.is_set():
        raise typer.Exit(INTERRUPTED)


def of_many(scan: Path) -> bool:
    """Whether it names several films: a folder that is no volume, or a glob."""
    from glob import has_magic

    from lucency.reading.volume import is_volume

    try:
        if scan.is_dir():
            return not is_volume(scan)
        return has_magic(str(scan)) and not scan.exists()
    except (OSError, ValueError):
        return False


def _many(
    context: typer.Context,
    films: Path,
    folder: Path | None,
    workers: int | None,
    as_json: bool,
    animation: Animation,
) -> None:
    """Each film of a folder or glob, by the runner of whole archives, and a page over all of them."""
    from lucency.archive import Films, run
    from lucency.archive.index import FILMS, save_index
    from lucency.cli.console import cancelled_by_ctrl_c, print_json, progress, say
    from lucency.cli.runner import asked_for, said
    from lucency.errors import ParameterError
    from lucency.privacy import shown_command

    if folder is None:
        raise ParameterError(f"{films} holds several films; name a folder for their explanations with --out.")
    given = context.params
    command = shown_command(context.obj, anonymous=given["anonymous"])
    asked = asked_for(given, keep=str(folder / FILMS), animation=str(animation), command=command)
    with progress() as bar, cancelled_by_ctrl_c() as cancelled:
        bar.start("Films")
        reached = run(
            Films(films),
            folder,
            asked,
            workers=workers,
            on_progress=lambda now: bar.share(now.done / max(now.total, 1), said(now)),
            cancel=cancelled,
        )
    page = save_index(folder, command=command)
    if as_json:
        print_json({"total": reached.total, "done": reached.done, "failed": reached.failed, "page": str(page)})
    else:
        say(f"{said(reached)} in {folder}")
        say(f"Open {page}")
    if cancelled.is_set():
        raise typer.Exit(INTERRUPTED)


def _recorder(known: OutOfDistribution | None) -> Recorder:
    from lucency.render import Recorder

    return Recorder(known=known)


def write(
    folder: Path,
    explanation: Explanation,
    recorder: Recorder | None,
    animation: Animation,
    command: str,
) -> list[Path]:
    """Everything that ``--out`` leaves, whole or not at all; no animation without a recorder."""
    from lucency.cli.folder import results
    from lucency.render.files import save_files

    with results(folder, "explain") as place:
        save_files(explanation, place, recorder=recorder, animation=animation, command=command)
        names = sorted(file.name for file in place.iterdir())
    return [folder / name for name in names]


def record(explanation: Explanation, files: list[Path]) -> dict[str, Any]:
    """What ``--json`` prints."""
    about = explanation.provenance
    return {
        "target": explanation.target,
        "probability": explanation.probability,
        "peak": None if explanation.peak is None else list(explanation.peak),
        **about.cost.as_dict(),
        "costs": {part: cost.as_dict() for part, cost in about.costs.items()},
        "files": [str(file) for file in files],
        "model": about.model.name,
        "method": about.method.name,
        "parameters": dict(about.method.parameters),
        "removal": None if about.removal is None else about.removal.as_dict(),
        "watch": about.question.watch,
        "probabilities": dict(explanation.probabilities),
        "complete": explanation.complete,
        "facts": dict(explanation.facts),
        "verdict": {} if explanation.verdict is None else explanation.verdict.as_dict(),
        "notices": list(explanation.notices),
        "seed": about.seed,
        "device": about.device,
    }


def sentences(explanation: Explanation, files: list[Path]) -> list[Text]:
    """The same for a reader."""
    from lucency.cli.console import line
    from lucency.explanation import place_of

    about = explanation.provenance
    cost = f"{about.cost.evaluations} evaluations"
    if about.cost.gradients:
        cost += f", {about.cost.gradients} gradients"
    if len(about.costs) > 1:
        cost += f": {about.spent_on}"
    where = "Nothing reacted" if explanation.peak is None else f"Maximum of the map at {place_of(explanation.peak)}"
    how = about.method.title
    if about.removal is not None:
        how += f" with removal {about.removal.name}, {about.removal.reason}"
    said = () if explanation.verdict is None else explanation.verdict.doubts
    lines = [line(f"Note: {notice}") for notice in explanation.notices if notice not in said]
    lines += [
        line((explanation.target, "bold"), f": {explanation.answer} ({about.model.name})"),
        line(f"{where} ({how}; {cost}; {about.cost.seconds:.1f} s)"),
    ]
    lines += [line(f"{name}: {_number(value)}") for name, value in explanation.facts.items()]
    if not explanation.complete:
        lines.append(line("Stopped early: this is the map so far."))
    if explanation.verdict is not None:
        lines.append(line(("Verdict:", "bold"), f" {explanation.verdict.text}"))
    if files:
        lines.append(line(f"Wrote {', '.join(file.name for file in files)} to {files[0].parent}"))
        lines.append(line(f"Open {files[0].parent / 'report.html'}"))
    return lines


def _number(value: float | int | str | bool) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
