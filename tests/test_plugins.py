"""An outside package's method and removal are found by name, and pass the suite of the own ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
