"""The films that came and are not done with: each a file, whole and on the disk before anybody is told."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lucency.errors import OutputError
from lucency.writing import reason, whole


class Inbox:
    """A folder of films and of what is derived from them; readable by its owner only.

    Args:
        folder: made when missing.

    Raises:
        OutputError: when it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for name in ("films", "results"):
                (folder / name).mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise OutputError(f"{folder} cannot be made ({reason(error)}); choose another --folder.") from error

    def film(self, key: str) -> Path:
        """Where the film of a key lies."""
        return self.folder / "films" / key[:2] / f"{key}.dcm"

    def results(self, key: str) -> Path:
        """The folder of what is derived from it."""
        return self.folder / "results" / key[:2] / key

    def keep(self, key: str, data: bytes) -> None:
        """Writes a film, whole or not at all; when it returns, it has survived.

        Raises:
            OutputError: when it cannot be written.
        """
        path = self.film(key)
        try:
            path.parent.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise OutputError(f"{path.parent} cannot be made ({reason(error)}); free space.") from error
        with whole(path) as part:
            part.write_bytes(data)

    def clear(self, key: str) -> None:
        """Takes a film and its results away; what is gone is gone."""
        with suppress(FileNotFoundError):
            self.film(key).unlink()
        shutil.rmtree(self.results(key), ignore_errors=True)

    def films(self) -> Iterator[str]:
        """The keys of the films that lie there."""
        for path in sorted((self.folder / "films").glob("??/*.dcm")):
            yield path.stem


def key_of(sop_instance: str, question: str) -> str:
    """What one film and one question are found by."""
    return hashlib.sha256(f"{sop_instance}\n{question}".encode()).hexdigest()[:32]
