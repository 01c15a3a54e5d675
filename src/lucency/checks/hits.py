"""How often maps were right where the truth is known: measured once by ``benchmarks/hit_rates.py``, looked up here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from lucency.explanation import Explanation

WORDS = ((0.8, "Reliable"), (0.5, "Fairly reliable"), (0.0, "Not reliable to the spot"))
"""What maps are called whose maximum lies on the truth in at least this share of the scans."""
Z = 1.96


@dataclass(frozen=True)
class Hits:
    """How often maps of one model, method and removal were right.

    Attributes:
        truth: what was known of the scans.
        scans: how many there were.
        peak: on how many the maximum lay on the truth.
        sided: on how many the verdict named a side.
        side: on how many of those it was the right one.
    """

    truth: str
    scans: int
    peak: int
    sided: int
    side: int

    @property
    def tells(self) -> bool:
        """Whether the side was right more often than a coin would have it (lower end of Wilson's 95 % interval)."""
        n, p = self.sided, self.side / max(self.sided, 1)
        if n == 0:
            return True
        centre = p + Z**2 / (2 * n)
        lower = (centre - Z * float(np.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2)))) / (1 + Z**2 / n)
        return lower > 0.5

    @property
    def sentence(self) -> str:
        """The numbers in one sentence."""
        word = next(word for least, word in WORDS if self.peak / self.scans >= least)
        return (
            f"{word}: on {self.scans} {self.truth} the maximum of such maps lay on it in {self.peak}, and a named side "
            f"was right in {self.side} of {self.sided}."
        )


def known_hits(explanation: Explanation) -> Hits | None:
    """What was measured for this model, finding, method and removal; ``None`` where nothing was."""
    about = explanation.provenance
    parameters = about["method"].get("parameters", {})
    if not explanation.complete or str(about["question"]["watch"]).startswith("layer"):
        return None
    for row in _rows():
        if (
            row["fingerprint"] == about.get("model", {}).get("fingerprint")
            and row["target"] == explanation.target
            and row["method"] == about["method"].get("name")
            and row["removal"] == explanation.removal
            and all(parameters.get(name) == value for name, value in row["settings"].items())
        ):
            return Hits(row["truth"], row["scans"], row["peak"], row["sided"], row["side"])
    return None


@cache
def _rows() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((files("lucency.checks") / "hits.json").read_text())
    return found
