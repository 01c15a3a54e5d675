"""What a map says, in the words of a report: where, how strongly, and what speaks against believing it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from lucency.checks.hits import known_hits, sentence, tells
from lucency.checks.out_of_distribution import LEVEL
from lucency.classifier import Question
from lucency.engine import Engine
from lucency.explanation import Explanation
from lucency.lungs import lung_fields, places
from lucency.records import VerdictRecord
from lucency.removal import Removal
from lucency.scan import Scan

REGION = 0.5
"""Share of the maximum down to which what is connected to it counts as the strongest region."""
LEVELS = ((5.0, "repeatable"), (3.0, "fairly repeatable"), (2.0, "hardly repeatable"), (-np.inf, "not repeatable"))
"""What a peak of so many standard errors is called."""
MAINLY = 0.5
SPREAD = 0.15
"""Share of the evidence at the place of the maximum below which there is no one place."""
ELSEWHERE = 19
"""At how many other places the shape of the strongest region is hidden for comparison."""
FEWEST = 5
"""Places below which nothing is said of how the region compares."""
HARDLY = 0.05
"""Share of the probability below which a fall is none."""
STOPPED = "The method was stopped before its end."
ASTRAY = 0.4
"""Share of the evidence outside the lungs from which on the verdict warns."""


@dataclass(frozen=True)
class _Words:
    """What the numbers of a verdict are in words."""

    of: VerdictRecord

    @property
    def headline(self) -> str:
        """Where and how strongly, in two short sentences."""
        if not self.of.reacted:
            early = STOPPED in self.of.warnings
            said = "The method was stopped before it found anything" if early else "Nothing reacted"
            return f"{said}: the map of {self._about} is flat{'; give it more time' if early else ''}."
        if not self.of.evidence:
            return f"Nothing on this scan supports {self._about}. What reacted speaks against it."
        if self.of.doubts:
            return f"No place is named, because the film is in doubt. {self.of.doubts[0]}"
        if not self.of.locates:
            return (
                f"No place is named: maps of {self.of.method} do not show where the evidence for {self._about} lies. "
                "Ask another method, such as occlusion or Grad-CAM."
            )
        return f"{self._where} {self._strength}"

    @property
    def details(self) -> tuple[str, ...]:
        """What speaks against believing the headline, then what else was measured; one sentence each."""
        if not self.of.reacted:
            return tuple(w for w in (*self.of.doubts, *self.of.warnings) if w != STOPPED)
        if not self.of.evidence:
            return (*self.of.doubts, *self.of.warnings)
        said = [*self.of.doubts[1:], *self.of.warnings]
        if not self._named:
            return (*said, *self._checks)
        return (*said, *self._others, *self._reliable, *self._checks, *self._unknown)

    @property
    def _named(self) -> bool:
        return self.of.locates and not self.of.doubts

    @property
    def _about(self) -> str:
        if self.of.watched:
            return self.of.watched
        if math.isnan(self.of.probability):
            return self.of.target
        known = self.of.target if self.of.called else f"{self.of.target}, which the model does not call"
        return f"{known} (probability {percent(self.of.probability)})"

    @property
    def _at(self) -> str:
        peak = self.of.peak or ()
        axes = ("slice", "row", "column")[-len(peak) :]
        return ", ".join(f"{axis} {i}" for axis, i in zip(axes, peak, strict=True))

    @property
    def _where(self) -> str:
        if not self.of.place:
            return f"Around {self._at}: the strongest evidence for {self._about}."
        place = self.of.place.removeprefix("the ")
        share = self.of.shares[self.of.place]
        if share < SPREAD:
            where = f"the maximum lies {_at(self.of.place)}, {percent(share)} of all"
            return f"The evidence for {self._about} is spread; {where}."
        how = "most of the evidence" if share >= MAINLY else "the strongest evidence"
        return f"{place[0].upper()}{place[1:]}: {how} for {self._about}, {percent(share)} of all."

    @property
    def _strength(self) -> str:
        if self.of.without is None:
            return (
                f"The strongest region holds {percent(self.of.evidence)} of it on {percent(self.of.area)} of the scan."
            )
        fall = self.of.probability - self.of.without
        if fall < HARDLY * self.of.probability or self.of.probability == 0:
            kept = "stays" if fall >= -HARDLY * self.of.probability else "rises instead of falling"
            return (
                f"With that region hidden the probability {kept} ({percent(self.of.without)}): no single place decides."
            )
        said = f"With that region hidden the probability is {percent(self.of.without)}"
        if len(self.of.elsewhere) < FEWEST:
            return f"{said}, but its shape fits nowhere else, so that it cannot be compared with other places."
        same = sum(p <= self.of.without for p in self.of.elsewhere)
        with_others = f"with the same shape hidden at {len(self.of.elsewhere)} other places it is "
        with_others += percent(float(np.mean(self.of.elsewhere)))
        if not same:
            return f"{said}; {with_others} on average and never that low."
        return f"{said}; {with_others} on average, and as low at {same} of them."

    @property
    def _others(self) -> list[str]:
        if not self.of.place:
            return []
        others = [f"{percent(s)} lies {_at(p)}" for p, s in self.of.shares.items() if p != self.of.place and s >= 0.15]
        also = f"; {' and '.join(others[:2])}" if others else ""
        return [f"The maximum is at {self._at}{also}."]

    @property
    def _reliable(self) -> list[str]:
        if self.of.watched:
            return []
        if self.of.hits is None:
            return ["How reliable such maps are was not measured for this model, method and removal."]
        return [sentence(self.of.hits)]

    @property
    def _checks(self) -> list[str]:
        said = []
        if self.of.signal_to_noise is not None and self._named:
            unit = "mm" if self.of.in_mm else "pixels"
            place = "" if self.of.spread is None else f", its place to about {max(self.of.spread, 1):.0f} {unit}"
            noise = f"{self.of.signal_to_noise:.1f}" if self.of.signal_to_noise < 20 else "over 20"
            source = {
                "method": "draws of the method's random numbers",
                "copies": "small shifts of the scan",
            }.get(self.of.bars, "repetitions")
            said.append(
                f"{self.of.level[0].upper()}{self.of.level[1:]} over {source}: the peak stands {noise} standard errors "
                f"above zero{place}; that does not say whether the method is right."
            )
        if self.of.out_of_distribution is not None:
            said.append(
                f"{percent(self.of.out_of_distribution)} of the strongest reactions came from perturbed scans unlike "
                f"those that the model knows (p < {LEVEL:g})."
                if self.of.out_of_distribution
                else "The perturbed scans behind it are like those that the model knows."
            )
        if self.of.sanity is not None:
            said.append(
                "The sanity check passes: with random weights the model gives another map."
                if self.of.sanity
                else "The sanity check FAILS: with random weights the model gives much the same map, so it shows the "
                "scan rather than the model."
            )
        return said

    @property
    def _unknown(self) -> list[str]:
        unknown = {
            "whether it is repeatable (error bars)": self.of.signal_to_noise,
            "whether the perturbed scans are like those that the model knows": self.of.out_of_distribution,
            "whether the map depends on what the model has learnt (sanity check)": self.of.sanity,
        }
        missing = [what for what, value in unknown.items() if value is None]
        return [f"Not measured: {'; '.join(missing)}."] if missing else []


def judge(
    explanation: Explanation,
    *,
    scan: Scan | None = None,
    engine: Engine | None = None,
    removal: Removal | None = None,
    sanity: bool | None = None,
    doubts: Sequence[str] = (),
) -> VerdictRecord:
    """What the map says.

    Args:
        explanation: with a heatmap of two or three axes.
        scan, engine, removal: when all are given, the strongest region, and its shape at other places, are hidden to
            see what the probability does (20 evaluations at most).
        sanity: whether randomising the model's weights changes the map (:mod:`lucency.checks.sanity`).
        doubts: why the film cannot be what the model reads (:func:`lucency.checks.film.doubts`); where there are any,
            no place is named.
    """
    heatmap = explanation.heatmap
    reacted = bool(np.ptp(heatmap) > 0)
    supporting = heatmap.clip(min=0).astype(np.float64) if reacted else np.zeros(heatmap.shape)
    total = float(supporting.sum())
    region = strongest(heatmap) if reacted else np.zeros(heatmap.shape, bool)
    about = explanation.provenance
    hits = known_hits(explanation)
    locates = about.method.locates and (hits is None or tells(hits))
    named = locates and not doubts and total > 0
    lungs = lung_fields(Scan.from_array(explanation.pixels)) if named and heatmap.ndim == 2 else None
    place, zone, side, shares = "", "", "", {}
    chest = None
    if lungs is not None:
        names, numbers = places(lungs)
        by_place = np.bincount(numbers.ravel(), supporting.ravel(), len(names)) / total
        in_region = np.bincount(numbers[region], supporting[region], len(names))
        found = names[int(in_region.argmax())]
        place, zone, side = str(found), found.zone, found.side
        order = np.argsort(-by_place, kind="stable")
        shares = {str(names[i]): float(by_place[i]) for i in order if by_place[i] > 0}
        chest = np.isin(numbers, [i for i, name in enumerate(names) if name.zone != "outside the lungs"])
    without: float | None = None
    elsewhere: tuple[float, ...] = ()
    if named and scan is not None and engine is not None and removal is not None and explanation.probabilities:
        without, elsewhere = _hidden(explanation, region, chest, scan, engine, removal)
    noise, spread, in_mm = _sureness(explanation) if reacted else (None, None, False)
    off = explanation.facts.get("out-of-distribution evidence")
    found_numbers = VerdictRecord(
        headline="",
        details=(),
        target=explanation.target,
        probability=explanation.probability,
        called=_called(explanation),
        watched=about.question.label if about.question.of_layer else "",
        method=about.method.title,
        locates=locates,
        reacted=reacted,
        place=place,
        zone=zone,
        side=side,
        peak=explanation.peak if reacted else None,
        shares=shares,
        area=float(region.mean()),
        evidence=float(supporting[region].sum() / total) if total > 0 else 0.0,
        without=without,
        elsewhere=elsewhere,
        level="" if noise is None else next(word for least, word in LEVELS if noise >= least),
        signal_to_noise=noise,
        spread=spread,
        in_mm=in_mm,
        bars=about.error_bars.source,
        hits=hits,
        out_of_distribution=None if off is None else float(off),
        sanity=sanity,
        doubts=tuple(doubts),
        warnings=tuple(_warnings(explanation, named, place, shares)),
    )
    return worded(found_numbers)


def worded(verdict: VerdictRecord) -> VerdictRecord:
    """The verdict with the words that its numbers have."""
    words = _Words(verdict)
    return replace(verdict, headline=words.headline, details=words.details)


def _at(place: str) -> str:
    return place if place.startswith("outside") else f"at {place}"


def strongest(heatmap: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Bool ``[*spatial]``: what is connected to the maximum at :data:`REGION` of it or above; empty without support."""
    top = float(heatmap.max())
    if not top > 0:
        return np.zeros(heatmap.shape, bool)
    labels, _ = ndimage.label(heatmap >= REGION * top)
    return np.asarray(labels == labels[np.unravel_index(int(heatmap.argmax()), heatmap.shape)])


