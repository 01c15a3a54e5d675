"""Volumes lie as they lie in the patient, with their spacing, whatever file they come from."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bad_inputs import changed
from kinds import STACK, VOXELS, slices
from lucency import read_scan
from lucency.errors import MissingExtraError, ScanError


def rotation(angles: tuple[float, float, float]) -> np.ndarray:  # type: ignore[type-arg]
    a, b, c = np.radians(angles)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return x @ y @ z


@given(
    angles=st.tuples(*[st.floats(-25, 25)] * 3),
    order=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    zooms=st.tuples(*[st.floats(0.3, 4)] * 3),
)
@settings(max_examples=40)
def test_nifti_of_any_orientation_is_turned_as_nibabel_turns_it(
    tmp_path_factory: pytest.TempPathFactory,
    angles: tuple[float, float, float],
    order: list[int],
    signs: tuple[int, int, int],
    zooms: tuple[float, float, float],
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = rotation(angles) @ np.eye(3)[:, order] @ np.diag(signs) @ np.diag(zooms)
    image = nibabel.Nifti1Image(VOXELS, affine)
    path = tmp_path_factory.mktemp("v") / "x.nii"
    nibabel.save(image, path)
    scan = read_scan(path)
    expected = nibabel.as_closest_canonical(image)
    assert np.array_equal(scan.pixels[0], np.flip(np.asarray(expected.dataobj).transpose(2, 1, 0), (1, 2)))
    assert scan.spacing == pytest.approx(expected.header.get_zooms()[::-1], rel=1e-4)


@pytest.mark.parametrize("name", ["x.nrrd", "x.mha", "x.mhd"])
def test_itk_files_lie_as_the_nifti_does(tmp_path: Path, name: str) -> None:
    """The same volume through two libraries that count axes and directions differently."""
    itk = pytest.importorskip("SimpleITK")
    turn, zooms = rotation((10, -20, 15)) @ np.eye(3)[:, [2, 0, 1]] @ np.diag([1, -1, 1]), (0.5, 2.0, 3.0)
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(zooms)
    nibabel.save(nibabel.Nifti1Image(VOXELS, affine), tmp_path / "x.nii.gz")
    image = itk.GetImageFromArray(VOXELS.transpose(2, 1, 0))
    image.SetSpacing(zooms)
    image.SetDirection((np.diag([-1, -1, 1]) @ turn).ravel().tolist())
    itk.WriteImage(image, str(tmp_path / name))
    scan, other = read_scan(tmp_path / name), read_scan(tmp_path / "x.nii.gz")
    assert scan.sha256 == other.sha256
    assert scan.spacing == pytest.approx(other.spacing, rel=1e-4)


@pytest.mark.parametrize(
    ("shape", "spacing"), [((7, 8, 1), (2, 1)), ((7, 1, 8), (3, 1)), ((1, 7, 8), (3, 2)), ((7, 8), (2, 1))]
)
def test_one_slice_across_any_axis_is_a_picture_with_the_head_above(
    tmp_path: Path, shape: tuple[int, ...], spacing: tuple[float, float]
) -> None:
    values = np.zeros(shape, np.float32)
    values[tuple(n - 1 for n in shape)] = 1  # to the right, the front and the head
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 2, 3, 1])), tmp_path / "x.nii")
    scan = read_scan(tmp_path / "x.nii")
    assert scan.shape == (8, 7)
    assert scan.spacing == spacing
    assert scan.pixels[0, 0, 0] == 1
    assert "one slice" in scan.notices[-1]


def test_lengths_in_metres_and_microns(tmp_path: Path) -> None:
    for unit, factor in (("meter", 1000), ("micron", 0.001), ("mm", 1), ("unknown", 1)):
        image = nibabel.Nifti1Image(VOXELS, np.diag([1, 2, 4, 1]))
        image.header.set_xyzt_units(unit)
        nibabel.save(image, tmp_path / "x.nii")
        assert read_scan(tmp_path / "x.nii").spacing == pytest.approx((4 * factor, 2 * factor, factor))


@pytest.mark.parametrize("length", [0.0, -1.0, float("inf"), float("nan")])
def test_a_length_that_cannot_be_is_dropped(tmp_path: Path, length: float, capfd: pytest.CaptureFixture[str]) -> None:
    """Also where there is no affine, and NiBabel would make 1 of 0 and a positive number of a negative one."""
    path = changed(tmp_path / "x.nii", 80, struct.pack("<f", length))
    data = bytearray(path.read_bytes())
    data[252:256] = bytes(4)
    path.write_bytes(bytes(data))
    scan = read_scan(path)
    assert scan.spacing is None
    assert any("spacing" in notice for notice in scan.notices)
    assert capfd.readouterr() == ("", "")  # what NiBabel thinks of it stays with NiBabel


def test_uint8_keeps_its_depth_and_channels_in_the_fifth_axis_are_channels(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image((VOXELS > 0).astype(np.uint8), np.eye(4)), tmp_path / "x.nii")
    assert read_scan(tmp_path / "x.nii").value_range == (0, 255)
    nibabel.save(nibabel.Nifti1Image(np.stack([VOXELS, -VOXELS], 3)[:, :, :, None], np.eye(4)), tmp_path / "x.nii")
    scan = read_scan(tmp_path / "x.nii")
    assert scan.pixels.shape == (2, 6, 5, 4)
    assert np.array_equal(scan.pixels[0], -scan.pixels[1])


def changed_slice(folder: Path, name: str, **tags: object) -> Path:
    data = pydicom.dcmread(folder / name)
    for tag, value in tags.items():
        setattr(data, tag, value)
    data.save_as(folder / name)
    return folder


def test_slices_of_any_orientation_are_turned(tmp_path: Path) -> None:
    """Coronal slices, stored from back to front: the head comes first along D, and the back last along H."""
    for i, path in enumerate(sorted(slices(tmp_path).iterdir())):
        changed_slice(
            tmp_path, path.name, ImageOrientationPatient=[1, 0, 0, 0, 0, -1], ImagePositionPatient=[0, 4.0 * i, 90]
        )
    scan = read_scan(tmp_path)
    assert scan.shape == (8, 4, 6)
    assert scan.spacing == (0.5, 4, 0.7)
    # Stored rows run to the feet, and D runs to the head; files are named against their order in STACK.
    assert np.array_equal(scan.pixels[0], np.flip(STACK[::-1].transpose(1, 0, 2), 0))


def test_the_window_of_a_series(tmp_path: Path) -> None:
    slices(tmp_path, WindowCenter=100, WindowWidth=401, VOILUTFunction="LINEAR_EXACT")
    scan = read_scan(tmp_path)
    assert scan.value_range == (-100.5, 300.5)
    assert "window of the middle one" in scan.notices[-1]
    assert read_scan(tmp_path, value_range=(0, 80)).value_range == (0, 80)
    assert scan.modality == "CT"


def test_slices_without_positions_are_ordered_by_number(tmp_path: Path) -> None:
    for path in slices(tmp_path).iterdir():
        changed_slice(tmp_path, path.name, ImagePositionPatient=None, SliceThickness=3)
    scan = read_scan(tmp_path)
    assert np.array_equal(scan.pixels[0], STACK[::-1])
    assert scan.spacing == (3, 0.5, 0.7)
    assert any("ordered by number" in notice for notice in scan.notices)


def test_copies_and_other_files_are_left_out(tmp_path: Path) -> None:
    slices(tmp_path)
    shutil.copy(tmp_path / "9.dcm", tmp_path / "copy.dcm")
    (tmp_path / "readme.txt").write_text("read me")
    (tmp_path / ".hidden").write_bytes((tmp_path / "9.dcm").read_bytes())
    scan = read_scan(tmp_path)
    assert np.array_equal(scan.pixels[0], STACK)
    assert "copies" in scan.notices[0]


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        ({"SeriesInstanceUID": "1.2.4"}, r"2 series \(of 3, 1 slices\)"),
        ({"ImagePositionPatient": [0, 0, 2.5]}, "two slices at one place"),
        ({"PixelSpacing": [0.5, 0.5]}, "2 spacings"),
        ({"Rows": 4}, "2 sizes"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "2 directions"),
    ],
)
def test_a_folder_that_is_not_one_volume_is_refused(tmp_path: Path, tags: dict[str, object], says: str) -> None:
    slices(tmp_path)
    changed_slice(tmp_path, "9.dcm", **tags)
    with pytest.raises(ScanError, match=says):
        read_scan(tmp_path)


def test_a_folder_of_one_slice_is_that_film(tmp_path: Path) -> None:
    slices(tmp_path, (0,))
    assert read_scan(tmp_path).sha256 == read_scan(tmp_path / "9.dcm").sha256


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = {}",
            "no file beside",
        ),
        (
            "ObjectType = Image\nNDims = 3\nDimSize = 4 0 4\nElementType = MET_UCHAR\nElementDataFile = LOCAL",
            "length 0",
        ),
        ("ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = LOCAL", "decoded"),
        ("ObjectType = Image\nNDims = 3\nDimSize = 9999 9999 99\nElementDataFile = LOCAL", "more than"),
        ("ObjectType = Image\nNDims = 3\n", "ElementDataFile"),
    ],
)
def test_a_header_that_points_elsewhere_or_lies_is_refused(tmp_path: Path, text: str, says: str) -> None:
    """Whoever can send a header must not be able to read another file by it."""
    pytest.importorskip("SimpleITK")
    (tmp_path / "secret").write_bytes(bytes(range(64)))
    (tmp_path / "in").mkdir()
    for target in ("../secret", str(tmp_path / "secret"), "LIST", "slice%d.raw 1 9 1"):
        (tmp_path / "in" / "x.mhd").write_text(text.format(target))
        with pytest.raises(ScanError, match=says):
            read_scan(tmp_path / "in" / "x.mhd")
    if "{}" in text:
        (tmp_path / "in" / "beside.raw").write_bytes(bytes(range(64)))
        (tmp_path / "in" / "x.mhd").write_text(text.format("beside.raw"))
        assert read_scan(tmp_path / "in" / "x.mhd").shape == (4, 4, 4)


def test_without_its_extra_a_volume_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.nrrd").write_bytes(b"NRRD0004\n")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"lucency\[itk\]"):
        read_scan(tmp_path / "x.nrrd")
