"""What several methods agree on, in one sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lucency.checks.verdict import percent
from lucency.explanation import Explanation, peak_of, place_of
from lucency.viewer.smooth import BLUR, grainy

TOP = 0.05
"""Share of the scan that counts as the top of a map."""


def top_region(explanation: Explanation) -> NDArray[np.bool_]:
    """Bool ``[*spatial]``: the highest twentieth of the map, as far as it supports the answer."""
    heatmap = np.maximum(explanation.heatmap, 0)
    if grainy(explanation):
        # Single pixels of a gradient lie anywhere.
        heatmap = ndimage.gaussian_filter(heatmap, BLUR * min(heatmap.shape[-2:]), mode="nearest")
    return np.asarray(heatmap > np.quantile(heatmap, 1 - TOP))


def agreement(explanations: Sequence[Explanation]) -> str:
    """How many of the methods have the top of their maps in common, where, and how much of it.

    Methods whose maps do not locate evidence are left out, and so are maps that support nothing.
    """
    regions = [(e, top_region(e)) for e in explanations if _locates(e)]
    regions = [(e, top) for e, top in regions if top.any()]
    asked, tops = [e for e, _ in regions], [top for _, top in regions]
    if len(asked) < 2:
        return "Fewer than two of these maps show where evidence lies, so there is nothing to agree on."
    votes = np.stack(tops).sum(0).astype(np.float32)
    point = peak_of(votes)
    most = int(votes.max())
    if 2 * most <= len(asked) or most < 2 or point is None:
        at_most = f"more than {most} of the {len(asked)} maps that locate evidence"
        return f"The methods do not agree on a place: no point lies in the top {percent(TOP)} of {at_most}."
    together = [i for i, top in enumerate(tops) if top[point]]
    shares = [2 * (tops[i] & tops[j]).sum() / (tops[i].sum() + tops[j].sum()) for i, j in combinations(together, 2)]
    said = "Both" if len(asked) == 2 else f"All {most}" if most == len(asked) else f"{most} of the {len(asked)}"
    said += f" methods that locate evidence agree on a place, {_place([asked[i] for i in together], point)}: "
    said += f"the top {percent(TOP)} of their maps overlap there, by {percent(float(np.mean(shares)))} on average"
    others = [_title(e) for i, e in enumerate(asked) if i not in together]
    if not others:
        return f"{said}."
    names = others[0] if len(others) == 1 else f"{', '.join(others[:-1])} and {others[-1]}"
    return f"{said}; {names} {'point' if len(others) > 1 else 'points'} elsewhere."


def _place(explanations: Sequence[Explanation], point: tuple[int, ...]) -> str:
    """The name that most of their verdicts give; else the point."""
    name, times = Counter("" if e.verdict is None else e.verdict.place for e in explanations).most_common(1)[0]
    return name if name and 2 * times > len(explanations) else f"around {place_of(point)}"


def _locates(explanation: Explanation) -> bool:
    return explanation.provenance.method.locates


def _title(explanation: Explanation) -> str:
    return explanation.provenance.method.title
