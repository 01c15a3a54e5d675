"""The network behind :class:`~lucency.removal.healthy.Healthy`: what a healthy chest shows where a mask hides it."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lucency.removal.local import pull_push

COARSE = 56


class Gated(nn.Module):
    """A convolution whose output passes a gate, one for all channels, so that holes and what is seen weigh apart.

    Gated convolution (Yu et al., ICCV 2019, equation 3) with the single-channel gate of Yi et al. (CVPR 2020).
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.outputs = outputs
        self.conv = nn.Conv2d(inputs, outputs + 1, 3, stride, dilation, dilation)

    def forward(self, x: Tensor) -> Tensor:
        features, gate = self.conv(x).split((self.outputs, 1), 1)
        return F.leaky_relu(features, 0.1) * torch.sigmoid(gate)


class Expected(nn.Module):
    """The healthy chest that is expected given the pixels that are kept: a Gaussian model of healthy films.

    Probabilistic principal components (Tipping & Bishop, JRSS B 1999): x = mean + basis z + noise with z of the given
    variances. Its posterior mean given some of the pixels is a small linear system.

    Args:
        components: of the model.
        noise: variance of a pixel that the components do not explain.
    """

    def __init__(self, components: int, noise: float) -> None:
        super().__init__()
        self.noise = noise
        self.register_buffer("mean", torch.zeros(COARSE**2))
        self.register_buffer("basis", torch.zeros(COARSE**2, components))
        self.register_buffer("variance", torch.ones(components))

    def forward(self, x: Tensor, masks: Tensor) -> Tensor:
        """The expected film for films and masks (1 = kept) ``[B, 1, H, W]``."""
        mean, basis, variance = self.get_buffer("mean"), self.get_buffer("basis"), self.get_buffer("variance")
        weight = F.adaptive_avg_pool2d(masks, COARSE)
        seen = F.adaptive_avg_pool2d(x * masks, COARSE) / weight.clamp(min=1e-6)
        kept = weight.flatten(1)
        # A small hole leaves little out of what all pixels together say.
        everything = basis.T @ basis
        projected = torch.stack(
            [
                everything - _weighted(basis, 1 - row) if 2 * row.sum() > len(row) else _weighted(basis, row)
                for row in kept
            ]
        )
        system = projected + torch.diag(self.noise / variance)
        off = (kept * (seen.flatten(1) - mean)) @ basis
        found = mean + torch.linalg.solve(system, off) @ basis.T
        coarse = found.view(-1, 1, COARSE, COARSE)
        return F.interpolate(coarse, x.shape[2:], mode="bilinear", align_corners=False)


def _weighted(basis: Tensor, weights: Tensor) -> Tensor:
    """``basis.T @ diag(weights) @ basis``, of the rows that count."""
    rows = weights.nonzero().squeeze(1)
    chosen = basis[rows]
    return (chosen * weights[rows, None]).T @ chosen


class InPainter(nn.Module):
    """A U-Net of gated convolutions that corrects what a linear model of healthy chests expects in the hole.

    Args:
        widths: channels at a half, a quarter, an eighth, a sixteenth and a thirty-second of the size.
        components, noise: of the linear model, see :class:`Expected`.
    """

    def __init__(
        self, widths: tuple[int, ...] = (16, 40, 80, 128, 128), components: int = 200, noise: float = 0.03
    ) -> None:
        super().__init__()
        self.expected = Expected(components, noise)
        # Four pixels of the filled film, of the mask and of what is expected, and where in the picture they are.
        self.down = nn.ModuleList(
            nn.Sequential(Gated(before, after, 2 if i else 1), Gated(after, after))
            for i, (before, after) in enumerate(pairwise((14, *widths)))
        )
        self.wide = Gated(widths[-1], widths[-1], dilation=2)
        self.narrow = nn.ModuleList(nn.Conv2d(after, before, 1) for before, after in pairwise(widths))
        self.up = nn.ModuleList(Gated(width, width) for width in widths[:-1])
        self.out = nn.Conv2d(widths[0], 4, 3, padding=1, bias=False)
        # An untrained network changes nothing.
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, masks: Tensor) -> Tensor:
        """The fill for films and masks (1 = kept) ``[B, 1, H, W]``, H and W even, all in 0..1."""
        smooth, expected = self.first(x, masks)
        y = F.pixel_unshuffle(torch.cat([torch.lerp(smooth, x, masks), masks, expected], 1), 2)
        y = torch.cat([2 * y - 1, places(y)], 1)
        kept = []
        for stage in self.down:
            y = stage(y)
            kept.append(y)
        y = y + self.wide(y)
        for i in reversed(range(len(self.up))):
            y = F.interpolate(self.narrow[i](y), kept[i].shape[2:], mode="nearest")
            y = kept[i] + self.up[i](kept[i] + y)
        return smooth + F.pixel_shuffle(self.out(y), 2)

    def first(self, x: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """The fill before the network, and what the linear model expects everywhere.

        The fill is what is expected plus how far what is kept nearby is off.
        """
        expected = self.expected(x, masks)
        return expected + pull_push(x - expected, masks), expected


def places(y: Tensor) -> Tensor:
    """``[B, 2, h, w]``: height and breadth of each place, -1 to 1."""
    rows = torch.linspace(-1, 1, y.shape[2], device=y.device, dtype=y.dtype)
    columns = torch.linspace(-1, 1, y.shape[3], device=y.device, dtype=y.dtype)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(y), -1, -1, -1)
