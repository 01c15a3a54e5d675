"""Scores of a vision transformer that is not shown some of its tokens.

A transformer's blocks take any number of tokens. Between the embedding of patches and positions and the first block,
the tokens of what is removed are left out: no pixel stands in for another, and there is less to compute. Which network
can do that is found out by trying: each patch has to change its own token alone, and the order of the tokens must not
matter to the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lucency.classifier import Classifier
from lucency.classifier.hooks import hooked
from lucency.errors import ModelError, ParameterError

ALIKE = 1e-3
"""Outputs that differ by no more than this share of the largest are the same, whatever the order of the sum."""


class TokenNetwork:
    """The blocks of a classifier, and how its tokens lie on a grid.

    Args:
        classifier: a vision transformer.
        pixels: float32 ``[C, H, W]``, a scan on the model's grid.

    Attributes:
        grid: rows and columns of tokens.

    Raises:
        ParameterError: when it is no transformer, or none whose tokens can be left out.
    """

    def __init__(self, classifier: Classifier, pixels: Tensor) -> None:
        self._classifier = classifier
        if classifier.module is None or pixels.ndim != 3:
            raise self._refusal("it is a black box" if classifier.module is None else "its scans have three axes")
        blocks, grids = self._candidates(pixels[None])
        for block, tokens in blocks:
            for grid in grids:
                first = tokens - grid[0] * grid[1]
                if 0 <= first <= 16 and self._works(block, grid, first, pixels[None]):
                    self.block, self.grid, self._first = block, grid, first
                    return
        raise self._refusal("no row of blocks was found that takes one token for each patch, in any number")

    def _refusal(self, why: str) -> ParameterError:
        return ParameterError(
            f"The tokens of {self._classifier.name} cannot be left out ({why}); choose another removal."
        )

    def _candidates(self, x: Tensor) -> tuple[list[tuple[nn.Module, int]], list[tuple[int, int]]]:
        """First blocks of a row with the number of their tokens, and the grids that convolutions cut the scan into."""
        network = self._classifier.network()
        firsts = {
            next(iter(row.children())) for row in network.modules()
            if isinstance(row, nn.Sequential | nn.ModuleList) and len(row)
        }  # fmt: skip
        blocks: list[tuple[nn.Module, int]] = []
        grids: list[tuple[int, int]] = []

        def seen(_name: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if isinstance(module, nn.Conv2d):
                if module.stride == module.kernel_size and output.shape[2:] != args[0].shape[2:]:
                    grids.append((int(output.shape[2]), int(output.shape[3])))
            elif args and isinstance(args[0], Tensor) and args[0].ndim == 3:
                blocks.append((module, int(args[0].shape[1])))

        told = {name: m for name, m in network.named_modules() if m in firsts or isinstance(m, nn.Conv2d)}
        with hooked(told, seen):
            self._classifier(x)
        # Hooks of inner blocks are called before those of outer ones.
        return blocks, grids

    def _works(self, block: nn.Module, grid: tuple[int, int], first: int, x: Tensor) -> bool:
        """Whether each patch changes its own token alone, and the blocks see a set of tokens."""
        classifier, (rows, columns) = self._classifier, grid
        height, width = x.shape[2] // rows, x.shape[3] // columns
        if rows * columns < 2 or x.shape[2] % rows or x.shape[3] % columns:
            return False
        met: list[Tensor] = []

        def look(tokens: Tensor) -> Tensor:
            met.append(tokens)
            return tokens

        shuffled = torch.randperm(rows * columns, generator=torch.Generator().manual_seed(0)).to(x.device)
        some = shuffled[: max(1, len(shuffled) // 2)].sort().values
        try:
            with _changed(block, look):
                clean = classifier(x)
                for row, column in ((0, columns - 1), (rows - 1, 0), (rows // 2, columns // 2)):
                    other = x.clone()
                    other[:, :, row * height : (row + 1) * height, column * width : (column + 1) * width] += 0.5
                    classifier(other)
            with _changed(block, lambda t: torch.cat([t[:, :first], t[:, first:][:, shuffled]], 1)):
                mixed = classifier(x)
            with _changed(block, lambda t: torch.cat([t[:, :first], t[:, first:][:, some]], 1)):
                fewer = classifier(x)
        except ModelError:
            return False
        at = [(columns - 1), (rows - 1) * columns, (rows // 2) * columns + columns // 2]
        alone = all(
            (tokens != met[0]).any(2)[0].nonzero()[:, 0].tolist() == [first + i]
            for tokens, i in zip(met[1:], at, strict=True)
        )
        near = float((mixed - clean).abs().max()) <= ALIKE * float(clean.abs().max())
        return alone and near and fewer.shape == clean.shape and bool(fewer.isfinite().all())

    def kept(self, masks: Tensor) -> Tensor:
        """Which tokens are shown: bool ``[B, N]``, for masks ``[B, H, W]`` of zeros and ones.

        Raises:
            ParameterError: for masks with something in between.
        """
        if bool(((masks > 0) & (masks < 1)).any()):
            raise ParameterError(
                "A token is left out or shown, but the masks of this method dim the scan; choose another removal, or "
                "occlusion, lime or kernel_shap."
            )
        gone = 1 - F.adaptive_avg_pool2d(masks[:, None].float(), self.grid).flatten(1)
        most = gone.amax(1, keepdim=True)
        out = torch.where(most >= 0.5 - 1e-6, gone >= 0.5 - 1e-6, (gone > 0) & (gone >= most - 1e-6))
        return ~out

    @contextmanager
    def showing(self, kept: Tensor) -> Iterator[None]:
        """Inside, scans ``[B, C, H, W]`` are shown by the tokens ``kept`` ``[B, N]``, as many for each."""
        tokens = kept.nonzero()[:, 1].view(len(kept), -1)

        def chosen(t: Tensor) -> Tensor:
            rest = t[:, self._first :].gather(1, tokens[:, :, None].expand(-1, -1, t.shape[2]))
            return torch.cat([t[:, : self._first], rest], 1)

        with _changed(self.block, chosen):
            yield


def _changed(block: nn.Module, change: Callable[[Tensor], Tensor]) -> AbstractContextManager[None]:
    """Inside, a module gets its first argument changed."""
    return hooked({"": block}, before=lambda _name, _module, args: (change(args[0]), *args[1:]))
