"""Measures methods and removals where the truth is known, and recommends the defaults of `lucency explain`.

    python benchmarks/trust --out out/trust --phantoms 20 --minutes 10
    python benchmarks/trust --out out/trust --methods occlusion:patch=32,rise --removals constant,blur --jobs 4
    python benchmarks/trust --out out/films --phantoms 0 --films FOLDER

The folder gets rows.jsonl (one finished row a line; the same command goes on from there), trust.json and trust.md. A
contestant that takes four times as long as most sees fewer scans when the time is short. The recommendation is chosen
on every other phantom and reported on the rest. Ctrl-C ends it after the row at hand.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    # `python benchmarks/trust` looks for modules in that folder, and not where the package lies.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from lucency import LucencyError
from lucency.cli.console import cancelled_by_ctrl_c
from lucency.errors import OutputError, ParameterError
from lucency.privacy import shown_command
from lucency.work import Stage, Work
from lucency.writing import results
from trust.page import markdown, tables
from trust.rows import all_tasks, appending, contestants, kept_rows, made_rows, only

METHODS = (
    "occlusion,occlusion:patch=32,lime,kernel_shap,rise:samples=1000,integrated_gradients,gradcam,layercam,smoothgrad"
)
REMOVALS = "constant,mean,blur"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the experiment; 0 done, 2 wrong usage, 3 the results cannot be written."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="python benchmarks/trust", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to, and to go on in")
    parser.add_argument("--phantoms", type=int, default=200, help="phantoms with 25 to 1,000 ml of fluid")
    parser.add_argument("--films", type=Path, help="real films: nih/, nih_boxes.csv, nih_labels.csv; none if left out")
    parser.add_argument("--methods", default=METHODS, help="methods, with settings as in occlusion:patch=32")
    parser.add_argument("--removals", default=REMOVALS, help="removals, with settings as in blur:sigma=20")
    parser.add_argument("--watch", default="probability", help="what is watched: probability, logit")
    parser.add_argument("--minutes", type=float, help="stop after this time; the same command goes on later")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    try:
        _run(parser.parse_args(arguments), shown_command(arguments).replace("lucency", "python benchmarks/trust", 1))
    except LucencyError as error:
        print(error, file=sys.stderr)
        return 3 if isinstance(error, OutputError) else 2
    return 0


def _run(asked: argparse.Namespace, command: str) -> None:
    if asked.phantoms < 0 or asked.jobs < 1 or (asked.minutes is not None and asked.minutes <= 0):
        raise ParameterError("--phantoms must be 0 or more, --jobs 1 or more and --minutes above 0.")
    hows = contestants(asked.methods, asked.removals)
    tasks = list(all_tasks(asked.phantoms, asked.films, hows, asked.removals, asked.watch, asked.out))
    if not tasks:
        raise ParameterError("There is nothing to measure; ask for phantoms, or name a folder with --films.")
    started = time.perf_counter()
    with only(asked.out) as file, cancelled_by_ctrl_c() as ended:
        rows, damaged = kept_rows(file, tasks)
        if damaged:
            print(f"Skipped {damaged} damaged line(s) of {file}; their rows are made again.", file=sys.stderr)

        def tell(stage: Stage[object]) -> None:
            print(f"{round(stage.done * len(tasks))} of {len(tasks)}: {stage.doing}", flush=True)

        budget = None if asked.minutes is None else 60 * asked.minutes
        with appending(file) as keep:
            Work(made_rows(tasks, rows, asked.jobs, keep), budget=budget, cancel=ended, started=started).run(tell)
    with results(asked.out, "trust") as found:
        (found.place / "trust.md").write_text(markdown(rows, command))
        (found.place / "trust.json").write_text(json.dumps(tables(rows).as_dict(), indent=1) + "\n")
    print(f"{len(rows)} of {len(tasks)} rows. Wrote rows.jsonl, trust.json, trust.md to {asked.out}")
    if tables(rows).recommendation is None:
        print("Too few phantoms for a recommendation yet; run the same command again.")


if __name__ == "__main__":
    sys.exit(main())
