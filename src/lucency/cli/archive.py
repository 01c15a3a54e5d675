"""``lucency archive``: every film of an archive explained once, and the cohort on one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lucency.cli import INTERRUPTED
from lucency.cli.options import (
    DEFAULT_MODEL,
    Anonymous,
    AsJson,
    Authorities,
    Budget,
    Certificate,
    Device,
    FrameNumber,
    Key,
    Memory,
    Model,
    PasswordFile,
    Removal,
    Seed,
    Settings,
    Target,
    TokenFile,
    Tolerance,
    TrustModel,
    User,
    ValueRange,
    Watch,
    Window,
    WithRay,
    Workers,
)

if TYPE_CHECKING:
    from lucency.archive.query import Query

app = typer.Typer(no_args_is_help=True, help="Explain every film of an archive once, and see the cohort on one page.")

EXAMPLES = """[bold]Examples:[/bold]

  lucency archive run films/ --target effusion --method grad-cam --out results

  lucency archive run films.csv --column path=image --column site=hospital --method grad-cam --out s3://bucket/run

  lucency archive report results
"""

Where = Annotated[
    str, typer.Argument(metavar="PLACE", help="The folder or URL that `lucency archive run` wrote.", show_default=False)
]


@app.command(cls=WithRay, epilog=EXAMPLES)
def run(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="A folder, a glob in quotes, a DICOMweb query such as "
            "https://pacs/dicom-web?Modality=DX, or a .csv or .parquet list with a column `path`, and label, site, "
            "view, patient, group, boxes, mask where they are known.",
            show_default=False,
        ),
    ],
    place: Annotated[
        str,
        typer.Option(
            "--out", "-o", metavar="PLACE", help="A folder, or a URL such as s3://bucket/run, for the results."
        ),
    ],
    model: Model = DEFAULT_MODEL,
    trust_model: TrustModel = False,
    target: Target = None,
    method: Annotated[
        str, typer.Option("--method", metavar="NAME", help="How to find the evidence; `lucency methods` lists them.")
    ] = "occlusion",
    settings: Settings = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="ROLE=NAME",
            help="What a column of the list is called, where it is called otherwise: --column site=hospital.",
        ),
    ] = None,
    watch: Watch = "probability",
    removal: Removal = None,
    budget: Budget = None,
    tolerance: Tolerance = None,
    memory: Memory = None,
    frame: FrameNumber = None,
    window: Window = None,
    value_range: ValueRange = None,
    device: Device = "auto",
    seed: Seed = 0,
    error_bars: Annotated[
        int, typer.Option("--error-bars", metavar="K", help="Explain K slightly moved copies of each film too.")
    ] = 0,
    sanity: Annotated[
        bool, typer.Option("--sanity", help="Check once that the method's maps depend on what the model has learnt.")
    ] = False,
    workers: Workers = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS]",
            help="Explain on the Ray cluster at HOST:PORT or ray://HOST:PORT; without an address on the one that runs "
            "on this machine, or else on a new one.",
        ),
    ] = None,
    worker_memory: Annotated[
        float, typer.Option(metavar="GIB", help="What one worker takes; no more are started than fit.")
    ] = 2.0,
    again: Annotated[
        bool, typer.Option("--again", help="Try once more what an earlier run could not explain.")
    ] = False,
    tls_cert: Certificate = None,
    tls_key: Key = None,
    tls_ca: Authorities = None,
    user: User = None,
    password_file: PasswordFile = None,
    token_file: TokenFile = None,
    anonymous: Anonymous = False,
    as_json: AsJson = False,
) -> None:
    """Explain every film of INPUT into PLACE, once.

    Stop it as you like, with Ctrl-C too: the same command goes on where it was. PLACE holds Parquet: a row for each
    film with its scores, verdict and measures, or with its error, and the map as a tensor.
    """
    from lucency.archive import Films
    from lucency.archive import run as explain_all
    from lucency.cli.console import cancelled_by_ctrl_c, print_json, progress, say
    from lucency.cli.runner import asked_for, said
    from lucency.errors import ParameterError

    named = {}
    for pair in columns or []:
        role, equals, name = pair.partition("=")
        if not equals or not name:
            raise ParameterError(f"--column is {pair!r}; write it as ROLE=NAME, such as site=hospital.")
        named[role.strip()] = name.strip()
    films: Films | Query
    if source.startswith(("http://", "https://")):
        from lucency.archive.query import Query
        from lucency.cli.pacs import access_of

        access = access_of(tls_cert, tls_key, tls_ca, user, password_file, token_file)
        if named:
            raise ParameterError("Only a .csv or .parquet list has columns; leave --column out.")
        films, asked = Query(source, access), asked_for(context.params, access=access)
    else:
        films, asked = Films(source, named), asked_for(context.params)
    with progress() as bar, cancelled_by_ctrl_c() as cancelled:
        bar.start("Archive")
        reached = explain_all(
            films,
            place,
            asked,
            workers=workers,
            ray=ray,
            worker_memory=worker_memory,
            again=again,
            on_progress=lambda now: bar.share(now.done / max(now.total, 1), said(now)),
            cancel=cancelled,
        )
    if as_json:
        print_json(
            {
                "place": place,
                "total": reached.total,
                "done": reached.done,
                "before": reached.before,
                "failed": reached.failed,
                "films_a_minute": reached.rate,
            }
        )
    else:
        say(f"{said(reached)} in {place}")
        if reached.done < reached.total:
            say("Stopped early: the same command goes on from here.")
    if cancelled.is_set():
        raise typer.Exit(INTERRUPTED)


@app.command()
def status(
    place: Where,
    check: Annotated[bool, typer.Option("--check", help="Compare every map with its checksum.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say how many films of PLACE are explained, and check the maps if asked."""
    from lucency.archive import counts
    from lucency.cli.console import print_json, say
    from lucency.errors import OutputError

    found = counts(place, check=check)
    if as_json:
        print_json(
            {"done": found.done, "same": found.same, "failed": found.failed, "wrong": found.wrong if check else None}
        )
    else:
        words = f"{found.done:,} films explained, {found.failed:,} not explained"
        if found.same:
            words += f", {found.same:,} with the same bytes as another"
        if check and not found.wrong:
            words += "; every map is what was written"
        say(words)
    if found.wrong:
        raise OutputError(f"{found.wrong} maps of {place} are not what was written; restore them from a copy.")


