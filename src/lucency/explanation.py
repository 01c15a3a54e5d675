"""The explanation: a heatmap that remembers everything needed to repeat it, and the call that makes one."""

from __future__ import annotations

import dataclasses
import io
import platform
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from lucency import explanation_file
from lucency.asking import undisturbed
from lucency.classifier import Classifier, Question
from lucency.engine import Engine
from lucency.errors import ModelError, ParameterError, ScanError
from lucency.methods import Method, Step, method_named
from lucency.privacy import shown_source
from lucency.scan import Scan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Map = NDArray[np.float32]
SHIFT = 0.02
"""Of the side of a scan: how far its copies are moved at most. No diagnosis depends on so little."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where the evidence lies, how sure that is, and how it was found.

    Attributes:
        heatmap: float32 ``[*spatial]`` on the scan's own grid, signed; positive = supports the answer.
        pixels: float32 ``[C, *spatial]``, the scan as displayed, 0..1.
        standard_error: float32 ``[*spatial]`` of the heatmap, from the method or from shifted copies of the scan, or
            ``None`` where neither was asked; ``provenance["error_bars"]`` says which.
        also: further maps by name, each float32 ``[*spatial]``.
        probabilities: the classifier's probability of each class on the clean scan.
        facts: what the method found out about its own map (R², completeness gap, ...).
        provenance: what is needed to repeat it: hashes, method, parameters, seed, versions, device, cost.
        verdict: where, how strongly and how sure, as :func:`lucency.checks.verdict.judge` put it; empty before that.
    """

    heatmap: Map
    pixels: Map
    standard_error: Map | None
    also: Mapping[str, Map]
    probabilities: Mapping[str, float]
    facts: Mapping[str, float | int | str | bool]
    provenance: Mapping[str, Any]
    verdict: Mapping[str, Any] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """The class that is explained."""
        return str(self.provenance["question"]["name"])

    @property
    def probability(self) -> float:
        """Probability of that class on the clean scan."""
        return self.probabilities[self.target]

    @property
    def peak(self) -> tuple[int, ...]:
        """Index of the heatmap's maximum on the scan's grid: (row, column), or (slice, row, column)."""
        return peak_of(self.heatmap)

    @property
    def removal(self) -> str:
        """The name of what stood where something was removed; empty for a method without a removal."""
        standing = self.provenance["method"].get("parameters", {}).get("removal")
        return str(standing.get("name", "")) if isinstance(standing, dict) else ""

    @property
    def complete(self) -> bool:
        """Whether the method ran to its end, rather than into its budget or a cancellation."""
        return bool(self.provenance["complete"])

    def __repr__(self) -> str:
        about = self.provenance
        size = " x ".join(map(str, self.heatmap.shape))
        return (
            f"Explanation({self.target!r}, probability {self.probability:.3f} by {about['model']['name']}; "
            f"{about['method']['title']}, {size}, peak at {self.peak}, {about['evaluations']} evaluations, "
            f"{about['seconds']:.1f} s{'' if self.complete else ', not finished'})"
        )

    def _repr_png_(self) -> bytes | None:
        """The overlay, which a notebook shows; nothing without the ``render`` extra."""
        if find_spec("matplotlib") is None:
            return None
        picture = io.BytesIO()
        self.overlay().savefig(picture, format="png")
        return picture.getvalue()

    def anonymous(self) -> Explanation:
        """The same with a hash of the pixels in place of the name of the scan's file."""
        scan = self.provenance["scan"]
        kept = {**scan, "source": shown_source(scan["source"], scan["sha256"], anonymous=True)}
        return dataclasses.replace(self, provenance={**self.provenance, "scan": kept})

    def overlay(self, **how: Any) -> Figure:
        """The map over the scan as a matplotlib figure, see :func:`lucency.render.overlay`.

        Raises:
            MissingExtraError: without the ``render`` extra.
        """
        from lucency.render import overlay

        return overlay(self, **how)

    def save(self, path: str | Path) -> Path:
        """Writes everything into one file, see :mod:`lucency.explanation_file`.

        Raises:
            OutputError: when the file cannot be written; what was there before is there still.
        """
        arrays = {"heatmap": self.heatmap, "pixels": self.pixels}
        if self.standard_error is not None:
            arrays["standard_error"] = self.standard_error
        arrays |= {f"also_{i}": m for i, m in enumerate(self.also.values())}
        record = {
            "also": list(self.also),
            "probabilities": self.probabilities,
            "facts": self.facts,
            "provenance": self.provenance,
            "verdict": self.verdict,
        }
        return explanation_file.save(path, arrays, record)

    @classmethod
    def load(cls, path: str | Path) -> Explanation:
        """Reads what :meth:`save` wrote.

        Raises:
            OutputError: when the file is missing, damaged, too large or something else.
        """
        arrays, record = explanation_file.load(path)
        return cls(
            arrays["heatmap"],
            arrays["pixels"],
            arrays.get("standard_error"),
            {name: arrays[f"also_{i}"] for i, name in enumerate(record["also"])},
            record["probabilities"],
            record["facts"],
            record["provenance"],
            record.get("verdict", {}),
        )


