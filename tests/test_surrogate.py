"""Surrogates: they answer from what is left as the classifier would on average, and agree with it on whole scans."""

from __future__ import annotations

import copy
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import lucency
from lucency import Scan
from lucency.classifier import Classifier, Question
from lucency.cli import main
from lucency.engine import Engine
from lucency.errors import LucencyError, ParameterError, ScanError
from lucency.explainers import holes
from lucency.explainers.surrogate import STATE, Plan, Training, hidden_in, varied
from lucency.masks import Cells
from lucency.methods.lime import Lime
from lucency.methods.occlusion import Occlusion
from lucency.phantom import simulate
from lucency.removal import Constant, Surrogate
from lucency.removal.surrogate import HIDDEN, hatched, measured, written
from lucency.render.recorder import packed_scan
from lucency.testing.methods import classifier_of


class Corner(nn.Module):
    """Two classes that do not exclude each other; the first looks at the upper left quarter of 8 x 8 pixels only."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(1, 12, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(48, 24), nn.ReLU())
        self.head = nn.Linear(24, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.net(x))
        return out


def corner() -> Classifier:
    """Fitted to give a logit of 6 (mean of the quarter - 0.5), and one that is always 1."""
    net = Corner()
    adam = torch.optim.Adam(net.parameters(), 5e-3)
    rng = torch.Generator().manual_seed(1)
    for _ in range(300):
        x = quarters(64, rng)
        wanted = torch.stack([6 * (x[:, 0, :4, :4].mean((1, 2)) - 0.5), torch.ones(64)], 1)
        adam.zero_grad()
        (net(x) - wanted).square().mean().backward()
        adam.step()
    return lucency.load_classifier(net.eval(), classes=["corner", "always"], input_size=(8, 8), exclusive=False)


def quarters(count: int, rng: torch.Generator) -> Tensor:
    """Scans whose four quarters are grey and know nothing of each other."""
    return torch.rand((count, 1, 2, 2), generator=rng).repeat_interleave(4, 2).repeat_interleave(4, 3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Classifier, Path]:
    folder = tmp_path_factory.mktemp("surrogate")
    classifier, rng = corner(), torch.Generator().manual_seed(2)
    scans = quarters(400, rng)
    training = Training(
        classifier, scans[:360], scans[360:], folder, target=0, plan=Plan(steps=400, scans=24, rate=6e-3)
    )
    for _ in training:
        pass
    training.save(folder / "s.safetensors", training.agreement())
    return classifier, folder / "s.safetensors"


def scan_of(values: list[list[float]]) -> Scan:
    return Scan(torch.tensor(values).repeat_interleave(4, 0).repeat_interleave(4, 1)[None], value_range=(0.0, 1.0))


def test_it_answers_with_the_mean_over_what_could_stand_there(trained: tuple[Classifier, Path]) -> None:
    classifier, path = trained
    rng = torch.Generator().manual_seed(3)
    mean = float(classifier(quarters(2000, rng)).sigmoid()[:, 0].mean())
    removal = Surrogate(str(path))
    quarter = torch.ones(1, 8, 8)
    quarter[:, :4, :4] = 0
    elsewhere = torch.ones(1, 8, 8)
    elsewhere[:, 4:, 4:] = 0
    for value in (0.1, 0.5, 0.9):
        scan = scan_of([[value, 0.3], [0.7, 0.6]])
        question = Question.ask(classifier, scan, "corner")
        probe = Engine(classifier, device="cpu").open(scan, question, removal)
        own = float(classifier(classifier.prepare(scan)[None]).sigmoid()[0, 0])
        assert float(probe.clean) == pytest.approx(own, abs=0.06)
        assert float(probe.scores(quarter)) == pytest.approx(mean, abs=0.15)
        assert float(probe.scores(elsewhere)) == pytest.approx(own, abs=0.1)
    # Black in its place would have meant something to the classifier.
    black = Engine(classifier, device="cpu").open(scan, question, Constant())
    assert abs(float(black.scores(quarter)) - mean) > 0.3


def test_what_was_learnt_is_measured(trained: tuple[Classifier, Path]) -> None:
    about = measured(trained[1])
    assert float(about["whole"]) < 0.05
    assert float(about["hidden"]) < float(about["before"])
    assert (about["scans"], about["trained_on"], about["target"]) == ("40", "360", "corner")


@pytest.mark.parametrize("windows", [True, False])
def test_its_scores_are_those_of_a_plain_loop(trained: tuple[Classifier, Path], windows: bool) -> None:
    classifier, path = trained
    scan = scan_of([[0.9, 0.3], [0.7, 0.6]])
    removal = Surrogate(str(path))
    network = removal.classifier(classifier).network()
    found = lucency.explain(
        scan, classifier, target="corner", method=Occlusion(patch=4, stride=4, removal=removal, features=False),
        engine=Engine(classifier, device="cpu", windows=windows),
    )  # fmt: skip
    pixels = scan.display[None]
    clean = network(pixels).sigmoid()[0, 0]
    expected = torch.zeros(8, 8)
    for i in (0, 4):
        for j in (0, 4):
            hidden = pixels.clone()
            hidden[..., i : i + 4, j : j + 4] = HIDDEN
            expected[i : i + 4, j : j + 4] = clean - network(hidden).sigmoid()[0, 0]
    assert np.allclose(found.heatmap, expected.detach().numpy(), atol=1e-5)
    assert found.peak is not None
    assert max(found.peak) < 4
    assert found.probability == pytest.approx(float(classifier(pixels).sigmoid()[0, 0]), abs=1e-6)


def test_methods_with_random_pieces_ask_it_too(trained: tuple[Classifier, Path]) -> None:
    classifier, path = trained
    method = Lime(superpixels=Cells(2), samples=200, removal=Surrogate(str(path)))
    found = lucency.explain(scan_of([[0.9, 0.3], [0.7, 0.6]]), classifier, target="corner", method=method)
    assert found.peak is not None
    assert max(found.peak) < 4


def test_gradients_by_masks_are_its_own(trained: tuple[Classifier, Path]) -> None:
    classifier, path = trained
    scan, removal = scan_of([[0.9, 0.3], [0.7, 0.6]]), Surrogate(str(path))
    question = Question.ask(classifier, scan, "corner")
    masks = torch.rand((3, 8, 8), generator=torch.Generator().manual_seed(0))
    score, gradient = Engine(classifier, device="cpu").open(scan, question, removal).mask_gradient(masks)
    at = masks.clone().requires_grad_(True)
    expected = removal.classifier(classifier)(hidden_in(scan.display.expand(3, 1, 8, 8), at)).sigmoid()[:, 0]
    assert torch.allclose(score, expected.detach(), atol=1e-6)
    assert torch.allclose(gradient, torch.autograd.grad(expected.sum(), at)[0], atol=1e-6)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_where_there_are_twins_what_is_hidden_counts_as_theirs(tmp_path: Path, bfloat16: bool) -> None:
    classifier, rng = corner(), torch.Generator().manual_seed(2)
    scans = quarters(400, rng)
    twins = scans[:300].clone()
    twins[:, :, :4, :4] = 0.2
    training = Training(
        classifier, scans[:360], scans[360:], tmp_path, twins=twins, twins_checked=scans[360:],
        target=0, plan=Plan(steps=300, scans=12, holes=3, rate=6e-3), bfloat16=bfloat16,
    )  # fmt: skip
    for _ in training:
        pass
    surrogate = training._average
    hole = torch.ones(100, 8, 8)
    hole[:, :4, :4] = 0
    x = quarters(100, torch.Generator().manual_seed(5))
    twin = x.clone()
    twin[:, :, :4, :4] = 0.2
    said, wanted, own = (c(y)[:, 0] for c, y in ((surrogate, hidden_in(x, hole)), (classifier, twin), (classifier, x)))
    assert float((said - wanted).abs().mean()) < 0.4
    assert float((surrogate(x)[:, 0] - own).abs().mean()) < 0.4
    # The mean over what could stand there would be more than one logit off.
    assert float((own.mean() - wanted).abs().mean()) > 1


def test_layers_that_are_told_to_stay_do(tmp_path: Path) -> None:
    classifier = corner()
    scans = quarters(20, torch.Generator().manual_seed(2))
    training = Training(classifier, scans[:16], scans[16:], tmp_path, plan=Plan(steps=3, scans=4, holes=1))
    training.surrogate.network().get_submodule("net").requires_grad_(False)
    for _ in training:
        pass
    before, after = classifier.network().state_dict(), training.surrogate.network().state_dict()
    assert torch.equal(before["net.0.weight"], after["net.0.weight"])
    assert not torch.equal(before["head.weight"], after["head.weight"])


def test_scans_without_a_twin_are_only_shown_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans = quarters(20, torch.Generator().manual_seed(2))
    training = Training(
        corner(), scans[:16], scans[16:], tmp_path, twins=scans[:1], plan=Plan(steps=5, scans=16, holes=3)
    )
    shown = []
    monkeypatch.setattr("lucency.explainers.surrogate.hidden_in", lambda x, m: shown.append(m) or hidden_in(x, m))
    for _ in training:
        pass
    hidden = float((torch.cat(shown) < 1).flatten(1).any(1).float().mean())
    assert 0 < hidden < 0.25


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    classifier = classifier_of("sigmoid", 2)
    rng = torch.Generator().manual_seed(0)
    grid = classifier.input_size or (12, 12)
    scans = torch.rand((12, classifier.channels or 1, *grid), generator=rng)
    plan = Plan(steps=230, scans=2, holes=1)

    def weights(folder: Path, stop: int | None) -> dict[str, Tensor]:
        folder.mkdir(exist_ok=True)
        training = Training(classifier, scans[:10], scans[10:], folder, plan=plan)
        for number, at in enumerate(training, 1):
            assert 0 < at.done <= 1
            if number == stop:
                return {}
        return {k: v.clone() for k, v in training.surrogate.network().state_dict().items()}

    whole = weights(tmp_path / "whole", None)
    weights(tmp_path / "parts", 130)
    parts = weights(tmp_path / "parts", None)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    before = classifier.network().state_dict()
    assert any(not torch.equal(whole[k], before[k]) for k in whole)


def test_a_folder_of_another_training_is_refused(tmp_path: Path) -> None:
    classifier = classifier_of("sigmoid", 2)
    grid = classifier.input_size or (12, 12)
    scans = torch.rand((12, classifier.channels or 1, *grid))
    for _ in Training(classifier, scans[:10], scans[10:], tmp_path, plan=Plan(steps=2, scans=1, holes=1)):
        pass
    with pytest.raises(ParameterError, match="another surrogate"):
        next(iter(Training(classifier, scans[:10], scans[10:], tmp_path, plan=Plan(steps=3, scans=1, holes=1))))
    (tmp_path / STATE).write_bytes(b"torn")
    with pytest.raises(ParameterError, match="damaged"):
        next(iter(Training(classifier, scans[:10], scans[10:], tmp_path, plan=Plan(steps=2, scans=1, holes=1))))


@pytest.mark.parametrize("what", ["softmax", "sigmoid", "one"])
def test_the_loss_is_least_where_it_says_what_the_classifier_says(what: str, tmp_path: Path) -> None:
    classifier = classifier_of(what, 2)
    grid = classifier.input_size or (12, 12)
    x = torch.rand((6, classifier.channels or 1, *grid))
    training = Training(classifier, x.repeat(2, 1, 1, 1), x, tmp_path)
    wanted = training._said(classifier, x)
    best = float((training._apart(training.surrogate, x, wanted) * training._weights()).sum().detach())
    for scale in (0.8, 1.3):
        other = training.surrogate.network()
        for parameter in other.parameters():
            parameter.data.mul_(scale)
        assert float((training._apart(training.surrogate, x, wanted) * training._weights()).sum().detach()) >= best
        for parameter in other.parameters():
            parameter.data.div_(scale)


@pytest.mark.parametrize("size", [(17, 23), (64, 64), (9, 10, 11)])
def test_holes_of_every_kind(size: tuple[int, ...]) -> None:
    rng = torch.Generator().manual_seed(0)
    for _, kind in holes.KINDS:
        masks = torch.stack([kind(size, rng) for _ in range(40)])
        assert masks.shape == (40, *size)
        assert 0 <= float(masks.min()) <= float(masks.max()) <= 1
        assert (kind is holes.nothing) == bool((masks == 1).all())
        if kind is not holes.nothing:
            assert 0.02 < float(masks.mean()) < 0.98
    both = [holes.drawn(30, size, torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(both[0], both[1])
    assert any(bool((m == 1).all()) for m in both[0])


def test_scans_that_are_varied_stay_scans() -> None:
    x = torch.rand((5, 2, 20, 30)) * 0.7 + 0.1
    other = varied(x, torch.Generator().manual_seed(0))
    assert other.shape == x.shape
    assert not torch.equal(other, x)
    assert float(other.min()) >= float(x.min()) - 1e-6
    assert float(other.max()) <= float(x.max()) + 1e-6
    flat = torch.zeros((2, 1, 6, 6))
    assert varied(flat, torch.Generator().manual_seed(0)).isfinite().all()


def test_files_that_are_no_surrogate_of_this_model(trained: tuple[Classifier, Path], tmp_path: Path) -> None:
    classifier, path = trained
    other = classifier_of("sigmoid", 2)

    def why(removal: Surrogate, of: Classifier) -> str:
        with pytest.raises(LucencyError) as caught:
            removal.classifier(of)
        return str(caught.value)

    assert "other weights" in why(Surrogate(str(path)), other)
    assert "cannot be read" in why(Surrogate(str(tmp_path / "none")), classifier)
    (tmp_path / "torn").write_bytes(path.read_bytes()[:300])
    assert "damaged or no surrogate" in why(Surrogate(str(tmp_path / "torn")), classifier)
    assert "No surrogate comes with" in why(Surrogate(), classifier)
    assert "black box" in why(Surrogate(str(path)), lucency.load_classifier(lambda x: x.mean((1, 2, 3))[:, None]))
    twin = copy.copy(other)
    twin.fingerprint = classifier.fingerprint
    (tmp_path / "layers").write_bytes(written(other.network(), twin, {}))
    assert "holds other layers" in why(Surrogate(str(tmp_path / "layers")), classifier)


def test_too_few_scans(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="at least 8 scans"):
        Training(classifier_of("sigmoid", 2), torch.rand(3, 1, 12, 12), torch.rand(1, 1, 12, 12), tmp_path)


def test_the_command_trains_from_a_folder_and_explain_asks_what_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(40):
        grey = rng.integers(0, 255, (2, 2)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
        Image.fromarray(grey).save(folder / f"{i:02}.png")
    (folder / "notes.txt").write_text("not a scan")
    classifier = corner()
    monkeypatch.setattr("lucency.cli.model.load_classifier", lambda *_, **__: classifier)
    out = tmp_path / "s.safetensors"
    line = ["surrogate", "train", "--model", "any", "--scans", str(folder), "--target", "corner", "--out", str(out)]
    with pytest.raises(SystemExit) as end:
        main([*line, "--steps", "3", "--json"])
    assert not end.value.code
    said = json.loads(capsys.readouterr().out)
    assert said["file"] == str(out)
    assert list(said["left_out"]) == ["notes.txt"]
    assert measured(out)["trained_on"] == str(40 - said["scans"])
    assert not (tmp_path / "s.safetensors.training").exists()
    for removal in ("surrogate", "mean"):
        with pytest.raises(SystemExit) as end:
            main(
                [
                    "explain", str(folder / "00.png"), "--model", "any", "--target", "corner", "--json",
                    "--set", "patch=4", "--removal", removal,
                    *(["--set", f"removal.path={out}"] if removal == "surrogate" else []),
                ]
            )  # fmt: skip
        assert not end.value.code
    with pytest.raises(SystemExit) as end:
        main(["explain", str(folder / "00.png"), "--model", "any", "--set", "patch=4", "--removal", "surrogate"])
    assert end.value.code == 2
    assert "lucency surrogate train" in capsys.readouterr().err


def test_what_is_hidden_is_hatched_in_pictures_and_black_is_not() -> None:
    pixels = torch.full((1, 64, 64), 0.5)
    pixels[:, :32, :32] = HIDDEN
    pixels[:, 40:, 40:] = 0
    for picture in (hatched(pixels)[0], torch.from_numpy(packed_scan(pixels)) / 255):
        assert 0 <= float(picture.min()) < 0.001
        assert len(picture[:30, :30].unique()) == 2
        assert float(picture[:30, :30].min()) > 0.1
        assert float(picture[41:, 41:].max()) == 0


@pytest.fixture(scope="module", params=["phantom"])
def shipped(request: pytest.FixtureRequest) -> tuple[Classifier, Classifier]:
    """A shipped model and its surrogate."""
    classifier = lucency.load_classifier(f"lucency:{request.param}")
    return classifier, Surrogate().classifier(classifier)


def test_the_shipped_models_have_one_that_knows_where_it_learnt(shipped: tuple[Classifier, Classifier]) -> None:
    classifier, surrogate = shipped
    file = files("lucency.removal") / "weights" / f"surrogate-{classifier.name.removeprefix('lucency:')}.safetensors"
    about = measured(str(file))
    assert about["classifier"] == classifier.fingerprint
    assert float(about["whole"]) < 0.05
    assert float(about["hidden"]) < float(about["before"])
    assert len(file.read_bytes()) < 4_000_000
    assert surrogate.classes == classifier.classes


def test_what_the_shipped_one_does_not_see_counts_as_healthy() -> None:
    classifier = lucency.load_classifier("lucency:phantom")
    surrogate = Surrogate().classifier(classifier)
    made = [simulate(13_990_000 + i, volume_ml=300, side="left", size=224) for i in range(4)]
    wet, dry, depth = (
        torch.stack([torch.from_numpy(getattr(one, name))[None] for one in made])
        for name in ("image", "twin", "truth_mm")
    )
    hole = 1 - F.max_pool2d((depth > 0).float(), 9, 1, 4)[:, 0]

    def said(by: Classifier, x: Tensor) -> Tensor:
        return by.probabilities(by(x.float()))[:, 0]

    assert float(said(classifier, wet).min()) > 0.9
    assert float((said(surrogate, wet) - said(classifier, wet)).abs().max()) < 0.1
    assert float(said(surrogate, hidden_in(wet.float(), hole)).max()) < 0.5
    rng = torch.Generator().manual_seed(0)
    halves = torch.stack([holes.superpixels(dry.shape[2:], rng) for _ in dry])
    assert float(said(surrogate, hidden_in(dry.float(), halves)).max()) < 0.5
