"""``lucency serve``: the page and the API."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lucency.cli.options import Device, Seed, TrustModel

if TYPE_CHECKING:
    from lucency.classifier import Classifier

EXAMPLES = """[bold]Examples:[/bold]

  lucency serve --open

  lucency serve --model lucency:effusion --model mine.onnx --port 9000

  lucency serve --pacs lucency-pacs

  lucency serve --new-token reading_room

  lucency serve --host 0.0.0.0 --name lucency.example.org

  lucency serve --ray
"""


def serve(
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="M",
            help="A classifier that may be asked; may be given several times. The shipped ones when left out.",
            show_default=False,
        ),
    ] = None,
    trust_model: TrustModel = False,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; any but 127.0.0.1 needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="The port; 0 takes a free one.")] = 8000,
    names: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="NAME", help="A name by which browsers reach it.", show_default=False),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Where scans and results are kept; ~/.lucency if left out.",
            show_default=False,
        ),
    ] = None,
    database: Annotated[
        str, typer.Option(metavar="URL", help="postgresql://...; SQLite in DIR if left out.", show_default=False)
    ] = "",
    pacs: Annotated[
        str,
        typer.Option(
            metavar="PLACE",
            help="The folder of `lucency pacs listen`, or the postgresql:// address of its jobs: the page shows its "
            "worklist.",
            show_default=False,
        ),
    ] = "",
    new_token: Annotated[
        str | None,
        typer.Option("--new-token", metavar="USER", help="Make a token, print it once, and stop.", show_default=False),
    ] = None,
    anonymous: Annotated[bool, typer.Option("--anonymous", help="Keep a hash in place of the names of files.")] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS]",
            help="Compute on the Ray cluster at HOST:PORT, to which this machine belongs; without an address on the "
            "one that runs on this machine, or else on a new one.",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
    seed: Seed = 0,
    browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Serve the page and the API.

    Scans, results and the worklist stay in DIR over restarts. Ctrl-C stops after the step that is being worked on.
    """
    from lucency.errors import MissingExtraError

    folder = data or Path(os.environ.get("LUCENCY_DATA") or Path.home() / ".lucency")
    try:
        from lucency.serve import running, security, settings
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"The server needs {error.name}; run pip install 'lucency[serve]'.") from error
    if new_token is not None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        print(security.new_token(folder, new_token))
        return
    if pacs:
        # What a listener needs may not be installed, and that is said before anything is loaded.
        import lucency.pacs  # noqa: F401
    tokens = security.tokens(folder)
    if given := os.environ.get("LUCENCY_TOKEN"):
        tokens["environment"] = security.hashed(given)
    about = settings.Settings(
        folder, host=host, port=port, names=tuple(names or ()), tokens=tokens, device=device, seed=seed,
        anonymous=anonymous, database=database, pacs=pacs,
    )  # fmt: skip
    from lucency.classifier.loading import available_models

    wanted = models or [str(found["name"]) for found in available_models()]
    running.run(about, partial(classifiers, wanted, trust_model), ray=ray, browser=browser)


def classifiers(names: list[str], trust: bool) -> list[Classifier]:
    """Those that may be asked."""
    from lucency.cli.model import classifier_named

    return [classifier_named(name, trust=trust) for name in names]
