"""Where commands leave their results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def results(folder: Path, of: str) -> Iterator[Path]:
    """:func:`lucency.writing.results`, and what they replaced is said on stderr.

    Args:
        of: the command.

    Raises:
        OutputError: when the folder cannot be made or written; it is then as it was before.
    """
    from lucency import writing
    from lucency.cli.console import tell

    with writing.results(folder, of) as found:
        yield found.place
    if found.replaced:
        tell(f"Replaced in {folder}: {', '.join(found.replaced)}")
    if found.removed:
        tell(f"Removed from {folder}, left by an earlier run: {', '.join(found.removed)}")
