"""What came, what went, what failed and why: the listener's list of work, for whoever looks at it from outside."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from lucency.jobs import Job, JobError, Store

NAME, EXPLAIN, SEND = "pacs", "explain", "send"
"""Whose jobs they are, and the two kinds, which are names of queue and function alike."""
Came = Literal["waiting", "explaining", "not explained", "to send", "sending", "sent", "failed", "cancelled"]


def place_of(folder: str | Path, jobs: str | None = None) -> str | Path:
    """Where the jobs of a folder lie."""
    return jobs or Path(folder) / "jobs.db"


def sending(film: str) -> str:
    """The key of the job that sends what was derived from a film."""
    return f"{film}.send"


@dataclass(frozen=True)
class Row:
    """What became of one film.

    Attributes:
        film: its key in this list.
        state: ``waiting``, ``explaining``, ``not explained`` (the rules, or the model, say no), ``to send``,
            ``sending``, ``sent``, ``failed`` or ``cancelled``.
        why: why it is not explained, why it failed, or why it is not sent yet; one sentence, or empty.
        came, changed: when it came and when something happened last; in UTC.
        sop_instance, study, series: its identifiers; of the film, also where results leave without the patient.
        modality, view, body_part: what its header says.
        caller: the title that sent it.
        target, probability: the class that is explained, and the model's probability.
        done: share of the explanation, 0 to 1.
        kept: how many objects the destination holds; ``left_out`` of which kinds it takes none, and why.
        verified: whether it was asked afterwards and has them.
        tries: how often sending has failed so far; ``again`` when it is tried next.
    """

    film: str
    state: Came
    why: str
    came: datetime
    changed: datetime
    sop_instance: str = ""
    study: str = ""
    series: str = ""
    modality: str = ""
    view: str = ""
    body_part: str = ""
    caller: str = ""
    target: str = ""
    probability: float | None = None
    done: float = 0.0
    kept: int = 0
    left_out: dict[str, str] = field(default_factory=dict)
    verified: bool = False
    tries: int = 0
    again: str = ""


class Worklist:
    """The list of work of a listener, whether it runs or not.

    Args:
        folder: the listener's.
        jobs: the URL of its database, where that is not in the folder.

    Raises:
        JobError: when there is none.
    """

    def __init__(self, folder: str | Path, jobs: str | None = None) -> None:
        self._store = Store(place_of(folder, jobs), NAME)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.close()

    def rows(self, *, state: str | None = None, most: int | None = None) -> list[Row]:
        """The films, the newest first."""
        sent = {job.id: job for job in self._store.jobs(function=SEND)}
        found = [_row(job, sent.get(sending(job.id))) for job in self._store.jobs(function=EXPLAIN)]
        return [row for row in found if state in (None, row.state)][:most]

    def counts(self) -> dict[str, int]:
        """How many films are in each state."""
        return dict(Counter(row.state for row in self.rows()))

    def retry(self, film: str | None = None) -> list[str]:
        """Tries a failed or cancelled film again, or all of them; those that are.

        Args:
            film: its key, or as much of its beginning as tells it from the others.

        Raises:
            JobError: when no film that has failed is named so, or several are.
        """
        failed = [row.film for row in self.rows() if row.state in ("failed", "cancelled")]
        tried = [one for one in failed if one.startswith(film or "")]
        if film is not None and len(tried) != 1:
            raise JobError(f"{len(tried)} of the films that failed are named {film}; lucency pacs status lists them.")
        for one in tried:
            explained = self._store.job(one).state == "done"
            self._store.retry(sending(one) if explained else one)
        return tried


def worklist(folder: str | Path, *, jobs: str | None = None, most: int | None = None) -> list[Row]:
    """What came of each film that a listener received, the newest first; see :class:`Worklist`.

    Raises:
        JobError: when no listener has ever used the folder.
    """
    with Worklist(folder, jobs) as found:
        return found.rows(most=most)


_FIRST: dict[str, Came] = {
    "waiting": "waiting", "running": "explaining", "done": "to send", "failed": "failed", "cancelled": "cancelled",
}  # fmt: skip
_SECOND: dict[str, Came] = {
    "waiting": "to send", "running": "sending", "done": "sent", "failed": "failed", "cancelled": "cancelled",
}  # fmt: skip


def _row(film: Job, sent: Job | None) -> Row:
    found: dict[str, Any] = film.result or {}
    now: Job = sent or film
    state = _SECOND[sent.state] if sent is not None else _FIRST[film.state]
    if "refused" in found:
        state = "not explained"
    delivery: dict[str, Any] = (sent.result if sent is not None else None) or {}
    return Row(
        film=film.id,
        state=state,
        why=found.get("refused") or now.error or str(now.progress.get("error", "")),
        came=film.created,
        changed=now.updated,
        caller=film.arguments.get("caller", ""),
        **{name: found.get(name, "") for name in ("sop_instance", "study", "series", "modality", "view", "body_part")},
        target=found.get("target", ""),
        probability=found.get("probability"),
        done=1.0 if film.state == "done" else float(film.progress.get("done", 0.0)),
        kept=len(delivery.get("kept", ())),
        left_out=delivery.get("left_out", {}),
        verified=bool(delivery.get("verified")),
        tries=int(now.progress.get("attempt", 0)),
        again=str(now.progress.get("again", "")),
    )
