"""What a map says, in plain words made of its numbers: where, how strongly, how sure, and what speaks against it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from lucency.checks.out_of_distribution import LEVEL
from lucency.classifier import Question
from lucency.engine import Engine
from lucency.explanation import Explanation
from lucency.lungs import lung_fields, places
from lucency.removal import Removal
from lucency.scan import Scan

REGION = 0.5
"""Share of the maximum down to which what is connected to it counts as the strongest region."""
LEVELS = ((5.0, "certain"), (3.0, "fairly certain"), (2.0, "uncertain"), (-np.inf, "not reliable"))
"""How sure a peak of so many standard errors is called."""
MAINLY = 0.5
STOPPED = "The method was stopped before its end."
ASTRAY = 0.4
"""Share of the evidence outside the lungs from which on the verdict warns."""


@dataclass(frozen=True)
class Verdict:
    """The numbers behind the words.

    Attributes:
        target: the class.
        probability: of it, on the clean scan.
        watched: what was watched, when that is not the class: a unit of a layer.
        place: the name of the place of the strongest region; empty where the scan has no named places.
        zone, side: the same in parts; the side is the patient's.
        peak: index of the map's maximum on the scan.
        shares: share of the supporting evidence in each named place, the largest first, or empty.
        area: share of the scan that the strongest region takes.
        evidence: share of the supporting evidence in it.
        without: the probability when the strongest region is removed, if that was asked.
        level: one of the words of :data:`LEVELS`; empty without a standard error.
        signal_to_noise: the peak in standard errors, or ``None``.
        spread: how far the peak may be off: root mean square distance, in mm where the spacing is known, else pixels.
        in_mm: which of the two.
        bars: where the standard error is from: "method", "copies" or "none".
        out_of_distribution: share of the strongest reactions from scans unlike what the model knows, or ``None``.
        sanity: whether the method's maps of this model depend on what the model has learnt, or ``None``.
        warnings: what a reader must know besides.
    """

    target: str
    probability: float
    watched: str
    place: str
    zone: str
    side: str
    peak: tuple[int, ...]
    shares: Mapping[str, float]
    area: float
    evidence: float
    without: float | None
    level: str
    signal_to_noise: float | None
    spread: float | None
    in_mm: bool
    bars: str
    out_of_distribution: float | None
    sanity: bool | None
    warnings: tuple[str, ...]

    @property
    def explains(self) -> float | None:
        """Share of the probability that goes when the strongest region is removed; ``None`` of a probability of 0."""
        if self.without is None or self.probability == 0:
            return None
        return (self.probability - self.without) / self.probability

    @property
    def text(self) -> str:
        """Everything in a few sentences."""
        if not self.evidence and STOPPED in self.warnings:
            return f"The method was stopped before it found evidence for {self._about}; give it more time."
        if not self.evidence:
            return " ".join([f"Nothing on this scan supports {self._about}.", *self.warnings])
        return " ".join([self._where, self._strength, *self._checks, *self.warnings, *self._unknown])

    def as_dict(self) -> dict[str, Any]:
        """The numbers and the text as plain JSON values."""
        record = dataclasses.asdict(self) | {"explains": self.explains, "text": self.text}
        return record | {"peak": list(self.peak), "warnings": list(self.warnings), "shares": dict(self.shares)}

    @property
    def _about(self) -> str:
        if self.watched:
            return self.watched
        return f"{self.target} (probability {percent(self.probability)})"

    @property
    def _at(self) -> str:
        axes = ("slice", "row", "column")[-len(self.peak) :]
        return ", ".join(f"{axis} {i}" for axis, i in zip(axes, self.peak, strict=True))

    @property
    def _where(self) -> str:
        if not self.place:
            return f"Evidence for {self._about} lies mainly around {self._at}."
        share = self.shares[self.place]
        how = "lies mainly at" if share >= MAINLY else "is strongest at"
        said = f"Evidence for {self._about} {how} {self.place} ({percent(share)} of it; peak at {self._at})"
        others = [f"{percent(s)} lies at {p}" for p, s in self.shares.items() if p != self.place and s >= 0.15]
        return f"{said}; {' and '.join(others[:2])}." if others else f"{said}."

    @property
    def _strength(self) -> str:
        if self.without is None:
            return f"The strongest region holds {percent(self.evidence)} of it on {percent(self.area)} of the scan."
        said = f"Without the strongest region ({percent(self.area)} of the scan) the probability is "
        said += percent(self.without)
        if self.explains is None or self.explains < -0.05:
            return f"{said}, not less: as a whole, the region does not support the answer."
        if self.explains < 0.05:
            return f"{said}, hardly less: no single region decides."
        return f"{said}: it explains {percent(self.explains)} of the answer."

    @property
    def _checks(self) -> list[str]:
        said = []
        if self.signal_to_noise is not None:
            noise = f"{self.signal_to_noise:.1f}" if self.signal_to_noise < 100 else "over 100"
            unit = "mm" if self.in_mm else "pixels"
            place = "" if self.spread is None else f", and its place is known to about {max(self.spread, 1):.0f} {unit}"
            level = self.level[0].upper() + self.level[1:]
            said.append(f"{level}: the peak stands {noise} standard errors above zero{place}.")
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
            "how sure that is (error bars)": self.signal_to_noise,
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
) -> Verdict:
    """What the map says.

    Args:
        explanation: with a heatmap of two or three axes.
        scan, engine, removal: when all are given, the strongest region is removed to see what the probability does.
        sanity: whether randomising the model's weights changes the map (:mod:`lucency.checks.sanity`).
    """
    heatmap = explanation.heatmap
    supporting = heatmap.clip(min=0).astype(np.float64)
    total = float(supporting.sum())
    region = strongest(heatmap)
    place, zone, side, shares = "", "", "", {}
    lungs = None if heatmap.ndim != 2 else lung_fields(Scan.from_array(explanation.pixels))
    if lungs is not None and total > 0:
        names, numbers = places(lungs)
        by_place = np.bincount(numbers.ravel(), supporting.ravel(), len(names)) / total
        in_region = np.bincount(numbers[region], supporting[region], len(names))
        found = names[int(in_region.argmax())]
        place, zone, side = str(found), found.zone, found.side
        order = np.argsort(-by_place, kind="stable")
        shares = {str(names[i]): float(by_place[i]) for i in order if by_place[i] > 0}
    without = None
    if scan is not None and engine is not None and removal is not None and region.any():
        without = _without(explanation, region, scan, engine, removal)
    noise, spread, in_mm = _sureness(explanation)
    evidence = float(supporting[region].sum() / total) if total > 0 else 0.0
    question = explanation.provenance["question"]
    off = explanation.facts.get("out-of-distribution evidence")
    return Verdict(
        target=explanation.target,
        probability=explanation.probability,
        watched=str(question["label"]) if str(question["watch"]).startswith("layer") else "",
        place=place,
        zone=zone,
        side=side,
        peak=explanation.peak,
        shares=shares,
        area=float(region.mean()),
        evidence=evidence,
        without=without,
        level="" if noise is None else next(word for least, word in LEVELS if noise >= least),
        signal_to_noise=noise,
        spread=spread,
        in_mm=in_mm,
        bars=str(explanation.provenance.get("error_bars", {}).get("from", "none")),
        out_of_distribution=None if off is None else float(off),
        sanity=sanity,
        warnings=tuple(_warnings(explanation, place, shares)),
    )


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


def _without(
    explanation: Explanation, region: NDArray[np.bool_], scan: Scan, engine: Engine, removal: Removal
) -> float:
    """The probability of the class when the region is removed."""
    frame = engine.classifier.frame(scan)
    kept = 1 - frame.to_grid(torch.from_numpy(region.astype(np.float32))[None]).clamp(0, 1)
    question = Question.ask(engine.classifier, scan, explanation.target, "probability")
    return float(engine.open(scan, question, removal).scores(kept)[0, 0])


def _sureness(explanation: Explanation) -> tuple[float | None, float | None, bool]:
    """The peak in standard errors, how far it may be off, and whether that is in mm."""
    error, heatmap, peak = explanation.standard_error, explanation.heatmap, explanation.peak
    spacing = explanation.provenance["scan"]["spacing"]
    in_mm = spacing is not None
    if error is None or not heatmap.max() > 0:
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


def _warnings(explanation: Explanation, place: str, shares: Mapping[str, float]) -> list[str]:
    found = []
    if not explanation.complete:
        found.append(STOPPED)
    if explanation.probability < 0.5 and explanation.heatmap.max() > 0:
        found.append(f"The model does not call this scan {explanation.target}.")
    outside = sum(share for name, share in shares.items() if name.endswith("outside the lungs"))
    if outside >= ASTRAY:
        found.append(
            f"{percent(outside)} of the evidence lies outside the lungs: the model may be reading something else."
        )
    if not place and explanation.heatmap.ndim == 2:
        found.append("No lungs were found on this scan, so its places have no names.")
    return found
