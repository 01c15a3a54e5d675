"""In a notebook: an explanation with its verdict, and three panels that move while a method runs."""

from __future__ import annotations

import base64
import io
import time
from html import escape
from importlib import import_module
from typing import Any

import numpy as np
from torch import Tensor

from lucency.errors import MissingExtraError
from lucency.explanation import Explanation, place_of
from lucency.methods import Method, Step
from lucency.render.overlay import NOTICE, overlay
from lucency.render.page import png_uri
from lucency.viewer.palette import Bytes, Floats, Scale, composite

PAUSE = 0.25
"""Seconds between two pictures, at least: a browser that gets more falls behind."""
SIDE = 300
POINTS = 400


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


class LivePanels:
    """Shows the steps of a run in a notebook cell: scan | perturbed scan | reaction, and how far it is.

    Args:
        clean: float32 ``[C, *grid]``, the scan on the model's grid; of a volume, the middle slice is shown.
        method: whose steps they are.

    Raises:
        MissingExtraError: outside a notebook.
    """

    def __init__(self, clean: Tensor, method: Method) -> None:
        try:
            display = import_module("IPython.display")
            running = import_module("IPython").get_ipython() is not None
        except ImportError:
            running = False
        if not running:
            raise MissingExtraError(
                "Live panels need a notebook (Jupyter or IPython); elsewhere iterate over explainer.steps(scan)."
            )
        self._html = display.HTML
        self._handle: Any = display.display(self._html(f"<p>{escape(method.title)}</p>"), display_id=True)
        self._method = method
        self._clean = _plane(clean.mean(0))
        self._points: list[tuple[float, float]] = []
        self._shown = -PAUSE

    def __call__(self, step: Step) -> None:
        if step.point is not None:
            self._points.append(step.point)
        now = time.monotonic()
        if now - self._shown < PAUSE and step.done < 1:
            return
        self._shown = now
        self._handle.update(self._html(self.panels(step)))

    def panels(self, step: Step) -> str:
        """The three panels at a step, as HTML."""
        perturbed = _plane(step.perturbed().mean(0))
        if self._method.panel == "map":
            shown = _plane((step.reaction or step.heatmap)())
            third = _image(composite(self._clean, Scale.of(shown).strength(shown)), "The reaction")
        else:
            third = _plot(self._points[-POINTS:], self._method.axes)
        bar = f"<progress max='1' value='{step.done:.3f}' style='width:100%'></progress>"
        said = f"{escape(self._method.title)}: {step.done:.0%}, {step.evaluations} evaluations, score {step.score:.3f}"
        figures = "".join(
            f"<figure style='margin:0'>{picture}<figcaption>{caption}</figcaption></figure>"
            for picture, caption in (
                (_image(_grey(self._clean), "The scan"), "scan"),
                (_image(_grey(perturbed), "The perturbed scan"), "perturbed"),
                (third, "reaction"),
            )
        )
        row = f"<div style='display:flex;gap:12px'>{figures}</div>"
        return f"<div style='max-width:{3 * SIDE + 40}px'>{row}{bar}<p>{said}</p></div>"

    def progress(self, share: float, doing: str) -> None:
        """Says what follows the map."""
        self._handle.update(self._html(f"<p>{escape(doing)}: {share:.0%}</p>"))

    def finish(self, explanation: Explanation) -> None:
        """The answer takes the place of the panels."""
        self._handle.update(explanation)


def _plane(values: Tensor) -> Floats:
    plane: Floats = np.ascontiguousarray(values.detach().cpu().float().numpy(), np.float32)
    return plane[len(plane) // 2] if plane.ndim == 3 else plane


def _grey(plane: Floats) -> Bytes:
    grey: Bytes = np.rint(np.clip(plane, 0, 1) * 255).astype(np.uint8)
    return grey


def _image(pixels: Bytes, alt: str) -> str:
    return f"<img src='{png_uri(pixels)}' alt='{alt}' style='width:{SIDE}px'>"


def _plot(points: list[tuple[float, float]], axes: tuple[str, str]) -> str:
    """The points ``(x, y)`` of the steps so far, as an SVG."""
    xs, ys = ([p[i] for p in points] for i in (0, 1))

    def on(values: list[float], value: float) -> float:
        low, high = min(values), max(values)
        return 0.5 if high == low else (value - low) / (high - low)

    dots = "".join(
        f"<circle cx='{20 + 260 * on(xs, x):.1f}' cy='{280 - 260 * on(ys, y):.1f}' r='2.5' fill='currentColor'/>"
        for x, y in points
    )
    ends = f"{escape(axes[1])} from {min(ys):.3g} to {max(ys):.3g}"
    ends += f" over {escape(axes[0])} from {min(xs):.3g} to {max(xs):.3g}"
    return (
        f"<svg viewBox='0 0 {SIDE} {SIDE}' width='{SIDE}' role='img' aria-label='{ends}'>"
        f"<rect x='10' y='10' width='280' height='280' fill='none' stroke='currentColor' opacity='.3'/>{dots}</svg>"
        f"<div style='font-size:12px;max-width:{SIDE}px'>{ends}</div>"
    )
