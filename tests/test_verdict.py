"""What the verdict says, and that it is what the numbers say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lucency import Explanation, Scan, explain
from lucency.checks import hits
from lucency.checks.verdict import judge, moved, percent, strongest, worded
from lucency.engine import Engine
from lucency.error_bars import shifted
from lucency.explanation import method_record
from lucency.lungs import lung_fields, places
from lucency.methods import METHODS
from lucency.methods.occlusion import Occlusion
from lucency.methods.rise import Rise
from lucency.phantom import Phantom, simulate
from lucency.records import Cost, MethodRecord, ModelRecord, Provenance, QuestionRecord, ScanRecord
from lucency.removal import Constant
from nets import classifier_of


class Corner(nn.Module):
    """Reads the mean of a corner of 32 x 32 pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inside = 8 * x[:, :, 20:28, 4:12].flatten(1).mean(1) - 4
        return torch.stack([inside, -inside], 1)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return simulate(8_000_003, size=192, volume_ml=400, side="left", view="PA")


def said(heatmap: np.typing.NDArray[Any], pixels: np.typing.NDArray[Any], **more: Any) -> Explanation:
    """An explanation with this map of this film."""
    provenance = Provenance(
        scan=ScanRecord("test", "", pixels.shape, None),
        model=ModelRecord("test", "", (), ()),
        question=QuestionRecord(0, "effusion", "probability", "probability of effusion", 0.97),
        method=MethodRecord("test", "Test", "", ""),
        seed=0,
        device="cpu",
        budget=None,
        complete=True,
        cost=Cost(),
        made="",
        versions={},
    )
    given = {"standard_error": None, "facts": {}, "probabilities": {"effusion": 0.97}} | more
    return Explanation(
        heatmap=heatmap.astype(np.float32),
        pixels=pixels[None].astype(np.float32),
        also={},
        provenance=provenance,
        **given,
    )


def test_fluid_of_a_phantom_is_named_by_side_and_zone(phantom: Phantom) -> None:
    verdict = judge(said(phantom.truth_mm, phantom.image))
    assert verdict.side == "left"
    assert verdict.zone in ("base", "costophrenic angle")
    assert f"the patient's {verdict.side}" in verdict.text
    assert "probability 97.0 %" in verdict.text
    assert sum(verdict.shares.values()) == pytest.approx(1)
    # The picture in a mirror has the fluid on the other side.
    mirrored = judge(said(phantom.truth_mm[:, ::-1], phantom.image))
    assert mirrored.side == "right"


@pytest.mark.parametrize(
    ("where", "zone", "side"),
    [
        ((0.12, "right"), "apex", "right"),
        ((0.45, "left"), "mid zone", "left"),
        ((0.85, "right"), "base", "right"),
        ((0.5, "between"), "heart and mediastinum", ""),
        ((0.5, "corner"), "outside the lungs", ""),
    ],
)
def test_every_zone_is_found(phantom: Phantom, where: tuple[float, str], zone: str, side: str) -> None:
    lungs = lung_fields(Scan.from_array(phantom.twin))
    assert lungs is not None
    lung = lungs.left if where[1] == "left" else lungs.right
    rows = np.flatnonzero(lung.any(1))
    row = int(rows[0] + where[0] * (rows[-1] - rows[0]))
    column = int(np.flatnonzero(lung[row]).mean())
    if where[1] == "between":
        column = int((np.flatnonzero(lungs.right[row])[-1] + np.flatnonzero(lungs.left[row])[0]) / 2)
    if where[1] == "corner":
        row, column = 4, 4
    names, numbers = places(lungs)
    assert (names[numbers[row, column]].zone, names[numbers[row, column]].side) == (zone, side)
    heatmap = np.zeros(phantom.twin.shape)
    heatmap[row - 2 : row + 3, column - 2 : column + 3] = 1
    verdict = judge(said(heatmap, phantom.twin))
    assert (verdict.zone, verdict.side) == (zone, side)
    assert ("outside the lungs: the model" in verdict.text) == (zone == "outside the lungs")


