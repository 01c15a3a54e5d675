"""The meanings of "removed"."""

from lucency.removal.average import DatasetMean
from lucency.removal.base import Fill, Removal, removals, remove
from lucency.removal.biharmonic import Biharmonic
from lucency.removal.custom import Custom
from lucency.removal.healthy import Healthy
from lucency.removal.linear import NoisyLinear
from lucency.removal.local import LocalMean
from lucency.removal.mirror import Mirror
from lucency.removal.picture import Picture
from lucency.removal.segment import SegmentMean, of_pieces
from lucency.removal.simple import Blur, Constant, Mean, Noise, gaussian_blur
from lucency.removal.tokens import Tokens
from lucency.removal.uniform import Uniform

__all__ = [
    "Biharmonic",
    "Blur",
    "Constant",
    "Custom",
    "DatasetMean",
    "Fill",
    "Healthy",
    "LocalMean",
    "Mean",
    "Mirror",
    "Noise",
    "NoisyLinear",
    "Picture",
    "Removal",
    "SegmentMean",
    "Tokens",
    "Uniform",
    "gaussian_blur",
    "of_pieces",
    "removals",
    "remove",
]
