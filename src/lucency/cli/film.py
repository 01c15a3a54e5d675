"""The scan that a command is about, with what its options say about reading it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lucency.scan import Scan


def read(path: Path, frame: int | None, window: str | None, value_range: str | None) -> Scan:
    """The scan in a file or a folder of slices; ``value_range`` as typed: ``LOW,HIGH``."""
    from lucency.reading import read_scan

    return read_scan(path, frame=frame, window=window, value_range=ends(value_range))


def ends(value_range: str | None) -> tuple[float, float] | None:
    """What ``--value-range`` says: ``LOW,HIGH``."""
    from lucency.errors import ParameterError

    if value_range is None:
        return None
    try:
        low, high = map(float, value_range.split(","))
    except ValueError as error:
        raise ParameterError(
            f"--value-range is {value_range!r}; give two numbers with a comma between them, such as 0,4095."
        ) from error
    return low, high
