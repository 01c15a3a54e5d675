"""Class activation maps against Captum, against formulas written out, and against heads that allow a closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import LayerAttribution, LayerGradCam
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lucency import Scan, explain
from lucency.classifier import Classifier, Question
from lucency.engine import Engine
from lucency.errors import QuestionError
from lucency.methods.cam import Cam, GradCam, GradCamPlusPlus, LayerCam
from lucency.methods.features import features_and_gradient
from nets import classifier_of
from styles import STYLES, styled, torchvision_network


class Pooled(nn.Module):
    """Two convolutions, a ReLU in place, global average pooling, one linear layer."""

    def __init__(self, axes: int = 2, head: nn.Module | None = None) -> None:
        super().__init__()
        conv = nn.Conv2d if axes == 2 else nn.Conv3d
        self.first, self.second = conv(1, 5, 3, stride=2), conv(5, 7, 3)
        self.relu = nn.ReLU(inplace=True)
        self.head = head or nn.Linear(7, 3)

    def features(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.second(self.relu(self.first(x))))
        return out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(x).flatten(2).mean(2))
        return out


def pooled(axes: int = 2, head: nn.Module | None = None) -> Pooled:
    torch.manual_seed(7)
    return Pooled(axes, head).eval()


def grid(axes: int = 2) -> Tensor:
    return torch.rand((1, 23, 18) if axes == 2 else (1, 11, 12, 13), generator=torch.Generator().manual_seed(2))


def close(ours: NDArray[np.float32], theirs: Tensor, relative: float = 1e-5) -> None:
    a, b = torch.from_numpy(ours), theirs.detach()
    assert b.abs().max() > 0
    assert float((a - b).abs().max() / b.abs().max()) < relative


def upsampled(heatmap: Tensor, like: Tensor) -> Tensor:
    mode = "bilinear" if heatmap.ndim == 2 else "trilinear"
    return F.interpolate(heatmap[None, None], size=like.shape[1:], mode=mode)[0, 0]


def pieces(net: Pooled, pixels: Tensor, target: int) -> tuple[Tensor, Tensor]:
    features = net.features(pixels[None]).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(net.head(features.flatten(2).mean(2))[0, target], features)
    return features[0].detach(), gradient[0]


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize(("layer", "watch"), [(None, "logit"), (None, "probability"), ("first", "logit")])
def test_gradcam_agrees_with_captum(axes: int, layer: str | None, watch: str) -> None:
    net, pixels = pooled(axes), grid(axes)
    ours = explain(Scan(pixels), classifier_of(net, 3), target=1, watch=watch, method=GradCam(layer=layer))

    class Apart(nn.Module):
        """The same, with a module of its own for each ReLU, as Captum wants it."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.one, self.two = net.first, net.second, nn.ReLU(), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = net.head(self.two(self.second(self.one(self.first(x)))).flatten(2).mean(2))
            return out if watch == "logit" else out.softmax(1)

    apart = Apart()
    theirs = LayerGradCam(apart, apart.first if layer else apart.two).attribute(
        pixels[None], target=1, relu_attributions=True
    )
    mode = "bilinear" if axes == 2 else "trilinear"
    close(ours.heatmap, LayerAttribution.interpolate(theirs, tuple(pixels.shape[1:]), mode)[0, 0])


@pytest.mark.parametrize("axes", [2, 3])
def test_gradcam_plus_plus_is_its_formula(axes: int) -> None:
    net, pixels = pooled(axes), grid(axes)
    ours = explain(Scan(pixels), classifier_of(net, 3), target=2, watch="logit", method=GradCamPlusPlus())
    features, gradient = (t.double() for t in pieces(net, pixels, 2))
    heatmap = torch.zeros(features.shape[1:], dtype=torch.float64)
    for a, g in zip(features, gradient, strict=True):
        weight = 0.0
        for slope in g.flatten().tolist():
            if slope > 0:
                weight += slope**2 / (2 * slope**2 + slope**3 * float(a.sum())) * slope
        heatmap += weight * a
    close(ours.heatmap, upsampled(heatmap.clamp_min(0).float(), pixels))


@pytest.mark.parametrize("axes", [2, 3])
def test_layercam_is_its_formula(axes: int) -> None:
    torch.manual_seed(0)
    # A head with a weight for each place, so that the gradient differs from place to place.
    head = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    net = pooled(axes)
    net.forward = lambda x: head(net.features(x))  # type: ignore[method-assign]
    pixels = grid(axes)
    with torch.no_grad():
        net(pixels[None])
    ours = explain(Scan(pixels), classifier_of(net, 3), target=0, watch="logit", method=LayerCam())
    features = net.features(pixels[None]).detach()[0]
    slopes = head[1].weight[0].view(features.shape)
    close(ours.heatmap, upsampled((slopes.clamp_min(0) * features).sum(0), pixels))


