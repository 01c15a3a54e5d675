"""What the verdict says, and that it is what the numbers say."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lucency import Explanation, Scan, explain
from lucency.checks.verdict import Verdict, judge, percent, strongest
from lucency.engine import Engine
from lucency.explanation import shifted
from lucency.lungs import lung_fields, places
from lucency.methods.occlusion import Occlusion
from lucency.methods.rise import Rise
from lucency.phantom import Phantom, simulate
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
    provenance: Mapping[str, Any] = {
        "question": {"name": "effusion", "watch": "probability", "label": "probability of effusion"},
        "scan": {"spacing": None, "sha256": ""},
        "method": {"title": "Test"},
        "complete": True,
    }
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
    assert "lung" not in verdict.text.replace("No lungs were found", "")
    volume = judge(dataclasses.replace(said(np.zeros((4, 8, 8)), np.zeros((4, 8, 8)))))
    assert volume.text.startswith("Nothing on this scan supports effusion")
    early = said(np.zeros((64, 64)), noise)
    early = dataclasses.replace(early, provenance={**early.provenance, "complete": False})
    assert judge(early).text.startswith("The method was stopped before it found evidence for effusion")


def test_how_sure_follows_the_standard_error(phantom: Phantom) -> None:
    heatmap = phantom.truth_mm / phantom.truth_mm.max()
    levels = []
    for noise in (0.05, 0.25, 0.4, 0.9):
        error = np.full_like(heatmap, noise)
        verdict = judge(said(heatmap, phantom.image, standard_error=error))
        assert verdict.signal_to_noise == pytest.approx(1 / noise, rel=1e-3)
        levels.append(verdict.level)
    assert levels == ["certain", "fairly certain", "uncertain", "not reliable"]
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
    assert verdict.explains == pytest.approx((verdict.probability - expected) / verdict.probability, abs=0.02)
    assert f"it explains {percent(verdict.explains or 0)} of the answer" in verdict.text
    assert "Not measured: how sure that is" in verdict.text
    assert json.loads(json.dumps(verdict.as_dict()))["text"] == verdict.text


def test_a_region_that_does_not_support_the_answer_is_not_said_to_decide(phantom: Phantom) -> None:
    verdict = judge(said(phantom.truth_mm, phantom.image))
    for probability, without in ((0.3, 0.8), (0.0, 0.0)):
        text = dataclasses.replace(verdict, probability=probability, without=without).text
        assert "does not support the answer" in text
    assert "no single region decides" in dataclasses.replace(verdict, probability=0.9, without=0.89).text


def test_doubts_are_said() -> None:
    base = judge(said(np.eye(8), np.zeros((8, 8)), facts={"out-of-distribution evidence": 0.8}), sanity=False)
    assert "80 % of the strongest reactions" in base.text
    assert "FAILS" in base.text
    good = judge(said(np.eye(8), np.zeros((8, 8)), facts={"out-of-distribution evidence": 0.0}), sanity=True)
    assert "passes" in good.text
    low = judge(said(np.eye(8), np.zeros((8, 8)), probabilities={"effusion": 0.2}))
    assert "does not call this scan effusion" in low.text


def test_error_bars_come_from_moved_copies() -> None:
    torch.manual_seed(0)
    pixels = torch.rand(1, 32, 32) * 0.2
    pixels[:, 20:28, 4:12] += 0.8
    scan, classifier = Scan(pixels), classifier_of(Corner(), 2)
    how = Occlusion(patch=8, stride=4)
    plain = explain(scan, classifier, target=0, method=how, device="cpu")
    assert plain.standard_error is None
    assert plain.provenance["error_bars"] == {"from": "none"}
    done: list[int] = []
    found = explain(scan, classifier, target=0, method=how, device="cpu", error_bars=4, on_copy=done.append)
    again = explain(scan, classifier, target=0, method=how, device="cpu", error_bars=4)
    assert np.array_equal(found.heatmap, plain.heatmap)
    assert found.standard_error is not None
    assert again.standard_error is not None
    assert np.array_equal(found.standard_error, again.standard_error)
    assert done == [1, 2, 3, 4]
    bars = found.provenance["error_bars"]
    assert (bars["from"], bars["copies"]) == ("copies", 4)
    assert bars["evaluations"] == pytest.approx(4 * found.provenance["evaluations"], abs=4)
    # Away from what the network reads nothing reacts, wherever the scan is moved to.
    assert found.standard_error[:8, 20:].max() == 0
    assert found.standard_error[20:28, 4:12].max() > 0
    sampled = explain(scan, classifier, target=0, method=Rise(samples=32), device="cpu", error_bars=4)
    assert sampled.provenance["error_bars"] == {"from": "method"}


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
    explanation = said(np.eye(8), np.zeros((8, 8)))
    verdict: Verdict = judge(explanation)
    kept = dataclasses.replace(explanation, verdict=verdict.as_dict())
    assert Explanation.load(kept.save(tmp_path / "x.lucency")).verdict["text"] == verdict.text


def test_shares_are_not_more_exact_than_they_are() -> None:
    assert [percent(p) for p in (0.0, 0.0004, 0.034, 0.5, 0.982, 0.9996, 1.0)] == [
        "0.0 %", "below 0.1 %", "3.4 %", "50 %", "98.2 %", "above 99.9 %", "100.0 %",
    ]  # fmt: skip
