"""How a film lies: upright or turned, mirrored, in negative, or no frontal chest film at all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from lucency.asking import one_at_a_time
from lucency.errors import ScanError
from lucency.scan import Scan

SIZE = 64
"""Pixels along each side of what :class:`UprightNet` reads."""
FILM = 0.0
"""Logit below which a film, however it is turned, is not taken for a frontal chest film."""
PLAIN = 0.02
"""Share of the film's range below which a row or a column at its border is plain."""
BETTER = 2.0
"""By how many logits a film must look better when put right than as it is, before it is said to lie wrong."""


@dataclass(frozen=True)
class Orientation:
    """What was done to a frontal chest film, and how well that is known.

    Attributes:
        negative: air is bright and bone is dark.
        mirrored: left and right are exchanged, before it was turned.
        turns: quarter turns anticlockwise, 0..3.
        score: logit of "a frontal chest film as a viewer shows it" when all that is undone.
        gain: by how much that exceeds the logit of the film as it is; 0 for an upright one.
    """

    negative: bool
    mirrored: bool
    turns: int
    score: float
    gain: float

    @property
    def chest(self) -> bool:
        """Whether it is a frontal chest film at all."""
        return self.score >= FILM

    @property
    def upright(self) -> bool:
        """Whether it is a frontal chest film as a viewer shows it, as far as can be told."""
        return self.chest and self.gain < BETTER


class UprightNet(nn.Module):
    """Logits ``[B]``, "a frontal chest film as a viewer shows it", of ranked films ``[B, 1, SIZE, SIZE]``.

    Args:
        widths: channels at a half, a quarter, an eighth and a sixteenth of the size.
    """

    def __init__(self, widths: tuple[int, ...] = (12, 24, 32, 48)) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        for i, (before, after) in enumerate(zip((6, *widths), widths, strict=False)):
            stages += [
                nn.Conv2d(before, after, 3, 2 if i else 1, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(),
                nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(),
            ]  # fmt: skip
        self.stages = nn.Sequential(*stages)
        self.out = nn.Sequential(nn.Dropout(0.3), nn.Linear(widths[-1] * (SIZE // 16) ** 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = F.pixel_unshuffle(2 * x - 1, 2)
        at = torch.linspace(-1, 1, y.shape[-1], dtype=y.dtype, device=y.device)
        places = torch.stack(torch.meshgrid(at, at, indexing="ij")).expand(len(y), -1, -1, -1)
        out: Tensor = self.out(self.stages(torch.cat([y, places], 1)).flatten(1))
        return out[:, 0]


def ranked(x: Tensor) -> Tensor:
    """Each film ``[B, 1, H, W]`` with every pixel's mean rank among the film's pixels, 0..1: no tone is left."""
    flat = x.flatten(1).contiguous()
    ordered = flat.sort(1).values
    # Equal pixels get equal ranks, so that a frame of one grey does not become a ramp.
    low, high = (torch.searchsorted(ordered, flat, right=right) for right in (False, True))
    return ((low + high).to(x) / (2 * flat.shape[1])).view_as(x)


def variants(x: Tensor) -> Tensor:
    """What may have been done to films ``[B, 1, S, S]`` of ranks, undone: ``[B, 16, 1, S, S]``.

    The index is 8 x negative + 4 x mirrored + quarter turns, see :class:`Orientation`.
    """
    found = []
    for negative in (False, True):
        tone = 1 - x if negative else x
        for mirrored in (False, True):
            for turns in range(4):
                upright = torch.rot90(tone, -turns, (2, 3))
                found.append(upright.flip(3) if mirrored else upright)
    return torch.stack(found, 1)


def orientation(scan: Scan) -> Orientation:
    """How a two-dimensional scan lies, as a small network tells that was trained on films turned every way.

    Raises:
        ScanError: for a volume.
    """
    if len(scan.shape) != 2:
        raise ScanError("Only films have an orientation that can be told; take a slice of the volume.")
    with one_at_a_time(), torch.inference_mode():
        scores = _network()(variants(ranked(small(scan)))[0])
    best = int(scores.argmax())
    return Orientation(best >= 8, best % 8 >= 4, best % 4, float(scores[best]), float(scores[best] - scores[0]))


def small(scan: Scan) -> Tensor:
    """The film without its plain frame, grey, ``[1, 1, SIZE, SIZE]``."""
    film = scan.display.mean(0)
    least = PLAIN * float(film.max() - film.min())
    for axis in (0, 1):
        lines = torch.nonzero(film.amax(1 - axis) - film.amin(1 - axis) > least)[:, 0]
        if len(lines) > film.shape[axis] // 2:
            film = film.narrow(axis, int(lines[0]), int(lines[-1] - lines[0]) + 1)
    return F.interpolate(film[None, None], (SIZE, SIZE), mode="bilinear", antialias=True)


@cache
def _network() -> UprightNet:
    net = UprightNet()
    with as_file(files("lucency.lungs") / "upright.safetensors") as path:
        state = load_file(path)
    net.load_state_dict({name: value.float() if value.is_floating_point() else value for name, value in state.items()})
    return net.eval()
