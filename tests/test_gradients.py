"""Gradient methods against Captum, and against cases whose answer is known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from captum.attr import Deconvolution, GuidedBackprop, InputXGradient, Saliency
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional as F

from lucency import Scan, explain
from lucency.classifier import Classifier, Question
from lucency.engine import Engine
from lucency.errors import ParameterError, QuestionError
from lucency.methods.blur_integrated_gradients import BlurIntegratedGradients, blur_and_change
from lucency.methods.expected_gradients import ExpectedGradients
from lucency.methods.integrated_gradients import IntegratedGradients
from lucency.methods.smoothgrad import SmoothGrad
from lucency.removal import Blur, Constant, Noise
from nets import classifier_of


class Small(nn.Module):
    """Convolution, pooling, two ReLUs; how the ReLUs are written can be chosen."""

    def __init__(self, axes: int = 2, relus: str = "module") -> None:
        super().__init__()
        conv, pool = (nn.Conv2d, nn.MaxPool2d) if axes == 2 else (nn.Conv3d, nn.MaxPool3d)
        self.first, self.second = conv(1, 6, 3), conv(6, 8, 3)
        self.pool = pool(2)
        self.head = nn.Linear(8, 3)
        one, two = nn.ReLU(), nn.ReLU()
        written: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
            "module": (one, two),
            "shared in place": (nn.ReLU(inplace=True),) * 2,
            "functional": (F.relu, torch.relu),
            "method": (lambda x: x.relu(), lambda x: x.relu_()),
        }
        self.relus = written[relus]
        self.modules_of_relu = nn.ModuleList([one, two])

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relus[0](self.first(x)))
        out: Tensor = self.head(self.relus[1](self.second(x)).flatten(2).mean(2))
        return out


def small(axes: int = 2, relus: str = "module") -> Small:
    torch.manual_seed(3)
    return Small(axes, relus).eval()


def grid(axes: int = 2) -> Tensor:
    return torch.rand((1, 17, 22) if axes == 2 else (1, 9, 12, 13), generator=torch.Generator().manual_seed(1))


def close(ours: object, theirs: Tensor, relative: float = 1e-5) -> None:
    a, b = torch.as_tensor(ours), theirs.detach()
    assert b.abs().max() > 0
    assert float((a - b).abs().max() / b.abs().max()) < relative


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize(
    ("rule", "name", "factor"), [("gauss-legendre", "gausslegendre", 1.0), ("trapezoid", "riemann_trapezoid", 8 / 7)]
)
def test_integrated_gradients_agree_with_captum(axes: int, rule: str, name: str, factor: float) -> None:
    net, pixels = small(axes), grid(axes)
    how = IntegratedGradients(rule=rule, alphas=8, removal=Constant(0.3))  # type: ignore[arg-type]
    ours = explain(Scan(pixels), classifier_of(net, 3), target=1, watch="logit", method=how)
    theirs = CaptumIntegratedGradients(net).attribute(
        pixels[None], torch.full_like(pixels, 0.3)[None], target=1, n_steps=8, method=name
    )
    close(ours.heatmap, theirs[0, 0] * factor)
    assert ours.provenance.cost.gradients == 8


def test_probability_is_watched_when_asked() -> None:
    net, pixels = small(), grid()
    how = IntegratedGradients(rule="gauss-legendre", alphas=8)
    ours = explain(Scan(pixels), classifier_of(net, 3), target=1, watch="probability", method=how)
    theirs = CaptumIntegratedGradients(nn.Sequential(net, nn.Softmax(1))).attribute(pixels[None], target=1, n_steps=8)
    close(ours.heatmap, theirs[0, 0])


class Linear(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        score = (x * self.weight).flatten(1).sum(1)
        return torch.stack([score, torch.zeros_like(score)], 1)


@pytest.mark.parametrize("rule", ["adaptive", "gauss-legendre", "trapezoid"])
@pytest.mark.parametrize("shape", [(3, 7, 9), (2, 4, 5, 6)])
def test_a_linear_model_is_attributed_exactly(rule: str, shape: tuple[int, ...]) -> None:
    weight, pixels = torch.randn(shape), torch.rand(shape)
    how = IntegratedGradients(rule=rule, alphas=3, removal=Constant(0.25))  # type: ignore[arg-type]
    ours = explain(Scan(pixels), classifier_of(Linear(weight)), target=0, watch="logit", method=how)
    close(ours.heatmap, (weight * (pixels - 0.25)).sum(0))
    assert ours.facts["relative completeness gap"] < 1e-4


def test_baselines_are_averaged() -> None:
    weight, pixels = torch.randn(1, 6, 7), torch.rand(1, 6, 7)
    net = classifier_of(Linear(weight))
    ask = {"target": 0, "watch": "logit"}
    black, white = (explain(Scan(pixels), net, method=IntegratedGradients(removal=Constant(v)), **ask) for v in (0, 1))
    both = explain(Scan(pixels), net, method=IntegratedGradients(removal=Constant(0), others=(Constant(1),)), **ask)
    close(both.heatmap, torch.from_numpy(black.heatmap + white.heatmap) / 2)
    drawn = [
        explain(Scan(pixels), net, method=IntegratedGradients(removal=Noise(), draws=n), **ask).heatmap
        for n in (1, 400)
    ]
    expected = torch.from_numpy((weight * (pixels - pixels.mean()))[0].numpy())
    far, near = (float((torch.from_numpy(d) - expected).abs().max()) for d in drawn)
    assert near < far / 4


class Bent(nn.Module):
    """A score that rises steeply in a small part of the path."""

    def forward(self, x: Tensor) -> Tensor:
        score = torch.sigmoid(60 * (x.flatten(1).mean(1) - 0.3)) + x.flatten(1).amax(1).square()
        return torch.stack([score, torch.zeros_like(score)], 1)


@pytest.mark.parametrize("tolerance", [0.05, 0.01, 0.001])
def test_the_adaptive_rule_stops_when_completeness_holds(tolerance: float) -> None:
    net, scan = classifier_of(Bent()), Scan(grid())
    how = IntegratedGradients(tolerance=tolerance)
    ours = explain(scan, net, target=0, watch="logit", method=how)
    assert ours.facts["relative completeness gap"] <= tolerance
    black, clean = (float(Bent()(p[None])[0, 0]) for p in (torch.zeros_like(scan.pixels), scan.pixels))
    assert ours.facts["score difference"] == pytest.approx(clean - black, abs=1e-6)
    assert float(ours.heatmap.sum()) == pytest.approx(clean - black, rel=tolerance + 1e-5)
    used = int(ours.facts["alphas"])
    fixed = IntegratedGradients(rule="gauss-legendre", alphas=used)
    assert explain(scan, net, target=0, watch="logit", method=fixed).facts["relative completeness gap"] > tolerance


def test_the_adaptive_rule_keeps_to_its_limit_and_says_the_gap() -> None:
    scan = Scan(grid())
    ours = explain(
        scan, classifier_of(Bent()), target=0, watch="logit", method=IntegratedGradients(tolerance=1e-5, alphas=6)
    )
    assert ours.facts["alphas"] == 5
    assert ours.facts["relative completeness gap"] > 1e-5
    assert ours.complete


def test_alphas_ascend_and_spread_under_a_budget() -> None:
    how = IntegratedGradients(rule="trapezoid", alphas=9, removal=Blur(3))
    scan, net = Scan(grid()), classifier_of(small(), 3)

    def walk(how: IntegratedGradients) -> list[tuple[float, Tensor]]:
        steps = how.steps(scan, Question.ask(net, scan, 0), Engine(net, batch_size=4))
        return [(step.point[0], step.heatmap()) for step in steps if step.point]

    ascending, spread = walk(how), walk(how.anytime())
    assert [a for a, _ in ascending] == sorted(a for a, _ in ascending)
    assert [a for a, _ in spread][:3] == [0.0, 1.0, 0.5]
    close(spread[-1][1], ascending[-1][1])


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"rule": "simpson"}, "no rule"),
        ({"alphas": 2}, "at least 3"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"draws": 0}, "baseline"),
    ],
)
def test_bad_parameters_are_said(how: dict[str, object], says: str) -> None:
    with pytest.raises(ParameterError, match=says):
        explain(Scan(grid()), classifier_of(small(), 3), method=IntegratedGradients(**how))  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["gradient", "gradient_x_input", "guided_backprop", "integrated_gradients"])
def test_a_black_box_is_out_of_reach(method: str) -> None:
    box = Classifier(small(), name="box", classes=["a", "b", "c"], fingerprint="box")
    with pytest.raises(QuestionError, match="black box"):
        explain(Scan(grid()), box, method=method)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("watch", ["logit", "probability"])
def test_gradients_agree_with_captum(axes: int, watch: str) -> None:
    net, pixels = small(axes), grid(axes)
    watched = net if watch == "logit" else nn.Sequential(net, nn.Softmax(1))
    x = pixels[None].clone().requires_grad_()
    for name, theirs in (
        ("gradient", Saliency(watched).attribute(x, target=2, abs=False)),
        ("gradient_x_input", InputXGradient(watched).attribute(x, target=2)),
    ):
        close(explain(Scan(pixels), classifier_of(net, 3), target=2, watch=watch, method=name).heatmap, theirs[0, 0])


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("relus", ["module", "shared in place", "functional", "method"])
@pytest.mark.parametrize(("method", "peer"), [("guided_backprop", GuidedBackprop)])
def test_rectified_gradients_agree_with_captum(
    axes: int, relus: str, method: str, peer: type[GuidedBackprop | Deconvolution]
) -> None:
    pixels = grid(axes)
    # Captum needs one module for each ReLU; how ours are written must not matter.
    net = small(axes)
    theirs = peer(net).attribute(pixels[None].clone().requires_grad_(), target=1)
    ours = explain(Scan(pixels), classifier_of(small(axes, relus), 3), target=1, watch="logit", method=method)
    close(ours.heatmap, theirs[0, 0])
    plain = explain(Scan(pixels), classifier_of(small(axes, relus), 3), target=1, watch="logit", method="gradient")
    assert abs(plain.heatmap - ours.heatmap).max() > 1e-3 * abs(plain.heatmap).max()


def test_without_a_relu_there_is_nothing_to_guide() -> None:
    with pytest.raises(QuestionError, match="no ReLU"):
        explain(Scan(torch.rand(1, 6, 7)), classifier_of(Linear(torch.randn(1, 6, 7))), method="guided_backprop")


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.9])
@pytest.mark.parametrize("shape", [(2, 9, 14), (1, 5, 8, 7)])
def test_blur_and_its_change(sigma: float, shape: tuple[int, ...]) -> None:
    pixels = torch.rand(shape, dtype=torch.float64)
    blurred, change = blur_and_change(pixels, sigma)
    for channel, theirs in zip(pixels, blurred, strict=True):
        reference = gaussian_filter(channel.numpy(), sigma, mode="nearest", truncate=6)
        assert torch.allclose(theirs, torch.from_numpy(reference), atol=1e-7)
    more, less = (blur_and_change(pixels, sigma + d)[0] for d in (1e-5, -1e-5))
    assert torch.allclose(change, (more - less) / 2e-5, atol=1e-6)


def test_blur_integrated_gradients_agree_with_the_papers_sum() -> None:
    """The sum of the authors' code: the gradient at each blurred scan times what the next one adds to it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Softplus(5), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2))
    pixels = grid()
    how = BlurIntegratedGradients(sigma=4.0, rule="trapezoid", alphas=81)
    ours = explain(Scan(pixels), classifier_of(net), target=1, watch="logit", method=how)
    total = torch.zeros_like(pixels)
    sigmas = [4.0 * (1 - i / 80) for i in range(81)]
    scans = [torch.from_numpy(gaussian_filter(pixels[0].numpy(), s, mode="nearest", truncate=6))[None] for s in sigmas]
    for here, there in pairwise(scans):
        at = ((here + there) / 2)[None].requires_grad_()
        (gradient,) = torch.autograd.grad(net(at)[0, 1], at)
        total += gradient[0] * (there - here)
    close(ours.heatmap, total[0], relative=0.01)


