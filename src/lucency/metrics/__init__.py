"""Is the map right?"""

from lucency.metrics.artefact import Artefacts, artefacts
from lucency.metrics.completeness import Completeness, completeness, completeness_gap
from lucency.metrics.gold import GoldStandard, against_gold
from lucency.metrics.infidelity import Infidelity, infidelity
from lucency.metrics.localisation import Localisation, best_threshold, energy_in, iou, localise, top_on
from lucency.metrics.perturbation import Curve, Estimate, Evaluation, evaluate
from lucency.metrics.procedures import CURVES, Deletion, Insertion, LeRF, MoRF, Procedure, RandomOrder, Road
from lucency.metrics.result import Result
from lucency.metrics.subset import Subset, smallest_subset
from lucency.parameters import import_files

import_files(__name__, __path__)

__all__ = [
    "CURVES",
    "Artefacts",
    "Completeness",
    "Curve",
    "Deletion",
    "Estimate",
    "Evaluation",
    "GoldStandard",
    "Infidelity",
    "Insertion",
    "LeRF",
    "Localisation",
    "MoRF",
    "Procedure",
    "RandomOrder",
    "Result",
    "Road",
    "Subset",
    "against_gold",
    "artefacts",
    "best_threshold",
    "completeness",
    "completeness_gap",
    "energy_in",
    "evaluate",
    "infidelity",
    "iou",
    "localise",
    "smallest_subset",
    "top_on",
]
