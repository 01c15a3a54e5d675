"""Drawn changes of pictures, arrays and volumes of every kind: each is read, or refused in one sentence."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
LIMIT_MIB = 2048 + 1024
"""2 GiB, and the largest scan that is read: 2**28 pixels of 4 bytes."""


def main(seconds: float, seed: int) -> int:
    """Prints how many were read and refused; 1 when one did anything else, hung or swelled."""
    from campaign import drive

    return drive(Path(__file__), seconds, seed, LIMIT_MIB)


if __name__ == "__main__":
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    from campaign import batch
    from files import mutated

    from lucency import read_scan

    batch(
        mutated,
        lambda path, number: read_scan(path, frame=None if number % 2 else 1),
        float(sys.argv[1]),
        int(sys.argv[2]),
        int(sys.argv[3]),
    )
