"""The meanings of "removed"."""

from lucency.removal.base import Fill, Removal, remove
from lucency.removal.segment import SegmentMean, of_pieces
from lucency.removal.simple import Blur, Constant, Mean, Noise, gaussian_blur
from lucency.removal.uniform import Uniform

__all__ = [
    "Blur",
    "Constant",
    "Fill",
    "Mean",
    "Noise",
    "Removal",
    "SegmentMean",
    "Uniform",
    "gaussian_blur",
    "of_pieces",
    "remove",
]
