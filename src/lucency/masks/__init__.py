"""The pieces: which pixels go together; a file here is found because it is there."""

from lucency.masks.grids import RandomGrids
from lucency.masks.patches import Patches
from lucency.masks.superpixels import Cells, Drawn, Quickshift, Slic, Superpixels
from lucency.parameters import import_files

import_files(__name__, __path__)

__all__ = ["Cells", "Drawn", "Patches", "Quickshift", "RandomGrids", "Slic", "Superpixels"]
