"""Whatever goes wrong becomes one sentence and the right status."""

from __future__ import annotations

import errno
import logging
import os
import traceback
from typing import Any

import sqlalchemy.exc
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from lucency.errors import LucencyError, MissingExtraError, OutputError, ran_out_of_memory
from lucency.serve.errors import BusyError, NotThereError, StoppedError, TooLargeError

log = logging.getLogger("lucency.serve")

STATUS: dict[type[LucencyError], int] = {
    NotThereError: 404,
    TooLargeError: 413,
    BusyError: 429,
    StoppedError: 503,
    MissingExtraError: 501,
    OutputError: 507,
}
FULL = {getattr(errno, name, None) for name in ("ENOSPC", "EDQUOT", "EROFS")}


def status_of(error: Exception) -> int:
    """The HTTP status of an error."""
    for kind, status in STATUS.items():
        if isinstance(error, kind):
            return status
    if isinstance(error, LucencyError | ValidationError | RequestValidationError):
        return 422
    if isinstance(error, OSError) and error.errno in FULL:
        return 507
    if isinstance(error, sqlalchemy.exc.OperationalError):
        return 503
    return 500


def sentence_of(error: Exception) -> str:
    """What is wrong and what to do."""
    if isinstance(error, LucencyError):
        return str(error)
    if isinstance(error, ValidationError | RequestValidationError):
        return _invalid(error.errors())
    if isinstance(error, OSError) and error.errno in FULL:
        return "The server's disk is full; free space on it and ask again."
    if isinstance(error, sqlalchemy.exc.OperationalError):
        return "The server's database does not answer; try again in a moment."
    if isinstance(error, MemoryError) or ran_out_of_memory(error):
        return "The server does not have the memory for that; ask for less at once, or a smaller scan."
    return f"The server failed ({type(error).__name__}), and that is a fault of its own; its log says where."


def said(error: Exception) -> None:
    """Writes to the log what is a fault of our own: where, and never with what."""
    if status_of(error) == 500:
        where = traceback.extract_tb(error.__traceback__)
        places = [f"{frame.filename.rpartition(os.sep)[2]}:{frame.lineno}" for frame in where[-6:]]
        log.error("fault", extra={"facts": {"kind": type(error).__name__, "where": places}})


def _invalid(errors: Any) -> str:
    first = errors[0]
    place = ".".join(str(part) for part in first.get("loc", ()) if part not in ("body", "query", "path", "header"))
    what = str(first.get("msg", "it is wrong")).removeprefix("Value error, ")
    what = what[:1].lower() + what[1:]
    return f"The request cannot be used ({place or 'body'}: {what[:200]}); /api/v1/openapi.json says what is taken."


async def answered(request: Request, error: Exception) -> JSONResponse:
    """The answer to a request that failed."""
    said(error)
    if isinstance(error, HTTPException):
        words = {404: "There is nothing here; /api/v1/openapi.json lists what there is."}
        sentence = words.get(error.status_code, f"{error.detail}; /api/v1/openapi.json says what is taken.")
        body = {"error": sentence, "kind": "HTTPException"}
        return JSONResponse(body, error.status_code, headers=error.headers)
    headers = {"Retry-After": str(error.seconds)} if isinstance(error, BusyError) else None
    kind = "RequestError" if isinstance(error, ValidationError | RequestValidationError) else type(error).__name__
    return JSONResponse({"error": sentence_of(error), "kind": kind}, status_of(error), headers=headers)
