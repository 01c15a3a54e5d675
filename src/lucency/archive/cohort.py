"""What an archive says as a whole, read from its shards one batch after the other.

Mean maps need one number for each pixel and group, the ranked films are kept in heaps, and everything that needs the
single films (intervals, the test between sites) is computed on a random sample of them: memory does not grow.
"""

from __future__ import annotations

import heapq
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from lucency.archive.common import SIDE, WHOLE, in_common
from lucency.archive.evidence import KINDS, Kind, Landmarks
from lucency.archive.manifest import batches, head, outdated, shards
from lucency.archive.place import Place
from lucency.archive.rows import map_of
from lucency.errors import OutputError
from lucency.metrics.bootstrap import interval

Floats = NDArray[np.float32]

SAMPLE = 4000
"""Films on which intervals and tests are computed, drawn by chance where there are more."""
FEW = 5
"""Films below which a group has no interval, and no part in a test."""
GROUPS = 8
"""Values of a column that are shown; those of the films that come later are counted together."""
BANDS = ((0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))
DIMENSIONS = ("label", "score", "view", "site", "group")
RANKED = 12
STRANGE = 20
FAILED = 50
PERMUTATIONS = 999
MOVED = 0.1
"""A fall of the probability that counts as moved."""
BLUR = 2.0
"""Pixels of the common field by which maps are blurred before they are compared."""
COLUMNS = (
    "path", "content", "same", "error", "kind", "label", "site", "view", "patient", "group", "target", "probability",
    "score", "called", "verdict", "place", "at", "shares", "on", "area", "effect", "p", "without", "repeatable",
    "out_of_distribution", "pointing_game", "energy", "top", "truth", "landmarks", "grid", "scale", "evaluations",
    "seconds", "folder",
)  # fmt: skip
HEAVY = ("map", "picture")


@dataclass(eq=False)
class Seen:
    """A film that is shown: what its row says, its map and its picture."""

    row: dict[str, Any]
    map: Floats
    picture: bytes | None


@dataclass(eq=False)
class Mean:
    """The mean map of a group: where its evidence lies on average, and the mean of its films.

    Attributes:
        maps: sum of densities in the common field, each of mean 1.
        pictures: sum of the films there; ``cover`` says how many of them reach each pixel.
        count: films in it; of these, ``without`` had no lungs or nothing that supports the answer.
        probability: sum; NaN where the model has none.
    """

    maps: NDArray[np.float64] = field(default_factory=lambda: np.zeros((SIDE, SIDE)))
    pictures: NDArray[np.float64] = field(default_factory=lambda: np.zeros((SIDE, SIDE)))
    cover: NDArray[np.float64] = field(default_factory=lambda: np.zeros((SIDE, SIDE)))
    count: int = 0
    without: int = 0
    probability: float = 0.0

    @property
    def density(self) -> Floats:
        """Evidence per area, 1 = as if it were spread evenly."""
        return (self.maps / max(1, self.count - self.without)).astype(np.float32)

    @property
    def film(self) -> Floats | None:
        """The mean film, 0..1."""
        if not self.cover.any():
            return None
        return (self.pictures / np.maximum(self.cover, 1e-9) * (self.cover > 0)).astype(np.float32)


@dataclass(frozen=True)
class Share:
    """A mean over films with its 95 % interval; no interval for fewer than :data:`FEW`."""

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class OnKind:
    """A kind of place over the whole cohort.

    Attributes:
        found: films on which there is such a place.
        evidence: share of the evidence on it, over these.
        area: mean share of the film that it takes.
        times: evidence over area.
        effect: fall of the probability when it is hidden.
        moved: films whose probability falls by more than :data:`MOVED`.
    """

    kind: Kind
    found: int
    evidence: Share
    area: float
    times: float
    effect: Share
    moved: int


@dataclass(frozen=True)
class Sites:
    """Whether the model looks at the same places at every site.

    Attributes:
        places: names, in the order of the shares.
        shares: for each site the share of the evidence at each place.
        apart: for each site, half the sum of the differences from all other films of like labels: 0 the same, 1 nothing
            in common.
        p: how often sites drawn by chance among patients of one label differ as much.
    """

    places: tuple[str, ...]
    shares: dict[str, list[Share]]
    apart: dict[str, float]
    p: float


