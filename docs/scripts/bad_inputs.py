"""Writes ``docs/how-to/bad-inputs.md``: every bad input of the tests, really handed over, with what the user reads.

Run it from the root of the repository: ``python docs/scripts/bad_inputs.py``.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from bad_inputs import BAD_MODELS, BAD_QUESTIONS, BAD_SCANS, Bad, message  # noqa: E402

HEAD = """# What happens to bad inputs

Every error that you can mend is one sentence of the `LucencyError` family: what is wrong, and what to do. This page is
written by `docs/scripts/bad_inputs.py`, which hands over each of these inputs; the tests do the same.
"""


def table(title: str, cases: list[Bad], folder: Path) -> str:
    lines = [f"## {title}", "", "| what is wrong | handed over | what you read |", "| --- | --- | --- |"]
    for what, name, act, _ in cases:
        said = message(act, folder / name).replace("|", "\\|").replace("<", "&lt;")
        lines.append(f"| {what} | `{name}` | {said} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        parts = [
            table(title, cases, Path(folder))
            for title, cases in (("Scans", BAD_SCANS), ("Models", BAD_MODELS), ("Questions", BAD_QUESTIONS))
        ]
    page = ROOT / "docs" / "how-to" / "bad-inputs.md"
    page.write_text("\n".join([HEAD, *parts]))
    print(f"{sum(len(c) for c in (BAD_SCANS, BAD_MODELS, BAD_QUESTIONS))} bad inputs in {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
