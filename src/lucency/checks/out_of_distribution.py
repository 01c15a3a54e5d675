"""Is the perturbed scan anything that the model knows? Distance from clean scans in the model's own features.

A score on a scan that is like nothing the model has seen is no evidence. Two distances of its penultimate features z
from those of clean scans are taken:

- Mahalanobis (Lee et al., NeurIPS 2018), (z - m)' S^-1 (z - m), with the covariance shrunk as Ledoit & Wolf (Journal of
  Multivariate Analysis 2004) say, since there are fewer scans than a covariance needs;
- to the k-th nearest neighbour, both scaled to unit length (Sun et al., ICML 2022).

Clean scans that made neither mean nor covariance turn each distance into a p-value, the share of them that lie at least
as far out, (1 + #{farther}) / (1 + n): then "p < 0.01" happens to at most one clean scan in a hundred, as far as new
scans are like those. Of the two the smaller counts, doubled (Bonferroni).
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from itertools import count
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lucency.asking import asking
from lucency.classifier import Classifier
from lucency.classifier.hooks import hooked
from lucency.engine import Engine
from lucency.errors import ModelError, OutputError, ParameterError, QuestionError
from lucency.explanation import Explanation
from lucency.lungs.upright import orientation
from lucency.methods import Step
from lucency.scan import Scan

Array = NDArray[np.float64]

UNMOVED = 1e-6
"""A score that differs by less is the clean scan's."""
LEVEL = 0.01
"""A perturbed scan with a p-value below this is called out-of-distribution."""
NEIGHBOURS = 5
WHERE = "out of distribution"
"""The further map of an explanation that shows where perturbed scans that the model does not know were changed."""
WHERE_UNIT = "−log₁₀ p of the perturbed scan"
KEPT = 24
"""How many of the strongest reactions of a run are looked at."""
CHEST = 0.9
"""Share of a model's clean scans that must be upright frontal chest films before it is taken to read nothing else."""
FEWEST = 199
"""Held-out scans with which a p-value can come below :data:`LEVEL` at all."""


