"""Does a map say what the score does?

Yeh, Hsieh, Suggala, Inouye & Ravikumar, "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019. With I
what a perturbation takes away from the scan x,

    INFD(map, f, x) = E_I [ (I . map - (f(x) - f(x - I)))^2 ]                                  (definition 2.1)

A gradient says how much the score changes for each unit of brightness, so I is in display values. An attribution says
what a pixel contributes to the score, x - x0 times a gradient in the simplest case; I is then divided by what was
there, x - x0, as the gradient was multiplied by it. Where x0 is what stands in a removed place, the quotient is the
share of each pixel that was removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lucency.classifier import Classifier
from lucency.engine import Engine, Probe
from lucency.errors import ParameterError
from lucency.explanation import Explanation
from lucency.methods import METHODS
from lucency.metrics.judged import Judged, engine_of, question_about, values_of
from lucency.metrics.result import Better, Result
from lucency.records import Real
from lucency.removal import Constant, Removal
from lucency.scan import Scan
from lucency.work import Stage, Streamed

Kind = Literal["gradient", "attribution"]
"""Whether a map says how the score changes for each unit of brightness, or what each pixel contributes to it."""


@dataclass(frozen=True, eq=False, repr=False)
class Infidelity(Result):
    """How far a map is from predicting what removals do; both numbers are better when lower.

    Attributes:
        value: the infidelity, in squared units of the score.
        scaled: the same for the map times the factor that suits it best (their section 2.3), over the mean square of
            the reaction: 0 for a map that predicts every reaction, 1 for one that knows nothing; NaN where the score
            reacts to nothing. Maps that are no attributions in units of the score are to be compared by this one.
        kind: what the map was taken for.
        said, done: float64 ``[N]``, what the map says of each removal, and what the score did.
    """

    definition: ClassVar[str] = (
        "E[(I . map - (f(x) - f(x - I)))^2] over random squares I that are removed (Yeh et al. 2019)."
    )
    better: ClassVar[Better] = "lower"

    value: float
    scaled: Real
    kind: Kind
    said: NDArray[np.float64]
    done: NDArray[np.float64]


@Streamed
def infidelity(
    explanation: Judged,
    scan: Scan,
    engine: Engine | Classifier,
    *,
    target: str | int | None = None,
    watch: str | None = None,
    kind: Kind | None = None,
    removal: Removal | None = None,
    side: int = 32,
    samples: int = 200,
) -> Iterator[Stage[Infidelity]]:
    """Infidelity under the removal of random squares (their section 4.2): an :class:`Infidelity`.

    Args:
        explanation: an explanation, or a map ``[*spatial]`` on the scan's grid; of a scan with several channels, the
            attribution of all of them.
        scan, engine, target, watch: as for :func:`lucency.metrics.evaluate`.
        kind: what the map is; that of the explanation's method when ``None``, and an attribution where that is not
            known.
        removal: what stands where a square was removed, so that I is what it takes away; black when ``None``. An
            attribution should be counted from the same (integrated gradients from the same baseline).
        side: grid pixels along each side of a square.
        samples: how many squares.

    Raises:
        ParameterError: when the map does not fit the scan or the square is not above 0.
    """
    if side < 1 or samples < 1:
        raise ParameterError(f"The square and the samples must be at least 1, not {side} and {samples}.")
    if kind not in (None, "gradient", "attribution"):
        raise ParameterError(f"A map is a gradient or an attribution, not {kind!r}.")
    engine = engine_of(engine, scan)
    what = kind or kind_of(explanation)
    values = values_of(explanation, scan)
    probe = engine.open(scan, question_about([explanation], scan, engine, target, watch), removal or Constant())
    on_grid = engine.classifier.placement(scan).to_grid(values[None])[0].to(probe.pixels.device)
    masks, boxes = random_squares(probe, side, samples, engine.generator())
    said = np.empty(0)
    done = np.empty(0)
    for i in range(0, samples, most := 4 * probe.batch_size):
        part = masks[i : i + most]
        if what == "gradient":
            taken = torch.cat([(probe.pixels - probe.removed(m[None])[0]).sum(0)[None] for m in part])
        else:
            taken = 1 - part.to(on_grid)
        said = np.append(said, (taken * on_grid).double().flatten(1).sum(1).cpu().numpy())
        scores = probe.scores(part, boxes[i : i + most])[:, 0]
        done = np.append(done, (probe.clean[0].double() - scores.double()).cpu().numpy())
        yield Stage(len(done) / samples, f"square {len(done)} of {samples}", partial(infidelity_of, said, done, what))


def kind_of(judged: Judged) -> Kind:
    """A gradient where the method of an explanation says so, and an attribution otherwise."""
    how = METHODS.get(judged.provenance.method.name) if isinstance(judged, Explanation) else None
    return "gradient" if how is not None and how.per_brightness else "attribution"


def infidelity_of(said: NDArray[np.float64], done: NDArray[np.float64], kind: Kind = "attribution") -> Infidelity:
    """From what the map says of each perturbation and what the score did, ``[N]`` each."""
    power, reaction = float((said**2).mean()), float((done**2).mean())
    factor = float((said * done).mean()) / power if power > 0 else 0.0
    best = float(((factor * said - done) ** 2).mean())
    scaled = best / reaction if reaction > 0 else float("nan")
    return Infidelity(float(((said - done) ** 2).mean()), scaled, kind, said, done)


def random_squares(
    probe: Probe, side: int, samples: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks ``[N, *grid]``, 0 inside one square each, and the boxes ``[N, axes, 2]`` around them."""
    masks = torch.ones(samples, *probe.grid)
    boxes = torch.zeros(samples, len(probe.grid), 2, dtype=torch.int64)
    for i in range(samples):
        for axis, n in enumerate(probe.grid):
            start = int(torch.randint(0, max(1, n - side + 1), (1,), generator=generator))
            boxes[i, axis] = torch.tensor([start, min(n, start + side)])
        masks[i][tuple(slice(int(a), int(b)) for a, b in boxes[i])] = 0
    return masks, boxes
