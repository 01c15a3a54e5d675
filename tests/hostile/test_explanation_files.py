"""Explanation files that somebody made: read as what they are, or refused in one sentence, in little memory."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import explanations
import numpy as np
import pytest
from fuzz_explanations import tried

from lucency import Explanation
from lucency.errors import OutputError


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return explanations.parts(tmp_path_factory.mktemp("good") / "x.lucency")


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    made = explanations.explanation()
    made = replace(
        made, also={"[red]\x1b": made.heatmap.T.copy().T, "b": made.heatmap}, facts={"r": float("nan"), "n": 3}
    )
    again = Explanation.load(made.save(tmp_path / "x.lucency"))
    for mine, its in zip(
        (made.heatmap, made.pixels, made.standard_error, *made.also.values()),
        (again.heatmap, again.pixels, again.standard_error, *again.also.values()),
        strict=True,
    ):
        assert np.array_equal(mine, its)
    assert (list(again.also), again.probabilities) == (list(made.also), made.probabilities)
    assert np.isnan(again.facts["r"])
    assert [p.name for p in tmp_path.iterdir()] == ["x.lucency"]


@pytest.mark.parametrize("what", explanations.WRONG)
def test_what_is_wrong_is_one_sentence(inside: dict[str, bytes], tmp_path: Path, what: str) -> None:
    make, says = explanations.WRONG[what]
    path = make(tmp_path / "x.lucency", inside)
    with pytest.raises(
        OutputError, match=r"is not an explanation that Lucency wrote \(.*\); make it again\.$"
    ) as error:
        Explanation.load(path)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
@pytest.mark.parametrize("what", ["a bomb", "a header that lies", "a header of 4 GiB", "sizes that lie"])
def test_little_memory_is_enough_to_refuse(inside: dict[str, bytes], tmp_path: Path, what: str) -> None:
    path = explanations.WRONG[what][0](tmp_path / "x.lucency", inside)
    code = f"""
import resource
from lucency import Explanation, LucencyError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    Explanation.load({str(path)!r})
except LucencyError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100_000


def test_drawn_changes_are_read_or_refused_and_what_is_read_can_be_shown(
    inside: dict[str, bytes], tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    outcomes = [tried(explanations.mutated(inside, random, tmp_path / "x.lucency"), tmp_path) for _ in range(100)]
    assert outcomes.count("refused") > 50
    assert outcomes.count("shown") > 0
