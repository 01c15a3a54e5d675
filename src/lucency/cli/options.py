"""Options that several commands have, worded once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ScanFile = Annotated[
    Path,
    typer.Argument(
        metavar="SCAN",
        help="A scan: DICOM, a picture, .npy, NIfTI, NRRD or MetaImage, or a folder with the DICOM slices of a volume.",
        show_default=False,
    ),
]
FrameNumber = Annotated[
    int | None,
    typer.Option(
        "--frame",
        metavar="N",
        help="Which frame, page or volume of a file that holds several; counted from 1.",
        show_default=False,
    ),
]
Window = Annotated[
    str | None,
    typer.Option(
        "--window",
        metavar="W",
        help="Which DICOM window is shown, by its number or its explanation; the first if left out.",
        show_default=False,
    ),
]
ValueRange = Annotated[
    str | None,
    typer.Option(
        "--value-range",
        metavar="LOW,HIGH",
        help="The pixel values shown as black and white, such as 0,4095; what the file or its depth says if left out.",
        show_default=False,
    ),
]
Model = Annotated[
    str,
    typer.Option("--model", "-m", metavar="M", help="The classifier; `lucency models` lists those that are shipped."),
]
TrustModel = Annotated[
    bool,
    typer.Option(
        "--trust-model",
        help="Open a model file that can act on this machine (TorchScript, .pt2), and follow a description to a model "
        "on a server; only for what you made or whose maker you trust.",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        "-t",
        metavar="C",
        help="The class to explain, by name or number; the most probable one if left out.",
    ),
]
Watch = Annotated[
    str, typer.Option(metavar="W", help="What is watched: probability, logit, margin, or layer:NAME[:UNIT].")
]
Budget = Annotated[
    str | None, typer.Option(metavar="TIME", help="Stop with the best map after this time: 300ms, 2s, 1min.")
]
Tolerance = Annotated[
    float | None,
    typer.Option(metavar="ERROR", help="The error of a score that is allowed for speed, such as 0.01; exact without."),
]
Memory = Annotated[
    float | None,
    typer.Option(metavar="GIB", help="What one batch may take; half of the free memory when left out."),
]
Device = Annotated[str, typer.Option(metavar="D", help="Where to compute: auto, cpu, cuda, cuda:1, ...")]
Seed = Annotated[int, typer.Option(metavar="N", help="Where every random number comes from.")]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Processes that explain several films; left out, as many as there are processors and memory for; 0 for "
        "this one.",
    ),
]
Folder = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="DIR", help="The folder to write to; made when missing.")
]
Anonymous = Annotated[
    bool,
    typer.Option("--anonymous", help="Keep a hash in place of the scan's name, and no paths, in what is written."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]

DEFAULT_MODEL = "lucency:effusion"
