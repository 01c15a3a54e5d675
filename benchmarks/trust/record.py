"""What the trust benchmark remembers: one row for each method or removal on each scan, and what rows add up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from lucency.records import FORMAT, Count, Real, Record

Part = Literal["validation", "test"]
Interval = tuple[float, float, float]
"""A mean, and the ends of its 95 % interval."""


FORMERLY = {"half": "part", "hit": "pointing_game", "mass": "energy"}


@dataclass(frozen=True)
class Effects(Record):
    """How the effects under a removal agree with the true ones, see :func:`lucency.metrics.gold.agreement`."""

    pearson: float
    spearman: float
    slope: float


@dataclass(frozen=True)
class Artefact(Record):
    """What a removal does to a healthy scan: how often it looks abnormal, by how much more, the worst, of how many."""

    rate: float
    rise: float
    worst: float
    copies: Count


@dataclass(frozen=True)
class MapResult(Record):
    """What one map is worth.

    Attributes:
        seconds: of the processor.
        evaluations, gradients: what the map cost.
        probability: of the class on the clean scan.
        pointing_game, iou, threshold, energy, top, area: see :class:`lucency.metrics.localisation.Localisation`.
        ious: the overlap at each of ``THRESHOLDS``.
        gold, gold_rank: agreement with the gold-standard map, where there is one.
        aopc, road, stability: of the test part.
    """

    seconds: float
    evaluations: Count
    gradients: Count
    probability: Real
    pointing_game: bool
    iou: float
    threshold: float
    energy: float
    top: float
    area: float
    ious: tuple[float, ...]
    gold: float | None = None
    gold_rank: float | None = None
    aopc: float | None = None
    road: float | None = None
    stability: float | None = None


@dataclass(frozen=True)
class RemovalResult(Record):
    """What one removal is worth: by what was watched, and by the pieces that were taken away."""

    effects: Mapping[str, Effects] = field(default_factory=dict)
    artefacts: Mapping[str, Artefact] = field(default_factory=dict)


@dataclass(frozen=True)
class TrustRow(Record):
    """One method with one removal on one scan, or one removal on one scan.

    Attributes:
        what: which of the two.
        kind: of the scan, see :class:`trust.measuring.Case`.
        key: what tells the scan from others, before it is read.
        method, removal: with their settings, as on the command line.
        watch: what was watched.
        fingerprint, painter: hashes of the weights of the classifier, and of what stands where something is gone.
        case: the name of the scan.
        took: seconds of the processor in all.
        part: what the scan is for; ``None`` for one that could not be read.
        patient, volume_ml, side: what is known of the scan.
        map, removed: the result.
        error: why there is none.
    """

    what: Literal["map", "removal"]
    kind: str
    key: str
    method: str
    removal: str
    watch: str
    fingerprint: str
    painter: str
    case: str
    took: float
    part: Part | None = None
    patient: str | None = None
    volume_ml: float | None = None
    side: str | None = None
    map: MapResult | None = None
    removed: RemovalResult | None = None
    error: str = ""
    format: Annotated[int, lambda value: value > 0] = FORMAT

    @property
    def id(self) -> tuple[str, ...]:
        """What no other row has."""
        return self.what, self.kind, self.key, self.method, self.removal, self.watch

    @property
    def who(self) -> tuple[str, str]:
        """The contestant."""
        return self.method, self.removal

    @property
    def patient_or_case(self) -> str:
        """What is drawn again when an interval is estimated."""
        return self.patient or self.case

    @classmethod
    def _nested(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        if "format" in given:
            return given
        # Before there were classes, everything lay side by side, under other words.
        given = {"painter": "", **{FORMERLY.get(key, key): value for key, value in given.items()}}
        if "part" in given:
            given["part"] = {"choose": "validation", "report": "test"}.get(given["part"])
        if "error" in given:
            return given
        if given.get("what") == "map":
            return {
                **given,
                "map": {"probability": None, **{f.name: given[f.name] for f in fields(MapResult) if f.name in given}},
            }
        found = {key: given[key] for key in ("logit", "probability") if key in given}
        return {**given, "removed": {"effects": found, "artefacts": given.get("artefacts", {})}}


@dataclass(frozen=True)
class MethodRow(Record):
    """What one method with one removal is worth over many scans.

    Attributes:
        threshold: of the overlap, chosen on the validation part.
        numbers: each with its interval, by name.
        evaluations, gradients, seconds: medians.
    """

    method: str
    removal: str
    cases: int
    threshold: float
    numbers: Mapping[str, Interval]
    evaluations: float
    gradients: float
    seconds: float

    @property
    def who(self) -> tuple[str, str]:
        """The contestant."""
        return self.method, self.removal

    @property
    def score(self) -> float:
        """The mean of pointing game, overlap and agreement with the gold standard, as far as they are known."""
        known = [self.numbers[key][0] for key in ("pointing_game", "iou", "gold") if key in self.numbers]
        return sum(known) / len(known)


@dataclass(frozen=True)
class RemovalRow(Record):
    """What one removal is worth over many scans.

    Attributes:
        numbers: each with its interval, by name: ``"logit pearson"``, ``"patch 16 rate"``, ...
        normal: how many scans were called normal as they are, so that artefacts could be counted.
    """

    removal: str
    cases: int
    numbers: Mapping[str, Interval]
    normal: int = 0
