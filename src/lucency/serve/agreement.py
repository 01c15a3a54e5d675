"""What several maps of one film agree on."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from lucency.errors import ParameterError
from lucency.render.agreement import agreement
from lucency.serve.common import Shop
from lucency.serve.schemas import Id

router = APIRouter(tags=["explanations"])


class AgreementWanted(BaseModel):
    """Two to eight explanations of one scan."""

    model_config = ConfigDict(extra="forbid")

    explanations: Annotated[list[Id], Field(min_length=2, max_length=8)]


class Agreement(BaseModel):
    """What they agree on, in one sentence."""

    text: str


@router.post("/agreement")
def agreed(wanted: AgreementWanted, shop: Shop) -> Agreement:
    """How many of the maps have their top in common, where, and how much of it."""
    scans = {shop.store.record(name)["scan"] for name in wanted.explanations}
    if len(scans) > 1:
        raise ParameterError("The explanations are of different scans; maps agree only on one film.")
    return Agreement(text=agreement([shop.store.explanation(name) for name in wanted.explanations]))
