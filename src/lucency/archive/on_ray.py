"""Workers as actors of a Ray cluster. Paths go to them and rows come back; no film goes through the object store."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from lucency.archive.asked import Asked
from lucency.archive.crew import SOON, Answered, Content, Died, Event, Ready, Refused, Task, done
from lucency.errors import LucencyError, MissingExtraError, ParameterError

PATIENCE = 10.0
"""Seconds until a cluster answers, or is taken not to be there."""


class Actors:
    """So many actors, one processor each, which start wherever the cluster has room for their memory.

    Args:
        asked: what is asked of each film.
        count: how many; as many as the cluster has processors when ``None``.
        address: of the cluster; ``"auto"`` for the one that runs on this machine, or else a new one of this process.
        memory: GiB that an actor takes. The scheduler goes by this number alone, since it does not look at the heap.
        gpu: whether each actor takes a GPU.

    Raises:
        MissingExtraError: when Ray is not installed.
        ParameterError: when there is no such cluster.
    """

    def __init__(self, asked: Asked, count: int | None, *, address: str, memory: float, gpu: bool) -> None:
        self._ray, self._mine = joined(address)
        ray = self._ray
        self._asked = asked
        remote: Any = ray.remote(_Actor)
        self._make = remote.options(
            num_cpus=1, num_gpus=int(gpu), memory=int(memory * 2**30), max_restarts=0, max_concurrency=1
        )
        self._actors: dict[int, Any] = {}
        self._waiting: dict[Any, int] = {}
        self._ready: set[int] = set()
        self._number = 0
        resources: dict[str, float] = ray.cluster_resources()
        for _ in range(max(1, count or int(resources.get("CPU", 1)))):
            self._start()

    def _start(self) -> None:
        actor = self._make.remote(self._asked)
        self._actors[self._number] = actor
        self._waiting[actor.ready.remote()] = self._number
        self._number += 1

    def give(self, worker: int, task: Task) -> None:
        self._waiting[self._actors[worker].done.remote(task)] = worker

    def events(self) -> Sequence[Event]:
        ray = self._ray
        ended, _ = ray.wait(list(self._waiting), num_returns=1, timeout=SOON)
        if ended:
            ended, _ = ray.wait(list(self._waiting), num_returns=len(self._waiting), timeout=0)
        return [self._event(one, self._waiting.pop(one)) for one in ended]

    def _event(self, reference: Any, worker: int) -> Event:
        try:
            said = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            with suppress(Exception):
                self._ray.kill(self._actors[worker])
            del self._actors[worker]
            self._start()
            why = " ".join(str(error).split())[:200] or type(error).__name__
            return Died(worker, why, worker in self._ready)
        if said is None:
            self._ready.add(worker)
            return Ready(worker)
        if isinstance(said, LucencyError):
            return Refused(worker, said)
        return Content(worker, said.content, said.state) if isinstance(said, Content) else Answered(worker, said.row)

    def close(self) -> None:
        for actor in self._actors.values():
            with suppress(Exception):
                self._ray.kill(actor)
        if self._mine:
            self._ray.shutdown()


def joined(address: str) -> tuple[Any, bool]:
    """Ray, connected, and whether this process was not so before.

    Args:
        address: of the cluster; ``"auto"`` for the one that runs on this machine, or else a new one of this process.

    Raises:
        MissingExtraError: when Ray is not installed.
        ParameterError: when there is no such cluster.
    """
    # What Ray would report to its makers stays here.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("Ray is not installed; run pip install 'lucency[ray]'.") from error
    if ray.is_initialized():
        return ray, False
    try:
        host, colon, port = address.removeprefix("ray://").rpartition(":")
        if colon:
            # Ray itself would try for many minutes.
            socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
        ray.init(
            None if address == "auto" else address, log_to_driver=False, logging_level=logging.ERROR,
            include_dashboard=False,
        )  # fmt: skip
    except Exception as error:  # of many kinds
        said = next(iter(str(error).splitlines()), "no reason given")
        raise ParameterError(f"There is no Ray cluster at {address} ({said}); start one: ray start.") from error
    return ray, True


class _Actor:
    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._worker: Any = None

    def ready(self) -> LucencyError | None:
        from lucency.archive.explaining import Worker

        try:
            self._worker = Worker(self._asked)
        except LucencyError as error:
            return error
        return None

    def done(self, task: Task) -> Event | LucencyError:
        try:
            return done(self._worker, 0, task)
        except LucencyError as error:
            return error
