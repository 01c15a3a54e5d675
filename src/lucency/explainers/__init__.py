"""One-pass explainers: small networks that learn from a classifier's feature maps what a slow method would say."""

from lucency.explainers.learnt import Learnt, Prediction, Trust
from lucency.explainers.teachers import OcclusionTeacher, RiseTeacher, ShapleyTeacher, Teacher
from lucency.explainers.training import Item, Plan, train

__all__ = [
    "Item",
    "Learnt",
    "OcclusionTeacher",
    "Plan",
    "Prediction",
    "RiseTeacher",
    "ShapleyTeacher",
    "Teacher",
    "Trust",
    "train",
]
