"""A PACS and back: with real Orthanc, and the programs of dcmtk as the other side."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

pytest.importorskip("dbos", reason="DBOS is not installed")
pytest.importorskip("pynetdicom", reason="pynetdicom is not installed")

from pynetdicom import AE

from lucency import Explainer
from lucency.cli import main
from lucency.errors import LucencyError, OutputError, ParameterError
from lucency.pacs import (
    Access,
    Listener,
    NotKeptError,
    Row,
    Rules,
    UnreachableError,
    destination,
    inbox,
    worklist,
)
from lucency.pacs.deidentify import deidentified, new_uid
from lucency.pacs.work import Question
from nets import Window, classifier_of
from orthanc import MISSING, Orthanc, free_port
from radiographs import film

# pynetdicom leaves it to the garbage collector to close a socket that nobody answers.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <:ResourceWarning")


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """What is left to the garbage collector is collected here, and not in the middle of somebody else's test."""
    yield
    gc.collect()


needs_orthanc = pytest.mark.skipif(bool(MISSING), reason=MISSING)
needs_dcmtk = pytest.mark.skipif(shutil.which("storescu") is None, reason="dcmtk is not installed")
needs_dciodvfy = pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools are not installed")
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
OBJECTS = 6
USER, PASSWORD = "lucency", "s3cret-p4ss"


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("orthanc"), users={USER: PASSWORD}) as found:
        yield found


@pytest.fixture
def password(tmp_path: Path) -> Access:
    (tmp_path / "password").write_text(PASSWORD + "\n")
    return Access(user=USER, password_file=tmp_path / "password")


def question(patch: int = 16) -> Question:
    explainer = Explainer(classifier_of(Window((10, 30), (20, 50))), method="occlusion", patch=patch, stride=patch)
    return Question(explainer, 0)


def radiograph(folder: Path, number: int = 1, **tags: Any) -> Path:
    """A film that differs from the others in its pixels and identifiers."""
    rows, columns = np.mgrid[:64, :80]
    values = (500 + 30 * rows + 9 * columns + 17 * number).astype(np.uint16)
    uid = f"1.2.826.0.1.3680043.2.{number}"
    path = film(folder / f"film-{number}.dcm", values, StudyInstanceUID=uid, SeriesInstanceUID=f"{uid}.9", **tags)
    data = pydicom.dcmread(path)
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"{uid}.1"
    data.save_as(path)
    return path


def storescu(port: int, *files: Path, more: tuple[str, ...] = ()) -> int:
    command = ["storescu", *more, "-aec", "LUCENCY", "-aet", "XRAY", "127.0.0.1", str(port), *map(str, files)]
    return subprocess.run(command, capture_output=True, timeout=30).returncode


def store(port: int, data: Dataset, *, aet: str = "XRAY", aec: str = "LUCENCY", tls: Any = None) -> int | None:
    """The status of a C-STORE; ``None`` where nobody lets us in."""
    ae = AE(ae_title=aet)
    ae.add_requested_context(data.SOPClassUID, data.file_meta.TransferSyntaxUID)
    association = ae.associate("127.0.0.1", port, ae_title=aec, tls_args=tls)
    if not association.is_established:
        return None
    try:
        return int(association.send_c_store(data).get("Status", -1))
    finally:
        association.release()


def until(folder: Path, check: Callable[[list[Row]], bool], seconds: float = 40.0) -> list[Row]:
    end = time.monotonic() + seconds
    while True:
        rows = worklist(folder)
        if rows and check(rows):
            return rows
        assert time.monotonic() < end, rows
        time.sleep(0.1)


def all_in(*states: str) -> Callable[[list[Row]], bool]:
    return lambda rows: all(row.state in states for row in rows)


def nobody() -> str:
    return f"NOBODY@127.0.0.1:{free_port()}"


def files_in(folder: Path) -> list[Path]:
    """Films and results that lie there."""
    return [path for name in ("films", "results") for path in (folder / name).rglob("*") if path.is_file()]


@contextmanager
def listening(
    folder: Path, where: str, *, access: Access | None = None, tls: bool = False, **how: Any
) -> Iterator[Listener]:
    asked = how.pop("question", None) or question()
    to = destination(where, aet="LUCENCY", access=access, tls=tls)
    with Listener(folder, asked, to, port=0, most=0.5, access=how.pop("serving", None), **how) as listener:
        yield listener


