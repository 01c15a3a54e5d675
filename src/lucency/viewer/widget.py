"""The viewer in a notebook: three panels that move while a method runs, then the whole answer. An extra, `notebook`."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lucency.errors import MissingExtraError
from lucency.explanation import Explanation
from lucency.methods import Method, Step
from lucency.removal.surrogate import hatched
from lucency.viewer.inlined import module
from lucency.viewer.packed import packed, packed_film
from lucency.viewer.packing import pack

try:
    import anywidget
    import traitlets
    from IPython.core.getipython import get_ipython
    from IPython.display import display
except ImportError as error:
    raise MissingExtraError(
        f"Live panels in a notebook need {error.name}, which is not installed; run pip install 'lucency[notebook]'."
    ) from error

PAUSE = 0.1
"""Seconds between two steps that are shown, at least: a browser that gets more falls behind."""
POINTS = 2000


class Widget(anywidget.AnyWidget):
    """What the notebook's side reads, see ``static/widget.js``.

    Attributes:
        film: packed, the scan on the model's grid.
        step: packed, the newest step.
        said: how far it is.
        answer: a packed explanation, which takes the place of the panels; empty before that.
    """

    _esm = module("chart", "widget")
    film = traitlets.Bytes(b"").tag(sync=True)
    step = traitlets.Bytes(b"").tag(sync=True)
    said = traitlets.Unicode("").tag(sync=True)
    answer = traitlets.Bytes(b"").tag(sync=True)


def bundle(explanation: Explanation) -> dict[str, Any]:
    """What a notebook shows of an answer beside its HTML; nothing where no kernel runs that could serve a widget."""
    if getattr(get_ipython(), "kernel", None) is None:
        return {}
    data = Widget(answer=packed(explanation))._repr_mimebundle_()
    found: dict[str, Any] = dict(data[0] if isinstance(data, tuple) else data or {})
    # The explanation says itself what it is in words.
    found.pop("text/plain", None)
    return found


class Live:
    """Shows the steps of a run in a notebook cell: film | perturbed film | reaction, and how far it is.

    Args:
        clean: float32 ``[C, *grid]``, the scan on the model's grid; of a volume, the middle slice is shown.
        method: whose steps they are.

    Raises:
        MissingExtraError: outside a notebook.
    """

    def __init__(self, clean: Tensor, method: Method) -> None:
        if get_ipython() is None:
            raise MissingExtraError(
                "Live panels need a notebook (Jupyter or IPython); elsewhere iterate over explainer.steps(scan)."
            )
        about, film = packed_film(_plane(clean))
        self._about = {**about, "spacing": None}
        packed_clean = pack({"film": {**self._about, "title": "scan"}}, {"film": film})
        self.widget = Widget(film=packed_clean, said=method.title)
        self._method = method
        self._points: list[tuple[float, float]] = []
        self._shown = -PAUSE
        display(self.widget)  # type: ignore[no-untyped-call]

    def __call__(self, step: Step) -> None:
        if step.point is not None:
            self._points.append(step.point)
        now = time.monotonic()
        if now - self._shown < PAUSE and step.done < 1:
            return
        self._shown = now
        charted = self._method.panel != "map"
        about, perturbed = packed_film(_plane(hatched(step.perturbed())))
        shown = step.heatmap if charted or step.reaction is None else step.reaction
        arrays: dict[str, NDArray[Any]] = {
            "perturbed": perturbed,
            "map": _plane(shown()[None])[0],
            "points": np.array(self._points[-POINTS:], np.float32).reshape(-1, 2),
        }
        header = {
            "done": step.done,
            "panel": self._method.panel,
            "axes": self._method.axes,
            "unit": self._method.unit,
            "title": self._method.title,
            "film": {**self._about, **about, "title": "perturbed"},
        }
        self.widget.step = pack(header, arrays)
        self.widget.said = (
            f"{self._method.title}: {step.done:.0%}, {step.evaluations} evaluations, score {step.score:.3f}"
        )

    def progress(self, share: float, doing: str) -> None:
        """Says what follows the map."""
        self.widget.said = f"{doing}: {share:.0%}"

    def finish(self, explanation: Explanation) -> None:
        """The answer takes the place of the panels."""
        with self.widget.hold_sync():
            self.widget.answer = packed(explanation)
            # A notebook is saved with what its widgets hold.
            self.widget.film = self.widget.step = b""


def _plane(values: Tensor) -> NDArray[np.float32]:
    """``[C, *grid]`` -> float32 ``[C, rows, columns]``: of a volume, the middle slice."""
    plane: NDArray[np.float32] = np.ascontiguousarray(values.detach().cpu().float().numpy(), np.float32)
    return plane[:, plane.shape[1] // 2] if plane.ndim == 4 else plane
