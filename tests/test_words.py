"""One word, one thing: words that were given up name nothing public again."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROWS = re.findall(r"^\| ([^|]+) \| ([^|]+) \|([^|]*)\|$", (ROOT / "docs" / "words.md").read_text(), re.MULTILINE)[2:]
RETIRED = {word for _, _, instead in ROWS for word in re.findall(r"`(\w+)`", instead)}
ALLOWED = {("Frame", "recorder.py"): "one picture of an animation"}


def public_names(source: str) -> Iterator[str]:
    """Classes, functions, methods and fields that a module offers."""
    tree = ast.parse(source)
    for place in [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]:
        for node in place.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield node.name
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                yield node.target.id
            elif isinstance(node, ast.Assign):
                yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def retired(folder: Path) -> list[str]:
    """Every use of a word that was given up, as ``file: word``."""
    return [
        f"{file.relative_to(folder)}: {name}"
        for file in sorted(folder.rglob("*.py"))
        for name in (file.stem, *public_names(file.read_text()))
        if name in RETIRED and (name, file.name) not in ALLOWED
    ]


def test_words_that_were_given_up_do_not_come_back() -> None:
    found = retired(ROOT / "src" / "lucency") + retired(ROOT / "benchmarks")
    assert not found, f"{found}; docs/words.md has the words to use"


def test_the_page_lists_each_word_once_and_sorts_out_no_word_that_it_uses() -> None:
    words = [word for row in ROWS for word in row[0].split(", ")]
    assert len(ROWS) > 30
    # Games of masks and curves share the field's term.
    assert {word for word in words if words.count(word) > 1} == {"deletion"}
    assert {"Frame", "mass_on", "Shapley"} < RETIRED


@pytest.mark.parametrize(
    "source", ["class Frame: pass", "class A:\n    reach: int = 3", "class A:\n    def half(self): ...", "mass_on = 3"]
)
def test_a_retired_word_would_be_noticed(source: str, tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text(source)
    assert len(retired(tmp_path)) == 1
    (tmp_path / "shapley.py").write_text("")
    assert len(retired(tmp_path)) == 2