@pytest.mark.parametrize("axes", [2, 3])
def test_blur_integrated_gradients_add_up_to_what_sharpness_adds(axes: int) -> None:
    scan, net = Scan(grid(axes)), small(axes)
    how = BlurIntegratedGradients(sigma=5.0, tolerance=0.005)
    ours = explain(scan, classifier_of(net, 3), target=0, watch="logit", method=how)
    blurred = torch.from_numpy(gaussian_filter(scan.pixels[0].numpy(), 5.0, mode="nearest", truncate=6))[None]
    with torch.no_grad():
        sharp, dull = net(torch.stack([scan.pixels, blurred]))[:, 0].tolist()
    assert float(ours.heatmap.sum()) == pytest.approx(sharp - dull, rel=0.006)


def test_smoothgrad_is_the_mean_over_noise_and_knows_its_error() -> None:
    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.flatten(1).square().sum(1), x.flatten(1).sum(1)], 1)

    pixels = torch.rand(1, 12, 13)
    ours = explain(Scan(pixels), classifier_of(Square()), target=0, watch="logit", method=SmoothGrad(samples=400))
    # The gradient of the square is 2 (x + e): its mean is 2 x, its standard deviation 2 sigma.
    sigma = 0.15 * float(pixels.max() - pixels.min())
    assert ours.standard_error is not None
    error = torch.from_numpy(ours.standard_error)
    assert torch.allclose(error, torch.tensor(2 * sigma / 20), rtol=0.15)
    off = (torch.from_numpy(ours.heatmap) - 2 * pixels[0]) / error
    assert 0.85 < float(off.std()) < 1.15
    assert float(off.abs().max()) < 5


