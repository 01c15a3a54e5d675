"""``lucency compare``: several methods on one scan, on one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lucency.cli import INTERRUPTED, line_of
from lucency.cli.evaluate import named
from lucency.cli.options import (
    DEFAULT_MODEL,
    Anonymous,
    AsJson,
    Budget,
    Device,
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
    from threading import Event

    from lucency.cli.console import Bar
    from lucency.engine import Engine
    from lucency.explanation import Explanation
    from lucency.methods import Method
    from lucency.metrics import Curve
    from lucency.render import Compared
    from lucency.scan import Scan

USUAL = "occlusion,lime,kernel_shap,rise,integrated_gradients,meaningful_perturbation,gradcam"

EXAMPLES = """[bold]Examples:[/bold]

  lucency compare chest.png --out out/compare

  lucency compare out/phantom/scan.png --model lucency:phantom --target effusion --methods all --truth out/phantom/truth.npy --out out/compare
"""  # noqa: E501


def compare(
    context: typer.Context,
    scan: ScanFile,
    folder: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder to write to.")],
    methods: Annotated[str, typer.Option(metavar="A,B,C", help="Names of methods, or all.")] = USUAL,
    model: Model = DEFAULT_MODEL,
    trust_model: TrustModel = False,
    target: Target = None,
    watch: Watch = "probability",
    budget: Budget = None,
    truth: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A .npy on the grid of SCAN that says what should be found (not 0 = yes)."),
    ] = None,
    repeats: Annotated[int, typer.Option(metavar="N", help="Runs of each curve of the evaluation.")] = 3,
    error_bars: Annotated[
        int, typer.Option("--error-bars", metavar="K", help="Explain K moved copies too, to see how sure each map is.")
    ] = 0,
    frame: FrameNumber = None,
    window: Window = None,
    value_range: ValueRange = None,
    device: Device = "auto",
    seed: Seed = 0,
    anonymous: Anonymous = False,
    as_json: AsJson = False,
) -> None:
    """Explain SCAN by several methods and put their maps, curves and numbers on one page.

    DIR gets comparison.html, comparison.json and one NAME.lucency for each method. A method that fails stands on the
    page with its reason. --budget is for each method. Ctrl-C leaves out what is not done yet.
    """
    from lucency import Explainer
    from lucency.cli.console import cancelled_by_ctrl_c, print_json, progress, say
    from lucency.cli.film import read
    from lucency.cli.folder import results
    from lucency.cli.model import classifier_named
    from lucency.errors import LucencyError, OutputError, ParameterError
    from lucency.methods import METHODS, method_named
    from lucency.metrics import localise
    from lucency.privacy import shown_command
    from lucency.reading import read_numbers
    from lucency.render import Compared, Recorder, save_animation, save_comparison

    hows: list[Method] = [method_named(name) for name in (METHODS if methods == "all" else named(methods))]
    known = None if truth is None else read_numbers(truth)
    picture = read(scan, frame, window, value_range)
    explainer = Explainer(
        classifier_named(model, trust=trust_model),
        watch=watch,
        budget=budget,
        error_bars=error_bars,
        device=device,
        seed=seed,
    )
    compared: list[Compared] = []
    random = None

    with results(folder, "compare") as place, progress() as bar, cancelled_by_ctrl_c() as cancelled:
        films = place / "films"
        films.mkdir()
        for i, how in enumerate(hows, 1):
            if cancelled.is_set():
                break
            title = f"{how.title} ({i} of {len(hows)})"
            bar.start(title)
            recorder = Recorder()

            def on_step(step: Any, recorder: Recorder = recorder) -> None:
                bar.step(step)
                recorder(step)

            try:
                explanation = explainer.using(how.name)(picture, target, on_step=on_step, cancel=cancelled)
                if anonymous:
                    explanation = explanation.anonymous()
                explanation.save(place / f"{how.name}.lucency")
                film = save_animation(explanation, recorder, films / f"{how.name}.webp")
                bar.start(f"{title}: evaluation")
                curves = _curves(explanation, picture, explainer.engine, repeats, random is None, bar, cancelled)
                random = random or next((curve for curve in curves if not curve.ordered), None)
                compared.append(
                    Compared(
                        how.name,
                        explanation,
                        animation=film,
                        curves=[curve for curve in curves if curve.ordered],
                        localisation=None if known is None else localise(explanation.heatmap, known),
                    )
                )
            except OutputError:
                # A full disk is no fault of this method, and stops the others too.
                raise
            except LucencyError as error:
                compared.append(Compared(how.name, None, error=str(error)))
            except Exception as error:
                # A fault in one method is no reason to lose the others.
                compared.append(Compared(how.name, None, error=f"{type(error).__name__}: {line_of(error)}"))
        if all(one.explanation is None for one in compared):
            reasons = dict.fromkeys(f"{one.name}: {one.error}" for one in compared)
            raise ParameterError("No method gave a map. " + " ".join(reasons))
        bar.start("Page")
        command = shown_command(context.obj, anonymous=anonymous)
        save_comparison(compared, place / "comparison.html", random=random, truth=known, command=command)
        rows = [_row(one) for one in compared]
        _save_json(rows, place / "comparison.json")
        for film in films.iterdir():
            film.unlink()
        films.rmdir()
        names = sorted(file.name for file in place.iterdir())

    if as_json:
        print_json({"methods": rows, "files": [str(folder / name) for name in names]})
    else:
        for row in rows:
            said = f"failed: {row['error']}" if row["error"] else f"{row['evaluations']} evaluations"
            say((row["method"], "bold"), f"  {said}" + ("" if row["error"] else f", {row['seconds']:.1f} s"))
        say(f"Open {folder / 'comparison.html'}")
    if cancelled.is_set():
        raise typer.Exit(INTERRUPTED)


def _curves(
    explanation: Explanation,
    picture: Scan,
    engine: Engine,
    repeats: int,
    random: bool,
    bar: Bar,
    cancelled: Event,
) -> list[Curve]:
    """The curves of one map; those that were done where Ctrl-C came in between."""
    from lucency import evaluate
    from lucency.work import drained

    if cancelled.is_set():
        return []
    kinds = ("MoRF", "LeRF", "deletion", "insertion")
    steps = evaluate.steps(
        explanation,
        picture,
        engine,
        curves=(*kinds, "random") if random else kinds,
        # A quarter of the papers' points along the same way, so that a page of all methods is there in a fraction of
        # the time: 25 regions of twice the edge take as much away as 100, and the area under the other curves differs
        # in the third digit. `lucency evaluate` takes the papers' own.
        region=18,
        regions=25,
        points=56,
        repeats=repeats,
    )
    return list(drained(steps, on_step=bar.stage, cancel=cancelled).curves)


def _row(one: Compared) -> dict[str, Any]:
    if one.explanation is None:
        return {"method": one.name, "error": one.error}
    about = one.explanation.provenance
    return {
        "method": one.name,
        "error": "",
        "target": one.explanation.target,
        "probability": one.explanation.probability,
        "peak": None if one.explanation.peak is None else list(one.explanation.peak),
        "complete": one.explanation.complete,
        **about.cost.as_dict(),
        "facts": dict(one.explanation.facts),
        **{f"{curve.kind} {curve.measure}": curve.number.value for curve in one.curves},
        **({} if one.localisation is None else {"truth": one.localisation.as_dict()}),
    }


def _save_json(rows: list[dict[str, Any]], path: Path) -> None:
    import json

    from lucency.cli.console import plain

    path.write_text(json.dumps(plain(rows), indent=1) + "\n")
