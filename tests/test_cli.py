"""The command line: what it prints, what it leaves, and what it says when it cannot."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from lucency import Explanation
from lucency.cli import main
from lucency.errors import OutputError, ParameterError
from lucency.masks import Slic, Superpixels
from lucency.masks.superpixels import Quickshift
from lucency.methods import METHODS, Step, method_named
from lucency.methods.occlusion import Occlusion
from lucency.parameters import kinds, parameters_of
from lucency.removal import Blur, Constant, Removal
from nets import classifier_of


class Box(nn.Module):
    """Finds fluid at the lower left of 32 x 32 pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inside = 8 * x[:, :, 18:26, 4:12].flatten(1).mean(1) - 2
        return torch.stack([inside, torch.zeros_like(inside)], 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "box.pt2"
    batch = torch.export.Dim("batch")
    torch.export.save(
        torch.export.export(Box().eval(), (torch.zeros(2, 1, 32, 32),), dynamic_shapes=({0: batch},)), path
    )
    about = {"classes": ["fluid", "none"], "input_size": [32, 32], "channels": 1}
    path.with_suffix(".json").write_text(json.dumps(about))
    return str(path)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("scan") / "scan.png"
    grey = np.random.default_rng(0).uniform(0.4, 0.6, (64, 96))
    grey[36:52, 12:36] = 0.9
    Image.fromarray((grey * 65535).astype(np.uint16)).save(path)
    return str(path)


@pytest.fixture
def lucency(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command in this process and gives its exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        words = [str(a) for a in arguments]
        if any(word.endswith(".pt2") for word in words):
            words.append("--trust-model")
        with pytest.raises(SystemExit) as end:
            main(words)
        shown = capsys.readouterr()
        return int(end.value.code or 0), shown.out, shown.err

    return run


def test_explain_leaves_everything(lucency: Any, model: str, scan: str, tmp_path: Path) -> None:
    arguments = [
        "explain",
        scan,
        "--model",
        model,
        "--set",
        "patch=8",
        "--out",
        str(tmp_path / "new" / "out"),
        "--json",
    ]
    code, out, err = lucency(*arguments)
    assert (code, err) == (0, "")
    (line,) = out.splitlines()
    found = json.loads(line)
    assert found["target"] == "fluid"
    row, column = found["peak"]
    assert 36 <= row < 52
    assert 12 <= column < 36
    assert found["probability"] == pytest.approx(found["probabilities"]["fluid"])
    assert found["evaluations"] > 49
    assert found["parameters"]["patch"] == 8
    assert found["complete"] is True
    assert {Path(f).name for f in found["files"]} == {
        "heatmap.npy",
        "overlay.png",
        "animation.gif",
        "report.html",
        "explanation.lucency",
    }
    left = {f.name for f in (tmp_path / "new" / "out").iterdir()}
    assert left == {"lucency.json", *(Path(f).name for f in found["files"])}
    heatmap = np.load(tmp_path / "new" / "out" / "heatmap.npy")
    assert heatmap.shape == (64, 96)
    kept = Explanation.load(tmp_path / "new" / "out" / "explanation.lucency")
    assert np.array_equal(kept.heatmap, heatmap)
    assert list(kept.peak) == found["peak"]


def test_explain_for_a_reader(lucency: Any, model: str, scan: str) -> None:
    code, out, _ = lucency(
        "explain", scan, "--model", model, "--method", "rise", "--set", "samples=32", "--target", "1"
    )
    assert code == 0
    assert "\nnone: probability 0." in out
    assert "RISE" in out
    assert "evaluations" in out


def test_occlusion_of_a_shipped_model_takes_the_removal_that_was_measured_best(lucency: Any, model: str) -> None:
    def removal(*arguments: str) -> str:
        code, out, _ = lucency(
            "explain", str(files("lucency.phantom") / "demo.png"), *arguments, "--budget", "1ms", "--json"
        )
        assert code == 0
        name: str = json.loads(out)["parameters"]["removal"]["name"]
        return name

    assert removal("--model", "lucency:phantom") == "healthy"
    assert removal("--model", "lucency:phantom", "--removal", "mean") == "mean"
    assert removal("--model", "lucency:phantom", "--set", "removal=blur") == "blur"
    assert removal("--model", model) == "constant"
    _, out, _ = lucency("explain", str(files("lucency.phantom") / "demo.png"), "--model", model, "--budget", "1ms")
    assert "Occlusion with removal constant" in out


def test_a_budget_stops_early(lucency: Any, model: str, scan: str) -> None:
    code, out, _ = lucency("explain", scan, "--model", model, "--set", "patch=1", "--budget", "1ms", "--json")
    assert code == 0
    assert json.loads(out)["complete"] is False


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["explain", "nowhere.png"], 2, "nowhere.png"),
        (["explain", "SCAN", "--model", "lucency:nothing"], 2, "lucency:nothing"),
        (["explain", "SCAN", "--model", "MODEL", "--target", "fracture"], 2, "it knows fluid, none"),
        (["explain", "SCAN", "--model", "MODEL", "--method", "magic"], 2, "use one of"),
        (["explain", "SCAN", "--model", "MODEL", "--tolerance", "nan"], 2, "tolerance is a number above 0"),
        (["explain", "SCAN", "--model", "MODEL", "--memory", "0"], 2, "GiB above 0"),
        (["explain", "SCAN", "--model", "MODEL", "--set", "patch"], 2, "key=value"),
        (["explain", "SCAN", "--model", "MODEL", "--set", "pach=3"], 2, "it has patch, stride"),
        (["explain", "SCAN", "--model", "MODEL", "--set", "patch=999"], 2, "does not fit"),
        (["explain", "SCAN", "--model", "MODEL", "--removal", "magic"], 2, "blur"),
        (["explain", "SCAN", "--model", "MODEL", "--budget", "soon"], 2, "300ms"),
        (["explain", "SCAN", "--model", "MODEL", "--device", "abacus"], 2, "use auto"),
        (["explain", "SCAN", "--model", "MODEL", "--watch", "birds"], 2, "probability"),
        (["explain", "SCAN", "--model", "MODEL", "--out", "SCAN"], 3, "cannot be written"),
        (["explain", "SCAN", "--model", "MODEL", "--out", "SCAN/below"], 3, "cannot be written"),
        (["phantom", "--volume", "-1", "--out", "OUT"], 2, "ml"),
        (["phantom", "--size", "1", "--out", "OUT"], 2, "pixels"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    lucency: Any, model: str, scan: str, tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    places = {"SCAN": scan, "MODEL": model, "OUT": str(tmp_path / "out"), "SCAN/below": f"{scan}/below"}
    ended, out, err = lucency(*(places.get(a, a) for a in arguments))
    assert (ended, out) == (code, "")
    (line,) = err.splitlines()
    assert says in line
    assert not (tmp_path / "out").exists()
    ended, out, _ = lucency(*(places.get(a, a) for a in arguments), "--json")
    assert ended == code
    assert json.loads(out)["error"] == line


@pytest.mark.parametrize(
    "arguments", [[], ["explain"], ["explain", "a.png", "--sed", "3"], ["explain", "a.png", "--seed", "x"], ["paint"]]
)
def test_wrong_usage(lucency: Any, arguments: list[str]) -> None:
    code, _, err = lucency(*arguments)
    assert code == 2
    assert "Traceback" not in err


def test_a_fault_is_one_sentence_and_its_place_on_request(
    lucency: Any, monkeypatch: pytest.MonkeyPatch, model: str, scan: str
) -> None:
    def broken(self: Occlusion, *_: object) -> None:
        raise RuntimeError("the tube\nis empty")

    monkeypatch.setattr(Occlusion, "steps", broken)
    code, _, err = lucency("explain", scan, "--model", model)
    assert code == 1
    assert len(err.splitlines()) == 1
    assert "RuntimeError: the tube is empty" in err
    monkeypatch.setenv("LUCENCY_DEBUG", "1")
    assert "Traceback" in lucency("explain", scan, "--model", model)[2]


def test_a_full_disk_leaves_nothing(
    lucency: Any, monkeypatch: pytest.MonkeyPatch, model: str, scan: str, tmp_path: Path
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    kept = tmp_path / "kept.txt"
    kept.touch()
    monkeypatch.setattr(Explanation, "save", full)
    code, _, err = lucency("explain", scan, "--model", model, "--out", tmp_path)
    assert code == 3
    assert "No space left on device" in err
    assert list(tmp_path.iterdir()) == [kept]


def test_ctrl_c_keeps_the_map_so_far(
    lucency: Any, monkeypatch: pytest.MonkeyPatch, model: str, scan: str, tmp_path: Path
) -> None:
    whole = Occlusion.steps
    # Not always Python's own: what a shell runs in the background ignores it.
    before = signal.getsignal(signal.SIGINT)

    def interrupted(self: Occlusion, *arguments: Any) -> Iterator[Step]:
        for i, step in enumerate(whole(self, *arguments)):
            if i == 6:
                signal.raise_signal(signal.SIGINT)
            yield step

    monkeypatch.setattr(Occlusion, "steps", interrupted)
    code, out, _ = lucency(
        "explain",
        scan,
        "--model",
        model,
        "--set",
        "patch=2",
        "--set",
        "order=spread",
        "--out",
        tmp_path / "o",
        "--json",
    )
    assert code == 130
    assert json.loads(out)["complete"] is False
    assert Explanation.load(tmp_path / "o" / "explanation.lucency").heatmap.any()
    assert signal.getsignal(signal.SIGINT) is before


def test_phantom_leaves_scan_truth_and_twin(lucency: Any, tmp_path: Path) -> None:
    code, out, _ = lucency("phantom", "--seed", "3", "--volume", "300", "--size", "128", "--out", tmp_path, "--json")
    assert code == 0
    found = json.loads(out)
    assert {Path(f).name for f in found["files"]} == {"scan.png", "scan.npy", "truth.npy", "twin.npy", "phantom.json"}
    image, truth, twin = (np.load(tmp_path / f"{name}.npy") for name in ("scan", "truth", "twin"))
    assert image.shape == truth.shape == twin.shape == (128, 128)
    assert truth.max() > 10
    assert image[truth > 10].mean() > twin[truth > 10].mean()
    png = np.asarray(Image.open(tmp_path / "scan.png"))
    assert png.dtype == np.uint16
    assert np.abs(png / 65535 - image).max() < 1e-4
    assert json.loads((tmp_path / "phantom.json").read_text())["seed"] == 3


def test_every_method_is_listed_with_its_parameters(lucency: Any) -> None:
    found = json.loads(lucency("methods", "--json")[1])
    assert [row["name"] for row in found] == list(METHODS)
    shown = lucency("methods")[1]
    for row in found:
        assert f"{row['name']}  {row['title']}, {row['paper']}" in shown
        assert all(f"{name}=" in shown for name in row["parameters"])


@pytest.mark.parametrize(
    "cls",
    [*METHODS.values(), *kinds(Removal).values(), *kinds(Superpixels).values()],
    ids=lambda cls: str(cls.name),
)
def test_each_parameter_says_what_it_means(lucency: Any, cls: type[Any]) -> None:
    found = json.loads(lucency("methods", cls.name, "--json")[1])
    assert [row["name"] for row in found["parameters"]] == [f.name for f in dataclasses.fields(cls) if f.init]
    assert found["does"]
    shown = lucency("methods", cls.name)[1]
    for row in found["parameters"]:
        assert row["meaning"].endswith((".", ")"))
        assert "`" not in row["meaning"]
        assert f"\n  {row['meaning']}\n" in shown
        assert f"{row['name']} = " in shown


def test_a_parameter_with_two_names_and_two_lines_and_one_of_a_parent() -> None:
    class Parent:
        """Something.

        Attributes:
            width, height: sizes, as in :class:`~lucency.Scan`,
                on two lines.
            depth: the parent's.

        More words: that are no parameter.
        """

    @dataclasses.dataclass
    class Child(Parent):
        """Another.

        Attributes:
            depth: the child's.
        """

        width: int = 1
        height: int = 2
        depth: int = 3
        silent: str = "x"

    found = {p.name: (p.default, p.takes, p.meaning) for p in parameters_of(Child)}
    assert found == {
        "width": (1, ("a whole number",), "sizes, as in Scan, on two lines."),
        "height": (2, ("a whole number",), "sizes, as in Scan, on two lines."),
        "depth": (3, ("a whole number",), "the child's."),
        "silent": ("x", ("a text",), ""),
    }


def test_a_method_that_is_not_there(lucency: Any) -> None:
    code, _, err = lucency("methods", "gradcamm")
    assert code == 2
    assert "did you mean gradcam?" in err


def test_settings() -> None:
    how = method_named("occlusion", ["removal.sigma=3", "patch=4,6", "stride=15mm", "features=no"], removal="blur")
    assert how == Occlusion(patch=(4, 6), stride="15mm", removal=Blur(3.0), features=False)
    how = method_named("lime", ["superpixels=quickshift", "superpixels.ratio=0.5", "removal=constant"])
    assert (how.superpixels, how.removal) == (Quickshift(ratio=0.5), Constant())
    assert method_named("lime", ["superpixels.count=9"]).superpixels == Slic(count=9)
    assert method_named("integrated_gradients", ["others=mean,blur"]).others[1] == Blur()
    assert method_named("occlusion", ["stride=none"]).stride is None


@pytest.mark.parametrize(
    ("method", "setting", "says"),
    [
        ("occlusion", "features=perhaps", "true or false"),
        ("occlusion", "order=backwards", "raster or spread"),
        ("occlusion", "patch.x=1", "has no parameter 'x'; it has none"),
        ("occlusion", "removal.sigma=1", "the removal 'constant' has no parameter 'sigma'; it has value"),
        ("lime", "samples=1.5", "a whole number"),
        ("lime", "superpixels=drawn", "slic"),
        ("igos_pp", "area=big", "a number"),
    ],
)
def test_bad_settings_name_what_there_is(method: str, setting: str, says: str) -> None:
    with pytest.raises(ParameterError, match="(?i)" + says):
        method_named(method, [setting])


def test_the_json_beside_a_model_is_checked(lucency: Any, scan: str, tmp_path: Path, model: str) -> None:
    copy = tmp_path / "box.pt2"
    copy.write_bytes(Path(model).read_bytes())
    for text, says in (
        ("[", "does not describe a model"),
        ('{"colour": 1}', "colour means nothing there"),
        ("3", "does not describe a model"),
        ('{"input_size": [32, 32], "mean": "x"}', "mean"),
    ):
        copy.with_suffix(".json").write_text(text)
        code, _, err = lucency("explain", scan, "--model", copy)
        assert code == 2
        assert says in err


def test_json_has_no_nan() -> None:
    from lucency.cli.console import plain

    assert plain({"a": [float("nan"), 1.0], "b": (float("inf"),)}) == {"a": [None, 1.0], "b": [None]}


def test_compare_keeps_what_succeeds(lucency: Any, model: str, scan: str, tmp_path: Path) -> None:
    truth = np.zeros((64, 96))
    truth[36:52, 12:36] = 1
    np.save(tmp_path / "truth.npy", truth)
    arguments = ["--methods", "rise,gradcam", "--budget", "50ms", "--repeats", "1", "--truth", tmp_path / "truth.npy"]
    code, out, err = lucency("compare", scan, "--model", model, *arguments, "--out", tmp_path / "o", "--json")
    assert (code, err) == (0, "")
    rise, gradcam = json.loads(out)["methods"]
    assert rise["error"] == ""
    assert 0 <= rise["truth"]["energy"] <= 1
    assert "MoRF AOPC" in rise
    assert "no convolution" in gradcam["error"]
    assert {f.name for f in (tmp_path / "o").iterdir()} == {
        "comparison.html",
        "comparison.json",
        "lucency.json",
        "rise.lucency",
    }
    page = (tmp_path / "o" / "comparison.html").read_text()
    assert "RISE" in page
    assert "no convolution" in page
    assert "Baseline: uniform" in page
    assert "Repeats: 1." in page


def test_compare_without_a_single_map_gives_the_reasons(lucency: Any, model: str, scan: str, tmp_path: Path) -> None:
    out = tmp_path / "o"
    code, _, err = lucency("compare", scan, "--model", model, "--methods", "cam,gradcam", "--out", out)
    assert code == 2
    assert err.count("no convolution") == 2
    assert not out.exists()


def test_compare_on_a_full_disk_stops_with_one_sentence(
    lucency: Any, model: str, scan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(explanation: Explanation, path: Path) -> None:
        raise OutputError(f"{path} cannot be written (No space left on device); free space or choose another place.")

    monkeypatch.setattr(Explanation, "save", full)
    out = tmp_path / "o"
    code, _, err = lucency("compare", scan, "--model", model, "--methods", "gradient,rise", "--out", out)
    assert code == 3
    assert err.startswith(f"{out}/gradient.lucency cannot be written")
    assert not out.exists()


def test_ctrl_c_in_an_evaluation_keeps_the_curves_so_far(
    lucency: Any, model: str, scan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lucency.cli.console import Bar

    def share(self: Bar, done: float, note: str = "") -> None:
        if note.endswith(at):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Bar, "share", share)
    out, at = tmp_path / "o", "deletion"
    arguments = ["--methods", "gradient,rise", "--repeats", "1", "--out", out, "--json"]
    code, said, err = lucency("compare", scan, "--model", model, *arguments)
    assert (code, err) == (130, "")
    (row,) = json.loads(said)["methods"]
    assert row["method"] == "gradient"
    assert "LeRF AOPC" in row
    assert "deletion AUC" not in row
    assert (out / "comparison.html").exists()
    np.save(tmp_path / "map.npy", np.eye(64, 96))
    arguments = [tmp_path / "map.npy", "--model", model, "--repeats", "1", "--out", out / "evaluation", "--json"]
    code, said, err = lucency("evaluate", scan, *arguments)
    assert (code, err) == (130, "")
    assert [curve["kind"] for curve in json.loads(said)["curves"]] == ["MoRF", "LeRF"]
    assert (out / "evaluation" / "curves.png").exists()
    code, said, _ = lucency("evaluate", scan, *arguments[:3], "--budget", "1ms", "--region", "32", "--json")
    assert code == 0
    assert [curve["kind"] for curve in json.loads(said)["curves"]] == ["MoRF"]
    at = "MoRF"
    code, said, err = lucency("evaluate", scan, *arguments[:-3])
    assert (code, said, err) == (130, "", "Stopped before the first curve was done.\n")
    # Of the layers of a network, those so far.
    at = "map 0"
    code, said, err = lucency("layers", scan, "--model", "lucency:phantom", "--top", "500", "--json")
    assert (code, err) == (130, "")
    found = [one["map"] for one in json.loads(said)["maps"]]
    assert found[-1] == 0
    assert found.count(0) == 1


def test_evaluate_maps_and_methods(lucency: Any, model: str, scan: str, tmp_path: Path) -> None:
    good = np.zeros((64, 96), np.float32)
    good[36:52, 12:36] = 1
    np.save(tmp_path / "good.npy", good)
    np.save(tmp_path / "bad.npy", -good)
    maps = [str(tmp_path / "good.npy"), str(tmp_path / "bad.npy")]
    arguments = ["--target", "fluid", "--curves", "morf,insertion", "--region", "4", "--removal", "constant"]
    code, out, _ = lucency("evaluate", scan, *maps, "--model", model, *arguments, "--out", tmp_path / "o", "--json")
    assert code == 0
    curves = {(c["map"], c["kind"]): c for c in json.loads(out)["curves"]}
    assert curves["good", "MoRF"]["aopc"]["value"] > curves["bad", "MoRF"]["aopc"]["value"] + 0.1
    assert {f.name for f in (tmp_path / "o").iterdir()} == {"curves.png", "evaluation.json", "lucency.json"}
    code, out, _ = lucency("evaluate", scan, maps[0], "--model", model, *arguments)
    assert code == 0
    assert "higher is better" in out
    for wrong, says in (
        ([], "no map"),
        ([*maps[:1], "--curves", "up"], "MoRF"),
        ([scan], "not an explanation"),
        ([*maps[:1], "--removal", "magic"], "constant"),
    ):
        code, _, err = lucency("evaluate", scan, *wrong, "--model", model)
        assert (code, says in err) == (2, True), err


def test_layers_of_a_network(lucency: Any, monkeypatch: pytest.MonkeyPatch, scan: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    monkeypatch.setattr("lucency.cli.model.load_classifier", lambda *_, **__: classifier_of(net, 4))
    code, out, _ = lucency("layers", scan, "--top", "2", "--out", tmp_path / "o", "--json")
    assert code == 0
    found = json.loads(out)
    assert [row["layer"] for row in found["maps"]] == ["0", "0", "2", "2"]
    assert Image.open(tmp_path / "o" / "layers.png").size[0] > 300
    code, _, err = lucency("layers", scan, "--layer", "nowhere")
    assert code == 2
    assert "nowhere" in err


def test_layers_over_a_folder(lucency: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 3, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    nn.init.ones_(net[0].weight)
    monkeypatch.setattr("lucency.cli.model.load_classifier", lambda *_, **__: classifier_of(net, 1))
    films = tmp_path / "films"
    films.mkdir()
    for i, grey in enumerate((50, 200, 120)):
        picture = np.full((32, 32), 10, np.uint8)
        picture[8:16, 16:24] = grey
        Image.fromarray(picture).save(films / f"{i}.png")
    (films / "notes.txt").write_text("nothing to see")
    arguments = ["--layer", "0", "--unit", "0", "--top", "2", "--out", tmp_path / "o", "--json"]
    code, out, _ = lucency("layers", films, *arguments)
    assert code == 0
    found = json.loads(out)
    assert [Path(row["scan"]).name for row in found["scans"]] == ["1.png", "2.png"]
    (top, bottom), (left, right) = found["scans"][0]["sees"]
    assert 8 <= top < bottom <= 16
    assert 16 <= left < right <= 24
    assert list(found["skipped"]) == ["notes.txt"]
    assert Image.open(tmp_path / "o" / "scans.png").size[0] > 300
    for wrong, says in (
        ([films], "--unit"),
        ([films / "0.png", "--layer", "0", "--unit", "0"], "no folder"),
        ([films, "--unit", "0"], "--layer"),
        ([tmp_path / "o", "--layer", "0", "--unit", "7"], "no 7"),
    ):
        code, _, err = lucency("layers", *wrong)
        assert (code, says in err) == (2, True), err


def test_the_shipped_scan_is_what_the_documentation_says(lucency: Any, tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "tutorial.md").read_text()
    (command,) = re.findall(r"lucency (phantom .*) --out out/demo", page)
    assert lucency(*command.split(), "--out", tmp_path)[0] == 0
    made = np.asarray(Image.open(tmp_path / "scan.png")).astype(float)
    with files("lucency.phantom").joinpath("demo.png").open("rb") as shipped:
        assert np.abs(np.asarray(Image.open(shipped)) - made).max() < 66


def test_models_shows_how_any_model_is_read(model: str, lucency: Any) -> None:
    code, shown, _ = lucency("models", model)
    assert code == 0
    assert "classes: fluid, none" in shown
    assert "reads: 32 x 32, 1 channel(s), float32" in shown
    assert "! Classes taken to exclude each other" in shown
    code, shown, _ = lucency("models", model, "--json")
    about = json.loads(shown)
    assert (about["outputs"], about["exclusive"], about["network"]) == ("logits", True, "GraphModule")
    assert len(about["notices"]) == 3
    code, _, said = lucency("models", "nothing.onnx")
    assert code != 0
    assert "There is no model" in said


def test_a_scan_is_read_as_the_options_say(lucency: Any, model: str, scan: str, tmp_path: Path) -> None:
    """A page by --frame and a scale by --value-range, and one sentence for each that cannot be."""
    first = np.asarray(Image.open(scan))
    second = Image.fromarray(first // 16)
    Image.fromarray(first).save(tmp_path / "x.tif", save_all=True, append_images=[second])
    ask = ["explain", str(tmp_path / "x.tif"), "--model", model, "--target", "fluid", "--set", "patch=16", "--json"]
    scores = []
    for words in (["--frame", "1"], ["--frame", "2"], ["--frame", "2", "--value-range", "0,4095.9375"]):
        code, shown, error = lucency(*ask, *words)
        assert code == 0, error
        scores.append(json.loads(shown)["probability"])
    assert scores[0] == pytest.approx(scores[2], abs=0.01)
    assert scores[0] - scores[1] > 0.2
    for words, says in (
        ([], "several pages; choose the page to explain with frame=1, 2, ... (--frame)"),
        (["--frame", "3"], "has no page 3"),
        (["--frame", "1", "--value-range", "4095"], "--value-range is '4095'; give two numbers"),
        (["--frame", "1", "--value-range", "9,1"], "the first value must be the smaller"),
        (["--frame", "1", "--window", "BONE"], "has no windows"),
    ):
        code, _, error = lucency(*ask, *words)
        assert code == 2
        assert says in " ".join(error.split())


def test_a_film_in_doubt_is_doubted_before_its_map_and_no_side_is_named(
    lucency: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = Image.open(str(files("lucency.phantom") / "demo.png"))
    pixels = np.asarray(demo)
    Image.fromarray((pixels.max() - pixels).astype(pixels.dtype)).save(tmp_path / "negative.png")
    told_at: list[str] = []
    monkeypatch.setattr("lucency.cli.console.tell", told_at.append)
    monkeypatch.setattr("lucency.cli.console.Bar.step", lambda self, step: told_at.append("step"))
    arguments = ["explain", str(tmp_path / "negative.png"), "--model", "lucency:phantom", "--target", "effusion"]
    code, out, _ = lucency(*arguments, "--method", "gradcam", "--json")
    assert code == 0
    assert "seems to be a negative" in told_at[0]
    assert told_at[1] == "step"
    record = json.loads(out)
    assert record["verdict"]["headline"].startswith(
        "No place is named, because the film is in doubt. The film seems to"
    )
    assert (record["verdict"]["side"], record["verdict"]["zone"]) == ("", "")
    assert record["notices"][0] == record["verdict"]["doubts"][0]


def test_a_measurement_is_not_called_a_probability(scan: str, tmp_path: Path, lucency: Any) -> None:
    """A regression, from the command to the file and back."""
    path = tmp_path / "age.pt2"
    torch.export.save(torch.export.export(Age().eval(), (torch.zeros(1, 1, 32, 32),)), path)
    path.with_suffix(".json").write_text(json.dumps({"classes": ["age"], "outputs": "numbers"}))
    out = tmp_path / "out"
    code, shown, said = lucency("explain", scan, "--model", str(path), "--set", "patch=8", "--out", str(out))
    assert code == 0, said
    assert re.search(r"^age: 6\d\.\d", shown, re.MULTILINE)
    assert "robability" not in shown
    assert "nan" not in shown
    again = Explanation.load(out / "explanation.lucency")
    assert (dict(again.probabilities), again.answer[:1]) == ({}, "6")
    assert again.provenance.question.watch == "number"
    page = re.sub(r"data:[^\"']*", "", (out / "report.html").read_text())
    assert "probability by" not in page
    assert "Probabilities on" not in page


class Age(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 60 + 8 * x[:, :, 18:26, 4:12].flatten(1).mean(1, keepdim=True)


@pytest.mark.parametrize(
    ("word", "settings", "method"),
    [
        ("shapley", ["stability=0.9"], "kernel_shap"),
        ("meaningful", ["lambda1=0.1", "lambda2=1", "beta=2", "delta=4", "tau=1"], "meaningful_perturbation"),
        ("Extremal", ["step=3"], "extremal_perturbation"),
        ("igos", ["reach=10"], "igos_pp"),
        ("iGOS++", ["step=10"], "igos_pp"),
    ],
)
def test_words_of_before_are_taken_for_one_more_version(word: str, settings: list[str], method: str) -> None:
    from lucency.methods import METHODS, method_named

    how = method_named(word, settings)
    assert how.name == method
    assert how != METHODS[method]()
