"""An outside package's method and removal are found by name, and pass the suite of the own ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor

from lucency.errors import ParameterError
from lucency.masks import Superpixels
from lucency.methods import Method, Step
from lucency.metrics.procedures import Procedure
from lucency.removal import Fill, Removal

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "examples" / "plugin"
DEMO = ROOT / "src" / "lucency" / "phantom" / "demo.png"


def announced(place: Path, points: str) -> dict[str, str]:
    """An environment in which a package announces entry points as if it were installed."""
    info = place / "outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)
    before = os.environ.get("PYTHONPATH", "")
    path = os.pathsep.join(filter(None, [str(place), str(PLUGIN / "src"), str(ROOT / "src"), before]))
    return {**os.environ, "PYTHONPATH": path}


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300)


POINTS = """[lucency.methods]
stripes = lucency_stripes:Stripes
[lucency.removals]
quantile = lucency_stripes:Quantile
"""


def test_the_example_announces_what_is_announced_here() -> None:
    import tomllib

    about = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]["entry-points"]
    said = "".join(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in about.items())
    assert said == POINTS


def test_a_plugin_is_used_by_name(tmp_path: Path) -> None:
    environment = announced(tmp_path, POINTS)
    listed = run(environment, "-m", "lucency", "methods")
    assert "stripes" in listed.stdout
    assert "quantile" in listed.stdout
    done = run(
        environment, "-m", "lucency", "explain", str(DEMO), "--model", "lucency:phantom", "--target", "effusion",
        "--method", "Stripes", "--removal", "quantile", "--set", "width=32", "--set", "removal.q=0.2",
        "--out", str(tmp_path / "out"), "--animation", "none",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Stripes with removal quantile" in done.stdout
    assert (tmp_path / "out" / "report.html").read_text().count("Stripes") > 1


def test_the_plugins_own_tests_pass(tmp_path: Path) -> None:
    tests = run(announced(tmp_path, POINTS), "-m", "pytest", "-q", "-p", "no:cacheprovider", str(PLUGIN / "tests"))
    assert tests.returncode == 0, tests.stdout


@pytest.mark.parametrize("points", ["nowhere:Nothing", "os:path", "lucency_stripes:Quantile"])
def test_a_broken_or_wrong_plugin_is_no_reason_to_fail(points: str, tmp_path: Path) -> None:
    environment = announced(tmp_path, f"[lucency.methods]\nbroken = {points}\n")
    said = run(environment, "-m", "lucency", "methods", "--json")
    assert said.returncode == 0, said.stderr
    assert "occlusion" in said.stdout
    assert "broken" not in said.stdout


CUTS_AND_CURVES = '''
from dataclasses import dataclass
from lucency.masks import Cells
from lucency.metrics.procedures import MoRF

@dataclass(frozen=True)
class Rows(Cells):
    """Rows of boxes."""
    name = "rows"

@dataclass(frozen=True)
class Slow(MoRF):
    """MoRF in small regions."""
    name = "slow"
'''


def test_superpixels_and_curves_come_from_outside_too(tmp_path: Path) -> None:
    (tmp_path / "outside.py").write_text(CUTS_AND_CURVES)
    points = "[lucency.superpixels]\nrows = outside:Rows\n[lucency.curves]\nslow = outside:Slow\n"
    code = """
from lucency.metrics.procedures import CURVES, Procedure
from lucency.methods import method_named
print(method_named("lime", ["superpixels=rows", "superpixels.cells=3"]).superpixels, Procedure.of("SLOW").name)
"""
    said = run(announced(tmp_path, points), "-c", code)
    assert said.returncode == 0, said.stderr
    assert said.stdout == "Rows(cells=3) slow\n"


class Outside:
    """A body for classes of the protocols."""

    def steps(self, scan: object, question: object, engine: object) -> Iterator[Step]:
        return iter(())

    def bind(self, pixels: object, generator: object) -> Fill:
        raise NotImplementedError

    def labels(self, pixels: object) -> Tensor:
        raise NotImplementedError

    def counts(self, pieces: int) -> Tensor:
        raise NotImplementedError

    def words(self, pieces: int, steps: int) -> str:
        return ""


GOOD: dict[type, dict[str, object]] = {
    Method: {"name": "x", "title": "X", "paper": "none", "unit": "score"},
    Removal: {"name": "x", "deterministic": True},
    Superpixels: {"name": "x"},
    Procedure: {"name": "x", "title": "X", "good": "falls", "measure": "AOPC", "better": "higher"},
}


@pytest.mark.parametrize(("base", "missing"), [(base, name) for base, good in GOOD.items() for name in good])
def test_a_class_attribute_that_is_missing_or_wrong_is_said_at_the_definition(base: type, missing: str) -> None:
    good = {"__module__": "outside", **GOOD[base]}
    type("Good", (Outside, base), good)
    with pytest.raises(ParameterError, match=rf"^Bad has no {missing}; give it a class attribute {missing}, "):
        type("Bad", (Outside, base), {k: v for k, v in good.items() if k != missing})
    with pytest.raises(ParameterError, match=rf"^The {missing} of Bad is 3; it must be "):
        type("Bad", (Outside, base), {**good, missing: 3})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"panel": "hologram"}, "'map' or 'curve' or 'scatter'"),
        ({"axes": ("alpha",)}, "(a text, a text)"),
        ({"needs_gradients": 1}, "True or False"),
    ],
)
def test_what_has_a_default_must_fit_too(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ParameterError) as error:
        type("Bad", (Outside, Method), {"__module__": "outside", **GOOD[Method], **wrong})
    assert says in str(error.value)
