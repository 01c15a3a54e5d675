"""What every meaning of "removed" must do, and what each of them says."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lucency import Scan, explain
from lucency.errors import ParameterError
from lucency.masks import Cells
from lucency.methods import METHODS, Method, Step, method_named
from lucency.methods.expected_gradients import ExpectedGradients
from lucency.methods.integrated_gradients import IntegratedGradients
from lucency.removal import (
    Biharmonic,
    Blur,
    Constant,
    Custom,
    DatasetMean,
    Fill,
    Healthy,
    LocalMean,
    Mean,
    Mirror,
    Noise,
    NoisyLinear,
    Removal,
    SegmentMean,
    Uniform,
    removals,
    remove,
)
from lucency.removal.linear import neighbour_weights
from lucency.removal.local import pull_push
from lucency.removal.mirror import midline, mirrored
from lucency.testing import check_removal
from lucency.testing.removals import SHAPES, check_everything, check_kept, check_repeatable, check_seed
from nets import classifier_of

ANY: list[Removal] = [
    Biharmonic(),
    Blur(2.0),
    Constant(),
    Custom(lambda pixels, masks: pixels.flip(-1)),
    LocalMean(),
    Mean(),
    Mirror(),
    Noise(),
    NoisyLinear(),
    SegmentMean(Cells(3)),
    Uniform(),
]
MADE_FOR_FILMS: list[Removal] = [DatasetMean(), Healthy()]
every = pytest.mark.parametrize("removal", ANY, ids=lambda r: str(r.name))


def small() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels_of(*shape: int) -> Tensor:
    return torch.rand(shape, generator=generator(1))


def holes(count: int, *grid: int) -> Tensor:
    return (torch.rand((count, *grid), generator=generator(2)) > 0.4).float()


@every
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_is_kept_is_the_scan_exactly(removal: Removal, shape: tuple[int, ...]) -> None:
    check_kept(removal, shape)


@every
def test_the_same_masks_get_the_same_pixels(removal: Removal) -> None:
    check_repeatable(removal)


@every
def test_only_what_draws_numbers_depends_on_the_seed(removal: Removal) -> None:
    check_seed(removal)


@every
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_everything_can_be_removed(removal: Removal, shape: tuple[int, ...]) -> None:
    check_everything(removal, shape)


class Leaks(Mean):
    """A removal with a fault: it also changes what is kept."""

    def bind(self, pixels: Tensor, generator: torch.Generator) -> Fill:
        pixels += 0.1
        return super().bind(pixels, generator)


class Moody(Mean):
    """Another: its pixels depend on the company."""

    def bind(self, pixels: Tensor, generator: torch.Generator) -> Fill:
        return lambda masks: torch.full((1, *pixels.shape), float(masks.mean()))


class Denies(Noise):
    """And another: it says that it draws no random numbers."""

    deterministic: ClassVar[bool] = True


def test_the_suite_for_outsiders_passes_what_is_right_and_finds_each_fault() -> None:
    check_removal(Mean)
    check_removal(Noise())
    for faulty in (Leaks, Moody, Denies):
        with pytest.raises(AssertionError):
            check_removal(faulty)


@every
def test_a_learned_mask_gets_the_gradient_of_the_picture(removal: Removal) -> None:
    pixels = pixels_of(1, 6, 5).double()
    masks = (0.55 + 0.4 * torch.rand((2, 6, 5), generator=generator(4))).double().requires_grad_()
    fill = removal.bind(pixels, generator())
    if removal.deterministic or isinstance(removal, Uniform):
        assert torch.autograd.gradcheck(lambda m: remove(pixels, m, fill(m)), (masks,))
    else:
        (gradient,) = torch.autograd.grad(remove(pixels, masks, fill(masks)).sum(), masks)
        assert bool(torch.isfinite(gradient).all())
        assert bool((gradient != 0).any())


@pytest.mark.parametrize("name", sorted(set(removals()) - {"custom", "picture", "twin", "healthy"}))
def test_each_is_found_by_its_name(name: str) -> None:
    found = Removal.of(name)
    assert found.name == name
    assert len(found.cost) > 5
    how: Any = method_named("occlusion", [f"removal={name}"])
    assert how.removal == found


def test_what_words_cannot_give_is_not_offered() -> None:
    with pytest.raises(ParameterError) as error:
        Removal.of("custom")
    assert "road" in str(error.value)
    assert ", custom" not in str(error.value)


class TestWatching:
    """A picture that is looked at is the one that was scored, and looking changes nothing."""

    @pytest.mark.parametrize("removal", [Noise(), Uniform(), NoisyLinear(0.3)], ids=lambda r: str(r.name))
    @pytest.mark.parametrize("name", ["occlusion", "rise", "lime"])
    def test_changes_nothing(self, name: str, removal: Removal) -> None:
        some: dict[str, dict[str, Any]] = {"occlusion": {"patch": 6, "features": False}}
        how: Method = METHODS[name](removal=removal, **some.get(name, {"samples": 24}))
        scan, net = Scan(pixels_of(1, 16, 16)), classifier_of(small(), 3)
        seen: list[tuple[float, float]] = []

        def watch(step: Step) -> None:
            shown = [step.perturbed(), step.perturbed()]
            assert torch.equal(shown[0], shown[1])
            seen.append((step.score, float(net.probabilities(net(shown[0][None]).detach())[0, 0])))

        ask: dict[str, Any] = {"target": 0, "watch": "probability", "seed": 7, "method": how}
        watched, alone = explain(scan, net, on_step=watch, **ask), explain(scan, net, **ask)
        assert np.array_equal(watched.heatmap, alone.heatmap)
        assert seen
        for score, shown in seen:
            assert score == pytest.approx(shown, abs=1e-5)

    def test_each_mask_has_noise_of_its_own(self) -> None:
        pixels, masks = pixels_of(1, 12, 10), holes(3, 12, 10)
        drawn = Noise().bind(pixels, generator())(masks)
        assert abs(float(torch.corrcoef(drawn.flatten(1))[0, 1])) < 0.3

    def test_random_baselines_differ(self) -> None:
        weight = torch.zeros(1, 8, 8)
        weight[0, 0, 0] = 1
        scan, net = Scan(pixels_of(1, 8, 8)), classifier_of(small(), 3)
        runs = [explain(scan, net, target=0, method=IntegratedGradients(removal=Noise(), draws=n)) for n in (1, 2)]
        assert not np.allclose(runs[0].heatmap, runs[1].heatmap)
        found = explain(scan, net, target=0, method=ExpectedGradients(samples=4, removal=Noise())).standard_error
        assert found is not None
        assert float(found.max()) > 0


class TestRoad:
    def dense(self, x: Tensor, mask: Tensor) -> Tensor:
        """The paper's equations, one by one, by a dense solve."""
        height, width = mask.shape
        a, b = torch.eye(height * width, dtype=torch.double), x.flatten().double().clone()
        for i, j in product(range(height), range(width)):
            if mask[i, j]:
                continue
            at, total = i * width + j, 0.0
            b[at] = 0
            for di, dj in product((-1, 0, 1), repeat=2):
                if (di or dj) and 0 <= i + di < height and 0 <= j + dj < width:
                    weight = 1 / 12 if di and dj else 1 / 6
                    total += weight
                    a[at, (i + di) * width + j + dj] = -weight
            a[at, at] = total
        return torch.linalg.solve(a, b).view(height, width)

    def test_solves_the_papers_equations(self) -> None:
        pixels, masks = pixels_of(2, 9, 8), holes(3, 9, 8)
        scans = remove(pixels, masks, NoisyLinear(0.0).bind(pixels, generator())(masks))
        for scan, mask in zip(scans, masks, strict=True):
            for channel, x in zip(scan, pixels, strict=True):
                torch.testing.assert_close(channel.double(), self.dense(x, mask), atol=1e-6, rtol=0)

    def test_agrees_with_quantus(self) -> None:
        peer = pytest.importorskip("quantus.functions.perturb_func")
        pixels, masks = pixels_of(2, 15, 17), holes(3, 15, 17)
        scans = remove(pixels, masks, NoisyLinear(0.0).bind(pixels, generator())(masks))
        for scan, mask in zip(scans, masks, strict=True):
            gone = np.flatnonzero(mask.numpy() == 0)
            theirs = peer.noisy_linear_imputation(pixels.double().numpy(), gone, noise=0.0)
            np.testing.assert_allclose(scan.numpy(), theirs, atol=1e-6)

    def test_adds_noise_only_where_something_is_gone(self) -> None:
        pixels, masks = pixels_of(1, 40, 40), torch.ones(1, 40, 40)
        masks[:, 10:30, 10:30] = 0
        plain, noisy = (remove(pixels, masks, NoisyLinear(s).bind(pixels, generator())(masks)) for s in (0.0, 0.05))
        off = (noisy - plain)[0, 0]
        assert float(off[10:30, 10:30].std()) == pytest.approx(0.05, rel=0.15)
        assert float(off[masks[0] == 1].abs().max()) == 0

    def test_weights_are_the_papers(self) -> None:
        middle = neighbour_weights((3, 3)).toarray()[4].reshape(3, 3)
        np.testing.assert_allclose(middle, np.array([[1, 2, 1], [2, 0, 2], [1, 2, 1]]) / 12)

    def test_nothing_kept_gives_the_mean(self) -> None:
        pixels = pixels_of(1, 9, 8)
        filled = NoisyLinear(0.0).bind(pixels, generator())(torch.zeros(1, 9, 8))
        torch.testing.assert_close(filled, pixels.mean().expand_as(filled), atol=0.02, rtol=0)

    def test_refuses_negative_noise(self) -> None:
        with pytest.raises(ParameterError):
            NoisyLinear(-0.1)


