"""The pieces: which pixels go together."""

from lucency.masks.grids import RandomGrids
from lucency.masks.patches import Patches
from lucency.masks.superpixels import Cells, Drawn, Quickshift, Slic, Superpixels

__all__ = ["Cells", "Drawn", "Patches", "Quickshift", "RandomGrids", "Slic", "Superpixels"]
