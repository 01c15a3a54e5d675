"""Options that several commands have, worded once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

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
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A parameter of the method; may be given several times."),
]
Removal = Annotated[
    str | None, typer.Option(metavar="NAME", help="What stands where a piece was removed; see `lucency explain`.")
]
Patient = Annotated[
    str,
    typer.Option(
        metavar="REGEX",
        help="The part of a file's name that says whose it is, such as '^\\d+'; patients never stand on two sides.",
    ),
]
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

Certificate = Annotated[
    Path | None, typer.Option("--tls-cert", metavar="PEM", help="Lucency's certificate: its port speaks TLS then.")
]
Key = Annotated[Path | None, typer.Option("--tls-key", metavar="PEM", help="The key of that certificate.")]
Authorities = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        metavar="PEM",
        help="The certificates that are believed, of others' servers and, on the TLS port, of whoever calls.",
    ),
]
User = Annotated[
    str | None,
    typer.Option(
        "--user",
        metavar="NAME",
        help="For basic authentication at a DICOMweb archive; the password stands in --password-file or in "
        "LUCENCY_DICOMWEB_PASSWORD.",
    ),
]
PasswordFile = Annotated[
    Path | None, typer.Option("--password-file", metavar="FILE", help="A file with nothing but the password in it.")
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="A file with nothing but a bearer token in it, read at each use; or LUCENCY_DICOMWEB_TOKEN.",
    ),
]

DEFAULT_MODEL = "lucency:effusion"


class WithRay(TyperCommand):
    """A command whose ``--ray`` may stand alone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        found = []
        for word, after in zip(args, [*args[1:], ""], strict=False):
            found.append(word)
            if word == "--ray" and after != "auto" and (":" not in after or after.startswith("-")):
                found.append("auto")
        return super().parse_args(ctx, found)
