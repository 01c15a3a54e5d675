"""The deconvnet: against Captum, against the paper's operations written out, and how far units see."""

from __future__ import annotations

import pytest
import torch
from captum.attr import Deconvolution
from torch import Tensor, nn
from torch.nn import functional as F

from lucency import Scan, explain
from lucency.classifier import Classifier
from lucency.engine import Engine
from lucency.errors import ParameterError, QuestionError
from lucency.methods.deconvnet import Deconvnet
from lucency.methods.receptive_field import ReceptiveFields
from lucency.methods.units import Unit, strongest_scans, strongest_units
from nets import classifier_of
from styles import STYLES, styled, torchvision_network


def grid(axes: int = 2, seed: int = 4) -> Tensor:
    return torch.rand((1, 25, 22) if axes == 2 else (1, 14, 12, 13), generator=torch.Generator().manual_seed(seed))


def close(ours: Tensor, theirs: Tensor, relative: float = 1e-5) -> None:
    assert theirs.abs().max() > 0
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < relative


class Written(nn.Module):
    """Two stages of convolution, ReLU, max pooling; each ReLU a module of its own, as Captum wants it."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        conv, pool = (nn.Conv2d, nn.MaxPool2d) if axes == 2 else (nn.Conv3d, nn.MaxPool3d)
        self.one, self.relu1, self.pool1 = conv(1, 5, 3), nn.ReLU(), pool(2)
        self.two, self.relu2, self.pool2 = conv(5, 6, 3), nn.ReLU(), pool(2)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.relu1(self.one(x)))
        out: Tensor = self.head(self.pool2(self.relu2(self.two(x))).flatten(2).mean(2))
        return out


def written(axes: int = 2) -> Written:
    torch.manual_seed(5)
    return Written(axes).eval()


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
@pytest.mark.parametrize("axes", [2, 3])
def test_the_class_led_back_agrees_with_captum(axes: int) -> None:
    net, pixels = written(axes), grid(axes)
    theirs = Deconvolution(net).attribute(pixels[None].clone().requires_grad_(), target=1)
    ours = explain(Scan(pixels), classifier_of(net, 3), target=1, watch="logit", method=Deconvnet(tour=0))
    close(torch.from_numpy(ours.heatmap), theirs[0, 0])


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("whole", [False, True])
def test_a_unit_is_led_back_by_transposed_filters_switches_and_rectification(axes: int, whole: bool) -> None:
    net, pixels = written(axes), grid(axes)
    (unit,) = strongest_units(Engine(classifier_of(net, 3)), Scan(pixels), ["two"], whole=whole)
    back, unpool = (F.conv_transpose2d, F.max_unpool2d) if axes == 2 else (F.conv_transpose3d, F.max_unpool3d)
    pool = F.max_pool2d if axes == 2 else F.max_pool3d
    with torch.no_grad():
        first = net.relu1(net.one(pixels[None]))
        pooled, switches = pool(first, 2, return_indices=True)
        second = net.relu2(net.two(pooled))
        assert unit.unit == int(second[0].flatten(1).amax(1).argmax())
        assert unit.activation == pytest.approx(float(second.max()))
        assert torch.allclose(unit.activations, second[0, unit.unit])
        signal = torch.zeros_like(second)
        kept = (0, unit.unit, ...) if whole else (0, unit.unit, *unit.at)
        signal[kept] = second[kept]
        signal = back(signal.relu(), net.two.weight)
        signal = unpool(signal, switches, 2, output_size=first.shape).relu()
        close(unit.projection, back(signal, net.one.weight)[0].sum(0))


def seen(unit: Unit) -> tuple[slice, ...]:
    return tuple(slice(a, b) for a, b in unit.box)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("name", list(STYLES))
def test_every_layer_of_the_common_families(name: str, axes: int) -> None:
    net, pixels = styled(name, axes), grid(axes)
    classifier = classifier_of(net, 3)
    units = strongest_units(Engine(classifier), Scan(pixels), top=2)
    layers = classifier.layers(pixels[None])
    assert [u.layer for u in units] == [layer.name for layer in layers for _ in range(2)]
    for unit, layer in zip(units, [layer for layer in layers for _ in range(2)], strict=True):
        assert unit.activations.shape == layer.shape[1:]
        assert unit.projection.shape == pixels.shape[1:]
        assert unit.activations[unit.at] == unit.activations.max() == unit.activation
        outside = unit.projection.clone()
        outside[seen(unit)] = 0
        assert not outside.any()
        assert unit.projection.any()
    assert not any(m._forward_hooks or m._backward_hooks for m in net.modules())


@pytest.mark.parametrize("name", list(STYLES))
def test_a_layer_hands_on_what_its_own_norm_and_relu_make_of_it(name: str) -> None:
    net, pixels = styled(name), grid()
    x = pixels[None]
    with torch.no_grad():
        if name == "resnet":
            stem = net.relu(net.bn1(net.conv1(x)))
            block = net.layer1
            inside = block.relu(block.bn1(block.conv1(net.maxpool(stem))))
            # The residual sum comes after, in place; it belongs to the block and not to the convolution.
            expected = {"conv1": stem, "layer1.conv2": block.bn2(block.conv2(inside))}
        elif name == "densenet":
            stem = net.conv0(x)
            first = net.norms[0](stem).relu()
            expected = {"conv0": first, "convs.0": net.convs[0](first)}
        else:
            expected = {"features.0": net.features[:2](x), "features.3": net.features[:5](x)}
    for layer, maps in expected.items():
        for unit in strongest_units(Engine(classifier_of(net, 3)), Scan(pixels), [layer], top=3):
            assert torch.allclose(unit.activations, maps[0, unit.unit], atol=1e-6)


class Positive(nn.Module):
    """Every kind of window, positive weights only: what a pixel depends on is where its gradient is not zero."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        conv = nn.Conv2d if axes == 2 else nn.Conv3d
        self.axes = axes
        self.strided = conv(1, 2, 3, stride=2, padding=1)
        self.dilated = conv(2, 2, 3, dilation=2, padding="same")
        self.even = conv(4, 2, 2, padding=1)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, 0.5, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        average = F.avg_pool2d if self.axes == 2 else F.avg_pool3d
        x = self.strided(x)
        x = torch.cat([x, self.dilated(x)], 1)
        x = self.even(F.pad(average(x, 3, 1, 1), (1, 0, 0, 1)))
        return x.relu() + 1


