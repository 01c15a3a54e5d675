"""Models that are named, and files that can act."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bad_inputs import SIZE, Net, program
from lucency import Scan, load_classifier, plugins
from lucency.classifier import Classifier
from lucency.cli.model import classifier_named
from lucency.errors import ModelError


def scripted(path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Net().eval()), str(path))
    return path


class Entry:
    """An installed package's entry point."""

    def __init__(self, name: str, thing: object) -> None:
        self.name, self.thing = name, thing

    def load(self) -> object:
        if isinstance(self.thing, Exception):
            raise self.thing
        return self.thing


def mine(name: str, *, classes: tuple[str, ...] = ("a", "b", "c", "d")) -> Classifier:
    return load_classifier(Net(), input_size=SIZE, classes=classes)


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    there = [Entry("mine", mine), Entry("broken", ImportError("no\nsuch thing")), Entry("odd", lambda name: 3)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: there if group == "lucency.classifiers" else [])
    plugins.found.cache_clear()
    yield
    plugins.found.cache_clear()


@pytest.mark.usefixtures("entries")
def test_other_packages_add_ways_in() -> None:
    with pytest.warns(UserWarning, match=r"'broken' .*cannot be loaded .*no such thing"):
        assert load_classifier("mine:net").classes == ("a", "b", "c", "d")
    assert load_classifier("mine:net", classes=list("wxyz"), trust=True).classes == ("w", "x", "y", "z")
    with pytest.raises(ModelError, match=r"mine: cannot be used so .*'mean'"):
        load_classifier("mine:net", mean=[0.5])
    with pytest.raises(ModelError, match="int instead of a Classifier"):
        load_classifier("odd:net")


@pytest.mark.parametrize(("name", "acts"), [("m.pt", "write files when it runs"), ("m.pt2", "runs Python")])
def test_files_that_can_act_wait_for_trust(tmp_path: Path, name: str, acts: str) -> None:
    path = scripted(tmp_path / name) if name == "m.pt" else program(tmp_path / name)
    with pytest.raises(ModelError, match=rf"{acts}.*trust=True \(--trust-model\); safe are ONNX"):
        load_classifier(path, input_size=SIZE)
    with pytest.raises(ModelError, match="--trust-model"):
        classifier_named(str(path))
    path.with_suffix(".json").write_text(json.dumps({"input_size": SIZE, "trust": True}))
    with pytest.raises(ModelError, match="trust means nothing there"):
        classifier_named(str(path))
    path.with_suffix(".json").write_text(json.dumps({"input_size": SIZE}))
    assert classifier_named(str(path), trust=True).input_size == SIZE


@pytest.mark.usefixtures("entries")
def test_a_description_names_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "chest.json"

    def described(**content: Any) -> Classifier:
        about.write_text(json.dumps(content))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return classifier_named(str(about))

    assert described(model="mine:net", classes=list("wxyz")).classes == ("w", "x", "y", "z")
    assert described(model="lucency:phantom").name == "lucency:phantom"
    for content, says in (
        ({"classes": ["a"]}, "names no model"),
        ({"model": "mine:net", "colour": 1}, "colour means nothing"),
        ({"model": "https://elsewhere.example/v2/models/m"}, "would send scans to https://elsewhere"),
        ({"model": "nothing.onnx"}, "no model"),
    ):
        with pytest.raises(ModelError, match=says):
            described(**content)
    program(tmp_path / "net.pt2")
    about.write_text(json.dumps({"model": "net.pt2", "classes": list("wxyz")}))
    monkeypatch.chdir(tmp_path.parent)
    assert classifier_named(str(about), trust=True).classes == ("w", "x", "y", "z")
    (tmp_path / "net.json").write_text(json.dumps({"model": "lucency:phantom"}))
    with pytest.raises(ModelError, match="names a model of its own"):
        classifier_named(str(tmp_path / "net.pt2"), trust=True)


def test_weights_belong_to_a_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds its own weights"):
        load_classifier(program(tmp_path / "m.pt2"), weights="w.safetensors")


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_a_scan_is_cropped_and_resampled_as_pictures_are(interpolation: Any) -> None:
    """224 pixels out of the middle of 256, as everything trained on ImageNet sees them; against Pillow."""
    small = np.random.default_rng(0).uniform(0, 255, (6, 5)).astype(np.uint8)
    film = Image.fromarray(small).resize((500, 600), Image.Resampling.BICUBIC)
    classifier = load_classifier(
        Net(), input_size=(224, 224), fit="crop", crop_share=224 / 256, interpolation=interpolation, clip=True
    )
    scan = Scan.from_array(np.array(film), value_range=(0, 255))
    kind = Image.Resampling.BICUBIC if interpolation == "cubic" else Image.Resampling.BILINEAR
    theirs = np.asarray(film.resize((256, 307), kind), np.float32)[41 : 41 + 224, 16 : 16 + 224] / 255
    ours = classifier.prepare(scan)[0].numpy()
    assert ours.shape == theirs.shape
    # Half a pixel of the film, where their crop falls between two, and 8 bits.
    assert np.abs(ours - theirs).max() < 0.02
    assert np.abs(ours - theirs).mean() < 0.005


@pytest.mark.parametrize(("option", "value"), [("crop_share", 0), ("crop_share", "all"), ("interpolation", "bicubic")])
def test_odd_croppings_are_refused(option: str, value: object) -> None:
    with pytest.raises(ModelError, match=option):
        load_classifier(Net(), input_size=SIZE, **{option: value})  # type: ignore[arg-type]
