"""CheXlocalize's masks and rules: codes that pycocotools wrote, Otsu's threshold against OpenCV, numbers by hand."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from lucency.errors import ParameterError
from lucency.metrics.chexlocalize import best_threshold, decode, hit_rate, mean_iou, read_masks, segmentation

CODE = "T44T10000000Ie0B000000000000000000000007[O>0000000000000000000000000000000000000000000T7"
"""Written by pycocotools 2.0 for :func:`two_boxes`."""


def two_boxes() -> np.ndarray:
    mask = np.zeros((40, 50), bool)
    mask[5:30, 8:21] = True
    mask[12:16, 3:44] = True
    return mask


def test_run_lengths_are_cocos() -> None:
    assert np.array_equal(decode({"size": [40, 50], "counts": CODE}), two_boxes())
    corners = np.zeros((3, 4), bool)
    corners[0, 0] = corners[2, 3] = True
    assert np.array_equal(decode({"size": [3, 4], "counts": b"01:0"}), corners)
    # Uncompressed: down the columns, zeros first.
    assert np.array_equal(decode({"size": [2, 2], "counts": [1, 2, 1]}), [[False, True], [True, False]])
    with pytest.raises(ValueError, match="3 x 3"):
        decode({"size": [3, 3], "counts": b"01:0"})


def test_masks_are_read_by_film(tmp_path: Path) -> None:
    film = {"Pleural Effusion": {"size": [40, 50], "counts": CODE}, "Edema": {"size": [1, 1], "counts": "1"}}
    (tmp_path / "gt.json").write_text(json.dumps({"patient1_study1_view1_frontal": film}))
    found = read_masks(tmp_path / "gt.json")
    assert np.array_equal(found["patient1_study1_view1_frontal"], two_boxes())
    assert not read_masks(tmp_path / "gt.json", "Edema")["patient1_study1_view1_frontal"].any()
    with pytest.raises(ParameterError, match="it has Edema, Pleural Effusion"):
        read_masks(tmp_path / "gt.json", "Nodule")
    (tmp_path / "bad.json").write_text('{"a": 3}')
    for name in ("bad.json", "absent.json"):
        with pytest.raises(ParameterError, match="CheXlocalize"):
            read_masks(tmp_path / name)


@pytest.mark.parametrize("seed", range(5))
def test_otsus_threshold_is_opencvs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    heatmap = cv2.GaussianBlur(rng.normal(size=(60, 80)) + 3 * (rng.random((60, 80)) < 0.02), (0, 0), 3)
    levels = (255 * (heatmap - heatmap.min()) / np.ptp(heatmap)).astype(np.uint8)
    theirs = cv2.threshold(levels, 0, int(levels.max()), cv2.THRESH_OTSU)[1] > 0
    assert np.array_equal(segmentation(heatmap), theirs)
    assert theirs.any()
    assert not theirs.all()


def test_numbers_by_hand() -> None:
    truth = [np.array([[1, 1, 0, 0]]) > 0, np.array([[0, 0, 0, 1]]) > 0, np.array([[0, 0, 0, 0]]) > 0]
    maps = [np.array([[0.9, 0.4, 0.8, 0.0]]), np.array([[5.0, 5.0, 5.0, 5.0]]), np.array([[1.0, 0.0, 0.0, 0.0]])]
    found = [segmentation(m, 0.5) for m in maps]
    # The first finds one of two and one elsewhere; the second, flat, finds nothing; of the third there is no truth.
    assert mean_iou(found, truth) == pytest.approx(1 / 3)
    assert mean_iou(found, truth, true_positives_only=False) == pytest.approx(1 / 6)
    assert hit_rate(maps, truth) == 0.5
    assert np.isnan(mean_iou(found[2:], truth[2:]))
    assert best_threshold(maps[:1], truth[:1]) == pytest.approx(0.2)
    with pytest.raises(ParameterError, match="no map"):
        best_threshold([], [])
