"""In a notebook: an explanation with its verdict."""

from __future__ import annotations

import base64
import io
from html import escape

from lucency.explanation import Explanation, place_of
from lucency.render.overlay import NOTICE, overlay


def html(explanation: Explanation) -> str:
    """The overlay, the verdict and a small table, as one piece of HTML without scripts."""
    file = io.BytesIO()
    overlay(explanation).savefig(file, format="png")
    about = explanation.provenance
    peak = explanation.peak
    removal = about.removal
    rows = [
        ("class", f"{explanation.target}, {explanation.answer}"),
        ("model", about.model.name),
        ("method", about.method.title),
        *([("removal", f"{removal.name}, {removal.reason}")] if removal else []),
        ("peak", "none: nothing reacted" if peak is None else place_of(peak)),
        ("cost", f"{about.cost.evaluations} evaluations, {about.cost.seconds:.1f} s"),
    ]
    table = "".join(
        f"<tr><th style='text-align:left'>{escape(k)}</th><td style='text-align:left'>{escape(str(v))}</td></tr>"
        for k, v in rows
    )
    verdict = () if explanation.verdict is None else (explanation.verdict.text,)
    said = "".join(f"<p>{escape(text)}</p>" for text in (*explanation.notices, *verdict))
    picture = base64.b64encode(file.getvalue()).decode()
    return (
        f"<div><img src='data:image/png;base64,{picture}' alt='The map over the scan' style='max-width:100%'>"
        f"{said}<table>{table}</table><small>{NOTICE}</small></div>"
    )
