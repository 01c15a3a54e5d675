"""Each superpixel replaced by its own mean: detail goes, the overall shade of the scan stays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from lucency.masks.superpixels import Drawn, Slic, Superpixels
from lucency.removal.base import Fill, Removal


@dataclass(frozen=True)
class SegmentMean(Removal):
    """The mean of the superpixel that a pixel belongs to, by channel (the ``lime`` package's choice).

    Attributes:
        superpixels: whose means; ``None`` takes the pieces of the method where it has any, SLIC's otherwise.
    """

    name: ClassVar[str] = "segment-mean"
    deterministic: ClassVar[bool] = True
    superpixels: Superpixels | None = None

    def bind(self, pixels: Tensor, generator: torch.Generator) -> Fill:
        labels = (self.superpixels or Slic()).labels(pixels).to(pixels.device)
        fill = segment_means(pixels, labels)[None]
        return lambda masks: fill


def segment_means(pixels: Tensor, labels: Tensor) -> Tensor:
    """``[C, *spatial]`` with each pixel replaced by the mean of its piece (``labels`` ``[*spatial]``, 0 to S - 1)."""
    flat, at = pixels.flatten(1).double(), labels.flatten()
    sums = flat.new_zeros(len(flat), int(at.max()) + 1).index_add_(1, at, flat)
    means = sums / torch.bincount(at)
    return means[:, labels].to(pixels.dtype)


def of_pieces(removal: Removal, labels: Tensor) -> Removal:
    """``removal``, told the pieces that the method works with where it left them open."""
    if isinstance(removal, SegmentMean) and removal.superpixels is None:
        return replace(removal, superpixels=Drawn(labels))
    return removal
