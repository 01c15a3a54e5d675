"""What an explanation remembers: written, read back, and read from files of Lucency 0.1.0."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from hostile import explanations
from lucency import Explanation
from lucency.errors import ParameterError
from lucency.records import FORMAT, Contents, Cost, Hits, MethodRecord, Provenance, VerdictRecord

FILES = Path(__file__).parent / "saved"


@pytest.fixture(scope="module")
def made() -> Explanation:
    return explanations.explanation()


def test_files_of_the_first_version_load() -> None:
    old = Explanation.load(FILES / "occlusion-0.1.0.lucency")
    assert (old.target, old.peak, old.removal, old.complete) == ("c0", (4, 4), "constant", True)
    assert old.verdict is not None
    assert old.verdict.text.startswith("Around row 4, column 4: the strongest evidence for c0 (probability 61 %).")
    assert old.verdict.format == 1
    assert old.verdict.level == "fairly repeatable"
    assert old.provenance.cost.evaluations == 21
    assert old.provenance.error_bars.cost.evaluations == 42
    assert old.provenance.error_bars.moved == ((-3, 1), (-3, 1))
    assert old.provenance.removal is not None
    assert old.provenance.removal.reason == "the method was handed over with it"
    assert "peak at (4, 4), 21 evaluations" in repr(old)


def test_of_an_old_file_the_method_says_what_its_maps_are() -> None:
    old = Explanation.load(FILES / "gradient-0.1.0.lucency")
    assert (old.provenance.method.grainy, old.provenance.method.locates) == (True, False)
    assert old.provenance.format == FORMAT


def test_a_file_from_before_verdicts_has_none() -> None:
    old = Explanation.load(FILES / "before-verdicts-0.1.0.lucency")
    assert old.verdict is None
    assert old.provenance.removal is None
    assert old.heatmap.shape == (12, 10)
    assert Contents((), {}, {}, old.provenance).as_dict()["verdict"] == {}


def test_records_come_back_as_they_were(made: Explanation, tmp_path: Path) -> None:
    again = Explanation.load(made.save(tmp_path / "x.lucency"))
    assert again.provenance == made.provenance
    assert again.verdict == made.verdict
    assert made.verdict is not None
    for record in (made.provenance, made.verdict, made.provenance.method, Cost(1, 2, 3.0)):
        stored = json.loads(json.dumps(record.as_dict(), allow_nan=False))
        assert type(record).from_dict(stored) == record
        assert type(record).from_dict({**stored, "of tomorrow": 1}) == record
    assert made.provenance.as_dict()["format"] == made.verdict.as_dict()["format"] == FORMAT
    # The keys of 0.1.0, so that its readers understand the file.
    assert {"evaluations", "gradients", "seconds"} < set(made.provenance.as_dict())
    assert made.provenance.as_dict()["error_bars"]["from"] == "copies"


def test_numbers_without_a_value_are_null() -> None:
    verdict = VerdictRecord("A.", ("B.",), hits=Hits("films", 3, 2, 1, 1))
    stored = json.loads(json.dumps(verdict.as_dict(), allow_nan=False))
    assert stored["probability"] is None
    assert stored["text"] == verdict.text == "A. B."
    again = VerdictRecord.from_dict(stored)
    assert math.isnan(again.probability)
    assert again.hits == verdict.hits


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 1.5}, "seed in Provenance"),
        ({"method": {"name": "x"}}, "title is missing in method"),
        ({"format": FORMAT + 1}, "newer Lucency"),
        ({"format": 0}, "format in Provenance"),
        ({"seconds": "long"}, "seconds in cost"),
        ({"versions": {"a": 1}}, "versions in Provenance"),
    ],
)
def test_what_does_not_fit_is_named(made: Explanation, change: dict[str, Any], says: str) -> None:
    with pytest.raises(ParameterError, match=says):
        Provenance.from_dict({**made.provenance.as_dict(), **change})
    with pytest.raises(ParameterError, match="no MethodRecord that Lucency wrote"):
        MethodRecord.from_dict([])
