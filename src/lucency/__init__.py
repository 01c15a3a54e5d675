"""Lucency: see why a deep classifier read a scan as it did. Research software, not a medical device."""

from lucency.errors import LucencyError
from lucency.explanation import Explanation, explain
from lucency.metrics import evaluate
from lucency.scan import Scan

__all__ = ["Explanation", "LucencyError", "Scan", "evaluate", "explain"]
