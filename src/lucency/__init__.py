"""Lucency: see why a deep classifier read a scan as it did. Research software, not a medical device."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lucency.errors import LucencyError
    from lucency.explanation import Explanation, explain
    from lucency.scan import Scan

_HOMES = {
    "Explanation": "lucency.explanation",
    "LucencyError": "lucency.errors",
    "Scan": "lucency.scan",
    "explain": "lucency.explanation",
}

__all__ = ["Explanation", "LucencyError", "Scan", "explain"]


def __getattr__(name: str) -> Any:
    # Names are looked up when they are used, so that the command line answers `--help` without loading PyTorch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
