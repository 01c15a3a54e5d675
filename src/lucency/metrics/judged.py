"""What a metric is given: an explanation, or a bare map, with the scan that it is of."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lucency.attribution import fitting
from lucency.classifier import Classifier, Question
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.explanation import Explanation
from lucency.scan import Scan

Judged = Explanation | ArrayLike
"""An explanation, or a map ``[*spatial]`` on its scan's own grid."""


def engine_of(engine: Engine | Classifier, scan: Scan) -> Engine:
    """An engine for the length of one metric, in which the clean scan is asked about once.

    Raises:
        ScanError, ModelError: for what is neither a scan nor an engine nor a classifier.
    """
    fitting(scan, engine.classifier if isinstance(engine, Engine) else engine)
    return (engine if isinstance(engine, Engine) else Engine(engine)).remembering()


def question_about(
    judged: Iterable[Judged], scan: Scan, engine: Engine, target: str | int | None, watch: str | None
) -> Question:
    """The question of the explanations, unless another is asked; of bare maps the most probable class, its probability.

    Raises:
        ParameterError: when they are of different questions and none is named.
    """
    asked = [one.provenance.question for one in judged if isinstance(one, Explanation)]
    if target is None and len({q.target for q in asked}) > 1:
        raise ParameterError("These explanations are of different classes; say which target to watch.")
    if watch is None and len({q.watch for q in asked}) > 1:
        raise ParameterError("These explanations watched different numbers; say what to watch.")
    for question in asked[:1]:
        target = question.target if target is None else target
        watch = question.watch if watch is None else watch
    return engine.question(scan, target, watch or "probability")


def name_of(judged: Judged) -> str:
    """The method of an explanation; ``"map"`` for a bare map."""
    return judged.provenance.method.name if isinstance(judged, Explanation) else "map"


def values_of(judged: Judged, scan: Scan, name: str = "map") -> Tensor:
    """The map, float32 ``[*spatial]``.

    Raises:
        ParameterError: when it is no map, does not lie on the scan's grid, or is not finite.
    """
    try:
        found = judged.heatmap if isinstance(judged, Explanation) else judged
        found = found.detach().cpu().numpy() if isinstance(found, Tensor) else found
        values = torch.from_numpy(np.array(found, dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise ParameterError(
            f"The map {name!r} is a {type(judged).__name__}; give an explanation or an array."
        ) from error
    if tuple(values.shape) != scan.shape:
        raise ParameterError(
            f"The map {name!r} has shape {list(values.shape)} and the scan {list(scan.shape)}; "
            "a map lies on its scan's own grid."
        )
    if not bool(torch.isfinite(values).all()):
        raise ParameterError(f"The map {name!r} has values that are NaN or infinite.")
    return values
