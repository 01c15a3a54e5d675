"""DICOM objects made of an explanation: they refer to the film, validate, read back equal, and are the same twice."""

from __future__ import annotations

import re
import shutil
import subprocess
import warnings
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.dataset import Dataset
from skimage import measure

import lucency
from lucency import Explanation, Scan, load_classifier, read_scan
from lucency.attribution import attribute
from lucency.checks.verdict import strongest
from lucency.cli import main
from lucency.dicom import derived, save
from lucency.dicom.codes import finding
from lucency.dicom.objects import OBJECTS
from lucency.engine import Engine
from lucency.errors import LucencyError, ParameterError
from lucency.methods.occlusion import Occlusion
from lucency.records import VerdictRecord
from lucency.render import save_animation
from lucency.render.panels import Panels
from lucency.render.recorder import Recorder
from lucency.viewer.palette import Scale, composite
from lucency.writing import results
from nets import Window, classifier_of
from radiographs import film

needs_dciodvfy = pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools are not installed")
needs_dcmtk = pytest.mark.skipif(shutil.which("dcm2pnm") is None, reason="dcmtk is not installed")


NEGATIVE: dict[str, object] = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}


def explained(path: Path, **how: object) -> Explanation:
    """A map of a classifier that looks at one place, with a positive and a negative side."""
    scan = read_scan(path, **how)  # type: ignore[arg-type]
    found = attribute(
        scan, Engine(classifier_of(Window((10, 30), (20, 50)))), Occlusion(patch=max(scan.shape) // 10), target=0
    )
    tilted = found.heatmap - np.float32(0.2) * found.heatmap.max()
    verdict = VerdictRecord("At the left base: the strongest evidence.", ())
    return replace(found, heatmap=tilted.astype(np.float32), verdict=verdict)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Explanation, Path]:
    """A film, its explanation, and the folder of the objects."""
    place = tmp_path_factory.mktemp("dicom")
    source = film(place / "film.dcm")
    explanation = explained(source)
    explanation.to_dicom(source, place / "out")
    return source, explanation, place / "out"


def errors(file: Path) -> set[str]:
    """What dciodvfy calls an error."""
    said = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True, errors="replace")
    return {line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")}


@needs_dciodvfy
def test_the_film_of_the_tests_is_without_error(made: tuple[Path, Explanation, Path]) -> None:
    assert errors(made[0]) == set()


@needs_dciodvfy
@pytest.mark.parametrize("name", OBJECTS)
def test_each_object_validates(made: tuple[Path, Explanation, Path], name: str) -> None:
    assert errors(made[2] / name) == set()


@needs_dciodvfy
def test_as_a_set_they_contradict_nothing(made: tuple[Path, Explanation, Path]) -> None:
    source, _, folder = made
    files = [str(source), *map(str, sorted(folder.glob("*.dcm")))]
    said = subprocess.run(["dcentvfy", *files], capture_output=True, text=True, errors="replace")
    assert "Error" not in said.stdout + said.stderr


@pytest.mark.parametrize("name", OBJECTS)
def test_study_and_patient_are_the_films_and_the_series_is_new(made: tuple[Path, Explanation, Path], name: str) -> None:
    source, found = pydicom.dcmread(made[0]), pydicom.dcmread(made[2] / name)
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "StudyInstanceUID",
                    "StudyDate", "StudyTime", "AccessionNumber", "StudyID", "ReferringPhysicianName"):  # fmt: skip
        assert str(found[keyword].value) == str(source[keyword].value), keyword
    assert found.SeriesInstanceUID != source.SeriesInstanceUID
    assert found.SOPInstanceUID != source.SOPInstanceUID
    assert "Research only" in found.SeriesDescription
    assert str(source.SOPInstanceUID) in str(found)
    assert "Lucency" in found.Manufacturer


def test_series_are_distinct(made: tuple[Path, Explanation, Path]) -> None:
    found = [pydicom.dcmread(file) for file in sorted(made[2].glob("*.dcm"))]
    assert len({one.SOPInstanceUID for one in found}) == len(found)
    assert all(one.Modality for one in found)
    for one in found:
        assert {o.Modality for o in found if o.SeriesInstanceUID == one.SeriesInstanceUID} == {one.Modality}


