"""The same computation as a deployment of Ray Serve: replicas, batching, autoscaling and routing are Ray's.

This process keeps the page, the results, the jobs and who may ask, and sends scans and questions to the replicas. A
replica that dies, or whose machine does, takes no question with it: it is asked again of another one, and the answer is
kept once, here.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import socket
import sys
import threading
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from torch import Tensor

from lucency.archive.on_ray import joined
from lucency.classifier import Classifier
from lucency.errors import LucencyError, MissingExtraError, ModelError
from lucency.explanation import Explanation
from lucency.methods import Step
from lucency.scan import Scan
from lucency.serve.ask import MOST, ByHand
from lucency.serve.benches import Asked, Benches, Made, Watching
from lucency.serve.errors import BusyError, StoppedError
from lucency.serve.live import Newest
from lucency.serve.schemas import Answer, Ask, EvaluateWanted
from lucency.serve.settings import Settings
from lucency.serve.turns import Task, Turns

# A thread that comes late must not start a cluster of its own.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
try:
    import ray
    from ray import serve
    from ray.exceptions import RayError, RayTaskError
    from ray.serve.config import AutoscalingConfig
    from ray.serve.exceptions import RayServeException
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError as error:
    raise MissingExtraError("Ray Serve is not installed; run pip install 'lucency[ray,serve]'.") from error

logging.getLogger("ray.serve").setLevel(logging.ERROR)

T = TypeVar("T")
Maker = Callable[[], Sequence[Classifier]]
"""Makes the classifiers, in whatever process; can be pickled."""

LOST = (RayError, RayServeException)
"""What is raised where a replica, its machine or the way to it is gone."""
PAUSES = (0.5, 1.0, 2.0, 4.0, 4.0, 4.0, 4.0)
"""Seconds between the tries of one question: Ray may take some until it sends nothing to a machine that is gone."""
BEAT = 0.25
"""Seconds after which a run says that it goes on, and hears whether it is to stop."""
TOGETHER = 0.003
"""Seconds that a question by hand waits for others, as a batch of Ray Serve."""
EACH = 2
"""Questions that one replica should have at a time; where there are more, another one is started."""
AT_HAND = 16
"""Scans that lie ready in the cluster, and that Ray Serve knows the replica of."""


class Lines:
    """As :class:`Turns`, for work that is done elsewhere: each task has a thread, which only waits.

    Args:
        most: how many tasks may be there in all.
        most_each: how many of one user.
    """

    def __init__(self, most: int, most_each: int) -> None:
        self._most, self._most_each = most, most_each
        self._users: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        # Questions by hand have their own, see Replicas.ask; jobs that were taken on come on top.
        self._threads = ThreadPoolExecutor(2 * most, "lucency-ray")

    def __len__(self) -> int:
        return self._users.total()

    @property
    def alive(self) -> bool:
        return not self._stopping.is_set()

    def submit(self, user: str, task: Callable[[], Task[T]], *, extra: int = 0) -> Future[T]:
        with self._lock:
            if self._stopping.is_set():
                raise StoppedError("The server is stopping; ask again when it is back.")
            if len(self) >= self._most + extra or self._users[user] >= self._most_each + extra:
                raise BusyError(f"{len(self)} questions wait already; try again in 5 s.", 5)
            self._users[user] += 1
        future = self._threads.submit(self._drained, task)
        future.add_done_callback(lambda _: self._gone(user))
        return future

    def _gone(self, user: str) -> None:
        with self._lock:
            self._users[user] -= 1

    def _drained(self, make: Callable[[], Task[T]]) -> T:
        task = make()
        try:
            while not self._stopping.is_set():
                next(task)
        except StopIteration as end:
            found: T = end.value
            return found
        finally:
            task.close()
        raise StoppedError("The server is stopping; ask again when it is back.")

    def close(self, seconds: float) -> None:
        self._stopping.set()
        self._threads.shutdown(wait=False, cancel_futures=True)


class Replicas:
    """The replicas of one server, seen from it.

    Args:
        address: of the cluster; ``"auto"`` for the one that runs on this machine, or else a new one of this process.
        make: makes the classifiers in each replica, as they are here.
        prints: the fingerprints of the classifiers here, by name.

    Attributes:
        lines: the queue of what is asked.
        device: ``cuda`` where the cluster has GPUs, of which each replica then takes one.

    Raises:
        ParameterError: when there is no such cluster.
        ModelError: when the replicas do not get the classifiers that are here.
    """

    def __init__(self, address: str, settings: Settings, make: Maker, prints: dict[str, str]) -> None:
        _, self._mine = joined(address)
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus = 0 if settings.device == "cpu" else int(resources.get("GPU", 0))
        self.device = "cuda" if gpus else "cpu"
        self.lines = Lines(settings.waiting, settings.waiting_each)
        self._by_hand = ThreadPoolExecutor(MOST, "lucency-ray-ask")
        self._waiting = threading.Semaphore(MOST)
        self._scans: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()
        # One for each server, whatever others run in the same cluster.
        place = f"{socket.gethostname()} {settings.folder.absolute()}"
        self._name = f"lucency-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
        stops: Any = ray.remote(_Stops)
        # On this machine, so that no other one that dies takes it along.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._stops = stops.options(num_cpus=0, scheduling_strategy=here).remote()
        nodes = sum(bool(node["Alive"]) for node in ray.nodes())  # type: ignore[no-untyped-call]
        deployment = serve.deployment(
            name="replica",
            max_ongoing_requests=2 * settings.waiting + MOST,
            autoscaling_config=AutoscalingConfig(
                # One that dies leaves another.
                min_replicas=max(1, min(2, nodes, gpus or nodes)),
                max_replicas=max(1, gpus or int(resources.get("CPU", 1))),
                target_ongoing_requests=EACH,
            ),
            ray_actor_options={"num_cpus": 1, "num_gpus": int(bool(gpus))},
        )(Replica)
        # No token and no password leaves this process.
        plain = replace(settings, host="127.0.0.1", tokens={}, database="", pacs="", device=self.device, window=0.0)
        try:
            serve.start(proxy_location="Disabled")
            self._handle = serve.run(
                deployment.bind(plain, make, prints, self._stops), name=self._name, route_prefix=None
            )
        except (RuntimeError, *LOST) as error:
            self.close()
            raise ModelError(
                f"The replicas on Ray do not start ({_reason(error)}); each machine needs Lucency as it is "
                "here, and the files of its models at the same paths."
            ) from error

    def close(self) -> None:
        """Ends the replicas."""
        self.lines.close(0)
        self._by_hand.shutdown(wait=False, cancel_futures=True)
        with suppress(Exception):
            # It would go on to count for the autoscaling.
            self._handle.shutdown()  # type: ignore[no-untyped-call]
        with suppress(Exception):
            serve.delete(self._name)
        if self._mine:
            ray.shutdown()

    # What is computed -------------------------------------------------------------------------------------------------

    def scored(self, model: str, scan: Scan, user: str) -> Task[dict[str, Any]]:
        yield
        found: dict[str, Any] = self._asked(self._at(scan).scored, model, self._sent(scan), user)
        return found

    def evaluated(
        self, wanted: EvaluateWanted, explanation: Explanation, model: str, scan: Scan, user: str
    ) -> Task[dict[str, Any]]:
        yield
        found: dict[str, Any] = self._asked(self._handle.evaluated, wanted, explanation, model, self._sent(scan), user)
        return found

    def explained(self, asked: Asked, target: int, scan: Scan, user: str, watching: Watching) -> Task[Made | None]:
        every = watching.every if watching.on_step is not None else None
        for pause in (*PAUSES, None):
            run, told = uuid.uuid4().hex, False
            stream: Any = self._handle.options(stream=True).explained.remote(
                run, asked, target, self._sent(scan), user, every, watching.keep_stopped
            )
            try:
                for said in stream:
                    if isinstance(said, _End):
                        return said.made
                    if said is not None and watching.on_step is not None:
                        watching.on_step(*said)
                    if watching.stop.is_set() and not told:
                        told = True
                        self._stops.stop.remote(run)
                    yield
            except LOST as error:
                self._again(error, pause)
            finally:
                stream.cancel()
        raise AssertionError

    # Questions by hand ------------------------------------------------------------------------------------------------

    def ask(self, ask: Ask, scan: Scan) -> Future[Answer]:
        if not self._waiting.acquire(blocking=False):
            raise BusyError("Too many questions wait; try again in 1 s.", 1)
        try:
            future: Future[Answer] = self._by_hand.submit(self._asked, self._at(scan).ask, ask, self._sent(scan))
        except BaseException:
            self._waiting.release()
            raise
        future.add_done_callback(lambda _: self._waiting.release())
        return future

    def warm(self, model: str, scan: Scan, user: str) -> None:
        self._asked(self._at(scan).warm, model, self._sent(scan), user)

    def forget(self, scan: str) -> None:
        with self._lock:
            self._scans.pop(scan, None)

    # ------------------------------------------------------------------------------------------------------------------

    def _at(self, scan: Scan) -> Any:
        """The replica that has read this scan before, where it has room."""
        return self._handle.options(multiplexed_model_id=scan.sha256)

    def _sent(self, scan: Scan) -> Any:
        """A scan in the cluster's store, where it lies once for all questions about it."""
        with self._lock:
            if scan.sha256 not in self._scans:
                self._scans[scan.sha256] = ray.put(scan)
            self._scans.move_to_end(scan.sha256)
            while len(self._scans) > AT_HAND:
                self._scans.popitem(last=False)
            return self._scans[scan.sha256]

    def _asked(self, method: Any, *arguments: Any) -> Any:
        for pause in (*PAUSES, None):
            try:
                return method.remote(*arguments).result()
            except LOST as error:
                self._again(error, pause)
        raise AssertionError

    def _again(self, error: Exception, pause: float | None) -> None:
        """Waits until it is asked again, where it was the replica that failed rather than the question."""
        if isinstance(error, RayTaskError):
            cause = error.cause
            if not isinstance(cause, LOST):
                raise cause from error
        if pause is None:
            raise StoppedError(
                "No replica on Ray answers; ask again, or see what `serve status` says of them."
            ) from error
        time.sleep(pause)


