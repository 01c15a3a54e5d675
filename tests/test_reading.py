"""Reading scans: every kind of file at full depth, and one sentence for every way in which a file can be wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from lucency import read_scan
from lucency.errors import ScanError

SHARED = Path(os.environ.get("LUCENCY_SHARED", Path(__file__).parents[2] / "shared")) / "xrays"


def dicom(values: NDArray[np.generic], **tags: object) -> Dataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID = SecondaryCaptureImageStorage
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.Rows, data.Columns = values.shape
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.BitsAllocated = values.itemsize * 8
    data.BitsStored = tags.pop("BitsStored", values.itemsize * 8)
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(values.dtype.kind == "i")
    data.PixelData = values.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    return data


def saved(data: Dataset, path: Path) -> Path:
    data.save_as(path, enforce_file_format=True)
    return path


def ramp(dtype: str = "uint16", top: int = 4095) -> NDArray[np.generic]:
    return np.linspace(0, top, 64 * 48).reshape(64, 48).astype(dtype)


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


@pytest.mark.parametrize(
    "syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless, DeflatedExplicitVRLittleEndian], ids=lambda u: u.name
)
def test_compressed_dicom_loses_nothing(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    data = dicom(ramp(), BitsStored=12)
    if syntax == DeflatedExplicitVRLittleEndian:
        data.file_meta.TransferSyntaxUID = syntax
    else:
        data.compress(syntax)
    scan = read_scan(saved(data, tmp_path / "x.dcm"))
    assert np.array_equal(scan.pixels[0].numpy(), ramp().astype(np.float32))


def test_lossless_jpeg_dicom(tmp_path: Path) -> None:
    """The transfer syntax of most digital radiographs in archives, written by GDCM."""
    gdcm = pytest.importorskip("gdcm")
    plain = saved(dicom(ramp(), BitsStored=12), tmp_path / "plain.dcm")
    reader = gdcm.ImageReader()
    reader.SetFileName(str(plain))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(tmp_path / "x.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert np.array_equal(read_scan(tmp_path / "x.dcm").pixels[0].numpy(), ramp().astype(np.float32))


def test_window_and_spacing(tmp_path: Path) -> None:
    data = dicom(ramp(), WindowCenter=[2048, 1], WindowWidth=[1001, 2], ImagerPixelSpacing=[0.2, 0.14])
    scan = read_scan(saved(data, tmp_path / "x.dcm"))
    assert scan.value_range == (1547.5, 2547.5)
    assert scan.spacing == (0.2, 0.14)
    assert float(scan.pixels.max()) == 4095


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real films are not beside the checkout")
def test_a_real_film_in_both_polarities() -> None:
    plain, turned = (read_scan(path) for path in sorted((SHARED / "dicom").glob("*.dcm")))
    assert plain.shape == (1024, 1024)
    assert plain.spacing == (0.168, 0.168)
    # The second file holds the same numbers and says that white is low.
    assert torch.equal(plain.pixels, 255 - turned.pixels)


def test_pictures_keep_their_depth(tmp_path: Path) -> None:
    deep = ramp(top=65535)
    for name in ("a.png", "a.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        scan = read_scan(tmp_path / name)
        assert np.array_equal(scan.pixels[0].numpy(), deep.astype(np.float32))
        assert scan.value_range == (0, 65535)
    Image.fromarray(ramp()).save(tmp_path / "twelve.png")
    twelve = read_scan(tmp_path / "twelve.png")
    assert twelve.value_range == (0, 4095)
    assert "12 bits" in twelve.notices[0]
    Image.fromarray(ramp("uint8", 255)).save(tmp_path / "b.jpg", quality=100)
    assert read_scan(tmp_path / "b.jpg").value_range == (0, 255)


def test_colour_becomes_grey_and_says_so(tmp_path: Path) -> None:
    colour = np.zeros((6, 7, 3), np.uint8)
    colour[..., 1] = 100
    Image.fromarray(colour).save(tmp_path / "c.png")
    scan = read_scan(tmp_path / "c.png")
    assert torch.allclose(scan.pixels, torch.tensor(58.7))
    assert "grey" in scan.notices[0]


@pytest.mark.parametrize(
    ("values", "value_range"),
    [
        (np.linspace(0, 1, 12, dtype=np.float64).reshape(3, 4), (0, 1)),
        (np.arange(12, dtype=np.uint8).reshape(3, 4), (0, 255)),
        (np.arange(-6, 6, dtype=np.int16).reshape(1, 3, 4), (-6, 5)),
        (np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4), (0, 23)),
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


def _bytes(text: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(text)


def _cut(make: Callable[[Path], object], keep: float) -> Callable[[Path], object]:
    def cut(path: Path) -> None:
        make(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * keep)])

    return cut


def _png(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8)).save(path, format="PNG")


def _jpeg(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8)).save(path, format="JPEG")


def _palette(path: Path) -> None:
    Image.fromarray(ramp("uint8", 255)).convert("P").save(path)


def _pages(path: Path) -> None:
    page = Image.fromarray(ramp("uint8", 255))
    page.save(path, save_all=True, append_images=[page])


def _pickled(path: Path) -> None:
    np.save(path, np.array([{"a": 1}, None], dtype=object))


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (100_000, 100_000)}
        )
        file.truncate(100_000 * 100_000 * 4 + 128)


def _frames(path: Path) -> None:
    data = dicom(ramp())
    data.NumberOfFrames = 2
    data.PixelData *= 2
    saved(data, path)


def _no_pixels(path: Path) -> None:
    data = dicom(ramp())
    del data.PixelData
    saved(data, path)


def _colour_table(path: Path) -> None:
    saved(dicom(ramp("uint8", 255), PhotometricInterpretation="PALETTE COLOR"), path)


BAD: list[tuple[str, Callable[[Path], object], str]] = [
    ("empty.dcm", _bytes(b""), "is empty"),
    ("noise.dcm", _bytes(b"not a dicom file at all" * 20), "damaged|not a DICOM"),
    ("cut.dcm", _cut(lambda p: saved(dicom(ramp()), p), 0.6), "damaged"),
    ("frames.dcm", _frames, "2 frames"),
    ("report.dcm", _no_pixels, "holds no picture"),
    ("table.dcm", _colour_table, "palette"),
    ("cut.png", _cut(_png, 0.5), "damaged"),
    ("cut.jpg", _cut(_jpeg, 0.5), "damaged"),
    ("palette.png", _palette, "palette"),
    ("pages.tif", _pages, "several pages"),
    ("text.png", _bytes(b"hello"), "does not begin as"),
    ("text.txt", _bytes(b"hello"), "no DICOM, PNG"),
    ("pickled.npy", _pickled, "Python objects"),
    ("cut.npy", _cut(lambda p: np.save(p, ramp()), 0.5), "damaged"),
    ("nan.npy", lambda p: np.save(p, np.full((4, 4), np.nan)), "NaN"),
    ("line.npy", lambda p: np.save(p, np.arange(9)), "shape"),
    ("complex.npy", lambda p: np.save(p, np.ones((3, 3), complex)), "real numbers"),
    ("huge.npy", _huge, "more than"),
    ("flat.npy", lambda p: np.save(p, np.full((4, 4), 7.0)), "same value"),
    ("cut.nii", _bytes(b"\x5c\x01\x00\x00" + b"\0" * 100), "damaged"),
]


@pytest.mark.parametrize(("name", "make", "says"), BAD, ids=[b[0] for b in BAD])
def test_a_bad_file_is_one_sentence(tmp_path: Path, name: str, make: Callable[[Path], object], says: str) -> None:
    make(tmp_path / name)
    with pytest.raises(ScanError, match=says) as caught:
        read_scan(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="cannot be opened"):
        read_scan(tmp_path / "nowhere.png")
    with pytest.raises(ScanError, match="is a folder"):
        read_scan(tmp_path)
