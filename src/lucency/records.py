"""What an explanation remembers, as frozen dataclasses that become plain JSON values and come back checked.

What is read was perhaps made by hand, so every field has the type and the range that its annotation says, texts and
lists have a most, and what does not fit is refused by name.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from lucency.errors import ParameterError

FORMAT = 2
"""Of provenance and verdict. 1, which says no format, is what Lucency 0.1.0 wrote before there were these classes."""
MOST_TEXT = 100_000
MOST_ITEMS = 10_000
GAP = "null means not a number"
"""Marks a float that may be NaN, for which JSON has no word."""


def _not_negative(value: float) -> bool:
    return value >= 0


def _positive(value: float) -> bool:
    return value > 0


def _share(value: float) -> bool:
    return -1e-6 <= value <= 1 + 1e-6


def _of_three(value: tuple[Any, ...]) -> bool:
    return len(value) <= 3


def _ascending(value: tuple[float, ...]) -> bool:
    return all(a < b for a, b in pairwise(value))


Count = Annotated[int, _not_negative]
Positive = Annotated[float, _positive]
Share = Annotated[float, _share]
Real = Annotated[float, GAP]
Fact = Annotated[bool | int | float | str, GAP]


class _UnfitError(ValueError):
    """A value is not what its annotation says."""


class Record:
    """Base of the frozen dataclasses here."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; what is no finite number becomes ``None``."""
        found: dict[str, Any] = plain({f.name: getattr(self, f.name) for f in dataclasses.fields(self)})  # type: ignore[arg-type]
        return found

    @classmethod
    def from_dict(cls, given: object) -> Self:
        """What :meth:`as_dict` made, also of older versions; keys that nobody knows are passed over.

        Raises:
            ParameterError: naming what is missing or does not fit.
        """
        try:
            return cls.read(given, cls.__name__)
        except ValueError as error:
            raise ParameterError(f"This is no {cls.__name__} that Lucency wrote ({error}); make it again.") from error

    @classmethod
    def read(cls, given: object, where: str) -> Self:
        """As :meth:`from_dict`, for whoever has words of their own around what does not fit.

        Args:
            where: what is read, for the message.

        Raises:
            ValueError: ``"<key> is missing in <where>"`` or ``"<key> in <where> is not what it should be"``.
        """
        if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
            raise _UnfitError(f"{where} is not what it should be")
        stored = cls._nested(given)
        values: dict[str, Any] = {}
        hints = _hints(typing.cast(Hashable, cls))
        for f in dataclasses.fields(cls):  # type: ignore[arg-type]
            if f.name not in stored:
                if f.name == "format":
                    values["format"] = 1
                elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
                    raise ValueError(f"{f.name} is missing in {where}")
                continue
            try:
                values[f.name] = _fitted(hints[f.name], stored[f.name], f.name)
            except _UnfitError as error:
                raise ValueError(f"{f.name} in {where} is not what it should be") from error
        if values.get("format", FORMAT) > FORMAT:
            raise ValueError(f"{where} is of a newer Lucency")
        return cls(**values)

    @classmethod
    def _nested(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """The stored keys as the fields have them."""
        return given


@dataclass(frozen=True)
class ScanRecord(Record):
    """Which scan it was.

    Attributes:
        source: the name of its file, or a hash in its place.
        sha256: of its pixels.
        shape: its spatial size.
        spacing: mm along each axis, where that is known.
        value_range: the values of its file that are shown as black and white; 0 and 1 in files that do not say.
    """

    source: str
    sha256: str
    shape: Annotated[tuple[Count, ...], _of_three]
    spacing: Annotated[tuple[Positive, ...], _of_three] | None
    value_range: Annotated[tuple[float, float], _ascending] = (0.0, 1.0)


@dataclass(frozen=True)
class ModelRecord(Record):
    """Which classifier it was.

    Attributes:
        name: as it was loaded.
        fingerprint: a hash of its weights.
        grid: the spatial size of its input.
        margins: how many pixels are padded before and after each axis of the scan.
    """

    name: str
    fingerprint: str
    grid: Annotated[tuple[Count, ...], _of_three]
    margins: Annotated[tuple[tuple[Count, Count], ...], _of_three]


@dataclass(frozen=True)
class QuestionRecord(Record):
    """What was watched.

    Attributes:
        target: index of the class.
        name: the class.
        watch: ``"probability"``, ``"logit"``, ``"margin"``, ``"number"`` or ``"layer:NAME:UNIT"``.
        label: the watched number in words.
        score: what it was on the clean scan.
    """

    target: Count
    name: str
    watch: str
    label: str
    score: float

    @property
    def of_layer(self) -> bool:
        """Whether a feature map is watched, rather than a number of a class."""
        return self.watch.startswith("layer")


@dataclass(frozen=True)
class MethodRecord(Record):
    """The method with its parameters.

    Attributes:
        name, title, paper, unit, panel, axes, locates, grainy: as :class:`~lucency.methods.base.Method` says.
        parameters: plain JSON values; a part such as the removal is ``{"name": ..., "parameters": {...}}``.
    """

    name: str
    title: str
    paper: str
    unit: str
    panel: Literal["map", "curve", "scatter"] = "map"
    axes: tuple[str, str] = ("", "")
    locates: bool = True
    grainy: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def removal(self) -> str:
        """The name of what stood where something was removed; empty for a method without a removal."""
        standing = self.parameters.get("removal")
        return str(standing.get("name", "")) if isinstance(standing, Mapping) else ""


@dataclass(frozen=True)
class Cost(Record):
    """What it took.

    Attributes:
        evaluations: forward passes (scans, not batches).
        gradients: backward passes.
        seconds: by the clock on the wall.
        overhead: forward passes by which the engine got to know the classifier and tried its own short cuts; a second
            run on the same engine needs fewer of them.
    """

    evaluations: Count = 0
    gradients: Count = 0
    seconds: float = 0.0
    overhead: Count = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.evaluations + other.evaluations,
            self.gradients + other.gradients,
            self.seconds + other.seconds,
            self.overhead + other.overhead,
        )


