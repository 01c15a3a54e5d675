"""Which films are explained; what is not, has a reason in words."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pydicom import Dataset

UNKNOWN = "UNKNOWN"
"""Stands in a rule for a header that says nothing."""
RADIOGRAPHS = ("CR", "DX")
CHEST = ("CHEST", "THORAX", "LUNG", UNKNOWN)


@dataclass(frozen=True)
class Rules:
    """What a header must say for its film to be explained.

    Attributes:
        modalities: such as ``CR``, ``DX``.
        views: such as ``PA``, ``AP``; any when empty. A model that has learnt from frontal films refuses lateral ones
            itself, see ``doubtful``.
        body_parts: such as ``CHEST``; any when empty, and for a model that has learnt from chest films ``CHEST``,
            ``THORAX``, ``LUNG`` and films that do not say. ``UNKNOWN`` stands for these.
        doubtful: whether films are explained that cannot be what the model reads, as far as it knows that; the doubt
            stands on the result then.
    """

    modalities: Collection[str] = RADIOGRAPHS
    views: Collection[str] = ()
    body_parts: Collection[str] = ()
    doubtful: bool = False

    def refusal(self, header: Dataset, *, chest: bool = False) -> str:
        """Why a film is not explained, in one sentence; empty when it is.

        Args:
            header: the film's dataset; its pixels are not looked at.
            chest: whether the model has learnt from chest films.
        """
        if word(header, "Manufacturer") == "LUCENCY":
            return "It is a result of Lucency's own, not a film."
        if "Rows" not in header or "Columns" not in header:
            return "It holds no picture."
        if (number := word(header, "NumberOfFrames")) not in (UNKNOWN, "0", "1"):
            return f"It holds {number} frames, not a single film."
        if word(header, "PresentationIntentType") == "FOR PROCESSING":
            return "It is a raw film, FOR PROCESSING; the one for presentation is explained."
        parts = self.body_parts or (CHEST if chest else ())
        for what, wanted, found in (
            ("modality", self.modalities, word(header, "Modality")),
            ("view", self.views, word(header, "ViewPosition")),
            ("body part", parts, word(header, "BodyPartExamined")),
        ):
            if wanted and found not in {one.upper() for one in wanted}:
                return f"Its {what} is {found}, not {' or '.join(wanted)}."
        return ""


def word(header: Dataset, keyword: str) -> str:
    """What the header says, in capitals and on one line; ``UNKNOWN`` where it says nothing."""
    try:
        said = str(header.get(keyword) or "").upper()
    except Exception:
        # pydicom decodes when it is asked, and what strangers wrote may raise anything.
        said = ""
    return " ".join("".join(c if c.isprintable() else " " for c in said).split())[:64] or UNKNOWN
