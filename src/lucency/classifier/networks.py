"""The networks behind the shipped models: plain, well-known convolutional nets, as users' own models are."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (He et al., "Deep Residual Learning", CVPR 2016, figure 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        out: Tensor = self.relu2(self.bn2(self.conv2(y)) + self.shortcut(x))
        return out


class ResNet(nn.Module):
    """A residual net for grey scans ``[B, 1, H, W]``, logits ``[B, classes]``.

    Args:
        classes: number of outputs.
        width: channels of the first stage; each further stage has twice as many.
        blocks: residual blocks in each stage.
    """

    def __init__(self, classes: int, width: int = 24, blocks: tuple[int, ...] = (2, 2, 2, 2)) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        stages = []
        inputs = width
        for i, count in enumerate(blocks):
            outputs = width << i
            for j in range(count):
                stages.append(BasicBlock(inputs, outputs, 2 if i and not j else 1))
                inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.stages(self.stem(x))).flatten(1))
        return logits


class Fire(nn.Module):
    """Squeeze to few channels, then expand by 1 x 1 and 3 x 3 convolutions side by side."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.squeeze_relu = nn.ReLU()
        self.expand1 = nn.Conv2d(squeeze, expand, 1)
        self.expand1_relu = nn.ReLU()
        self.expand3 = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.expand3_relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze_relu(self.squeeze(x))
        return torch.cat([self.expand1_relu(self.expand1(x)), self.expand3_relu(self.expand3(x))], 1)


class SqueezeNet(nn.Module):
    """SqueezeNet v1.0 (Iandola et al. 2016) for grey scans ``[B, 1, H, W]``, logits ``[B, classes]``."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 96, 7, 2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(96, 16, 64),
            Fire(128, 16, 64),
            Fire(128, 32, 128),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(256, 32, 128),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(512, 64, 256),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.pool(self.features(x)).flatten(1)))
        return logits
