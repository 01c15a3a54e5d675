"""Noisy linear imputation, the removal of ROAD (Rong et al., "A Consistent and Efficient Evaluation Strategy for
Attribution Methods", ICML 2022, section 5 and appendix B).

Each removed pixel is the weighted mean of its neighbours, which may be removed themselves: a sparse linear system. A
little noise hides that the fill is smooth. So there is hardly a trace of the shape of the mask in the fill.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import linalg
from torch import Tensor

from lucency.errors import ParameterError
from lucency.removal.base import Fill, Removal, noise_for, seed_from

KEPT = 1e-9
"""So little of a removed pixel counts that the system has a solution when nothing is kept."""


@dataclass(frozen=True)
class NoisyLinear(Removal):
    """Each removed pixel the weighted mean of its neighbours, with a little noise; differentiable in the masks.

    Attributes:
        noise: standard deviation of the noise, in display values (the authors' code has 0.01).
    """

    name: ClassVar[str] = "road"
    deterministic: ClassVar[bool] = False
    cost: ClassVar[str] = "a sparse linear system for each batch of masks"
    noise: float = 0.01

    def __post_init__(self) -> None:
        if self.noise < 0:
            raise ParameterError(f"Noise has a standard deviation of 0 or more, not {self.noise}.")

    def bind(self, pixels: Tensor, generator: torch.Generator) -> Fill:
        neighbours = neighbour_weights(tuple(pixels.shape[1:]))
        seed = seed_from(generator)

        def fill(masks: Tensor) -> Tensor:
            smooth = cast(Tensor, _Imputed.apply(masks, pixels, neighbours))  # type: ignore[no-untyped-call]
            return smooth + self.noise * noise_for(masks, len(pixels), seed) if self.noise else smooth

        return fill


def neighbour_weights(grid: tuple[int, ...]) -> sparse.csr_matrix:
    """Row i holds the weights, which sum to 1, of the neighbours of pixel i in a grid of N pixels; ``[N, N]``.

    A weight falls with the squared distance: in 2-D 1/6 for the four next and 1/12 for the four diagonal neighbours
    (the paper's), shared out anew at the border.
    """
    number = np.arange(int(np.prod(grid))).reshape(grid)
    rows: list[NDArray[np.int64]] = []
    columns: list[NDArray[np.int64]] = []
    values: list[NDArray[np.float64]] = []
    for offset in product((-1, 0, 1), repeat=len(grid)):
        if any(offset):
            here = number[tuple(slice(max(0, -o), min(n, n - o)) for o, n in zip(offset, grid, strict=True))]
            there = number[tuple(slice(max(0, o), min(n, n + o)) for o, n in zip(offset, grid, strict=True))]
            rows.append(here.ravel())
            columns.append(there.ravel())
            values.append(np.full(here.size, 1 / sum(o * o for o in offset)))
    found = sparse.coo_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (number.size, number.size)
    ).tocsr()
    return sparse.csr_matrix(sparse.diags(1 / np.maximum(np.asarray(found.sum(1)).ravel(), 1e-12)) @ found)


class _Imputed(torch.autograd.Function):
    """The neighbours' means ``W y`` of the scan ``y = m x + (1 - m) W y`` with its holes filled.

    For a mask of zeros and ones this is the paper's system, one equation for each removed pixel; a mask in between
    blends, as everywhere in this library. One solve for all masks of a batch, and one more for the gradient.
    """

    @staticmethod
    def forward(ctx: Any, masks: Tensor, pixels: Tensor, neighbours: sparse.csr_matrix) -> Tensor:
        size = neighbours.shape[0]
        x = np.tile(pixels.detach().flatten(1).T.cpu().double().numpy(), (len(masks), 1))
        kept = masks.detach().flatten().cpu().double().numpy().clip(KEPT, 1)
        unknown = np.flatnonzero(kept < 1)
        y, solver = x.copy(), None
        if len(unknown):
            rows = neighbours[unknown % size]
            of_scan = np.repeat(unknown // size * size, np.diff(rows.indptr))
            means = sparse.csr_matrix((rows.data, rows.indices + of_scan, rows.indptr), (len(unknown), len(kept)))
            gone = sparse.diags(1 - kept[unknown])
            y[unknown] = 0
            right = kept[unknown, None] * x[unknown] + gone @ (means @ y)
            system = sparse.csc_matrix(sparse.identity(len(unknown)) - gone @ means.tocsc()[:, unknown])
            solver = linalg.splu(system, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
            y[unknown] = solver.solve(right)
        fill = _times(neighbours, y)
        ctx.solved = (neighbours, solver, unknown, x - fill, masks)
        shape = (len(masks), *pixels.shape[1:], len(pixels))
        return torch.from_numpy(fill.reshape(shape)).movedim(-1, 1).to(pixels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        neighbours, solver, unknown, off, masks = ctx.solved
        given = gradients[0].movedim(1, -1).flatten(0, -2).cpu().double().numpy()
        found = np.zeros(len(given))
        if solver is not None:
            adjoint = solver.solve(_times(neighbours.T, given)[unknown], trans="T")
            found[unknown] = (adjoint * off[unknown]).sum(1)
        return torch.from_numpy(found.reshape(masks.shape)).to(masks), None, None


def _times(neighbours: sparse.csr_matrix, y: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix applied to each scan in ``[B * N, C]``."""
    scans = y.reshape(-1, neighbours.shape[0], y.shape[1])
    found: NDArray[np.float64] = np.stack([neighbours @ scan for scan in scans]).reshape(y.shape)
    return found
