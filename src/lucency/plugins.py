"""What outside packages bring: entry points, each loaded once; a broken one is a warning and never the end."""

from __future__ import annotations

import warnings
from functools import cache
from importlib.metadata import entry_points


@cache
def found(group: str) -> dict[str, object]:
    """What outside packages announce under an entry point group (``lucency.methods``, ``lucency.removals``, ...), by
    name."""
    loaded: dict[str, object] = {}
    for point in entry_points(group=group):
        try:
            loaded[point.name] = point.load()
        except Exception as error:
            # Whatever a package that somebody else wrote does when it is imported.
            why = " ".join(str(error).split())[:200] or type(error).__name__
            warnings.warn(
                f"The plugin {point.name!r} ({group}) cannot be loaded ({why}); update or remove its package.",
                stacklevel=2,
            )
    return loaded
