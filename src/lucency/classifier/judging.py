"""What the outputs of a model are, judged by how it makes them and by what they were on several pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lucency.classifier.base import Outputs
from lucency.errors import ModelError

Auto = Literal["auto"]
FULL = 30.0
"""Logits from which on a probability is 0 or 1 in float32, by a wide margin."""
SQUASHES = ("softmax", "sigmoid", "log-sigmoid")
"""Last steps whose outputs are no logits. Those of a log-softmax are, up to a number that all classes share."""


@dataclass(frozen=True)
class Judgement:
    """What the outputs are taken for, and the sentences that say so where nobody had said it."""

    outputs: Outputs
    exclusive: bool
    notices: tuple[str, ...]


def judged(
    outputs: Outputs | Auto,
    exclusive: bool | Auto,
    seen: Tensor | None,
    last: str | None,
    classes: int,
    dtype: torch.dtype,
    name: str,
) -> Judgement:
    """What the outputs are.

    Args:
        outputs, exclusive: what the caller says; ``"auto"`` is judged.
        seen: float32 ``[N, K]`` or ``[N, K, *space]`` on N pictures; ``None`` where none could be had.
        last: what kind of step made them, if that is known.
        classes: how many class names there are.
        dtype: the precision of the model.

    Raises:
        ModelError: when they cannot be what the caller says.
    """
    if last in ("topk", "sort"):
        raise ModelError(
            f"{name} gives its scores in order of size, so that nothing tells which belongs to which class; give them "
            "as they are."
        )
    facts = None if seen is None else _Facts.of(seen, dtype)
    notices: list[str] = []
    said = outputs
    if outputs == "auto":
        outputs, apart, why = _kind(facts, last)
        notices.append(why)
    else:
        apart = _apart(outputs, facts)
        if facts is not None:
            notices += _doubts(outputs, facts, last, name)
    if facts is not None and outputs == "logits" and max(-facts.low, facts.high) > FULL:
        notices.append(
            f"Outputs reach {max(facts.low, facts.high, key=abs):.3g}, where a probability is full; say "
            "outputs='numbers' if they are measurements."
        )
    if facts is not None and facts.columns == 1:
        # One output stands for a class and its opposite.
        return Judgement(outputs, False, tuple(notices))
    if exclusive == "auto":
        settled = apart is not None or classes < 2 or outputs == "numbers"
        exclusive = classes > 1 if apart is None else apart
        if not settled:
            notices.append(
                "Classes taken to exclude each other (softmax), as nothing tells; say exclusive=False if several can "
                "hold at once."
            )
    elif exclusive and said == "auto" and apart is False and classes > 1:
        notices.append("The classes were said to exclude each other, but their probabilities do not add up to 1.")
    return Judgement(outputs, exclusive, tuple(notices))


@dataclass(frozen=True)
class _Facts:
    """What is true of the outputs on all pictures."""

    columns: int
    low: float
    high: float
    within: bool
    sums: bool
    logs: bool
    count: int

    @classmethod
    def of(cls, seen: Tensor, dtype: torch.dtype) -> _Facts:
        slack = 1e-4 if dtype in (torch.float32, torch.float64) else 2e-2
        low, high, several = float(seen.min()), float(seen.max()), seen.shape[1] > 1
        return cls(
            columns=seen.shape[1],
            low=low,
            high=high,
            within=low >= -slack and high <= 1 + slack,
            sums=several and low >= -slack and bool(((seen.sum(1) - 1).abs() <= slack).all()),
            logs=several and high <= slack and bool((seen.logsumexp(1).abs() <= slack).all()),
            count=len(seen),
        )


def _kind(facts: _Facts | None, last: str | None) -> tuple[Outputs, bool | None, str]:
    """What outputs are, whether their classes exclude each other if that shows, and a sentence why."""
    if facts is None:
        return (
            "logits",
            None,
            "Outputs taken for logits without a look, as no picture went through without input_size=; say outputs= if "
            "they are probabilities.",
        )
    on = f"on {facts.count} pictures"
    if facts.sums:
        why = "the last step is a softmax" if last == "softmax" else f"they add up to 1 over the classes {on}"
        return "probabilities", True, f"Outputs taken for probabilities of classes that exclude each other: {why}."
    if facts.logs:
        return (
            "log-probabilities",
            True,
            f"Outputs taken for logarithms of probabilities: their exponentials add up to 1 over the classes {on}.",
        )
    if last == "softmax" and facts.columns == 1:
        return (
            "probabilities",
            False,
            "The last step is a softmax over a single number, which is always 1, so nothing can be explained by it; "
            "take it off the network.",
        )
    if last == "sigmoid" and facts.within:
        each = "" if facts.columns == 1 else " of classes that do not exclude each other"
        return "probabilities", False, f"Outputs taken for probabilities{each}: the last step is a sigmoid."
    if last == "log-sigmoid" and facts.high <= 0:
        return "log-probabilities", False, "Outputs taken for logarithms of probabilities: the last step says so."
    if last == "linear":
        return "logits", None, "Outputs taken for logits: the last step is a linear layer or a convolution."
    if facts.within:
        return (
            "probabilities",
            False,
            f"Outputs taken for probabilities, as all lay within 0 and 1 {on} ({facts.low:.3g} to {facts.high:.3g}), "
            "which is not certain; say outputs='logits' if they are logits.",
        )
    sure = "" if last is None and facts.low < 0 else ", which is not certain; say outputs= what they are"
    made = "" if last is None else f" and the last step is {last!r}"
    return (
        "logits",
        None,
        f"Outputs taken for logits, as some lay outside 0 to 1 {on} ({facts.low:.3g} to {facts.high:.3g}){made}{sure}.",
    )


def _apart(outputs: Outputs, facts: _Facts | None) -> bool | None:
    """Whether classes exclude each other, where the numbers show it."""
    if outputs == "numbers":
        return False
    if facts is None or outputs == "logits":
        return None
    return facts.sums if outputs == "probabilities" else facts.logs


def _doubts(outputs: Outputs, facts: _Facts, last: str | None, name: str) -> list[str]:
    """What speaks against what the caller says."""
    if outputs == "probabilities" and not facts.within:
        raise ModelError(
            f"{name} was said to give probabilities and gave {facts.low:.3g} to {facts.high:.3g}; say outputs='logits'."
        )
    if outputs == "log-probabilities" and facts.high > 1e-2:
        raise ModelError(
            f"{name} was said to give logarithms of probabilities and gave up to {facts.high:.3g}; "
            "say outputs='logits'."
        )
    if outputs == "logits" and (facts.sums or last in SQUASHES):
        looks = (
            f"the last step is a {last}" if last in SQUASHES else "they add up to 1 over the classes on every picture"
        )
        return [f"The outputs were said to be logits, but {looks}: they look squashed already; try outputs='auto'."]
    return []