@dataclass(frozen=True)
class RemovalRecord(Record):
    """What stood where something was removed, and why that."""

    name: str
    reason: str


@dataclass(frozen=True)
class ErrorBars(Record):
    """Where the standard error is from.

    Attributes:
        source: the method itself, moved copies of the scan, or ``"none"``.
        copies: how many copies there were.
        cost: of the copies.
        moved: how far the maximum of each copy's map lies from that of the scan's, in pixels along each axis.
    """

    source: Literal["none", "method", "copies"] = "none"
    copies: Count = 0
    cost: Cost = Cost()
    moved: tuple[Annotated[tuple[int, ...], _of_three], ...] | None = None

    def as_dict(self) -> dict[str, Any]:
        """As :class:`Record` does; the cost lies beside the rest, and what says nothing is left out."""
        found: dict[str, Any] = {"from": self.source}
        if self.source == "copies":
            found |= {"copies": self.copies, **self.cost.as_dict()}
        return found if self.moved is None else {**found, "moved": plain(self.moved)}

    @classmethod
    def _nested(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        return _with_cost({**given, **({"source": given["from"]} if "from" in given else {})})


@dataclass(frozen=True)
class Provenance(Record):
    """What is needed to repeat an explanation.

    Attributes:
        scan, model, question, method: what was explained, and how.
        seed: of everything that is drawn by chance.
        device: where the classifier ran.
        budget: seconds it had; ``None`` for as long as it took.
        complete: whether the method ran to its end.
        cost: of all of it.
        costs: the same by what it was for: ``"map"``, and as far as they were asked about, ``"film"`` (can it be what
            the model reads?), ``"error bars"``, ``"out-of-distribution"``, ``"sanity check"`` and ``"verdict"``. Empty
            for a bare map.
        made: date and time, ISO 8601.
        versions: of Lucency and of what it stands on.
        error_bars: where the standard error is from.
        removal: what stood where something was removed and why; ``None`` for a method without a removal, and for a
            bare map.
        format: the version of this record.
    """

    scan: ScanRecord
    model: ModelRecord
    question: QuestionRecord
    method: MethodRecord
    seed: int
    device: str
    budget: Positive | None
    complete: bool
    cost: Cost
    made: str
    versions: Mapping[str, str]
    error_bars: ErrorBars = ErrorBars()
    removal: RemovalRecord | None = None
    costs: Mapping[str, Cost] = field(default_factory=dict)
    format: Annotated[int, _positive] = FORMAT

    @property
    def spent_on(self) -> str:
        """What the evaluations were for, in words: ``"map 730, verdict 20"``; empty for a bare map."""
        return ", ".join(f"{part} {cost.evaluations:,}" for part, cost in self.costs.items() if cost.evaluations)

    def as_dict(self) -> dict[str, Any]:
        """As :class:`Record` does; the cost lies beside the rest."""
        found = super().as_dict()
        found |= found.pop("cost")
        if self.removal is None:
            del found["removal"]
        return found

    @classmethod
    def _nested(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        return _with_cost(given, required=True)


@dataclass(frozen=True)
class EvaluationProvenance(Record):
    """What is needed to repeat an evaluation of maps; see :class:`Provenance`."""

    scan: ScanRecord
    model: ModelRecord
    device: str
    cost: Cost
    format: Annotated[int, _positive] = FORMAT

    def as_dict(self) -> dict[str, Any]:
        """As :class:`Record` does; the cost lies beside the rest."""
        found = super().as_dict()
        found |= found.pop("cost")
        return found

    @classmethod
    def _nested(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        return _with_cost(given, required=True)


@dataclass(frozen=True)
class Hits(Record):
    """How often maps of one model, method and removal were right.

    Attributes:
        truth: what was known of the scans.
        scans: how many there were.
        peak: on how many the maximum lay on the truth.
        sided: on how many the verdict named a side.
        side: on how many of those it was the right one.
    """

    truth: str
    scans: Annotated[int, _positive]
    peak: Count
    sided: Count
    side: Count


@dataclass(frozen=True)
class VerdictRecord(Record):
    """What the map says, in words and in the numbers behind them, as :func:`lucency.checks.verdict.judge` put it.

    Attributes:
        headline: where and how strongly, in two short sentences.
        details: what speaks against believing the headline, then what else was measured; one sentence each.
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
        level: how repeatable the peak is, in a word; empty without a standard error.
        signal_to_noise: the peak in standard errors, or ``None``.
        spread: how far the peak may be off: root mean square distance, in mm where the spacing is known, else pixels.
        in_mm: which of the two.
        bars: where the standard error is from: "method", "copies" or "none".
        hits: how often such maps were right where the truth is known, if that was measured.
        out_of_distribution: share of the strongest reactions from scans unlike what the model knows, or ``None``.
        sanity: whether the method's maps of this model depend on what the model has learnt, or ``None``.
        doubts: why the film cannot be what the model reads, one sentence each.
        warnings: what a reader must know besides.
        format: the version of this record.
    """

    headline: str
    details: tuple[str, ...]
    target: str = ""
    probability: Real = math.nan
    called: bool = False
    watched: str = ""
    method: str = ""
    locates: bool = True
    reacted: bool = False
    place: str = ""
    zone: str = ""
    side: str = ""
    peak: Annotated[tuple[int, ...], _of_three] | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    area: float = 0.0
    evidence: float = 0.0
    without: float | None = None
    elsewhere: tuple[float, ...] = ()
    level: str = ""
    signal_to_noise: float | None = None
    spread: float | None = None
    in_mm: bool = False
    bars: str = "none"
    hits: Hits | None = None
    out_of_distribution: float | None = None
    sanity: bool | None = None
    doubts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    format: Annotated[int, _positive] = FORMAT

    @property
    def text(self) -> str:
        """The headline, then the details."""
        return " ".join([self.headline, *self.details])

    def as_dict(self) -> dict[str, Any]:
        """As :class:`Record` does, with the whole text."""
        return super().as_dict() | {"text": self.text}


@dataclass(frozen=True)
class Contents(Record):
    """What a file of an explanation says beside its arrays.

    Attributes:
        also: the names of the further maps.
        probabilities, facts, notices: as in :class:`~lucency.explanation.Explanation`.
    """

    also: tuple[str, ...]
    probabilities: Mapping[str, Share]
    facts: Mapping[str, Fact]
    provenance: Provenance
    verdict: VerdictRecord | None = None
    notices: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As :class:`Record` does; without a verdict, an empty one, as Lucency 0.1.0 has it."""
        return {**super().as_dict(), "verdict": {} if self.verdict is None else self.verdict.as_dict()}

    @classmethod
    def _nested(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**given, "verdict": None} if given.get("verdict") == {} else given


def plain(value: Any) -> Any:
    """A value as JSON has it: records and mappings as dictionaries, sequences as lists, ``None`` for NaN."""
    if isinstance(value, Record):
        return value.as_dict()
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_cost(given: Mapping[str, Any], *, required: bool = False) -> dict[str, Any]:
    keys = [f.name for f in dataclasses.fields(Cost)]
    # Older files know nothing of an overhead.
    if required and (missing := next((key for key in keys[:3] if key not in given), None)):
        raise ValueError(f"{missing} is missing in provenance")
    return {**given, "cost": {key: given[key] for key in keys if key in given}}


@cache
def _hints(cls: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _fitted(hint: Any, value: Any, key: str) -> Any:
    """The value as its annotation has it.

    Raises:
        ValueError: naming what does not fit inside a record.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        if GAP in inner[1:] and value is None:
            return math.nan
        found = _fitted(inner[0], value, key)
        if not all(fits(found) for fits in inner[1:] if callable(fits)):
            raise _UnfitError
        return found
    if origin in (typing.Union, types.UnionType):
        return _one_of(inner, value, key)
    if origin is Literal:
        if isinstance(value, str) and value in inner:
            return value
        raise _UnfitError
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) > MOST_ITEMS:
            raise _UnfitError
        each = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        if len(each) != len(value):
            raise _UnfitError
        return tuple(_fitted(one, v, key) for one, v in zip(each, value, strict=True))
    if origin is np.ndarray:
        return _array(typing.get_args(inner[1])[0], value)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise _UnfitError
        return {_fitted(str, k, key): _fitted(inner[1], v, key) for k, v in value.items()}
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint.read(value, key)
    return _plain_value(hint, value)


def _array(dtype: type[np.generic], value: Any) -> NDArray[Any]:
    """Nested lists of numbers as an array; ``None`` among them as NaN."""
    if not isinstance(value, list | np.ndarray):
        raise _UnfitError
    try:
        found = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise _UnfitError from error
    return found.astype(dtype)


def _one_of(hints: tuple[Any, ...], value: Any, key: str) -> Any:
    if value is None and type(None) in hints:
        return None
    left = [hint for hint in hints if hint is not type(None)]
    for hint in left[:-1]:
        try:
            return _fitted(hint, value, key)
        except _UnfitError:
            continue
    return _fitted(left[-1], value, key)


def _plain_value(hint: Any, value: Any) -> Any:
    if hint is Any:
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    if hint is float and number:
        return float(value)
    if hint is int and number and isinstance(value, int) and abs(value) < 2**63:
        return value
    if hint is bool and isinstance(value, bool):
        return value
    if hint is str and isinstance(value, str) and len(value) <= MOST_TEXT:
        return value
    raise _UnfitError
