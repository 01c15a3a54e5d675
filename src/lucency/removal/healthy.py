"""Healthy tissue: what a healthy chest would show where something was taken away."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import ClassVar

import torch
from safetensors.torch import load
from torch import Tensor
from torch.nn import functional as F

from lucency.asking import one_at_a_time
from lucency.errors import ParameterError
from lucency.removal.base import Fill, Removal
from lucency.removal.network import InPainter

SIZE = (112, 112)
"""The size that the network works at; a fill has no detail that is finer."""
AT_ONCE = 16


@dataclass(frozen=True)
class Healthy(Removal):
    """What a small shipped network paints there: a healthy chest, given what is kept. For frontal chest radiographs.

    A linear model of healthy chests says what is expected, and a U-Net of gated convolutions corrects it. They have
    learned from pairs of simulated films of the same patient with and without fluid, and from real films without
    findings; see the model card. Differentiable in the masks.
    """

    name: ClassVar[str] = "healthy"
    deterministic: ClassVar[bool] = True
    cost: ClassVar[str] = "a pass of a small network for each mask"

    @property
    def fingerprint(self) -> str:
        """The hash of the shipped weights."""
        return shipped_fingerprint()

    def bind(self, pixels: Tensor, generator: torch.Generator) -> Fill:
        """As :meth:`Removal.bind`.

        Raises:
            ParameterError: when the scan is not a grey picture.
        """
        if pixels.ndim != 3 or not torch.equal(pixels, pixels[:1].expand_as(pixels)):
            raise ParameterError(
                f"Healthy tissue is painted in grey frontal chest radiographs, not in a scan of {list(pixels.shape)}; "
                "use another removal, such as blur or road."
            )
        network = painter(pixels.device)
        grid = tuple(pixels.shape[1:])
        small = F.interpolate(pixels[None, :1].float(), SIZE, mode="bilinear", antialias=True).clamp(0, 1)

        def some(masks: Tensor) -> Tensor:
            # A pixel of the network's that is partly gone is gone.
            kept = 1 - F.adaptive_max_pool2d(1 - masks[:, None].to(small), SIZE)
            with one_at_a_time():
                painted = network(small.expand(len(masks), 1, *SIZE), kept).clamp(0, 1)
            return F.interpolate(painted, grid, mode="bilinear", antialias=True).to(pixels)

        return lambda masks: torch.cat([some(part) for part in torch.split(masks, AT_ONCE)])


@cache
def shipped_fingerprint() -> str:
    """The SHA-256 of the file of weights."""
    return hashlib.sha256((files("lucency.removal") / "weights" / "healthy.safetensors").read_bytes()).hexdigest()


@cache
def shipped() -> dict[str, Tensor]:
    """The weights of the network, and the mean of the healthy films among them."""
    # Weights that were first needed while a score was read must still serve for gradients later.
    with torch.inference_mode(False):
        return load((files("lucency.removal") / "weights" / "healthy.safetensors").read_bytes())


@cache
def painter(device: torch.device) -> InPainter:
    """The shipped network."""
    with torch.inference_mode(False):
        network = InPainter()
        network.load_state_dict({name: value.float() for name, value in shipped().items()})
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network.to(device).eval().requires_grad_(False)
