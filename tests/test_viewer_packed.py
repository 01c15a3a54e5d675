"""What the viewer is given of an explanation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lucency
from lucency.viewer import packed, packed_film, unpack
from lucency.viewer.palette import Scale


def bright(x: torch.Tensor) -> torch.Tensor:
    return x[..., 4:12, 8:20].mean((-1, -2, -3))[:, None]


def explained(pixels: torch.Tensor, **how: object) -> lucency.Explanation:
    scan = lucency.Scan(pixels, spacing=(0.5,) * (pixels.ndim - 2) + (0.25,))
    return lucency.explain(scan, bright, method="occlusion", removal=0.0, patch=8, **how)  # type: ignore[arg-type]


def test_the_maps_are_those_of_the_explanation_bit_for_bit() -> None:
    explanation = explained(torch.rand(1, 32, 40, generator=torch.Generator().manual_seed(0)), error_bars=2)
    header, arrays = unpack(packed(explanation))
    (plane,) = header["planes"]
    layers = {layer["id"]: layer for layer in plane["layers"]}
    heatmap = arrays[layers["map"]["array"]]
    assert heatmap.dtype == np.float32
    assert np.array_equal(heatmap, explanation.heatmap)
    assert layers["map"]["limit"] == Scale.of(explanation.heatmap).limit
    assert layers["map"]["peak"] == list(explanation.peak or ())
    assert layers["map"]["signed"] is True
    assert np.array_equal(arrays[layers["standard error"]["array"]], explanation.standard_error)
    assert layers["standard error"]["kind"] == "error"
    assert layers["standard error"]["signed"] is False
    # Patches of 8 in steps of 4: between two borders the map is flat.
    assert layers["map"]["cells"] == {"rows": [*range(0, 33, 4)], "columns": [*range(0, 41, 4)]}
    assert plane["film"]["spacing"] == [0.5, 0.25]
    assert header["probabilities"] == explanation.probabilities


def test_the_film_keeps_sixteen_bits_and_what_lies_outside_of_black_and_white() -> None:
    pixels = np.linspace(-0.5, 1.5, 4096, dtype=np.float32).reshape(1, 64, 64)
    about, counted = packed_film(pixels)
    low, high = about["range"]
    assert (low, high) == (-0.5, 1.5)
    assert about["shown"] == [0.0, 1.0]
    assert counted.dtype == np.uint16
    assert len(np.unique(counted)) == 4096
    assert np.abs(low + counted / 65535 * (high - low) - pixels[0]).max() <= (high - low) / 65535


def test_the_film_says_its_values_as_its_file_has_them() -> None:
    pixels = torch.linspace(-1000, 3000, 32 * 40).reshape(1, 32, 40)
    scan = lucency.Scan(pixels, value_range=(-1000.0, 3000.0))
    explanation = lucency.explain(scan, bright, method="occlusion", removal=0.0, patch=8)
    header, arrays = unpack(packed(explanation))
    (plane,) = header["planes"]
    low, high = plane["film"]["range"]
    assert (low, high) == (-1000, 3000)
    assert np.abs(low + arrays["film-0"] / 65535 * (high - low) - pixels[0].numpy()).max() <= 4000 / 65535


def test_colour_stays_colour() -> None:
    pixels = np.random.default_rng(0).random((3, 4, 6), np.float32)
    about, counted = packed_film(pixels)
    assert (about["channels"], about["width"], about["height"]) == (3, 6, 4)
    assert counted.shape == (4, 6, 3)
    assert counted[1, 2] == pytest.approx(pixels[:, 1, 2] * 65535, abs=0.51)


def test_a_volume_comes_as_three_slices_through_its_maximum() -> None:
    volume = torch.rand(1, 16, 24, 32, generator=torch.Generator().manual_seed(0))
    explanation = explained(volume)
    header, arrays = unpack(packed(explanation))
    z, y, x = explanation.peak or (0, 0, 0)
    heatmap = explanation.heatmap
    for plane, wanted in zip(header["planes"], (heatmap[z], heatmap[:, y], heatmap[:, :, x]), strict=True):
        assert np.array_equal(arrays[plane["layers"][0]["array"]], wanted)
        assert (plane["film"]["height"], plane["film"]["width"]) == wanted.shape
    assert [plane["film"]["spacing"] for plane in header["planes"]] == [[0.5, 0.25], [0.5, 0.25], [0.5, 0.5]]
