"""What was opened, and the questions that were kept."""

from __future__ import annotations

import asyncio
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Query

from lucency.serve.common import Shop, User
from lucency.serve.schemas import Id, KeptQuestion, Opened, Question, Worklist

router = APIRouter(tags=["worklist"])


@router.get("/worklist")
def worklist(shop: Shop) -> Worklist:
    """What was opened, newest first."""
    return Worklist.model_validate({"entries": shop.store.worklist()})


@router.put("/worklist")
def opened(wanted: Opened, shop: Shop) -> Worklist:
    """Puts a scan on top with how it is looked at, or takes it off."""
    if wanted.listed:
        shop.store.open(wanted.scan, wanted.look)
    else:
        shop.store.unlist(wanted.scan)
    return worklist(shop)


@router.get("/questions")
def questions(shop: Shop, scan: Annotated[Id | None, Query()] = None) -> list[KeptQuestion]:
    """The questions by hand that were kept, oldest first; of one scan, or all."""
    return [KeptQuestion.model_validate(row) for row in shop.store.questions(scan)]


@router.post("/questions")
async def keep(question: Question, shop: Shop, user: User) -> KeptQuestion:
    """Asks a question by hand and keeps it with its answer, for the report."""
    future = await anyio.to_thread.run_sync(shop.ask, question.ask)
    answer = await asyncio.wrap_future(future)
    record = {"ask": question.ask.model_dump(), "answer": answer.model_dump(), "note": question.note}
    name = shop.name_of({"question": record["ask"]})
    await anyio.to_thread.run_sync(shop.store.add_question, name, question.ask.scan, record)
    kept = await anyio.to_thread.run_sync(shop.store.questions, question.ask.scan)
    return next(KeptQuestion.model_validate(row) for row in kept if row["id"] == name)


@router.delete("/questions/{question}", status_code=204)
def forget(question: Id, shop: Shop) -> None:
    """Takes a question off the list."""
    shop.store.forget_question(question)
