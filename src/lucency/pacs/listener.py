"""The listener: a port that films are sent to, and the jobs that explain them and send what was derived."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from functools import wraps
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydicom import dcmread
from pydicom.uid import (
    JPEG2000,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from lucency.errors import LucencyError, ParameterError
from lucency.explanation import Explanation
from lucency.jobs import Jobs, Json, Retry, Run
from lucency.pacs import work
from lucency.pacs.access import Access, is_loopback
from lucency.pacs.delivery import Destination, NotKeptError, RefusedError, UnreachableError
from lucency.pacs.inbox import Inbox, key_of
from lucency.pacs.rules import Rules
from lucency.pacs.work import Question
from lucency.pacs.worklist import EXPLAIN, NAME, SEND, place_of, sending

SYNTAXES = [
    ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, JPEGBaseline8Bit, JPEGExtended12Bit,
    JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless, JPEG2000Lossless, JPEG2000, RLELossless,
]  # fmt: skip
"""How films may be encoded. Not deflated: a few bytes could become any number."""
SUCCESS, OUT_OF_RESOURCES, NOT_AS_SAID, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000


class NoRoomError(LucencyError):
    """The disk is full."""


DISK = Retry(on=(NoRoomError,), attempts=None, first=2.0, most=60.0)
"""A full disk is somebody's to clear; the work waits for that."""
TRIES = 5
"""How often objects are sent that the other side takes and does not keep."""


