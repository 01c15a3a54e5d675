"""The application: every route, the page's files, and what lives as long as the server does.

HTTP under ``/api/v1`` (``/api/v1/openapi.json`` describes it), live maps under ``/api/v1/live``, Prometheus under
``/metrics``, the page at ``/``, its files under ``/static/`` and the viewer's under ``/viewer/``.

Beyond what was agreed between page and service:

- Errors are ``{"error": one sentence, "kind"}``; a full queue is 429 with ``Retry-After``.
- ``POST gallery/{name}`` opens an entry of the gallery; ``GET scans/{id}`` tells about a scan, ``DELETE`` forgets it.
- ``POST scans`` takes ``?frame=``, ``?window=``, ``?low=&high=``. The header ``X-Filename`` is percent-encoded
  (``encodeURIComponent``). A folder of slices has the content type ``application/x-lucency-folder``: uint32 N
  (little-endian), N bytes of JSON ``{"sizes": [...]}``, then the files one after another.
- Packed films, truths and superpixels call their array ``data``, ``data`` and ``labels``; ``GET scans/{id}/film`` takes
  ``?slice=`` for volumes.
- ``GET methods``: ``type`` is integer, number, boolean, choice, text, list, length (16 or "15mm"), removal or
  superpixels; ``optional`` parameters may be null; ``above`` stands for an exclusive minimum. ``parameters`` in a
  request are plain JSON values; a removal with parameters of its own is ``{"name", "parameters"}``.
- ``GET jobs`` lists jobs; a job is ``{"job", "state": waiting, running, done, failed or cancelled, "done", "seconds",
  "left", "evaluations", "explanation", "error"}``; its events are named by the state and carry the same.
- ``POST ask`` takes boxes as ``{"rows": [from, to], "columns": [from, to]}`` in pixels of the film, a mask as
  ``{"width", "height", "bits": base64}`` or ``{"width", "height", "runs": [zeros, ones, ...]}``, and
  ``{"superpixel": number}``.
- ``PUT worklist`` takes ``{"scan", "look": anything that brings the view back, "listed"}``; ``POST questions`` takes
  ``{"ask": {...as POST ask...}, "note"}``, answers and keeps it; ``DELETE questions/{id}``.
- Live: ``{"type": "done", "run", "explanation", "cancelled"}``; a question that was answered before is done at once,
  and its timeline is there to be replayed. A second start on a socket ends the first run.
- With tokens, the page logs in by ``POST /login``, which sets a cookie; all else sends ``Authorization: Bearer``.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import sqlalchemy.exc
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.staticfiles import StaticFiles

import lucency.viewer
from lucency.classifier import Classifier
from lucency.errors import LucencyError
from lucency.serve import agreement, ask, backlog, explanations, live, pacs, scans, worklist
from lucency.serve.ask import ByHand
from lucency.serve.backlog import Backlog
from lucency.serve.benches import Benches
from lucency.serve.logs import Counted
from lucency.serve.metrics import Metrics
from lucency.serve.problems import answered
from lucency.serve.schemas import Problem
from lucency.serve.security import COOKIE, Guard, whose
from lucency.serve.settings import Settings
from lucency.serve.store import Store
from lucency.serve.turns import Turns
from lucency.serve.workshop import Workshop

if TYPE_CHECKING:
    from lucency.serve.on_ray import Replicas

PAGE = Path(__file__).with_name("page")
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": words}
    for status, words in {
        400: "Not HTTP as it should be", 401: "A token is needed", 403: "Another page asked", 404: "Not there",
        413: "Too large", 421: "Another server is meant", 422: "Cannot be used", 429: "Too many wait",
        501: "A package is missing", 503: "Stopping", 507: "The disk is full",
    }.items()
}  # fmt: skip


def create_app(settings: Settings, classifiers: Sequence[Classifier], elsewhere: Replicas | None = None) -> FastAPI:
    """The application of one server.

    Args:
        classifiers: those that may be asked, the first is the page's own choice.
        elsewhere: what computes in place of this process; it is closed with the application.

    Raises:
        LucencyError: one of the family, when folder, database or classifiers cannot be used.
    """
    metrics = Metrics()
    store = Store(settings.folder, settings.database)
    benches = Benches(settings, classifiers)
    if elsewhere is None:
        turns = Turns("lucency-device", settings.waiting, settings.waiting_each)
        shop = Workshop(settings, benches, benches, turns, ByHand(benches, turns, metrics.asked), store, metrics)
    else:
        shop = Workshop(settings, benches, elsewhere, elsewhere.lines, elsewhere, store, metrics)
    shop.backlog = Backlog(shop, settings)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=shop.reader.warm, daemon=True).start()
        try:
            yield
        finally:
            shop.backlog.close()
            shop.close()
            if elsewhere is not None:
                elsewhere.close()
            store.close()

    app = FastAPI(
        title="Lucency",
        description="Why a classifier read a scan as it did. Research software, not a medical device.",
        version=version("lucency"),
        openapi_url="/api/v1/openapi.json",
        # The usual pages load their scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        lifespan=life,
        middleware=[Middleware(Counted, metrics=metrics), Middleware(Guard, settings=settings)],
        responses=PROBLEMS,
    )
    app.state.workshop = shop
    handled: tuple[type[Exception], ...] = (
        LucencyError, HTTPException, RequestValidationError, ValidationError, OSError, MemoryError, RuntimeError,
        sqlalchemy.exc.SQLAlchemyError, Exception,
    )  # fmt: skip
    for kind in handled:
        app.add_exception_handler(kind, answered)
    for part in (scans, explanations, agreement, backlog, ask, worklist, pacs, live):
        app.include_router(part.router, prefix="/api/v1")
    app.include_router(_state(shop, settings))
    viewer = Path(lucency.viewer.__file__).with_name("static")
    app.mount("/viewer", StaticFiles(directory=viewer, check_dir=False))
    app.mount("/static", StaticFiles(directory=PAGE, check_dir=False))
    return app


def _state(shop: Workshop, settings: Settings) -> APIRouter:
    router = APIRouter(tags=["server"])

    @router.get("/", include_in_schema=False)
    def page() -> Response:
        index = PAGE / "index.html"
        return HTMLResponse(index.read_bytes() if index.exists() else b"<!doctype html><title>Lucency</title>")

    @router.post("/login", include_in_schema=False)
    async def log_in(request: Request) -> Response:
        token = parse_qs((await request.body()).decode("utf-8", "replace")).get("token", [""])[0].strip()
        if whose(settings, token) is None:
            sentence = "That token is not known; ask whoever runs this server for one."
            return JSONResponse({"error": sentence, "kind": "RefusedError"}, 401)
        known = Response(status_code=204)
        known.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=request.url.scheme == "https")
        return known

    @router.get("/api/v1/health")
    def health() -> dict[str, str]:
        """Whether the process lives."""
        return {"status": "alive", "version": version("lucency")}

    @router.get("/api/v1/ready")
    def ready() -> Response:
        """Whether it can answer: 200, or 503."""
        well = shop.store.alive() and shop.turns.alive
        return Response("ready" if well else "not ready", 200 if well else 503, media_type="text/plain")

    @router.get("/metrics", include_in_schema=False)
    def counted() -> Response:
        shop.metrics.waiting.set(len(shop.turns))
        return Response(shop.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router
