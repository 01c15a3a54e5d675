"""Predict, then verify: which patches to ask about until what a reader takes from the map is settled.

A prior says what each patch will do (the instant map where there is one, else Grad-CAM). The falls are then a Gaussian
process around it: neighbouring patches err alike, and more where the prior says much or expects to be wrong. Patches
are evaluated where the doubt is largest, some at random; exact answers replace what was predicted and move their
neighbours (a regression on prior and neighbours, Rasmussen & Williams 2006, chapter 2). How far predictions missed so
far sets the width of the band. The answer is settled when, of maps drawn from what is still possible, the asked share
agree with the mean map in what a reader takes from it: the peak within one patch, the region above half of the maximum
with an intersection over union of 0.9, no error above 2 % of the largest value.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lucency.classifier import Classifier, Question
from lucency.engine import Engine
from lucency.errors import LucencyError
from lucency.explainers import OcclusionTeacher
from lucency.explainers.shelf import explainer_for, predicted
from lucency.masks import Patches
from lucency.methods.cam import GradCam
from lucency.removal import Removal
from lucency.scan import Scan

FIRST, ROUND = 24, 12
"""Patches that are evaluated before the model is first fitted, and at least between two looks at it."""
GROWTH = 0.2
"""A round is at least this share of what is known: the more is known, the less a few answers change."""
HALF = 0.5
"""Where so large a share of the patches was evaluated and no more of the maps agree, the others follow at once."""
WIDER = 2.0
"""How much wider still draws are made: of 1, 1.4 and 2 the least with which the promise held on all of 33 simulated
patients that trained nothing; of so many none may fail if at least 90 % of others are to hold at 95 % confidence."""
RANDOM = 0.25
"""Share of the patches of a round that are drawn at random: they keep the band honest where nothing was expected."""
DRAWN = 48
RECENT = 5
"""Rounds whose misses set the width of the band."""
REFIT = 1.4
"""The parameters of the model are fitted anew when there are this many times as many answers."""
SIGMAS = (0.05, 0.15, 0.4, 1.0, 2.5)
LENGTHS = (0.8, 1.6, 3.0, 6.0)
FLOORS = (0.001, 0.005, 0.02, 0.1)
IOU, ERROR = 0.9, 0.02
SURE = 1e-7


@dataclass(frozen=True, eq=False)
class Prior:
    """What is expected of each patch before any is evaluated.

    Attributes:
        value: float64 ``[N]``; of any size, where ``known`` is false.
        known: whether the value is a fall (of the log-odds where the score is a probability), and not only larger where
            more is expected.
        error: float64 ``[N]``, by how much each is expected to be off, as a fall of the score; ``None`` where nothing
            says so.
    """

    value: Tensor
    known: bool
    error: Tensor | None = None


@dataclass(frozen=True)
class Scale:
    """Falls of the score, and what they are modelled as: falls of the log-odds, where the score is a probability.

    Next to 0 and 1 the log-odds may fall a little or a lot and the score hardly moves: what is doubtful there does not
    matter, and in this unit the model knows.

    Attributes:
        clean: the score of the clean scan.
        odds: whether it is a probability.
    """

    clean: float
    odds: bool

    def inward(self, falls: Tensor) -> Tensor:
        """Falls of the score -> what is modelled."""
        if not self.odds:
            return falls
        clean = torch.tensor(self.clean, dtype=torch.float64)
        return _logit(clean) - _logit(clean - falls)

    def outward(self, values: Tensor) -> Tensor:
        """And back."""
        if not self.odds:
            return values
        clean = torch.tensor(self.clean, dtype=torch.float64)
        return clean - torch.sigmoid(_logit(clean) - values)

    def inward_error(self, errors: Tensor, values: Tensor) -> Tensor:
        """Small errors of falls of the score -> errors of what is modelled, where that is ``values``."""
        if not self.odds:
            return errors
        left = torch.sigmoid(_logit(torch.tensor(self.clean, dtype=torch.float64)) - values)
        return errors / (left * (1 - left)).clamp_min(SURE)


def _logit(p: Tensor) -> Tensor:
    return p.clamp(SURE, 1 - SURE).logit()


@dataclass(frozen=True, eq=False)
class Belief:
    """What is known of all patches after some answers.

    Attributes:
        mean: float64 ``[N]``, answers where there are any.
        draws: float64 ``[S, N]``, falls that are still possible.
        share: of those whose map agrees with that of the mean in what a reader takes from it.
    """

    mean: Tensor
    draws: Tensor
    share: float


def layers(classifier: Classifier, explainer: str | None) -> tuple[str, ...]:
    """The layers that the prior reads on the clean scan."""
    if classifier.module is None:
        return ()
    learnt = explainer_for(classifier, explainer)
    return () if learnt is None or not learnt.fits(classifier) else learnt.layers


def prior_of(
    engine: Engine, scan: Scan, question: Question, patches: Patches, removal: Removal, explainer: str | None
) -> tuple[Prior, str]:
    """What is expected of each patch, and where from: the instant map, else Grad-CAM, else the same of each."""
    classifier = engine.classifier
    learnt = explainer_for(classifier, explainer) if classifier.module is not None else None
    if learnt is not None and learnt.fits(classifier) and learnt.target == question.target and not question.layer:
        found = predicted(learnt, scan, question, engine)[1]
        same = isinstance(learnt.teacher, OcclusionTeacher) and (
            learnt.teacher.patches(patches.grid) == patches
            and learnt.teacher.removal == removal
            and learnt.teacher.odds == (question.watch == "probability")
        )
        if same:
            return Prior(found.inner.double().flatten(), True, found.error.double().flatten()), "instant map"
        return Prior(patches.beneath(found.heatmap[None]).double().flatten(), False), "instant map"
    try:
        heatmap = GradCam().on_scan(engine.open(scan, question))[0]
    except LucencyError:
        return Prior(torch.ones(len(patches), dtype=torch.float64), False), "none"
    return Prior(patches.beneath(heatmap[None].cpu()).double().flatten(), False), "Grad-CAM"


def settled(
    prior: Prior,
    patches: Patches,
    kinds: Tensor,
    scale: Scale,
    ask: Callable[[Tensor], Tensor],
    confidence: float,
    generator: torch.Generator,
) -> Iterator[tuple[Tensor, Tensor, Belief | None]]:
    """Asks about patches until the answer is settled, or until there are none left.

    Args:
        kinds: int64 ``[N]``; patches of one kind are computed best together.
        ask: gives the falls ``[B]`` of patches ``[B]``.
        confidence: the share of possible maps that must agree.

    Yields:
        The patches that were just evaluated, their falls, and what is known of all; ``None`` before the model is
        fitted, and when every patch was evaluated.
    """
    n = len(patches)
    known = torch.zeros(n, dtype=torch.bool)
    falls, inner = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    guess: _Guess | None = None
    field: _Field | None = None
    share = 0.0
    misses: list[Tensor] = []
    fitted_with = 0
    while True:
        if guess is None:
            which = _first(prior, kinds, known, generator)
        elif int(known.sum()) >= HALF * n and share < HALF:
            (which,) = (~known).nonzero(as_tuple=True)
        else:
            which = _next(guess, scale, kinds, generator)
        found = ask(which).double().cpu()
        values = scale.inward(found)
        if guess is not None:
            misses.append((values - guess.mean[which]) / guess.spread[which].clamp_min(1e-12))
        known[which] = True
        falls[which], inner[which] = found, values
        if known.all() or int(known.sum()) < FIRST:
            yield which, found, None
            if known.all():
                return
            continue
        if field is None or int(known.sum()) >= REFIT * fitted_with:
            field, fitted_with = _Field.fitted(prior, patches, scale, inner, known), int(known.sum())
        guess = field.guess(inner, known)
        belief = _believed(guess, patches, scale, falls, misses[-RECENT:], generator)
        share = belief.share
        yield which, found, belief
        if share >= confidence:
            return


def _first(prior: Prior, kinds: Tensor, known: Tensor, generator: torch.Generator) -> Tensor:
    """Half of them where most is expected, the others at random, as far as one kind goes."""
    half = FIRST // 2
    if not known.any():
        top = prior.value.abs()
        sums = torch.zeros(int(kinds.max()) + 1, dtype=torch.float64).index_add_(0, kinds, top)
        counts = torch.bincount(kinds, minlength=len(sums))
        (alike,) = (kinds == (sums * (counts >= min(half, int(counts.max())))).argmax()).nonzero(as_tuple=True)
        return alike[top[alike].argsort(descending=True)[:half]]
    left = (~known).nonzero(as_tuple=True)[0]
    kind = kinds[left[torch.randint(len(left), (), generator=generator)]]
    alike = left[kinds[left] == kind]
    return alike[torch.randperm(len(alike), generator=generator)[:half]]


def _next(guess: _Guess, scale: Scale, kinds: Tensor, generator: torch.Generator) -> Tensor:
    """The patches of one kind with the most doubt, and some at random."""
    # What the doubt means for the score.
    want = scale.outward(guess.mean + guess.spread) - scale.outward(guess.mean - guess.spread)
    size = max(ROUND, round(GROWTH * int(guess.known.sum())))
    drawn = max(1, round(RANDOM * size))
    best, gain = None, -1.0
    for kind in sorted(set(kinds[~guess.known].tolist())):
        (alike,) = ((kinds == kind) & ~guess.known).nonzero(as_tuple=True)
        top = alike[want[alike].argsort(descending=True)[: size - drawn]]
        if float(want[top].sum()) > gain:
            best, gain, rest = top, float(want[top].sum()), alike
    assert best is not None
    others = rest[~torch.isin(rest, best)]
    return torch.cat([best, others[torch.randperm(len(others), generator=generator)[:drawn]]])


def _believed(
    guess: _Guess, patches: Patches, scale: Scale, falls: Tensor, misses: list[Tensor], generator: torch.Generator
) -> Belief:
    draws = guess.drawn(DRAWN, generator)
    if misses:
        z = torch.cat(misses).abs()
        # Of a normal distribution both are 1; rare large misses count by the second.
        wide = max(float(z.square().mean().sqrt()), float(z.quantile(0.95)) / 1.96)
        draws = guess.mean + WIDER * max(wide, 1.0) * (draws - guess.mean)
    mean, draws = scale.outward(guess.mean), scale.outward(draws)
    mean[guess.known], draws[:, guess.known] = falls[guess.known], falls[guess.known]
    return Belief(mean, draws, agreeing(patches, mean, draws))


def agreeing(patches: Patches, mean: Tensor, draws: Tensor) -> float:
    """The share of falls ``[S, N]`` whose map agrees with that of the mean ``[N]``."""
    maps = patches.averaged(torch.cat([mean[None], draws]).float().view(-1, *patches.counts))
    one, others = maps[:1], maps[1:]
    away = (_places(one) - _places(others)).abs()
    (high,), highs = _high(one), _high(others)
    iou = (high & highs).flatten(1).sum(1) / (high | highs).flatten(1).sum(1).clamp_min(1)
    worst = (one - others).abs().flatten(1).amax(1)
    allowed = ERROR * others.abs().flatten(1).amax(1)
    return float(((away <= torch.tensor(patches.patch)).all(1) & (iou >= IOU) & (worst <= allowed)).double().mean())


def _high(maps: Tensor) -> Tensor:
    """Where maps ``[S, *grid]`` are above half of their maximum."""
    return maps >= 0.5 * maps.flatten(1).amax(1).view(-1, *[1] * (maps.ndim - 1))


def _places(maps: Tensor) -> Tensor:
    """Where their maxima lie, ``[S, axes]``; the middle of those that are equal."""
    most = (maps >= maps.flatten(1).amax(1).view(-1, *[1] * (maps.ndim - 1))).double()
    found = []
    for axis, n in enumerate(maps.shape[1:]):
        along = most.flatten(1).view(len(maps), *maps.shape[1:]).movedim(axis + 1, 1).flatten(2).sum(2)
        found.append((along @ torch.arange(n, dtype=torch.float64)) / along.sum(1))
    return torch.stack(found, 1)


class _Field:
    """A Gaussian process over the patches: a multiple of the prior, a level, and what neighbours have in common."""

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        self._mean, self._covariance = mean, covariance

    @classmethod
    def fitted(cls, prior: Prior, patches: Patches, unit: Scale, falls: Tensor, known: Tensor) -> _Field:
        """The likeliest of a few."""
        (at,) = known.nonzero(as_tuple=True)
        y = falls[at]
        scale = float(y.abs().max().clamp_min(1e-9))
        value = prior.value
        if not prior.known:
            # Brought to the size of the answers, and its multiple left open.
            value = value * (scale / float(value.abs().max().clamp_min(1e-12)))
        mean = value if prior.known else torch.zeros_like(value)
        slope = 1.0 if prior.known else 2.0
        amount = value.abs()
        if prior.error is not None:
            error = unit.inward_error(prior.error, value)
            amount = 0.5 * (amount + scale / float(error.max()) * error)
        level = (0.2 * scale) ** 2
        places = patches.places.double()

        def covariance(which: Tensor, length: float, floor: float, sigma: float) -> Tensor:
            apart = math.sqrt(3) / length * torch.cdist(places[which], places[which])
            size = sigma * (amount[which] + floor * scale)
            own = size[:, None] * ((1 + apart) * torch.exp(-apart)) * size
            return own + level + slope**2 * value[which, None] * value[which]

        likeliest = max(
            itertools.product(LENGTHS, FLOORS, SIGMAS),
            key=lambda one: _log_likelihood(covariance(at, *one), y - mean[at]),
        )
        return cls(mean, covariance(torch.arange(len(places)), *likeliest))

    def guess(self, answers: Tensor, known: Tensor) -> _Guess:
        """What the answers ``[N]`` where they are ``known`` say of the others."""
        (at,), (left,) = known.nonzero(as_tuple=True), (~known).nonzero(as_tuple=True)
        factor = _factor(self._covariance[at][:, at])
        sides = torch.cat([self._covariance[at][:, left], (answers[at] - self._mean[at])[:, None]], 1)
        white = torch.linalg.solve_triangular(factor, sides, upper=False)
        across, y = white[:, :-1], white[:, -1]
        covariance = self._covariance[left][:, left] - across.T @ across
        mean, spread = answers.clone(), torch.zeros_like(answers)
        mean[left], spread[left] = self._mean[left] + across.T @ y, covariance.diagonal().clamp_min(0).sqrt()
        return _Guess(known.clone(), mean, spread, covariance)


@dataclass(frozen=True, eq=False)
class _Guess:
    """Mean and standard deviation of all patches ``[N]``, the answers and 0 where they are known, and the covariance of
    those that are not."""

    known: Tensor
    mean: Tensor
    spread: Tensor
    covariance: Tensor

    def drawn(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws ``[count, N]``."""
        noise = torch.randn((count, len(self.covariance)), generator=generator, dtype=torch.float64)
        draws = self.mean.repeat(count, 1)
        draws[:, ~self.known] += noise @ _factor(self.covariance).T
        return draws


def _factor(covariance: Tensor) -> Tensor:
    """The Cholesky factor; rounding is made up for on the diagonal."""
    size = covariance.diagonal().mean().clamp_min(1e-30)
    eye = torch.eye(len(covariance), dtype=covariance.dtype)
    for little in (1e-8, 1e-6, 1e-4):
        factor, failed = torch.linalg.cholesky_ex(covariance + little * size * eye)
        if not int(failed):
            break
    found: Tensor = factor
    return found


def _log_likelihood(covariance: Tensor, y: Tensor) -> float:
    factor = _factor(covariance)
    white = torch.linalg.solve_triangular(factor, y[:, None], upper=False)
    return float(-0.5 * white.square().sum() - factor.diagonal().log().sum())