@pytest.mark.parametrize("axes", [2, 3])
def test_cam_paints_the_linear_head(axes: int) -> None:
    net, pixels = pooled(axes), grid(axes)
    ours = explain(Scan(pixels), classifier_of(net, 3), target=1, method=Cam())
    features = net.features(pixels[None])[0]
    heatmap = torch.einsum("k,k...->...", net.head.weight[1], features)  # type: ignore[arg-type]
    close(ours.heatmap, upsampled(heatmap, pixels))
    assert ours.facts["bias"] == pytest.approx(float(net.head.bias[1].detach()), abs=1e-5)  # type: ignore[index]
    assert ours.heatmap.min() < 0 or ours.heatmap.max() > 0


def test_cam_takes_a_convolution_as_head_too() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    ours = explain(Scan(grid()), classifier_of(net, 3), target=1, method=Cam())
    close(ours.heatmap, upsampled(net[:3](grid()[None])[0, 1], grid()))
    assert ours.facts["bias"] == pytest.approx(0, abs=1e-5)


# Some drawn heads of two layers are linear where the test looks.
torch.manual_seed(0)


@pytest.mark.parametrize(
    "net",
    [
        pooled(head=nn.Sequential(nn.Linear(7, 32), nn.ReLU(), nn.Linear(32, 3))),
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)),
    ],
    ids=["two layers", "maximum", "four places"],
)
def test_cam_refuses_other_heads(net: nn.Module) -> None:
    with pytest.raises(QuestionError, match="global average pooling"):
        explain(Scan(grid()), classifier_of(net, 3), target=0, method=Cam())


METHODS = [GradCam(), GradCamPlusPlus(), LayerCam()]


@pytest.mark.parametrize("how", METHODS, ids=lambda how: how.name)
def test_nothing_to_map_is_said(how: GradCam) -> None:
    dense = nn.Sequential(nn.Flatten(), nn.Linear(23 * 18, 3))
    with pytest.raises(QuestionError, match="no convolution"):
        explain(Scan(grid()), classifier_of(dense, 3), method=how)
    with pytest.raises(QuestionError, match="no layer 'third'"):
        explain(Scan(grid()), classifier_of(pooled(), 3), method=type(how)(layer="third"))
    with pytest.raises(QuestionError, match="no feature maps in 'head'"):
        explain(Scan(grid()), classifier_of(pooled(), 3), method=type(how)(layer="head"))
    with pytest.raises(QuestionError, match="earlier layer"):
        explain(Scan(grid()), classifier_of(pooled(), 3), watch="layer:first:0", method=how)
    box = Classifier(pooled(), name="box", classes=["a", "b", "c"], fingerprint="box")
    with pytest.raises(QuestionError, match="black box"):
        explain(Scan(grid()), box, method=how)


def test_a_named_layer_is_read_before_what_follows_in_place() -> None:
    net, pixels = pooled(), grid()
    probe = Engine(classifier_of(net, 3)).open(Scan(pixels), Question(0, "c0", "logit"))
    features = features_and_gradient(probe, pixels[None], "second").maps
    before = net.second(net.relu(net.first(pixels[None])))
    assert torch.equal(features, before.detach())
    assert float(features.min()) < 0
    assert not any(m._forward_hooks for m in net.modules())


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("name", list(STYLES))
def test_the_last_features_are_those_the_head_pools(name: str, axes: int) -> None:
    net, pixels = styled(name, axes), grid(axes)
    probe = Engine(classifier_of(net, 3)).open(Scan(pixels), Question(0, "c0", "logit"))
    found = features_and_gradient(probe, pixels[None], None)
    features, gradient = found.maps, found.gradient
    assert torch.allclose(features, net.trunk(pixels[None]).detach(), atol=1e-6)
    assert gradient.shape == features.shape


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "vgg11_bn", "squeezenet1_1"])
def test_the_last_features_of_torchvision_networks(name: str) -> None:
    net = torchvision_network(name)
    pixels = torch.rand(3, 64, 80)
    probe = Engine(classifier_of(net, 3)).open(Scan(pixels), Question(0, "c0", "logit"))
    features = features_and_gradient(probe, pixels[None], None).maps
    parts = dict(net.named_children())
    with torch.no_grad():
        if name == "resnet18":
            trunk = nn.Sequential(*list(parts.values())[:-2])(pixels[None])
        elif name == "densenet121":
            trunk = parts["features"](pixels[None]).relu()
        elif name == "vgg11_bn":
            trunk = nn.Sequential(*list(parts["features"].children())[:-1])(pixels[None])
        else:
            trunk = nn.Sequential(*list(parts["classifier"].children())[:3])(parts["features"](pixels[None]))
    assert torch.allclose(features, trunk, atol=1e-6)