@pytest.mark.parametrize("axes", [2, 3])
def test_reach_is_where_the_gradient_is_not_zero(axes: int) -> None:
    torch.manual_seed(0)
    net = Positive(axes)
    x = torch.rand(1, 1, *((33, 30) if axes == 2 else (21, 22, 23))).requires_grad_()
    with ReceptiveFields(x) as fields:
        out = net(x)
    field = fields.of(out)
    assert field is not None
    spatial = out.shape[2:]
    for share in (0.2, 0.3, 0.5, 0.9):
        at = tuple(int(share * (n - 1)) for n in spatial)
        (gradient,) = torch.autograd.grad(out[(0, 0, *at)], x, retain_graph=True)
        support = gradient[0, 0].nonzero()
        box = [(int(a), int(b) + 1) for a, b in zip(support.amin(0), support.amax(0), strict=True)]
        assert list(field.box(at, tuple(x.shape[2:]))) == box


def test_max_pooling_widens_the_reach_and_global_pooling_ends_it() -> None:
    x = torch.rand(1, 1, 12, 12)
    with ReceptiveFields(x) as fields:
        pooled = F.max_pool2d(x, 3, stride=2, padding=1)
        resized = F.interpolate(pooled, size=(4, 4))
        gated = pooled * F.adaptive_avg_pool2d(pooled, 1)
    assert fields.of(pooled) is not None
    assert fields.of(pooled).box((2, 0), (12, 12)) == ((3, 6), (0, 2))  # type: ignore[union-attr]
    assert fields.of(resized) is None
    assert fields.of(gated) == fields.of(pooled)