@dataclass(eq=False)
class Cohort:
    """Everything the page shows.

    Attributes:
        head: the question, as in ``archive.json``.
        done, same, failed: films.
        errors: how many films failed of each kind of error, and some of them.
        means: mean maps by dimension and value; ``("all", "")`` is that of all films.
        sampled: films on which the intervals are.
        kinds: the shortcut finder's table.
        ranked: for each kind the films with most evidence on it, weighed by the probability.
        places: share of the evidence at each named place.
        sites: ``None`` where fewer than two sites have enough films.
        truth: pointing game, evidence in the truth, its share of the film, by name.
        strange: films whose maps are least like those of their kind, with how much is elsewhere, 0..1.
        cost: evaluations and seconds.
    """

    head: dict[str, Any]
    done: int = 0
    same: int = 0
    failed: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)
    means: dict[tuple[str, str], Mean] = field(default_factory=dict)
    sampled: int = 0
    kinds: list[OnKind] = field(default_factory=list)
    ranked: dict[Kind, list[Seen]] = field(default_factory=dict)
    places: dict[str, Share] = field(default_factory=dict)
    sites: Sites | None = None
    truth: dict[str, Share] = field(default_factory=dict)
    strange: list[tuple[float, Seen]] = field(default_factory=list)
    evaluations: int = 0
    seconds: float = 0.0
    unnamed: int = 0


def gathered(
    where: str, *, only: dict[str, str] | None = None, on_progress: Callable[[float], None] | None = None
) -> Cohort:
    """Reads a place.

    Args:
        only: the films whose columns have these values: ``{"group": "test"}``.
        on_progress: called with the share that is read.

    Raises:
        OutputError: when there are no results, or no film among them has an answer.
    """
    place = Place(where)
    found = Cohort(head(place))
    sample = _Sample()
    ranks: dict[Kind, _Best] = {kind: _Best(RANKED) for kind in KINDS}
    there = list(shards(place))
    told = on_progress or (lambda share: None)
    for seen, share in films_of(place, there, only or {}):
        told(share / 2)
        _counted(found, seen)
        if seen.row["error"] is not None or seen.row["same"]:
            continue
        common, picture = _carried(seen)
        for key in _groups(found, seen.row):
            _added(found.means.setdefault(key, Mean()), seen, common, picture)
        sample.add(seen.row)
        for kind, best in ranks.items():
            on = (seen.row["on"] or {}).get(kind)
            if on:
                best.add(on * _weight(seen.row), seen)
    if not found.done:
        chosen = " and ".join(f"{name} {value}" for name, value in (only or {}).items())
        raise OutputError(
            f"{place} holds no film with an answer{' of ' + chosen if chosen else ''}; look at its status."
        )
    _strangest(found, place, there, only or {}, told)
    found.ranked = {kind: best.films for kind, best in ranks.items() if best.films}
    _measured(found, sample.rows)
    return found


def films_of(
    place: Place, there: Sequence[Any], only: dict[str, str], columns: Sequence[str] = (*COLUMNS, *HEAVY)
) -> Iterator[tuple[Seen, float]]:
    """Film after film, and the share of the shards that is read."""
    grid = head(place)["grid"]
    gone = outdated(place)
    for at, shard in enumerate(there):
        number = 0
        for batch in batches(place, shard, columns):
            plain = batch.drop_columns(["map"])
            maps = batch.column("map").storage
            for i, row in enumerate(plain.to_pylist()):
                number += 1
                if (shard.name, number - 1) in gone or any(row[name] != value for name, value in only.items()):
                    continue
                for name in ("shares",):
                    row[name] = None if row[name] is None else dict(row[name])
                if row["scale"] is None:
                    values = np.zeros(tuple(grid), np.float32)
                else:
                    values = map_of(maps[i].values.to_numpy(), grid).astype(np.float32) * np.float32(row["scale"])
                yield Seen(row, values, row.pop("picture", None)), (at + number / len(shard.entries)) / len(there)


def _counted(found: Cohort, seen: Seen) -> None:
    row = seen.row
    if row["error"] is not None:
        found.failed += 1
        found.errors[str(row["kind"])] += 1
        if len(found.failures) < FAILED:
            found.failures.append((str(row["path"]), str(row["error"])))
    elif row["same"]:
        found.same += 1
    else:
        found.done += 1
        found.evaluations += int(row["evaluations"] or 0)
        found.seconds += float(row["seconds"] or 0)
        found.unnamed += row["landmarks"] is None


