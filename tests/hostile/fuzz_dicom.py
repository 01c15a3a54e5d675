"""Drawn single-word changes of DICOM films of every transfer syntax: each is read, or refused in one sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
LIMIT_MIB = 2048


def main(seconds: float, seed: int) -> int:
    """Prints how many were read and refused; 1 when one did anything else, hung or swelled."""
    from campaign import drive

    return drive(Path(__file__), seconds, seed, LIMIT_MIB)


def drawn(random: np.random.Generator) -> tuple[str, str, bytes]:
    from made_films import mutated

    what, data = mutated(random)
    return what, "film.dcm", data


if __name__ == "__main__":
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    from campaign import batch

    from lucency.reading.dicom import read_dicom

    batch(drawn, lambda path, number: read_dicom(path), float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
