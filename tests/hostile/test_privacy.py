"""A patient's name is in many a path: it goes into no result."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from commands import classifier, every_command, said, scan

from lucency.privacy import shown_command, shown_source


def written(folder: Path) -> str:
    """Every word in every file below a folder, also in archives."""
    found = []
    for file in folder.rglob("*"):
        if file.is_file():
            found.append(file.read_bytes())
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    found += [archive.read(name) for name in archive.namelist()]
    return b"\n".join(found).decode("latin-1")


@pytest.mark.parametrize("what", ["explain", "evaluate", "compare", "layers", "layers of a folder"])
@pytest.mark.parametrize("anonymous", [False, True])
def test_no_name_of_a_folder_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, anonymous: bool
) -> None:
    if anonymous and what not in ("explain", "compare"):
        pytest.skip("it keeps no name at all, or shows what was asked for")
    monkeypatch.setattr("lucency.cli.model.load_classifier", lambda *_, **__: classifier(["a", "b"]))
    film = scan(tmp_path / "Doe^Jane" / "film-4711.png")
    out = tmp_path / "Doe^Jane" / "out"
    arguments = [*every_command(film, str(out))[what], *(["--anonymous"] if anonymous else [])]
    said(arguments, codes=(0,))
    text = written(out)
    assert text
    assert "Doe^Jane" not in text
    assert ("film-4711" in text) == (not anonymous and what not in ("layers", "layers of a folder"))


def test_what_is_shown_of_names() -> None:
    assert shown_source("/home/jane/Doe/film.png") == "film.png"
    assert shown_source("memory") == "memory"
    assert shown_source("/home/film.png", "abcdef0123456789", anonymous=True) == "scan abcdef012345"
    assert shown_source("/home/\x1b[31m\udcff.png") == "\\x1b[31m\\udcff.png"
    typed = ["explain", "a/b c.png", "--out=x/y", "--set", "patch=8", "--watch", "layer:x"]
    assert shown_command(typed) == "lucency explain 'b c.png' --out=y --set patch=8 --watch layer:x"
    assert shown_command(typed, anonymous=True) == "lucency explain ... --out=... --set patch=8 --watch layer:x"
