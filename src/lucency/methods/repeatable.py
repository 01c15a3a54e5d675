"""When sampling may stop: as soon as another run would find the same pieces on top."""

from __future__ import annotations

import torch
from torch import Tensor

from lucency.errors import ParameterError

DRAWS = 256


def expected_agreement(values: Tensor, standard_error: Tensor, top: int) -> float:
    """How well the ``top`` largest values of two runs are expected to agree: their mean Jaccard index, 0..1.

    The runs are drawn around the estimates ``values`` ``[S]`` with independent normal errors of ``standard_error``
    ``[S]``. Estimates lie further apart than what they estimate, so the answer is somewhat too high at first.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((2, DRAWS, len(values)), generator=generator, dtype=torch.float64)
    runs = values.double() + noise * standard_error.double()
    chosen = torch.zeros_like(runs, dtype=torch.bool)
    chosen.scatter_(2, runs.topk(min(top, len(values)), 2).indices, True)
    both, either = (chosen[0] & chosen[1]).sum(1), (chosen[0] | chosen[1]).sum(1)
    return float((both / either).mean())


def check_rule(repeatability: float | None, top: int) -> None:
    """Raises ParameterError for a stopping rule that means nothing."""
    if top < 1 or (repeatability is not None and not 0 < repeatability < 1):
        raise ParameterError(
            f"Sampling stops at a repeatability between 0 and 1 of at least 1 top piece, not {repeatability} of {top}."
        )
