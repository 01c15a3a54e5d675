"""Maps, truths and mean pictures in .npy files that are none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import explanations
import numpy as np
import pytest

from lucency.errors import ScanError
from lucency.reading import read_numbers


def saved(path: Path, data: bytes) -> None:
    path.write_bytes(data)


WRONG: dict[str, Callable[[Path], object]] = {
    "nothing there": lambda p: None,
    "empty": lambda p: saved(p, b""),
    "a pipe": lambda p: os.mkfifo(p),
    "text": lambda p: saved(p, b"hello"),
    "an archive": lambda p: explanations.packed(p, {"a.npy": explanations.npy(np.ones(3))}),
    "objects": lambda p: np.save(p, np.array([{}]), allow_pickle=True),
    "words": lambda p: np.save(p, np.array(["a"])),
    "complex numbers": lambda p: np.save(p, np.ones(3, complex)),
    "records": lambda p: np.save(p, np.ones(3, [("a", "f4")])),
    "cut": lambda p: saved(p, explanations.npy(np.ones(99))[:-9]),
    "a header that lies": lambda p: saved(p, explanations.header("(100000, 100000)")),
    "a header of brackets": lambda p: saved(p, explanations.header("(" * 80)),
    "a header of 4 GiB": lambda p: saved(p, b"\x93NUMPY\x02\x00\xff\xff\xff\xff"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_array_is_one_sentence(tmp_path: Path, what: str) -> None:
    WRONG[what](tmp_path / "x.npy")
    with pytest.raises(ScanError) as error:
        read_numbers(tmp_path / "x.npy")
    assert "\n" not in str(error.value)


def test_an_array_is_read_as_it_is(tmp_path: Path) -> None:
    truth = np.arange(6, dtype=np.int16).reshape(2, 3) > 3
    np.save(tmp_path / "x.npy", truth)
    assert np.array_equal(read_numbers(tmp_path / "x.npy"), truth)
