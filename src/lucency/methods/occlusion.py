"""Occlusion (Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 4.2).

A patch slides over the scan and hides what is beneath it. Where the score falls most, the evidence was:

    R(u) = mean over patches p that cover pixel u of  f(x) - f(x with p removed)

The same forward passes also give the second map of the paper (figure 7c): how the feature map of the last
convolutional layer that fires most on the clean scan reacts to the patch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from lucency.classifier import Classifier, Question
from lucency.engine import Engine
from lucency.errors import ParameterError
from lucency.masks import Patches
from lucency.methods.base import Method, Step
from lucency.removal import Constant, Removal, gaussian_blur
from lucency.scan import Scan

Length = int | str | Sequence[int]
"""Grid pixels (one number, or one for each axis), or a string such as ``"15mm"`` for a length on the patient."""


@dataclass(frozen=True)
class Occlusion(Method):
    """Slides a patch over the scan and maps the fall of the score.

    Attributes:
        patch: size of the patch, in pixels of the model's grid or as ``"15mm"``.
        stride: distance between patches, likewise; half the patch when ``None``.
        removal: what stands in the patch.
        features: also watch the strongest feature map of the last convolutional layer, when there is a network.
        order: ``"raster"`` slides row by row; ``"spread"`` visits the whole scan coarsely first, then fills in.
    """

    name: ClassVar[str] = "occlusion"
    title: ClassVar[str] = "Occlusion"
    paper: ClassVar[str] = "Zeiler & Fergus, ECCV 2014"
    unit: ClassVar[str] = "fall of the score when hidden"

    patch: Length = 16
    stride: Length | None = None
    removal: Removal = field(default_factory=Constant)
    features: bool = True
    order: Literal["raster", "spread"] = "raster"

    def anytime(self) -> Self:
        return replace(self, order="spread")

    def steps(self, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        classifier = engine.classifier
        patch = _pixels(self.patch, scan, classifier)
        stride = tuple(max(1, p // 2) for p in patch) if self.stride is None else _pixels(self.stride, scan, classifier)
        also = []
        if self.features and classifier.module is not None and question.layer is None:
            last = classifier.layers(classifier.prepare(scan)[None].to(engine.device))[-1:]
            also = [Question.ask(classifier, scan, question.target, f"layer:{layer.name}") for layer in last]
        probe = engine.open(scan, question, self.removal, also)
        patches = Patches(probe.grid, patch, stride)
        spread = self.order == "spread"
        if spread:
            # Patches of one alignment lie all over the scan, and are what the engine computes best together.
            batches = probe.together(patches.boxes, spread_order(len(patches)))
        else:
            batches = list(torch.split(torch.arange(len(patches)), 4 * probe.batch_size))

        falls = torch.zeros((1 + len(also), *probe.grid), device=probe.pixels.device)
        covered = torch.zeros(probe.grid, device=probe.pixels.device)
        seen = 0
        for batch in batches:
            scores = probe.scores(patches.masks(batch, probe.pixels.device), patches.boxes[batch])
            for part in torch.split(torch.arange(len(batch)), probe.batch_size):
                falls, covered = falls.clone(), covered.clone()
                for fall, box in zip(probe.clean - scores[part], patches.boxes[batch[part]].tolist(), strict=True):
                    inside = tuple(slice(start, stop) for start, stop in box)
                    falls[(slice(None), *inside)] += fall.view(-1, *(1,) * len(inside))
                    covered[inside] += 1
                seen += len(part)

                def heatmap(q: int = 0, falls: Tensor = falls, covered: Tensor = covered, seen: int = seen) -> Tensor:
                    mean = falls[q] / covered.clamp_min(1)
                    return _between(mean, covered > 0, seen) if spread else mean

                def perturbed(last: Tensor = batch[part[-1:]]) -> Tensor:
                    return probe.removed(patches.masks(last, probe.pixels.device))[0]

                yield Step(
                    done=seen / len(patches),
                    evaluations=probe.evaluations,
                    score=float(scores[part[-1], 0]),
                    heatmap=heatmap,
                    perturbed=perturbed,
                    also={q.label: partial(heatmap, i) for i, q in enumerate(also, 1)},
                    facts={"patches": len(patches), **probe.facts},
                )


def _between(heatmap: Tensor, known: Tensor, seen: int) -> Tensor:
    """A map ``[*grid]`` whose pixels that no patch has covered yet take what lies around them."""
    if bool(known.all()):
        return heatmap
    # Patches seen so far are about this far apart.
    apart = (heatmap.numel() / seen) ** (1 / heatmap.ndim)
    weight = gaussian_blur(known.float()[None], apart / 2)[0]
    around = gaussian_blur((heatmap * known)[None], apart / 2)[0] / weight.clamp_min(1e-6)
    return torch.where(known, heatmap, around)


def spread_order(n: int) -> Tensor:
    """A permutation of 0..n-1, int64, whose every beginning is spread evenly (bit reversal, van der Corput)."""
    bits = max(1, (n - 1).bit_length())
    numbers = torch.arange(1 << bits)
    reverse = torch.zeros_like(numbers)
    for bit in range(bits):
        reverse |= ((numbers >> bit) & 1) << (bits - 1 - bit)
    return reverse[reverse < n]


def _pixels(length: Length, scan: Scan, classifier: Classifier) -> tuple[int, ...]:
    frame = classifier.frame(scan)
    if isinstance(length, int):
        return (length,) * len(frame.grid)
    if not isinstance(length, str):
        return tuple(int(n) for n in length)
    try:
        mm = float(length.strip().lower().removesuffix("mm"))
    except ValueError:
        mm = -1.0
    if mm <= 0 or not length.strip().lower().endswith("mm"):
        raise ParameterError(f"A length is a number of pixels or a text such as '15mm', not {length!r}.")
    if scan.spacing is None:
        raise ParameterError(
            f"The pixel spacing of {scan.source} is unknown, so {length!r} means nothing; give pixels instead."
        )
    return tuple(max(1, round(frame.scan_pixels(mm / spacing, axis))) for axis, spacing in enumerate(scan.spacing))
