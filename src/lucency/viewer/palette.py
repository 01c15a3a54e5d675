"""How a signed map is coloured: two hues, centred on zero, with an opacity that grows with the value.

The scan speaks in lightness and the map in hue. Both hues have the same lightness and the same chroma in OKLab
(L = 0.66, C = 0.17; orange at 42 degrees, blue at 250 degrees, told apart in every common colour blindness), so
neither sign shouts louder than the other, and anatomy stays legible beneath the colour. Opacity is proportional to
the value, which is perceptually uniform to within a third on greys from black to white, and zero leaves the scan
exactly as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

SUPPORTS = (229, 103, 49)
AGAINST = (40, 150, 245)
OPACITY = 0.8
PERCENTILE = 99.9

BACKGROUND = (14, 17, 20)
SURFACE = (24, 29, 34)
LINE = (58, 67, 76)
TEXT = (232, 236, 240)
MUTED = (158, 169, 180)
WARNING = (240, 190, 90)
LIGHT = {
    "background": (246, 247, 249),
    "surface": (255, 255, 255),
    "line": (196, 204, 211),
    "text": (20, 24, 28),
    "muted": (80, 91, 102),
    "warning": (134, 80, 0),
}
"""The same for whoever reads pages dark on light. Films and scans stay dark, as on a viewer."""


@dataclass(frozen=True)
class Scale:
    """The value at which the colour is full, the same on both sides of zero."""

    limit: float

    @classmethod
    def of(cls, heatmap: Floats) -> Scale:
        """Robust: the 99.9th percentile of the absolute value, so that a few wild pixels do not dim all others.

        A map that is zero nearly everywhere is scaled to its maximum, an empty one to 1.
        """
        size = np.abs(heatmap)
        limit = float(np.percentile(size, PERCENTILE)) or float(size.max())
        return cls(limit if limit > 0 and np.isfinite(limit) else 1.0)

    def strength(self, heatmap: Floats) -> Floats:
        """Values -> -1..1."""
        # In double, since the inverse of a tiny limit does not fit a float32.
        found: Floats = np.clip(heatmap / np.float64(self.limit), -1, 1).astype(np.float32)
        return found

    def __str__(self) -> str:
        return f"±{self.limit:.3g}"


def hexed(colour: tuple[int, int, int]) -> str:
    """``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def composite(grey: Floats, strength: Floats, opacity: float = OPACITY) -> Bytes:
    """The scan ``[h, w]`` in 0..1 under a map ``[h, w]`` in -1..1: RGB uint8 ``[h, w, 3]``."""
    scan = np.clip(grey, 0, 1) * np.float32(255)
    share = np.abs(strength) * np.float32(opacity)
    against = strength < 0
    mixed: Bytes = np.empty((*grey.shape, 3), np.uint8)
    for channel, (below, above) in enumerate(zip(AGAINST, SUPPORTS, strict=True)):
        hue = np.where(against, np.float32(below), np.float32(above))
        mixed[..., channel] = np.rint(scan + share * (hue - scan))
    return mixed


def layer(strength: Floats) -> Bytes:
    """A map ``[h, w]`` in -1..1 as a transparent layer: RGBA uint8 ``[h, w, 4]``, fully opaque at -1 and 1."""
    rgba: Bytes = np.empty((*strength.shape, 4), np.uint8)
    rgba[..., :3] = np.where(strength[..., None] < 0, np.array(AGAINST, np.uint8), np.array(SUPPORTS, np.uint8))
    rgba[..., 3] = np.rint(np.abs(strength) * 255)
    return rgba


def ramp(n: int, signed: bool = True) -> Floats:
    """Strengths from the lowest to the highest of a colour bar, float32 ``[n]``."""
    values: Floats = np.linspace(-1 if signed else 0, 1, n, dtype=np.float32)
    return values
