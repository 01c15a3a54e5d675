"""Explanations: asked for, shown, taken along."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from typing import Annotated, Any

import anyio.to_thread
import numpy as np
from fastapi import APIRouter, Path, Response
from fastapi.responses import JSONResponse

from lucency.render import save_animation, save_overlay, save_report
from lucency.render.report import AskedByHand
from lucency.serve.benches import Asked
from lucency.serve.common import BINARY, Shop, User
from lucency.serve.errors import NotThereError
from lucency.serve.schemas import Ask, Box, EvaluateWanted, ExplanationWanted, Id, JobAbout, KeptQuestion, Record
from lucency.serve.workshop import Prepared, Workshop, place_on_film
from lucency.viewer import pack
from lucency.viewer import packed as packed_for_viewer
from lucency.writing import whole

router = APIRouter(tags=["explanations"])

FILES = {
    "report.html": "text/html; charset=utf-8",
    "overlay.png": "image/png",
    "animation.mp4": "video/mp4",
    "animation.webp": "image/webp",
    "animation.gif": "image/gif",
    "explanation.lucency": BINARY,
}


async def prepared(shop: Workshop, wanted: ExplanationWanted, user: str) -> Prepared:
    """A question that fits; asks what is most probable where no class is named."""
    asked = Asked(**wanted.model_dump(exclude={"wait"}))
    probabilities: dict[str, float] = {}
    if asked.target is None:
        future = await anyio.to_thread.run_sync(shop.scores, asked.scan, asked.model, user)
        probabilities = (await asyncio.wrap_future(future))["probabilities"]
    return await anyio.to_thread.run_sync(shop.prepare, asked, probabilities)


@router.post("/explanations", response_model=Record | JobAbout, responses={202: {"model": JobAbout}})
async def explain(wanted: ExplanationWanted, shop: Shop, user: User) -> Any:
    """Asks for a map: 200 with the record, or 202 with a job where it is not waited for."""
    question = await prepared(shop, wanted, user)
    if not wanted.wait and await anyio.to_thread.run_sync(shop.store.find_explanation, question.name) is None:
        job = await anyio.to_thread.run_sync(shop.backlog.add, question, user)
        return JSONResponse(job.model_dump(), 202)
    future = await anyio.to_thread.run_sync(shop.explain, question, user)
    name = await asyncio.wrap_future(future)
    return Record(**await anyio.to_thread.run_sync(shop.store.record, name))


@router.get("/explanations/{explanation}")
def record(explanation: Id, shop: Shop) -> Record:
    """An explanation without its arrays."""
    return Record(**shop.store.record(explanation))


@router.get("/explanations/{explanation}/timeline", response_class=Response, responses={200: {"content": {BINARY: {}}}})
def timeline(explanation: Id, shop: Shop) -> Response:
    """The kept moments of the run, packed, for scrubbing.

    Arrays: ``heatmap`` float32 ``[N, h, w]``, ``perturbed`` uint8 ``[N, h, w]`` (grey), and ``reaction`` and ``also``
    float32 where the method has them. Header: ``frames``, each with done, evaluations, score, point, number, telling
    and odd (the perturbed scan is off the distribution that the model knows); ``scores``, ``points``; ``place``.
    """
    recording, found = shop.recording(explanation), shop.store.explanation(explanation)
    arrays: dict[str, Any] = {"perturbed": recording.perturbed}
    for which in ("heatmap", "reaction", "also"):
        if (maps := recording.maps(which)) is not None:
            values, units = maps
            arrays[which] = values.astype(np.float32) * units.reshape(-1, *[1] * (values.ndim - 1))
    also = recording.frames[-1].also
    header = {
        "frames": [
            {
                "done": f.done,
                "evaluations": f.evaluations,
                "score": f.score,
                "point": f.point,
                "number": f.number,
                "telling": f.telling,
                "odd": f.perturbed.settle().odd,
            }
            for f in recording.frames
        ],
        "scores": recording.scores,
        "points": recording.points,
        "also": None if also is None else also[0],
        "place": place_on_film(found),
    }
    return Response(pack(header, arrays), media_type=BINARY, headers=_FIXED)


@router.get("/explanations/{explanation}/packed", response_class=Response, responses={200: {"content": {BINARY: {}}}})
def packed(explanation: Id, shop: Shop) -> Response:
    """Everything that the viewer shows of an explanation, packed."""
    found = packed_for_viewer(shop.store.explanation(explanation))
    return Response(found, media_type=BINARY, headers=_FIXED)


@router.get("/explanations/{explanation}/{file}", response_class=Response)
def taken(explanation: Id, file: Annotated[str, Path(examples=list(FILES))], shop: Shop) -> Response:
    """The report, the picture, the animation or the explanation as a file."""
    if file not in FILES:
        raise NotThereError(f"An explanation has {', '.join(FILES)}, and no {file!r:.40}.")
    path = shop.store.place(explanation) / file
    found = shop.store.explanation(explanation)
    # The report holds the questions that were kept, which may have changed.
    if file == "report.html" or not path.exists():
        with whole(path) as part:
            match file.partition(".")[0]:
                case "overlay":
                    save_overlay(found, part)
                case "animation":
                    save_animation(found, shop.recording(explanation), part)
                case "report":
                    film = shop.store.place(explanation) / "animation.webp"
                    if not film.exists():
                        with whole(film) as other:
                            save_animation(found, shop.recording(explanation), other)
                    save_report(found, part, animation=film, asked=_asked(shop, shop.store.record(explanation)))
    body = path.read_bytes()
    headers = {"Content-Disposition": f'attachment; filename="{file}"'}
    if file == "report.html":
        headers = {"Content-Disposition": f'inline; filename="{file}"', "Content-Security-Policy": policy_for(body)}
    return Response(body, media_type=FILES[file], headers=headers)


def _asked(shop: Workshop, record: dict[str, Any]) -> list[AskedByHand]:
    """The questions by hand that were kept about the scan and the model of an explanation."""
    kept = [KeptQuestion.model_validate(row) for row in shop.store.questions(record["scan"])]
    return [
        AskedByHand(
            in_words(one.ask),
            one.answer.clean[record["target"]],
            one.answer.perturbed[record["target"]],
            one.answer.out_of_distribution,
            one.note,
        )
        for one in kept
        if one.ask.model == record["model"]
    ]


def in_words(ask: Ask) -> str:
    """``"removed: rectangle, rows 300 to 380, columns 100 to 180"``."""
    region = ask.remove or ask.keep
    assert region is not None
    name, shape = next((name, value) for name, value in region if value is not None)
    where = name
    if isinstance(shape, Box):
        (top, bottom), (left, right) = shape.rows, shape.columns
        where = f"{name}, rows {top:.0f} to {bottom:.0f}, columns {left:.0f} to {right:.0f}"
    elif isinstance(shape, int):
        where = f"superpixel {shape}"
    elif name == "mask":
        where = "a drawn region"
    return f"{'removed' if ask.remove else 'kept alone'}: {where}"


def policy_for(page: bytes) -> str:
    """A policy under which a page that carries everything in itself works: its own scripts run, and nothing else."""
    scripts = re.findall(rb"<script(?:\s+type=\"(?:module|importmap)\")?>(.*?)</script>", page, re.DOTALL)
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s).digest()).decode()}'" for s in scripts) or "'none'"
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "media-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "sandbox allow-scripts allow-downloads"
    )


@router.post("/evaluate")
async def evaluation(wanted: EvaluateWanted, shop: Shop, user: User) -> JSONResponse:
    """Takes the scan apart in the order of the map and watches the score: curves with their areas."""
    future = await anyio.to_thread.run_sync(shop.evaluate, wanted, user)
    return JSONResponse(await asyncio.wrap_future(future))


_FIXED = {"Cache-Control": "private, max-age=86400"}
"""For what a name that is a hash of its content stands for."""
