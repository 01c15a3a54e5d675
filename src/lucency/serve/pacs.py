"""The worklist of a listener beside a PACS: what came, what went, what failed and why, and once more."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from lucency.jobs import JobError
from lucency.serve.common import Shop
from lucency.serve.errors import NotThereError

if TYPE_CHECKING:
    from lucency.pacs.worklist import Worklist

router = APIRouter(tags=["pacs"])
State = Literal["waiting", "explaining", "not explained", "to send", "sending", "sent", "failed", "cancelled"]
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{1,64}$")]


class Film(BaseModel):
    """What became of one film. Nothing here tells whose it is.

    Attributes:
        film: its key.
        why: why it is not explained, failed, or is not sent yet.
        again: when sending is tried next, after so many ``tries``.
        left_out: of which kinds of objects the destination takes none, and why.
    """

    model_config = ConfigDict(from_attributes=True)

    film: str
    state: State
    why: str
    came: datetime
    changed: datetime
    modality: str
    view: str
    target: str
    probability: float | None
    done: float
    kept: int
    left_out: dict[str, str]
    verified: bool
    tries: int
    again: str


class Received(BaseModel):
    """The films of the listener, the newest first.

    Attributes:
        listener: whether the server was told of one.
        notice: why there are none; empty where there are.
        counts: how many films are in each state.
    """

    listener: bool
    notice: str = ""
    counts: dict[str, int] = {}
    films: list[Film] = []


class RetryWanted(BaseModel):
    """Which film is tried again, by its key; all that failed or were cancelled when ``None``."""

    model_config = ConfigDict(extra="forbid")

    film: Key | None = None


class Retried(BaseModel):
    """The films that are tried again."""

    films: list[str]


def listed(place: str) -> Worklist:
    """The worklist of a listener.

    Args:
        place: its folder, or the URL of the PostgreSQL database that holds its jobs.

    Raises:
        MissingExtraError: when what a listener needs is not installed.
        JobError: when no listener has used the place.
    """
    from lucency.pacs.worklist import Worklist

    return Worklist(Path(), place) if "://" in place else Worklist(place)


@router.get("/pacs")
def received(
    shop: Shop, state: Annotated[State | None, Query()] = None, most: Annotated[int, Query(ge=1, le=1000)] = 50
) -> Received:
    """What came, what went, what failed and why; ``most`` films at the most, those in one ``state`` or all."""
    place = shop.settings.pacs
    if not place:
        return Received(listener=False)
    try:
        with listed(place) as found:
            return Received(
                listener=True,
                counts=found.counts(),
                films=[Film.model_validate(row) for row in found.rows(state=state, most=most)],
            )
    except JobError:
        return Received(listener=True, notice="No listener has begun there yet; start lucency pacs listen.")


@router.post("/pacs/retry")
def retry(wanted: RetryWanted, shop: Shop) -> Retried:
    """Tries again what failed or was cancelled; a listener that runs takes it up, or the next one."""
    place = shop.settings.pacs
    if not place:
        raise NotThereError("This server knows of no listener; start it with --pacs DIR.")
    with listed(place) as found:
        return Retried(films=found.retry(wanted.film))