def map_of(objects: list[Dataset]) -> np.ndarray[Any, np.dtype[np.float32]]:
    (found,) = [one for one in objects if "FloatPixelData" in one]
    return np.frombuffer(found.FloatPixelData, "<f4").reshape(found.Rows, found.Columns)


@needs_orthanc
@needs_dcmtk
@pytest.mark.parametrize("way", ["dimse", "web"])
def test_a_film_goes_out_and_its_map_comes_back(orthanc: Orthanc, password: Access, tmp_path: Path, way: str) -> None:
    source = radiograph(tmp_path, 101 if way == "dimse" else 102)
    header = pydicom.dcmread(source)
    asked, where, place = question(), orthanc.node if way == "dimse" else orthanc.url, tmp_path / "place"
    with listening(place, where, question=asked, access=password) as listener:
        echo = ["echoscu", "-aec", "LUCENCY", "127.0.0.1", str(listener.port)]
        assert subprocess.run(echo, capture_output=True).returncode == 0
        assert storescu(listener.port, source) == 0
        (row,) = until(place, all_in("sent", "failed"))
        # Sent again it is not explained again.
        assert storescu(listener.port, source) == 0
        assert worklist(place) == [row]
    assert (row.state, row.why, row.verified, row.kept) == ("sent", "", True, OBJECTS)
    assert (row.caller, row.modality, row.view, row.target) == ("XRAY", "DX", "PA", "c0")
    assert row.sop_instance == header.SOPInstanceUID
    assert files_in(place) == []
    there = list(orthanc.files().values())
    mine = [one for one in there if one.StudyInstanceUID == header.StudyInstanceUID]
    assert len(mine) == OBJECTS
    assert {str(one.PatientName) for one in mine} == {str(header.PatientName)}
    assert np.array_equal(map_of(mine), asked.explainer(source, 0).heatmap)
    if way == "web":
        # Asked something else it is another question.
        with listening(place, where, question=question(32), access=password) as listener:
            assert storescu(listener.port, source) == 0
            assert len(until(place, lambda rows: len(rows) == 2 and all_in("sent")(rows))) == 2
        assert len(orthanc.instances()) == len(there) + OBJECTS


def test_the_rules_say_why_not(tmp_path: Path) -> None:
    rules = Rules(views=["PA", "AP"], body_parts=["CHEST", "UNKNOWN"])
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, ""),
        ({"BodyPartExamined": ""}, ""),
        ({"Modality": "CT"}, "Its modality is CT, not CR or DX."),
        ({"ViewPosition": "LL"}, "Its view is LL, not PA or AP."),
        ({"BodyPartExamined": "HAND"}, "Its body part is HAND, not CHEST or UNKNOWN."),
        ({"Manufacturer": "Lucency"}, "It is a result of Lucency's own, not a film."),
        ({"PresentationIntentType": "FOR PROCESSING"},
         "It is a raw film, FOR PROCESSING; the one for presentation is explained."),
        ({"NumberOfFrames": 3}, "It holds 3 frames, not a single film."),
    ]  # fmt: skip
    for tags, reason in cases:
        assert rules.refusal(pydicom.dcmread(radiograph(tmp_path, **tags))) == reason
    hand = pydicom.dcmread(radiograph(tmp_path, BodyPartExamined="HAND"))
    assert Rules().refusal(hand) == ""
    assert Rules().refusal(hand, chest=True).startswith("Its body part is HAND, not CHEST or")
    del hand.Rows
    assert Rules().refusal(hand) == "It holds no picture."
    broken = Dataset()
    broken.Rows = broken.Columns = 1
    broken.add_new(0x00080060, "LO", "\x1b[31mCR\n")
    assert "\x1b" not in Rules().refusal(broken)


