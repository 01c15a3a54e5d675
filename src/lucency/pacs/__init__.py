"""Lucency beside a PACS: films come in, their explanations go back. Needs the ``clinic`` extra.

:class:`~lucency.pacs.listener.Listener` receives films by C-STORE and keeps each on the disk before it says so; a
durable job explains it, another sends what was derived and reads back that it is there.
:mod:`~lucency.pacs.fetching` takes films from a DICOMweb archive instead. :func:`worklist` says what came of each.
"""

from __future__ import annotations

import logging
import os

from lucency.errors import MissingExtraError

try:
    import dicomweb_client  # noqa: F401
    import pynetdicom  # noqa: F401
except ImportError as error:
    raise MissingExtraError(
        f"A PACS needs {error.name}, which is not installed; run pip install 'lucency[clinic]'."
    ) from error

from lucency.pacs.access import Access
from lucency.pacs.delivery import Delivery, Destination, NotKeptError, RefusedError, UnreachableError
from lucency.pacs.destination import destination
from lucency.pacs.listener import Listener
from lucency.pacs.rules import Rules
from lucency.pacs.worklist import Row, Worklist, worklist

# What it has to say to developers is no message to whoever runs a listener.
logging.getLogger("pynetdicom").addHandler(logging.NullHandler())
logging.getLogger("pynetdicom").propagate = bool(os.environ.get("LUCENCY_DEBUG"))

__all__ = [
    "Access", "Delivery", "Destination", "Listener", "NotKeptError", "RefusedError", "Row", "Rules", "UnreachableError",
    "Worklist", "destination", "worklist",
]  # fmt: skip