def test_the_scans_that_fire_a_unit_come_strongest_first_with_their_patches() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].weight[1] = 1 / 9
        net[0].bias.zero_()
    scans = []
    for i, brightness in enumerate([0.2, 0.9, 0.5, 0.9]):
        pixels = torch.zeros(1, 12, 14)
        pixels[0, 2 + i : 5 + i, 6:9] = brightness
        scans.append(Scan(pixels, source=str(i)))
    best = strongest_scans(Engine(classifier_of(net)), iter(scans), "0", 1, top=3)
    assert [scan.source for scan, _ in best] == ["1", "3", "2"]
    for scan, unit in best:
        i = int(scan.source)
        assert unit.box == ((2 + i, 5 + i), (6, 9))
        assert torch.allclose(unit.pixels[(0, *seen(unit))], torch.tensor(unit.activation))
        assert torch.allclose(unit.projection[seen(unit)], torch.tensor(unit.activation / 9))


def test_the_tour_shows_layers_and_ends_with_the_class() -> None:
    net, scan = classifier_of(written(), 3), Scan(grid())
    shown = []
    result = explain(scan, net, target=0, method=Deconvnet(tour=5), on_step=shown.append)
    straight = explain(scan, net, target=0, method=Deconvnet(tour=0))
    assert torch.equal(torch.from_numpy(result.heatmap), torch.from_numpy(straight.heatmap))
    assert [float(step.reaction().abs().max()) for step in shown] == [1.0, 1.0, 1.0]
    units = strongest_units(Engine(net), scan, whole=True)
    assert list(result.also) == [f"strongest map of {u.layer} ({u.unit})" for u in units]
    for unit, led_back in zip(units, result.also.values(), strict=True):
        close(torch.from_numpy(led_back), unit.projection)


def test_a_signal_that_dies_on_the_way_is_said() -> None:
    net = nn.Sequential(
        *(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2)),
    )
    with torch.no_grad():
        net[0].weight.fill_(1)
        net[2].bias.fill_(2)
        net[6].weight.fill_(1)
    for weight, alive in ((-1.0, False), (1.0, True)):
        with torch.no_grad():
            net[2].weight.fill_(weight)
        result = explain(Scan(grid()), classifier_of(net), target=0, watch="logit", method="deconvnet")
        assert result.facts["signal reaches pixels"] is alive
        assert bool(result.heatmap.any()) is alive


def test_what_cannot_be_shown_is_said() -> None:
    scan, engine = Scan(grid()), Engine(classifier_of(written(), 3))
    with pytest.raises(QuestionError, match="no convolutional layer 'head'"):
        strongest_units(engine, scan, ["head"])
    with pytest.raises(QuestionError, match="0 to 4"):
        strongest_scans(engine, [scan], "one", 5)
    with pytest.raises(ParameterError, match="At least one"):
        strongest_units(engine, scan, top=0)
    with pytest.raises(ParameterError, match="At least one"):
        strongest_scans(engine, [scan], "one", 0, top=0)
    with pytest.raises(ParameterError, match="0 or more"):
        Deconvnet(tour=-1)
    dense = classifier_of(nn.Sequential(nn.Flatten(), nn.Linear(25 * 22, 2)))
    with pytest.raises(QuestionError, match="no convolutional layer"):
        strongest_units(Engine(dense), scan)
    box = Classifier(written(), name="box", classes=["a", "b", "c"], fingerprint="box")
    with pytest.raises(QuestionError, match="black box"):
        strongest_units(Engine(box), scan)


@pytest.mark.parametrize("name", ["resnet50", "densenet121", "vgg11_bn"])
def test_torchvision_networks(name: str) -> None:
    net = torchvision_network(name)
    classifier = classifier_of(net, 3)
    pixels = torch.rand(3, 64, 64)
    names = [layer.name for layer in classifier.layers(pixels[None])]
    units = strongest_units(Engine(classifier), Scan(pixels), names[:: max(1, len(names) // 4)])
    assert all(unit.projection.any() and torch.isfinite(unit.projection).all() for unit in units)


def test_a_monai_network() -> None:
    networks = pytest.importorskip("monai.networks.nets", reason="MONAI is not installed")
    torch.manual_seed(0)
    net = networks.DenseNet121(spatial_dims=3, in_channels=1, out_channels=2).eval()
    units = strongest_units(Engine(classifier_of(net)), Scan(torch.rand(1, 32, 32, 32)))
    assert len(units) == 120
