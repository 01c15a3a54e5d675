"""Classifiers and the questions that can be put to them."""

from lucency.classifier.base import Classifier, Layer, Placement
from lucency.classifier.question import WATCHED, Question

__all__ = ["WATCHED", "Classifier", "Layer", "Placement", "Question"]
