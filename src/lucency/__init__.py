"""Lucency: see why a deep classifier read a scan as it did. Research software, not a medical device."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lucency.classifier.loading import load_classifier
    from lucency.errors import LucencyError
    from lucency.explanation import Explanation
    from lucency.metrics import evaluate
    from lucency.reading import read_scan
    from lucency.recipe import Explainer, Failure, explain
    from lucency.scan import Scan

_HOMES = {
    "Explainer": "lucency.recipe",
    "Explanation": "lucency.explanation",
    "Failure": "lucency.recipe",
    "LucencyError": "lucency.errors",
    "Scan": "lucency.scan",
    "evaluate": "lucency.metrics",
    "explain": "lucency.recipe",
    "load_classifier": "lucency.classifier.loading",
    "read_scan": "lucency.reading",
}

__all__ = [
    "Explainer",
    "Explanation",
    "Failure",
    "LucencyError",
    "Scan",
    "evaluate",
    "explain",
    "load_classifier",
    "read_scan",
]


def __getattr__(name: str) -> Any:
    # Names are looked up when they are used, so that the command line answers `--help` without loading PyTorch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