@undisturbed()
def explain(
    scan: Scan,
    classifier: Classifier,
    *,
    target: str | int | None = None,
    method: str | Method = "occlusion",
    watch: str = "probability",
    budget: float | str | None = None,
    device: str = "auto",
    seed: int = 0,
    error_bars: int = 0,
    engine: Engine | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_copy: Callable[[int], None] | None = None,
    cancel: threading.Event | None = None,
) -> Explanation:
    """Why the classifier said so: runs a method to its end, or to the best map that the budget allows.

    Args:
        target: the class, by name or index; the most probable one when ``None``.
        method: a name, or a method with parameters of its own.
        watch: what is watched, see :class:`~lucency.classifier.Question`.
        budget: seconds, or a text such as ``"300ms"`` or ``"2s"``; at least one step is made.
        error_bars: how many shifted copies of the scan are explained, with other seeds, to learn how far the map can
            be trusted, where the method has no standard error of its own; each costs as much as the map. 0 = none.
        engine: an engine to use again (it then decides device and seed); a new one when ``None``.
        on_step: called with each step: progress bars, animations and live pages hang here.
        on_copy: called with the number of copies that are done.
        cancel: set it from anywhere to stop after the current step; the map so far is returned.

    Raises:
        LucencyError: one of the family, when scan, classifier, question and method do not go together.
    """
    started = time.perf_counter()
    seconds = None if budget is None else parse_budget(budget)
    how = method_named(method) if isinstance(method, str) else method
    fitting(scan, classifier)
    if not isinstance(how, Method):
        raise ParameterError(f"{how!r:.60} is no method; give a name of `lucency methods`, or an instance of one.")
    if error_bars < 0:
        raise ParameterError(f"Error bars need 0 or more copies of the scan, not {error_bars}.")
    if seconds is not None:
        how = how.anytime()
    engine = engine or Engine(classifier, device=device, seed=seed)
    classifier = engine.classifier
    question = Question.ask(classifier, scan, target, watch)
    with torch.inference_mode():
        layers = [] if question.layer is None else [question.layer]
        x = classifier.prepare(scan)[None].to(engine.device)
        outputs, features = classifier.outputs_and_features(x, layers) if layers else (classifier(x), {})
        score = float(question.read(classifier, outputs, features))
        probabilities = classifier.probabilities(outputs)[0].tolist()

    step = _last(how, scan, question, engine, None if seconds is None else started + seconds, on_step, cancel)
    elapsed = time.perf_counter() - started

    frame = classifier.frame(scan)

    def on_scan(heatmap: Callable[[], torch.Tensor]) -> Map:
        array: Map = frame.to_scan(heatmap().detach().float().cpu()).numpy()
        return array

    heatmap = on_scan(step.heatmap)
    facts = dict(step.facts)
    if step.done < 1 and not heatmap.any():
        facts["warning"] = "The method was stopped before it found anything, so the map is empty; give it more time."
    bars: dict[str, Any] = {"from": "none"}
    standard_error = None
    if step.standard_error is not None:
        standard_error, bars = on_scan(step.standard_error), {"from": "method"}
    elif error_bars and not (cancel is not None and cancel.is_set()):
        maps, bars = [heatmap], {"from": "copies", "evaluations": 0, "gradients": 0}
        for copy, offset in shifted(scan, error_bars, seed=engine.seed):
            until = None if seconds is None else time.perf_counter() + seconds
            last = _last(how, copy, question, engine.seeded(engine.seed + len(maps)), until, None, cancel)
            if cancel is not None and cancel.is_set():
                break
            maps.append(_moved(torch.from_numpy(on_scan(last.heatmap))[None], [-o for o in offset])[0].numpy())
            bars["evaluations"] += last.evaluations
            bars["gradients"] += last.gradients
            if on_copy is not None:
                on_copy(len(maps) - 1)
        bars |= {"copies": len(maps) - 1, "seconds": time.perf_counter() - started - elapsed}
        if len(maps) > 1:
            standard_error = np.std(maps, axis=0, ddof=1, dtype=np.float32)
            peak = peak_of(heatmap)
            bars["moved"] = [[a - b for a, b in zip(peak_of(m), peak, strict=True)] for m in maps[1:]]

    return Explanation(
        heatmap=heatmap,
        pixels=scan.display.clamp(0, 1).numpy(),
        standard_error=standard_error,
        also={name: on_scan(m) for name, m in step.also.items()},
        probabilities=dict(zip(classifier.classes, probabilities, strict=True)),
        facts=facts,
        provenance={
            "scan": {
                "source": shown_source(scan.source),
                "sha256": scan.sha256,
                "shape": list(scan.shape),
                "spacing": scan.spacing,
            },
            "model": {
                "name": classifier.name,
                "fingerprint": classifier.fingerprint,
                "grid": list(frame.grid),
                "margins": [list(pair) for pair in frame.margins],
            },
            "question": dataclasses.asdict(question) | {"label": question.label, "score": score},
            "method": {
                "name": how.name,
                "title": how.title,
                "paper": how.paper,
                "unit": how.unit,
                **describe(how),
            },
            "seed": engine.seed,
            "device": str(engine.device),
            "budget": seconds,
            "complete": step.done >= 1,
            "evaluations": step.evaluations,
            "gradients": step.gradients,
            "seconds": elapsed,
            "error_bars": bars,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {
                "lucency": version("lucency"),
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        },
    )


def fitting(scan: object, classifier: object) -> None:
    """Refuses what people hand over in place of a scan and of a classifier, before it fails in some deeper place.

    Raises:
        ScanError: for anything but a :class:`Scan`.
        ModelError: for anything but a :class:`~lucency.classifier.Classifier`.
    """
    if not isinstance(scan, Scan):
        raise ScanError(
            f"The scan is a {type(scan).__name__}; make it a Scan with lucency.read_scan(path) or "
            "lucency.Scan.from_array(array)."
        )
    if not isinstance(classifier, Classifier):
        raise ModelError(
            f"The classifier is a {type(classifier).__name__}; make it a Classifier with lucency.load_classifier(...)."
        )


def _last(
    how: Method,
    scan: Scan,
    question: Question,
    engine: Engine,
    until: float | None,
    on_step: Callable[[Step], None] | None,
    cancel: threading.Event | None,
) -> Step:
    """The last step of a method, or the one at which the time is up or somebody has had enough."""
    step: Step | None = None
    steps = how.steps(scan, question, engine)
    try:
        for step in steps:
            if on_step is not None:
                on_step(step)
            if cancel is not None and cancel.is_set():
                break
            if until is not None and time.perf_counter() >= until:
                break
    finally:
        # A generator left alone would keep its hooks until it is collected.
        getattr(steps, "close", lambda: None)()
    if step is None:
        raise ParameterError(f"{how} had nothing to do on a scan of {scan.shape}; check its parameters.")
    return step


def shifted(scan: Scan, copies: int, *, seed: int = 0) -> Iterator[tuple[Scan, list[int]]]:
    """Copies of a scan moved by up to :data:`SHIFT` of each side, with the pixels moved along each axis.

    What moves in at an edge repeats the edge. A shift along no axis at all is not drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    most = [max(1, round(SHIFT * n)) if n > 1 else 0 for n in scan.shape]
    for _ in range(copies):
        offset = [0] * len(most)
        while not any(offset):
            offset = [int(torch.randint(-m, m + 1, (1,), generator=generator)) for m in most]
        yield dataclasses.replace(scan, pixels=_moved(scan.pixels, offset)), offset


def _moved(pixels: torch.Tensor, offset: Sequence[int]) -> torch.Tensor:
    """``[C, *spatial]`` moved by whole pixels along each spatial axis, the edges repeated."""
    for axis, by in enumerate(offset, 1):
        at = (torch.arange(pixels.shape[axis]) - by).clamp(0, pixels.shape[axis] - 1)
        pixels = pixels.index_select(axis, at)
    return pixels.contiguous()


def peak_of(heatmap: Map) -> tuple[int, ...]:
    """Index of the maximum of a map ``[*spatial]``; where a whole plateau holds it (a patch does), its middle."""
    top = np.argwhere(heatmap >= heatmap.max())
    centre = top.mean(0)
    return tuple(int(i) for i in top[np.square(top - centre).sum(1).argmin()])


def describe(how: object) -> dict[str, Any]:
    """The parameters of a method or removal, nested, as plain JSON values."""
    if not dataclasses.is_dataclass(how) or isinstance(how, type):
        return {"repr": repr(how)}

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {"name": getattr(value, "name", type(value).__name__), **describe(value)}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        return value if isinstance(value, str | int | float | bool | None) else repr(value)

    return {"parameters": {f.name: plain(getattr(how, f.name)) for f in dataclasses.fields(how)}}


def parse_budget(budget: float | str) -> float:
    """Seconds from ``2``, ``"2s"``, ``"300ms"`` or ``"1min"``.

    Raises:
        ParameterError: when it is none of these, or not above zero.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(ms|s|min)?\s*", str(budget))
    seconds = float(match[1]) * {"ms": 1e-3, "s": 1.0, "min": 60.0, None: 1.0}[match[2]] if match else 0.0
    if seconds <= 0:
        raise ParameterError(f"A budget is a time such as 300ms, 2s or 1min, not {budget!r}.")
    return seconds
