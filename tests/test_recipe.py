"""The recipe behind every door: the same question gets the same answer, whoever asks and however it is put."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lucency
from lucency import Explainer, Explanation, Failure, Scan, explain
from lucency.classifier import Classifier
from lucency.cli import main
from lucency.errors import LucencyError, ParameterError, QuestionError
from lucency.methods import METHODS, Lime, Occlusion, method_named
from lucency.removal import Blur, Constant, DatasetMean, Picture, Removal
from nets import Window, classifier_of

SPELLINGS = ("grad-cam++", "Grad CAM++", "GradCamPlusPlus", "gradcam_plus_plus", "GRADCAM-plus-plus")
DEMO = Path(lucency.__file__).parent / "phantom" / "demo.png"


def window() -> Classifier:
    return classifier_of(Window((4, 10), (6, 12)))


def scan(seed: int = 0) -> Scan:
    return Scan(torch.rand((1, 24, 20), generator=torch.Generator().manual_seed(seed)))


def sha(heatmap: np.typing.NDArray[np.float32]) -> str:
    return hashlib.sha256(heatmap.tobytes()).hexdigest()


def test_the_command_and_python_give_the_same_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["explain", str(DEMO), "--model", "lucency:phantom", "--target", "effusion", "--set", "patch=48"]
    with pytest.raises(SystemExit) as end:
        main([*wanted, "--out", str(tmp_path), "--animation", "none", "--json"])
    assert not end.value.code
    said = json.loads(capsys.readouterr().out)
    ours = explain(DEMO, "lucency:phantom", target="effusion", patch=48)
    theirs = Explanation.load(tmp_path / "explanation.lucency")
    assert sha(theirs.heatmap) == sha(ours.heatmap) == sha(np.load(tmp_path / "heatmap.npy"))
    assert theirs.verdict == ours.verdict
    assert said["verdict"]["text"] == ours.verdict.text
    assert said["removal"]["name"] == ours.removal == "healthy"
    assert ours.provenance.removal.reason == "the default for occlusion of the shipped chest models"
    assert theirs.notices == ours.notices
    assert "out-of-distribution evidence" in ours.facts


@pytest.mark.parametrize("kind", ["path", "text", "array", "tensor", "pil", "scan"])
def test_a_scan_is_whatever_holds_one(kind: str, tmp_path: Path) -> None:
    grey = (scan().pixels[0].numpy() * 255).astype(np.uint8)
    file = tmp_path / "scan.png"
    Image.fromarray(grey).save(file)
    given = {
        "path": file,
        "text": str(file),
        "array": grey,
        "tensor": torch.from_numpy(grey),
        "pil": Image.fromarray(grey),
        "scan": Scan.from_array(grey),
    }[kind]
    found = explain(given, window(), target=0, patch=4)
    assert found.provenance.scan.sha256 == Scan.from_array(grey).sha256


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_names_are_taken_as_people_type_them(spelling: str) -> None:
    assert method_named(spelling).name == "gradcam_plus_plus"
    assert Removal.of("Dataset mean") == Removal.of("dataset_mean") == DatasetMean()


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_is_imported_by_its_class_name(name: str) -> None:
    import lucency.methods as public

    cls = METHODS[name]
    assert getattr(public, cls.__name__) is cls
    assert cls.__name__ in public.__all__, "name it in methods/__init__.py, for editors"


def test_parameters_are_those_of_the_command() -> None:
    named = Explainer(window(), method="occlusion", patch=6, removal="blur").method
    typed = Explainer(window(), method="occlusion", settings=["patch=6", "removal=blur"]).method
    assert named == typed == Occlusion(patch=6, removal=Blur())
    assert Explainer(window(), settings=["removal.sigma=3"], removal="blur").method.removal == Blur(3.0)
    for wrong in ({"pach": 3}, {"method": "gradient", "patch": 3}, {"method": "lime", "samples": "many"}):
        with pytest.raises(ParameterError):
            Explainer(window(), **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("what", "wanted"), [("blur", Blur()), (0.5, Constant(0.5)), ("0.5", Constant(0.5))])
def test_a_removal_is_a_name_or_a_value(what: object, wanted: Removal) -> None:
    assert Occlusion(removal=what).removal == wanted  # type: ignore[arg-type]
    found = explain(scan(), window(), target=0, patch=4, removal=what)
    same = explain(scan(), window(), target=0, method=Occlusion(patch=4, removal=wanted))
    assert sha(found.heatmap) == sha(same.heatmap)
    assert found.provenance.removal.reason == "asked for"


def test_a_picture_stands_where_something_is_removed() -> None:
    grey = np.full((24, 20), 0.25, np.float32)
    found = explain(scan(), window(), target=0, patch=4, removal=grey)
    assert sha(found.heatmap) == sha(explain(scan(), window(), target=0, patch=4, removal=0.25).heatmap)
    kept = found.provenance.method.parameters["removal"]["parameters"]["pixels"]
    assert kept == {"shape": [24, 20], "sha256": hashlib.sha256(grey.tobytes()).hexdigest()}
    assert repr(Picture(torch.from_numpy(grey))).startswith("Picture(24 x 20, sha256 ")
    with pytest.raises(ParameterError, match="does not fit"):
        explain(scan(), window(), target=0, removal=np.zeros((2, 2, 2, 2)))
    with pytest.raises(ParameterError, match="no removal"):
        explain(scan(), window(), target=0, removal=object())
    with pytest.raises(ParameterError, match="has no parameter 'removal'"):
        explain(scan(), window(), target=0, method="gradcam", removal="blur")


def test_a_method_that_is_handed_over_keeps_its_removal() -> None:
    how = Occlusion(patch=32, removal=Constant(0.1))
    found = explain(DEMO, "lucency:phantom", target="effusion", method=how)
    assert found.provenance.method.parameters["removal"] == {"name": "constant", "parameters": {"value": 0.1}}
    assert "handed over" in found.provenance.removal.reason


def test_one_explainer_many_scans_and_nothing_left_between_them() -> None:
    explainer = Explainer(window(), patch=4)
    first, second = explainer(scan(1), 0), explainer(scan(2), 0)
    assert sha(first.heatmap) != sha(second.heatmap)
    assert (
        sha(explainer(scan(1), 0).heatmap)
        == sha(first.heatmap)
        == sha(explain(scan(1), window(), target=0, patch=4).heatmap)
    )


def test_the_steps_lead_to_the_same_answer_and_may_be_left_early() -> None:
    explainer = Explainer(window(), patch=4)
    run = explainer.steps(scan(), 0, record=True)
    shares = [step.done for step in run]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert sha(run.explanation.heatmap) == sha(explainer(scan(), 0).heatmap)
    assert [step.done for step in run.explanation.steps] == shares
    assert run.question is not None
    assert run.question.target == 0

    early = Explainer(window(), method=Lime(samples=400)).steps(scan(), 0)
    next(iter(early))
    assert not early.explanation.complete
    assert early.explanation.verdict.text


def test_a_run_in_the_middle_of_another_is_refused_and_one_that_is_closed_is_not_in_the_way() -> None:
    explainer = Explainer(window(), method=Lime(samples=400))
    run = explainer.steps(scan(), 0)
    next(iter(run))
    with pytest.raises(ParameterError, match="middle of another scan"):
        explainer(scan(), 0)
    run.close()
    assert explainer(scan(), 0).complete


def test_threads_wait_for_each_other_and_get_their_own_answers() -> None:
    explainer, found = Explainer(window(), patch=4), {}

    def ask(seed: int) -> None:
        found[seed] = explainer(scan(seed), 0)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(6):
        assert sha(found[seed].heatmap) == sha(explain(scan(seed), window(), target=0, patch=4).heatmap)


def test_one_bad_scan_is_a_failure_and_not_the_end() -> None:
    explainer = Explainer(window(), patch=4)
    answers = explainer.map([scan(1), "/nowhere/film.dcm", scan(2)], 0)
    assert iter(answers) is answers, "lazy"
    first, bad, last = answers
    assert isinstance(first, Explanation)
    assert isinstance(last, Explanation)
    assert isinstance(bad, Failure)
    assert (bad.number, bad.source) == (1, "film.dcm")
    assert isinstance(bad.error, LucencyError)
    assert "cannot be opened" in str(bad)


def test_a_flat_map_has_no_peak_and_says_so() -> None:
    blind = classifier_of(Window((4, 10), (6, 12)))
    found = explain(Scan(torch.zeros(1, 24, 20)), blind, target=0, patch=4, removal=0.0)
    assert found.peak is None
    assert "Nothing reacted" in found.verdict.text
    assert "flat map" in repr(found)


def test_a_black_box_is_refused_a_sanity_check_before_the_work() -> None:
    with pytest.raises(QuestionError, match="black box"):
        Explainer(lambda x: x.mean((1, 2, 3))[:, None].repeat(2, 1), sanity=True)


def test_the_public_names_are_shown() -> None:
    assert dir(lucency) == sorted(lucency.__all__)
    assert {"Explainer", "explain", "Failure", "read_scan", "load_classifier"} <= set(dir(lucency))


def test_live_panels_need_a_notebook() -> None:
    with pytest.raises(LucencyError, match="notebook"):
        Explainer(window(), patch=4).watch(scan(), 0)
