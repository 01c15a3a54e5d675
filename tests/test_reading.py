"""Reading scans: every kind of file at full depth, and one sentence for every way in which a file can be wrong."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom.pixels import convert_color_space
from pydicom.uid import ExplicitVRLittleEndian

from bad_inputs import BAD_MODELS, BAD_QUESTIONS, BAD_SCANS, dicom, message, ramp, saved, volume
from lucency import read_scan
from lucency.errors import MissingExtraError

SHARED = Path(os.environ.get("LUCENCY_SHARED", Path(__file__).parents[2] / "shared")) / "xrays"


@given(bits=st.integers(8, 16), signed=st.booleans(), invert=st.booleans(), slope=st.sampled_from([1, 2, 0.5]))
@settings(max_examples=25, deadline=None)
def test_dicom_depth_sign_rescale_and_polarity(
    tmp_path_factory: pytest.TempPathFactory, bits: int, signed: bool, invert: bool, slope: float
) -> None:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    kind = ("int" if signed else "uint") + ("8" if bits == 8 else "16")
    values = np.linspace(low, high, 12 * 9).reshape(12, 9).astype(kind)
    tags = {"RescaleSlope": slope, "RescaleIntercept": -7, "BitsStored": bits}
    if invert:
        tags["PhotometricInterpretation"] = "MONOCHROME1"
    path = saved(dicom(values, **tags), tmp_path_factory.mktemp("d") / "x")
    scan = read_scan(path)
    expected = values.astype(np.float64) * slope - 7
    if invert:
        expected = expected.min() + expected.max() - expected
    assert np.array_equal(scan.pixels[0].numpy(), expected.astype(np.float32))
    assert float(scan.display.min()) == 0
    assert float(scan.display.max()) == 1


SYNTAXES = {
    "ExplicitVRBigEndian": 0,
    "DeflatedExplicitVRLittleEndian": 0,
    "RLELossless": 0,
    "JPEGBaselineProcess1": 1,
    "JPEGExtendedProcess2_4": 1,
    "JPEGLosslessProcess14": 0,
    "JPEGLosslessProcess14_1": 0,
    "JPEGLSLossless": 0,
    "JPEGLSNearLossless": 2,
    "JPEG2000Lossless": 0,
    "JPEG2000": 2,
}


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_compressed_dicom(tmp_path: Path, syntax: str) -> None:
    """Written by GDCM; the lossless ones give every grey value back, the lossy ones within what they may lose."""
    gdcm = pytest.importorskip("gdcm")
    values = ramp("uint8", 255) if syntax == "JPEGBaselineProcess1" else ramp()
    bits = 8 * values.itemsize if values.itemsize == 1 else 12
    reader = gdcm.ImageReader()
    reader.SetFileName(str(saved(dicom(values, BitsStored=bits), tmp_path / "plain.dcm")))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(tmp_path / "x.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert pydicom.dcmread(tmp_path / "x.dcm").file_meta.TransferSyntaxUID != ExplicitVRLittleEndian
    scan = read_scan(tmp_path / "x.dcm")
    assert np.abs(scan.pixels[0].numpy() - values.astype(np.float32)).max() <= SYNTAXES[syntax]
    assert scan.value_range == (0, 2**bits - 1)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_colour_dicom_becomes_grey_once(tmp_path: Path, photometric: str) -> None:
    colour = np.zeros((8, 9, 3), np.uint8)
    colour[..., 0], colour[:4, :, 2] = 200, 90
    stored = colour if photometric == "RGB" else convert_color_space(colour, "RGB", photometric)
    data = dicom(stored, SamplesPerPixel=3, PlanarConfiguration=0, PhotometricInterpretation=photometric)
    scan = read_scan(saved(data, tmp_path / "x.dcm"))
    assert np.allclose(scan.pixels[0].numpy(), colour @ np.array([0.299, 0.587, 0.114]), atol=1)
    assert "grey" in scan.notices[0]


def test_window_and_spacing(tmp_path: Path) -> None:
    data = dicom(ramp(), WindowCenter=[2048, 1], WindowWidth=[1001, 2], ImagerPixelSpacing=[0.2, 0.14])
    scan = read_scan(saved(data, tmp_path / "x.dcm"))
    assert scan.value_range == (1547.5, 2547.5)
    assert scan.spacing == (0.2, 0.14)
    assert float(scan.pixels.max()) == 2547.5  # as a viewer shows it


def test_windows_that_say_how_and_windows_that_show_nothing(tmp_path: Path) -> None:
    exact = dicom(ramp(), WindowCenter=2048, WindowWidth=1000, VOILUTFunction="LINEAR_EXACT")
    assert read_scan(saved(exact, tmp_path / "x.dcm")).value_range == (1548, 2548)
    beside = read_scan(saved(dicom(ramp(), WindowCenter=60000, WindowWidth=10), tmp_path / "x.dcm"))
    assert beside.value_range == (0, 4095)
    assert "shows no pixel" in beside.notices[0]


@pytest.mark.parametrize("spacing", [[0, 0], [0.2], ["", ""]])
def test_spacing_that_makes_no_sense_is_dropped(tmp_path: Path, spacing: list[object]) -> None:
    data = dicom(ramp())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.PixelSpacing = spacing
    scan = read_scan(saved(data, tmp_path / "x.dcm"))
    assert scan.spacing is None


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real films are not beside the checkout")
def test_a_real_film_in_both_polarities() -> None:
    plain, turned = (read_scan(path) for path in sorted((SHARED / "dicom").glob("*.dcm")))
    assert plain.shape == (1024, 1024)
    assert plain.spacing == (0.168, 0.168)
    # The second file holds the same numbers and says that white is low.
    assert torch.equal(plain.pixels, 255 - turned.pixels)


def test_tiff_of_every_kind(tmp_path: Path) -> None:
    """Signed, wide and white-is-zero numbers: each keeps its values and is shown over them."""
    path = tmp_path / "x.tif"
    for values, value_range in ((ramp("int16", 2000) - 1000, (-1000, 1000)), (ramp("uint32", 200_000), (0, 200_000))):
        tifffile.imwrite(path, values)
        scan = read_scan(path)
        assert np.array_equal(scan.pixels[0].numpy(), values.astype(np.float32))
        assert scan.value_range == value_range
    for dtype, top in (("uint8", 255), ("uint16", 65535)):
        tifffile.imwrite(path, ramp(dtype, top), photometric="miniswhite")
        assert np.array_equal(read_scan(path).pixels[0].numpy(), top - ramp(dtype, top).astype(np.float32))
    tifffile.imwrite(path, np.stack([ramp(top=65535)] * 3, 2), photometric="rgb")
    assert np.allclose(read_scan(path).pixels[0].numpy(), ramp(top=65535), atol=0.01)


def test_pictures_keep_their_depth(tmp_path: Path) -> None:
    deep = ramp(top=65535)
    for name in ("a.png", "a.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        scan = read_scan(tmp_path / name)
        assert np.array_equal(scan.pixels[0].numpy(), deep.astype(np.float32))
        assert scan.value_range == (0, 65535)
    Image.fromarray(ramp()).save(tmp_path / "twelve.png")
    twelve = read_scan(tmp_path / "twelve.png")
    assert twelve.value_range == (0, 65535)
    assert "12 bits, say value_range=(0, 4095)" in twelve.notices[0]
    assert read_scan(tmp_path / "twelve.png", value_range=(0, 4095)).notices == ()
    Image.fromarray(ramp("uint8", 255)).save(tmp_path / "b.jpg", quality=100)
    assert read_scan(tmp_path / "b.jpg").value_range == (0, 255)


def test_colour_becomes_grey_and_says_so(tmp_path: Path) -> None:
    colour = np.zeros((6, 7, 3), np.uint8)
    colour[1:, :, 1] = 100
    Image.fromarray(colour).save(tmp_path / "c.png")
    scan = read_scan(tmp_path / "c.png")
    assert torch.allclose(scan.pixels[0, 1:], torch.tensor(58.7))
    assert "grey" in scan.notices[0]


@pytest.mark.parametrize(
    ("values", "value_range"),
    [
        (np.linspace(0, 1, 12, dtype=np.float64).reshape(3, 4), (0, 1)),
        (np.arange(12, dtype=np.uint8).reshape(3, 4), (0, 255)),
        (np.arange(-6, 6, dtype=np.int16).reshape(1, 3, 4), (-6, 5)),
        (np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4), (0, 1)),
    ],
)
def test_numpy(tmp_path: Path, values: NDArray[np.generic], value_range: tuple[float, float]) -> None:
    np.save(tmp_path / "x.npy", values)
    scan = read_scan(tmp_path / "x.npy")
    assert scan.value_range == value_range
    assert scan.pixels.numel() == values.size
    assert np.allclose(scan.pixels.numpy().ravel(), values.ravel())


def test_nifti_orientation_and_spacing(tmp_path: Path) -> None:
    """A bright corner at the patient's left, back and head must come out last, last and last."""
    for flip in (1, -1):
        values = np.zeros((4, 5, 6), np.float32)
        values[0 if flip == 1 else -1, 0, -1] = 1
        nibabel.save(nibabel.Nifti1Image(values, np.diag([flip * 2.0, 3.0, 4.0, 1.0])), tmp_path / "v.nii.gz")
        scan = read_scan(tmp_path / "v.nii.gz")
        assert scan.shape == (6, 5, 4)
        assert scan.spacing == (4, 3, 2)
        assert scan.pixels[0, -1, -1, -1] == 1


@pytest.mark.parametrize(("what", "name", "act", "says"), BAD_SCANS, ids=[b[0] for b in BAD_SCANS])
def test_a_bad_scan_is_one_sentence(
    tmp_path: Path, what: str, name: str, act: Callable[[Path], object], says: str
) -> None:
    text = message(act, tmp_path / name)
    assert re.search(says, text)
    assert text.startswith("ScanError: ")
    assert text.count("\n") == 0
    assert text.endswith(".")


@pytest.mark.parametrize(("module", "extra"), [("pydicom", "dicom"), ("nibabel", "nifti")])
def test_a_missing_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, extra: str
) -> None:
    path = saved(dicom(ramp()), tmp_path / "x.dcm") if extra == "dicom" else volume(tmp_path / "x.nii", np.eye(3)[None])
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"lucency\[{extra}\]"):
        read_scan(path)


def test_the_page_of_errors_shows_every_bad_input() -> None:
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "bad-inputs.md").read_text()
    for what, *_ in BAD_SCANS + BAD_MODELS + BAD_QUESTIONS:
        assert f"| {what} |" in page, "run docs/scripts/bad_inputs.py"