def test_expected_gradients_agree_with_a_plain_loop_over_the_same_draws() -> None:
    net, pixels = small(), grid()
    how = ExpectedGradients(samples=6, removal=Constant(0.4))
    ours = explain(Scan(pixels), classifier_of(net, 3), target=1, watch="logit", method=how, seed=5)
    generator = torch.Generator().manual_seed(5)
    total = torch.zeros_like(pixels)
    for _ in range(6):
        at = (0.4 + torch.rand((), generator=generator) * (pixels - 0.4))[None].requires_grad_()
        (gradient,) = torch.autograd.grad(net(at)[0, 1], at)
        total += gradient[0] * (pixels - 0.4) / 6
    close(ours.heatmap, total[0])


def test_expected_gradients_add_up_in_expectation() -> None:
    weight, pixels = torch.randn(1, 6, 7), torch.rand(1, 6, 7)
    how = ExpectedGradients(samples=500, removal=Noise())
    ours = explain(Scan(pixels), classifier_of(Linear(weight)), target=0, watch="logit", method=how)
    expected = (weight * (pixels - pixels.mean()))[0]
    assert ours.standard_error is not None
    off = (torch.from_numpy(ours.heatmap) - expected) / torch.from_numpy(ours.standard_error)
    assert float(off.abs().max()) < 5
    assert 0.7 < float(off.std()) < 1.3


@pytest.mark.parametrize("how", [SmoothGrad(samples=5), ExpectedGradients(samples=5)])
def test_the_batch_size_does_not_change_the_answer(how: SmoothGrad | ExpectedGradients) -> None:
    scan, net = Scan(grid()), classifier_of(small(), 3)
    one, five = (explain(scan, net, target=0, method=how, engine=Engine(net, batch_size=b)).heatmap for b in (1, 5))
    close(one, torch.from_numpy(five))
