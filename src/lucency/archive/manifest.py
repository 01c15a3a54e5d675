"""What is done: from the content of a film to its row.

A place holds ``archive.json`` (the question), ``shards/N.parquet`` (rows and maps) and ``manifest/N.jsonl``, which is
written after the shard and makes it count: a shard without one was being written when the run was stopped. A manifest
names for each of its rows the film's place (hashed), its state, its content and whether it was answered. So nothing has
to be read again to go on, and nothing counts twice.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from lucency.archive.asked import hash_of
from lucency.archive.place import Place
from lucency.archive.rows import FORMAT, Row, digest_of, map_of, table
from lucency.errors import OutputError

HEAD, SHARDS, MANIFEST = "archive.json", "shards", "manifest"


@dataclass(frozen=True)
class Entry:
    """What a manifest says of one row."""

    key: str
    state: str
    content: str
    status: str


@dataclass(frozen=True)
class Shard:
    """A shard that counts."""

    name: str
    size: int
    digest: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Counts:
    """How many films a place knows.

    Attributes:
        done: with an answer.
        same: whose bytes are those of another film.
        failed: without an answer, and with a sentence why.
        wrong: rows whose map is not what was written; found only when asked for.
    """

    done: int
    same: int
    failed: int
    wrong: int = 0


def head(place: Place) -> dict[str, Any]:
    """The question of a place, the shape of its maps, and the version that began it.

    Raises:
        OutputError: when there are no results.
    """
    try:
        found = json.loads(place.read(HEAD))
        if found["format"] != FORMAT:
            raise OutputError(
                f"{place} was begun by another version of Lucency ({found.get('lucency', 'unknown')}), whose rows have "
                "other columns; go on with that version, or run the archive into another place."
            )
        return dict(found)
    except FileNotFoundError as error:
        raise OutputError(
            f"{place} holds no results of `lucency archive run`; give the place that it wrote."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{place}/{HEAD} is damaged; restore it, or run the archive into another place.") from error


def shards(place: Place) -> Iterator[Shard]:
    """The shards that count, in the order in which they were written."""
    for name in place.names(MANIFEST):
        if name.endswith(".jsonl") and (found := _shard(place, name)) is not None:
            yield found


def _shard(place: Place, name: str) -> Shard | None:
    """``None`` for a manifest that a store has kept half of, or whose shard is gone."""
    try:
        first, *rest = place.read(f"{MANIFEST}/{name}").decode().splitlines()
        about = json.loads(first)
        entries = tuple(Entry(*json.loads(line)) for line in rest)
        found = Shard(str(about["shard"]), int(about["bytes"]), str(about["sha256"]), entries)
        if about["rows"] != len(entries) or found.name != name.replace(".jsonl", ".parquet"):
            return None
    except (ValueError, KeyError, TypeError, FileNotFoundError):
        return None
    return found if place.size(f"{SHARDS}/{found.name}") == found.size else None


class Manifest:
    """What is done at a place, for a run that goes on with it.

    Args:
        place: held by this run.
        question: what is asked; another one than the place's is refused.
        grid: the shape of all maps.
        again: films without an answer are tried once more.

    Raises:
        OutputError: when the place holds answers to another question, or cannot be used.
    """

    def __init__(self, place: Place, question: dict[str, Any], grid: Sequence[int], *, again: bool = False) -> None:
        self.place = place
        self.question = hash_of(question)
        self.grid = tuple(grid)
        # 16 bytes each of hashes: some 90 MB for each million of films and kind.
        self._states: set[bytes] = set()
        self._pairs: set[bytes] = set()
        self._contents: set[bytes] = set()
        self._next = 0
        if place.size(HEAD) < 0 and not place.names(MANIFEST):
            about = {
                "format": FORMAT,
                "question": question,
                "hash": self.question,
                "grid": list(self.grid),
                "lucency": version("lucency"),
            }
            place.write(HEAD, (json.dumps(about, indent=1) + "\n").encode())
        elif (found := head(place))["hash"] != self.question:
            raise OutputError(
                f"{place} holds the answers to another question ({_differs(found['question'], question)}); "
                "choose another place."
            )
        known = set()
        for shard in shards(place):
            known.add(shard.name)
            self._next = max(self._next, int(shard.name.partition("-")[0]) + 1)
            for entry in shard.entries:
                if not (again and entry.status == "failed"):
                    self._keep(entry)
        for name in place.names(SHARDS):
            if name not in known:
                place.remove(f"{SHARDS}/{name}")

    def knows(self, key: str, state: str) -> bool:
        """Whether the film at this place, in this state, has its row."""
        return _short(key, state) in self._states

    def names(self, key: str, content: str) -> bool:
        """Whether the film at this place, with this content, has its row."""
        return _short(key, content) in self._pairs

    def has(self, content: str) -> bool:
        """Whether some film with this content has its row."""
        return bytes.fromhex(content)[:16] in self._contents

    def commit(self, rows: Sequence[Row]) -> None:
        """Writes a shard and makes it count.

        Raises:
            OutputError: when it cannot be written; it then does not count.
        """
        name = f"{self._next:08d}-{secrets.token_hex(4)}"
        self._next += 1
        file = BytesIO()
        made = table(rows, self.grid)
        plain = [column for column in made.column_names if column not in ("picture", "map")]
        parquet.write_table(made, file, compression="zstd", use_dictionary=plain, row_group_size=64)
        data = file.getvalue()
        entries = [Entry(row.key, row.state, row.content, row.status) for row in rows]
        about = {
            "shard": f"{name}.parquet",
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "rows": len(rows),
            "question": self.question,
        }
        lines = [json.dumps(about), *(json.dumps([e.key, e.state, e.content, e.status]) for e in entries)]
        self.place.write(f"{SHARDS}/{name}.parquet", data)
        self.place.write(f"{MANIFEST}/{name}.jsonl", ("\n".join(lines) + "\n").encode())
        for entry in entries:
            self._keep(entry)

    def _keep(self, entry: Entry) -> None:
        self._states.add(_short(entry.key, entry.state))
        if entry.content:
            self._pairs.add(_short(entry.key, entry.content))
            self._contents.add(bytes.fromhex(entry.content)[:16])


def _short(*words: str) -> bytes:
    return hashlib.blake2b("\0".join(words).encode(), digest_size=16).digest()


def _differs(one: dict[str, Any], other: dict[str, Any]) -> str:
    """What is different between two questions, in a few words."""
    named = {name: (one.get(name), other.get(name)) for name in {*one, *other} if one.get(name) != other.get(name)}
    said = []
    for name in sorted(named):
        before, now = (value.get("name", "") if isinstance(value, dict) else value for value in named[name])
        said.append(f"{name} {before}, not {now}" if before != now else f"other parameters of the {name}")
    return "; ".join(said)[:200] or "it is damaged"


def outdated(place: Place) -> set[tuple[str, int]]:
    """Rows without an answer that gave way to a later row of the same film: shard and number."""
    failed: dict[str, tuple[str, int]] = {}
    gone: set[tuple[str, int]] = set()
    for shard in shards(place):
        for number, entry in enumerate(shard.entries):
            for name in filter(None, (entry.content, entry.key)):
                if name in failed:
                    gone.add(failed.pop(name))
            if entry.status == "failed":
                failed |= dict.fromkeys(filter(None, (entry.content, entry.key)), (shard.name, number))
    return gone


def counts(place: Place | str, *, check: bool = False) -> Counts:
    """How many films a place knows.

    Args:
        check: read every map and compare it with its checksum.

    Raises:
        OutputError: when there are no results, or they cannot be read.
    """
    where = place if isinstance(place, Place) else Place(place)
    grid = head(where)["grid"]
    gone = outdated(where)
    found = dict.fromkeys(("done", "same", "failed"), 0)
    wrong = 0
    for shard in shards(where):
        for number, entry in enumerate(shard.entries):
            found[entry.status] += (shard.name, number) not in gone
        if check:
            wrong += _wrong(where, shard, grid)
    return Counts(**found, wrong=wrong)


def _wrong(place: Place, shard: Shard, grid: Sequence[int]) -> int:
    wrong = 0
    try:
        for batch in batches(place, shard, ("digest", "map")):
            maps = batch.column("map").storage
            for i, digest in enumerate(batch.column("digest").to_pylist()):
                wrong += digest is not None and digest_of(map_of(maps[i].values.to_numpy(), grid)) != digest
    except OutputError:
        return sum(entry.status == "done" for entry in shard.entries)
    return wrong


def batches(
    place: Place, shard: Shard, columns: Sequence[str] | None = None, size: int = 64
) -> Iterator[pa.RecordBatch]:
    """The rows of a shard, some at a time.

    Raises:
        OutputError: when it is damaged.
    """
    try:
        with place.opened(f"{SHARDS}/{shard.name}") as file, parquet.ParquetFile(file) as opened:
            yield from opened.iter_batches(size, columns=None if columns is None else list(columns))
    except (pa.ArrowException, OSError) as error:
        said = next(iter(str(error).splitlines()), "no reason given")
        raise OutputError(f"{place}/{SHARDS}/{shard.name} is damaged ({said}); restore it from a copy.") from error
