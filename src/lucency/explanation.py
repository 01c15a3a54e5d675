"""The explanation: a heatmap that remembers everything needed to repeat it, and the call that makes one."""

from __future__ import annotations

import dataclasses
import json
import platform
import re
import threading
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from lucency.classifier import Classifier, Question
from lucency.engine import Engine
from lucency.errors import OutputError, ParameterError
from lucency.methods import Method, Step, method_named
from lucency.scan import Scan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Map = NDArray[np.float32]
FORMAT = "lucency-explanation-1"


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where the evidence lies, how sure that is, and how it was found.

    Attributes:
        heatmap: float32 ``[*spatial]`` on the scan's own grid, signed; positive = supports the answer.
        pixels: float32 ``[C, *spatial]``, the scan as displayed, 0..1.
        standard_error: float32 ``[*spatial]`` of the heatmap, or ``None`` where the method has none.
        also: further maps by name, each float32 ``[*spatial]``.
        probabilities: the classifier's probability of each class on the clean scan.
        facts: what the method found out about its own map (R², completeness gap, ...).
        provenance: what is needed to repeat it: hashes, method, parameters, seed, versions, device, cost.
    """

    heatmap: Map
    pixels: Map
    standard_error: Map | None
    also: Mapping[str, Map]
    probabilities: Mapping[str, float]
    facts: Mapping[str, float | int | str | bool]
    provenance: Mapping[str, Any]

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
    def complete(self) -> bool:
        """Whether the method ran to its end, rather than into its budget or a cancellation."""
        return bool(self.provenance["complete"])

    def overlay(self, **how: Any) -> Figure:
        """The map over the scan as a matplotlib figure, see :func:`lucency.render.overlay`.

        Raises:
            MissingExtraError: without the ``render`` extra.
        """
        from lucency.render import overlay

        return overlay(self, **how)

    def save(self, path: str | Path) -> Path:
        """Writes everything into one file: a zip of ``.npy`` arrays and ``explanation.json``; no pickle.

        Raises:
            OutputError: when the file cannot be written; nothing half-written is left.
        """
        path = Path(path)
        arrays = {"heatmap": self.heatmap, "pixels": self.pixels}
        if self.standard_error is not None:
            arrays["standard_error"] = self.standard_error
        arrays |= {f"also_{i}": m for i, m in enumerate(self.also.values())}
        record = {
            "format": FORMAT,
            "also": list(self.also),
            "probabilities": dict(self.probabilities),
            "facts": dict(self.facts),
            "provenance": dict(self.provenance),
        }
        part = path.with_name(path.name + ".part")
        try:
            with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("explanation.json", json.dumps(record, indent=1))
                for name, array in arrays.items():
                    with archive.open(f"{name}.npy", "w") as member:
                        np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OutputError(
                f"{path} cannot be written ({error.strerror or error}); free space or choose another place."
            ) from error
        return path

    @classmethod
    def load(cls, path: str | Path) -> Explanation:
        """Reads what :meth:`save` wrote.

        Raises:
            OutputError: when the file is missing, damaged or something else.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                record = json.loads(archive.read("explanation.json"))
                if record.get("format") != FORMAT:
                    raise ValueError(f"format {record.get('format')!r}")
                arrays = {}
                for name in archive.namelist():
                    if name.endswith(".npy"):
                        with archive.open(name) as member:
                            arrays[name.removesuffix(".npy")] = np.lib.format.read_array(member, allow_pickle=False)
            return cls(
                arrays["heatmap"],
                arrays["pixels"],
                arrays.get("standard_error"),
                {name: arrays[f"also_{i}"] for i, name in enumerate(record["also"])},
                record["probabilities"],
                record["facts"],
                record["provenance"],
            )
        except (OSError, ValueError, KeyError, AttributeError, TypeError, zipfile.BadZipFile) as error:
            raise OutputError(f"{path} is not an explanation that Lucency wrote ({error}); make it again.") from error


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
    engine: Engine | None = None,
    on_step: Callable[[Step], None] | None = None,
    cancel: threading.Event | None = None,
) -> Explanation:
    """Why the classifier said so: runs a method to its end, or to the best map that the budget allows.

    Args:
        target: the class, by name or index; the most probable one when ``None``.
        method: a name, or a method with parameters of its own.
        watch: what is watched, see :class:`~lucency.classifier.Question`.
        budget: seconds, or a text such as ``"300ms"`` or ``"2s"``; at least one step is made.
        engine: an engine to use again (it then decides device and seed); a new one when ``None``.
        on_step: called with each step: progress bars, animations and live pages hang here.
        cancel: set it from anywhere to stop after the current step; the map so far is returned.

    Raises:
        LucencyError: one of the family, when scan, classifier, question and method do not go together.
    """
    started = time.perf_counter()
    seconds = None if budget is None else parse_budget(budget)
    how = method_named(method) if isinstance(method, str) else method
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

    step: Step | None = None
    steps = how.steps(scan, question, engine)
    try:
        for step in steps:
            if on_step is not None:
                on_step(step)
            if cancel is not None and cancel.is_set():
                break
            if seconds is not None and time.perf_counter() - started >= seconds:
                break
    finally:
        # A generator left alone would keep its hooks until it is collected.
        getattr(steps, "close", lambda: None)()
    if step is None:
        raise ParameterError(f"{how} had nothing to do on a scan of {scan.shape}; check its parameters.")
    elapsed = time.perf_counter() - started

    frame = classifier.frame(scan)

    def on_scan(heatmap: Callable[[], torch.Tensor]) -> Map:
        array: Map = frame.to_scan(heatmap().detach().float().cpu()).numpy()
        return array

    return Explanation(
        heatmap=on_scan(step.heatmap),
        pixels=scan.display.clamp(0, 1).numpy(),
        standard_error=None if step.standard_error is None else on_scan(step.standard_error),
        also={name: on_scan(m) for name, m in step.also.items()},
        probabilities=dict(zip(classifier.classes, probabilities, strict=True)),
        facts=dict(step.facts),
        provenance={
            "scan": {
                "source": scan.source,
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
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {
                "lucency": version("lucency"),
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        },
    )


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
