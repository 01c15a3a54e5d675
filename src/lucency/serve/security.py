"""Who may ask, from where, and how much.

- Loopback needs no login. Any other address needs a token, of which only the hash is kept.
- The Host header must be an address or a name of this server, so that no name that was rebound to it gets in; the
  Origin of a request, and of a WebSocket, must be the server itself, so that no other page acts in a user's name.
- Bodies are counted while they come in, and cut off where they are larger than the route takes.
- Nothing is loaded from elsewhere and nothing inline runs; nobody may frame the page.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import secrets
import socket
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lucency.errors import OutputError, ParameterError
from lucency.serve.errors import TooLargeError
from lucency.serve.settings import Settings
from lucency.writing import whole

COOKIE = "lucency_token"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "font-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
OPEN = ("/", "/login", "/api/v1/health", "/api/v1/ready")
"""What answers without a token; the page itself, which asks for it, holds nothing."""
FILES = ("/static/", "/viewer/")
"""Where the page's own files lie."""
SMALL = 16 * 2**20
"""Bytes of a body that is no scan: a brush mask of a large film fits."""


def hashed(token: str) -> str:
    """What is kept of a token. Tokens are long and random, so a plain hash cannot be turned back."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def new_token(folder: Path, name: str) -> str:
    """Makes a token for a user, keeps its hash, and returns it: it is shown once and never again.

    Raises:
        ParameterError: for a name that is none.
        OutputError: when it cannot be kept.
    """
    if not name.isidentifier() or len(name) > 60:
        raise ParameterError(f"A token belongs to a name of letters, digits and underscores, not {name!r:.60}.")
    known = tokens(folder)
    token = secrets.token_urlsafe(32)
    with whole(folder / "tokens.json") as part:
        part.write_text(json.dumps({**known, name: hashed(token)}, indent=1) + "\n")
        part.chmod(0o600)
    return token


def tokens(folder: Path) -> dict[str, str]:
    """The hashes that are kept in a folder, by name.

    Raises:
        OutputError: when the file is damaged.
    """
    path = folder / "tokens.json"
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
            raise ValueError
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} holds no tokens; delete it and make new ones.") from error
    return found


class Guard:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        own = {"localhost", settings.host, socket.gethostname(), *settings.names}
        self._names = {name.lower() for name in own}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        user = self._user(scope, headers)
        scope.setdefault("state", {})["user"] = user or "?"
        # Which of two Host headers counts is no question that two programs answer alike.
        if len(headers.getlist("host")) != 1 or not self._own_host(headers["host"]):
            await _refuse(scope, send, 421, "This server is not called that; use its address, or start it with --name.")
        elif not self._own_origin(scope, headers):
            await _refuse(scope, send, 403, "Another page may not ask here; open the server's own page.")
        elif user is None and not self._open(scope):
            await _refuse(
                scope, send, 401, "A token is needed: log in on the page, or send Authorization: Bearer TOKEN."
            )
        elif (most := self._most(scope)) < int(_number(headers.get("content-length"))):
            await _refuse(scope, send, 413, f"The body is larger than the {most:,} bytes that are taken; send less.")
        else:
            await self._app(scope, _counted(receive, most), _armoured(send))

    def _user(self, scope: Scope, headers: Headers) -> str | None:
        """Who asks: the name of the token or, where none is needed, the address."""
        if not self._settings.tokens:
            return str((scope.get("client") or ("?",))[0])
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token:
            try:
                found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
            except CookieError:
                found = None
            token = "" if found is None else found.value
        return whose(self._settings, token.strip())

    def _open(self, scope: Scope) -> bool:
        return scope["type"] == "http" and (scope["path"] in OPEN or scope["path"].startswith(FILES))

    def _own_host(self, host: str) -> bool:
        name = urlsplit(f"//{host}").hostname if host else None
        if name is None:
            return False
        try:
            # A name can be rebound to this address; an address cannot.
            ipaddress.ip_address(name)
        except ValueError:
            return name.lower() in self._names
        return True

    @staticmethod
    def _own_origin(scope: Scope, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is None:
            changes = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
            return not (changes and headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"))
        return urlsplit(origin).netloc.lower() == headers.get("host", "").lower()

    def _most(self, scope: Scope) -> int:
        return self._settings.most_bytes if scope["path"] == "/api/v1/scans" else SMALL


def whose(settings: Settings, token: str) -> str | None:
    """The name that a token belongs to, found in the same time whichever it is."""
    given, found = hashed(token), None
    for name, kept in settings.tokens.items():
        if hmac.compare_digest(given, kept):
            found = name
    return found


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0


def _counted(receive: Receive, most: int) -> Receive:
    came = 0

    async def counted() -> Message:
        nonlocal came
        message = await receive()
        if message["type"] == "http.request":
            came += len(message.get("body", b""))
            if came > most:
                raise TooLargeError(f"The body is larger than the {most:,} bytes that are taken; send less.")
        return message

    return counted


def _armoured(send: Send) -> Send:
    async def armoured(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return armoured


async def _refuse(scope: Scope, send: Send, status: int, sentence: str) -> None:
    if scope["type"] == "websocket":
        # Before it is accepted, so the browser gets a plain 403.
        await send({"type": "websocket.close", "code": 4000 + status, "reason": sentence[:120]})
        return
    body = json.dumps({"error": sentence, "kind": "RefusedError"}).encode()
    extra = {"www-authenticate": "Bearer"} if status == 401 else {}
    await _send(send, status, {"content-type": "application/json", **extra}, body)


async def _send(send: Send, status: int, headers: dict[str, str], body: bytes) -> None:
    listed: list[Any] = [(k.encode(), v.encode()) for k, v in {**headers, **HEADERS}.items()]
    await send({"type": "http.response.start", "status": status, "headers": listed})
    await send({"type": "http.response.body", "body": body})
