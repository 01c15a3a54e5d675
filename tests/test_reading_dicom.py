"""DICOM films come out as a viewer shows them: every look-up table, frame, padding and polarity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels import apply_modality_lut, apply_voi_lut, convert_color_space
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from bad_inputs import dicom, ramp, saved
from lucency import Scan, read_scan
from lucency.errors import ScanError
from lucency.reading.dicom import looks_like_dicom, read_dataset, read_dicom

RNG = np.random.default_rng(0)


def lut(values: NDArray[np.generic], first: int, bits: int, name: str = "", vr: str = "US") -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, "SS" if first < 0 else "US", [len(values) % 65536, first, bits])
    item.add_new(0x00283003, "LO", name)
    item.add_new(0x00283006, vr, values.astype("<u2").tobytes() if vr == "OW" else [int(v) for v in values])
    return item


def item(**tags: object) -> Dataset:
    data = Dataset()
    for name, value in tags.items():
        setattr(data, name, value)
    return data


def shown(scan: Scan) -> NDArray[np.float32]:
    return scan.display[0].numpy()


def by_pydicom(data: Dataset) -> NDArray[np.float64]:
    """Black to white as 0 to 1, by pydicom's own functions."""
    voi = apply_voi_lut(apply_modality_lut(data.pixel_array, data), data).astype(np.float64)
    if data.get("VOILUTSequence"):
        low, high = 0.0, 2.0 ** int(data.VOILUTSequence[0].LUTDescriptor[2]) - 1
    elif data.get("ModalityLUTSequence"):
        low, high = 0.0, 2.0 ** int(data.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    else:
        bits, signed = int(data.BitsStored), int(data.PixelRepresentation)
        low, high = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
        slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
        low, high = low * slope + intercept, high * slope + intercept
    return (voi - low) / (high - low)


def by_the_standard(data: Dataset) -> NDArray[np.float64]:
    """The same, one number at a time as PS3.3 C.11 writes it."""

    def looked_up(value: float, item: Dataset) -> float:
        entries, first, _ = item.LUTDescriptor
        numbers = np.frombuffer(item.LUTData, "<u2") if isinstance(item.LUTData, bytes) else item.LUTData
        return float(numbers[int(min(max(value - first, 0), entries - 1))])

    def one(value: float) -> float:
        low, high = 0.0, 4095.0
        if luts := data.get("ModalityLUTSequence"):
            value, high = looked_up(value, luts[0]), 2.0 ** luts[0].LUTDescriptor[2] - 1
        else:
            value = value * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
        if luts := data.get("VOILUTSequence"):
            return looked_up(value, luts[0]) / (2.0 ** luts[0].LUTDescriptor[2] - 1)
        if "WindowCenter" not in data:
            return (value - low) / (high - low)
        c, w = float(data.WindowCenter), float(data.WindowWidth)
        function = data.get("VOILUTFunction", "LINEAR")
        if function == "SIGMOID":
            return 1 / (1 + float(np.exp(-4 * (value - c) / w)))
        if function == "LINEAR":
            c, w = c - 0.5, w - 1
        if value <= c - w / 2:
            return 0
        return 1 if value > c + w / 2 else (value - c) / w + 0.5

    return np.array([[one(float(v)) for v in row] for row in data.pixel_array])


NOT_BY_PYDICOM = {
    "VOI LUT of 8 bits": "counts the places in a table by the 8 bits of its entries",
    "VOI LUT below zero": "warns of numbers that were rescaled",
    "Modality LUT and VOI LUT": "knows no Modality LUT of 12 bits",
}
RISING = np.round(4095 / (1 + np.exp(-np.linspace(-5, 5, 3000))))
PIPELINES: dict[str, dict[str, object]] = {
    "window": {"WindowCenter": 2000, "WindowWidth": 1500},
    "window, wider than the film": {"WindowCenter": 2048, "WindowWidth": 9000},
    "window of one": {"WindowCenter": 2000, "WindowWidth": 1},
    "LINEAR_EXACT": {"WindowCenter": 2000, "WindowWidth": 0.5, "VOILUTFunction": "LINEAR_EXACT"},
    "SIGMOID": {"WindowCenter": 2000, "WindowWidth": 900, "VOILUTFunction": "SIGMOID"},
    "rescale and window": {"RescaleSlope": 0.5, "RescaleIntercept": -1000, "WindowCenter": 40, "WindowWidth": 400},
    "falling rescale": {"RescaleSlope": -1, "RescaleIntercept": 4095, "WindowCenter": 3000, "WindowWidth": 1000},
    "VOI LUT": {"VOILUTSequence": [lut(RISING, 500, 12)]},
    "VOI LUT in words": {"VOILUTSequence": [lut(RISING, 500, 12, vr="OW")]},
    "falling VOI LUT": {"VOILUTSequence": [lut(RISING[::-1], 500, 12)]},
    "VOI LUT of 8 bits": {"VOILUTSequence": [lut(np.arange(256)[::-1], 1000, 8)]},
    "VOI LUT before window": {"VOILUTSequence": [lut(RISING, 0, 12)], "WindowCenter": 40, "WindowWidth": 400},
    "VOI LUT below zero": {
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "VOILUTSequence": [lut(RISING, -900, 12)],
    },
    "Modality LUT and window": {
        "ModalityLUTSequence": [lut(np.round(np.linspace(0, 255, 4096) ** 2), 0, 16)],
        "WindowCenter": 20_000,
        "WindowWidth": 30_000,
    },
    "Modality LUT and VOI LUT": {
        "ModalityLUTSequence": [lut(np.arange(4096)[::-1], 0, 12)],
        "VOILUTSequence": [lut(RISING, 500, 12)],
    },
}


@pytest.mark.parametrize("syntax", ["explicit", "implicit"])
@pytest.mark.parametrize("polarity", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_display_pipeline_is_that_of_the_standard_and_of_pydicom(
    tmp_path: Path, pipeline: str, polarity: str, syntax: str
) -> None:
    data = dicom(ramp(), BitsStored=12, PhotometricInterpretation=polarity, **PIPELINES[pipeline])
    for sequence in ("VOILUTSequence", "ModalityLUTSequence"):
        for one in data.get(sequence) or ():
            if sequence == "ModalityLUTSequence":
                one.ModalityLUTType = "US"
    if syntax == "implicit":
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    path = saved(data, tmp_path / "x.dcm")
    expected = by_the_standard(data)
    if pipeline not in NOT_BY_PYDICOM:
        assert np.abs(by_pydicom(dcmread(path)) - expected).max() < 1e-9
    if polarity == "MONOCHROME1":
        expected = 1 - expected
    scan = read_dicom(path)
    assert np.abs(shown(scan) - expected).max() < 1e-5
    assert ("MONOCHROME1" in str(scan.notices)) == (polarity == "MONOCHROME1")
    # The same dataset in memory is the same scan, and is left as it was.
    before = data.to_json()
    assert torch.equal(read_dataset(data).pixels, scan.pixels)
    assert data.to_json() == before


def test_a_linear_window_keeps_the_units_of_the_file() -> None:
    scan = read_dataset(dicom(ramp(), RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=40, WindowWidth=401))
    assert scan.value_range == (-160.5, 239.5)
    values = ramp().astype(np.float32) * 2 - 1000
    assert np.array_equal(scan.pixels[0].numpy(), np.clip(values, -160.5, 239.5))


SEVERAL: dict[str, object] = {
    "WindowCenter": [1000, 2000, 3000],
    "WindowWidth": [500, 500, 500],
    "WindowCenterWidthExplanation": ["NORMAL", "BONE", "LUNG"],
}


@pytest.mark.parametrize(
    ("window", "low"), [(None, 750), (1, 750), ("bone", 1750), ("2", 1750), (3, 2750), ("LUNG ", 2750)]
)
def test_windows_by_name_and_number(window: str | int | None, low: float) -> None:
    scan = read_dataset(dicom(ramp(), **SEVERAL), window=window)
    assert scan.value_range == (low, low + 499)
    assert ("there are also: BONE, LUNG" in str(scan.notices)) == (window is None)


def test_a_look_up_table_by_name_and_a_window_beside_it() -> None:
    data = dicom(
        ramp(), BitsStored=12, VOILUTSequence=[lut(RISING, 0, 12, "A"), lut(RISING[::-1], 0, 12, "B")], **SEVERAL
    )
    assert shown(read_dataset(data))[0, 0] < 0.01
    assert shown(read_dataset(data, window="B"))[0, 0] > 0.99
    assert read_dataset(data, window=2).value_range == (1750, 2249)


@pytest.mark.parametrize("window", ["BRAIN", 0, 4, ""])
def test_a_window_that_there_is_not(window: str | int) -> None:
    with pytest.raises(ScanError, match=r"has no window .*; choose one of 1 NORMAL, 2 BONE, 3 LUNG"):
        read_dataset(dicom(ramp(), **SEVERAL), window=window)
    with pytest.raises(ScanError, match="it has none"):
        read_dataset(dicom(ramp()), window=window)


def test_a_range_of_ones_own_takes_the_place_of_any_window() -> None:
    data = dicom(ramp(), VOILUTSequence=[lut(RISING, 0, 12)], **SEVERAL)
    scan = read_dataset(data, value_range=(100, 300))
    assert scan.value_range == (100, 300)
    assert (float(scan.pixels.min()), float(scan.pixels.max())) == (100, 300)
    with pytest.raises(ScanError, match="not both"):
        read_dataset(data, value_range=(100, 300), window=1)


@pytest.mark.parametrize("width", [0, -5, 0.5, "nan"])
def test_a_window_that_makes_no_sense_is_dropped_aloud(tmp_path: Path, width: object) -> None:
    data = dicom(ramp(), BitsStored=12)
    path = saved(data, tmp_path / "x.dcm")
    raw = dcmread(path)
    raw.add_new(0x00281050, "LO", "5")
    raw.add_new(0x00281051, "LO", str(width))
    scan = read_dataset(raw)
    assert scan.value_range == (0, 4095)
    assert "makes no sense" in scan.notices[0]


@pytest.mark.parametrize(
    ("photometric", "shape", "inverse", "says"),
    [
        ("MONOCHROME2", "IDENTITY", False, ""),
        ("MONOCHROME1", "INVERSE", True, "turned round"),
        ("MONOCHROME2", "INVERSE", True, "contradicts itself"),
        ("MONOCHROME1", "IDENTITY", True, "contradicts itself"),
    ],
)
def test_presentation_lut_shape(photometric: str, shape: str, inverse: bool, says: str) -> None:
    """One inversion, however often the header asks for it."""
    data = dicom(ramp(), BitsStored=12, PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    scan = read_dataset(data)
    assert (shown(scan)[0, 0] == 1) == inverse
    assert says in str(scan.notices)


def test_a_presentation_look_up_table_comes_last() -> None:
    gamma = np.round(255 * np.linspace(0, 1, 1024) ** 2)
    data = dicom(ramp(), WindowCenter=2048, WindowWidth=2000, PresentationLUTSequence=[lut(gamma, 0, 8)])
    window = np.clip((ramp().astype(np.float64) - 2047.5) / 1999 + 0.5, 0, 1)
    assert np.abs(shown(read_dataset(data)) - window**2).max() < 0.005


@pytest.mark.parametrize("polarity", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize(("padding", "limit"), [(0, None), (4095, None), (0, 200), (4095, 4000)])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 2000, "WindowWidth": 1000}], ids=["bits", "window"])
def test_padding_is_background(polarity: str, padding: int, limit: int | None, window: dict[str, object]) -> None:
    values = ramp()
    values[:5] = values[-5:] = values[:, :5] = padding
    tags = window | {"PixelPaddingValue": padding, "PhotometricInterpretation": polarity}
    if limit is not None:
        values[5:7] = limit
        tags["PixelPaddingRangeLimit"] = limit
    scan = read_dataset(dicom(values, BitsStored=12, **tags))
    padded = (values >= min(padding, limit or padding)) & (values <= max(padding, limit or padding))
    if limit is None:
        padded = values == padding
    assert (shown(scan)[padded] == 0).all()
    assert float(scan.display.min()) == 0
    assert float(scan.display.max()) <= 1
    plain = read_dataset(dicom(values, BitsStored=12, **{k: v for k, v in tags.items() if "Padding" not in k}))
    assert np.array_equal(shown(scan)[~padded], shown(plain)[~padded])
    assert "padding" in str(scan.notices)


def test_padding_does_not_stretch_a_film_without_window() -> None:
    values = ramp(top=1000)
    values[:9] = 60_000
    scan = read_dataset(dicom(values, PixelPaddingValue=60_000))
    assert scan.value_range[1] == 1000
    signed = (ramp(top=1000).astype("i2") - 500).astype("i2")
    signed[:9] = -2000
    data = dicom(signed)
    data.add_new(0x00280120, "US", 65536 - 2000)  # the bits are right and the sign is not
    assert read_dataset(data).value_range == (signed[9:].min(), 500)


def test_a_frame_of_several() -> None:
    frames = np.stack([ramp(), ramp()[::-1], ramp() // 2])
    data = dicom(ramp(), NumberOfFrames=3)
    data.PixelData = frames.tobytes()
    for number in (1, 2, 3):
        assert np.array_equal(read_dataset(data, frame=number).pixels[0].numpy(), frames[number - 1])
    for frame in (None, 0, 4):
        with pytest.raises(ScanError, match="frames"):
            read_dataset(data, frame=frame)
    assert read_dataset(dicom(ramp()), frame=1).shape == (64, 48)
    data.PixelData = data.PixelData[:-100]
    read_dataset(data, frame=2)
    with pytest.raises(ScanError, match=r"18,332 of the 18,432 bytes"):
        read_dataset(data, frame=3)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_a_frame_of_several_that_are_compressed(tmp_path: Path, syntax: str) -> None:
    frames = np.stack([ramp(), ramp()[::-1]])
    data = dicom(ramp(), NumberOfFrames=2)
    data.PixelData = frames.tobytes()
    data.compress(syntax, generate_instance_uid=False)
    path = saved(data, tmp_path / "x.dcm")
    for number in (1, 2):
        assert np.array_equal(read_dicom(path, frame=number).pixels[0].numpy(), frames[number - 1])
        assert np.array_equal(read_dataset(data, frame=number).pixels[0].numpy(), frames[number - 1])


def test_enhanced_objects_tell_window_and_spacing_for_each_frame() -> None:
    data = dicom(ramp(), NumberOfFrames=2)
    data.PixelData = np.stack([ramp(), ramp()]).tobytes()
    data.SharedFunctionalGroupsSequence = [item(PixelMeasuresSequence=[item(PixelSpacing=[0.5, 0.25])])]
    data.PerFrameFunctionalGroupsSequence = [
        item(
            FrameVOILUTSequence=[item(WindowCenter=c, WindowWidth=101)],
            PixelValueTransformationSequence=[item(RescaleSlope=1, RescaleIntercept=-c)],
        )
        for c in (0, 100)
    ]
    scans = [read_dataset(data, frame=n) for n in (1, 2)]
    assert [scan.value_range for scan in scans] == [(-50.5, 49.5), (49.5, 149.5)]
    assert [scan.spacing for scan in scans] == [(0.5, 0.25)] * 2
    assert float(scans[1].pixels[0, 0, 0]) == 49.5
    assert "WindowCenter" not in data


def palette(bits: int) -> dict[str, object]:
    top = 2**bits - 1
    tags: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, values in (("Red", [0, top, top]), ("Green", [0, 0, top]), ("Blue", [0, 0, top])):
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [3, 10, bits]
        tags[f"{name}PaletteColorLookupTableData"] = np.array(values + [0] * (bits == 8), f"<u{bits // 8}").tobytes()
    return tags


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_becomes_grey(bits: int) -> None:
    places = RNG.integers(8, 15, (9, 7)).astype(np.uint8)
    scan = read_dataset(dicom(places, **palette(bits)))
    grey = np.array([0, 0.299, 1])[np.clip(places.astype(int) - 10, 0, 2)]
    assert np.allclose(shown(scan), grey, atol=1e-6)
    assert scan.notices == ("colour turned to grey (ITU-R BT.601 luma)",)


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_colour_in_both_orders(photometric: str, planar: int) -> None:
    colour = RNG.integers(0, 255, (8, 9, 3)).astype(np.uint8)
    stored = colour if photometric == "RGB" else convert_color_space(colour, "RGB", "YBR_FULL")
    data = dicom(stored, SamplesPerPixel=3, PlanarConfiguration=planar, PhotometricInterpretation=photometric)
    data.PixelData = (stored.transpose(2, 0, 1) if planar else stored).tobytes()
    assert np.allclose(read_dataset(data).pixels[0].numpy(), colour @ np.array([0.299, 0.587, 0.114]), atol=1.5)


def test_half_of_the_colour() -> None:
    """YBR_FULL_422 stores one colour for two pixels."""
    data = dicom(np.zeros((2, 4), np.uint8), SamplesPerPixel=3, PlanarConfiguration=0)
    data.PhotometricInterpretation = "YBR_FULL_422"
    data.PixelData = bytes([10, 20, 128, 128, 30, 40, 128, 128] * 2)
    assert np.array_equal(read_dataset(data).pixels[0].numpy(), [[10, 20, 30, 40]] * 2)


def test_big_endian_words_of_small_pixels(tmp_path: Path) -> None:
    values = RNG.integers(0, 255, (6, 5)).astype(np.uint8)
    data = dicom(values)
    data.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    data["PixelData"].VR = "OW"
    data.PixelData = np.frombuffer(values.tobytes(), "u2").byteswap().tobytes()
    path = tmp_path / "x.dcm"
    data.save_as(path, enforce_file_format=True, implicit_vr=False, little_endian=False)
    assert np.array_equal(read_dicom(path).pixels[0].numpy(), values)


@pytest.mark.parametrize("implicit", [False, True])
def test_a_file_without_preamble(tmp_path: Path, implicit: bool) -> None:
    path = tmp_path / "bare"
    data = dicom(ramp())
    meta = data.file_meta
    del data.file_meta
    data.save_as(path, implicit_vr=implicit, little_endian=True)
    assert looks_like_dicom(path.read_bytes()[:348])
    assert np.array_equal(read_dicom(path).pixels[0].numpy(), ramp())
    data.file_meta = meta
    assert looks_like_dicom(saved(data, tmp_path / "whole").read_bytes()[:348])
    for head in (
        b"",
        b"II*\0" * 9,
        b"\x93NUMPY" * 9,
        b"text " * 9,
        bytes(348),
        b"\x08\0\0\0" + b"\xff" * 9,
        b"\x02\0" * 9,
    ):
        assert not looks_like_dicom(head)


@pytest.mark.parametrize(
    ("tags", "spacing", "says"),
    [
        ({"PixelSpacing": [0.2, 0.1]}, (0.2, 0.1), ""),
        ({"ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1), "that of the detector"),
        ({"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [0.2, 0.2]}, (0.2, 0.2), "that of the detector"),
        ({"PixelSpacing": [0.1, 0.1], "ImagerPixelSpacing": [0.2, 0.2]}, (0.1, 0.1), ""),
        (
            {"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [0.2, 0.2], "PixelSpacingCalibrationType": "FIDUCIAL"},
            (0.2, 0.2),
            "",
        ),
        (
            {"ImagerPixelSpacing": [0.2, 0.1], "EstimatedRadiographicMagnificationFactor": 1.25},
            (0.16, 0.08),
            "magnification of 1.25",
        ),
        ({"NominalScannedPixelSpacing": [0.1, 0.1]}, (0.1, 0.1), "scanned film"),
        ({"PixelSpacing": [0, 0.1]}, None, "makes no sense"),
        ({}, None, ""),
    ],
)
def test_spacing_is_said_to_be_where_it_is_measured(
    tags: dict[str, object], spacing: tuple[float, float] | None, says: str
) -> None:
    scan = read_dataset(dicom(ramp("uint8", 255), **tags))
    assert scan.spacing == pytest.approx(spacing)
    assert (says in str(scan.notices)) if says else scan.notices == ()


def test_infinite_spacing_is_dropped() -> None:
    data = dicom(ramp("uint8", 255))
    data.add_new(0x00280030, "LO", ["inf", "0.1"])
    assert read_dataset(data).spacing is None


@pytest.mark.parametrize(
    ("tags", "view"),
    [
        ({}, ""),
        ({"ViewPosition": "PA"}, "PA"),
        ({"ViewPosition": "AP"}, "AP"),
        ({"ViewPosition": "LL"}, "LATERAL"),
        ({"ViewPosition": "RLD"}, ""),  # lying on the side, and seen from the front
        ({"ViewCodeSequence": [item(CodeMeaning="postero-anterior")]}, "PA"),
        ({"ViewCodeSequence": [item(CodeMeaning="left lateral")]}, "LATERAL"),
        ({"PatientOrientation": ["A", "F"]}, "LATERAL"),
        ({"PatientOrientation": ["L", "F"]}, ""),
        ({"ViewPosition": "PA", "PatientOrientation": ["L", "F"]}, "PA"),
    ],
)
def test_view_and_modality(tags: dict[str, object], view: str) -> None:
    scan = read_dataset(dicom(ramp(), Modality="DX", **tags))
    assert (scan.view, scan.modality) == (view, "DX")


@pytest.mark.parametrize(("directions", "says"), [(["L", "F"], ""), (["R", "F"], "mirrored"), (["L", "H"], "head")])
def test_a_film_that_is_turned_says_so(directions: list[str], says: str) -> None:
    scan = read_dataset(dicom(ramp("uint8", 255), PatientOrientation=directions))
    assert (says in str(scan.notices)) if says else scan.notices == ()


def test_a_folder_of_slices_goes_through_their_look_up_tables(tmp_path: Path) -> None:
    tables = [lut(RISING[::-1], 500, 12), lut(RISING[::-1], 500, 12), lut(np.arange(256), 0, 8)]
    for i, one in enumerate(tables):
        data = dicom(ramp(), BitsStored=12, SeriesInstanceUID="1.2", InstanceNumber=i, VOILUTSequence=[one])
        data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 2 * i], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing = [1, 1]
        saved(data, tmp_path / f"{i}.dcm")
    with pytest.raises(ScanError, match="no scale in common"):
        read_scan(tmp_path)
    (tmp_path / "2.dcm").unlink()
    scan = read_scan(tmp_path)
    assert scan.value_range == (0, 4095)
    assert np.array_equal(scan.pixels[0, 0].numpy(), read_dicom(tmp_path / "0.dcm").pixels[0].numpy())


def test_nothing_of_the_patient_is_kept() -> None:
    scan = read_dataset(dicom(ramp(), PatientName="Doe^Jane", PatientID="4711", Modality="DX"))
    assert not any(word in repr(vars(scan)) for word in ("Doe", "4711"))