def test_the_same_explanation_twice_gives_the_same_bytes(made: tuple[Path, Explanation, Path], tmp_path: Path) -> None:
    source, explanation, folder = made
    saved = explanation.save(tmp_path / "e.lucency")
    Explanation.load(saved).to_dicom(source, tmp_path / "again")
    names = sorted(file.name for file in folder.glob("*.dcm"))
    assert names == sorted(file.name for file in (tmp_path / "again").glob("*.dcm"))
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_made_again_at_another_time_the_identifiers_are_the_same(made: tuple[Path, Explanation, Path]) -> None:
    source, explanation, folder = made
    cost = replace(explanation.provenance.cost, seconds=99.0)
    later = replace(explanation.provenance, made="2031-05-06T07:08:09+00:00", cost=cost)
    for name, found in derived(replace(explanation, provenance=later), source).items():
        assert found.SOPInstanceUID == pydicom.dcmread(folder / name).SOPInstanceUID
        assert found.InstanceCreationDate == "20310506"


def test_another_map_has_other_identifiers(made: tuple[Path, Explanation, Path]) -> None:
    source, explanation, folder = made
    for name, found in derived(replace(explanation, heatmap=explanation.heatmap * 2), source).items():
        assert found.SOPInstanceUID != pydicom.dcmread(folder / name).SOPInstanceUID


