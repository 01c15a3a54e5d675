"""What the commands that explain many films share: what is asked of each, and how far they are in words."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lucency.archive import Asked, Progress


def asked_for(given: Mapping[str, Any], **more: Any) -> Asked:
    """What the options of ``lucency explain`` and of ``lucency archive run`` ask of each film."""
    from lucency.archive import Asked
    from lucency.cli.film import ends
    from lucency.cli.model import classifier_named

    same = (
        "target", "method", "watch", "budget", "error_bars", "sanity", "tolerance", "memory", "device", "seed", "frame",
        "window", "anonymous",
    )  # fmt: skip
    return Asked(
        partial(classifier_named, given["model"], trust=given["trust_model"]),
        settings=tuple(given["settings"] or ()),
        removal=given["removal"] or "auto",
        value_range=ends(given["value_range"]),
        **{name: given[name] for name in same},
        **more,
    )


def said(now: Progress) -> str:
    """How far a run is, in words."""
    words = f"{now.done:,} of {now.total:,} films"
    if now.before:
        words += f" ({now.before:,} by earlier runs)"
    if now.failed:
        words += f", {now.failed:,} not explained"
    if now.rate:
        words += f", {now.rate:.1f} a minute"
    if now.left:
        words += f", {_time(now.left)} left"
    return words


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
