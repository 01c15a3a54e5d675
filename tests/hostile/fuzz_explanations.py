"""Drawn changes of explanation files: each is read, and then shown in every way, or refused in one sentence."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from pathlib import Path

import explanations
import numpy as np

from lucency import Explanation, LucencyError
from lucency.render import save_overlay, save_report


def tried(path: Path, place: Path) -> str:
    """``refused`` or ``shown``; whatever else happens is raised."""
    try:
        explanation = Explanation.load(path)
    except LucencyError as error:
        if "\n" in str(error):
            raise ValueError("more than one line") from error
        return "refused"
    repr(explanation)
    save_report(explanation, place / "report.html")
    save_overlay(explanation, place / "overlay.png")
    again = Explanation.load(explanation.save(place / "again.lucency"))
    assert np.array_equal(again.heatmap, explanation.heatmap)
    return "shown"


def main(seconds: float, seed: int) -> int:
    """Prints how many were refused and shown; 1 when one did anything else."""
    random, counts, worst = np.random.default_rng(seed), Counter[str](), 0.0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        inside = explanations.parts(place / "good.lucency")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            path = explanations.mutated(inside, random, place / "x.lucency")
            started = time.monotonic()
            try:
                counts[tried(path, place)] += 1
            except Exception as error:
                counts["failed"] += 1
                print(f"explanations: {type(error).__name__}: {error} ({path.read_bytes()[:60]!r} ...)")
            worst = max(worst, time.monotonic() - started)
    print(json.dumps({"campaign": "explanations", "seed": seed, **counts, "slowest_s": round(worst, 2)}))
    return int(counts["failed"] > 0 or worst > 20)
