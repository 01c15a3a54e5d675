"""Where explainers come from, and what one says of a scan."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from lucency.classifier import Classifier, Question
from lucency.engine import Engine, Probe
from lucency.errors import ModelError
from lucency.explainers.learnt import Learnt, Prediction
from lucency.scan import Scan


def explainer_for(classifier: Classifier, path: str | None) -> Learnt | None:
    """The explainer in a file, or the one that comes with a shipped model where no file is named."""
    return shipped(classifier) if path is None else opened(path)


def predicted(learnt: Learnt, scan: Scan, question: Question, engine: Engine) -> tuple[Probe, Prediction]:
    """What an explainer says of a scan, from the same pass that gives the clean score."""
    engine = engine.remembering()
    _, (_, heard) = engine.clean(scan, learnt.layers)
    probe = engine.open(scan, question)
    maps = [tap.maps(heard[tap.name]).cpu() for tap in learnt.taps]
    return probe, learnt.predicted(maps, float(probe.clean[0]), probe.grid)


def shipped(classifier: Classifier) -> Learnt | None:
    """The explainer that comes with a shipped model; ``None`` for any other, and for other weights."""
    name = classifier.name.removeprefix("lucency:")
    file = Path(str(files("lucency.explainers") / "weights" / f"{name}.safetensors"))
    if name == classifier.name or not file.is_file():
        return None
    learnt = _loaded(str(file), file.stat().st_mtime_ns)
    return learnt if learnt.fits(classifier) else None


def opened(path: str) -> Learnt:
    """The explainer in a file, read once.

    Raises:
        ModelError: when there is none.
    """
    try:
        return _loaded(path, Path(path).stat().st_mtime_ns)
    except OSError as error:
        raise ModelError(f"There is no explainer {path}; `lucency explainer train --out {path}` makes one.") from error


@cache
def _loaded(path: str, _changed: int) -> Learnt:
    return Learnt.load(path)