def _weight(row: dict[str, Any]) -> float:
    """How much a film counts: its probability, where the model has one."""
    probability = row["probability"]
    return 1.0 if probability is None or math.isnan(probability) else float(probability)


def _groups(found: Cohort, row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "all", ""
    for dimension in DIMENSIONS:
        value = band(row["probability"]) if dimension == "score" else row[dimension]
        if value is None:
            continue
        known = sum(key[0] == dimension for key in found.means)
        yield (dimension, str(value)) if (dimension, str(value)) in found.means or known < GROUPS else (dimension, "…")


def band(probability: float | None) -> str | None:
    """The band of a probability, in per cent: ``"50–75 %"``."""
    if probability is None or math.isnan(probability):
        return None
    low, high = next((pair for pair in BANDS if probability < pair[1]), BANDS[-1])
    return f"{100 * low:.0f}–{100 * high:.0f} %"


def _carried(seen: Seen) -> tuple[Floats | None, Floats | None]:
    """The density of the evidence in the common field; the film there, and where it is."""
    row = seen.row
    if row["landmarks"] is None or row["grid"] is None:
        return None, None
    landmarks = Landmarks(*row["landmarks"])
    density = in_common(seen.map.clip(min=0), landmarks, row["grid"])
    total = float(density.mean())
    picture = None
    if seen.picture is not None:
        grey = np.asarray(Image.open(BytesIO(seen.picture)).convert("L"), np.float32) / np.float32(255)
        picture = np.stack([in_common(one, landmarks, WHOLE) for one in (grey, np.ones_like(grey))])
    return (density / total if total > 0 else None), picture


def _added(mean: Mean, seen: Seen, common: Floats | None, picture: Floats | None) -> None:
    mean.count += 1
    probability = seen.row["probability"]
    mean.probability += math.nan if probability is None else float(probability)
    if common is None:
        mean.without += 1
    else:
        mean.maps += common
    if picture is not None:
        mean.pictures += picture[0]
        mean.cover += picture[1]


class _Best:
    """The films with the highest numbers; of equal ones the first."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._heap: list[tuple[float, int, Seen]] = []
        self._number = 0

    def add(self, value: float, seen: Seen) -> None:
        self._number += 1
        entry = (value, -self._number, seen)
        if len(self._heap) < self._count:
            heapq.heappush(self._heap, entry)
        elif value > self._heap[0][0]:
            heapq.heapreplace(self._heap, entry)

    @property
    def ordered(self) -> list[tuple[float, Seen]]:
        return [(value, seen) for value, _, seen in sorted(self._heap, key=lambda e: (-e[0], -e[1]))]

    @property
    def films(self) -> list[Seen]:
        return [seen for _, seen in self.ordered]


class _Sample:
    """Rows drawn by chance, each of them as probably (reservoir sampling)."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._count = 0
        self._random = np.random.default_rng(0)

    def add(self, row: dict[str, Any]) -> None:
        self._count += 1
        if len(self.rows) < SAMPLE:
            self.rows.append(row)
        elif (at := int(self._random.integers(self._count))) < SAMPLE:
            self.rows[at] = row


def _strangest(
    found: Cohort, place: Place, there: Sequence[Any], only: dict[str, str], told: Callable[[float], None]
) -> None:
    """Films whose map has least in common with the mean of those that the model calls alike."""
    means = {}
    for called in (True, False):
        bands = [band((low + high) / 2) for low, high in BANDS if (low >= 0.5) == called]
        parts = [found.means[("score", b)] for b in bands if b is not None and ("score", b) in found.means]
        count = sum(part.count - part.without for part in parts)
        if count >= FEW:
            means[called] = _blurred(sum((part.maps for part in parts), np.zeros((SIDE, SIDE))) / count)
    best = _Best(STRANGE)
    for seen, share in films_of(place, there, only):
        told(0.5 + share / 2)
        if seen.row["error"] is not None or seen.row["same"]:
            continue
        probability = seen.row["probability"]
        mean = None if probability is None else means.get(probability >= 0.5)
        common, _ = _carried(seen)
        if mean is not None and common is not None:
            best.add(float(np.abs(_blurred(common) - mean).mean() / 2), seen)
    found.strange = best.ordered


def _blurred(density: NDArray[Any]) -> NDArray[np.float64]:
    smooth = ndimage.gaussian_filter(density.astype(np.float64), BLUR)
    return np.asarray(smooth / smooth.mean())


def _share(values: Sequence[float], patients: Sequence[str]) -> Share:
    if len(values) < FEW:
        mean = float(np.mean(values)) if values else math.nan
        return Share(mean, math.nan, math.nan, len(values))
    return Share(*interval(values, patients), len(values))


def _who(row: dict[str, Any]) -> str:
    return str(row["patient"] or row["content"])


def _measured(found: Cohort, rows: Sequence[dict[str, Any]]) -> None:
    found.sampled = len(rows)
    for kind in KINDS:
        there = [row for row in rows if (row["on"] or {}).get(kind) is not None]
        hidden = [row for row in there if (row["effect"] or {}).get(kind) is not None]
        if not there:
            continue
        on = _share([row["on"][kind] for row in there], [_who(row) for row in there])
        area = float(np.mean([row["area"][kind] for row in there]))
        effects = [row["effect"][kind] for row in hidden]
        found.kinds.append(
            OnKind(
                kind,
                len(there),
                on,
                area,
                on.mean / area if area > 0 else math.nan,
                _share(effects, [_who(row) for row in hidden]),
                sum(effect > MOVED for effect in effects),
            )
        )
    named = [row for row in rows if row["shares"]]
    if named:
        for name in named[0]["shares"]:
            found.places[name] = _share([row["shares"].get(name, 0.0) for row in named], [_who(row) for row in named])
    found.sites = _sites(named)
    boxed = [row for row in rows if row["pointing_game"] is not None]
    if boxed:
        who = [_who(row) for row in boxed]
        for name in ("pointing_game", "energy", "top", "truth"):
            found.truth[name] = _share([float(row[name]) for row in boxed], who)


def _sites(named: Sequence[dict[str, Any]]) -> Sites | None:
    """Shares at each place by site, and a permutation test of whether they differ, within labels and by patient."""
    counts = Counter(str(row["site"]) for row in named if row["site"] is not None)
    names = sorted(name for name, count in counts.items() if count >= FEW)
    if len(names) < 2:
        return None
    rows = [row for row in named if str(row["site"]) in names]
    places = tuple(rows[0]["shares"])
    values = np.array([[row["shares"].get(place, 0.0) for place in places] for row in rows])
    sites = np.array([names.index(str(row["site"])) for row in rows])
    labels = np.unique([str(row["label"]) for row in rows], return_inverse=True)[1]
    who = np.unique([_who(row) for row in rows], return_inverse=True)[1]
    shares = {
        name: [_share(list(values[sites == i, k]), [_who(r) for r, s in zip(rows, sites, strict=True) if s == i])
               for k in range(len(places))]
        for i, name in enumerate(names)
    }  # fmt: skip
    residual = values.copy()
    for label in np.unique(labels):
        residual[labels == label] -= values[labels == label].mean(0)
    apart = {}
    for i, name in enumerate(names):
        mine = sites == i
        apart[name] = float(np.abs(residual[mine].mean(0) - residual[~mine].mean(0)).sum() / 2)
    return Sites(places, shares, apart, _permuted(residual, sites, labels, who))


def _permuted(
    residual: NDArray[np.float64], sites: NDArray[np.int64], labels: NDArray[np.int64], who: NDArray[np.int64]
) -> float:
    """The share of shuffles of sites, among patients of like labels, in which the sites' means differ as much."""
    # A patient moves as a whole, with the site of most of the films and the label of the first.
    first = np.unique(who, return_index=True)[1]
    strata, own = labels[first], sites[first]
    order = who

    def between(of: NDArray[np.int64]) -> float:
        at = of[order]
        total = np.zeros((int(sites.max()) + 1, residual.shape[1]))
        np.add.at(total, at, residual)
        count = np.bincount(at, minlength=len(total))[:, None]
        return float((np.square(total) / np.maximum(count, 1)).sum())

    random = np.random.default_rng(0)
    seen = between(own)
    as_much = 0
    for _ in range(PERMUTATIONS):
        shuffled = own.copy()
        for stratum in np.unique(strata):
            mine = np.flatnonzero(strata == stratum)
            shuffled[mine] = own[random.permutation(mine)]
        as_much += between(shuffled) >= seen * (1 - 1e-12)
    return (1 + as_much) / (1 + PERMUTATIONS)


def question_of(cohort: Cohort) -> dict[str, Any]:
    """The question of a cohort."""
    return dict(json.loads(json.dumps(cohort.head["question"])))