@needs_dcmtk
def test_what_is_not_explained_is_kept_with_its_reason_and_no_film(tmp_path: Path) -> None:
    place = tmp_path / "place"
    files = [radiograph(tmp_path, 2, ViewPosition="LL"), radiograph(tmp_path, 3, Modality="CT")]
    with listening(place, nobody(), rules=Rules(views=["PA"])) as listener:
        assert storescu(listener.port, *files) == 0
        rows = until(place, lambda rows: len(rows) == 2 and all_in("not explained")(rows))
    assert sorted(row.why for row in rows) == ["Its modality is CT, not CR or DX.", "Its view is LL, not PA."]
    assert files_in(place) == []


def test_a_film_that_the_model_doubts_is_not_explained_unless_that_is_wanted(tmp_path: Path) -> None:
    from lucency import load_classifier
    from lucency.pacs.work import explain

    asked = Question(Explainer(load_classifier("lucency:effusion"), method="occlusion", patch=112, stride=112))
    ramp = radiograph(tmp_path)
    refused = explain(ramp, asked, Rules())
    assert isinstance(refused, str)
    assert "does not look like a frontal chest film" in refused
    found = explain(ramp, asked, Rules(doubtful=True))
    assert not isinstance(found, str)


@needs_orthanc
@needs_dcmtk
def test_a_pacs_that_is_away_gets_it_when_it_is_back(tmp_path: Path) -> None:
    away, place = Orthanc(tmp_path / "orthanc"), tmp_path / "place"
    with listening(place, away.node) as listener:
        assert storescu(listener.port, radiograph(tmp_path)) == 0
        (row,) = until(place, lambda rows: rows[0].tries >= 2)
        assert (row.state, row.why, bool(row.again)) == ("sending", f"{away.node} does not answer.", True)
    # The listener was stopped meanwhile, and goes on.
    with away, listening(place, away.node):
        (row,) = until(place, all_in("sent"))
        assert row.verified
        assert row.kept == OBJECTS == len(away.instances())


LISTENER = """
import sys, threading
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_pacs import listening
with listening(Path(sys.argv[1]), sys.argv[2]) as listener:
    print(listener.port, flush=True)
    threading.Event().wait()
"""


@needs_orthanc
@needs_dcmtk
def test_killed_again_and_again_each_film_is_there_once(tmp_path: Path) -> None:
    place, films = tmp_path / "place", [radiograph(tmp_path, n) for n in range(1, 4)]
    with Orthanc(tmp_path / "orthanc") as pacs:
        for number in range(2):
            command = [sys.executable, "-c", LISTENER.format(tests=str(Path(__file__).parent)), str(place), pacs.node]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            try:
                assert process.stdout is not None
                port = int(process.stdout.readline())
                if number < 1:
                    assert storescu(port, *films) == 0
                    until(place, lambda rows: any(row.done for row in rows))
                else:
                    rows = until(place, lambda rows: all_in("sent", "failed")(rows))
            finally:
                os.kill(process.pid, signal.SIGKILL)
                said = process.communicate()
            assert said == ("", "")
        assert len(rows) == 3
        assert {row.state for row in rows} == {"sent"}
        there = list(pacs.files().values())
    assert len(there) == 3 * OBJECTS
    asked = question()
    for path in films:
        mine = [one for one in there if one.StudyInstanceUID == pydicom.dcmread(path).StudyInstanceUID]
        assert np.array_equal(map_of(mine), asked.explainer(path, 0).heatmap)
    assert files_in(place) == []


