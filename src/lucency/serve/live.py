"""A map while it is made, over a WebSocket.

A frame goes out only when the one before was acknowledged, and it is always the newest: a slow watcher sees fewer, not
older ones, and the method never waits for anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from typing import Any

import anyio.to_thread
import numpy as np
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import ValidationError
from torch import Tensor

from lucency.methods import Step
from lucency.removal.surrogate import hatched
from lucency.serve.benches import Watching
from lucency.serve.common import Shop, User
from lucency.serve.explanations import prepared
from lucency.serve.problems import said, sentence_of
from lucency.serve.schemas import ExplanationWanted
from lucency.serve.workshop import Prepared, Workshop, place_of
from lucency.viewer import pack

router = APIRouter()

RATE = 1 / 40
"""Seconds between two frames at least."""
MEANT = "A message is a JSON object of the type start, ack or cancel."
MESSAGE = 2**20
"""The longest message that is read."""


class Newest:
    """One place for the newest step, filled by one thread and emptied by the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._there = asyncio.Event()
        self._step: tuple[Step, float] | None = None

    def put(self, step: Step, seconds: float) -> None:
        """From any thread; what was there before is dropped."""
        self._step = (step, seconds)
        # The loop is gone when the server stops.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._there.set)

    async def get(self) -> tuple[Step, float]:
        """The newest, once."""
        await self._there.wait()
        self._there.clear()
        found = self._step
        assert found is not None
        return found


class Watched:
    """One run that one person watches."""

    def __init__(self, socket: WebSocket, shop: Workshop, user: str, run: int) -> None:
        self.run = run
        self.cancel = threading.Event()
        self.acknowledged = asyncio.Event()
        self.acknowledged.set()
        self.sent = 0
        self._socket, self._shop, self._user = socket, shop, user

    async def go(self, wanted: ExplanationWanted) -> None:
        """Until the map is there, the run failed, or nobody watches any more."""
        sending: asyncio.Task[None] | None = None
        self._shop.metrics.live.inc()
        try:
            question = await prepared(self._shop, wanted, self._user)
            newest = Newest()
            watching = Watching(newest.put, RATE, self.cancel)
            future = await anyio.to_thread.run_sync(self._shop.explain, question, self._user, watching)
            sending = asyncio.create_task(self._send(question, newest))
            name = await asyncio.wrap_future(future)
            await self._say({"type": "done", "run": self.run, "explanation": name, "cancelled": self.cancel.is_set()})
        except WebSocketDisconnect:
            pass
        except Exception as error:
            await self._say({"type": "error", "run": self.run, "message": sentence_of(error)})
            said(error)
        finally:
            self._shop.metrics.live.dec()
            self.cancel.set()
            if sending is not None:
                sending.cancel()

    async def _say(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await self._socket.send_text(json.dumps(message))

    async def _send(self, question: Prepared, newest: Newest) -> None:
        while True:
            await self.acknowledged.wait()
            began = time.perf_counter()
            step, seconds = await newest.get()
            data = await anyio.to_thread.run_sync(self._frame, question, step, seconds)
            self.acknowledged.clear()
            await self._socket.send_bytes(data)
            await asyncio.sleep(max(0.0, RATE - (time.perf_counter() - began)))

    def _frame(self, question: Prepared, step: Step, seconds: float) -> bytes:
        self.sent += 1
        method, explainer = question.explainer.fitted(question.scan)[0], question.explainer
        frame = explainer.classifier.placement(question.scan)
        arrays: dict[str, np.ndarray[Any, Any]] = {
            "heatmap": _plain(step.heatmap()),
            "perturbed": _film(step.perturbed()),
        }
        if step.reaction is not None:
            arrays["reaction"] = _plain(step.reaction())
        header = {
            "type": "step",
            "run": self.run,
            "frame": self.sent,
            "done": step.done,
            "seconds": seconds,
            "left": seconds * (1 - step.done) / step.done if step.done > 0 else None,
            "evaluations": step.evaluations,
            "gradients": step.gradients,
            "score": step.score,
            "point": step.point,
            "panel": method.panel,
            "axes": method.axes,
            "facts": dict(step.facts),
            "place": place_of(frame.margins, question.scan.shape) if len(question.scan.shape) == 2 else None,
        }
        return pack(header, arrays)


@router.websocket("/live")
async def live(socket: WebSocket, shop: Shop, user: User) -> None:
    """Messages in: start, ack, cancel. Out: packed frames; done and error as text."""
    await socket.accept()
    watched: Watched | None = None
    running: asyncio.Task[None] | None = None
    try:
        while True:
            message = _read(await socket.receive_text())
            if message is None:
                await socket.send_text(json.dumps({"type": "error", "message": MEANT}))
                continue
            kind, run = message.pop("type", None), message.pop("run", None)
            if kind == "ack" and watched is not None and run in (None, watched.run):
                if message.get("frame", watched.sent) == watched.sent:
                    watched.acknowledged.set()
            elif kind == "cancel" and watched is not None and run in (None, watched.run):
                watched.cancel.set()
            elif kind == "start":
                if watched is not None:
                    watched.cancel.set()
                watched = Watched(socket, shop, user, run if isinstance(run, int) else 0)
                message.pop("wait", None)
                try:
                    wanted = ExplanationWanted(**message)
                except ValidationError as error:
                    await watched._say({"type": "error", "run": watched.run, "message": sentence_of(error)})
                    continue
                running = asyncio.create_task(watched.go(wanted))
            elif kind not in ("ack", "cancel"):
                await socket.send_text(json.dumps({"type": "error", "message": MEANT}))
    except WebSocketDisconnect:
        pass
    finally:
        if watched is not None:
            watched.cancel.set()
        if running is not None:
            await asyncio.wait([running], timeout=0)


def _read(text: str) -> dict[str, Any] | None:
    """A message, or ``None`` where it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _plain(heatmap: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    return heatmap.detach().float().cpu().contiguous().numpy()


def _film(pixels: Tensor) -> np.ndarray[Any, np.dtype[np.uint16]]:
    return (hatched(pixels.detach().float().cpu()) * 65535).round().numpy().astype(np.uint16)
