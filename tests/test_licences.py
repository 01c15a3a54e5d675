"""No user gets code under a licence that asks more of them than Lucency's own."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "tools"))
import licences


def test_what_users_install_is_under_licences_that_ask_nothing_more() -> None:
    try:
        found = licences.closure("lucency", ["all"])
    except PackageNotFoundError:
        pytest.skip("lucency is not installed here")
    assert list(licences.objections(found)) == []
    assert not set(licences.DEVELOPMENT) & set(found)


def test_a_copyleft_licence_is_seen() -> None:
    some = {
        "a": "MIT",
        "b": "GNU General Public License v3 (GPLv3)",
        "c": "",
        "certifi": "MPL-2.0",
        "d": "LGPL-3.0-only",
    }
    assert [line.split()[0] for line in licences.objections(some)] == ["b", "c", "d"]
