"""What a map says, in the words of a report: where, how strongly, and what speaks against believing it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from lucency.checks.hits import Hits, known_hits
from lucency.checks.out_of_distribution import LEVEL
from lucency.classifier import Question
from lucency.engine import Engine
from lucency.explanation import Explanation
from lucency.lungs import lung_fields, places
from lucency.methods import METHODS
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
class Verdict:
    """The numbers behind the words.

    Attributes:
        target: the class.
        probability: of it, on the clean scan.
        called: whether that is the model's answer: one half or more, or the most probable of exclusive classes.
        watched: what was watched, when that is not the class: a unit of a layer.
        method: the title of the method.
        locates: whether maps of this method show where the evidence for a class lies, as far as is known.
        reacted: whether the map is anything but flat.
        place: the name of the place of the strongest region; empty where none can be named.
        zone, side: the same in parts; the side is the patient's.
        peak: index of the map's maximum on the scan; ``None`` for a flat map.
        shares: share of the supporting evidence in each named place, the largest first, or empty.
        area: share of the scan that the strongest region takes.
        evidence: share of the supporting evidence in it.
        without: the probability when the strongest region is hidden, if that was asked.
        elsewhere: the probabilities when the same shape is hidden at other places instead.
        level: one of the words of :data:`LEVELS`; empty without a standard error.
        signal_to_noise: the peak in standard errors, or ``None``.
        spread: how far the peak may be off: root mean square distance, in mm where the spacing is known, else pixels.
        in_mm: which of the two.
        bars: where the standard error is from: "method", "copies" or "none".
        hits: how often such maps were right where the truth is known, if that was measured.
        out_of_distribution: share of the strongest reactions from scans unlike what the model knows, or ``None``.
        sanity: whether the method's maps of this model depend on what the model has learnt, or ``None``.
        doubts: why the film cannot be what the model reads, one sentence each.
        warnings: what a reader must know besides.
    """

    target: str
    probability: float
    called: bool
    watched: str
    method: str
    locates: bool
    reacted: bool
    place: str
    zone: str
    side: str
    peak: tuple[int, ...] | None
    shares: Mapping[str, float]
    area: float
    evidence: float
    without: float | None
    elsewhere: tuple[float, ...]
    level: str
    signal_to_noise: float | None
    spread: float | None
    in_mm: bool
    bars: str
    hits: Hits | None
    out_of_distribution: float | None
    sanity: bool | None
    doubts: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def text(self) -> str:
        """The headline, then the details."""
        return " ".join([self.headline, *self.details])

    @property
    def headline(self) -> str:
        """Where and how strongly, in two short sentences."""
        if not self.reacted:
            early = STOPPED in self.warnings
            said = "The method was stopped before it found anything" if early else "Nothing reacted"
            return f"{said}: the map of {self._about} is flat{'; give it more time' if early else ''}."
        if not self.evidence:
            return f"Nothing on this scan supports {self._about}. What reacted speaks against it."
        if self.doubts:
            return f"No place is named, because the film is in doubt. {self.doubts[0]}"
        if not self.locates:
            return (
                f"No place is named: maps of {self.method} do not show where the evidence for {self._about} lies. "
                "Ask another method, such as occlusion or Grad-CAM."
            )
        return f"{self._where} {self._strength}"

    @property
    def details(self) -> tuple[str, ...]:
        """What speaks against believing the headline, then what else was measured; one sentence each."""
        if not self.reacted:
            return tuple(w for w in (*self.doubts, *self.warnings) if w != STOPPED)
        if not self.evidence:
            return (*self.doubts, *self.warnings)
        said = [*self.doubts[1:], *self.warnings]
        if not self._named:
            return (*said, *self._checks)
        return (*said, *self._others, *self._reliable, *self._checks, *self._unknown)

    def as_dict(self) -> dict[str, Any]:
        """The numbers and the words as plain JSON values."""
        record = dataclasses.asdict(self) | {
            "headline": self.headline, "details": list(self.details), "text": self.text
        }  # fmt: skip
        lists = {"peak": self.peak, "elsewhere": self.elsewhere, "doubts": self.doubts, "warnings": self.warnings}
        return record | {k: None if v is None else list(v) for k, v in lists.items()} | {"shares": dict(self.shares)}

    @property
    def _named(self) -> bool:
        return self.locates and not self.doubts

    @property
    def _about(self) -> str:
        if self.watched:
            return self.watched
        if math.isnan(self.probability):
            return self.target
        known = self.target if self.called else f"{self.target}, which the model does not call"
        return f"{known} (probability {percent(self.probability)})"

    @property
    def _at(self) -> str:
        peak = self.peak or ()
        axes = ("slice", "row", "column")[-len(peak) :]
        return ", ".join(f"{axis} {i}" for axis, i in zip(axes, peak, strict=True))

    @property
    def _where(self) -> str:
        if not self.place:
            return f"Around {self._at}: the strongest evidence for {self._about}."
        place = self.place.removeprefix("the ")
        share = self.shares[self.place]
        if share < SPREAD:
            where = f"the maximum lies {_at(self.place)}, {percent(share)} of all"
            return f"The evidence for {self._about} is spread; {where}."
        how = "most of the evidence" if share >= MAINLY else "the strongest evidence"
        return f"{place[0].upper()}{place[1:]}: {how} for {self._about}, {percent(share)} of all."

    @property
    def _strength(self) -> str:
        if self.without is None:
            return f"The strongest region holds {percent(self.evidence)} of it on {percent(self.area)} of the scan."
        fall = self.probability - self.without
        if fall < HARDLY * self.probability or self.probability == 0:
            kept = "stays" if fall >= -HARDLY * self.probability else "rises instead of falling"
            return f"With that region hidden the probability {kept} ({percent(self.without)}): no single place decides."
        said = f"With that region hidden the probability is {percent(self.without)}"
        if len(self.elsewhere) < FEWEST:
            return f"{said}, but its shape fits nowhere else, so that it cannot be compared with other places."
        same = sum(p <= self.without for p in self.elsewhere)
        with_others = f"with the same shape hidden at {len(self.elsewhere)} other places it is "
        with_others += percent(float(np.mean(self.elsewhere)))
        if not same:
            return f"{said}; {with_others} on average and never that low."
        return f"{said}; {with_others} on average, and as low at {same} of them."

    @property
    def _others(self) -> list[str]:
        if not self.place:
            return []
        others = [f"{percent(s)} lies {_at(p)}" for p, s in self.shares.items() if p != self.place and s >= 0.15]
        also = f"; {' and '.join(others[:2])}" if others else ""
        return [f"The maximum is at {self._at}{also}."]

    @property
    def _reliable(self) -> list[str]:
        if self.watched:
            return []
        if self.hits is None:
            return ["How reliable such maps are was not measured for this model, method and removal."]
        return [self.hits.sentence]

    @property
    def _checks(self) -> list[str]:
        said = []
        if self.signal_to_noise is not None and self._named:
            unit = "mm" if self.in_mm else "pixels"
            place = "" if self.spread is None else f", its place to about {max(self.spread, 1):.0f} {unit}"
            noise = f"{self.signal_to_noise:.1f}" if self.signal_to_noise < 20 else "over 20"
            source = {
                "method": "draws of the method's random numbers",
                "copies": "small shifts of the scan",
            }.get(self.bars, "repetitions")
            said.append(
                f"{self.level[0].upper()}{self.level[1:]} over {source}: the peak stands {noise} standard errors above "
                f"zero{place}; that does not say whether the method is right."
            )
        if self.out_of_distribution is not None:
            said.append(
                f"{percent(self.out_of_distribution)} of the strongest reactions came from perturbed scans unlike "
                f"those that the model knows (p < {LEVEL:g})."
                if self.out_of_distribution
                else "The perturbed scans behind it are like those that the model knows."
            )
        if self.sanity is not None:
            said.append(
                "The sanity check passes: with random weights the model gives another map."
                if self.sanity
                else "The sanity check FAILS: with random weights the model gives much the same map, so it shows the "
                "scan rather than the model."
            )
        return said

    @property
    def _unknown(self) -> list[str]:
        unknown = {
            "whether it is repeatable (error bars)": self.signal_to_noise,
            "whether the perturbed scans are like those that the model knows": self.out_of_distribution,
            "whether the map depends on what the model has learnt (sanity check)": self.sanity,
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
) -> Verdict:
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
    method = METHODS.get(str(about["method"].get("name")))
    hits = known_hits(explanation)
    locates = (method is None or method.locates) and (hits is None or hits.tells)
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
    question = about["question"]
    off = explanation.facts.get("out-of-distribution evidence")
    return Verdict(
        target=explanation.target,
        probability=explanation.probability,
        called=_called(explanation),
        watched=str(question["label"]) if str(question["watch"]).startswith("layer") else "",
        method=str(about["method"]["title"]),
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
        bars=str(about.get("error_bars", {}).get("from", "none")),
        hits=hits,
        out_of_distribution=None if off is None else float(off),
        sanity=sanity,
        doubts=tuple(doubts),
        warnings=tuple(_warnings(explanation, named, place, shares)),
    )


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
    frame = engine.classifier.frame(scan)

    def on_grid(mask: NDArray[np.bool_]) -> Tensor:
        return frame.to_grid(torch.from_numpy(mask.astype(np.float32))[None])[0].clamp(0, 1)

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
    spacing = explanation.provenance["scan"]["spacing"]
    in_mm = spacing is not None
    if error is None or peak is None or not heatmap.max() > 0:
        return None, None, in_mm
    noise = float(heatmap[peak] / max(float(error[peak]), 1e-12))
    apart = explanation.provenance.get("error_bars", {}).get("moved")
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
