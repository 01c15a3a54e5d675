"""Writing files whole or not at all, in places of one's own, so that no run can harm another's results.

Everything is written in a stage: a folder ``.lucency-…`` beside its destination, whose lock the operating system holds
for as long as the process lives. The stage of a process that was killed is cleared by the next one that writes there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lucency.errors import OutputError

MANIFEST = "lucency.json"
FORMAT = "lucency-results-1"
_NEW, _OLD, _PLAN = "new", "old", "plan.json"


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A file to write to, which becomes ``path`` when all went well and vanishes when not.

    Raises:
        OutputError: when it cannot be written.
    """
    path = Path(path)
    try:
        with stage(path.parent) as place:
            part = place / path.name
            # A place that cannot be written is found out before the work, and not by a writer that says it badly.
            part.touch()
            yield part
            synced(part)
            part.replace(path)
            synced(path.parent)
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) and not unusable(path):
            raise
        raise OutputError(f"{path} cannot be written ({reason(error)}); free space or choose another place.") from error


def unusable(path: Path) -> bool:
    """Whether the operating system has no such names: with a zero byte, or that cannot be encoded."""
    try:
        return b"\0" in os.fsencode(path)
    except UnicodeEncodeError:
        return True


def reason(error: Exception) -> str:
    """Why something could not be written, in a few words."""
    said = str(error)
    # NumPy counts bytes where the disk is full: "262144 requested and 16352 written".
    if " requested and " in said:
        return "No space left on device"
    named = error.strerror if isinstance(error, OSError) else None
    return named or next(iter(said.splitlines()), "no reason given")


