"""The maps of an explanation that can be looked at, each with its name and what its pixels mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lucency.checks.out_of_distribution import WHERE, WHERE_UNIT
from lucency.errors import ParameterError
from lucency.explanation import Explanation
from lucency.viewer.palette import Floats
from lucency.viewer.smooth import grainy, strength

STRENGTH = "strength"


@dataclass(frozen=True)
class Shown:
    """What is shown: a map, what it is called, what its pixels mean, and which kind of layer it is."""

    heatmap: Floats
    name: str
    unit: str
    signed: bool = True
    kind: Literal["map", "error", "ood"] = "map"


def shown(explanation: Explanation, which: str | None = None) -> Shown:
    """The heatmap, or another map of the explanation: ``"standard error"``, ``"strength"`` or one of
    ``explanation.also``.

    Raises:
        ParameterError: naming the maps there are.
    """
    method = explanation.provenance.method
    if which is None:
        return Shown(explanation.heatmap, "", method.unit)
    if which == "standard error" and explanation.standard_error is not None:
        return Shown(explanation.standard_error, which, f"standard error of: {method.unit}", False, "error")
    if which == STRENGTH:
        return Shown(
            strength(explanation.heatmap), "strength, smoothed", "smoothed magnitude, either sign", signed=False
        )
    if which == WHERE and which in explanation.also:
        return Shown(explanation.also[which], which, WHERE_UNIT, False, "ood")
    if which in explanation.also:
        return Shown(explanation.also[which], which, "")
    there = [*explanation.also, STRENGTH, *(["standard error"] if explanation.standard_error is not None else [])]
    raise ParameterError(f"This explanation has no map {which!r}; further maps: {', '.join(there)}.")


def shown_first(explanation: Explanation) -> list[Shown]:
    """The heatmap; before it, where its pixels do not read well, its strength."""
    whole = shown(explanation)
    if not grainy(explanation):
        return [whole]
    return [shown(explanation, STRENGTH), replace(whole, name="signed map")]


def every_map(explanation: Explanation) -> list[Shown]:
    """All maps in the order in which they are offered."""
    maps = [*shown_first(explanation), *(shown(explanation, name) for name in explanation.also)]
    if explanation.standard_error is not None:
        maps += [sure(explanation), shown(explanation, "standard error")]
    return maps


def sure(explanation: Explanation) -> Shown:
    """The heatmap without what lies within two standard errors of zero."""
    assert explanation.standard_error is not None
    whole = shown(explanation)
    kept = np.where(np.abs(whole.heatmap) > 2 * explanation.standard_error, whole.heatmap, np.float32(0))
    return Shown(kept, "Only beyond 2 standard errors", whole.unit)
