"""Pictures and arrays: the same pixels are the same scan, whichever way they come; and a scan owns its pixels."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from bad_inputs import dicom, ramp, saved
from kinds import C8, C16, L8, L16, LUMA, image, tiff
from lucency import Scan, read_scan
from lucency.errors import ScanError
from lucency.reading import as_scan
from lucency.reading.samples import turned

DTYPES = ["?", "b", "B", "h", "H", "i", "I", "l", "L", "e", "f", "d", "g"]


@st.composite
def arrays(draw: st.DrawFn) -> NDArray[Any]:
    """Regular arrays of real numbers, as NumPy makes them: any dtype, byte order, stride and order of axes."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(
        st.sampled_from([(5, 7), (1, 5, 7), (3, 6, 5), (5, 7, 3), (6, 7, 4), (5, 7, 1), (2, 3, 5, 6), (1, 1, 5, 6)])
    )
    seed = draw(st.integers(0, 2**32 - 1))
    top = {"f": 1, "b": 1}.get(dtype.kind, min(np.iinfo(dtype).max if dtype.kind in "iu" else 1, 40_000))
    values = np.random.default_rng(seed).random(shape)
    values = values > 0.5 if dtype.kind == "b" else (values * top).astype(dtype)
    if dtype.kind in "iuf" and draw(st.booleans()):
        values = values.astype(dtype.newbyteorder())
    if draw(st.booleans()):
        values = np.asfortranarray(values)
    if draw(st.booleans()):
        values = values[::-1]
    if draw(st.booleans()):
        values = np.repeat(values, 2, axis=0)[::2]
    return values


@given(values=arrays())
@settings(max_examples=80)
def test_an_array_is_the_same_scan_whichever_way_it_comes(
    tmp_path_factory: pytest.TempPathFactory, values: NDArray[Any]
) -> None:
    path = tmp_path_factory.mktemp("a") / "x.npy"
    np.save(path, values)
    scan = as_scan(values)
    assert scan.pixels.is_contiguous()
    native = values.astype(values.dtype.newbyteorder("="))
    ways = [as_scan(path), as_scan(str(path)), Scan.from_array(values), as_scan(memoryview(native.copy()))]
    if values.dtype.itemsize <= 8:
        ways.append(as_scan(torch.from_numpy(native.copy())))
    if values.dtype.char in "?ld":
        ways.append(as_scan(values.tolist()))
    for other in ways:
        assert other.sha256 == scan.sha256
        assert other.notices == scan.notices
    if values.shape[-1] not in (1, 3, 4) and values.ndim == 3:
        assert np.array_equal(scan.pixels, values.astype(np.float32))


@given(values=drawn.arrays(drawn.scalar_dtypes(), st.sampled_from([(3, 4), (2, 3, 4), (0, 3), (3,), ()])))
@settings(max_examples=100)
def test_any_array_is_a_scan_or_one_sentence(values: NDArray[Any]) -> None:
    said = "."
    try:
        assert torch.isfinite(as_scan(values).display).all()
    except ScanError as error:
        said = str(error)
    assert said.endswith(".")
    assert "\n" not in said


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.uint8, torch.int32, torch.bool])
def test_tensors_of_every_dtype(dtype: torch.dtype) -> None:
    values = torch.arange(20).reshape(4, 5) % 2
    assert torch.equal(as_scan(values.to(dtype)).pixels[0], values.float())


@pytest.mark.filterwarnings("ignore:torch.quantize:UserWarning")
def test_tensors_that_are_not_plain() -> None:
    values = torch.rand(4, 5)
    plain = as_scan(values)
    grown = values.clone().requires_grad_()
    assert as_scan(grown).sha256 == plain.sha256
    assert not as_scan(grown).pixels.requires_grad
    assert as_scan(values.to_sparse()).sha256 == plain.sha256
    assert as_scan(torch._neg_view(-values)).sha256 == plain.sha256
    coarse = torch.quantize_per_tensor(values, 0.25, 0, torch.quint8)
    assert torch.equal(as_scan(coarse).pixels[0], coarse.dequantize())
    with pytest.raises(ScanError, match="regular array"):
        as_scan(torch.empty(4, 5, device="meta"))
    with pytest.raises(ScanError, match="real numbers"):
        as_scan(values.to(torch.complex64))