class TestLocalMean:
    def test_keeps_a_slope_and_never_looks_beneath_the_mask(self) -> None:
        pixels = torch.linspace(0, 1, 32).expand(1, 32, 32).clone()
        masks = torch.ones(1, 32, 32)
        masks[:, 12:20, 12:20] = 0
        clean = pull_push(pixels[None], masks[:, None])
        assert float((clean - pixels).abs().max()) < 0.1
        pixels[:, 12:20, 12:20] = 5.0
        torch.testing.assert_close(pull_push(pixels[None], masks[:, None]), clean, atol=1e-4, rtol=0)


class TestMirror:
    def chest(self) -> Tensor:
        """Two lungs about column 20, the right one with something in it."""
        y, x = torch.meshgrid(torch.arange(40.0), torch.arange(44.0), indexing="ij")
        lungs = sum(torch.exp(-((x - c) ** 2 / 30 + (y - 20) ** 2 / 90)) for c in (11, 29))
        return (0.8 - 0.6 * torch.as_tensor(lungs))[None]

    def test_finds_the_midline(self) -> None:
        assert midline(self.chest()) == pytest.approx(20, abs=0.5)
        assert midline(self.chest().flip(-1)) == pytest.approx(23, abs=0.5)
        assert midline(torch.full((1, 8, 8), 0.3)) == pytest.approx(3.5, abs=1)

    def test_shows_the_other_side_as_bright_as_this_one(self) -> None:
        healthy = self.chest()
        # One side of the film is darker, as when the patient is turned.
        shade = torch.linspace(0.9, 1.0, 44)
        sick = healthy * shade
        sick[:, 16:24, 8:14] = 0.9
        masks = torch.ones(1, 40, 44)
        masks[:, 16:24, 8:14] = 0
        filled = remove(sick, masks, Mirror().bind(sick, generator())(masks))[0]
        truth = healthy * shade
        inside = masks[0] == 0
        mirror = (filled - truth)[0][inside].abs().mean()
        smooth = (LocalMean().bind(sick, generator())(masks)[0] - truth)[0][inside].abs().mean()
        assert float(mirror) < 0.02
        assert float(mirror) < float(smooth) / 3

    def test_repeats_the_border(self) -> None:
        row = torch.arange(5.0)[None, None]
        assert mirrored(row, 3.0)[0, 0].tolist() == [4, 4, 4, 3, 2]


