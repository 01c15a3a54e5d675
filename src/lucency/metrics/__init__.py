"""Is the map right?"""

from lucency.metrics.completeness import completeness_gap
from lucency.metrics.localisation import Localisation, best_threshold, iou, localise, mass_on, top_on
from lucency.metrics.perturbation import CURVES, Curve, Estimate, Evaluation, evaluate

__all__ = [
    "CURVES",
    "Curve",
    "Estimate",
    "Evaluation",
    "Localisation",
    "best_threshold",
    "completeness_gap",
    "evaluate",
    "iou",
    "localise",
    "mass_on",
    "top_on",
]
