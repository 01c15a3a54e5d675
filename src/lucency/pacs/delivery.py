"""What it means to send: what can become of files, and what can go wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lucency.errors import LucencyError


class UnreachableError(LucencyError):
    """The other side is away, busy or full, or lets nobody in: everything may go well later."""


class NotKeptError(LucencyError):
    """The other side failed on these very objects, or said that it keeps them and does not: they may go well later."""


class RefusedError(LucencyError):
    """The other side will not have it, and asking again changes nothing."""


@dataclass(frozen=True)
class Delivery:
    """What became of files that were sent.

    Attributes:
        kept: the SOP instance UIDs that the other side holds.
        left_out: why it takes others not, by the names of their files: kinds of object that it has no use for.
        verified: whether it was asked and has said that it holds each; ``False`` where it cannot be asked.
    """

    kept: tuple[str, ...]
    left_out: Mapping[str, str]
    verified: bool


class Destination(Protocol):
    """Somewhere to send DICOM files to."""

    @property
    def name(self) -> str:
        """How it is called in messages; no secret is in it."""

    def deliver(self, files: Sequence[Path]) -> Delivery:
        """Sends files and reads back that they are there.

        Raises:
            UnreachableError: when nobody answers, or it is full.
            NotKeptError: when it fails, or what it took is not there.
            RefusedError: when it will not have them.
        """