class TestDatasetMean:
    def test_reads_and_stretches_a_picture(self, tmp_path: Path) -> None:
        np.save(tmp_path / "mean.npy", np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4))
        pixels = pixels_of(3, 8, 8)
        fill = DatasetMean(str(tmp_path / "mean.npy")).bind(pixels, generator())(torch.zeros(1, 8, 8))
        assert fill.shape == (1, 3, 8, 8)
        assert float(fill[0, 0, 0, 0]) == 0
        assert float(fill[0, 2, -1, -1]) == 1

    def test_says_what_is_wrong(self, tmp_path: Path) -> None:
        np.save(tmp_path / "flat.npy", np.zeros(5, np.float32))
        for source in (str(tmp_path / "none.npy"), str(tmp_path / "flat.npy")):
            with pytest.raises(ParameterError):
                DatasetMean(source).bind(pixels_of(1, 8, 8), generator())


def test_a_function_that_returns_nonsense_is_told_so() -> None:
    pixels, masks = pixels_of(1, 8, 8), torch.zeros(2, 8, 8)
    for function in (lambda p, m: p[..., :3], lambda p, m: None):
        with pytest.raises(ParameterError, match="must return a tensor"):
            Custom(function).bind(pixels, generator())(masks)


def test_a_smooth_surface_goes_on() -> None:
    pixels = torch.linspace(0, 1, 20).expand(1, 20, 20).clone()
    masks = torch.ones(1, 20, 20)
    masks[:, 6:12, 6:12] = 0
    filled = remove(pixels, masks, Biharmonic().bind(pixels, generator())(masks))[0]
    torch.testing.assert_close(filled, pixels, atol=1e-3, rtol=0)
