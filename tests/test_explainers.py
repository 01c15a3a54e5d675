"""One-pass explainers: what teaches them, what they learn, how far they say they can be trusted, and their files."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lucency
from explaining import explainer_of
from lucency.attribution import attribute
from lucency.classifier import Classifier, Question
from lucency.engine import Engine
from lucency.errors import ModelError, ParameterError, QuestionError, ScanError
from lucency.explainers import Item, Learnt, OcclusionTeacher, Plan, RiseTeacher, ShapleyTeacher, Teacher, train
from lucency.explainers.learnt import conformal, pooled_conformal
from lucency.explainers.shelf import explainer_for
from lucency.explainers.taps import find_taps
from lucency.explainers.teachers import Looks, Said
from lucency.explainers.training import part_of
from lucency.masks import Cells, Patches
from lucency.methods import Instant, KernelShap, Occlusion, Rise
from lucency.methods.instant import teacher_for
from lucency.removal import Healthy
from lucency.scan import Scan
from lucency.testing.methods import classifier_of, scan_of

SIZE = (24, 24)


class Spot(nn.Module):
    """Looks for something bright."""

    def __init__(self) -> None:
        super().__init__()
        enter, leave = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.body = nn.Sequential(enter, nn.ReLU(), nn.AvgPool2d(2), leave)
        self.head = nn.Linear(6, 2)
        with torch.no_grad():
            for conv in (enter, leave):
                conv.weight.abs_()
                conv.bias.fill_(-0.3)
            self.head.weight.copy_(torch.tensor([[-1.0], [1.0]]).expand(2, 6))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x).relu().flatten(2).mean(2)) * 8
        return out


def classifier() -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = Spot().eval()
    return Classifier(network, name="spot", classes=["a", "b"], fingerprint="spot", exclusive=True, module=network)


def film(number: int) -> Scan:
    """A dim scan with a bright spot somewhere."""
    rng = torch.Generator().manual_seed(number)
    pixels = 0.2 * torch.rand((1, *SIZE), generator=rng)
    row, column = torch.randint(2, 18, (2,), generator=rng).tolist()
    pixels[:, row : row + 4, column : column + 4] = 1
    return Scan(pixels, source=str(number))


def patients(train: int, calibrate: int, measure: int) -> list[str]:
    """Names of so many patients of each part, in the order in which they come."""
    wanted, found = {"train": train, "calibrate": calibrate, "measure": measure}, []
    for number in range(2000):
        part = part_of(f"patient {number}")
        if wanted[part]:
            wanted[part] -= 1
            found.append(f"patient {number}")
    return found


def items(train: int = 90, calibrate: int = 30, measure: int = 20) -> list[Item]:
    return [Item(f"{who}.png", who, partial(film, i)) for i, who in enumerate(patients(train, calibrate, measure))]


TEACHER = OcclusionTeacher((6, 6), (3, 3))
PLAN = Plan(looks=16, checks=16, epochs=20)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Learnt]:
    out = tmp_path_factory.mktemp("explainers") / "e.safetensors"
    learnt, left_out = train(Engine(classifier()), "b", TEACHER, items(), out, PLAN)
    assert not left_out
    assert not out.with_name("e.safetensors.training").exists()
    return out, learnt


def test_it_learns_the_map_of_scans_that_it_never_saw(trained: tuple[Path, Learnt]) -> None:
    out, _ = trained
    engine, agreement = Engine(classifier()), []
    for number in range(1000, 1012):
        scan = film(number)
        fast = attribute(scan, engine, Instant(explainer=str(out)), target=1)
        slow = attribute(scan, engine, Occlusion(patch=6, stride=3), target=1)
        assert fast.provenance.cost.evaluations == 1
        agreement.append(np.corrcoef(fast.heatmap.ravel(), slow.heatmap.ravel())[0, 1])
    # A decoder that has learnt nothing agrees by chance only.
    assert np.median(agreement) > 0.7


def test_the_band_holds_what_it_says_on_other_patients(trained: tuple[Path, Learnt]) -> None:
    out, learnt = trained
    engine, inside = Engine(classifier()), []
    for number in range(2000, 2040):
        fast = attribute(film(number), engine, Instant(explainer=str(out)), target=1)
        slow = attribute(film(number), engine, Occlusion(patch=6, stride=3), target=1)
        inside.append((np.abs(fast.heatmap - slow.heatmap) <= fast.also["half of the band"] + 1e-7).mean())
    assert 0.8 < np.mean(inside) <= 1
    assert learnt.trust.scans[0] >= 20
    assert 0.75 <= learnt.trust.covered <= 1


def test_a_scan_unlike_those_of_the_training_is_called_so(trained: tuple[Path, Learnt]) -> None:
    out, _ = trained
    engine = Engine(classifier())
    like = [attribute(film(n), engine, Instant(explainer=str(out)), target=1).facts for n in range(3000, 3020)]
    assert sum("warning" in facts for facts in like) <= 3
    odd = Scan(torch.rand((1, *SIZE), generator=torch.Generator().manual_seed(1)).round())
    said = attribute(odd, engine, Instant(explainer=str(out)), target=1).facts
    assert "not like those" in str(said["warning"])


def test_the_file_gives_the_same_map(trained: tuple[Path, Learnt]) -> None:
    out, learnt = trained
    again = Learnt.load(out)
    assert again.teacher == TEACHER
    assert again.trust == learnt.trust
    assert out.stat().st_size < 500_000
    maps = [torch.rand(1, tap.channels, *tap.layout.grid) for tap in learnt.taps]
    one, other = (explainer.predicted(maps, 0.6, SIZE) for explainer in (learnt, again))
    assert torch.allclose(one.heatmap, other.heatmap, atol=1e-4)


def test_a_training_that_was_stopped_goes_on(tmp_path: Path, trained: tuple[Path, Learnt]) -> None:
    seen = []

    def stop(share: float, words: str) -> None:
        seen.append(words)
        if len(seen) == at:
            raise KeyboardInterrupt

    out = tmp_path / "e.safetensors"
    for stopped_after in (50, 60, 40):
        at = stopped_after
        seen.clear()
        with pytest.raises(KeyboardInterrupt):
            train(Engine(classifier()), "b", TEACHER, items(), out, PLAN, on_progress=stop)
        assert not out.exists()
    at = -1
    seen.clear()
    learnt, _ = train(Engine(classifier()), "b", TEACHER, items(), out, PLAN, on_progress=stop)
    # What was done before was not done again, and the answer is that of a training in one go.
    assert len(seen) < 40
    whole = trained[1]
    for ours, theirs in zip(learnt.decoder.parameters(), whole.decoder.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert learnt.trust == whole.trust


def test_a_folder_goes_on_with_what_was_begun_in_it_only(tmp_path: Path) -> None:
    def stop(share: float, words: str) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "e.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(Engine(classifier()), "b", TEACHER, items(), out, PLAN, on_progress=stop)
    with pytest.raises(ParameterError, match="another plan"):
        train(Engine(classifier()), "b", TEACHER, items(), out, replace(PLAN, looks=20))


def test_patients_stand_on_one_side_and_the_file_says_which(trained: tuple[Path, Learnt]) -> None:
    history = trained[1].history
    counted = [history[p]["patients"] for p in ("train", "calibrate", "measure")]
    assert counted == [90, 30, 20]
    parts = [part_of(str(i)) for i in range(2000)]
    assert [round(parts.count(p) / 200) for p in ("train", "calibrate", "measure")] == [8, 1, 1]
    # One with two scans has both on the same side.
    assert part_of("patient 1") == part_of("patient 1")


def test_scans_that_cannot_be_read_are_left_out_with_their_reason(tmp_path: Path) -> None:
    def broken() -> Scan:
        raise ScanError("It is damaged.")

    some = items()
    some[7] = Item("7.png", some[7].patient, broken)
    some[8] = Item("8.png", some[8].patient, lambda: Scan(torch.rand(1, 30, 30)))
    _, left_out = train(Engine(classifier()), 1, TEACHER, some, tmp_path / "e.safetensors", Plan(4, 4, 1))
    assert set(left_out) == {"7.png", "8.png"}
    assert "another size" in left_out["8.png"]


def test_too_few_scans_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="are needed"):
        train(Engine(classifier()), 1, TEACHER, items(30, 5, 5), tmp_path / "e.safetensors", Plan(4, 4, 1))


def test_what_cannot_be_explained_so_says_it_in_a_sentence(tmp_path: Path) -> None:
    scan, known = scan_of(2), classifier_of("softmax", 2)
    with pytest.raises(QuestionError, match="lucency explainer train"):
        attribute(scan, Engine(known), Instant(), target=1)
    mine = Instant(explainer=explainer_of("softmax", 2))
    with pytest.raises(QuestionError, match="other weights"):
        attribute(scan, Engine(classifier_of("multi-label", 2)), mine, target=1)
    with pytest.raises(QuestionError, match="probability of b"):
        attribute(scan, Engine(known), mine, target=0)
    with pytest.raises(QuestionError, match="probability of b"):
        attribute(scan, Engine(known), mine, target=1, watch="margin")
    with pytest.raises(ModelError, match="There is no explainer"):
        Instant(explainer=str(tmp_path / "none.safetensors"))
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(ModelError, match="is no explainer"):
        Instant(explainer=str(tmp_path / "text.safetensors"))


class Flat(nn.Module):
    """Its layers see a scan as a row of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Linear(24 * 24, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.rows(x.flatten(1)).relu())
        return out