def test_a_scan_owns_its_pixels() -> None:
    tensor, array = torch.rand(1, 4, 5), np.random.default_rng(0).random((4, 5), np.float32)
    scans = [Scan(tensor), Scan.from_array(tensor), Scan.from_array(array), as_scan(array)]
    scans.append(replace(scans[0], source="elsewhere"))
    before = [scan.sha256 for scan in scans]
    tensor.zero_()
    array[:] = 0
    scans[0].pixels.add_(0)
    assert [scan.sha256 for scan in scans] == before
    scans[0].pixels.zero_()
    assert scans[-1].sha256 == before[-1]


def test_a_scan_that_is_made_in_inference_mode_can_be_differentiated(tmp_path: Path) -> None:
    with torch.inference_mode():
        scans = [Scan(torch.rand(1, 4, 5)), as_scan(np.eye(4)), read_scan(image("x.png", L8)(tmp_path))]
    for scan in scans:
        assert not scan.pixels.is_inference()
        weight = torch.ones((), requires_grad=True)
        (scan.display * weight).sum().backward()
        assert weight.grad is not None


@pytest.mark.parametrize("value_range", [(0, float("inf")), (float("nan"), 1), (1, 1), (2, 1), (0,), "ab", None, 3])
def test_a_value_range_is_two_finite_numbers(value_range: Any) -> None:
    with pytest.raises(ScanError, match=r"value range .*\.$"):
        Scan(torch.rand(1, 4, 5), value_range)


def test_numbers_too_large_to_tell_apart_are_refused() -> None:
    """In float32 they would be a few steps."""
    with pytest.raises(ScanError, match="subtract the smallest"):
        as_scan(np.arange(20).reshape(4, 5) + 2**40)
    with pytest.raises(ScanError, match="subtract the smallest"):
        as_scan(np.linspace(0, 1, 20).reshape(4, 5) + 1e7)
    assert as_scan(np.arange(20).reshape(4, 5) * 2**40).value_range == (0, 19 * 2**40)


def test_masked_values_and_nothing_but_masked_values() -> None:
    values = np.ma.masked_less(np.arange(12.0).reshape(3, 4), 4)
    scan = as_scan(values)
    assert float(scan.pixels.min()) == 4
    assert "33.3%" in scan.notices[0]
    with pytest.raises(ScanError, match="masked throughout"):
        as_scan(np.ma.masked_all((3, 4)))


def test_colour_in_the_first_axis_stays_channels() -> None:
    assert as_scan(C8.transpose(2, 0, 1)).pixels.shape == (3, 18, 24)


