"""The architecture page is true: the rooms, their floors, and a file that is dropped in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "lucency"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
ROOMS = re.findall(r"^  (\w+)(?:\.py|/) ", PAGE, re.MULTILINE)


def test_every_import_goes_downwards_and_round_no_circle() -> None:
    pytest.importorskip("importlinter", reason="import-linter is not installed")
    command = "import sys; from importlinter.cli import lint_imports_command as run; run()"
    done = subprocess.run(
        [sys.executable, "-c", command, "--no-cache"], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_lists_the_rooms_in_the_order_of_their_floors() -> None:
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix in ("", ".py") and path.stem[:1] not in "_."}
    assert sorted(ROOMS) == sorted(there)
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    floors = [re.findall(r"\w+", floor) for floor in reversed(contracts[0]["layers"])]
    level = {room: i for i, floor in enumerate(floors) for room in floor}
    assert [level[room] for room in ROOMS] == sorted(level[room] for room in ROOMS)


DROPPED = {
    "methods": (
        "from lucency.methods.occlusion import Occlusion\n@dataclass(frozen=True)\nclass Dropped(Occlusion):",
        "from lucency.methods import METHODS; print('dropped' in METHODS)",
    ),
    "removal": (
        "from lucency.removal.simple import Constant\n@dataclass(frozen=True)\nclass Dropped(Constant):",
        "from lucency.removal import Removal; print('dropped' in Removal.words())",
    ),
    "metrics": (
        "from lucency.metrics.procedures import MoRF\n@dataclass(frozen=True)\nclass Dropped(MoRF):",
        "from lucency.metrics import Procedure; print(Procedure.of('dropped', region=5).region == 5)",
    ),
    "masks": (
        "from lucency.masks.superpixels import Cells\n@dataclass(frozen=True)\nclass Dropped(Cells):",
        "from lucency.methods import Lime, method_named; method_named('lime', ['superpixels=dropped']); print(True)",
    ),
}


@pytest.mark.parametrize("room", DROPPED)
def test_a_file_dropped_in_is_enough(room: str, tmp_path: Path) -> None:
    definition, question = DROPPED[room]
    copy = tmp_path / "lucency"
    (copy / room).mkdir(parents=True)
    for folder, place in ((PACKAGE, copy), (PACKAGE / room, copy / room)):
        for path in folder.iterdir():
            if path.name not in (room, "__pycache__"):
                (place / path.name).symlink_to(path)
    (copy / room / "dropped.py").write_text(
        f"from dataclasses import dataclass\nfrom typing import ClassVar\n{definition}\n"
        '    name: ClassVar[str] = "dropped"\n'
    )
    done = subprocess.run(
        [sys.executable, "-c", question], env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "True", done.stderr
