"""Whatever is typed, and whatever things are called: one sentence, and nothing that steers a terminal."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import classifier, command_lines, every_command, examined, said, scan
from hypothesis import given, settings

NAMES = ["[/bold] [red]", "a\nb", "\udcff", "_x" * 60, "漢字 😀"]
WORST = "_[/bold] $\\frac{ \x1b[31m \u202e <b> {0} %s \udcff"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nowhere")


@settings(max_examples=120)
@given(command_lines)
def test_whatever_is_typed(nowhere: Path, arguments: list[str]) -> None:
    os.chdir(nowhere)
    said(arguments)


@pytest.mark.parametrize("name", ["", ".", "..", "/", " ", "lucency:", "hf:", "http://", "a.json"])
def test_names_that_name_no_model(here: Path, name: str) -> None:
    said(["models", name], codes=(2,))


@pytest.mark.parametrize(
    ("name", "what"),
    [*((name, "explain") for name in NAMES), *((WORST, what) for what in every_command(Path("x"), ""))],
)
def test_whatever_things_are_called(here: Path, monkeypatch: pytest.MonkeyPatch, name: str, what: str) -> None:
    try:
        film = scan(here / f"in{name}" / f"{name}.png")
    except OSError:
        pytest.skip("the disk has no such names")
    # A class is called nothing that cannot be printed: that is refused where names come in.
    classes = ["".join(c for c in name if c.isprintable()) or "some", "other"]
    monkeypatch.setattr("lucency.cli.model.load_classifier", lambda *_, **__: classifier(classes, f"m{name}"))
    if what == "dicom":
        examined(film, classes)
    shown = said(every_command(film, str(here / f"out{name}"))[what], codes=(0,))
    assert "[/bold]" in shown or "[/bold]" not in name


@pytest.mark.parametrize("end", [">/dev/full", ">&-", "| true"])
@pytest.mark.parametrize("command", ["models --json", "--help"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
def test_standard_output_that_is_full_or_gone(tmp_path: Path, command: str, end: str) -> None:
    line = f"set -o pipefail; {sys.executable} -m lucency {command} {end}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path)
    wanted = 3 if end == ">/dev/full" else 0
    assert done.returncode == (2 if "nowhere" in command else wanted), done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS], ids=["full", "read-only"])
@pytest.mark.parametrize("what", list(every_command(Path("x"), "")))
def test_a_disk_that_takes_nothing(here: Path, monkeypatch: pytest.MonkeyPatch, what: str, code: int) -> None:
    monkeypatch.setattr("lucency.cli.model.load_classifier", lambda *_, **__: classifier(["a", "b"]))
    out = here / "out"
    film = scan(here / "in" / "scan.png")
    if what == "dicom":
        examined(film)
    arguments = every_command(film, str(out))[what]
    real = os.mkdir

    def refused(path: str, *rest: object, **named: object) -> None:
        if str(out) in os.fsdecode(path):
            raise OSError(code, os.strerror(code), path)
        real(path, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "mkdir", refused)
    said(arguments, codes=(3,))
    assert not out.exists()