@pytest.mark.parametrize("tags", [{}, NEGATIVE], ids=["MONOCHROME2", "MONOCHROME1"])
def test_the_overlay_is_the_film_as_a_viewer_shows_it(tmp_path: Path, tags: dict[str, object]) -> None:
    source = film(tmp_path / "film.dcm", **tags)
    explanation = explained(source)
    explanation.to_dicom(source, tmp_path / "out")
    found = pydicom.dcmread(tmp_path / "out" / "overlay.dcm")
    shown = composite(explanation.pixels[0], Scale.of(explanation.heatmap).strength(explanation.heatmap))
    rgb = found.pixel_array
    rows, columns = explanation.heatmap.shape
    at = [
        (y, x)
        for y in range(rgb.shape[0] - rows + 1)
        for x in [(rgb.shape[1] - columns) // 2]
        if np.array_equal(rgb[y : y + rows, x : x + columns], shown)
    ]
    assert len(at) == 1
    assert found.BurnedInAnnotation == "YES"
    stored = pydicom.dcmread(source).pixel_array
    darkest = np.unravel_index(stored.argmin(), stored.shape)
    assert explanation.pixels[0][darkest] == explanation.pixels.min() if not tags else explanation.pixels.max()


@pytest.mark.parametrize("name", ["山田^太郎", "Müller^Jürg"])
def test_names_in_any_script_arrive(tmp_path: Path, name: str) -> None:
    source = film(tmp_path / "film.dcm", SpecificCharacterSet="ISO_IR 192", PatientName=f"Yamada^Tarou={name}")
    explained(source).to_dicom(source, tmp_path / "out")
    for file in (tmp_path / "out").glob("*.dcm"):
        assert str(pydicom.dcmread(file).PatientName) == f"Yamada^Tarou={name}"


def test_what_bends_the_standard_in_the_film_is_copied_and_ends_nothing(tmp_path: Path) -> None:
    source = film(tmp_path / "film.dcm", PatientAge="062Y", PatientOrientation=None, BodyPartExamined=None)
    data = source.read_bytes().replace(b"062Y", b"62  ").replace(b"M ", b"x ", 1)
    source.write_bytes(data)
    explained(source).to_dicom(source, tmp_path / "out")
    assert all("62" in str(pydicom.dcmread(f).get_item("PatientAge").value) for f in (tmp_path / "out").glob("*.dcm"))


def refused(explanation: Explanation, source: Path, **how: object) -> str:
    with pytest.raises(LucencyError) as caught:
        derived(explanation, source, **how)  # type: ignore[arg-type]
    said = str(caught.value)
    assert re.fullmatch(r"[^\n]+\.", said)
    return said


def test_bad_sources_are_refused_in_one_sentence(made: tuple[Path, Explanation, Path], tmp_path: Path) -> None:
    source, explanation, _ = made
    (tmp_path / "text.dcm").write_bytes(b"not an image" * 40)
    (tmp_path / "film.png").write_bytes(Path(lucency.__file__).with_name("phantom").joinpath("demo.png").read_bytes())
    other = film(tmp_path / "other.dcm", (np.arange(64 * 80).reshape(64, 80) % 4000).astype(np.uint16))
    frames = film(tmp_path / "frames.dcm", np.zeros((128, 80), np.uint16), NumberOfFrames=2, Rows=64)
    nameless = film(tmp_path / "nameless.dcm", StudyInstanceUID=None)
    for file, words in {
        tmp_path / "nowhere.dcm": "is no file",
        tmp_path: "is no file",
        tmp_path / "text.dcm": "damaged",
        tmp_path / "film.png": "no DICOM film",
        other: "does not show the pixels",
        frames: "2 frames",
        nameless: "no StudyInstanceUID",
    }.items():
        assert words in refused(explanation, file)
    assert "does not show" in refused(explanation, source, value_range=(0, 3000))
    volume = Scan(torch.rand(1, 4, 8, 8))
    deep = attribute(volume, Engine(classifier_of(Window((0, 2), (0, 4), (0, 4)))), Occlusion(patch=2))
    with pytest.raises(ParameterError, match="volume"):
        derived(deep, source)


def test_the_window_of_the_explanation_can_be_said(tmp_path: Path) -> None:
    source = film(tmp_path / "film.dcm")
    explanation = explained(source, value_range=(600.0, 2500.0))
    assert "--value-range" in refused(explanation, source)
    assert derived(explanation, source, value_range=(600.0, 2500.0))


def test_the_command_writes_what_python_writes(
    made: tuple[Path, Explanation, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, explanation, folder = made
    saved = explanation.save(tmp_path / "e.lucency")
    with pytest.raises(SystemExit) as end:
        main(["dicom", str(saved), "--source", str(source), "--out", str(tmp_path / "out")])
    assert end.value.code == 0
    assert "overlay.dcm" in capsys.readouterr().out
    for file in folder.glob("*.dcm"):
        assert file.read_bytes() == (tmp_path / "out" / file.name).read_bytes()


def test_a_place_that_cannot_be_written_is_one_sentence(
    made: tuple[Path, Explanation, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, explanation, _ = made
    saved = explanation.save(tmp_path / "e.lucency")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(SystemExit) as end:
        main(["dicom", str(saved), "--source", str(source), "--out", str(tmp_path / "out")])
    assert end.value.code == 3
    assert "cannot be written" in capsys.readouterr().err


def test_a_full_disk_is_said_in_the_words_of_the_system(made: tuple[Path, Explanation, Path], tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="this system has no limits on files")
    source, explanation, _ = made
    found = derived(explanation, source)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"^\[Errno 27\] File too large$"):
            save({"overlay.dcm": found["overlay.dcm"]}, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@needs_dcmtk
@pytest.mark.parametrize("name", ["overlay.dcm"])
def test_dcmtk_opens_the_pictures(made: tuple[Path, Explanation, Path], tmp_path: Path, name: str) -> None:
    subprocess.run(["dcm2pnm", str(made[2] / name), str(tmp_path / "shown.ppm")], check=True)
    assert (tmp_path / "shown.ppm").stat().st_size > 64 * 80


def test_the_map_reads_back_bit_equal(made: tuple[Path, Explanation, Path]) -> None:
    source, explanation, folder = made
    found = pydicom.dcmread(folder / "map.dcm")
    assert np.array_equal(found.pixel_array, explanation.heatmap)
    assert found.pixel_array.dtype == np.float32
    assert found.ContentLabel == "HEATMAP"
    assert "invented" in found.DerivationDescription
    assert found.FrameOfReferenceUID != pydicom.dcmread(source).get("FrameOfReferenceUID")
    shared = found.SharedFunctionalGroupsSequence[0]
    mapping = found.PerFrameFunctionalGroupsSequence[0].get("RealWorldValueMappingSequence") or shared[0x00409096].value
    assert mapping[0].MeasurementUnitsCodeSequence[0].CodingSchemeDesignator == "UCUM"
    assert mapping[0].LUTExplanation == explanation.provenance.method.unit


def test_a_slice_with_a_place_in_the_patient_keeps_it(tmp_path: Path) -> None:
    place: dict[str, object] = {
        "FrameOfReferenceUID": "1.2.826.0.1.3680043.2.7",
        "ImagePositionPatient": [-10.0, 20.0, 30.0],
        "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        "PixelSpacing": [0.5, 0.5],
    }
    source = film(tmp_path / "slice.dcm", **place)
    found = derived(explained(source), source)["map.dcm"]
    assert found.FrameOfReferenceUID == place["FrameOfReferenceUID"]
    assert "-10" in str(found.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0])
    assert "invented" not in found.DerivationDescription


def test_a_frame_of_reference_without_a_position_is_not_taken(tmp_path: Path) -> None:
    source = film(tmp_path / "film.dcm", FrameOfReferenceUID="1.2.826.0.1.3680043.2.7")
    found = derived(explained(source), source)["map.dcm"]
    assert found.FrameOfReferenceUID != "1.2.826.0.1.3680043.2.7"


def test_the_segmentations_are_the_strongest_region_and_the_share_of_the_maximum(
    made: tuple[Path, Explanation, Path],
) -> None:
    _, explanation, folder = made
    found = highdicom.seg.segread(folder / "segmentation.dcm")
    assert np.array_equal(found.pixel_array.squeeze(), strongest(explanation.heatmap))
    assert list(found.PatientOrientation) == ["L", "F"]
    shares = highdicom.seg.segread(folder / "segmentation-fractional.dcm")
    wanted = np.clip(explanation.heatmap, 0, None) / explanation.heatmap.max()
    stored = shares.pixel_array.squeeze() / 255
    assert np.abs(stored - wanted).max() <= 0.5 / 255 + 1e-6


def test_the_report_says_what_and_where_and_by_what(made: tuple[Path, Explanation, Path]) -> None:
    _, explanation, folder = made
    found = highdicom.sr.srread(folder / "report.dcm")
    (group,) = found.content.get_planar_roi_measurement_groups()
    assert group.finding_type.meaning == explanation.target
    assert group.get_measurements()[0].value == pytest.approx(100 * explanation.probability)
    region = group.roi.value
    assert np.array_equal(region[0], region[-1])
    inside = strongest(explanation.heatmap)
    rows, columns = np.nonzero(inside)
    assert region.min(0) == pytest.approx([columns.min(), rows.min()], abs=0.51)
    assert region.max(0) == pytest.approx([columns.max() + 1, rows.max() + 1], abs=0.51)
    said = found.to_json()
    for words in (
        "At the left base", "Research only", explanation.provenance.model.fingerprint, version("lucency")
    ):  # fmt: skip
        assert words in said
    assert found.VerificationFlag == "UNVERIFIED"


@pytest.mark.parametrize("name", load_classifier("lucency:effusion").classes)
def test_classes_of_shipped_models_have_codes(name: str) -> None:
    found = finding(name, "lucency:effusion")
    private = {"hernia", "pleural_thickening", "no finding"}
    assert (found.scheme_designator == "99LUCENCY") == (name in private)
    assert finding(name, "somebody's").scheme_designator == "99LUCENCY"


@pytest.mark.skipif(shutil.which("dcmp2pgm") is None, reason="dcmtk is not installed")
@pytest.mark.parametrize("tags", [{}, NEGATIVE, {"WindowCenter": 1200, "WindowWidth": 900}, {"RescaleSlope": 2,
    "RescaleIntercept": -100}, {"WindowCenter": 1500, "WindowWidth": 800, "VOILUTFunction": "SIGMOID"},
    {"WindowCenter": None, "WindowWidth": None}], ids=str)  # fmt: skip
def test_the_presentation_state_shows_the_film_as_the_explanation_does(tmp_path: Path, tags: dict[str, object]) -> None:
    source = film(tmp_path / "film.dcm", **tags)
    explanation = explained(source)
    explanation.to_dicom(source, tmp_path / "out")
    shown = tmp_path / "shown.pgm"
    state = tmp_path / "out" / "presentation.dcm"
    subprocess.run(["dcmp2pgm", "--pstate", str(state), str(source), str(shown)], check=True, capture_output=True)
    drawn = np.asarray(Image.open(shown)).astype(float)
    # Its display curve is of the device; the order of the greys and their ends are ours.
    wanted = explanation.pixels[0]
    assert np.corrcoef(drawn.ravel(), wanted.ravel())[0, 1] > 0.97
    for end in (0.0, 1.0):
        if (wanted == end).any() and "VOILUTFunction" not in tags:
            assert np.abs(drawn[wanted == end] - 255 * end).max() <= 1


@pytest.mark.skipif(shutil.which("dcmp2pgm") is None, reason="dcmtk is not installed")
def test_the_look_up_table_of_the_film_is_that_of_the_presentation_state(tmp_path: Path) -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [4096, 0, 16])
    item.add_new("LUTData", "OW", (np.linspace(0, 1, 4096) ** 2 * 65535).astype("<u2").tobytes())
    source = film(tmp_path / "film.dcm", WindowCenter=None, WindowWidth=None, VOILUTSequence=[item])
    explanation = explained(source)
    explanation.to_dicom(source, tmp_path / "out")
    state, shown = tmp_path / "out" / "presentation.dcm", tmp_path / "shown.pgm"
    subprocess.run(["dcmp2pgm", "--pstate", str(state), str(source), str(shown)], check=True, capture_output=True)
    drawn = np.asarray(Image.open(shown)).astype(float)
    assert np.corrcoef(drawn.ravel(), explanation.pixels[0].ravel())[0, 1] > 0.99


def test_the_outline_is_drawn_around_the_region(made: tuple[Path, Explanation, Path]) -> None:
    _, explanation, folder = made
    found = pydicom.dcmread(folder / "presentation.dcm")
    (drawn,) = found.GraphicAnnotationSequence[0].GraphicObjectSequence
    assert drawn.GraphicAnnotationUnits == "PIXEL"
    points = np.reshape(drawn.GraphicData, (-1, 2))
    assert np.array_equal(points[0], points[-1])
    middles = np.stack(np.meshgrid(np.arange(80) + 0.5, np.arange(64) + 0.5), -1).reshape(-1, 2)
    inside = measure.points_in_poly(middles, points).reshape(64, 80)
    assert (inside != strongest(explanation.heatmap)).mean() < 0.005


@pytest.mark.parametrize(
    "tags",
    [
        {"PixelSpacing": [0.2, 0.2], "ImagePositionPatient": [1.0, 2.0, 3.0]},
        {"PixelSpacing": 0.2},
        {"ImagerPixelSpacing": [0.2, 0.1]},
        {"PatientOrientation": "L"},
        {"FrameOfReferenceUID": "1.2.3", "ImagePositionPatient": [1.0], "ImageOrientationPatient": [1.0, 0.0]},
        {"SpecificCharacterSet": None, "PatientName": "Doe^John"},
        {"ImageLaterality": "L", "BodyPartExamined": "HAND"},
        {"ImageLaterality": "U", "BodyPartExamined": "HAND"},
        {"ImageLaterality": "U", "BodyPartExamined": "CSPINE"},
        {"BodyPartExamined": None},
    ],
    ids=str,
)
def test_headers_of_all_kinds(tmp_path: Path, tags: dict[str, object]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = film(tmp_path / "film.dcm", **tags)
    explanation = explained(source)
    for file in explanation.to_dicom(source, tmp_path / "out"):
        found = pydicom.dcmread(file)
        if found.Modality not in ("SR", "SEG"):
            sided = tags.get("BodyPartExamined", "CHEST") in ("HAND", None)
            assert found.get("Laterality") == (str(tags.get("ImageLaterality", "")).strip("U") if sided else None)
        if shutil.which("dciodvfy"):
            assert errors(file) <= errors(source)


def test_a_date_made_by_hand_ends_nothing(made: tuple[Path, Explanation, Path]) -> None:
    source, explanation, _ = made
    odd = replace(explanation, provenance=replace(explanation.provenance, made="yesterday"))
    assert derived(odd, source)["report.dcm"].ContentDate == "19700101"


def test_where_nothing_supports_the_answer_there_is_no_region(tmp_path: Path) -> None:
    source = film(tmp_path / "film.dcm")
    for heatmap in (np.zeros((64, 80), np.float32), np.full((64, 80), -0.25, np.float32)):
        found = derived(replace(explained(source), heatmap=heatmap), source)
        assert {"overlay.dcm", "presentation.dcm", "report.dcm", "map.dcm"} <= set(found)
        assert not [name for name in found if name.startswith("segmentation")]
        assert np.array_equal(found["map.dcm"].pixel_array.squeeze(), heatmap)


def test_a_class_named_in_strange_ways_arrives(tmp_path: Path) -> None:
    source = film(tmp_path / "film.dcm")
    name = "胸水\\fluid\n" + "x" * 100
    explanation = explained(source)
    question = replace(explanation.provenance.question, name=name)
    told = replace(
        explanation,
        provenance=replace(explanation.provenance, question=question),
        probabilities={name: 0.5},
    )
    told.to_dicom(source, tmp_path / "out")
    for file in (tmp_path / "out").glob("*.dcm"):
        found = pydicom.dcmread(file)
        assert "胸水/fluid" in found.SeriesDescription
        assert len(found.SeriesDescription) <= 64
        assert str(found.PatientName) == "Müller^Jürg"


REAL = sorted((Path(__file__).resolve().parents[2] / "shared" / "xrays" / "dicom").glob("*.dcm"))


@needs_dciodvfy
@pytest.mark.skipif(not REAL, reason="no real films beside the checkout")
@pytest.mark.parametrize("source", REAL, ids=lambda path: path.stem[-12:])
def test_objects_of_real_films_have_no_errors_that_the_film_has_not(source: Path, tmp_path: Path) -> None:
    explanation = explained(source)
    for file in explanation.to_dicom(source, tmp_path):
        assert errors(file) <= errors(source)


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Explanation, Path]:
    """A film, an explanation with its steps, and the folder of the objects."""
    place = tmp_path_factory.mktemp("moving")
    source = film(place / "film.dcm")
    classifier = classifier_of(Window((10, 30), (20, 50)))
    explanation = lucency.explain(source, classifier, target=0, method=Occlusion(patch=16), batch_size=4, record=True)
    explanation.to_dicom(source, place / "out")
    return source, explanation, place / "out"


def test_the_recorded_steps_are_a_film(moving: tuple[Path, Explanation, Path]) -> None:
    _, explanation, folder = moving
    found = pydicom.dcmread(folder / "animation.dcm")
    recorder = Recorder()
    for step in explanation.steps:
        recorder(step)
    drawn = Panels(explanation, recorder)
    images = [np.asarray(image) for image in drawn.images()]
    assert found.NumberOfFrames == len(images) == len(found.FrameTimeVector)
    shown = found.pixel_array
    for frame, image in zip(shown, images, strict=True):
        assert np.array_equal(frame[: image.shape[0]], image)
        assert frame[image.shape[0] :].max() > 200
    assert list(found.FrameTimeVector) == [0, *(100 * n for n in drawn.held[:-1])]


@needs_dciodvfy
def test_the_animation_validates(moving: tuple[Path, Explanation, Path]) -> None:
    assert errors(moving[2] / "animation.dcm") == set()


@needs_dcmtk
def test_dcmtk_plays_the_animation(moving: tuple[Path, Explanation, Path], tmp_path: Path) -> None:
    subprocess.run(["dcml2pnm", "--frame", "2", str(moving[2] / "animation.dcm"), str(tmp_path / "a.ppm")], check=True)
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "a.ppm")), pydicom.dcmread(moving[2] / "animation.dcm").pixel_array[1]
    )


