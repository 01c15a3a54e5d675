"""Writing pictures and pages: whole or not at all, in a format that is told by the suffix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lucency.errors import OutputError
from lucency.writing import whole


@contextmanager
def written(path: str | Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """A place to write to, which becomes ``path`` when all went well and vanishes when not.

    Raises:
        OutputError: for a suffix that is not among ``suffixes``, or when the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise OutputError(f"{path.name} cannot be written in that format; use one of {', '.join(suffixes)}.")
    with whole(path) as part:
        yield part