@asking()
def features(engine: Engine, x: Tensor) -> Tensor:
    """Penultimate features, float32 ``[B, D]``, of display values ``[B, C, *grid]``: what enters the last linear layer.

    Where that is a convolution, its input is averaged over space. As many scans go through at once as the engine finds
    quickest.

    Raises:
        QuestionError: for a black box, or a network without such a layer.
    """
    every = engine.classifier.network().named_modules()
    layers = {name: m for name, m in every if isinstance(m, nn.Linear | nn.Conv2d | nn.Conv3d)}

    def work(part: Tensor) -> Tensor:
        kept: list[Tensor] = []

        def enters(_name: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            # What comes next may work in place.
            kept[:] = [inputs[0].clone()]

        with hooked(layers, before=enters), torch.no_grad():
            engine.outputs(part)
        if not kept:
            raise QuestionError(f"{engine.classifier.name} has no last linear layer whose features could be read.")
        return kept[0].detach().flatten(2).mean(2).float() if kept[0].ndim > 2 else kept[0].detach().float()

    return torch.cat(engine.chunks["scores"].through(x.to(engine.device), work))


@dataclass(frozen=True, eq=False)
class OutOfDistribution:
    """What clean scans look like to one classifier.

    Attributes:
        classifier: the classifier.
        reference: float64 ``[N, D]``, features of clean scans, from which distances are taken.
        held_out: float64 ``[M, D]``, features of further clean scans, which set the error rate.
        chest: whether those scans are frontal chest films, so that films that lie otherwise can be doubted.
        engine: runs the classifier; one of its own where it is left out.
    """

    classifier: Classifier
    reference: Array
    held_out: Array
    chest: bool = False
    engine: Engine | None = None

    def __post_init__(self) -> None:
        if len(self.reference) <= NEIGHBOURS or len(self.held_out) < FEWEST:
            raise ParameterError(
                f"{len(self.reference)} and {len(self.held_out)} clean scans are too few: more than {NEIGHBOURS} make "
                f"the distances and at least {FEWEST} others the error rate."
            )

    @cached_property
    def _engine(self) -> Engine:
        return self.engine or Engine(self.classifier, device=self.classifier.device)

    @cached_property
    def _centre(self) -> tuple[Array, Array]:
        precision = np.asarray(np.linalg.inv(ledoit_wolf(self.reference)[0]), np.float64)
        return np.asarray(self.reference.mean(0), np.float64), precision

    @cached_property
    def _usual(self) -> Array:
        """The distances of the held-out scans, each column rising."""
        return np.sort(self.distances(self.held_out), axis=0)

    @classmethod
    def fit(cls, classifier: Classifier, scans: Sequence[Scan]) -> OutOfDistribution:
        """From clean scans, best of one patient each: every other one for the distances, the rest for the error rate.

        Raises:
            ParameterError: for fewer than 398 scans.
            QuestionError: when the classifier is a black box.
        """
        engine = Engine(classifier, device=classifier.device)
        found = np.concatenate([_features_of(engine, classifier.prepare(scan)[None]) for scan in scans])
        upright = [len(scan.shape) == 2 and orientation(scan).upright for scan in scans]
        return cls(classifier, found[1::2], found[::2], bool(np.mean(upright) >= CHEST), engine)

    @classmethod
    def of(cls, classifier: Classifier) -> OutOfDistribution | None:
        """What the classifier brings with it: its own :attr:`Classifier.reference`, or that of a shipped model.

        Raises:
            ModelError: when its reference cannot be read, or was made for other weights.
        """
        if classifier.reference is None:
            return cls.shipped(classifier)
        known = cls.load(classifier, classifier.reference)
        if known is None:
            raise ModelError(
                f"The reference {classifier.reference.name} was made for other weights than those of "
                f"{classifier.name}; make it again with OutOfDistribution.fit(classifier, scans).save(path)."
            )
        return known

    @classmethod
    def shipped(cls, classifier: Classifier) -> OutOfDistribution | None:
        """That of a shipped model; ``None`` for any other, or where it was made for other weights."""
        name = classifier.name.removeprefix("lucency:")
        file = files("lucency.checks") / "clean" / f"{name}.safetensors"
        if name == classifier.name or not file.is_file():
            return None
        return cls.load(classifier, Path(str(file)))

    @classmethod
    def load(cls, classifier: Classifier, path: Path) -> OutOfDistribution | None:
        """Reads what :meth:`save` wrote; ``None`` where that was for other weights.

        Raises:
            ModelError: when the file is missing, damaged or something else.
        """
        try:
            stored = load_file(path)
            fingerprint = bytes(stored["fingerprint"].tolist()).decode()
            reference, held_out = (stored[k].double().numpy() for k in ("reference", "held_out"))
            chest = bool(stored["chest"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise ModelError(
                f"{path} is no reference of clean scans ({error}); OutOfDistribution.fit(classifier, scans).save(path) "
                "writes one."
            ) from error
        return cls(classifier, reference, held_out, chest) if fingerprint == classifier.fingerprint else None

    def save(self, path: Path) -> None:
        """Writes the features in half precision, and which weights they belong to.

        Raises:
            OutputError: when the file cannot be written.
        """
        tensors = {k: torch.from_numpy(getattr(self, k)).half().contiguous() for k in ("reference", "held_out")}
        tensors["chest"] = torch.tensor(self.chest)
        tensors["fingerprint"] = torch.tensor(list(self.classifier.fingerprint.encode()), dtype=torch.uint8)
        try:
            save_file(tensors, path)
        except OSError as error:
            raise OutputError(f"{path} cannot be written ({error.strerror or error}).") from error

    def distances(self, found: Array) -> Array:
        """Mahalanobis and nearest-neighbour distance, float64 ``[B, 2]``, of features ``[B, D]``."""
        mean, precision = self._centre
        away = found - mean
        mahalanobis = ((away @ precision) * away).sum(1)
        likeness = _unit(found) @ _unit(self.reference).T
        kth = -np.partition(-likeness, NEIGHBOURS - 1, axis=1)[:, NEIGHBOURS - 1]
        return np.stack([mahalanobis, np.sqrt(np.maximum(2 - 2 * kth, 0))], 1)

    def p_values(self, x: Tensor) -> Array:
        """How usual perturbed scans ``[B, C, *grid]`` (display values) are, float64 ``[B]`` in 0..1; small = odd."""
        return self.p_values_of(_features_of(self._engine, x))

    def p_values_of(self, found: Array) -> Array:
        """The same for features ``[B, D]``."""
        away, usual = self.distances(found), self._usual
        farther = [len(usual) - np.searchsorted(usual[:, i], away[:, i], side="left") for i in range(2)]
        return np.asarray(np.minimum(1.0, 2 * (1 + np.min(farther, 0)) / (1 + len(usual))), np.float64)


@dataclass(frozen=True)
class Doubt:
    """Whether the strongest reactions of a run came from scans that the model knows.

    Attributes:
        share: share of the reaction (|score - clean score|, summed) that came from out-of-distribution scans, 0..1.
        odd: how many of them were out-of-distribution.
        looked_at: of how many.
    """

    share: float
    odd: int
    looked_at: int

    @property
    def facts(self) -> dict[str, float | str]:
        """For :attr:`Explanation.facts`, with a warning where most of the evidence is out-of-distribution."""
        facts: dict[str, float | str] = {"out-of-distribution evidence": self.share}
        if self.share > 0.5:
            facts["warning"] = (
                f"{self.share:.0%} of the strongest reactions came from scans that are like nothing the model has seen "
                f"(out-of-distribution, p < {LEVEL:g}): this map may show the perturbation and not the patient; "
                "use a removal that looks like anatomy."
            )
        return facts


class Doubter:
    """Watches a run (``explain(..., on_step=...)``), then looks at the perturbed scans behind its largest effects."""

    def __init__(self, known: OutOfDistribution) -> None:
        self.known = known
        self._lowest: list[tuple[float, int, Step]] = []
        self._highest: list[tuple[float, int, Step]] = []
        self._number = count()

    def __call__(self, step: Step) -> None:
        number = next(self._number)
        # What the clean score is turns out later; the steps farthest from it are among both ends.
        for heap, sign in ((self._lowest, -1.0), (self._highest, 1.0)):
            entry = (sign * step.score, number, step)
            if len(heap) < KEPT:
                heapq.heappush(heap, entry)
            else:
                heapq.heappushpop(heap, entry)

    def noted(self, explanation: Explanation, scan: Scan) -> Explanation:
        """The explanation of that scan that was watched, with the doubt among its facts.

        Where perturbed scans were out-of-distribution, the map :data:`WHERE` shows what was changed in them. As it was
        when nothing was perturbed.
        """
        clean = explanation.provenance.question.score
        if all(abs(step.score - clean) < UNMOVED for _, _, step in self._lowest + self._highest):
            # A gradient or an activation map takes nothing away, so no perturbed scan stands behind it.
            return explanation
        perturbed, reaction, p = self._strongest(clean)
        doubt = _doubt(reaction, p)
        found = dataclasses.replace(explanation, facts={**explanation.facts, **doubt.facts})
        if not doubt.odd:
            return found
        classifier = self.known.classifier
        changed = ((perturbed - classifier.prepare(scan).to(perturbed)).abs() > UNMOVED).any(1)
        oddness = torch.from_numpy(np.where(p < LEVEL, -np.log10(p), 0.0)).float()
        strongest = (changed.cpu() * oddness.reshape(-1, *[1] * (changed.ndim - 1))).amax(0)
        where = classifier.placement(scan).to_scan(strongest).numpy()
        return dataclasses.replace(found, also={**found.also, WHERE: where})

    def doubt(self, clean: float) -> Doubt:
        """The verdict, given the score of the clean scan."""
        _, reaction, p = self._strongest(clean)
        return _doubt(reaction, p)

    def _strongest(self, clean: float) -> tuple[Tensor, Array, Array]:
        """The perturbed scans ``[n, C, *grid]`` behind the largest effects, these effects, and their p-values."""
        steps = {number: step for _, number, step in self._lowest + self._highest}
        strongest = sorted(steps.values(), key=lambda s: -abs(s.score - clean))[:KEPT]
        if not strongest:
            raise ParameterError("No step was seen; pass this to explain() as on_step.")
        perturbed = torch.stack([step.perturbed() for step in strongest])
        return perturbed, np.abs([step.score - clean for step in strongest]), self.known.p_values(perturbed)


def _doubt(reaction: Array, p: Array) -> Doubt:
    odd = p < LEVEL
    total = float(reaction.sum())
    return Doubt(float(reaction[odd].sum() / total) if total else 0.0, int(odd.sum()), len(p))


def ledoit_wolf(samples: Array) -> tuple[Array, float]:
    """The shrunk covariance ``[D, D]`` of samples ``[N, D]`` and how far it was shrunk towards a sphere, 0..1."""
    n, d = samples.shape
    centred = samples - samples.mean(0)
    sample = centred.T @ centred / n
    mu = np.trace(sample) / d
    spread = (sample**2).sum() / d - mu**2
    noise = ((centred**2).T @ (centred**2) / n - sample**2).sum() / (n * d)
    shrinkage = float(min(noise, spread) / spread) if spread > 0 else 1.0
    return (1 - shrinkage) * sample + shrinkage * mu * np.eye(d), shrinkage


def _features_of(engine: Engine, x: Tensor) -> Array:
    found: Array = features(engine, x).cpu().double().numpy()
    return found


def _unit(found: Array) -> Array:
    unit: Array = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    return unit
