"""The meanings of "removed"; a file here is found because it is there."""

from lucency.parameters import import_files
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
from lucency.removal.simple import Blur, Constant, Mean, Noise
from lucency.removal.surrogate import Surrogate
from lucency.removal.tokens import Tokens
from lucency.removal.uniform import Uniform

import_files(__name__, __path__)

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
    "Surrogate",
    "Tokens",
    "Uniform",
    "of_pieces",
    "removals",
    "remove",
]