class Listener:
    """Receives films, explains them and sends what is derived; between :meth:`start` and :meth:`close`.

    A film is on the disk, and the job that explains it as well, before its sender hears of success. Film and question
    make the key of the job, so a film that is sent again is not explained again. Identifiers of the results follow from
    their content, so an archive that is sent them twice keeps one.

    Args:
        folder: where films and jobs lie until they are done with; one listener at a time.
        question: what is asked of every film.
        destination: where results go.
        aet: its title.
        host, port: where it listens; port 0 takes a free one, see :attr:`port`.
        allowed: the titles that may call. Needed where others than this machine can.
        rules: which films are explained.
        access: its certificate makes the port speak TLS, and its authorities make that mutual.
        deidentify: whether the patient is left out of what is sent.
        jobs: the URL of a PostgreSQL database in place of the file in the folder.
        most: the longest pause in seconds between two tries while the destination is away.

    Raises:
        ParameterError: when others could call and nobody is allowed to.
    """

    def __init__(
        self,
        folder: str | Path,
        question: Question,
        destination: Destination,
        *,
        aet: str = "LUCENCY",
        host: str = "127.0.0.1",
        port: int = 11112,
        allowed: Collection[str] = (),
        rules: Rules | None = None,
        access: Access | None = None,
        deidentify: bool = False,
        jobs: str | None = None,
        most: float = 60.0,
    ) -> None:
        if not allowed and not is_loopback(host):
            raise ParameterError(
                f"Everybody who reaches {host} could send films; name the titles that may with --allow AET, or listen "
                "on 127.0.0.1."
            )
        self.question, self.destination, self.rules = question, destination, rules or Rules()
        self.folder = Path(folder)
        self.aet, self.host, self.port = aet, host, port
        self._allowed, self._access = list(allowed), access or Access()
        self._inbox = Inbox(self.folder)
        self._place = place_of(folder, jobs)
        self._secret = self._inbox.folder / "secret" if deidentify else None
        self._away = Retry(on=(UnreachableError, NotKeptError), attempts=None, first=1.0, most=most)
        self._door = threading.Lock()
        self._held = ExitStack()
        self._jobs: Jobs | None = None

    @property
    def jobs(self) -> Jobs:
        """The jobs, between :meth:`start` and :meth:`close`."""
        assert self._jobs is not None
        return self._jobs

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Takes up what lies in the folder, and opens the port.

        Raises:
            JobError: when another listener uses the folder.
            OutputError: when it cannot be used.
            ParameterError: when the port is taken or the certificates are of no use.
        """
        context = self._access.served()
        try:
            self._jobs = Jobs(
                self._place, NAME, queues={EXPLAIN: 1, SEND: 2}, functions={EXPLAIN: self._explain, SEND: self._send}
            )
            self._held.callback(self._jobs.close)
            for key in self._inbox.films():
                if not self._jobs.have(key):
                    self._taken_up(key)
            ae = AE(ae_title=self.aet)
            ae.require_called_aet = True
            ae.require_calling_aet = self._allowed
            ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 60
            ae.add_supported_context(Verification)
            for kind in AllStoragePresentationContexts:
                ae.add_supported_context(str(kind.abstract_syntax), SYNTAXES)
            try:
                server = ae.start_server(
                    (self.host, self.port),
                    block=False,
                    ssl_context=context,
                    evt_handlers=[(evt.EVT_C_STORE, self._stored)],
                )
            except (OSError, OverflowError) as error:
                raise ParameterError(
                    f"{self.host}:{self.port} cannot be listened on ({getattr(error, 'strerror', None) or error}); "
                    "choose another --port or --host."
                ) from error
            self._held.callback(ae.shutdown)
            self.port = int(server.socket.getsockname()[1])  # type: ignore[union-attr]
        except BaseException:
            self._held.close()
            raise

    def close(self) -> None:
        """Closes the port, and stops; what is not done goes on at the next start."""
        self._held.close()

    def _stored(self, event: evt.Event) -> int:
        """Keeps a film and makes its job, and only then says so."""
        data = event.encoded_dataset()
        try:
            header = dcmread(BytesIO(data), specific_tags=["SOPInstanceUID", "SOPClassUID"], stop_before_pixels=True)
            instance = str(header.SOPInstanceUID)
        except Exception:
            # A stranger wrote it, and pydicom raises whatever comes up.
            return NOT_UNDERSTOOD
        request: Any = event.request
        if instance != request.AffectedSOPInstanceUID or header.SOPClassUID != request.AffectedSOPClassUID:
            return NOT_AS_SAID
        key = key_of(instance, self.question.digest)
        # One at a time: who takes a film back must not take another's.
        with self._door:
            try:
                if not self._known(key):
                    self._inbox.keep(key, data)
                    self._enqueue(key, event.assoc.requestor.ae_title)
            except (LucencyError, OSError):
                with suppress(LucencyError, OSError):
                    if not self._known(key):
                        self._inbox.clear(key)
                return OUT_OF_RESOURCES
        return SUCCESS

    def _taken_up(self, key: str) -> None:
        """Killed between a film and its job: the sender has not heard of success and may or may not send it again."""
        instance = str(work.header_of(self._inbox.film(key)).get("SOPInstanceUID"))
        if key == key_of(instance, self.question.digest):
            self._enqueue(key, "")
        else:
            # It came for another question, which nobody asks any more.
            self._inbox.clear(key)

    def _known(self, key: str) -> bool:
        return self.jobs.have(key)

    def _enqueue(self, key: str, caller: str) -> None:
        self.jobs.enqueue(EXPLAIN, EXPLAIN, {"film": key, "caller": caller, "asked": self.question.digest}, key=key)

    def _explain(self, run: Run, film: str, caller: str, asked: str) -> Json:
        """The job of a film that came."""

        @_waiting_for_room
        def explained() -> Json:
            path, saved = self._inbox.film(film), self._inbox.results(film) / "explanation.lucency"
            found: dict[str, Any] = dict(work.about(work.header_of(path)))
            if saved.is_file():
                # Killed after the map was kept and before that was noted.
                return {**found, **work.said(Explanation.load(saved))}
            if asked != self.question.digest:
                raise ParameterError(
                    "It came while another question was asked; start the listener with that one and retry it."
                )
            made = work.explain(path, self.question, self.rules, stop=run.stop, on_progress=run.progress)
            if isinstance(made, str):
                return {**found, "refused": made}
            if not run.stop.is_set():
                saved.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                made.save(saved)
            return {**found, **work.said(made)}

        @_waiting_for_room
        def derived() -> Json:
            results = self._inbox.results(film)
            explanation = Explanation.load(results / "explanation.lucency")
            return work.derive(explanation, self._inbox.film(film), results, secret=self._secret)

        found = run.step("explain", explained, retry=DISK)
        if "refused" in found:
            run.step("clear", self._inbox.clear, film)
            return found
        objects = run.step("derive", derived, retry=DISK)
        run.step("hand over", _waiting_for_room(self._hand_over), film, objects, retry=DISK)
        return {**found, "objects": len(objects)}

    def _hand_over(self, film: str, objects: list[str]) -> None:
        self.jobs.enqueue(SEND, SEND, {"film": film, "objects": objects}, key=sending(film))

    def _send(self, run: Run, film: str, objects: list[str]) -> Json:
        """The job of what was derived from a film."""
        tries = 0

        def sent() -> Json:
            nonlocal tries
            folder = self._inbox.results(film)
            try:
                delivery = self.destination.deliver([folder / name for name in objects])
            except NotKeptError as error:
                tries += 1
                if tries >= TRIES:
                    raise RefusedError(str(error)) from error
                raise
            return {
                "to": self.destination.name,
                "kept": list(delivery.kept),
                "left_out": dict(delivery.left_out),
                "verified": delivery.verified,
            }

        found = run.step("send", sent, retry=self._away)
        run.step("clear", self._inbox.clear, film)
        return found


def _waiting_for_room(step: Callable[..., Json]) -> Callable[..., Json]:
    """Tells a full disk from everything else that can go wrong with a file, which no waiting mends."""

    @wraps(step)
    def tried(*arguments: Any) -> Json:
        try:
            return step(*arguments)
        except (LucencyError, OSError) as error:
            if no_room(error):
                raise NoRoomError(str(error)) from error
            raise

    return tried


def no_room(error: BaseException | None) -> bool:
    """Whether a full disk is at the bottom of it; NumPy and SQLite say that in words only."""
    while error is not None:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or any(words in str(error) for words in (" requested and ", "disk is full")):
            return True
        error = error.__cause__
    return False
