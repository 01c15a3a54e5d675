"""A PACS and back: with real Orthanc, and the programs of dcmtk as the other side."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

pytest.importorskip("dbos", reason="DBOS is not installed")
pytest.importorskip("pynetdicom", reason="pynetdicom is not installed")

from lucency import Explainer
from lucency.pacs import Access, Listener, Row, destination, worklist
from lucency.pacs.work import Question
from nets import Window, classifier_of
from orthanc import MISSING, Orthanc
from radiographs import film

needs_orthanc = pytest.mark.skipif(bool(MISSING), reason=MISSING)
needs_dcmtk = pytest.mark.skipif(shutil.which("storescu") is None, reason="dcmtk is not installed")


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("orthanc")) as found:
        yield found


def question() -> Question:
    return Question(Explainer(classifier_of(Window((10, 30), (20, 50))), method="occlusion", patch=8), 0)


def radiograph(folder: Path, number: int = 1, **tags: Any) -> Path:
    """A film that differs from the others in its pixels and identifiers."""
    rows, columns = np.mgrid[:64, :80]
    values = (500 + 30 * rows + 9 * columns + 17 * number).astype(np.uint16)
    uid = f"1.2.826.0.1.3680043.2.{number}"
    path = film(folder / f"film-{number}.dcm", values, StudyInstanceUID=uid, SeriesInstanceUID=f"{uid}.9", **tags)
    data = pydicom.dcmread(path)
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"{uid}.1"
    for keyword, value in tags.items():
        setattr(data, keyword, value)
    data.save_as(path)
    return path


def storescu(port: int, *files: Path, aec: str = "LUCENCY", aet: str = "XRAY", more: tuple[str, ...] = ()) -> int:
    command = ["storescu", *more, "-aec", aec, "-aet", aet, "127.0.0.1", str(port), *map(str, files)]
    return subprocess.run(command, capture_output=True, timeout=60).returncode


def until(listener: Listener, check: Callable[[list[Row]], bool], seconds: float = 30.0) -> list[Row]:
    end = time.monotonic() + seconds
    while True:
        rows = worklist(listener.folder)
        if check(rows):
            return rows
        assert time.monotonic() < end, rows
        time.sleep(0.1)


def all_in(*states: str) -> Callable[[list[Row]], bool]:
    return lambda rows: bool(rows) and all(row.state in states for row in rows)


@contextmanager
def listening(folder: Path, where: str, **how: Any) -> Iterator[Listener]:
    access = how.pop("access", Access())
    with Listener(
        folder, how.pop("question", None) or question(), destination(where, aet="LUCENCY", access=access),
        port=0, most=0.5, **how,
    ) as listener:  # fmt: skip
        yield listener


@needs_orthanc
@needs_dcmtk
@pytest.mark.parametrize("way", ["dimse", "web"])
def test_a_film_goes_out_and_its_map_comes_back(orthanc: Orthanc, tmp_path: Path, way: str) -> None:
    source = radiograph(tmp_path, 101 if way == "dimse" else 102)
    header = pydicom.dcmread(source)
    asked = question()
    where = orthanc.node if way == "dimse" else orthanc.url
    with listening(tmp_path / "place", where, question=asked) as listener:
        echo = ["echoscu", "-aec", "LUCENCY", "127.0.0.1", str(listener.port)]
        assert subprocess.run(echo, capture_output=True).returncode == 0
        assert storescu(listener.port, source) == 0
        (row,) = until(listener, all_in("sent", "failed"))
        # Sent again it is not explained again.
        assert storescu(listener.port, source) == 0
        time.sleep(0.5)
        assert worklist(listener.folder) == [row]
    assert (row.state, row.why, row.verified, row.kept) == ("sent", "", True, 6)
    assert (row.caller, row.modality, row.view, row.target) == ("XRAY", "DX", "PA", "c0")
    assert row.sop_instance == header.SOPInstanceUID
    assert list((tmp_path / "place").rglob("*.dcm")) == []
    there = [orthanc.file(uid) for uid in orthanc.instances()]
    mine = [one for one in there if one.StudyInstanceUID == header.StudyInstanceUID]
    assert {one.Modality for one in mine} == {"OT", "PR", "SR", "SEG"} or len(mine) == 6
    assert {str(one.PatientName) for one in mine} == {str(header.PatientName)}
    (found,) = [one for one in mine if "FloatPixelData" in one]
    values = np.frombuffer(found.FloatPixelData, "<f4").reshape(found.Rows, found.Columns)
    expected = asked.explainer(source, 0).heatmap
    assert np.array_equal(values, expected)
