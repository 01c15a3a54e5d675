"""Is the map right?"""

from lucency.metrics.completeness import completeness_gap
from lucency.metrics.localisation import Localisation, best_threshold, iou, localise, mass_on, top_on
from lucency.metrics.perturbation import CURVES, Curve, Estimate, Evaluation, evaluate
from lucency.metrics.subset import Subset, smallest_subset

__all__ = [
    "CURVES",
    "Curve",
    "Estimate",
    "Evaluation",
    "Localisation",
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