def test_without_lungs_there_are_coordinates_only() -> None:
    noise = np.random.default_rng(0).random((64, 64))
    heatmap = np.zeros((64, 64))
    heatmap[10, 20] = 1
    verdict = judge(said(heatmap, noise))
    assert verdict.place == ""
    assert "row 10, column 20" in verdict.text
    assert "lung" not in verdict.text.replace("No frontal chest film was recognised", "")
    volume = judge(dataclasses.replace(said(np.zeros((4, 8, 8)), np.zeros((4, 8, 8)))))
    assert volume.text.startswith("Nothing reacted: the map of effusion (probability 97.0 %) is flat.")
    assert (volume.peak, volume.place, volume.level) == (None, "", "")
    against = judge(said(-heatmap, noise))
    assert against.text.startswith(
        "Nothing on this scan supports effusion (probability 97.0 %). What reacted speaks ag"
    )
    early = said(np.zeros((64, 64)), noise)
    early = dataclasses.replace(early, provenance=dataclasses.replace(early.provenance, complete=False))
    assert judge(early).text.startswith("The method was stopped before it found anything: the map of effusion")


def test_how_repeatable_follows_the_standard_error(phantom: Phantom) -> None:
    heatmap = phantom.truth_mm / phantom.truth_mm.max()
    levels = []
    for noise in (0.05, 0.25, 0.4, 0.9):
        error = np.full_like(heatmap, noise)
        verdict = judge(said(heatmap, phantom.image, standard_error=error))
        assert verdict.signal_to_noise == pytest.approx(1 / noise, rel=1e-3)
        assert not any(word in verdict.text for word in ("certain", "Certain"))
        assert "does not say whether the method is right" in verdict.text
        levels.append(verdict.level)
    assert levels == ["repeatable", "fairly repeatable", "hardly repeatable", "not repeatable"]
    spreads = [
        judge(said(heatmap, phantom.image, standard_error=np.full_like(heatmap, noise))).spread for noise in (0.01, 0.1)
    ]
    assert spreads[0] is not None
    assert spreads[1] is not None
    assert spreads[0] < spreads[1]


def test_the_strongest_region_is_one_piece() -> None:
    heatmap = np.zeros((6, 6), np.float32)
    heatmap[1, 1], heatmap[1, 2], heatmap[4, 4] = 1.0, 0.6, 0.9
    assert strongest(heatmap).sum() == 2
    assert not strongest(-np.abs(heatmap)).any()


def test_what_the_region_explains_is_measured() -> None:
    pixels = torch.zeros(1, 32, 32)
    pixels[:, 20:28, 4:12] = 1
    classifier = classifier_of(Corner(), 2)
    engine = Engine(classifier, device="cpu")
    scan = Scan(pixels)
    explanation = explain(scan, classifier, target=0, method=Occlusion(patch=8, stride=4), engine=engine)
    verdict = judge(explanation, scan=scan, engine=engine, removal=Constant())
    # All that the network reads lies in the strongest region: without it the logit is -4 on both sides of zero.
    expected = float(torch.softmax(torch.tensor([-4.0, 4.0]), 0)[0])
    assert verdict.without == pytest.approx(expected, abs=0.02)
    assert len(verdict.elsewhere) == 19
    assert min(verdict.elsewhere) > verdict.without
    assert f"With that region hidden the probability is {percent(verdict.without or 0)}" in verdict.headline
    assert "at 19 other places" in verdict.headline
    assert "never that low" in verdict.headline
    assert "Not measured: whether it is repeatable" in verdict.text
    assert verdict.text == " ".join([verdict.headline, *verdict.details])
    assert json.loads(json.dumps(verdict.as_dict()))["text"] == verdict.text


def test_a_region_that_does_not_support_the_answer_is_not_said_to_decide(phantom: Phantom) -> None:
    verdict = judge(said(phantom.truth_mm, phantom.image))
    for probability, without, words in ((0.3, 0.8, "rises instead"), (0.0, 0.0, "stays"), (0.9, 0.89, "stays")):
        text = worded(dataclasses.replace(verdict, probability=probability, without=without)).headline
        assert words in text
        assert "no single place decides" in text


