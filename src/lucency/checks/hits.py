"""How often maps were right where the truth is known: measured once by ``benchmarks/hit_rates.py``, looked up here."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from lucency.explanation import Explanation
from lucency.records import Hits

WORDS = ((0.8, "Reliable"), (0.5, "Fairly reliable"), (0.0, "Not reliable to the spot"))
"""What maps are called whose maximum lies on the truth in at least this share of the scans."""
Z = 1.96


def tells(hits: Hits) -> bool:
    """Whether the side was right more often than a coin would have it (lower end of Wilson's 95 % interval)."""
    n, p = hits.sided, hits.side / max(hits.sided, 1)
    if n == 0:
        return True
    centre = p + Z**2 / (2 * n)
    lower = (centre - Z * float(np.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2)))) / (1 + Z**2 / n)
    return lower > 0.5


def sentence(hits: Hits) -> str:
    """The numbers in one sentence."""
    word = next(word for least, word in WORDS if hits.peak / hits.scans >= least)
    return (
        f"{word}: on {hits.scans} {hits.truth} the maximum of such maps lay on it in {hits.peak}, and a named side "
        f"was right in {hits.side} of {hits.sided}."
    )


def known_hits(explanation: Explanation) -> Hits | None:
    """What was measured for this model, finding, method and removal; ``None`` where nothing was."""
    about = explanation.provenance
    parameters = about.method.parameters
    if not explanation.complete or about.question.of_layer:
        return None
    for row in _rows():
        if (
            row["fingerprint"] == about.model.fingerprint
            and row["target"] == explanation.target
            and row["method"] == about.method.name
            and row["removal"] == explanation.removal
            and all(parameters.get(name) == value for name, value in row["settings"].items())
        ):
            return Hits(row["truth"], row["scans"], row["peak"], row["sided"], row["side"])
    return None


@cache
def _rows() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((files("lucency.checks") / "hits.json").read_text())
    return found
