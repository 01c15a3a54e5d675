"""What every route needs: the workshop, and who asks."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from fastapi.requests import HTTPConnection

from lucency.serve.workshop import Workshop


def _workshop(connection: HTTPConnection) -> Workshop:
    found: Workshop = connection.app.state.workshop
    return found


def _user(connection: HTTPConnection) -> str:
    """The name of the token, or the address: users take turns."""
    return str(connection.scope["state"].get("user", "?"))


Shop = Annotated[Workshop, Depends(_workshop)]
User = Annotated[str, Depends(_user)]
BINARY = "application/octet-stream"
