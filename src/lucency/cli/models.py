"""``lucency models``: the classifiers that come with the package."""

from __future__ import annotations

from lucency.cli.options import AsJson


def models(as_json: AsJson = False) -> None:
    """List the shipped classifiers and how well they read."""
