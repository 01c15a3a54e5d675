"""Holes of every shape that the methods make: patches, superpixels, random grids, smooth masks, and what is left."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lucency.filters import gaussian_blur

Shape = Callable[[Sequence[int], torch.Generator], Tensor]


def drawn(count: int, size: Sequence[int], rng: torch.Generator) -> Tensor:
    """Masks ``[count, *size]`` in 0..1, 1 = kept, each of a kind that is drawn; one in ten hides nothing."""
    chosen = torch.multinomial(torch.tensor([share for share, _ in KINDS]), count, replacement=True, generator=rng)
    return torch.stack([KINDS[int(i)][1](size, rng) for i in chosen])


def nothing(size: Sequence[int], rng: torch.Generator) -> Tensor:
    """Nothing is hidden."""
    return torch.ones(tuple(size))


def patches(size: Sequence[int], rng: torch.Generator) -> Tensor:
    """One to four boxes, of 3 to 50 % of each side."""
    mask = torch.ones(tuple(size))
    for _ in range(_whole(1, 5, rng)):
        box = []
        share = 0.03 * (0.5 / 0.03) ** _unit(rng)
        for n in size:
            edge = max(1, round(n * share * (0.7 + 0.6 * _unit(rng))))
            start = _whole(-edge // 2, n - edge // 2, rng)
            box.append(slice(max(0, start), max(0, start + edge)))
        mask[tuple(box)] = 0
    return mask


def superpixels(size: Sequence[int], rng: torch.Generator) -> Tensor:
    """A random share of 16 to 100 superpixels: the cells of random seeds, with wavy borders."""
    # On a quarter of the pixels: the borders are as good, and it costs a sixteenth.
    small = [max(1, n // 4) for n in size]
    seeds = torch.rand((_whole(16, 101, rng), len(size)), generator=rng) * torch.tensor(small)
    axes = torch.stack(torch.meshgrid(*[torch.arange(n) + 0.5 for n in small], indexing="ij"), -1)
    wave = torch.randn((1, len(size), *[max(2, n // 6) for n in small]), generator=rng)
    wavy = F.interpolate(wave, small, mode="bilinear" if len(size) == 2 else "trilinear", align_corners=False)[0]
    labels = torch.cdist((axes + 1.5 * wavy.movedim(0, -1)).flatten(0, -2), seeds).argmin(1).view(small)
    kept = (torch.rand(len(seeds), generator=rng) < 0.05 + 0.9 * _unit(rng)).float()
    return F.interpolate(kept[labels][None, None], tuple(size), mode="nearest")[0, 0]


def grids(size: Sequence[int], rng: torch.Generator) -> Tensor:
    """A coarse random grid, enlarged smoothly and shifted (Petsiuk et al., RISE, BMVC 2018)."""
    cells = _whole(4, 13, rng)
    coarse = (torch.rand((1, 1, *[cells + 1] * len(size)), generator=rng) < 0.1 + 0.8 * _unit(rng)).float()
    large = [math.ceil(n * (cells + 1) / cells) for n in size]
    fine = F.interpolate(coarse, large, mode="bilinear" if len(size) == 2 else "trilinear", align_corners=False)[0, 0]
    starts = [_whole(0, big - n + 1, rng) for big, n in zip(large, size, strict=True)]
    return fine[tuple(slice(a, a + n) for a, n in zip(starts, size, strict=True))].clamp(0, 1)


def smooth(size: Sequence[int], rng: torch.Generator) -> Tensor:
    """One or a few soft blobs of any area, as learned masks have them."""
    noise = torch.randn((1, *[max(2, n // 4) for n in size]), generator=rng)
    field = gaussian_blur(noise, max(1.0, min(size) / 4 * (0.05 + 0.15 * _unit(rng))))
    mode = "bilinear" if len(size) == 2 else "trilinear"
    field = F.interpolate(field[None], tuple(size), mode=mode, align_corners=False)[0, 0]
    edge = torch.quantile(field.flatten()[:: max(1, field.numel() // 4096)], _unit(rng))
    return torch.sigmoid((field - edge) / field.std().clamp_min(1e-6) * 4 ** (1 + _unit(rng)))


def rest(size: Sequence[int], rng: torch.Generator) -> Tensor:
    """Only some boxes are left, or all but a blob is hidden."""
    return 1 - (patches if _unit(rng) < 0.5 else smooth)(size, rng)


KINDS: tuple[tuple[float, Shape], ...] = (
    (0.1, nothing), (0.3, patches), (0.3, superpixels), (0.12, grids), (0.1, smooth), (0.08, rest),
)  # fmt: skip
"""How often each kind is drawn."""


def _unit(rng: torch.Generator) -> float:
    return float(torch.rand((), generator=rng))


def _whole(low: int, high: int, rng: torch.Generator) -> int:
    return int(torch.randint(low, high, (), generator=rng))
