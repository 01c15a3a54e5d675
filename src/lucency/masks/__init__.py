"""The pieces: which pixels go together."""

from lucency.masks.patches import Patches

__all__ = ["Patches"]
