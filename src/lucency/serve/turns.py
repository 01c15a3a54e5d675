"""Turns on a device: one thread does the work, and users take turns at it.

A task is a generator: wherever it yields, another may go on for a while. So a long run of one user does not keep the
short ones of others waiting, and small questions (:mod:`lucency.serve.ask`) come in between.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any, Generic, Protocol, TypeVar

from lucency.serve.errors import BusyError, StoppedError

T = TypeVar("T")
Task = Generator[None, None, T]

SLICE = 1.0
"""Seconds after which a task gives way, where others wait."""
TYPICAL = 5.0
"""Seconds that a task is taken to need before any has been timed."""


class Queue(Protocol):
    """Where tasks of users wait for the device."""

    def __len__(self) -> int:
        """How many there are, those that are worked on included."""

    @property
    def alive(self) -> bool:
        """Whether anything is worked on."""

    def submit(self, user: str, task: Callable[[], Task[T]], *, extra: int = 0) -> Future[T]:
        """Puts a task of a user into the queue.

        Args:
            extra: how many more than the usual number may wait; for work that has been taken on already.

        Raises:
            BusyError: when the queue is full.
            StoppedError: when it has been closed.
        """

    def close(self, seconds: float) -> None:
        """Ends everything after the step that it is at; what still waits is told so.

        A step that takes longer than so many seconds is not waited for: the process ends without it.
        """


class _Waiting(Generic[T]):
    def __init__(self, task: Callable[[], Task[T]]) -> None:
        self.make = task
        self.running: Task[T] | None = None
        self.future: Future[T] = Future()
        self.seconds = 0.0


class Turns:
    """The queue of one device.

    Args:
        name: of its thread.
        most: how many tasks may be there in all.
        most_each: how many of one user.

    Attributes:
        between: called between two slices and between the steps of a task, on its thread: for what must not wait.
    """

    def __init__(self, name: str, most: int, most_each: int) -> None:
        self.most, self.most_each = most, most_each
        self.between: list[Callable[[], None]] = []
        self._users: OrderedDict[str, deque[_Waiting[Any]]] = OrderedDict()
        self._changed = threading.Condition()
        self._count = 0
        self._typical = TYPICAL
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return self._count

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._stopping

    def submit(self, user: str, task: Callable[[], Task[T]], *, extra: int = 0) -> Future[T]:
        with self._changed:
            if self._stopping:
                raise StoppedError("The server is stopping; ask again when it is back.")
            mine = self._users.get(user, deque())
            if self._count >= self.most + extra or len(mine) >= self.most_each + extra:
                seconds = max(1, round(self._typical))
                raise BusyError(f"{self._count} questions wait already; try again in {seconds} s.", seconds)
            waiting = _Waiting(task)
            self._users.setdefault(user, deque()).append(waiting)
            self._count += 1
            self._changed.notify()
            return waiting.future

    def wake(self) -> None:
        """Has ``between`` called soon, also when nothing else is to be done."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def close(self, seconds: float) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(seconds)

    _woken = False

    def _between(self) -> None:
        for act in self.between:
            act()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._users or self._woken or self._stopping):
                    self._changed.wait()
                self._woken = False
                if self._stopping:
                    left = [w for line in self._users.values() for w in line]
                    self._users.clear()
                    break
                user, line = next(iter(self._users.items())) if self._users else ("", deque())
                waiting = line[0] if line else None
            self._between()
            if waiting is None:
                continue
            done = self._slice(waiting)
            with self._changed:
                if done:
                    line.popleft()
                    self._count -= 1
                    self._typical = 0.8 * self._typical + 0.2 * waiting.seconds
                # The next user's turn, even where this one has not finished.
                del self._users[user]
                if line:
                    self._users[user] = line
        for waiting in left:
            if waiting.running is not None:
                waiting.running.close()
            if waiting.running is not None or waiting.future.set_running_or_notify_cancel():
                waiting.future.set_exception(StoppedError("The server is stopping; ask again when it is back."))

    def _slice(self, waiting: _Waiting[Any]) -> bool:
        """Goes on with a task until it has finished or others should have a turn; says whether it has finished."""
        began = time.perf_counter()
        future = waiting.future
        try:
            if waiting.running is None:
                if not future.set_running_or_notify_cancel():
                    return True
                waiting.running = waiting.make()
            while True:
                next(waiting.running)
                self._between()
                if self._stopping or (time.perf_counter() - began > SLICE and len(self._users) > 1):
                    waiting.seconds += time.perf_counter() - began
                    return False
        except StopIteration as end:
            waiting.seconds += time.perf_counter() - began
            future.set_result(end.value)
        except BaseException as error:
            # Whoever waits is told, and the thread lives on.
            future.set_exception(error)
        return True
