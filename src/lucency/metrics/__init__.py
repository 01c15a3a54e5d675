"""Is the map right?"""

from lucency.metrics.completeness import completeness_gap
from lucency.metrics.localisation import Localisation, best_threshold, iou, localise, mass_on, top_on
from lucency.metrics.perturbation import Curve, Estimate, Evaluation, evaluate
from lucency.metrics.procedures import CURVES, Deletion, Insertion, LeRF, MoRF, Procedure, RandomOrder, Road
from lucency.metrics.subset import Subset, smallest_subset
from lucency.parameters import import_files

import_files(__name__, __path__)

__all__ = [
    "CURVES",
    "Curve",
    "Deletion",
    "Estimate",
    "Evaluation",
    "Insertion",
    "LeRF",
    "Localisation",
    "MoRF",
    "Procedure",
    "RandomOrder",
    "Road",
    "Subset",
    "best_threshold",
    "completeness_gap",
    "evaluate",
    "iou",
    "localise",
    "mass_on",
    "smallest_subset",
    "top_on",
]
