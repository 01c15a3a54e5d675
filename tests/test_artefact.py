"""Artefacts of removal on nets that react to black, or to nothing but a finding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lucency import Scan
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.metrics.artefact import artefacts, halves, patches
from lucency.metrics.bootstrap import interval
from lucency.removal import Constant, Mean
from nets import classifier_of


class AfraidOfBlack(nn.Module):
    """Calls a scan abnormal as soon as at least 16 pixels of its left half are black."""

    def forward(self, x: Tensor) -> Tensor:
        black = (x[:, :, :, :8] < 0.01).flatten(1).sum(1).float()
        return torch.stack([black - 15.5, torch.zeros_like(black)], 1)


def scans(count: int = 3) -> list[Scan]:
    return [Scan(0.5 + 0.1 * torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(i))) for i in range(count)]


def test_half_the_patches_are_artefacts_and_none_with_the_mean() -> None:
    engine = Engine(classifier_of(AfraidOfBlack()))
    black = artefacts(Constant(0.0), scans(), engine, pieces=patches(4), target=0)
    # Tiles of 4 x 4: the 8 of 16 on the left are all black, each 16 pixels.
    assert black.rate == 0.5
    assert black.copies == 3 * 16
    rise = torch.tensor(0.5).sigmoid() - torch.tensor(-15.5).sigmoid()
    assert black.rise == pytest.approx(0.5 * float(rise), abs=1e-6)
    assert black.worst == pytest.approx(torch.tensor(0.5).sigmoid().item())
    mean = artefacts(Mean(), scans(), engine, pieces=patches(4), target=0)
    assert mean.rate == 0
    assert mean.rise == pytest.approx(0, abs=1e-6)
    # Small patches do not frighten it; large ones always do where they touch the left half.
    assert artefacts(Constant(0.0), scans(), engine, pieces=patches(2), target=0).rate == 0
    assert artefacts(Constant(0.0), scans(), engine, pieces=patches(16), target=0).rate == 1


def test_halves_switch_off_about_half_of_the_scan() -> None:
    masks, boxes = halves(40, 12)(scans(1)[0].pixels, torch.Generator().manual_seed(0))
    assert boxes is None
    assert masks.shape == (40, 16, 16)
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert 0.4 < float(masks.mean()) < 0.6
    engine = Engine(classifier_of(AfraidOfBlack()))
    assert artefacts(Constant(0.0), scans(), engine, pieces=halves(20, 12), target=0).rate > 0.6
    assert artefacts(Mean(), scans(), engine, pieces=halves(20, 12), target=0).rate == 0


def test_scans_that_are_called_abnormal_do_not_count() -> None:
    black = Scan(torch.zeros(1, 16, 16))
    engine = Engine(classifier_of(AfraidOfBlack()))
    found = artefacts(Constant(0.0), [*scans(2), black], engine, pieces=patches(4), target=0)
    assert found.abnormal == 1
    assert len(found.rates) == 2
    with pytest.raises(ParameterError, match="none of these 1 scans normal"):
        artefacts(Constant(0.0), [black], engine, pieces=patches(4), target=0)
    with pytest.raises(ParameterError, match="between 0 and 1"):
        artefacts(Constant(0.0), scans(), engine, pieces=patches(4), target=0, threshold=1.0)


def test_the_interval_is_that_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    mean, low, high = interval(values)
    assert mean == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.08)
    assert interval([3.0, 3.0]) == (3.0, 3.0, 3.0)
    # Three equal scans of each patient say no more than one.
    again, whose = np.repeat(values, 3), np.repeat([f"{i:03d}" for i in range(len(values))], 3)
    assert interval(again, list(whose)) == pytest.approx((mean, low, high))
    assert interval(again)[2] < high
