"""Hostile files end in one sentence: soon, without a crash, and without memory that the file cannot be worth."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import files
import fuzz_files
import numpy as np
import pytest

from kinds import L8, VOXELS, image, itk, nifti, slices
from lucency import Scan, read_scan
from lucency.errors import ScanError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and limits of POSIX")


LARGEST_CHILD = """
import contextlib, resource, sys
from lucency import read_scan
from lucency.errors import ScanError
from lucency.reading import worker
with contextlib.suppress(ScanError):
    read_scan(sys.argv[1])
worker._WORKER.close()
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@contextmanager
def soon(seconds: float = 10, mebibytes: int = 400) -> Iterator[None]:
    """The time, and the memory of this process; the worker has limits of its own, with tests of their own."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.monotonic() - start < seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < mebibytes * 1024


def refused(path: Path, says: str) -> None:
    with soon(), pytest.raises(ScanError, match=says) as caught:
        read_scan(path)
    text = str(caught.value)
    assert text.isprintable()
    assert text.endswith(".")


def test_pipes_sockets_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    refused(tmp_path / "x.png", "no regular file")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "x.dcm"))
        refused(tmp_path / "x.dcm", "cannot be opened")
    refused(Path("/dev/zero"), "no regular file")
    refused(Path("/dev/null"), "no regular file")
    (tmp_path / "films").mkdir()
    os.mkfifo(tmp_path / "films" / "1.dcm")
    refused(tmp_path / "films", "without DICOM slices")


def test_an_idle_standard_input_is_not_waited_for() -> None:
    code = "import lucency\ntry: lucency.read_scan('/dev/stdin')\nexcept lucency.LucencyError as error: print(error)"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert "no regular file" in child.stdout.read()
    child.communicate()
    assert child.returncode == 0


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "b.png")
    refused(tmp_path / "a.png", "cannot be opened")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    refused(tmp_path / "a.png", "cannot be opened")


@pytest.mark.parametrize(
    "name",
    [
        "x" * 300 + ".png",
        "a\0b.png",
        os.fsdecode(b"\xff\xfe.png"),
        "a\nb\x1b[31m.png",
        "[bold][red].png",
        "\u202egnp.x",
    ],
)
def test_names_of_every_kind_stand_in_one_printable_sentence(tmp_path: Path, name: str) -> None:
    refused(tmp_path / name, "cannot be opened")
    if len(name) < 200 and "\0" not in name:
        (tmp_path / name).write_bytes(b"rubbish")
        refused(tmp_path / name, "damaged|is no DICOM")
        image("x.png", L8)(tmp_path).rename(tmp_path / name)
        assert read_scan(tmp_path / name).source.isprintable()


@pytest.mark.parametrize("name", files.SIZED)
def test_a_header_that_promises_too_much_is_refused_before_decoding(tmp_path: Path, name: str) -> None:
    size = 16_400 if name == "x.webp" else 60_000
    (tmp_path / name).write_bytes(files.SIZED[name](size, size))
    refused(tmp_path / name, "more than the 268,435,456 that are read" if name != "x.npy" else "damaged")


@pytest.mark.parametrize("name", [*files.SIZED, "x.nii", "x.nrrd", "slices"])
def test_one_limit_holds_for_every_kind(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    if name == "slices":
        path.mkdir()
        slices(path)
    elif name == "x.nii":
        path = nifti(VOXELS)(tmp_path)
    elif name == "x.nrrd":
        pytest.importorskip("SimpleITK")
        itk(name)(tmp_path)
    elif name == "x.npy":
        np.save(path, L8)
    else:
        image(name, L8)(tmp_path)
    assert isinstance(read_scan(path), Scan)
    monkeypatch.setenv("LUCENCY_MAX_PIXELS", "100")
    refused(path, "more than the 100 that are read|more than any scan")


@pytest.mark.parametrize("name", [name for name in files.SIZED if name not in ("x.gif", "x.jp2")])
def test_a_header_that_promises_more_than_the_file_holds(tmp_path: Path, name: str) -> None:
    """Within the limit of pixels, and not in the file: no memory for what is not there, or not for long."""
    (tmp_path / name).write_bytes(files.SIZED[name](7_000, 7_000))
    refused(tmp_path / name, "damaged|cannot be decoded|to decode|crash")


def test_a_gif_may_hold_less_than_its_canvas(tmp_path: Path) -> None:
    (tmp_path / "x.gif").write_bytes(files.gif_of(1_500, 1_000))
    assert read_scan(tmp_path / "x.gif").shape == (1_000, 1_500)


def test_a_jpeg_2000_of_a_few_bytes_takes_no_gibibytes(tmp_path: Path) -> None:
    """The worker has 8 times the decoded size, at most ``LUCENCY_MAX_DECODE_MEMORY``."""
    (tmp_path / "x.jp2").write_bytes(files.jpeg_2000_of(16_000, 16_000))
    refused(tmp_path / "x.jp2", "MiB to decode|cannot be decoded|longer than|same value")
    # A process of its own: this one has had other children, as large as they liked.
    told = [sys.executable, "-c", LARGEST_CHILD, str(tmp_path / "x.jp2")]
    assert int(subprocess.run(told, capture_output=True, check=True).stdout) < 2.5 * 2**20


def test_strips_that_inflate_without_end(tmp_path: Path) -> None:
    (tmp_path / "x.tif").write_bytes(files.tiff_bomb(2**28))
    refused(tmp_path / "x.tif", "more than .* MiB to decode|cannot be decoded|same value")


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_pictures_without_rows(tmp_path: Path, bits: int) -> None:
    (tmp_path / "x.tif").write_bytes(files.tiff_of(8, 0, bits, pixels=bytes(256)))
    refused(tmp_path / "x.tif", "damaged|has shape")


def test_directories_that_go_round(tmp_path: Path) -> None:
    (tmp_path / "x.tif").write_bytes(files.tiff_loop())
    with soon():
        try:
            read_scan(tmp_path / "x.tif")
        except ScanError as error:
            assert str(error).endswith(".")  # noqa: PT017


def test_volumes_that_lie(tmp_path: Path) -> None:
    refused(files.nifti_of(tmp_path / "x.nii", 600, 600, 600), "ends before its pixels do")
    refused(files.nifti_of(tmp_path / "x.nii.gz", 600, 600, 600), "ends before its pixels do")
    refused(files.nifti_of(tmp_path / "x.nii", 30_000, 30_000, 3), "more than")
    refused(files.nifti_of(tmp_path / "x.nii", -4, 5, 6), "axis of length -4")
    refused(files.nifti_far(tmp_path / "x.nii.gz"), "rubbish")
    with soon():
        assert read_scan(files.gzip_bomb(tmp_path / "x.nii.gz", 2**28)).shape == (6, 5, 4)


def test_arrays_whose_header_is_endless_or_no_header(tmp_path: Path) -> None:
    for header in (b"{" * 60_000, b"{'descr': '<f4', 'shape': (2, 2), 'fortran_order': False, " + b" " * 60_000 + b"}"):
        (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + bytes(16))
        refused(tmp_path / "x.npy", "damaged")


def test_a_file_of_many_gibibytes_is_refused_by_its_size(tmp_path: Path) -> None:
    with (tmp_path / "x.png").open("wb") as file:
        file.write(image("y.png", L8)(tmp_path).read_bytes())
        file.truncate(2**33)
    refused(tmp_path / "x.png", "more than any scan")


def test_drawn_changes_are_read_or_refused() -> None:
    """A little of the campaign; its faults are found by ``make fuzz``."""
    assert fuzz_files.main(3, seed=0) == 0
