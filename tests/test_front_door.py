"""What people hand over first, arrays of every kind, and what they see first."""

from __future__ import annotations

import html

import numpy as np
import pytest
import torch

from lucency import Scan, explain
from lucency.errors import ScanError
from lucency.methods.occlusion import Occlusion
from nets import Window, classifier_of


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.int64, np.float32, bool])
def test_an_array_is_shown_between_black_and_white(kind: type) -> None:
    grey = np.linspace(0, 1, 99).reshape(9, 11)
    top = {np.uint8: 255, np.uint16: 65535, np.int16: 2000, np.int64: 7, np.float32: 1, bool: 1}[kind]
    shown = Scan.from_array((grey * top).astype(kind)).display
    assert float(shown.min()) == 0
    assert float(shown.max()) == 1


def test_a_value_range_that_is_given_is_kept() -> None:
    assert Scan.from_array(np.arange(9).reshape(3, 3), value_range=(0, 100)).value_range == (0, 100)
    normalised = torch.randn(1, 9, 9)
    assert Scan.from_array(normalised).display.equal(normalised)


def test_an_integer_array_says_how_it_is_shown() -> None:
    (said,) = Scan.from_array(np.arange(9).reshape(3, 3)).notices
    assert said.startswith("shown from 0 to 8, its own minimum and maximum")


@pytest.mark.parametrize("array", [[[1, 2], [3]], [["a"]], np.array([[None]]), "chest.png"])
def test_what_is_no_array_is_refused_in_one_sentence(array: object) -> None:
    with pytest.raises(ScanError, match="read_scan"):
        Scan.from_array(array)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 24, 20), (1, 6, 24, 20)])
def test_a_notebook_shows_a_line_and_a_picture_and_no_wall_of_numbers(shape: tuple[int, ...]) -> None:
    scan = Scan(torch.rand(shape, generator=torch.Generator().manual_seed(0)))
    window = classifier_of(Window(*((n // 4, n // 2) for n in shape[1:])))
    explanation = explain(scan, window, target=0, method=Occlusion(patch=4))
    for said in (repr(scan), repr(explanation)):
        assert " x ".join(map(str, shape[1:])) in said
        assert len(said) < 200
    shown = explanation._repr_html_()
    assert shown is not None
    assert "data:image/png;base64," in shown
    assert html.escape(explanation.verdict.text) in shown
    assert "<script" not in shown
