"""Whether a removal removes anything that the classifier misses: a mask can only be optimised where it does."""

from __future__ import annotations

import torch

from lucency.engine import Probe
from lucency.methods.base import Fact

LEAST = 0.1
"""Share of the score that must be gone when everything is removed."""


def emptied(probe: Probe) -> dict[str, Fact]:
    """The score with all removed, and a warning where the classifier hardly notices; one evaluation."""
    score = float(probe.scores(torch.zeros((1, *probe.grid), device=probe.pixels.device))[0, 0])
    clean = float(probe.clean[0])
    facts: dict[str, Fact] = {"score with all removed": score}
    if abs(clean - score) < LEAST * abs(clean):
        facts["warning"] = (
            f"With everything removed the score is still {score:.3g} ({clean:.3g} on the scan), so this removal takes "
            "no evidence away and the mask means little; choose another --removal."
        )
    return facts
