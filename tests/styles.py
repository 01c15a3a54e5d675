"""Small networks built the way the common families are: what a mechanism that looks inside networks has to face."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """ResNet's: one ReLU module used three times, in place; the sum taken in place."""

    def __init__(self, axes: int, channels: int) -> None:
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if axes == 2 else (nn.Conv3d, nn.BatchNorm3d)
        self.conv1, self.bn1 = conv(channels, channels, 3, padding=1, bias=False), norm(channels)
        self.conv2, self.bn2 = conv(channels, channels, 3, padding=1, bias=False), norm(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x
        result: Tensor = self.relu(out)
        return result


class ResNet(nn.Module):
    def __init__(self, axes: int = 2, channels: int = 1, classes: int = 3) -> None:
        super().__init__()
        conv, norm, pool = (
            (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d) if axes == 2 else (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d)
        )
        self.conv1, self.bn1, self.relu = conv(channels, 8, 5, 2, 2, bias=False), norm(8), nn.ReLU(inplace=True)
        self.maxpool = pool(3, 2, 1)
        self.layer1, self.layer2 = Block(axes, 8), Block(axes, 8)
        self.fc = nn.Linear(8, classes)

    def trunk(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        out: Tensor = self.layer2(self.layer1(x))
        return out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.trunk(x).flatten(2).mean(2))
        return out


class DenseNet(nn.Module):
    """Normalisation before convolution, concatenation, a functional ReLU in place before the head."""

    def __init__(self, axes: int = 2, channels: int = 1, classes: int = 3) -> None:
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if axes == 2 else (nn.Conv3d, nn.BatchNorm3d)
        self.conv0 = conv(channels, 6, 3, 2, 1, bias=False)
        self.norms = nn.ModuleList(norm(6 + 4 * i) for i in range(2))
        self.convs = nn.ModuleList(conv(6 + 4 * i, 4, 3, padding=1, bias=False) for i in range(2))
        self.norm5 = norm(14)
        self.classifier = nn.Linear(14, classes)
        self.pool = F.adaptive_avg_pool2d if axes == 2 else F.adaptive_avg_pool3d

    def trunk(self, x: Tensor) -> Tensor:
        x = self.conv0(x)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, conv(F.relu(norm(x)))], 1)
        return F.relu(self.norm5(x), inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(torch.flatten(self.pool(self.trunk(x), 1), 1))
        return out


class Vgg(nn.Module):
    """Plain stacks, pooling with switches, two dense layers."""

    def __init__(self, axes: int = 2, channels: int = 1, classes: int = 3) -> None:
        super().__init__()
        conv, pool, even = (
            (nn.Conv2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d)
            if axes == 2
            else (nn.Conv3d, nn.MaxPool3d, nn.AdaptiveAvgPool3d)
        )
        relu = lambda: nn.ReLU(inplace=True)  # noqa: E731
        self.features = nn.Sequential(
            conv(channels, 6, 3, padding=1), relu(), pool(2), conv(6, 8, 3, padding=1), relu(), pool(2)
        )
        self.even = even(2)
        self.head = nn.Sequential(nn.Linear(8 * 2**axes, 10), relu(), nn.Dropout(), nn.Linear(10, classes))

    def trunk(self, x: Tensor) -> Tensor:
        out: Tensor = self.features[:-1](x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.even(self.features(x)).flatten(1))
        return out


STYLES: dict[str, type[ResNet | DenseNet | Vgg]] = {"resnet": ResNet, "densenet": DenseNet, "vgg": Vgg}


def styled(name: str, axes: int = 2, channels: int = 1) -> ResNet | DenseNet | Vgg:
    """One of the families in evaluation mode, with normalisations that have seen something."""
    torch.manual_seed(11)
    net = STYLES[name](axes, channels)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(module.running_mean, 0, 0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return net.eval()


def torchvision_network(name: str) -> nn.Module:
    """A torchvision classifier with random weights; skips the test where torchvision does not load."""
    import pytest

    try:
        from torchvision.models import get_model
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision cannot be imported here ({error})")
    torch.manual_seed(0)
    net: nn.Module = get_model(name, num_classes=3).eval()
    return net