@app.command()
def report(
    place: Where,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="The page; report.html in PLACE when left out."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="ROLE=VALUE",
            help="Only films whose label, site, view, patient or group is VALUE; may be given several times.",
        ),
    ] = None,
    anonymous: Anonymous = False,
    as_json: AsJson = False,
) -> None:
    """Show what PLACE says as a whole, on one page: where the model looks, by label, score, view, site, group.

    It finds the films whose evidence lies outside the chest, on tokens, borders and devices, says whether the model
    looks at the same place at every site, and how well its maps find known places, all with intervals.
    """
    from lucency.archive.report import save_cohort
    from lucency.cli.console import print_json, progress, say
    from lucency.errors import ParameterError
    from lucency.privacy import shown_command

    chosen = {}
    for pair in only or []:
        role, equals, value = pair.partition("=")
        if not equals or role not in ("label", "site", "view", "patient", "group"):
            raise ParameterError(f"--only is {pair!r}; write it as ROLE=VALUE, such as site=a or group=test.")
        chosen[role] = value
    with progress() as bar:
        bar.start("Report")
        page, said_of_it = save_cohort(
            place,
            out,
            only=chosen,
            on_progress=bar.share,
            command=shown_command(
                ["archive", "report", place, *(f"--only={pair}" for pair in only or ())], anonymous=anonymous
            ),
        )
    if as_json:
        print_json({"page": page, "findings": said_of_it})
    else:
        for sentence in said_of_it:
            say(sentence)
        say(f"Open {page}")
