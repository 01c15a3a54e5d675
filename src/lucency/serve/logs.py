"""Logs as JSON lines, and a count of every request. No names of files, no pixels, no words of users: hashes at most."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lucency.serve.metrics import Metrics

log = logging.getLogger("lucency.serve")
API = "/api/v1"
QUIET = ("/api/v1/health", "/api/v1/ready", "/metrics")


class Lines(logging.Formatter):
    """One JSON object a record."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        about: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            # What other libraries say may quote anything, so only that they said something is kept.
            "event": record.getMessage() if record.name == "lucency.serve" else record.name,
            **getattr(record, "facts", {}),
        }
        return json.dumps(about)


def set_up(level: int = logging.INFO) -> None:
    """Sends what the service says to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(level)


class Counted:
    """Says and counts each request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500 if scope["type"] == "http" else 101

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "websocket.close" and message.get("code", 0) >= 4400:
                status = message["code"] - 4000
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            seconds = time.perf_counter() - began
            route = str(getattr(scope.get("route"), "path", "")) or "other"
            if scope["path"].startswith(API) and not route.startswith(API):
                route = API + route
            method = scope.get("method", "WEBSOCKET")
            self._metrics.request(route, method, status, seconds)
            if scope["path"] not in QUIET:
                user = hashlib.sha256(str(scope.get("state", {}).get("user", "?")).encode()).hexdigest()[:8]
                ms = round(1000 * seconds, 1)
                facts = {"route": route, "method": method, "status": status, "ms": ms, "user": user}
                log.info("request", extra={"facts": facts})
