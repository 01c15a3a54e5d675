"""The networks of the benchmarks, as torchvision builds them; random weights, since speed does not depend on them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Basic (two 3 x 3) or bottleneck (1 x 1, 3 x 3, 1 x 1) residual block."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outputs = width * 4 if bottleneck else width
        shapes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)] if bottleneck else [
            (inputs, width, 3, stride), (width, width, 3, 1)]  # fmt: skip
        self.convs = nn.ModuleList(nn.Conv2d(i, o, k, s, k // 2, bias=False) for i, o, k, s in shapes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for _, o, _, _ in shapes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(y))
            if i + 1 < len(self.convs):
                y = self.relu(y)
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class ResNet(nn.Module):
    def __init__(self, blocks: tuple[int, ...], bottleneck: bool, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        )
        inputs, stages = 64, []
        for i, count in enumerate(blocks):
            for j in range(count):
                stages.append(Block(inputs, 64 << i, 2 if i and not j else 1, bottleneck))
                inputs = (64 << i) * (4 if bottleneck else 1)
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.pool(self.stages(self.stem(x))), 1))


class DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int = 32) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = self.conv1(self.relu(self.norm1(torch.cat(features, 1))))
        return self.conv2(self.relu(self.norm2(x)))


class DenseBlock(nn.Module):
    def __init__(self, inputs: int, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DenseLayer(inputs + 32 * i) for i in range(count))

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(features))
        return torch.cat(features, 1)


class DenseNet121(nn.Module):
    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        parts: list[nn.Module] = [
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        ]  # fmt: skip
        channels = 64
        for i, count in enumerate((6, 12, 24, 16)):
            parts.append(DenseBlock(channels, count))
            channels += 32 * count
            parts.append(nn.BatchNorm2d(channels))
            if i < 3:
                parts += [nn.ReLU(inplace=True), nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
                channels //= 2
        self.features = nn.Sequential(*parts)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.features(x), inplace=True)
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))


class VGG16(nn.Module):
    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        inputs = 3
        for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(count):
                parts += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = width
            parts.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*parts)
        self.pool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 49, 4096), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(4096, classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


class ChannelNorm(nn.LayerNorm):
    """A layer norm over the channels of each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class Next(nn.Module):
    """A block of ConvNeXt."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width, 1, 1), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.narrow(F.gelu(self.widen(y))).permute(0, 3, 1, 2)
        return x + self.scale * y


class ConvNeXtTiny(nn.Module):
    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(3, 96, 4, 4), ChannelNorm(96, eps=1e-6)]
        for i, count in enumerate((3, 3, 9, 3)):
            width = 96 << i
            parts += [Next(width) for _ in range(count)]
            if i < 3:
                parts += [ChannelNorm(width, eps=1e-6), nn.Conv2d(width, 2 * width, 2, 2)]
        self.features = nn.Sequential(*parts)
        self.norm, self.classifier = ChannelNorm(768, eps=1e-6), nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(x), 1)
        return self.classifier(torch.flatten(self.norm(x), 1))


class Excitation(nn.Module):
    """A gate for each channel, from the mean of the map."""

    def __init__(self, width: int, squeezed: int, inner: type[nn.Module], outer: type[nn.Module]) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(width, squeezed, 1), nn.Conv2d(squeezed, width, 1)
        self.inner, self.outer = inner(), outer()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.outer(self.two(self.inner(self.one(F.adaptive_avg_pool2d(x, 1)))))


class Inverted(nn.Module):
    """An inverted residual: wider, depthwise, perhaps a gate, narrow again."""

    def __init__(
        self, inputs: int, wide: int, outputs: int, kernel: int, stride: int, gate: nn.Module | None,
        activation: type[nn.Module],
    ) -> None:  # fmt: skip
        super().__init__()
        self.shortcut = stride == 1 and inputs == outputs
        parts: list[nn.Module] = []
        if wide != inputs:
            parts += [nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), activation(inplace=True)]
        parts += [
            nn.Conv2d(wide, wide, kernel, stride, kernel // 2, groups=wide, bias=False), nn.BatchNorm2d(wide),
            activation(inplace=True),
        ]  # fmt: skip
        parts += [] if gate is None else [gate]
        self.parts = nn.Sequential(*parts, nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.parts(x) if self.shortcut else self.parts(x)


class Mobile(nn.Module):
    """A stem, inverted residuals, a wide layer, and a head."""

    def __init__(self, stem: int, blocks: list[Inverted], ends: tuple[int, int], head: nn.Module) -> None:
        super().__init__()
        last = nn.Conv2d(ends[0], ends[1], 1, bias=False)
        first: list[nn.Module] = [nn.Conv2d(3, stem, 3, 2, 1, bias=False), nn.BatchNorm2d(stem)]
        activation = nn.Hardswish if ends == (160, 960) else nn.SiLU
        self.features = nn.Sequential(
            *first, activation(inplace=True), *blocks, last, nn.BatchNorm2d(ends[1]), activation(inplace=True)
        )
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(F.adaptive_avg_pool2d(self.features(x), 1), 1))


def mobilenet(classes: int = 1000) -> Mobile:
    """MobileNetV3-Large."""
    blocks, inputs = [], 16
    for kernel, wide, outputs, gated, hard, stride in (
        (3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 1, 0, 2), (5, 120, 40, 1, 0, 1),
        (5, 120, 40, 1, 0, 1), (3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1),
        (3, 184, 80, 0, 1, 1), (3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1), (5, 672, 160, 1, 1, 2),
        (5, 960, 160, 1, 1, 1), (5, 960, 160, 1, 1, 1),
    ):  # fmt: skip
        # A quarter, as the nearest multiple of eight that takes no more than a tenth away.
        squeezed = (wide // 4 + 4) // 8 * 8
        squeezed += 8 if squeezed < 0.9 * (wide // 4) else 0
        gate = Excitation(wide, squeezed, nn.ReLU, nn.Hardsigmoid) if gated else None
        blocks.append(Inverted(inputs, wide, outputs, kernel, stride, gate, nn.Hardswish if hard else nn.ReLU))
        inputs = outputs
    head = nn.Sequential(nn.Linear(960, 1280), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(1280, classes))
    return Mobile(16, blocks, (160, 960), head)


def efficientnet(classes: int = 1000) -> Mobile:
    """EfficientNet-B0."""
    blocks, inputs = [], 32
    for times, kernel, stride, outputs, count in (
        (1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    ):  # fmt: skip
        for i in range(count):
            gate = Excitation(inputs * times, max(1, inputs // 4), nn.SiLU, nn.Sigmoid)
            blocks.append(Inverted(inputs, inputs * times, outputs, kernel, 1 if i else stride, gate, nn.SiLU))
            inputs = outputs
    return Mobile(32, blocks, (320, 1280), nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes)))


class Encoder(nn.Module):
    """A block of a vision transformer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.mlp_norm(x))


class ViTSmall(nn.Module):
    """ViT-S/16 at 224 pixels."""

    def __init__(self, width: int = 384, classes: int = 1000) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 197, width))
        self.blocks = nn.Sequential(*(Encoder(width, 6) for _ in range(12)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: ResNet((2, 2, 2, 2), False),
    "resnet50": lambda: ResNet((3, 4, 6, 3), True),
    "densenet121": DenseNet121,
    "vgg16": VGG16,
    "convnext_tiny": ConvNeXtTiny,
    "mobilenet_v3": mobilenet,
    "efficientnet_b0": efficientnet,
    "vit_small": ViTSmall,
}


def network(name: str, seed: int = 0) -> nn.Module:
    """One of :data:`NETWORKS`, whose batch norms have seen noise, so that signals keep size."""
    torch.manual_seed(seed)
    net = NETWORKS[name]()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        if any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
            net.train()(torch.rand(4, 3, 128, 128))
    return net.eval()