def percent(share: float) -> str:
    """A share in words, without pretending to more digits than matter."""
    if 0 < share < 0.001:
        return "below 0.1 %"
    if 0.999 < share < 1:
        return "above 99.9 %"
    return f"{100 * share:.1f} %" if share > 0.95 or share < 0.05 else f"{100 * share:.0f} %"


def moved(shape: Tensor, allowed: Tensor | None, count: int = ELSEWHERE, seed: int = 0) -> Tensor:
    """A soft mask ``[*grid]`` at places drawn by chance, as it is or mirrored: ``[at most count, *grid]``.

    Each copy lies wholly on the grid, and as much of it on ``allowed`` ``[*grid]`` as of the mask, within a tenth of
    it. It may overlap the mask: only then does a region that was itself put somewhere by chance come first of all
    places one time in ``count + 1``, whatever its size.
    """
    rng = np.random.default_rng(seed)
    inside = torch.nonzero(shape > 0)
    low, high = inside.amin(0).tolist(), (inside.amax(0) + 1).tolist()
    piece = shape[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    total = float(shape.sum())
    least = 0.0 if allowed is None else float((shape * allowed).sum()) - 0.1 * total
    found: list[Tensor] = []
    for _ in range(40 * count):
        if len(found) == count:
            break
        start = [int(rng.integers(n - p + 1)) for n, p in zip(shape.shape, piece.shape, strict=True)]
        copy = torch.zeros_like(shape)
        at = tuple(slice(a, a + p) for a, p in zip(start, piece.shape, strict=True))
        copy[at] = piece.flip(-1) if rng.random() < 0.5 else piece
        if allowed is None or float((copy * allowed).sum()) >= least:
            found.append(copy)
    return torch.stack(found) if found else shape.new_zeros(0, *shape.shape)


def _hidden(
    explanation: Explanation,
    region: NDArray[np.bool_],
    chest: NDArray[np.bool_] | None,
    scan: Scan,
    engine: Engine,
    removal: Removal,
) -> tuple[float, tuple[float, ...]]:
    """The probability of the class when the region is hidden, and when its shape is hidden elsewhere instead."""
    placement = engine.classifier.placement(scan)

    def on_grid(mask: NDArray[np.bool_]) -> Tensor:
        return placement.to_grid(torch.from_numpy(mask.astype(np.float32))[None])[0].clamp(0, 1)

    shape = on_grid(region)
    if not shape.any():
        return explanation.probability, ()
    others = moved(shape, None if chest is None else on_grid(chest))
    question = Question.ask(engine.classifier, scan, explanation.target, "probability")
    scores = engine.open(scan, question, removal).scores(1 - torch.cat([shape[None], others]))[:, 0].tolist()
    return float(scores[0]), tuple(float(score) for score in scores[1:])


def _sureness(explanation: Explanation) -> tuple[float | None, float | None, bool]:
    """The peak in standard errors, how far it may be off, and whether that is in mm."""
    error, heatmap, peak = explanation.standard_error, explanation.heatmap, explanation.peak
    spacing = explanation.provenance.scan.spacing
    in_mm = spacing is not None
    if error is None or peak is None or not heatmap.max() > 0:
        return None, None, in_mm
    noise = float(heatmap[peak] / max(float(error[peak]), 1e-12))
    moved_by = explanation.provenance.error_bars.moved
    apart = None if moved_by is None else [list(by) for by in moved_by]
    if apart is None:
        # Wherever the map is not clearly below its peak, the peak may be.
        rival = heatmap > heatmap[peak] - 2 * np.hypot(error, error[peak])
        labels, _ = ndimage.label(rival)
        apart = (np.argwhere(labels == labels[peak]) - np.array(peak)).tolist()
    steps = np.array(apart, float).reshape(-1, len(peak)) * (np.array(spacing) if in_mm else 1.0)
    return noise, float(np.sqrt(np.square(steps).sum(1).mean())), in_mm


def _warnings(explanation: Explanation, named: bool, place: str, shares: Mapping[str, float]) -> list[str]:
    found = []
    if not explanation.complete:
        found.append(STOPPED)
    outside = sum(share for name, share in shares.items() if name.endswith("outside the lungs"))
    if outside >= ASTRAY:
        found.append(
            f"{percent(outside)} of the evidence lies outside the lungs: the model may be reading something else."
        )
    if named and not place and explanation.heatmap.ndim == 2:
        found.append("No frontal chest film was recognised, so its places have no names.")
    return found


def _called(explanation: Explanation) -> bool:
    """Whether the model calls the scan so: at one half, or as the most probable of classes that exclude each other."""
    if explanation.probability >= 0.5:
        return True
    every = explanation.probabilities.values()
    return abs(sum(every) - 1) < 1e-3 and explanation.probability == max(every)