PICTURES = [
    image("x.png", L8),
    image("x.png", L8, "1"),
    image("x.png", L8, "P"),
    image("x.png", L8, "LA"),
    image("x.png", C8),
    image("x.png", np.dstack([C8, L8])),
    image("x.png", L16),
    image("x.jpg", C8, "CMYK"),
    image("x.tif", L16),
    image("x.tif", L8, compression="tiff_lzw"),
    tiff(L16.astype(np.uint32) * 2**16),
    tiff(L16, photometric="miniswhite"),
    tiff(L8 / np.float32(255)),
    tiff(L8, extratags=[(274, 3, 1, 3, True)]),
    image("x.webp", L8, lossless=True, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
]


@pytest.mark.parametrize("make", PICTURES)
def test_an_image_of_pillow_is_its_file(tmp_path: Path, make: Any) -> None:
    path = make(tmp_path)
    with Image.open(path) as held:
        assert as_scan(held).sha256 == read_scan(path).sha256


def test_pillow_that_garbles_is_not_believed(tmp_path: Path) -> None:
    """Pillow 12 and 13 garble plain TIFF that lies on its side; and of deep colour it keeps 8 bits."""
    path = tiff(L16, extratags=[(274, 3, 1, 6, True)])(tmp_path)
    assert np.array_equal(read_scan(path).pixels[0], np.rot90(L16, -1))
    with Image.open(path) as held:
        said = ""
        try:
            assert np.array_equal(as_scan(held).pixels[0], np.rot90(L16, -1))
        except ScanError as error:
            said = str(error)
        assert not said or "hand over the path" in said


def test_a_data_set_of_pydicom_is_its_file(tmp_path: Path) -> None:
    data = dicom(ramp(), BitsStored=12)
    assert as_scan(data).sha256 == read_scan(saved(data, tmp_path / "x.dcm")).sha256


def test_a_scan_stays_itself() -> None:
    scan = as_scan(np.eye(4))
    assert as_scan(scan) is scan
    assert as_scan(scan, value_range=(0, 2)).value_range == (0, 2)
    with pytest.raises(ScanError, match="frame="):
        as_scan(scan, frame=1)
    with pytest.raises(ScanError, match="same value"):
        as_scan(np.zeros((4, 4)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "name", ["x.jpg", "x.png", "x.webp", "x.avif", "lzw.tif", "plain.tif", "deep.tif", "colour.tif"]
)
def test_a_picture_is_turned_as_a_viewer_turns_it(tmp_path: Path, name: str, orientation: int) -> None:
    path, expected, within = tmp_path / name, L8.astype(float), 0.01
    if name.endswith(".tif"):
        values = {"deep.tif": L16, "colour.tif": C8}.get(name, L8)
        expected = values @ LUMA if values.ndim == 3 else values
        tag = [(274, 3, 1, orientation, True)]
        tifffile.imwrite(path, values, extratags=tag, compression="lzw" if name == "lzw.tif" else None)
    else:
        exif = Image.Exif()
        exif[274] = orientation
        lossless = {"lossless": True} if name == "x.webp" else {"quality": 100} if name != "x.png" else {}
        Image.fromarray(L8).save(path, exif=exif, **lossless)
        within = 3
    scan = read_scan(path)
    if name.endswith(".tif"):  # which imageio does not turn
        expected = turned(expected, orientation)
    else:
        expected = imageio.imread(path, rotate=True).reshape(*scan.shape, -1)[..., 0]
    assert np.abs(scan.pixels[0].numpy() - expected).max() <= within
    assert any("turned as" in notice for notice in scan.notices) == (orientation != 1)


def test_damaged_exif_is_no_reason_to_refuse_a_picture(tmp_path: Path) -> None:
    Image.fromarray(L8).save(tmp_path / "x.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert np.array_equal(read_scan(tmp_path / "x.png").pixels[0], L8)


@pytest.mark.parametrize("name", ["x.tif", "x.gif", "x.webp", "x.png", "x.avif"])
def test_frames_are_counted_from_1(tmp_path: Path, name: str) -> None:
    options = {"lossless": True} if name == "x.webp" else {}
    frames = [Image.fromarray(f) for f in (L8, 255 - L8, np.roll(L8, 5))]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    for i, expected in enumerate((L8, 255 - L8, np.roll(L8, 5)), 1):
        assert np.abs(read_scan(tmp_path / name, frame=i).pixels[0].numpy() - expected).max() <= 4
    for frame, says in ((None, "choose the"), (0, "no .* 0"), (4, "no .* 4"), (True, "no .* True")):
        with pytest.raises(ScanError, match=says):
            read_scan(tmp_path / name, frame=frame)


def test_thumbnails_are_no_pages(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(L16)
        file.write(L16[::2, ::2], subfiletype=1)
        file.write(L16[::4, ::4], subfiletype=1)
    assert np.array_equal(read_scan(tmp_path / "x.tif").pixels[0], L16)


def test_pages_that_nobody_asked_for_are_not_counted(tmp_path: Path) -> None:
    """100,000 directories: counting them takes 20 s."""
    entries = [(256, 4, 8), (257, 4, 8), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 4, 8), (279, 4, 64)]
    data, size = bytearray(b"II*\0" + (72).to_bytes(4, "little") + bytes(range(64))), 2 + 12 * len(entries) + 4
    for i in range(100_000):
        data += len(entries).to_bytes(2, "little")
        for tag, kind, value in entries:
            data += (
                tag.to_bytes(2, "little")
                + kind.to_bytes(2, "little")
                + (1).to_bytes(4, "little")
                + value.to_bytes(4, "little")
            )
        data += (72 + (i + 1) * size if i < 99_999 else 0).to_bytes(4, "little")
    (tmp_path / "x.tif").write_bytes(data)
    start = time.monotonic()
    with pytest.raises(ScanError, match="several pages"):
        read_scan(tmp_path / "x.tif")
    assert read_scan(tmp_path / "x.tif", frame=2).shape == (8, 8)
    assert time.monotonic() - start < 3


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float16", "float32", "float64"]
)
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"byteorder": ">"}, {"tile": (16, 16)}])
def test_tiff_of_every_dtype_in_both_polarities(tmp_path: Path, dtype: str, options: dict[str, Any]) -> None:
    """Numbers keep their sign and their size, above 2**31 too, and white-is-zero is turned round within its range."""
    info = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else None
    low, high = (-3.0, 5.0) if info is None else (float(info.min), float(info.max) * (1 - 2.0**-20))
    values = np.linspace(low, high, 18 * 24).reshape(18, 24).astype(dtype)
    for photometric in ("minisblack", "miniswhite"):
        tifffile.imwrite(tmp_path / "x.tif", values, photometric=photometric, **options)
        display = read_scan(tmp_path / "x.tif").display[0].numpy().astype(np.float64)
        expected = np.linspace(0, 1, 18 * 24).reshape(18, 24)
        expected = expected if photometric == "minisblack" else 1 - expected
        assert np.abs(display - expected).max() < 0.008


