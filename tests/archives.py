"""Small archives and quick models for the tests of whole archives; workers import this file."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from lucency.archive import Asked
from lucency.classifier import Classifier
from lucency.classifier.loading import load_classifier

SIDE = 48
POISON = 201
"""A film whose corner has this value kills whoever looks at it."""


class Corner(nn.Module):
    """Logits of "fluid" and "other": how bright the lower half is, and far more, how bright the upper right corner."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        token = x[:, :, 1:8, -8:-1].amax((1, 2, 3))
        fluid = x[:, :, SIDE // 2 :].mean((1, 2, 3))
        logit = 8 * token + 2 * fluid - 6
        return torch.stack([logit, -logit], 1)


class Deadly(Corner):
    """The same, but it dies of one film."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(float(os.environ.get("SLOWLY", "0")))
        if torch.isclose(x[:, 0, 0, 0], torch.tensor(POISON / 255), atol=1e-3).any():
            os.kill(os.getpid(), 9)
        return super().forward(x)


def _classifier(module: nn.Module) -> Classifier:
    return Classifier(
        module.eval(),
        name="tiny",
        classes=["fluid", "other"],
        fingerprint="tiny",
        input_size=(SIDE, SIDE),
        channels=1,
        module=module,
    )


def corner() -> Classifier:
    return _classifier(Corner())


def deadly() -> Classifier:
    return _classifier(Deadly())


class Brightness(nn.Module):
    """Measures one number: the mean of the film in grey levels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 255 * x.mean((1, 2, 3))[:, None]


def brightness() -> Classifier:
    return load_classifier(Brightness(), classes=["level"], outputs="numbers", input_size=[SIDE, SIDE], channels=1)


def asked(model: object = corner, **more: object) -> Asked:
    given: dict[str, object] = {
        "target": "fluid",
        "method": "occlusion",
        "settings": ("patch=16",),
        "removal": "constant",
    }
    return Asked(model, **{**given, **more})  # type: ignore[arg-type]


def film(path: Path, number: int, corner: int = 0) -> Path:
    """A film unlike all others, with its first pixel at ``corner``."""
    grey = np.random.default_rng(number).integers(20, 200, (SIDE, SIDE)).astype(np.uint8)
    grey[0, 0] = corner
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey).save(path)
    return path


def films(folder: Path, count: int = 30) -> Path:
    for number in range(count):
        film(folder / f"{number:03d}.png", number)
    return folder
