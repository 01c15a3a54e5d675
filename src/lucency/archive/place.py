"""The place where results lie: a folder, or whatever fsspec has a URL for. Each file is there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

from filelock import Timeout

from lucency.errors import MissingExtraError, OutputError
from lucency.writing import alone, reason, swept, synced, unusable, whole


class Place:
    """Files below one folder or URL.

    Args:
        where: a path, ``file:///...``, or another URL that fsspec knows (``s3://bucket/run``, ``memory://run``).

    Raises:
        MissingExtraError: when the URL needs a package that is not installed.
        OutputError: when fsspec does not know such URLs.
    """

    def __init__(self, where: str | Path) -> None:
        text = os.fspath(where)
        self.name = text
        self.folder: Path | None = None
        self._remote: Any = None
        self._root = ""
        scheme, separator, rest = text.partition("://")
        if not separator:
            self.folder = Path(text)
        elif scheme == "file":
            self.folder = Path(unquote(rest))
        else:
            self._remote, self._root = _remote(text)

    def __str__(self) -> str:
        return self.name

    @contextmanager
    def held(self) -> Iterator[None]:
        """Makes the place and holds it for this run alone; on an object store nobody can hold anything.

        Raises:
            OutputError: when it cannot be made, or another run holds it.
        """
        if self.folder is None:
            yield
            return
        try:
            if unusable(self.folder):
                raise ValueError("no such name can be")
            self.folder.mkdir(parents=True, exist_ok=True)
            swept(self.folder)
            lock = alone(self.folder / ".lucency-archive.lock")
            lock.__enter__()
        except Timeout as error:
            raise OutputError(f"Another run writes to {self}; wait for it, or choose another place.") from error
        except (OSError, ValueError) as error:
            raise OutputError(f"{self} cannot be written ({reason(error)}); choose another place.") from error
        try:
            yield
        finally:
            lock.__exit__(None, None, None)

    def names(self, folder: str) -> list[str]:
        """The names of the files in a folder of the place, sorted; none where there is no such folder."""
        if self.folder is not None:
            try:
                with os.scandir(self.folder / folder) as found:
                    return sorted(one.name for one in found if one.is_file() and not one.name.startswith("."))
            except (FileNotFoundError, NotADirectoryError):
                return []
            except (OSError, ValueError) as error:
                raise OutputError(f"{self} cannot be read ({reason(error)}); check it.") from error
        with self._said("read"):
            self._remote.invalidate_cache()
            try:
                return sorted(str(name).rpartition("/")[2] for name in self._remote.ls(self._at(folder), detail=False))
            except FileNotFoundError:
                return []
        raise AssertionError

    def read(self, name: str) -> bytes:
        """The whole of a file.

        Raises:
            FileNotFoundError: when there is none.
            OutputError: when it cannot be read.
        """
        if self.folder is not None:
            try:
                return (self.folder / name).read_bytes()
            except (FileNotFoundError, NotADirectoryError) as error:
                raise FileNotFoundError(name) from error
            except (OSError, ValueError) as error:
                raise OutputError(f"{self.folder / name} cannot be read ({reason(error)}); check it.") from error
        with self._said("read"):
            found: bytes = self._remote.cat_file(self._at(name))
            return found
        raise AssertionError

    def opened(self, name: str) -> IO[bytes]:
        """A file to read from, here and there; for the columns that somebody wants of a large file."""
        if self.folder is not None:
            try:
                return (self.folder / name).open("rb")
            except OSError as error:
                raise OutputError(f"{self.folder / name} cannot be read ({reason(error)}); check it.") from error
        return BytesIO(self.read(name))

    def size(self, name: str) -> int:
        """Bytes of a file; -1 where there is none."""
        if self.folder is not None:
            try:
                return (self.folder / name).stat().st_size
            except OSError:
                return -1
        with self._said("read"):
            try:
                return int(self._remote.size(self._at(name)))
            except FileNotFoundError:
                return -1
        raise AssertionError

    def write(self, name: str, data: bytes) -> None:
        """Writes a file, whole or not at all, and waits until the disk has it.

        Raises:
            OutputError: when that does not go.
        """
        if self.folder is not None:
            path = self.folder / name
            try:
                if not path.parent.is_dir():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    synced(self.folder)
            except OSError as error:
                raise OutputError(f"{self} cannot be written ({reason(error)}); choose another place.") from error
            with whole(path) as part:
                part.write_bytes(data)
            return
        with self._said("written"):
            self._remote.makedirs(self._at(name).rpartition("/")[0], exist_ok=True)
            self._remote.pipe_file(self._at(name), data)

    def remove(self, name: str) -> None:
        """Takes a file away, if it is there and can be."""
        with suppress(Exception):
            if self.folder is not None:
                (self.folder / name).unlink()
            else:
                self._remote.rm_file(self._at(name))

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    @contextmanager
    def _said(self, what: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:  # each store has errors of its own
            raise OutputError(
                f"{self} cannot be {what} ({reason(error)}); check the address and the access."
            ) from error


def _remote(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError as error:
        raise MissingExtraError(f"{url} needs fsspec; run pip install 'lucency[archive]'.") from error
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingExtraError(f"{url} needs one more package ({error}).") from error
    except Exception as error:
        raise OutputError(f"{url} is no place that can be written to ({reason(error)}); give a folder.") from error
    return found
