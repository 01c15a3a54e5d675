"""The smallest subset on a classifier that looks at one window: its size is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lucency import Scan
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.metrics import smallest_subset
from lucency.removal import Constant
from nets import Window, classifier_of

BOX = (slice(4, 12), slice(6, 16))


@pytest.mark.parametrize("game", ["keep", "kill"])
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_share_of_a_window(game: str, fraction: float) -> None:
    scan = Scan(torch.full((1, 32, 30), 0.6))
    classifier = classifier_of(Window((4, 12), (6, 16)))
    truth = np.zeros((32, 30), np.float32)
    truth[BOX] = 1
    found = smallest_subset(
        truth,
        scan,
        classifier,
        target=0,
        watch="logit",
        game=game,
        fraction=fraction - 1e-6,
        removal=Constant(0.0),  # type: ignore[arg-type]
    )
    assert found.share == pytest.approx(80 * fraction / 960, abs=2.5 / 960)
    assert found.mask.sum() == round(found.share * 960)
    assert not found.mask[~truth.astype(bool)].any()
    # Turned upside down, the map needs all that lies outside the window first.
    worst = smallest_subset(
        -truth,
        scan,
        Engine(classifier),
        target=0,
        watch="logit",
        game=game,
        fraction=fraction - 1e-6,
        removal=Constant(0.0),  # type: ignore[arg-type]
    )
    assert worst.share is not None
    assert worst.share == pytest.approx((880 + 80 * fraction) / 960, abs=2.5 / 960)


def test_bad_parameters_are_said() -> None:
    scan = Scan(torch.full((1, 32, 30), 0.6))
    classifier = classifier_of(Window((4, 12), (6, 16)))
    for wrong in ({"fraction": 0.0}, {"game": "chess"}):
        with pytest.raises(ParameterError):
            smallest_subset(np.zeros((32, 30)), scan, classifier, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="own grid"):
        smallest_subset(np.zeros((3, 3)), scan, classifier)
