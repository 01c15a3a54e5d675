"""Whole archives: every film of a list explained once, resumable, and the cohort on one page.

Needs the ``archive`` extra, and ``ray`` for several machines.
"""

from lucency.errors import MissingExtraError

try:
    import fsspec  # noqa: F401
    import pyarrow  # noqa: F401
except ImportError as error:
    raise MissingExtraError(
        f"Archives need {error.name}, which is not installed; run pip install 'lucency[archive]'."
    ) from error

from lucency.archive.asked import Asked
from lucency.archive.films import Film, Films
from lucency.archive.manifest import Counts, counts
from lucency.archive.running import Progress, run

__all__ = ["Asked", "Counts", "Film", "Films", "Progress", "counts", "run"]
