"""One server process: uvicorn around the application."""

from __future__ import annotations

import socket
import webbrowser
from collections.abc import Callable, Sequence

import uvicorn

from lucency.classifier import Classifier
from lucency.errors import OutputError
from lucency.serve import logs
from lucency.serve.app import create_app
from lucency.serve.live import MESSAGE
from lucency.serve.settings import Settings

GRACE = 10
"""Seconds that requests under way get to finish when the server is stopped."""


def run(
    settings: Settings,
    make: Callable[[], Sequence[Classifier]],
    *,
    ray: str | None = None,
    browser: bool = False,
) -> None:
    """Serves until it is interrupted.

    Args:
        make: makes the classifiers; it can be pickled where they are to be made on Ray.
        ray: the address of the Ray cluster that computes, see :class:`lucency.serve.on_ray.Replicas`.

    Raises:
        LucencyError: one of the family, when it cannot start.
    """
    logs.set_up()
    # Before anything is loaded: a port that is taken is said at once.
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        # Said in full, since asyncio sends small answers at once only on what calls itself TCP: 40 ms for each.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((settings.host, settings.port))
        # Whoever comes before the application is ready waits instead of being refused.
        listening.listen(256)
    except OSError as error:
        place, why = f"{settings.host}:{settings.port}", error.strerror or error
        raise OutputError(f"The server cannot listen at {place} ({why}); use --port.") from error
    classifiers = make()
    elsewhere = None
    if ray is not None:
        from lucency.serve.on_ray import Replicas

        elsewhere = Replicas(ray, settings, make, {one.name: one.fingerprint for one in classifiers})
    app = create_app(settings, classifiers, elsewhere)
    shown = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    address = f"http://{f'[{shown}]' if ':' in shown else shown}:{listening.getsockname()[1]}/"
    print(f"Lucency answers at {address} (Ctrl-C stops it)", flush=True)
    config = uvicorn.Config(
        app, http="h11", log_config=None, access_log=False, ws_max_size=MESSAGE, ws_max_queue=8, proxy_headers=False,
        timeout_graceful_shutdown=GRACE, server_header=False, h11_max_incomplete_event_size=2**16,
    )  # fmt: skip
    if browser:
        webbrowser.open(address)
    uvicorn.Server(config).run(sockets=[listening])
