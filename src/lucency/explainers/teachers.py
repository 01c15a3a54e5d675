"""The slow methods as teachers: cheap looks at a scan, and what a map has to say of them.

A look is a perturbed scan with its score. No teacher waits for a finished map: for each, a few dozen looks drawn at
random make a loss whose mean over the draw is smallest for the finished map (up to a constant), so that many scans
with few looks each teach as well as few scans with finished maps (Jethani et al., "FastSHAP", ICLR 2022; Covert et
al., "Stochastic Amortization", NeurIPS 2024).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from lucency.engine import Probe
from lucency.explainers.decoder import Grid, resized
from lucency.masks import Cells, Patches, RandomGrids
from lucency.masks.designs import random_pairs
from lucency.masks.superpixels import painted, switched
from lucency.removal import Constant, Removal, SegmentMean, of_pieces

SURE = 1e-6
"""Probabilities are kept this far from 0 and 1 where their log-odds are taken."""
ALL = 8
"""How many looks it counts for that all cells together are worth what all of them removed take away."""
PLACES = 32
"""Pixels of a scan at which an estimate of the whole map is compared."""


@dataclass(frozen=True, eq=False)
class Looks:
    """Perturbed scans and their scores.

    Attributes:
        pieces: what was removed, ``[n, ...]``: numbers of patches, switches of cells, or masks on the lattice (0..255).
        scores: float32 ``[n]``.
    """

    pieces: Tensor
    scores: Tensor


@dataclass(frozen=True, eq=False)
class Said:
    """What a decoder says of scans: the value of each place ``[B, *lattice]``, and its expected error, above 0."""

    value: Tensor
    error: Tensor


class Teacher(ABC):
    """A slow method and its parameters. Implementations are frozen dataclasses.

    Attributes:
        name: the method's.
        unit: what a pixel of its map means.
        removal: what stands where something was removed.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    removal: Removal

    @abstractmethod
    def lattice(self, grid: Grid) -> Grid:
        """The places that the decoder speaks of, on a scan of ``grid``."""

    @abstractmethod
    def looks(self, probe: Probe, count: int, generator: torch.Generator) -> Looks:
        """About ``count`` looks at a scan, drawn at random; every piece of the scan has the same chance."""

    @abstractmethod
    def compared(self, said: Said, looks: Looks, clean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What was said of B scans against ``n`` looks at each.

        Returns:
            ``[B, m]`` by how much it was wrong, ``[B, m]`` the error that was expected, and ``[B]`` the mean square of
            what there was to say.
        """

    def inwardly(self, raw: Tensor, looks: Looks, clean: Tensor) -> tuple[Tensor, Tensor] | None:
        """By how much the raw numbers ``[B, 2, *lattice]`` of a decoder were wrong in its own unit, ``[B, m]``, and the
        mean square of what there was to say, ``[B]``; ``None`` where that unit is the map's.
        """
        return None

    @abstractmethod
    def painted(self, values: Tensor, grid: Grid) -> Tensor:
        """Values ``[B, *lattice]`` as maps ``[B, *grid]``."""

    @abstractmethod
    def checked(self, probe: Probe, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The finished map at random places, from about ``count`` evaluations.

        Returns:
            int64 ``[P]`` flat numbers of pixels of the grid, and float32 ``[P]`` what the map is there.
        """

    def said(self, raw: Tensor, clean: Tensor) -> Said:
        """What the raw numbers ``[B, 2, *lattice]`` of a decoder mean, for clean scores ``[B]``."""
        return Said(raw[:, 0], raw[:, 1].clamp(-20, 20).exp())

    def removal_for(self, probe_pixels: Tensor) -> Removal:
        """The removal as it is bound to a scan ``[C, *grid]``."""
        return self.removal


@dataclass(frozen=True)
class OcclusionTeacher(Teacher):
    """Each look hides one patch; the value of a place is the fall of the score when the patch there is hidden.

    For probabilities the decoder speaks of falls of the log-odds, in which a saturated score falls as
    far as any other; they become falls of the probability with the clean score.

    Attributes:
        patch, stride: pixels along each axis.
        soft: the Gaussian by which a patch fades around its edge, in pixels.
        odds: whether the score is a probability.
    """

    name: ClassVar[str] = "occlusion"
    unit: ClassVar[str] = "fall of the score when hidden"

    patch: tuple[int, ...] = (16, 16)
    stride: tuple[int, ...] = (8, 8)
    removal: Removal = field(default_factory=Constant)
    soft: float = 0.0
    odds: bool = True

    def patches(self, grid: Grid) -> Patches:
        """The patches on a scan of ``grid``."""
        return Patches(grid, self.patch, self.stride, self.soft)

    def lattice(self, grid: Grid) -> Grid:
        return self.patches(grid).counts

    def looks(self, probe: Probe, count: int, generator: torch.Generator) -> Looks:
        patches = self.patches(probe.grid)
        # Patches of one alignment lie all over the scan and are computed best together. Each patch is in one batch.
        batches = probe.together(patches.boxes, torch.arange(len(patches)))
        taken, n = [], 0
        for i in torch.randperm(len(batches), generator=generator).tolist():
            if n >= count:
                break
            batch = batches[i]
            if len(batch) > count - n:
                batch = batch[torch.randperm(len(batch), generator=generator)[: count - n]]
            taken.append(batch)
            n += len(batch)
        which = torch.cat(taken)
        scores = [probe.scores(patches.masks(w, probe.pixels.device), patches.boxes[w])[:, 0] for w in taken]
        return Looks(which.to(torch.int32), torch.cat(scores).cpu())

    def said(self, raw: Tensor, clean: Tensor) -> Said:
        if not self.odds:
            return super().said(raw, clean)
        full = clean.clamp(SURE, 1 - SURE).logit().view(-1, *[1] * (raw.ndim - 2))
        value = clean.view(full.shape) - (full - raw[:, 0]).sigmoid()
        return Said(value, raw[:, 1].clamp(-20, 2).exp())

    def compared(self, said: Said, looks: Looks, clean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        which = looks.pieces.long()
        falls = clean[:, None] - looks.scores
        value, error = (maps.flatten(1).gather(1, which) for maps in (said.value, said.error))
        return value - falls, error, falls.square().mean(1)

    def inwardly(self, raw: Tensor, looks: Looks, clean: Tensor) -> tuple[Tensor, Tensor] | None:
        if not self.odds:
            return None
        # A saturated score hardly moves while the log-odds fall, so that there is no slope to learn by.
        left, full = (p.clamp(SURE, 1 - SURE).logit() for p in (looks.scores, clean[:, None]))
        falls = full - left
        return raw[:, 0].flatten(1).gather(1, looks.pieces.long()) - falls, falls.square().mean(1)

    def painted(self, values: Tensor, grid: Grid) -> Tensor:
        return self.patches(grid).averaged(values)

    def checked(self, probe: Probe, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        patches = self.patches(probe.grid)
        boxes, pixels, n = patches.boxes, [], 0
        needed: list[Tensor] = []
        while n < count:
            at = torch.stack([torch.randint(size, (), generator=generator) for size in probe.grid])
            (covering,) = ((boxes[:, :, 0] <= at) & (at < boxes[:, :, 1])).all(1).nonzero(as_tuple=True)
            pixels.append(at)
            needed.append(covering)
            n += len(covering)
        which = torch.unique(torch.cat(needed))
        falls = torch.zeros(len(patches))
        for batch in probe.together(boxes, which):
            scores = probe.scores(patches.masks(batch, probe.pixels.device), boxes[batch])[:, 0]
            falls[batch] = (probe.clean[0] - scores).cpu()
        strides = torch.tensor([math.prod(probe.grid[axis + 1 :]) for axis in range(len(probe.grid))])
        places = (torch.stack(pixels) * strides).sum(1)
        # Every patch that covers one of these pixels is known, and no other has a part in the map there.
        return places, patches.averaged(falls.view(1, *patches.counts)).flatten()[places]


@dataclass(frozen=True)
class ShapleyTeacher(Teacher):
    """Each look switches some cells of a grid off; the values are the Shapley values of the cells.

    Coalitions come from the Shapley kernel with their opposites, and the values are those of the weighted regression
    of Lundberg & Lee (2017, theorem 2), its constraint as a look with more weight: all cells together are worth what
    all of them removed take away.

    Attributes:
        cells: how many along each axis.
    """

    name: ClassVar[str] = "shapley"
    unit: ClassVar[str] = "Shapley value of the superpixel"

    cells: int = 8
    removal: Removal = field(default_factory=SegmentMean)

    def lattice(self, grid: Grid) -> Grid:
        return (self.cells,) * len(grid)

    def removal_for(self, probe_pixels: Tensor) -> Removal:
        return of_pieces(self.removal, self._labels(probe_pixels))

    def _labels(self, pixels: Tensor) -> Tensor:
        return Cells(self.cells).labels(pixels).to(pixels.device)

    def looks(self, probe: Probe, count: int, generator: torch.Generator) -> Looks:
        labels = self._labels(probe.pixels)
        pieces = self.cells ** len(probe.grid)
        half = random_pairs(pieces, max(1, (count - 1) // 2), generator)
        on = torch.cat([torch.zeros_like(half[:1]), torch.stack([half, 1 - half], 1).flatten(0, 1)])
        scores = probe.scores(switched(labels, on))[:, 0]
        return Looks(on.to(torch.uint8), scores.cpu())

    def compared(self, said: Said, looks: Looks, clean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        on, none = looks.pieces.float(), looks.scores[:, :1]
        gained = looks.scores[:, 1:] - none
        on = torch.cat([on[:, 1:], torch.ones_like(on[:, :1]).expand(-1, ALL, -1)], 1)
        gained = torch.cat([gained, (clean[:, None] - none).expand(-1, ALL)], 1)
        value, error = said.value.flatten(1), said.error.flatten(1)
        wrong = torch.einsum("bns,bs->bn", on, value) - gained
        expected = torch.einsum("bns,bs->bn", on, error.square()).sqrt()
        return wrong, expected, (gained - gained.mean(1, keepdim=True)).square().mean(1)

    def painted(self, values: Tensor, grid: Grid) -> Tensor:
        labels = Cells(self.cells).labels(torch.empty(1, *grid))
        return torch.stack([painted(labels, one.flatten()) for one in values])

    def checked(self, probe: Probe, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        looks = self.looks(probe, count, generator)
        on, none = looks.pieces.double(), looks.scores[0].double()
        heavy = 1e3 * len(on) * torch.ones_like(on[:1])
        gained = torch.cat([looks.scores[1:].double() - none, heavy[:, 0] * (float(probe.clean[0]) - none)])
        # With fewer looks than cells, of all values that fit the smallest.
        values = torch.linalg.lstsq(torch.cat([on[1:], heavy]), gained[:, None], driver="gelsd").solution[:, 0]
        labels = self._labels(probe.pixels).flatten().cpu()
        places = torch.randint(len(labels), (PLACES,), generator=generator)
        return places, values.float()[labels[places]]


@dataclass(frozen=True)
class RiseTeacher(Teacher):
    """Each look keeps a random smooth mask; a place has the score expected when it is visible, less the mean score.

    The covariance of score and mask over some masks is an unbiased, noisy map, which a map is compared with.

    Attributes:
        cells, p: see :class:`lucency.methods.Rise`.
        fine: places along each axis that the decoder speaks of; the maps in between are linear.
    """

    name: ClassVar[str] = "rise"
    unit: ClassVar[str] = "expected score when visible, less its mean"

    cells: int = 8
    p: float = 0.5
    removal: Removal = field(default_factory=Constant)
    fine: int = 16

    def lattice(self, grid: Grid) -> Grid:
        return tuple(min(self.fine, n) for n in grid)

    def looks(self, probe: Probe, count: int, generator: torch.Generator) -> Looks:
        grids = RandomGrids(probe.grid, self.cells, self.p)
        coins, shifts = grids.draw(max(2, count), generator)
        masks = grids.masks(coins.to(probe.pixels.device), shifts.to(probe.pixels.device))
        small = resized(masks[:, None], self.lattice(probe.grid))[:, 0]
        return Looks((255 * small).round().to("cpu", torch.uint8), probe.scores(masks)[:, 0].cpu())

    def covariance(self, looks: Looks) -> Tensor:
        """The noisy map ``[B, *lattice]`` of looks at B scans."""
        masks, scores = looks.pieces.float() / 255, looks.scores
        n = scores.shape[1]
        away = scores - scores.mean(1, keepdim=True)
        return torch.einsum("bn,bn...->b...", away, masks) / ((n - 1) * self.p)

    def compared(self, said: Said, looks: Looks, clean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        noisy = self.covariance(looks)
        return (said.value - noisy).flatten(1), said.error.flatten(1), noisy.square().flatten(1).mean(1)

    def painted(self, values: Tensor, grid: Grid) -> Tensor:
        return resized(values[:, None], grid)[:, 0]

    def checked(self, probe: Probe, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        looks = self.looks(probe, count, generator)
        found = self.covariance(Looks(looks.pieces[None], looks.scores[None]))
        flat = self.painted(found, probe.grid).flatten()
        places = torch.randint(len(flat), (PLACES,), generator=generator)
        return places, flat[places]
