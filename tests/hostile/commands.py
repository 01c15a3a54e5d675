"""Command lines and names as nobody should type them, and what must hold whatever was typed."""

from __future__ import annotations

import contextlib
import io
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from lucency.classifier import Classifier
from lucency.cli import main

ODD = [
    "", " ", "-", "--", "---", "--out", "-o", ".", "..", "/", "//", "~", "*", "%s", "{}", "{0.__class__}", "$x_",
    "$\\frac{", "\\", "x" * 300, "x/" * 3000, "a\0b", "\ud800", "\udcff", "[/bold]", "[red]", "[", "]",
    "[link=http://x]", "\x1b[31m", "\x1b]0;x\x07", "\r", "\n", "\t", "\x00", "\x7f", "\u202e", "\u200b", ":smile:",
    "é", "漢字", "😀", "1e309", "-1", "0", "nan", "inf", "1" * 400, "<script>", "'", '"', "NUL", "/dev/null",
    "/dev/full", "/proc/self/mem", "lucency:", "lucency:effusion/..", "torchxrayvision:", ":", "occlusion",
    "occlusion:patch=", "occlusion:patch=0", "patch=1e9", "removal=healthy", "layer:", "_x",
]  # fmt: skip
COMMANDS = ["explain", "evaluate", "compare", "dicom", "layers", "phantom", "models", "methods", "archive"]
OPTIONS = [
    "--out", "--model", "--target", "--method", "--methods", "--set", "--watch", "--removal", "--removals",
    "--budget", "--tolerance", "--memory", "--device", "--seed", "--error-bars", "--sanity", "--animation", "--json",
    "--source", "--frame", "--window", "--value-range", "--anonymous", "--trust-model",
    "--curves", "--region", "--regions", "--repeats", "--truth", "--layer", "--unit", "--top", "--volume", "--side",
    "--nodules", "--workers", "--column", "--only", "--check", "--again", "--help", "--version", "-h", "-o", "-m", "-t",
]  # fmt: skip
# What comes last wins, and keeps a command from beginning an hour's work.
BRIEFLY = {"phantom": ["--size", "1"]}

WORDS = ["scan.png", "fluid", "x.npy", "run", "status", "report"]

odd = st.one_of(st.sampled_from(ODD), st.text(st.characters(), max_size=20))
command_lines = st.builds(
    lambda command, rest: [*command, *rest, *BRIEFLY.get(command[0] if command else "", [])],
    st.one_of(st.lists(st.sampled_from(COMMANDS), min_size=1, max_size=1), st.lists(odd, max_size=1)),
    st.lists(
        st.one_of(odd, st.sampled_from(OPTIONS), st.sampled_from(WORDS)),
        max_size=6,
    ),
)


def spoken(arguments: Sequence[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command, run in this process."""
    # As a terminal is: bytes in UTF-8, and no way to write half a character.
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors) for errors in ("strict", "backslashreplace"))
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(arguments))
        except SystemExit as end:
            code = int(end.code or 0)
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
    return code, texts[0], texts[1]


def faults(code: int, out: str, err: str, codes: Sequence[int] = (0, 2, 3)) -> Iterator[str]:
    """What is wrong about an answer; nothing, whatever was typed."""
    if code not in codes:
        yield f"exit code {code}"
    if "Traceback" in err or "fault of its own" in err:
        yield "a fault"
    if code == 0 and err and not err.startswith("Replaced"):
        yield "something on stderr"
    if steering := {c for c in out + err if unicodedata.category(c)[0] == "C" and c != "\n" and c != "\t"}:
        yield f"what steers a terminal: {steering!r}"
    if code and not err and not out.lstrip().startswith("Usage:"):
        yield "no word about it"
    if code and len(err.splitlines()) > 1:
        yield "more than one sentence"


def said(arguments: Sequence[str], codes: Sequence[int] = (0, 2, 3)) -> str:
    """What was printed.

    Raises:
        AssertionError: with the faults.
    """
    code, out, err = spoken(arguments)
    found = list(faults(code, out, err, codes))
    if found:
        raise AssertionError(f"{arguments!r}: {', '.join(found)}: {out[-500:]!r} {err[-500:]!r}")
    return out


class Box(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(x)).mean((2, 3))


def classifier(names: Sequence[str], title: str = "test") -> Classifier:
    """A network of two classes, which is what every command gets for ``--model``."""
    torch.manual_seed(0)
    module = Box().eval()
    return Classifier(module, name=title, classes=list(names), fingerprint="f", module=module)


def scan(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = np.random.default_rng(0).uniform(0.2, 0.8, (32, 40))
    Image.fromarray((grey * 255).astype(np.uint8)).save(path)
    return path


def clinic(film: Path) -> Path:
    """Where the explanation of a DICOM film lies, with the film beside it, apart from ``film``."""
    return film.parent / "clinic" / f"{film.stem}.lucency"


def examined(film: Path, names: Sequence[str] = ("a", "b")) -> None:
    """Makes what :func:`clinic` speaks of."""
    from lucency import read_scan
    from lucency.attribution import attribute
    from lucency.engine import Engine
    from lucency.methods import Occlusion
    from radiographs import film as radiograph

    kept = clinic(film)
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        source = radiograph(kept.with_suffix(".dcm"))
        how = Occlusion(patch=16, features=False)
        attribute(read_scan(source), Engine(classifier(names)), how, target=0).save(kept)


def every_command(film: Path, out: str) -> dict[str, list[str]]:
    """A quick run of each command that writes, into ``out``; ``dicom`` needs what :func:`examined` makes."""
    small = ["--method", "occlusion", "--set", "patch=8", "--removal", "constant"]
    return {
        "explain": ["explain", str(film), *small, "--out", out],
        "explain, MP4 and JSON": ["explain", str(film), *small, "--animation", "mp4", "--json", "--out", out],
        "evaluate": [
            "evaluate", str(film), "--methods", "gradient", "--curves", "MoRF", "--region", "8", "--regions", "2",
            "--repeats", "2", "--out", out,
        ],
        "compare": ["compare", str(film), "--methods", "gradient", "--repeats", "2", "--out", out],
        "layers": ["layers", str(film), "--out", out],
        "layers of a folder": ["layers", str(film.parent), "--layer", "conv", "--unit", "0", "--out", out],
        "phantom": ["phantom", "--size", "64", "--out", out],
        "dicom": ["dicom", str(clinic(film)), "--source", str(clinic(film).with_suffix(".dcm")), "--out", out],
        "archive": ["archive", "run", str(film.parent), *small, "--workers", "0", "--out", out],
    }  # fmt: skip
