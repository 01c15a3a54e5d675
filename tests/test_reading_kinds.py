"""Every row of the page of kinds is made, read and compared."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dicom_kinds import DICOM_KINDS
from kinds import KINDS, Kind
from lucency.reading import as_scan

ALL = [*KINDS, *DICOM_KINDS]
PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "scans.md"


@pytest.mark.parametrize("kind", ALL, ids=[kind.kind for kind in ALL])
def test_a_kind_is_read_as_the_page_says(tmp_path: Path, kind: Kind) -> None:
    kind.ready()
    kind.check(as_scan(kind.make(tmp_path), **(kind.how or {})))


@pytest.mark.parametrize("section", ["Pictures", "DICOM", "Volumes", "Arrays"])
def test_the_page_shows_these_kinds(section: str) -> None:
    text = re.split(r"^#+ ", PAGE.read_text(), flags=re.MULTILINE)
    (part,) = (p for p in text if p.startswith(section + "\n"))
    rows = [line for line in part.splitlines() if line.startswith("| ")][2:]
    assert rows == [f"| {kind.kind} | {kind.happens} |" for kind in ALL if kind.section == section]
