"""Lucency: see why a deep classifier read a scan as it did. Research software, not a medical device."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lucency.classifier.loading import load_classifier
    from lucency.errors import LucencyError
    from lucency.explanation import Explanation, explain
    from lucency.metrics import evaluate
    from lucency.reading import read_scan
    from lucency.scan import Scan

_HOMES = {
    "Explanation": "lucency.explanation",
    "LucencyError": "lucency.errors",
    "Scan": "lucency.scan",
    "evaluate": "lucency.metrics",
    "explain": "lucency.explanation",
    "load_classifier": "lucency.classifier.loading",
    "read_scan": "lucency.reading",
}

__all__ = ["Explanation", "LucencyError", "Scan", "evaluate", "explain", "load_classifier", "read_scan"]


def __getattr__(name: str) -> Any:
    # Names are looked up when they are used, so that the command line answers `--help` without loading PyTorch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
