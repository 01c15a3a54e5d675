"""What a server keeps: scans, results, the worklist and the questions asked, in a database with files beside it.

SQLite by default, PostgreSQL by its URL. A file is there, whole, before the row that names it. Names of scans and of
explanations are hashes that the server made; nothing that came with a request becomes part of a path.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sql
import torch

from lucency.errors import OutputError
from lucency.explanation import Explanation
from lucency.scan import Scan
from lucency.serve.errors import NotThereError
from lucency.writing import whole

_TABLES = sql.MetaData()
_SCANS = sql.Table(
    "scans",
    _TABLES,
    sql.Column("id", sql.String(64), primary_key=True),
    sql.Column("opened", sql.String(40), nullable=False, index=True),
    sql.Column("listed", sql.Boolean, nullable=False),
    sql.Column("about", sql.JSON, nullable=False),
    sql.Column("view", sql.JSON, nullable=False),
)
_EXPLANATIONS = sql.Table(
    "explanations",
    _TABLES,
    sql.Column("id", sql.String(64), primary_key=True),
    sql.Column("scan", sql.String(64), nullable=False, index=True),
    sql.Column("made", sql.String(40), nullable=False),
    sql.Column("record", sql.JSON, nullable=False),
)
_QUESTIONS = sql.Table(
    "questions",
    _TABLES,
    sql.Column("id", sql.String(64), primary_key=True),
    sql.Column("scan", sql.String(64), nullable=False, index=True),
    sql.Column("made", sql.String(40), nullable=False),
    sql.Column("record", sql.JSON, nullable=False),
)
_ANSWERS = sql.Table(
    "answers",
    _TABLES,
    sql.Column("id", sql.String(64), primary_key=True),
    sql.Column("scan", sql.String(64), nullable=False, index=True),
    sql.Column("record", sql.JSON, nullable=False),
)


class Store:
    """The database and the folder of one server. Threads may share it.

    Args:
        folder: made when missing, readable by its owner only.
        url: of the database; a file in ``folder`` when empty.

    Raises:
        OutputError: when either cannot be used.
    """

    def __init__(self, folder: Path, url: str = "") -> None:
        self.folder = folder
        try:
            for part in (folder, folder / "scans", folder / "explanations"):
                part.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not url:
                # Names of films may be in it, and the folder may have been there before.
                os.close(os.open(folder / "lucency.sqlite", os.O_CREAT | os.O_RDWR, 0o600))
            place = sql.make_url(url or f"sqlite:///{(folder / 'lucency.sqlite').absolute()}")
            if place.get_backend_name() == "postgresql":
                # The driver that the jobs bring along; SQLAlchemy's own choice may be another.
                place = place.set(drivername="postgresql+psycopg")
            self._engine = sql.create_engine(place)
            if self._engine.dialect.name == "sqlite":
                sql.event.listen(self._engine, "connect", _prepared)
            _TABLES.create_all(self._engine)
        except (OSError, sql.exc.SQLAlchemyError, ModuleNotFoundError) as error:
            why = str(error).partition("\n")[0]
            if url:
                shown = url.partition("://")[0] + "://" + url.rpartition("@")[2].partition("?")[0]
                raise OutputError(f"The server cannot use the database {shown} ({why}); check --database.") from error
            raise OutputError(f"The server cannot keep anything in {folder} ({why}); choose another --data.") from error

    def close(self) -> None:
        """Lets the database go."""
        self._engine.dispose()

    # Scans -----------------------------------------------------------------------------------------------------------

    def add_scan(self, scan: Scan, about: Mapping[str, Any], truth: torch.Tensor | None = None) -> str:
        """Keeps a scan, and the truth ``[*spatial]`` of a phantom, and puts it on top of the worklist."""
        name = scan.sha256
        for suffix, array in (("", scan.pixels), (".truth", truth)):
            path = self.folder / "scans" / f"{name}{suffix}.npy"
            if array is not None and not path.exists():
                with whole(path) as part, part.open("wb") as file:
                    np.save(file, array.numpy())
        now = _now()
        with self._engine.begin() as db:
            known = db.execute(sql.select(_SCANS.c.id).where(_SCANS.c.id == name)).first()
            if known is None:
                db.execute(_SCANS.insert().values(id=name, opened=now, listed=True, about=dict(about), view={}))
            else:
                db.execute(
                    _SCANS.update().where(_SCANS.c.id == name).values(opened=now, listed=True, about=dict(about))
                )
        return name

    def about_scan(self, name: str) -> dict[str, Any]:
        """What is known of a scan.

        Raises:
            NotThereError: when there is none of that name.
        """
        with self._engine.connect() as db:
            row = db.execute(sql.select(_SCANS.c.about).where(_SCANS.c.id == name)).first()
        if row is None:
            raise NotThereError("There is no such scan; open its file again.")
        return dict(row.about)

    def scan(self, name: str) -> Scan:
        """A scan as it was read.

        Raises:
            NotThereError: when there is none of that name.
        """
        about = self.about_scan(name)
        pixels = self._array(f"{name}.npy")
        spacing = about["spacing"]
        return Scan(
            torch.from_numpy(pixels),
            tuple(about["value_range"]),
            None if spacing is None else tuple(spacing),
            about["title"],
            tuple(about["notices"]),
            about["view"],
            about["modality"],
        )

    def truth(self, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        """What a phantom shows where, float32 ``[*spatial]``.

        Raises:
            NotThereError: when the scan is no phantom.
        """
        if not self.about_scan(name)["truth"]:
            raise NotThereError("The truth of this scan is not known; only phantoms have one.")
        return self._array(f"{name}.truth.npy")

    def _array(self, file: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        try:
            found: np.ndarray[Any, np.dtype[np.float32]] = np.load(self.folder / "scans" / file, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise NotThereError("The pixels of this scan are gone; open its file again.") from error
        return found

    def forget_scan(self, name: str) -> None:
        """Deletes a scan with everything that was found out about it.

        Raises:
            NotThereError: when there is none of that name.
        """
        self.about_scan(name)
        with self._engine.begin() as db:
            rows = db.execute(sql.select(_EXPLANATIONS.c.id).where(_EXPLANATIONS.c.scan == name)).all()
            for table in (_EXPLANATIONS, _QUESTIONS, _ANSWERS):
                db.execute(table.delete().where(table.c.scan == name))
            db.execute(_SCANS.delete().where(_SCANS.c.id == name))
        for row in rows:
            shutil.rmtree(self.folder / "explanations" / row.id, ignore_errors=True)
        for suffix in ("", ".truth"):
            (self.folder / "scans" / f"{name}{suffix}.npy").unlink(missing_ok=True)

    # The worklist ----------------------------------------------------------------------------------------------------

    def worklist(self) -> list[dict[str, Any]]:
        """What was opened, newest first, with the explanations of each."""
        with self._engine.connect() as db:
            scans = db.execute(sql.select(_SCANS).where(_SCANS.c.listed).order_by(_SCANS.c.opened.desc())).all()
            made = db.execute(sql.select(_EXPLANATIONS.c.id, _EXPLANATIONS.c.scan).order_by(_EXPLANATIONS.c.made)).all()
        of: dict[str, list[str]] = {}
        for row in made:
            of.setdefault(row.scan, []).append(row.id)
        return [
            {**row.about, "opened": row.opened, "look": row.view, "explanations": of.get(row.id, [])} for row in scans
        ]

    def open(self, name: str, view: Mapping[str, Any] | None) -> None:
        """Puts a scan on top of the worklist, with how it was last looked at."""
        self.about_scan(name)
        new: dict[str, Any] = {"opened": _now(), "listed": True}
        if view is not None:
            new["view"] = dict(view)
        with self._engine.begin() as db:
            db.execute(_SCANS.update().where(_SCANS.c.id == name).values(**new))

    def unlist(self, name: str) -> None:
        """Takes a scan off the worklist and keeps it."""
        self.about_scan(name)
        with self._engine.begin() as db:
            db.execute(_SCANS.update().where(_SCANS.c.id == name).values(listed=False))

    # Explanations ----------------------------------------------------------------------------------------------------

    def place(self, name: str) -> Path:
        """The folder of an explanation, which the server named."""
        return self.folder / "explanations" / name

    def add_explanation(self, name: str, scan: str, explanation: Explanation, record: Mapping[str, Any]) -> None:
        """Keeps an explanation: the file first, then the row."""
        self.place(name).mkdir(exist_ok=True, mode=0o700)
        explanation.save(self.place(name) / "explanation.lucency")
        with self._engine.begin() as db:
            db.execute(_EXPLANATIONS.delete().where(_EXPLANATIONS.c.id == name))
            db.execute(_EXPLANATIONS.insert().values(id=name, scan=scan, made=_now(), record=dict(record)))

    def find_explanation(self, name: str) -> dict[str, Any] | None:
        """The record of an explanation, if there is one of that name."""
        with self._engine.connect() as db:
            row = db.execute(sql.select(_EXPLANATIONS.c.record).where(_EXPLANATIONS.c.id == name)).first()
        return None if row is None else dict(row.record)

    def record(self, name: str) -> dict[str, Any]:
        """The record of an explanation.

        Raises:
            NotThereError: when there is none of that name.
        """
        found = self.find_explanation(name)
        if found is None:
            raise NotThereError("There is no such explanation; ask for it again.")
        return found

    def explanation(self, name: str) -> Explanation:
        """An explanation as it was saved.

        Raises:
            NotThereError: when there is none of that name.
        """
        self.record(name)
        try:
            return Explanation.load(self.place(name) / "explanation.lucency")
        except OutputError as error:
            raise NotThereError("The file of this explanation is gone; ask for it again.") from error

    # Questions -------------------------------------------------------------------------------------------------------

    def add_question(self, name: str, scan: str, record: Mapping[str, Any]) -> None:
        """Keeps a question that a person asked by hand, with its answer."""
        with self._engine.begin() as db:
            db.execute(_QUESTIONS.delete().where(_QUESTIONS.c.id == name))
            db.execute(_QUESTIONS.insert().values(id=name, scan=scan, made=_now(), record=dict(record)))

    def questions(self, scan: str | None = None) -> list[dict[str, Any]]:
        """The questions that were kept, oldest first."""
        wanted = sql.select(_QUESTIONS).order_by(_QUESTIONS.c.made)
        if scan is not None:
            wanted = wanted.where(_QUESTIONS.c.scan == scan)
        with self._engine.connect() as db:
            return [{"id": row.id, "made": row.made, **row.record} for row in db.execute(wanted)]

    def forget_question(self, name: str) -> None:
        """Takes a question off the list.

        Raises:
            NotThereError: when there is none of that name.
        """
        with self._engine.begin() as db:
            if not db.execute(_QUESTIONS.delete().where(_QUESTIONS.c.id == name)).rowcount:
                raise NotThereError("There is no such question.")

    # Small answers, by what was asked --------------------------------------------------------------------------------

    def answer(self, name: str) -> dict[str, Any] | None:
        """A number or table that was computed before."""
        with self._engine.connect() as db:
            row = db.execute(sql.select(_ANSWERS.c.record).where(_ANSWERS.c.id == name)).first()
        return None if row is None else dict(row.record)

    def add_answer(self, name: str, scan: str, record: Mapping[str, Any]) -> None:
        """Keeps it."""
        with self._engine.begin() as db:
            db.execute(_ANSWERS.delete().where(_ANSWERS.c.id == name))
            db.execute(_ANSWERS.insert().values(id=name, scan=scan, record=dict(record)))

    def alive(self) -> bool:
        """Whether the database answers."""
        try:
            with self._engine.connect() as db:
                db.execute(sql.select(1))
        except sql.exc.SQLAlchemyError:
            return False
        return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _prepared(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # Readers do not wait for a writer, and what was committed outlives a killed process.
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA busy_timeout=10000")
    cursor.close()
