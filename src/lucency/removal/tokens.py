"""Removal without a replacement: a vision transformer is not shown the tokens of what is removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lucency.removal.base import Fill, Removal


@dataclass(frozen=True)
class Tokens(Removal):
    """Leaves out the tokens of a vision transformer, so that it sees no replacement at all (Jain et al. 2022).

    A token is left out when at least half of its pixels are removed; where a piece removes half of none, those go of
    which it removes most. Positions are kept. Pictures of what is removed show black there. It is for methods that
    remove pieces altogether, on transformers whose blocks take any number of tokens (the engine tries it out).

    Jain et al., "Missingness bias in model debugging", ICLR 2022.
    """

    name: ClassVar[str] = "tokens"
    deterministic: ClassVar[bool] = True
    cost: ClassVar[str] = "nothing; less of the model's own work, the more is removed"

    def bind(self, pixels: Tensor, generator: torch.Generator) -> Fill:
        black = torch.zeros_like(pixels)[None]
        return lambda masks: black