def test_without_room_the_sender_hears_so_and_nothing_half_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, data = tmp_path / "place", pydicom.dcmread(radiograph(tmp_path))

    def no_room(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    def no_room_for_the_job(*_: object, **__: object) -> None:
        raise OutputError("The jobs cannot be written (database or disk is full); free space.")

    with listening(place, nobody()) as listener:
        with monkeypatch.context() as patch:
            # The bytes went in, and cannot be brought onto the disk.
            patch.setattr("lucency.writing.synced", no_room)
            assert store(listener.port, data) == 0xA700
        assert files_in(place) == []
        with monkeypatch.context() as patch:
            patch.setattr(listener.jobs, "enqueue", no_room_for_the_job)
            assert store(listener.port, data) == 0xA700
        assert files_in(place) == []
        assert worklist(place) == []
        assert store(listener.port, data) == 0
        until(place, all_in("sending"))


def test_an_accepted_film_is_on_the_disk_before_success_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, data, synced = tmp_path / "place", pydicom.dcmread(radiograph(tmp_path)), []
    monkeypatch.setattr("lucency.pacs.inbox.whole", _noting(inbox.whole, synced))
    with listening(place, nobody()) as listener:
        jobs = listener.jobs.enqueue
        monkeypatch.setattr(listener.jobs, "enqueue", lambda *a, **k: (synced.append("job"), jobs(*a, **k))[1])
        assert store(listener.port, data) == 0
        assert synced[:2] == ["film", "job"]
        # Killed between the two, the film lies there without a job and is taken up.
        (lost,) = [path for path in files_in(place) if path.parent.parent.name == "films"]
        assert pydicom.dcmread(lost).PixelData == data.PixelData
    other = tmp_path / "other"
    (other / "films" / lost.stem[:2]).mkdir(parents=True)
    shutil.copy(lost, other / "films" / lost.stem[:2])
    # What came for a question that nobody asks any more had no success answered; it goes.
    (other / "films" / "00").mkdir()
    shutil.copy(lost, other / "films" / "00" / f"{'0' * 32}.dcm")
    with listening(other, nobody()):
        assert [row.film for row in until(other, all_in("sending"))] == [lost.stem]
    assert not (other / "films" / "00" / f"{'0' * 32}.dcm").exists()


def _noting(whole: Any, said: list[str]) -> Any:
    @contextmanager
    def noting(path: Path) -> Iterator[Path]:
        with whole(path) as part:
            yield part
        said.append("film")

    return noting


def test_a_film_that_is_not_what_is_said_of_it_is_not_taken(tmp_path: Path) -> None:
    from pynetdicom import dsutils

    place, data = tmp_path / "place", pydicom.dcmread(radiograph(tmp_path))
    with listening(place, nobody()) as listener:
        ae = AE(ae_title="XRAY")
        ae.add_requested_context(data.SOPClassUID, data.file_meta.TransferSyntaxUID)
        association = ae.associate("127.0.0.1", listener.port, ae_title="LUCENCY")
        encode = dsutils.encode
        try:
            for lie, status in (
                (lambda _: b"\x08\x00\x18\x00UI\x04\x001.2\0" + encode(data, False, True)[:0], 0xA900),
                (lambda _: b"no dicom at all" * 20, 0xC000),
            ):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr("pynetdicom.association.encode", lambda ds, *_, lie=lie: lie(ds))
                    assert association.send_c_store(data).Status in (status, 0xC000)
        finally:
            association.release()
        assert files_in(place) == []
        assert worklist(place) == []


def test_only_who_may_call_is_let_in(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="--allow"):
        Listener(tmp_path / "p", question(), destination(nobody(), aet="LUCENCY"), host="0.0.0.0")
    place, data = tmp_path / "place", pydicom.dcmread(radiograph(tmp_path))
    with listening(place, nobody(), allowed=["XRAY"], host="0.0.0.0") as listener:
        assert store(listener.port, data, aet="STRANGER") is None
        assert store(listener.port, data, aec="OTHER") is None
        assert store(listener.port, data) == 0
        taken = Listener(tmp_path / "q", question(), destination(nobody(), aet="LUCENCY"), port=listener.port)
        with pytest.raises(LucencyError):
            taken.start()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and two certificates for 127.0.0.1: one by it, one by nobody."""
    place = tmp_path_factory.mktemp("certificates")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=place)

    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    host = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    openssl(*new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority")
    openssl(*new, "-keyout", "own.key", "-out", "own.pem", *host, "-CA", "ca.pem", "-CAkey", "ca.key",
            "-addext", "basicConstraints=critical,CA:FALSE")  # fmt: skip
    openssl(*new, "-keyout", "stranger.key", "-out", "stranger.pem", *host)
    return place


@needs_openssl
@needs_dcmtk
def test_tls_and_mutual_tls(certificates: Path, tmp_path: Path) -> None:
    at, place, path = certificates, tmp_path / "place", radiograph(tmp_path)
    data = pydicom.dcmread(path)
    own = Access(at / "own.pem", at / "own.key", at / "ca.pem")
    stranger = Access(at / "stranger.pem", at / "stranger.key", at / "ca.pem")
    with listening(place, nobody(), serving=own) as listener:
        assert store(listener.port, data) is None
        assert store(listener.port, data, tls=(stranger.calling(), "127.0.0.1")) in (None, -1)
        nothing = Access(authorities=at / "ca.pem").calling()
        assert store(listener.port, data, tls=(nothing, "127.0.0.1")) in (None, -1)
        assert worklist(place) == []
        more = ("+tls", str(at / "own.key"), str(at / "own.pem"), "+cf", str(at / "ca.pem"))
        with socket.create_connection(("127.0.0.1", listener.port)):
            # Who calls and says nothing keeps nobody out.
            assert storescu(listener.port, path, more=more) == 0
        # And to send: another's certificate is checked, and one's own is shown.
        node = f"LUCENCY@127.0.0.1:{listener.port}"
        assert destination(node, aet="XRAY", access=own, tls=True).deliver([path]).kept == (data.SOPInstanceUID,)
        for access in (stranger, Access(own.certificate, own.key, at / "stranger.pem")):
            with pytest.raises(UnreachableError, match="over TLS"):
                destination(node, aet="XRAY", access=access, tls=True).deliver([path])
    for access in (Access(at / "none.pem", at / "own.key"), Access(at / "own.pem", at / "ca.pem")):
        with pytest.raises(ParameterError, match="certificates cannot be used"):
            access.served()
    with pytest.raises(ParameterError, match="needs its key"):
        Access(at / "own.pem")


class Web(BaseHTTPRequestHandler):
    """An archive that answers 200 to everything and keeps nothing, or answers something else."""

    status, wanted, seen = 200, "", []  # type: ignore[var-annotated]

    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        self.seen.append((self.command, self.headers.get("Transfer-Encoding"), self.headers.get("Authorization")))
        refused = self.wanted and self.headers.get("Authorization") != self.wanted
        body = b"[]" if self.command == "GET" else b"{}"
        self.send_response(401 if refused else self.status)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815


class Quiet(ThreadingHTTPServer):
    """Says nothing of a caller who hangs up."""

    def handle_error(self, *_: object) -> None:
        pass


@contextmanager
def web(*, tls: ssl.SSLContext | None = None, **how: Any) -> Iterator[tuple[str, list[Any]]]:
    handler = type("Handler", (Web,), {**how, "seen": []})
    with Quiet(("127.0.0.1", 0), handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            scheme = "http" if tls is None else "https"
            yield f"{scheme}://127.0.0.1:{server.server_address[1]}/dicom-web", handler.seen  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            thread.join()


def test_two_hundred_and_nothing_kept_is_no_success(tmp_path: Path) -> None:
    place, path = tmp_path / "place", radiograph(tmp_path, 1)
    big = radiograph(tmp_path, 2)
    data = pydicom.dcmread(big)
    data.add_new(0x00420011, "OB", b"\0" * 3_000_000)
    data.save_as(big)
    with web() as (url, seen):
        with pytest.raises(NotKeptError, match="does not find it"):
            destination(url, aet="LUCENCY").deliver([big])
        assert seen[0][:2] == ("POST", None), "never in chunks"
        with listening(place, url) as listener:
            assert store(listener.port, pydicom.dcmread(path)) == 0
            (row,) = until(place, all_in("failed"))
            assert "said that it keeps overlay.dcm and does not find it" in row.why
            # All is kept for another try.
            assert len(files_in(place)) == OBJECTS + 2
    for status, kind in ((503, UnreachableError), (401, UnreachableError), (500, NotKeptError), (400, LucencyError)):
        with web(status=status) as (url, _), pytest.raises(kind):
            destination(url, aet="LUCENCY").deliver([path])


@needs_openssl
def test_a_token_or_password_goes_to_the_archive_and_nowhere_else(
    certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = radiograph(tmp_path)
    (tmp_path / "token").write_text("t0k3n\n")
    at = certificates
    context = Access(at / "own.pem", at / "own.key").served()
    bearer = Access(authorities=at / "ca.pem", token_file=tmp_path / "token")
    basic = Access(authorities=at / "ca.pem", user=USER)
    monkeypatch.setenv("LUCENCY_DICOMWEB_PASSWORD", PASSWORD)
    monkeypatch.setenv("LUCENCY_DEBUG", "")
    with web(tls=context, wanted="Bearer t0k3n") as (url, seen):
        with pytest.raises(NotKeptError) as said:
            destination(url, aet="LUCENCY", access=bearer).deliver([path])
        assert {one[2] for one in seen} == {"Bearer t0k3n"}
        with pytest.raises(UnreachableError, match="401 at present; check user"):
            destination(url, aet="LUCENCY", access=basic).deliver([path])
        (tmp_path / "token").write_text("other\n")
        with pytest.raises(UnreachableError, match="401"):
            destination(url, aet="LUCENCY", access=bearer).deliver([path])
        with pytest.raises(UnreachableError, match="certificate is not believed"):
            destination(url, aet="LUCENCY").deliver([path])
    assert "t0k3n" not in str(said.value) + repr(bearer) + repr(destination(url, aet="A", access=bearer))
    for access in (Access(user=USER), Access(token_file=tmp_path / "token")):
        with pytest.raises(ParameterError, match="clear text"):
            destination("http://pacs.example/dicom-web", aet="LUCENCY", access=access).deliver([path])
    monkeypatch.delenv("LUCENCY_DICOMWEB_PASSWORD")
    with pytest.raises(ParameterError, match="password of lucency is missing"):
        destination("https://127.0.0.1/x", aet="LUCENCY", access=Access(user=USER)).deliver([path])
    assert capfd.readouterr() == ("", "")


def test_places_to_send_to_are_read_with_care() -> None:
    assert destination("ORTHANC@[::1]:104", aet="A").name == "ORTHANC@::1:104"
    for words in ("", "ORTHANC", "A@b", "A@b:0", "A@b:99999", "SEVENTEEN-LETTERS@b:1", "ftp://x/y", "https://", "http://[/",
                  "https://x/y?token=secret", "https://jane:secret@x/y", " @b:1"):  # fmt: skip
        with pytest.raises(ParameterError) as said:
            destination(words, aet="LUCENCY")
        assert "secret" not in str(said.value)


TEXTS = ("AE", "AS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UT")


def strings(data: Dataset) -> set[str]:
    """Every name, text, identifier, date and time in a dataset, however deep."""
    found: set[str] = set()
    for element in data.iterall():
        if (
            element.VR in ("AE", "AS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UT")
            and element.value
        ):
            many = element.value if isinstance(element.value, pydicom.multival.MultiValue) else [element.value]
            found |= {str(one) for one in many}
    return found


@needs_orthanc
def test_what_leaves_has_no_patient(orthanc: Orthanc, password: Access, tmp_path: Path) -> None:
    pytest.importorskip("dicomanonymizer", reason="dicom-anonymizer is not installed")
    place = tmp_path / "place"
    asked = Dataset()
    asked.AccessionNumber, asked.RequestingPhysician, asked.StudyInstanceUID = "A-NESTED", "Nested^Name", "1.2.3.4.5.6"
    source = radiograph(
        tmp_path, 300, RequestAttributesSequence=[asked], InstitutionName="Hospital", PatientComments="likes tea",
        OperatorsName="Oper^Ator", OtherPatientIDs=["X-1", "X-2"], StudyDescription="Of Mrs Doe",
    )  # fmt: skip
    data = pydicom.dcmread(source)
    data.add_new(0x00091001, "LO", "private Doe")
    data.save_as(source)
    held = set(orthanc.instances())
    wanted = question()
    with listening(place, orthanc.url, access=password, deidentify=True, question=wanted) as listener:
        assert store(listener.port, pydicom.dcmread(source)) == 0
        (row,) = until(place, all_in("sent", "failed"))
        assert (row.state, row.why) == ("sent", "")
    there = [one for uid, one in orthanc.files().items() if uid not in held]
    assert len(there) == OBJECTS
    # Codes, units and syntaxes are no identity.
    codes = {"SCT", "Chest", "postero-anterior", "51185008", "272479007", "ISO_IR 100", "US", "LOG", "DX", "CHEST"}
    own = {one for one in strings(data) - codes if not one.startswith("1.2.840.10008.")}
    assert {"A-NESTED", "Nested^Name", "1.2.3.4.5.6", "X-2", "likes tea", "20140301"} <= own
    for one in there:
        assert strings(one) & own == set(), one
        assert one.PatientIdentityRemoved == "YES"
        assert one.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
        assert one.get("ContentDate", "19700101") in ("19700101", "")
    assert np.array_equal(map_of(there), wanted.explainer(source, 0).heatmap)
    # One study as before, and the references hold together.
    assert len({one.StudyInstanceUID for one in there}) == 1
    secret = (place / "secret").read_bytes()
    film_uid = new_uid(str(data.SOPInstanceUID), secret)
    assert all(str(film_uid) in str(one) for one in there)
    assert (place / "secret").stat().st_mode & 0o077 == 0
    for name in ("a", "b"):
        deidentified(source, tmp_path / name, secret)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    if shutil.which("dciodvfy"):
        for one in there:
            one.save_as(tmp_path / "one.dcm")
            said = subprocess.run(["dciodvfy", str(tmp_path / "one.dcm")], capture_output=True, text=True)
            assert [line for line in said.stderr.splitlines() if line.startswith("Error")] == []


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert isinstance(end.value.code, int)
    return end.value.code


@needs_orthanc
def test_the_commands(
    orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lucency.cli.model.classifier_named", lambda *_, **__: question().explainer.classifier)
    monkeypatch.setenv("LUCENCY_DICOMWEB_PASSWORD", PASSWORD)
    good, lateral = radiograph(tmp_path, 401), radiograph(tmp_path, 402)
    data = pydicom.dcmread(lateral)
    data.StudyInstanceUID = pydicom.dcmread(good).StudyInstanceUID
    data.ViewPosition = "LL"
    data.save_as(lateral)
    assert command("pacs", "send", good, lateral, "--send-to", orthanc.node) == 0
    assert "has them, as it says when asked: 2 of 2." in capsys.readouterr().out
    study = ("--dicomweb", orthanc.url, "--user", USER, "--study", data.StudyInstanceUID)
    how = (
        "--method",
        "occlusion",
        "--set",
        "patch=16",
        "--set",
        "stride=16",
        "--view",
        "PA",
        "--folder",
        tmp_path / "p",
    )
    assert command("pacs", "fetch", *study, *how, "--out", tmp_path / "out", "--send-to", orthanc.url, "--json") == 0
    said = json.loads(capsys.readouterr().out)["films"]
    assert said[0]["sent"] == OBJECTS
    assert said[0]["verified"]
    assert said[1]["not explained"] == "Its view is LL, not PA."
    heatmap = np.load(Path(said[0]["folder"]) / "heatmap.npy")
    assert np.array_equal(heatmap, question().explainer(good, "c0").heatmap)
    assert (Path(said[0]["folder"]) / "report.html").is_file()
    series = ("--series", pydicom.dcmread(good).SeriesInstanceUID)
    assert command("pacs", "fetch", *study, *series, *how, "--out", tmp_path / "out") == 0
    assert capsys.readouterr().out.count("\n") == 1
    assert command("pacs", "fetch", *study[:-1], "1.2.3", *how, "--out", tmp_path / "out") == 2
    assert "holds no such study" in capsys.readouterr().err
    assert command("pacs", "fetch", *study, *how) == 2
    assert "nowhere to go" in capsys.readouterr().err
    assert command("pacs", "status", "--folder", tmp_path / "none") == 2
    assert "holds no jobs yet" in capsys.readouterr().err

    place = tmp_path / "place"
    with web(status=400) as (url, _), listening(place, url) as listener:
        assert store(listener.port, pydicom.dcmread(good)) == 0
        (row,) = until(place, all_in("failed"))
    assert command("pacs", "status", "--folder", place) == 0
    shown = capsys.readouterr().out
    assert "1 failed" in shown
    assert "refuses it and answers 400" in " ".join(shown.split())
    assert command("pacs", "status", "--folder", place, "--json", "--state", "sent") == 0
    assert json.loads(capsys.readouterr().out) == {"counts": {"failed": 1}, "films": []}
    assert command("pacs", "retry", "ffffffff", "--folder", place) == 2
    assert command("pacs", "retry", row.film[:12], "--folder", place) == 0
    capsys.readouterr()
    with listening(place, orthanc.node):
        assert until(place, all_in("sent"))[0].kept == OBJECTS
