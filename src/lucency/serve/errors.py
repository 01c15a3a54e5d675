"""What the service says beside the errors of the library."""

from __future__ import annotations

from lucency.errors import LucencyError


class NotThereError(LucencyError):
    """What a request names does not exist; 404."""


class BusyError(LucencyError):
    """A queue is full; 429.

    Attributes:
        seconds: when to try again.
    """

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message)
        self.seconds = seconds

    def __reduce__(self) -> tuple[type[BusyError], tuple[str, int]]:
        return type(self), (str(self), self.seconds)


class TooLargeError(LucencyError):
    """More bytes than are taken; 413."""


class StoppedError(LucencyError):
    """The server is stopping; 503."""
