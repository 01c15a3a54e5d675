"""Occlusion (Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 4.2).

A patch slides over the scan and hides what is beneath it. Where the score falls most, the evidence was:

    R(u) = mean over patches p that cover pixel u of  f(x) - f(x with p removed)

The same forward passes also give the second map of the paper (figure 7c): how the feature map of the last
convolutional layer that fires most on the clean scan reacts to the patch.

An engine with a tolerance is asked about every second patch along each axis first, and about those in between where
the answers around them differ by more than the tolerance.

A patch may fade around its edge instead of ending sharply; then R is the mean weighted by how much of a pixel each
patch hides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from lucency.classifier import Classifier, Placement, Question
from lucency.engine import Engine, Probe
from lucency.errors import ParameterError
from lucency.filters import gaussian_blur
from lucency.masks import Patches
from lucency.methods import settling
from lucency.methods.base import Fact, Method, Step, Takes, Trials, other_classes
from lucency.methods.sampling import growing
from lucency.removal import Constant, Removal
from lucency.scan import Scan

NEAR = 0.35
CHECKS = 16
"""Patches between others that are evaluated to see whether a mean of these would have done: so many are drawn, and
as many more are those that most likely miss."""

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
        soft: standard deviation of the Gaussian by which a patch fades around its edge, in grid pixels; 0 = sharp.
        box: only patches inside this box of the scan, finely (a quarter of the patch apart when there is no
            ``stride``): start and stop along each axis in pixels of the scan, ``(top, bottom, left, right)``. The map
            is 0 elsewhere.
        settle: ask only until what a reader takes from the map is settled, at this confidence (0.9): the peak within
            one patch, the region above half of the maximum with an IoU of 0.9, no error above 2 % of the peak. What is
            not asked is predicted from the instant map, or Grad-CAM, and from its neighbours, with a standard error
            (:mod:`lucency.methods.settling`). All patches are asked when ``None``.
        explainer: the file of an explainer whose instant map it begins with; the shipped one when ``None``.
        all_classes: the same forward passes give a map of each other class too, by name beside the answer's. An
            engine's tolerance is kept for the answer's class.
    """

    name: ClassVar[str] = "occlusion"
    title: ClassVar[str] = "Occlusion"
    paper: ClassVar[str] = "Zeiler & Fergus, ECCV 2014"
    takes: ClassVar[Takes] = "patches"
    unit: ClassVar[str] = "fall of the score when hidden"

    patch: Length = 16
    stride: Length | None = None
    removal: Removal = field(default_factory=Constant)
    features: bool = True
    order: Literal["raster", "spread"] = "raster"
    soft: float = 0.0
    box: Sequence[int] | None = None
    all_classes: bool = False
    settle: float | None = None
    explainer: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.settle is not None and not (0 < self.settle < 1 and self.box is None and not self.all_classes):
            raise ParameterError(
                "An answer is settled at a confidence between 0 and 1, such as settle=0.9, for one class and the whole "
                "scan; leave box and all_classes out."
            )

    def reads(self, classifier: Classifier) -> tuple[str, ...]:
        return settling.layers(classifier, self.explainer) if self.settle is not None else ()

    def anytime(self) -> Self:
        return replace(self, order="spread")

    def patches(self, placement: Placement, spacing: Sequence[float] | None) -> Patches:
        region = None if self.box is None else _on_grid(self.box, placement)
        asked = _pixels(self.patch, placement, spacing)
        patch = _clipped(asked, placement.grid, region)
        share = 2 if region is None else 4
        stride = tuple(max(1, p // share) for p in patch)
        if self.stride is not None:
            stride = _pixels(self.stride, placement, spacing)
            if patch != asked:
                stride = tuple(map(min, stride, patch))
        return Patches(placement.grid, patch, stride, self.soft, region)

    def steps(self, scan: Scan, question: Question, engine: Engine) -> Iterator[Step]:
        if self.settle is not None:
            yield from self._settled(scan, question, engine, self.settle)
            return
        classifier = engine.classifier
        patches = self.patches(classifier.placement(scan), scan.spacing)
        patch, asked = patches.patch, _pixels(self.patch, classifier.placement(scan), scan.spacing)
        also = []
        if self.features and classifier.module is not None and question.layer is None:
            last = engine.layers(scan)[-1:]
            also = [engine.question(scan, question.target, f"layer:{layer.name}") for layer in last]
        others = other_classes(question, classifier) if self.all_classes else []
        probe = engine.open(scan, question, self.removal, [*also, *others])
        # With a tolerance the first patches are the sample that the engine judges by.
        spread = self.order == "spread" or engine.tolerance is not None

        def cut(wanted: Tensor) -> list[Tensor]:
            if not spread:
                return list(torch.split(wanted, 4 * probe.batch_size))
            # Patches of one alignment lie all over the scan, and are what the engine computes best together.
            order = spread_order(len(patches))
            batches = probe.together(patches.boxes, order[torch.isin(order, wanted)])
            if engine.tolerance is not None or known.any():
                return batches
            # A first map soon, however slow the network.
            return [batches[0][which] for which in growing(len(batches[0]), 4, len(batches[0]))] + batches[1:]

        falls = torch.zeros((1 + len(also), *probe.grid), device=probe.pixels.device)
        covered = torch.zeros(probe.grid, device=probe.pixels.device)
        single = torch.zeros((len(probe.questions), len(patches)), device=probe.pixels.device)
        known = torch.zeros(len(patches), dtype=torch.bool)
        facts: dict[str, Fact] = {}
        if patch != asked:
            facts["patch cut to"] = " x ".join(map(str, patch))

        def more(now: Tensor, values: Tensor) -> _More:
            """What is known before patches ``now`` ``[B]`` with falls ``[Q, B]``, and those."""
            kept = single.clone() if spread or others else None
            labels = tuple(q.label for q in probe.questions[1:])
            return _More(patches, falls, covered, kept, known.clone(), now, values, labels, spread)

        for wanted in _rounds(patches, single, known, engine, facts):
            for batch in cut(wanted):
                scores = probe.scores(patches.masks(batch, probe.pixels.device), patches.boxes[batch])
                for part in torch.split(torch.arange(len(batch)), probe.batch_size):
                    now = batch[part]
                    values = (probe.clean - scores[part]).T
                    told = more(now, values)
                    single[:, now] = values
                    known[now] = True
                    falls, covered = _more(falls, covered, values[: len(falls)], patches, now)
                    yield _Asked(
                        probe,
                        told,
                        tuple(scores[part, 0].tolist()),
                        {"patches": len(patches), **probe.facts, **facts},
                        0.99 if engine.tolerance else 1.0,
                    ).step
        if engine.tolerance:
            (between,) = (~known).nonzero(as_tuple=True)
            told = more(between, _interpolated(patches, single, between)[0])
            yield Step(
                done=1.0,
                score=float(scores[-1, 0]),
                heatmap=told.map(len(between), 0),
                perturbed=partial(_hidden, probe, patches, now[-1:]),
                also=told.also(len(between)),
                facts={"patches": len(patches), **probe.facts, **facts, "interpolated patches": len(between)},
            )

    def _settled(self, scan: Scan, question: Question, engine: Engine, confidence: float) -> Iterator[Step]:
        patches = self.patches(engine.classifier.placement(scan), scan.spacing)
        engine = engine.remembering()
        prior, source = settling.prior_of(engine, scan, question, patches, self.removal, self.explainer)
        probe = engine.open(scan, question, self.removal)
        clean, device = float(probe.clean[0]), probe.pixels.device
        scale = settling.Scale(clean, question.watch == "probability")

        def ask(which: Tensor) -> Tensor:
            return clean - probe.scores(patches.masks(which, device), patches.boxes[which])[:, 0]

        kinds = probe.alignment(patches.boxes)
        found = settling.settled(prior, patches, kinds, scale, ask, confidence, engine.generator())
        known, falls = torch.zeros(len(patches), dtype=torch.bool), torch.zeros(len(patches), dtype=torch.float64)
        for which, now, belief in found:
            known[which] = True
            falls[which] = now
            asked = int(known.sum())
            done = asked == len(patches) or (belief is not None and belief.share >= confidence)
            mean = torch.where(known, falls, falls[known].mean()) if belief is None else belief.mean
            facts: dict[str, Fact] = {"patches": len(patches), "asked": asked, "prior": source, **probe.facts}
            if belief is not None:
                facts["settled"] = belief.share
            farthest = which[int(now.abs().argmax())]
            yield Step(
                done=1.0 if done else min(0.99, asked / len(patches)),
                score=clean - float(falls[farthest]),
                heatmap=partial(_painted, patches, mean),
                perturbed=partial(_hidden, probe, patches, farthest[None]),
                standard_error=None if belief is None else partial(_spread, patches, belief.draws),
                facts=facts,
            )


@dataclass(frozen=True, eq=False)
class _More:
    """Patches ``now`` ``[B]`` with falls ``values`` ``[Q, B]``, and what was known before them.

    Attributes:
        falls, covered: sums ``[W, *grid]`` for the first questions and weights ``[*grid]``.
        single: falls ``[Q, N]``, where a map needs them: of a class that is not summed, or of a map so far.
        known: which patches ``[N]`` they are of.
        labels: of the questions beside the first.
        spread: whether patches not evaluated yet take what lies around them.
    """

    patches: Patches
    falls: Tensor
    covered: Tensor
    single: Tensor | None
    known: Tensor
    now: Tensor
    values: Tensor
    labels: tuple[str, ...]
    spread: bool

    def seen(self, n: int) -> int:
        """Patches known with the first ``n`` of these."""
        return int(self.known.sum()) + n

    def also(self, n: int) -> dict[str, Callable[[], Tensor]]:
        """The further maps with the first ``n`` of these."""
        return {label: self.map(n, q) for q, label in enumerate(self.labels, 1)}

    def map(self, n: int, q: int) -> Callable[[], Tensor]:
        """The map of a question with the first ``n`` of these; built when it is looked at."""
        return partial(self._map, n, q)

    def _map(self, n: int, q: int) -> Tensor:
        now, values, so_far, known = self.now[:n], self.values[q : q + 1, :n], None, self.known.clone()
        known[now] = True
        if self.single is not None:
            single = self.single[q : q + 1].clone()
            single[:, now] = values
            so_far = (single, known) if self.spread and not known.all() else None
        if q < len(self.falls):
            falls, covered = _more(self.falls[q : q + 1], self.covered, values, self.patches, now)
        else:
            # Summed when it is looked at: there may be a thousand classes.
            (which,) = known.nonzero(as_tuple=True)
            nothing = torch.zeros_like(self.covered)
            falls, covered = _more(nothing[None], nothing, single[:, which], self.patches, which)
        return _mean(self.patches, falls, covered, so_far)


@dataclass(frozen=True, eq=False)
class _Asked:
    """Patches that were hidden one by one, and the score ``[B]`` without each."""

    probe: Probe
    more: _More
    scores: tuple[float, ...]
    facts: dict[str, Fact]
    most: float

    @property
    def step(self) -> Step:
        """All of them as one step; it shows the one that moved the score farthest."""
        clean = float(self.probe.clean[0])
        farthest = max(range(len(self.scores)), key=lambda i: abs(self.scores[i] - clean))
        shown = self._until(farthest)
        trials = Trials(clean, self.scores, self._until)
        return replace(self._until(len(self.scores) - 1), score=shown.score, perturbed=shown.perturbed, trials=trials)

    def _until(self, last: int) -> Step:
        patches = self.more.patches
        return Step(
            done=min(self.more.seen(last + 1) / len(patches), self.most),
            score=self.scores[last],
            heatmap=self.more.map(last + 1, 0),
            perturbed=partial(_hidden, self.probe, patches, self.more.now[last : last + 1]),
            also=self.more.also(last + 1),
            facts=self.facts,
        )


def _rounds(
    patches: Patches, single: Tensor, known: Tensor, engine: Engine, facts: dict[str, Fact]
) -> Iterator[Tensor]:
    """Which patches to ask about, in rounds; ``single`` ``[Q, N]`` and ``known`` ``[N]`` hold the answers so far.

    With a tolerance, every second patch along each axis comes first. One in between lies half on each of its
    neighbours; where they differ by no more than the tolerance it takes their mean. A few of those, drawn
    and those whose neighbours differ most, are asked about all the same, and if any of them misses by more than the
    tolerance, so are all.
    """
    every = torch.arange(len(patches))
    if engine.tolerance is None:
        yield every
        return
    yield every[patches.coarse]
    (left,) = (~known).nonzero(as_tuple=True)
    guess, unlike = _interpolated(patches, single, left)
    flat = unlike <= engine.tolerance
    drawn = torch.randperm(int(flat.sum()), generator=engine.generator())[:CHECKS]
    # Where nothing is, as in a black margin, a drawn patch tells little.
    riskiest = unlike[flat].cpu().argsort(descending=True)[:CHECKS]
    checks = torch.unique(torch.cat([drawn, riskiest]))
    checked, guessed = left[flat][checks], guess[0, flat][checks]
    yield torch.cat([left[~flat], checked])
    if len(checked):
        worst = float((single[0, checked] - guessed).abs().max())
        facts["interpolation error"] = worst
        if worst > engine.tolerance:
            yield every[~known]


def _interpolated(patches: Patches, single: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of the coarse patches around the patches ``which`` ``[M]``: ``[Q, M]``, and how far the first question's
    values around each lie apart, ``[M]``."""
    around = single[:, patches.around(which)]
    return around.mean(2), around[0].amax(1) - around[0].amin(1)


def _more(falls: Tensor, covered: Tensor, values: Tensor, patches: Patches, which: Tensor) -> tuple[Tensor, Tensor]:
    """Sums ``[Q, *grid]`` and weights ``[*grid]`` with the falls ``[Q, B]`` of more patches in them."""
    falls, covered = falls.clone(), covered.clone()
    boxes = patches.boxes[which].tolist()
    # Masks are made a few at a time, and only where a patch is not simply a box.
    for part in torch.split(torch.arange(len(which)), 32):
        hidden = 1 - patches.masks(which[part], falls.device) if patches.soft else None
        for i, n in enumerate(part.tolist()):
            inside = tuple(slice(start, stop) for start, stop in boxes[n])
            weight = falls.new_ones(()) if hidden is None else hidden[i][inside]
            falls[(slice(None), *inside)] += values[:, n].view(-1, *(1,) * len(inside)) * weight
            covered[inside] += weight
    return falls, covered


def _mean(patches: Patches, falls: Tensor, covered: Tensor, so_far: tuple[Tensor, Tensor] | None) -> Tensor:
    """The map of a question from sums ``[1, *grid]`` and weights ``[*grid]``.

    Where falls ``[1, N]`` ``so_far`` and which ``[N]`` are known are given, the others take what lies around them.
    """
    if so_far is not None:
        single, known = so_far
        (missing,) = (~known).nonzero(as_tuple=True)
        guess = _between(single[0], known, patches.counts)[missing]
        falls, covered = _more(falls, covered, guess[None], patches, missing)
    mean = falls[0] / torch.where(covered > 0, covered, 1.0)
    if patches.region is None:
        return mean
    inside = torch.zeros_like(mean, dtype=torch.bool)
    inside[tuple(slice(start, stop) for start, stop in patches.region)] = True
    return mean * inside


def _painted(patches: Patches, falls: Tensor) -> Tensor:
    return patches.averaged(falls.view(1, *patches.counts))[0]


def _spread(patches: Patches, draws: Tensor) -> Tensor:
    """The standard deviation ``[*grid]`` of the maps of falls ``[S, N]``."""
    return patches.averaged(draws.view(len(draws), *patches.counts)).std(0)


def _hidden(probe: Probe, patches: Patches, which: Tensor) -> Tensor:
    return probe.removed(patches.masks(which, probe.pixels.device))[0]


def _between(values: Tensor, known: Tensor, counts: tuple[int, ...]) -> Tensor:
    """What lies around each patch: ``[N]`` from the values ``[N]`` of the ``known`` ``[N]`` on a grid of ``counts``."""
    apart = (len(known) / int(known.sum())) ** (1 / len(counts))
    known = known.to(values).view(1, *counts)
    # A good third of the distance between known patches: wide enough to reach them, and their differences stay.
    weight = gaussian_blur(known, NEAR * apart)
    return (gaussian_blur(values.view(1, *counts) * known, NEAR * apart) / weight.clamp_min(1e-9)).flatten()


def spread_order(n: int) -> Tensor:
    """A permutation of 0..n-1, int64, whose every beginning is spread evenly (bit reversal, van der Corput)."""
    bits = max(1, (n - 1).bit_length())
    numbers = torch.arange(1 << bits)
    reverse = torch.zeros_like(numbers)
    for bit in range(bits):
        reverse |= ((numbers >> bit) & 1) << (bits - 1 - bit)
    return reverse[reverse < n]


def _pixels(length: Length, placement: Placement, spacing: Sequence[float] | None) -> tuple[int, ...]:
    if isinstance(length, int):
        return (length,) * len(placement.grid)
    if not isinstance(length, str):
        return tuple(int(n) for n in length)
    try:
        mm = float(length.strip().lower().removesuffix("mm"))
    except ValueError:
        mm = -1.0
    if mm <= 0 or not length.strip().lower().endswith("mm"):
        raise ParameterError(f"A length is a number of pixels or a text such as '15mm', not {length!r}.")
    if spacing is None:
        raise ParameterError(
            f"The pixel spacing of this scan is unknown, so {length!r} means nothing; give pixels instead."
        )
    return tuple(max(1, round(placement.scan_pixels(mm / apart, axis))) for axis, apart in enumerate(spacing))


def _clipped(
    patch: tuple[int, ...], grid: tuple[int, ...], region: tuple[tuple[int, int], ...] | None
) -> tuple[int, ...]:
    """The patch cut to what it is to lie in: a thin volume, or a region. One that fits nowhere stays as it is."""
    sizes = grid if region is None else tuple(stop - start for start, stop in region)
    if len(patch) != len(sizes) or (region is None and all(p > n for p, n in zip(patch, sizes, strict=True))):
        return patch
    return tuple(map(min, patch, sizes))


def _on_grid(box: Sequence[int], placement: Placement) -> tuple[tuple[int, int], ...]:
    """A box of the scan, flat, as start and stop along each axis of the model's grid."""
    shape = placement.scan_shape
    spans = list(zip(box[::2], box[1::2], strict=False))
    if len(box) != 2 * len(shape) or not all(0 <= a < b <= n for (a, b), n in zip(spans, shape, strict=True)):
        raise ParameterError(
            f"A box is start and stop along each axis of the scan of {' x '.join(map(str, shape))} pixels, "
            f"such as {', '.join(f'0, {n}' for n in shape)}, not {', '.join(map(str, box))}."
        )
    found = []
    for (a, b), (before, _), size, n in zip(spans, placement.margins, placement.box_shape, placement.grid, strict=True):
        start, stop = math.floor((a + before) * n / size), math.ceil((b + before) * n / size)
        found.append((min(max(start, 0), n), max(min(stop, n), 0)))
    if any(start >= stop for start, stop in found):
        raise ParameterError(f"The model does not look at the box {', '.join(map(str, box))}; choose another.")
    return tuple(found)