def synced(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        if path.is_dir():  # not everywhere can folders be opened
            return
        raise
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(handle)


@contextmanager
def stage(folder: Path) -> Iterator[Path]:
    """An empty folder inside ``folder`` for this process alone; it is gone afterwards, whatever happened.

    Raises:
        OSError: when there can be none.
    """
    if not folder.is_dir():  # before the lock makes it
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    swept(folder)
    with ExitStack() as held:
        place = None
        while place is None:
            place = folder / f".lucency-{secrets.token_hex(5)}"
            try:
                held.enter_context(_locked(_lock_of(place), wait=False))
            except Timeout:
                # Somebody who sweeps was there between the making of the lock and the holding of it.
                place = None
        try:
            place.mkdir()
            yield place
        finally:
            if not _halfway(place):
                shutil.rmtree(place, ignore_errors=True)


def _halfway(place: Path) -> bool:
    """Whether its files were on their way into the folder when it stopped."""
    return (place / _PLAN).exists() and (place / _OLD).exists()


def swept(folder: Path) -> None:
    """Clears the stages whose processes have died, and ends what they had begun to move in."""
    if any(folder.glob(".lucency-*.lock")):
        with suppress(OSError), _locked(_door(folder)):
            _swept(folder)


def _swept(folder: Path) -> None:
    for lock in sorted(folder.glob(".lucency-*.lock")):
        place = lock.with_suffix("")
        with suppress(Timeout, OSError, ValueError, KeyError, TypeError), _locked(lock, wait=False):
            if _halfway(place):
                _moved_in(place, folder)
            shutil.rmtree(place, ignore_errors=True)


def _door(folder: Path) -> Path:
    """The lock of whoever moves files into the folder."""
    return folder / ".lucency.lock"


def _lock_of(place: Path) -> Path:
    return place.with_name(f"{place.name}.lock")


@contextmanager
def _locked(file: Path, *, wait: bool = True) -> Iterator[None]:
    """Holds a lock, and leaves no file behind; the death of the process releases it too.

    Raises:
        Timeout: when somebody else holds it and ``wait`` is false.
    """
    with FileLock(file, blocking=wait):
        try:
            yield
        finally:
            # While it is held: whoever waits sees that this name is gone and makes it anew.
            with suppress(OSError):
                file.unlink()


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Holds a lock for a longer piece of work.

    Raises:
        Timeout: at once, when another process holds it.
        OSError: when the lock cannot be made.
    """
    with _locked(file, wait=False):
        yield


@dataclass
class Results:
    """Files of one run on their way into a folder.

    Attributes:
        place: where to write them.
        replaced: names of files that they took the place of.
        removed: names of files of an earlier run of the same command that has no successor in this one.
    """

    place: Path
    replaced: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


@contextmanager
def results(folder: Path, of: str) -> Iterator[Results]:
    """A place to write files to, which move into ``folder`` together when all of them are there.

    A file ``lucency.json`` is written last: for each command the SHA-256 of what its last run left. What the last run
    of this command left goes; other files are replaced only by one of the same name. Runs that end at the same time
    follow each other, and one that is killed while it moves files in is ended by the next.

    Args:
        of: the command.

    Raises:
        OutputError: when the folder cannot be made or written; it is then as it was before.
    """
    missing = [] if unusable(folder) else [one for one in (folder, *folder.parents) if not os.path.lexists(one)]
    done = False
    try:
        with ExitStack() as held:
            place = _entered(held, folder)
            found = Results(place / _NEW)
            found.place.mkdir()
            yield found
            with _locked(_door(folder)):
                # One that died with its files halfway in goes first.
                _swept(folder)
                _planned(found, place, folder, of)
                try:
                    _moved_in(place, folder)
                except BaseException:
                    _moved_back(place, folder)
                    raise
                done = True
                (place / _PLAN).unlink()
    except OutputError as error:
        # The user named the folder, and never saw the place inside it.
        raise OutputError(str(error).replace(str(found.place), str(folder))) from error
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) and not unusable(folder):
            raise
        raise OutputError(
            f"The results cannot be written to {folder} ({reason(error)}); free space or name another folder with "
            "--out."
        ) from error
    finally:
        if not done:
            for one in missing:
                # Only what is empty: somebody else may have come to like the place.
                with suppress(OSError):
                    one.rmdir()


def _entered(held: ExitStack, folder: Path) -> Path:
    for _ in range(5):
        folder.mkdir(parents=True, exist_ok=True)
        # Another run that made the folder, and failed, may take it away again just now.
        with suppress(FileNotFoundError):
            return held.enter_context(stage(folder))
    return held.enter_context(stage(folder))


def _planned(found: Results, place: Path, folder: Path, of: str) -> None:
    """Decides what goes and writes the new manifest, both into the stage."""
    mine = {file.name: digest_of(file) for file in sorted(found.place.iterdir())}
    runs = manifest(folder)
    before = runs.get(of, {})
    for name in mine:
        there = folder / name
        if there.is_dir() and not there.is_symlink():
            raise OutputError(f"{there} is a folder, where a file is to be; move it or name another --out.")
        if os.path.lexists(there):
            found.replaced.append(name)
    # What somebody has changed since is theirs.
    found.removed = [
        name
        for name, digest in before.items()
        if name not in mine and (folder / name).is_file() and digest_of(folder / name) == digest
    ]
    others = {run: {n: d for n, d in files.items() if n not in mine} for run, files in runs.items() if run != of}
    record = {"format": FORMAT, "runs": {**{run: files for run, files in others.items() if files}, of: mine}}
    (found.place / MANIFEST).write_text(json.dumps(record, indent=1) + "\n")
    away = [*([MANIFEST] if os.path.lexists(folder / MANIFEST) else []), *found.removed, *found.replaced]
    (place / _PLAN).write_text(json.dumps({"names": [*mine, MANIFEST], "away": away}))
    for file in (*found.place.iterdir(), place / _PLAN):
        synced(file)
    (place / _OLD).mkdir()
    synced(place)


def _moved_in(place: Path, folder: Path) -> None:
    """Takes the old files away and puts the new ones there; goes on from wherever it was stopped."""
    new, old = place / _NEW, place / _OLD
    plan = json.loads((place / _PLAN).read_text())
    if any(Path(name).name != name for name in (*plan["away"], *plan["names"])):
        raise ValueError(f"{place / _PLAN} is not a plan that Lucency wrote.")
    for name in plan["away"]:
        waits = (new / name).exists() or name not in plan["names"]
        if waits and not os.path.lexists(old / name) and os.path.lexists(folder / name):
            (folder / name).replace(old / name)
    for name in plan["names"]:
        if (new / name).exists():
            (new / name).replace(folder / name)
    synced(folder)


def _moved_back(place: Path, folder: Path) -> None:
    new, old = place / _NEW, place / _OLD
    for name in json.loads((place / _PLAN).read_text())["names"]:
        if not (new / name).exists():
            (folder / name).replace(new / name)
    for file in list(old.iterdir()):
        file.replace(folder / file.name)
    old.rmdir()


def manifest(folder: Path) -> dict[str, dict[str, str]]:
    """The files that the last run of each command left, with their SHA-256; empty where nothing can be read."""
    try:
        record: Any = json.loads((folder / MANIFEST).read_text())
        runs = record["runs"] if record["format"] == FORMAT else {}
        return {
            str(run): {str(n): str(d) for n, d in files.items() if n not in ("", ".", "..") and Path(n).name == n}
            for run, files in runs.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def digest_of(file: Path) -> str:
    """The SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
