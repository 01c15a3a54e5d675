"""``lucency dicom``: an explanation as DICOM objects beside its film."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lucency.cli.options import AsJson, ValueRange, Window

EXAMPLES = """[bold]Examples:[/bold]

  lucency explain film.dcm --out out/film

  lucency dicom out/film/explanation.lucency --source film.dcm --out out/dicom
"""


def dicom(
    explanation: Annotated[
        Path, typer.Argument(metavar="EXPLANATION", help="An explanation.lucency of a DICOM film.", show_default=False)
    ],
    source: Annotated[Path, typer.Option("--source", "-s", metavar="FILM", help="The DICOM film that was explained.")],
    folder: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder to write to.")],
    window: Window = None,
    value_range: ValueRange = None,
    as_json: AsJson = False,
) -> None:
    """Write an explanation as DICOM objects that belong to the study of its film.

    The animation that lucency explain left beside EXPLANATION comes along, unless it is an MP4. --window and
    --value-range must be those of `lucency explain`. The same explanation gives the same objects, so that
    an archive keeps one of each. Research only, not for diagnosis.
    """
    from lucency import Explanation
    from lucency.cli.console import print_json, say
    from lucency.cli.film import ends
    from lucency.cli.folder import results
    from lucency.dicom import derived, save
    from lucency.dicom.animation import beside

    found = derived(
        Explanation.load(explanation),
        source,
        window=window,
        value_range=ends(value_range),
        animation=beside(explanation),
    )
    with results(folder, "dicom") as place:
        files = [folder / file.name for file in save(found, place)]
    if as_json:
        print_json(
            {"files": [str(file) for file in files], "uids": [str(one.SOPInstanceUID) for one in found.values()]}
        )
    else:
        say(f"Wrote {', '.join(file.name for file in files)} to {folder}")
