"""Everything that is left of one explanation: the map, its pictures, the report and the explanation itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lucency.explanation import Explanation
from lucency.render.animation import save_animation
from lucency.render.overlay import save_overlay
from lucency.render.recorder import Recorder
from lucency.render.report import save_report


def save_files(
    explanation: Explanation,
    place: Path,
    *,
    recorder: Recorder | None = None,
    animation: str = "gif",
    command: str = "",
) -> None:
    """Writes ``heatmap.npy``, ``explanation.lucency``, ``overlay.png``, the animation and ``report.html``.

    Args:
        place: an empty folder.
        recorder: what watched the steps; without one there is no animation.
        animation: its format.
        command: what was typed.

    Raises:
        OutputError: when they cannot be written.
    """
    np.save(place / "heatmap.npy", explanation.heatmap)
    explanation.save(place / "explanation.lucency")
    save_overlay(explanation, place / "overlay.png")
    film = None
    if recorder is not None:
        film = save_animation(explanation, recorder, place / f"animation.{animation}")
    save_report(explanation, place / "report.html", animation=film, command=command)
