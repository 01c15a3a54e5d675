"""What is explained: the films of a folder, a glob or a list, one after the other and never all at once."""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lucency.errors import ParameterError, ScanError

Box = tuple[float, float, float, float]

ROLES = ("path", "label", "site", "view", "patient", "group", "boxes", "mask")
"""What a column of a list may say of a film."""
LISTS = (".csv", ".parquet")


@dataclass(frozen=True)
class Film:
    """One film, and what its list says about it.

    Attributes:
        file: where it lies: a file, a folder with the slices of one volume, or the address of a DICOM instance.
        name: what it is called in the results: its place below the folder, or what the list calls it.
        label: what is known of it, such as ``"effusion"`` or ``"1"``.
        site, view, patient: where, how and of whom it was taken.
        group: whatever else films are told apart by, such as the part of a split.
        boxes: where the truth lies, as ``(x, y, width, height)`` in pixels of the film.
        mask: a picture on the film's grid that is not 0 where the truth lies.
    """

    file: str
    name: str
    label: str | None = None
    site: str | None = None
    view: str | None = None
    patient: str | None = None
    group: str | None = None
    boxes: tuple[Box, ...] = ()
    mask: str | None = None

    @property
    def key(self) -> str:
        """A hash of where it lies, which says nothing about it to whoever reads it."""
        where = self.file if self.remote else os.path.abspath(self.file)  # noqa: PTH100
        return hashlib.blake2b(os.fsencode(where), digest_size=16).hexdigest()

    @property
    def remote(self) -> bool:
        """Whether it is fetched from a DICOMweb archive."""
        return self.file.startswith(("http://", "https://"))

    @property
    def state(self) -> str:
        """Size and time of its last change; another state means that it has to be looked at anew."""
        if self.remote:
            return "instance"  # which never changes
        try:
            found = os.stat(self.file)  # noqa: PTH116 (also for names that no Path can hold)
        except (OSError, ValueError):
            return "missing"
        return f"{found.st_size}:{found.st_mtime_ns}"


class Films:
    """Films, listed anew at each iteration.

    Args:
        source: a folder (all files below it, in the order of their names), a glob such as ``films/**/*.dcm``, one
            file, or a ``.csv`` or ``.parquet`` file with a column ``path`` and, where they are known, ``label``,
            ``site``, ``view``, ``patient``, ``group``, ``boxes`` (``x,y,width,height`` in pixels of the film, several
            as JSON: ``[[x, y, width, height], ...]``) and ``mask`` (a picture). Paths in a list begin at its folder.
        columns: what the columns of a list are called, where they are called otherwise: ``{"site": "hospital"}``.

    Raises:
        ScanError: when there is no such thing, or the list cannot be read.
        ParameterError: for a column that is none of these, or is not there.
    """

    def __init__(self, source: str | os.PathLike[str], columns: Mapping[str, str] | None = None) -> None:
        self.source = os.fspath(source)
        self.columns = dict(columns or {})
        if unknown := [role for role in self.columns if role not in ROLES]:
            raise ParameterError(f"A list says nothing of {unknown[0]!r}; it may say {', '.join(ROLES)}.")
        path = Path(self.source)
        try:
            self._kind = "folder" if path.is_dir() else "file" if path.is_file() else "glob"
        except (OSError, ValueError) as error:
            raise ScanError(f"{self.source} cannot be opened ({error}); check the name.") from error
        if self._kind == "file" and path.suffix.lower() in LISTS:
            self._kind = path.suffix.lower()
        if self._kind == "glob" and not glob.has_magic(self.source):
            raise ScanError(f"There is no {self.source}; give a folder, a glob, or a .csv or .parquet list of films.")
        if self.columns and self._kind not in LISTS:
            raise ParameterError("Only a .csv or .parquet list has columns; leave --column out.")
        if next(iter(self), None) is None:
            raise ScanError(f"{self.source} holds no film; give a folder, a glob or a list that does.")

    def __iter__(self) -> Iterator[Film]:
        path = Path(self.source)
        if self._kind == "folder":
            yield from (Film(file, os.path.relpath(file, path)) for file in _below(self.source))
        elif self._kind == "glob":
            root = _root(self.source)
            for file in glob.iglob(self.source, recursive=True):  # noqa: PTH207 (also absolute)
                if os.path.isfile(file):  # noqa: PTH113
                    yield Film(file, os.path.relpath(file, root))
        elif self._kind == "file":
            yield Film(self.source, path.name)
        else:
            rows = _csv(path) if self._kind == ".csv" else _parquet(path)
            yield from (self._film(row, number, path) for number, row in enumerate(rows, 1))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _film(self, row: Mapping[str, Any], number: int, listed: Path) -> Film:
        said: dict[str, Any] = {}
        for role in ROLES:
            name = self.columns.get(role, role)
            if name not in row:
                if role in self.columns or role == "path":
                    raise ParameterError(
                        f"{listed} has no column {name!r}; name the one that holds it: --column {role}=NAME."
                    )
                continue
            value = row[name]
            if value is not None and value == value and str(value).strip():
                said[role] = value if role == "boxes" else str(value).strip()
        if "path" not in said:
            raise ScanError(f"Row {number} of {listed} names no file; leave it out.")
        boxes = _boxes(said.pop("boxes", None), number, listed)
        name = said.pop("path")
        mask = said.pop("mask", None)
        here = listed.parent
        return Film(str(here / name), name, boxes=boxes, mask=None if mask is None else str(here / mask), **said)


def _below(folder: str) -> Iterator[str]:
    """The files below a folder, in the order of their names; hidden ones are left out."""
    try:
        with os.scandir(folder) as found:
            there = sorted((one.name, one.is_dir()) for one in found if not one.name.startswith("."))
    except OSError:
        return
    for name, is_folder in there:
        path = os.path.join(folder, name)  # noqa: PTH118
        if is_folder:
            yield from _below(path)
        elif os.path.isfile(path):  # noqa: PTH113
            yield path


def _root(pattern: str) -> str:
    """The folder above everything that a glob can find."""
    parts = Path(pattern).parts
    fixed = [part for i, part in enumerate(parts) if not any(glob.has_magic(p) for p in parts[: i + 1])]
    return str(Path(*fixed)) if fixed else "."


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            yield from csv.DictReader(file)
    except (OSError, csv.Error) as error:
        raise ScanError(f"{path} cannot be read as a list ({error}); save it as CSV with a line of names.") from error


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(1024):
                yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        said = next(iter(str(error).splitlines()), "no reason given")
        raise ScanError(f"{path} cannot be read as Parquet ({said}); write it again.") from error


def _boxes(value: Any, number: int, listed: Path) -> tuple[Box, ...]:
    if value is None:
        return ()
    try:
        found = (
            json.loads(value if value.strip().startswith("[") else f"[{value}]") if isinstance(value, str) else value
        )
        if len(found) and not isinstance(found[0], list | tuple):
            found = [found]
        boxes = [tuple(float(v) for v in box) for box in found]
        if any(len(box) != 4 or not (box[2] > 0 and box[3] > 0) for box in boxes):
            raise ValueError
    except (ValueError, TypeError, RecursionError, KeyError) as error:
        raise ParameterError(
            f"Row {number} of {listed} has the boxes {value!s:.60}; write x,y,width,height, or several as "
            "[[x, y, width, height], ...]."
        ) from error
    return tuple((b[0], b[1], b[2], b[3]) for b in boxes)