def test_the_command_takes_the_animation_that_lies_beside(
    moving: tuple[Path, Explanation, Path], tmp_path: Path
) -> None:
    source, explanation, _ = moving
    recorder = Recorder()
    for step in explanation.steps:
        recorder(step)
    with results(tmp_path / "run", "explain") as found:
        explanation.save(found.place / "explanation.lucency")
        save_animation(explanation, recorder, found.place / "animation.gif")

    def run(out: str) -> bool:
        saved = str(tmp_path / "run" / "explanation.lucency")
        with pytest.raises(SystemExit) as end:
            main(["dicom", saved, "--source", str(source), "--out", str(tmp_path / out)])
        assert end.value.code == 0
        return (tmp_path / out / "animation.dcm").exists()

    assert run("first")
    # One that somebody has put there since is of something else.
    Image.new("L", (9, 9)).save(tmp_path / "run" / "animation.gif")
    assert not run("second")


def test_what_is_no_animation_is_refused(moving: tuple[Path, Explanation, Path], tmp_path: Path) -> None:
    source, explanation, _ = moving
    (tmp_path / "cut.gif").write_bytes(b"GIF89a")
    Image.new("L", (9, 9)).save(tmp_path / "still.gif")
    assert "damaged" in refused(explanation, source, animation=tmp_path / "cut.gif")
    assert "no animation" in refused(explanation, source, animation=tmp_path / "still.gif")
    assert "animation" in refused(explanation, source, animation=tmp_path / "nowhere.gif")