def test_a_network_without_maps_is_refused() -> None:
    flat = Classifier(Flat(), name="flat", classes=["a", "b"], fingerprint="flat", exclusive=True, module=Flat())
    with pytest.raises(QuestionError, match="no feature maps"):
        find_taps(flat, torch.rand(1, 1, 24, 24))


class Tokens(nn.Module):
    """Patches of 4 x 4 pixels as tokens behind a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv2d(1, 8, 4, 4)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.blocks = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.cut(x).flatten(2).transpose(1, 2)
        tokens = self.blocks(torch.cat([torch.zeros_like(tokens[:, :1]), tokens], 1))
        out: Tensor = self.head(tokens[:, 0])
        return out


def test_taps_are_the_last_maps_of_each_resolution_and_tokens_too() -> None:
    def found(network: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
        network = network.eval()
        made = Classifier(network, name="n", classes=["a", "b"], fingerprint="n", exclusive=True, module=network)
        return [(tap.name, tap.layout.grid) for tap in find_taps(made, torch.rand(1, 1, 24, 24))]

    assert found(Spot()) == [("body", (12, 12)), ("body.1", (24, 24))]
    tokens = found(Tokens())
    assert tokens[0] == ("blocks", (6, 6))
    assert tokens[1][0].startswith("blocks.layers.")
    shipped = lucency.load_classifier("lucency:phantom")
    taps = find_taps(shipped, torch.rand(1, 1, 224, 224))
    assert [tap.layout.grid for tap in taps] == [(7, 7), (14, 14), (28, 28), (56, 56)]


def test_every_patch_is_looked_at_equally_often() -> None:
    engine = Engine(classifier())
    probe = engine.open(film(0), Question(1, "b"), TEACHER.removal)
    counts = torch.zeros(len(TEACHER.patches(SIZE)))
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        looks = TEACHER.looks(probe, 12, generator)
        assert len(looks.pieces.unique()) == len(looks.scores) == 12
        counts[looks.pieces.long()] += 1
    expected = 300 * 12 / len(counts)
    assert (counts > 0.6 * expected).all()
    assert (counts < 1.5 * expected).all()


def test_occlusion_is_compared_with_the_falls_themselves() -> None:
    """The map that the teacher paints from all falls is that of the method, and is never wrong."""
    engine, scan = Engine(classifier()), film(5)
    question = Question.ask(classifier(), scan, 1)
    probe = engine.open(scan, question, TEACHER.removal)
    every = TEACHER.looks(probe, 10_000, torch.Generator().manual_seed(0))
    falls = torch.zeros(len(every.scores))
    falls[every.pieces.long()] = float(probe.clean[0]) - every.scores
    value = falls.view(1, *TEACHER.lattice(SIZE))
    wrong, _, signal = TEACHER.compared(
        Said(value, torch.ones_like(value)), Looks(every.pieces[None], every.scores[None]), probe.clean[:1]
    )
    assert float(wrong.abs().max()) < 1e-6
    assert float(signal) == pytest.approx(float(falls.square().mean()))
    slow = attribute(scan, engine, Occlusion(patch=6, stride=3), target=1).heatmap
    assert np.allclose(TEACHER.painted(value, SIZE)[0].numpy(), slow, atol=1e-6)
    places, found = TEACHER.checked(probe, 40, torch.Generator().manual_seed(1))
    assert np.allclose(found.numpy(), slow.ravel()[places.numpy()], atol=1e-6)
    # In log-odds and back.
    raw = torch.stack([probe.clean[0].logit() - (probe.clean[0] - value).logit(), torch.zeros_like(value)], 1)
    assert torch.allclose(TEACHER.said(raw, probe.clean[:1]).value, value, atol=1e-5)


def least(teacher: Teacher, probe: object, start: Tensor) -> Tensor:
    """The values that a teacher is content with, over very many looks."""
    assert isinstance(teacher, ShapleyTeacher | RiseTeacher)
    looks = teacher.looks(probe, 1500, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    value = start.clone().requires_grad_(True)
    lbfgs = torch.optim.LBFGS([value], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        lbfgs.zero_grad()
        said = Said(value, torch.ones_like(value))
        clean = probe.clean[:1]  # type: ignore[attr-defined]
        loss = teacher.compared(said, Looks(looks.pieces[None], looks.scores[None]), clean)[0].square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    lbfgs.step(closure)
    return value.detach()


def test_shapley_and_rise_teach_the_maps_of_the_methods() -> None:
    engine, scan = Engine(classifier()), film(6)
    question = Question.ask(classifier(), scan, 1)
    shapley = ShapleyTeacher(3)
    probe = engine.open(scan, question, shapley.removal_for(classifier().prepare(scan)))
    value = least(shapley, probe, torch.zeros(1, 3, 3))
    slow = attribute(scan, engine, KernelShap(superpixels=Cells(3), samples=510), target=1)
    assert slow.facts["exact"]
    painted = shapley.painted(value, SIZE)[0].numpy()
    assert np.abs(painted - slow.heatmap).max() < 0.05 * np.abs(slow.heatmap).max()
    rise = RiseTeacher(4, fine=12)
    probe = engine.open(scan, question, rise.removal)
    found = rise.painted(least(rise, probe, torch.zeros(1, 12, 12)), SIZE)[0].numpy()
    slow = attribute(scan, engine, Rise(samples=4000, cells=4), target=1)
    assert np.corrcoef(found.ravel(), slow.heatmap.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("teacher", [ShapleyTeacher(3), RiseTeacher(4, fine=8)], ids=lambda t: t.name)
def test_the_other_teachers_train_too(teacher: Teacher, tmp_path: Path) -> None:
    out = tmp_path / "e.safetensors"
    train(Engine(classifier()), 1, teacher, items(), out, Plan(8, 8, 2))
    told = attribute(film(999), Engine(classifier()), Instant(explainer=str(out)), target=1)
    assert np.isfinite(told.heatmap).all()
    assert told.provenance.method.unit == teacher.unit
    assert Learnt.load(out).teacher == teacher


def test_a_patch_map_is_the_mean_over_the_patches_that_cover_a_pixel() -> None:
    soft, volume = Patches((12, 10), (4, 4), (2, 2), 0.7), Patches((5, 6, 7), (3,) * 3, (2,) * 3)
    for patches in (Patches((13, 9), (4, 3), (3, 2)), soft, volume):
        values = torch.rand(len(patches), generator=torch.Generator().manual_seed(0))
        hidden = 1 - patches.masks(torch.arange(len(patches)))
        expected = torch.einsum("n,n...->...", values, hidden) / hidden.sum(0)
        assert torch.allclose(patches.averaged(values.view(1, *patches.counts))[0], expected, atol=1e-5)


def test_conformal_bounds_hold_as_often_as_they_say() -> None:
    rng = torch.Generator().manual_seed(0)
    assert conformal(torch.arange(9.0), 0.9) == 8
    assert conformal(torch.arange(8.0), 0.9) == math.inf
    held, bounds = [], []
    for _ in range(300):
        scans = [torch.rand(7, generator=rng) * torch.rand(1, generator=rng) for _ in range(41)]
        bound = pooled_conformal(scans[:40], 0.9)
        held.append(float((scans[40] <= bound).float().mean()))
        bounds.append(bound)
    assert 0.88 <= np.mean(held) <= 0.96
    assert pooled_conformal([], 0.9) == math.inf


def test_the_teacher_of_a_method_has_its_parameters() -> None:
    assert teacher_for(Occlusion(patch=8), (24, 24), True) == OcclusionTeacher((8, 8), (4, 4))
    assert teacher_for(KernelShap(superpixels=Cells(5)), (24, 24), True) == ShapleyTeacher(5)
    assert teacher_for(Rise(cells=6, p=0.4), (24, 24), True) == RiseTeacher(6, 0.4)
    for method in (Occlusion(patch="15mm"), Occlusion(box=(0, 9, 0, 9)), Instant()):
        with pytest.raises(ParameterError, match="learn"):
            teacher_for(method, (24, 24), True)


def test_the_command_trains_and_explains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    from lucency.cli import main

    for i, who in enumerate(patients(8, 20, 2)):
        pixels = (film(i).pixels[0].repeat_interleave(10, 0).repeat_interleave(10, 1) * 255).to(torch.uint8).numpy()
        Image.fromarray(pixels[:224, :224]).save(tmp_path / f"{who}_{i}.png")
    arguments = ["explainer", "train", "--model", "lucency:phantom", "--target", "effusion", "--scans", str(tmp_path)]
    arguments += [
        "--set",
        "patch=56",
        "--removal",
        "constant",
        "--patient",
        r"^patient \d+",
        "--looks",
        "4",
        "--epochs",
        "1",
    ]
    out = tmp_path / "out" / "e.safetensors"
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--out", str(out), "--json"])
    said = json.loads(capsys.readouterr().out)
    assert end.value.code == 0
    assert said["train"]["patients"] + said["calibrate"]["patients"] + said["measure"]["patients"] == 30
    assert Learnt.load(out).teacher == OcclusionTeacher((56, 56), (28, 28))
    with pytest.raises(SystemExit) as end:
        main(["explainer", "train", "--target", "effusion", "--scans", str(tmp_path / "none"), "--out", str(out)])
    assert end.value.code == 2
    assert "no folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["lucency:phantom", "lucency:effusion"])
def test_a_shipped_model_has_its_explainer(name: str) -> None:
    shipped = lucency.load_classifier(name)
    learnt = explainer_for(shipped, None)
    assert learnt is not None
    assert learnt.fits(shipped)
    assert learnt.name == "effusion"
    # What occlusion of the shipped models takes when nothing else is asked for.
    assert learnt.teacher == OcclusionTeacher(removal=Healthy())
    assert 0.8 <= learnt.trust.covered <= 1
    assert learnt.trust.called_far <= 0.1
    demo = lucency.read_scan(Path(lucency.__file__).parent / "phantom" / "demo.png")
    told = attribute(demo, Engine(shipped), Instant(), target="effusion")
    assert told.provenance.cost.evaluations == 1
    assert told.heatmap.shape == demo.shape
    assert np.ptp(told.heatmap) > 0
