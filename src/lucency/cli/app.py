"""All commands, and what they share on the help page."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated

import typer

from lucency.cli import (
    archive,
    compare,
    dicom,
    evaluate,
    explain,
    explainer,
    layers,
    methods,
    models,
    pacs,
    phantom,
    serve,
    surrogate,
)
from lucency.cli.options import WithRay

CODES = (
    "[bold]Exit codes:[/bold] 0 done; 1 a fault of Lucency's own (LUCENCY_DEBUG=1 shows where); 2 wrong usage, or a "
    "scan, model or parameter that cannot be used; 3 the results cannot be written; 130 interrupted (the map so far is "
    "written).\n\nResearch software, not a medical device."
)

app = typer.Typer(
    name="lucency",
    help="See why a deep classifier read a scan as it did.",
    epilog=CODES,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"lucency {version('lucency')}")
        raise typer.Exit


@app.callback()
def lucency(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    # What libraries have to say to developers is no message to a radiologist.
    if not (os.environ.get("LUCENCY_DEBUG") or sys.warnoptions):
        warnings.simplefilter("ignore")


app.command(epilog=explain.EXAMPLES)(explain.explain)
app.command()(models.models)
app.command()(methods.methods)
app.command(epilog=phantom.EXAMPLES)(phantom.phantom)
app.command(epilog=layers.EXAMPLES)(layers.layers)
app.command(epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command(epilog=compare.EXAMPLES)(compare.compare)
app.command(epilog=dicom.EXAMPLES)(dicom.dicom)
app.command(cls=WithRay, epilog=serve.EXAMPLES)(serve.serve)
app.add_typer(archive.app, name="archive")
app.add_typer(explainer.app, name="explainer")
app.add_typer(surrogate.app, name="surrogate")
app.add_typer(pacs.app, name="pacs")
