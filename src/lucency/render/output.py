"""Writing files whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lucency.errors import OutputError


@contextmanager
def written(path: str | Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """A place to write to, which becomes ``path`` when all went well and vanishes when not.

    Raises:
        OutputError: for a suffix that is not among ``suffixes``, or when the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise OutputError(f"{path.name} cannot be written in that format; use one of {', '.join(suffixes)}.")
    # The suffix stays last: writers tell the format from it.
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    try:
        # A place that cannot be written is found out before the work, and not by a writer that says it badly.
        part.touch()
        yield part
        part.replace(path)
    except OSError as error:
        why = error.strerror or next(iter(str(error).splitlines()), "no reason given")
        raise OutputError(f"{path} cannot be written ({why}); free space or choose another place.") from error
    finally:
        part.unlink(missing_ok=True)
