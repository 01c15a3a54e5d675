"""The meanings of "removed"."""

from lucency.removal.base import Fill, Removal, remove
from lucency.removal.simple import Blur, Constant, Mean, Noise, gaussian_blur

__all__ = ["Blur", "Constant", "Fill", "Mean", "Noise", "Removal", "gaussian_blur", "remove"]
