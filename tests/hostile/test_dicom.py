"""No DICOM file kills, hangs or swells the process that reads it."""

from __future__ import annotations

import os
import re
import resource
import struct
import sys
import time
from pathlib import Path

import made_films as films
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate, get_frame

from bad_inputs import dicom
from lucency import LucencyError
from lucency.errors import ScanError
from lucency.reading import worker
from lucency.reading.dicom import read_dataset, read_dicom


def outcome(path: Path, data: bytes) -> str:
    """What reading the bytes says: one sentence, or nothing where they were read."""
    path.write_bytes(data)
    started = time.monotonic()
    try:
        read_dicom(path)
    except LucencyError as error:
        text = str(error)
        assert text.endswith(".")
        assert "\n" not in text
        return text
    finally:
        assert time.monotonic() - started < 22
    return ""


@pytest.mark.parametrize("syntax", films.COMPRESSED[1:])
def test_a_size_that_contradicts_the_picture_reaches_no_decoder(
    tmp_path: Path, syntax: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without this check single edits of these made the native decoders abort: JPEG-LS of 64 rows over 40, for one."""
    monkeypatch.setattr("lucency.reading.dicom.decode", None)
    for name in ("Rows", "Columns", "SamplesPerPixel"):
        for value in films.VALUES[name]:
            text = outcome(tmp_path / "x", films.edited(films.film(syntax), name, value))
            assert "damaged" in text or "more than" in text, (name, value, text)


@pytest.mark.parametrize("syntax", films.COMPRESSED)
def test_a_film_that_is_cut_reaches_no_decoder(tmp_path: Path, syntax: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoders make up the rest of a picture; one of JPEG-LS looks for its end for ever."""
    monkeypatch.setattr("lucency.reading.dicom.decode", None)
    for colour in (False, True) if syntax in films.COMPRESSED[:2] + films.COMPRESSED[5:] else (False,):
        data = films.film(syntax, colour)
        for size in (len(data) - 20, len(data) * 3 // 4):
            assert "ends in the middle of its pixels" in outcome(tmp_path / "x", data[:size])


def test_a_picture_without_end_in_a_file_that_has_one(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(films.film("JPEGLSNearLossless", colour=True))
    data = dcmread(path)
    frame = get_frame(data.PixelData, 0, number_of_frames=1)
    data.PixelData = encapsulate([frame[: len(frame) // 2]])
    with pytest.raises(ScanError, match="its data has no end"):
        read_dataset(data)


@pytest.mark.parametrize("syntax", ["RLELossless", "ExplicitVRLittleEndian"])
@pytest.mark.parametrize(("name", "value"), [("Rows", 20), ("Columns", 24), ("Rows", 41)])
def test_sizes_that_nothing_but_the_amount_of_data_contradicts(
    tmp_path: Path, syntax: str, name: str, value: int
) -> None:
    (tmp_path / "x").write_bytes(films.edited(films.film(syntax), name, value))
    if value > films.values(True, False).shape[0]:
        with pytest.raises(ScanError, match=r"of the 3,936 bytes|1920 vs. 1968 bytes"):
            read_dicom(tmp_path / "x")
    else:
        assert "bytes of pixels more than its header says" in str(read_dicom(tmp_path / "x").notices)


@pytest.mark.parametrize("syntax", films.COMPRESSED)
def test_one_word_of_the_header_of_a_compressed_film(tmp_path: Path, syntax: str) -> None:
    data = films.film(syntax)
    for name, value in (("BitsAllocated", 8), ("BitsAllocated", 32), ("BitsStored", 16), ("PixelRepresentation", 1)):
        outcome(tmp_path / "x", films.edited(data, name, value))
    assert outcome(tmp_path / "x", data) == ""


@pytest.mark.parametrize("syntax", films.COMPRESSED[:2] + films.COMPRESSED[5:])
def test_colour_over_a_grey_picture_and_grey_over_a_colour_one(tmp_path: Path, syntax: str) -> None:
    assert outcome(tmp_path / "x", films.film(syntax, colour=True)) == ""
    for data, samples in ((films.film(syntax, colour=True), 1), (films.film(syntax), 3), (films.film(syntax), 2)):
        assert "damaged" in outcome(tmp_path / "x", films.edited(data, "SamplesPerPixel", samples))


def test_drawn_changes(tmp_path: Path) -> None:
    """A little of what `make fuzz` does for longer."""
    for number in range(12):
        what, data = films.mutated(np.random.default_rng([0, number]))
        try:
            outcome(tmp_path / "x", data)
        except Exception as error:
            pytest.fail(f"{what}: {error!r}")


def test_a_crash_in_a_native_decoder_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The contradiction gets past the check here, so the decoder itself meets it."""
    monkeypatch.setattr("lucency.reading.dicom.contradiction", lambda *_: "")
    data = films.edited(films.film("JPEGLSLossless"), "Rows", 64)
    assert "made its decoder crash" in outcome(tmp_path / "x", data)
    for syntax in ("JPEGBaselineProcess1", "JPEGLosslessProcess14_1"):
        outcome(tmp_path / "x", films.edited(films.film(syntax), "SamplesPerPixel", 2))
    assert outcome(tmp_path / "x", films.film("JPEGLSLossless")) == ""


def growth(path: Path) -> tuple[int, str]:
    """Mebibytes by which a process grew that read the file, or the decoder that it started, and what it said."""
    listen, tell = os.pipe()
    child = os.fork()
    if child == 0:

        def peak() -> int:
            return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))

        before, text = peak(), "read"
        try:
            read_dicom(path)
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        worker._WORKER.close()
        os.write(tell, f"{(peak() - before) // 1024} {text}".encode())
        os._exit(0)
    os.close(tell)
    with os.fdopen(listen) as pipe:
        grown, _, text = pipe.read().partition(" ")
    assert os.waitpid(child, 0)[1] == 0
    assert text == "read" or re.fullmatch(r"ScanError: [^\n]*\.", text)
    return int(grown), text


@pytest.mark.parametrize("private", [False, True], ids=["pixels", "private element"])
def test_a_deflated_film_is_inflated_as_far_as_its_header_allows(tmp_path: Path, private: bool) -> None:
    """A quarter of a megabyte that would be a quarter of a gibibyte."""
    path = films.deflated(tmp_path / "x", 2**28, private=private)
    assert path.stat().st_size < 2**19
    grown, text = growth(path)
    assert grown < 150, text
    assert "no end" in text if private else text == "read"


def test_the_pixel_limit_comes_before_all_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    for syntax in ("JPEG2000Lossless", "RLELossless", "ExplicitVRLittleEndian", "ExplicitVRBigEndian"):
        path.write_bytes(films.edited(films.edited(films.film(syntax), "Rows", 65535), "Columns", 65535))
        grown, text = growth(path)
        assert "65535 x 65535 pixels, more than the 268,435,456" in text
        assert grown < 100
    path.write_bytes(films.film("JPEG2000Lossless"))
    monkeypatch.setenv("LUCENCY_MAX_PIXELS", "1000")
    assert "more than the 1,000 that are read" in growth(path)[1]


def test_a_length_that_lies_takes_no_memory(tmp_path: Path) -> None:
    """An element, and pixels, of four gigabytes in a file of some kilobytes."""
    whole = films.film("ExplicitVRLittleEndian")
    pixels = whole.find(b"\xe0\x7f\x10\x00")
    for data in (
        whole[:pixels] + b"\x29\x00\x10\x10OB\0\0" + struct.pack("<I", 0xFFFFFFF0) + whole[pixels:],
        whole[: pixels + 8] + struct.pack("<I", 0xFFFFFFF0) + whole[pixels + 12 : -100],
    ):
        path = tmp_path / "x"
        path.write_bytes(data)
        grown, text = growth(path)
        assert "damaged" in text or "holds no picture" in text
        assert grown < 100


@pytest.mark.parametrize("kind", ["many items", "many items of a table", "deep", "endless numbers"])
def test_sequences_without_end(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lucency.reading.dicom_file.READS", 100_000)
    whole = films.film("ExplicitVRLittleEndian")
    at = whole.find(b"\x28\x00\x02\x00US")
    empty = b"\xfe\xff\x00\xe0\0\0\0\0"
    sequence = b"\x29\x00\x10\x10SQ\0\0"
    hidden = {
        "many items": sequence + b"\xff\xff\xff\xff" + empty * 3_000_000,
        "many items of a table": b"\x28\x00\x00\x30SQ\0\0" + struct.pack("<I", 24_000_000) + empty * 3_000_000,
        "deep": (sequence + b"\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 100_000,
        "endless numbers": b"\x28\x00\x50\x10UN\0\0" + struct.pack("<I", 20_000_000) + b"1\\" * 10_000_000,
    }[kind]
    path = tmp_path / "x"
    path.write_bytes(whole[:at] + hidden + whole[at:])
    started = time.monotonic()
    grown, text = growth(path)
    assert time.monotonic() - started < 40
    assert grown < 1500, text
    assert (kind == "deep") or "no end" in text


def test_a_compressed_frame_that_is_longer_than_a_plain_one(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(films.film("RLELossless"))
    data = dcmread(path)
    frame = get_frame(data.PixelData, 0, number_of_frames=1)
    data.PixelData = encapsulate([frame + bytes(2**22)])
    with pytest.raises(ScanError, match="are longer than plain ones"):
        read_dataset(data)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit the memory of a process")
def test_the_memory_of_the_decoder_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dicom(np.random.default_rng(0).integers(0, 4096, (1500, 1500)).astype(np.uint16), BitsStored=12)
    data.compress("1.2.840.10008.1.2.4.90", generate_instance_uid=False)
    assert read_dataset(data).shape == (1500, 1500)
    monkeypatch.setenv("LUCENCY_MAX_DECODE_MEMORY", str(2**22))
    with pytest.raises(ScanError, match=r"LUCENCY_MAX_DECODE_MEMORY|decode"):
        read_dataset(data)


def test_plain_films_need_no_decoder(tmp_path: Path) -> None:
    worker._WORKER.close()
    for syntax in films.PLAIN:
        assert outcome(tmp_path / "x", films.film(syntax)) == ""
    assert worker._WORKER.pid is None
