"""What a server is told when it starts."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from lucency.errors import ParameterError


@dataclass(frozen=True)
class Settings:
    """What a server is told when it starts; nothing in a request changes any of it.

    Attributes:
        folder: where scans, results and the databases lie; made when missing.
        host, port: where to listen; port 0 takes a free one.
        names: further names by which browsers reach the server, such as ``lucency.hospital.example``.
        tokens: the token of each user by name, hashed (:func:`lucency.serve.security.hashed`).
        device, seed: see :class:`~lucency.engine.Engine`.
        anonymous: keep a hash in place of the names of files.
        database: URL of the database; SQLite in ``folder`` when empty.
        most_bytes: the largest file, or folder of slices, that is taken.
        most_pixels: the largest scan.
        decode_seconds, decode_bytes: time and memory for reading one upload.
        waiting: how many questions may wait for a device in all, and ``waiting_each`` of one user.
        longest: seconds after which a run is stopped with the map so far.
        pacs: the folder of a listener (``lucency pacs listen``), or the URL of the database of its jobs; the page shows
            its worklist. None when empty.
        window: seconds that a small question waits for others to share its forward pass.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8000
    names: tuple[str, ...] = ()
    tokens: dict[str, str] = field(default_factory=dict)
    device: str = "auto"
    seed: int = 0
    anonymous: bool = False
    database: str = ""
    most_bytes: int = 2**29
    most_pixels: int = 2**26
    decode_seconds: float = 30.0
    decode_bytes: int = 2 * 2**30
    waiting: int = 64
    waiting_each: int = 16
    longest: float = 600.0
    pacs: str = ""
    window: float = 0.003

    def __post_init__(self) -> None:
        if not self.loopback and not self.tokens:
            raise ParameterError(
                f"A server at {self.host} can be reached by others, so it needs a token: make one with "
                "`lucency serve --new-token NAME`, or set LUCENCY_TOKEN; 127.0.0.1 needs none."
            )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
