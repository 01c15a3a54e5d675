"""Explainers for the small classifiers of the suite: the real file and the real hooks, with a decoder that has learnt
nothing, so that they are there at once."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch

from lucency.explainers import Learnt, OcclusionTeacher, Teacher, Trust
from lucency.explainers.decoder import Decoder
from lucency.explainers.learnt import usual_of
from lucency.explainers.taps import find_taps
from lucency.testing.methods import classifier_of, scan_of


@cache
def explainer_of(kind: str, axes: int, teacher: Teacher | None = None) -> str:
    """The path of an explainer of the class 1 for the classifier of that kind."""
    classifier = classifier_of(kind, axes)
    taps = find_taps(classifier, classifier.prepare(scan_of(axes))[None])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        decoder = Decoder([tap.channels for tap in taps], axes).eval().requires_grad_(False)
        usual = usual_of(torch.randn(40, sum(tap.channels for tap in taps)))
    path = Path(mkdtemp()) / "explainer.safetensors"
    Learnt(
        teacher or OcclusionTeacher((4,) * axes, (3,) * axes),
        1,
        "b",
        (classifier.name, classifier.fingerprint),
        taps,
        decoder,
        usual,
        Trust(1.2, 0.9, 3.0, 0.01, (20, 20)),
        {},
    ).save(path)
    return str(path)