@pytest.mark.parametrize("options", [{"planarconfig": "separate"}, {"compression": "zlib"}, {"compression": "lzw"}])
def test_deep_colour_tiff_keeps_its_depth(tmp_path: Path, options: dict[str, Any]) -> None:
    if options.get("compression") == "lzw":
        pytest.importorskip("imagecodecs")
    values = C16.transpose(2, 0, 1) if "planarconfig" in options else C16
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="rgb", **options)
    assert np.abs(read_scan(tmp_path / "x.tif").pixels[0].numpy() - C16 @ LUMA).max() < 0.02


def test_without_its_extra_deep_colour_is_read_as_8_bits_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    (tmp_path / "x.png").write_bytes(imagecodecs.png_encode(C16))
    monkeypatch.setattr("lucency.reading.worker.decode", _here)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    scan = read_scan(tmp_path / "x.png")
    assert scan.value_range == (0, 255)
    assert "lucency[pictures]" in scan.notices[0]


def _here(kind: str, path: Path, options: dict[str, Any], **_: Any) -> Any:
    """What the worker does, in this process, where a package can be taken away."""
    from lucency.reading import samples

    return samples.decode(path, **options)


def test_sixteen_bits_have_one_scale_for_a_series(tmp_path: Path) -> None:
    """Films whose brightest pixels differ, of 12 and of 16 bits: one scale, unless the user gives another."""
    for top in (900, 4000, 4200, 60_000):
        Image.fromarray((L16 * (top / 65535)).astype(np.uint16)).save(tmp_path / "x.png")
        scan = read_scan(tmp_path / "x.png")
        assert scan.value_range == (0, 65535)
        assert bool(scan.notices) == (top < 2**15)
        assert read_scan(tmp_path / "x.png", value_range=(0, 4095)).value_range == (0, 4095)


def test_the_limit_of_pillow_does_not_stand_before_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for name in ("x.png", "x.jpg", "x.gif", "x.bmp", "x.tif", "x.jp2", "x.webp"):
        Image.fromarray(L8).save(tmp_path / name)
        assert read_scan(tmp_path / name).shape == (18, 24)


def test_a_text_chunk_without_end_is_refused(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 2**22, zip=True)
    Image.fromarray(L8).save(tmp_path / "x.png", pnginfo=info)
    with pytest.raises(ScanError, match="damaged or unsupported"):
        read_scan(tmp_path / "x.png")


def test_floats_go_to_a_network_as_they_are() -> None:
    """What is explained is what the network gives for this very array."""
    values = torch.randn(1, 4, 5) * 3
    assert torch.equal(as_scan(values).display, values)