class _End:
    """The last that is said of a run."""

    def __init__(self, made: Made | None) -> None:
        self.made = made


class _Stops:
    """An actor: which runs are to stop. A replica cannot be called by name, so it asks."""

    def __init__(self) -> None:
        self._runs: set[str] = set()

    def stop(self, run: str) -> None:
        self._runs.add(run)

    def stopped(self, run: str) -> bool:
        if run in self._runs:
            self._runs.discard(run)
            return True
        return False


_batched: Any = serve.batch(max_batch_size=MOST, batch_wait_timeout_s=TOGETHER)


class Replica:
    """One process with the classifiers, on a device of its own.

    Raises:
        ModelError: when they are others than those of the server.
    """

    def __init__(self, settings: Settings, make: Maker, prints: dict[str, str], stops: Any) -> None:
        self._benches = Benches(settings, make())
        here = {name: bench.classifier.fingerprint for name, bench in self._benches.all.items()}
        if here != prints:
            raise ModelError("The weights here are others than those of the server; give every machine the same files.")
        # The server counts who waits; here they only take turns.
        self._turns = Turns("lucency-device", sys.maxsize, sys.maxsize)
        self._hand = ByHand(self._benches, self._turns, lambda count, seconds: None)
        self._stops = stops

    async def scored(self, model: str, scan: Scan, user: str) -> dict[str, Any]:
        """See :class:`Computing`."""
        await self._reading(scan.sha256)
        return await self._turn(user, lambda: self._benches.scored(model, scan, user))

    async def evaluated(
        self, wanted: EvaluateWanted, explanation: Explanation, model: str, scan: Scan, user: str
    ) -> dict[str, Any]:
        """See :class:`Computing`."""
        return await self._turn(user, lambda: self._benches.evaluated(wanted, explanation, model, scan, user))

    async def explained(
        self, run: str, asked: Asked, target: int, scan: Scan, user: str, every: float | None, keep_stopped: bool
    ) -> AsyncIterator[tuple[Step, float] | _End | None]:
        """The newest step each time, nothing where there is none for a while, and the end."""
        newest = Newest()
        watching = Watching(None if every is None else newest.put, keep_stopped=keep_stopped)
        work = asyncio.ensure_future(
            self._turn(user, lambda: self._benches.explained(asked, target, scan, user, watching))
        )
        heard = time.monotonic()
        try:
            while not work.done():
                step = asyncio.ensure_future(newest.get())
                await asyncio.wait({work, step}, timeout=BEAT, return_when=asyncio.FIRST_COMPLETED)
                if step.done():
                    yield await asyncio.to_thread(_settled, *step.result())
                    await asyncio.sleep(every or 0.0)
                else:
                    step.cancel()
                    yield None
                if time.monotonic() - heard > BEAT:
                    heard = time.monotonic()
                    if await self._stops.stopped.remote(run):
                        watching.stop.set()
            yield _End(work.result())
        finally:
            # Also where the server is gone.
            watching.stop.set()

    async def ask(self, ask: Ask, scan: Scan) -> Answer:
        """A question by hand."""
        await self._reading(scan.sha256)
        answer: Answer | LucencyError = await self._together(ask, scan)
        if isinstance(answer, LucencyError):
            raise answer
        return answer

    async def warm(self, model: str, scan: Scan, user: str) -> None:
        """See :meth:`Asking.warm`."""

        def work() -> Task[None]:
            yield
            self._hand.warm(model, scan, user)

        await self._turn(user, work)

    @serve.multiplexed(max_num_models_per_replica=AT_HAND)  # type: ignore[untyped-decorator]
    async def _reading(self, scan: str) -> str:
        """Ray Serve sends further questions about this scan here, where it stands ready."""
        return scan

    @_batched  # type: ignore[untyped-decorator]
    async def _together(self, asks: list[Ask], scans: list[Scan]) -> list[Answer | LucencyError]:
        found: list[Any] = []
        for ask, scan in zip(asks, scans, strict=True):
            try:
                found.append(asyncio.wrap_future(await asyncio.to_thread(self._hand.ask, ask, scan)))
            except LucencyError as error:
                found.append(_failed(error))
        answers: list[Answer | LucencyError] = await asyncio.gather(*found, return_exceptions=True)
        return answers

    async def _turn(self, user: str, task: Callable[[], Task[T]]) -> T:
        return await asyncio.wrap_future(self._turns.submit(user, task))


def _settled(step: Step, seconds: float) -> tuple[Step, float]:
    """A step that can travel: what it would build is built."""

    def built(make: Callable[[], Tensor]) -> Callable[[], Tensor]:
        return partial(_as_it_is, make().detach().cpu())

    plain = Step(
        step.done,
        step.score,
        built(step.heatmap),
        built(step.perturbed),
        point=step.point,
        reaction=None if step.reaction is None else built(step.reaction),
        facts=dict(step.facts),
        evaluations=step.evaluations,
        gradients=step.gradients,
    )
    return plain, seconds


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


async def _failed(error: LucencyError) -> None:
    raise error


def _reason(error: Exception) -> str:
    """The last line of what Ray says, which is the error itself."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