class Everywhere(nn.Module):
    """Reads the mean of the whole picture, so that no place matters more than another."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = 8 * x.flatten(1).mean(1) - 3
        return torch.stack([mean, -mean], 1)


@pytest.mark.parametrize("side", [3, 8, 14])
def test_a_larger_region_is_not_said_to_matter_more(side: int) -> None:
    classifier, scan = classifier_of(Everywhere(), 2), Scan(torch.full((1, 32, 32), 0.6))
    engine = Engine(classifier, device="cpu")
    explanation = explain(scan, classifier, target=0, method=Occlusion(patch=8, stride=4), engine=engine)
    heatmap = np.zeros((32, 32), np.float32)
    heatmap[2 : 2 + side, 2 : 2 + side] = 1
    verdict = judge(dataclasses.replace(explanation, heatmap=heatmap), scan=scan, engine=engine, removal=Constant())
    assert len(verdict.elsewhere) == 19
    assert verdict.elsewhere == pytest.approx([verdict.without] * 19, abs=1e-4)
    assert "never that low" not in verdict.headline


def test_the_shape_at_other_places_is_the_same_shape() -> None:
    shape = torch.zeros(30, 40)
    shape[4:9, 5:12] = 1
    shape[4, 5] = 0
    allowed = torch.zeros(30, 40)
    allowed[:, :30] = 1
    copies = moved(shape, allowed)
    assert len(copies) == 19
    assert len({tuple(copy.flatten().tolist()) for copy in copies}) > 15
    for copy in copies:
        assert copy.sum() == shape.sum()
        assert (copy * allowed).sum() >= 0.9 * shape.sum()
    assert moved(torch.eye(5)[None].expand(4, 5, 5) * torch.tensor([0, 1.0, 0, 0])[:, None, None], None).shape[1:] == (
        4,
        5,
        5,
    )


@pytest.mark.parametrize("name", sorted(METHODS))
def test_methods_that_do_not_locate_name_no_place(name: str, phantom: Phantom) -> None:
    told = said(phantom.truth_mm, phantom.image)
    told = dataclasses.replace(
        told, provenance=dataclasses.replace(told.provenance, method=method_record(METHODS[name], {}))
    )
    verdict = judge(told)
    unplaced = name in (
        "deconvnet",
        "gradient",
        "gradient_x_input",
        "guided_backprop",
        "guided_gradcam",
        "smoothgrad",
    )
    assert METHODS[name].locates is not unplaced
    assert bool(verdict.place) is not unplaced
    assert ("lung" in verdict.text or "costophrenic" in verdict.text) is not unplaced
    assert verdict.headline.startswith("No place is named") is unplaced


def test_of_a_film_in_doubt_no_place_is_named(phantom: Phantom) -> None:
    verdict = judge(said(phantom.truth_mm, phantom.image), doubts=["The film seems to be upside down: turn it."])
    assert (verdict.place, verdict.side, verdict.zone, verdict.shares) == ("", "", "", {})
    assert verdict.headline == (
        "No place is named, because the film is in doubt. The film seems to be upside down: turn it."
    )
    assert "lung" not in verdict.text
    # Whoever does not ask for doubts gets no wrong side either.
    for turned in (phantom.image[::-1, ::-1], 1 - phantom.image, phantom.image[:, ::-1], phantom.image.T):
        assert not judge(said(phantom.truth_mm, np.ascontiguousarray(turned))).side


def test_the_most_probable_of_several_classes_is_called() -> None:
    heatmap, pixels = np.eye(8), np.zeros((8, 8))
    several = {"effusion": 0.4, "a": 0.35, "b": 0.25}
    assert "does not call" not in judge(said(heatmap, pixels, probabilities=several)).text
    assert "does not call" in judge(said(heatmap, pixels, probabilities={**several, "a": 0.5})).text


def test_what_was_measured_of_such_maps_is_quoted(phantom: Phantom, monkeypatch: pytest.MonkeyPatch) -> None:
    row: dict[str, Any] = {
        "fingerprint": "f", "target": "effusion", "method": "occlusion", "removal": "blur", "settings": {"patch": 16},
        "truth": "films with a box", "scans": 50, "peak": 30, "sided": 40, "side": 36,
    }  # fmt: skip
    monkeypatch.setattr(hits, "_rows", lambda: [row])

    def of(patch: int, fingerprint: str = "f") -> Explanation:
        told = said(phantom.truth_mm, phantom.image)
        method = method_record(Occlusion, {"patch": patch, "removal": {"name": "blur"}})
        model = dataclasses.replace(told.provenance.model, fingerprint=fingerprint)
        return dataclasses.replace(told, provenance=dataclasses.replace(told.provenance, method=method, model=model))

    text = judge(of(16)).text
    assert "on 50 films with a box the maximum of such maps lay on it in 30" in text
    assert "a named side was right in 36 of 40" in text
    for other in (of(32), of(16, "g")):
        assert "How reliable such maps are was not measured" in judge(other).text
    row |= {"side": 22}
    assert judge(of(16)).headline.startswith("No place is named")


def test_doubts_are_said() -> None:
    base = judge(said(np.eye(8), np.zeros((8, 8)), facts={"out-of-distribution evidence": 0.8}), sanity=False)
    assert "80 % of the strongest reactions" in base.text
    assert "FAILS" in base.text
    good = judge(said(np.eye(8), np.zeros((8, 8)), facts={"out-of-distribution evidence": 0.0}), sanity=True)
    assert "passes" in good.text
    low = judge(said(np.eye(8), np.zeros((8, 8)), probabilities={"effusion": 0.2}))
    assert "effusion, which the model does not call (probability 20 %)" in low.headline


def test_error_bars_come_from_moved_copies() -> None:
    torch.manual_seed(0)
    pixels = torch.rand(1, 32, 32) * 0.2
    pixels[:, 20:28, 4:12] += 0.8
    scan, classifier = Scan(pixels), classifier_of(Corner(), 2)
    how = Occlusion(patch=8, stride=4)
    plain = explain(scan, classifier, target=0, method=how, device="cpu")
    assert plain.standard_error is None
    assert plain.provenance.error_bars.source == "none"
    done: list[str] = []
    found = explain(
        scan,
        classifier,
        target=0,
        method=how,
        device="cpu",
        error_bars=4,
        on_progress=lambda share, doing: done.append(doing),
    )
    again = explain(scan, classifier, target=0, method=how, device="cpu", error_bars=4)
    assert np.array_equal(found.heatmap, plain.heatmap)
    assert found.standard_error is not None
    assert again.standard_error is not None
    assert np.array_equal(found.standard_error, again.standard_error)
    told = list(dict.fromkeys(said for said in done if "copy" in said))
    assert told == [f"error bars, copy {n} of 4" for n in (1, 2, 3, 4)]
    bars = found.provenance.error_bars
    assert (bars.source, bars.copies) == ("copies", 4)
    assert bars.cost.evaluations == found.provenance.costs["error bars"].evaluations
    assert bars.cost.evaluations == pytest.approx(4 * found.provenance.costs["map"].evaluations, abs=4)
    # Away from what the network reads nothing reacts, wherever the scan is moved to.
    assert found.standard_error[:8, 20:].max() == 0
    assert found.standard_error[20:28, 4:12].max() > 0
    sampled = explain(scan, classifier, target=0, method=Rise(samples=32), device="cpu", error_bars=4)
    assert sampled.provenance.error_bars.source == "method"


def test_moved_copies_are_moved_copies() -> None:
    pixels = torch.zeros(1, 100, 50)
    pixels[:, 40, 20] = 1
    offsets = []
    for copy, (down, right) in shifted(Scan(pixels), 20):
        assert copy.pixels[0, 40 + down, 20 + right] == 1
        assert (abs(down) <= 2, abs(right) <= 1) == (True, True)
        assert (down, right) != (0, 0)
        offsets.append((down, right))
    assert len(set(offsets)) > 5


def test_the_verdict_is_kept_with_the_explanation(tmp_path: Path) -> None:
    classifier, scan = classifier_of(Corner(), 2), Scan(torch.rand(1, 32, 32))
    explanation = explain(scan, classifier, target=0, method=Occlusion(patch=16), device="cpu")
    verdict = judge(explanation, scan=scan, engine=Engine(classifier, device="cpu"), removal=Constant())
    kept = dataclasses.replace(explanation, verdict=verdict)
    assert Explanation.load(kept.save(tmp_path / "x.lucency")).verdict == verdict


def test_shares_are_not_more_exact_than_they_are() -> None:
    assert [percent(p) for p in (0.0, 0.0004, 0.034, 0.5, 0.982, 0.9996, 1.0)] == [
        "0.0 %", "below 0.1 %", "3.4 %", "50 %", "98.2 %", "above 99.9 %", "100.0 %",
    ]  # fmt: skip


def test_evidence_all_over_has_no_one_place(phantom: Phantom) -> None:
    heatmap = np.full(phantom.image.shape, 0.4)
    heatmap[100:104, 60:64] = 1
    verdict = judge(said(heatmap, phantom.image))
    assert verdict.headline.startswith(
        "The evidence for effusion (probability 97.0 %) is spread; the maximum lies at the "
    )
    assert "lies outside the lungs" in verdict.text
