"""The row of a film, and its table: what a Parquet shard holds."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lucency.archive.evidence import KINDS, Kind


@dataclass(eq=False)
class Row:
    """What is kept of one film.

    Attributes:
        path: the name of the film, or a hash of its content where names are not kept.
        key: a hash of where it lies.
        state: size and time of its last change when it was read.
        content: SHA-256 of its bytes; empty where they could not be read.
        same: another film with the same bytes has the answer, and this row only says so.
        error, kind: why there is no answer, in a sentence, and what kind of error that was.
        label, site, view, patient, group: what the list says, or for the view the file.
        shape, spacing: of the film, in pixels and mm.
        target, probability, score, called: the class, its probability, what was watched, and whether it is the
            model's answer.
        probabilities: of all classes.
        verdict: in words.
        zone, side, place: where the strongest region lies.
        peak: row and column of the map's maximum on the film (slice, row and column of a volume).
        at: the kind of place of the maximum, see :class:`lucency.archive.evidence.Evidence`, as are the next four.
        shares, on, area, effect: where the evidence lies, and what hiding each place does.
        region_area, region_evidence: of the strongest region: its share of the film and of the evidence.
        without: the probability with that region hidden.
        p: how often hiding the region's shape elsewhere does as much, as a p-value: the region may be an artefact.
        repeatable, signal_to_noise: the word and the number for error bars, where there are any.
        out_of_distribution: share of the strongest reactions that come from scans unlike those the model knows.
        sanity: whether the method's maps depend on what the model has learnt.
        complete: whether the method ran to its end.
        notices: what has to be known besides.
        pointing_game, energy, top, truth: whether the maximum lies in the truth, the share of the evidence and of the
            top 5 % in it, and the share of the film that it takes, where boxes or a mask are given.
        evaluations, gradients, seconds: what it cost.
        landmarks: top, bottom, right, middle, left of the lungs, see :class:`lucency.archive.evidence.Landmarks`.
        grid: top, left, height, width of the model's grid on the film, as shares of its height and width.
        map: float16 ``[*grid]`` on the model's grid, to be multiplied by ``scale``; its largest magnitude is 1.
        digest: SHA-256 of the bytes of the map.
        picture: the film as a small JPEG.
        provenance: everything needed to repeat it, as JSON.
        folder: the name of the film's own folder, where whole explanations are kept.
    """

    path: str
    key: str
    state: str
    content: str = ""
    same: bool = False
    error: str | None = None
    kind: str | None = None
    label: str | None = None
    site: str | None = None
    view: str | None = None
    patient: str | None = None
    group: str | None = None
    shape: Sequence[int] | None = None
    spacing: Sequence[float] | None = None
    target: str | None = None
    probability: float | None = None
    score: float | None = None
    called: bool | None = None
    probabilities: Mapping[str, float] | None = None
    verdict: str | None = None
    zone: str | None = None
    side: str | None = None
    place: str | None = None
    peak: Sequence[int] | None = None
    at: str | None = None
    shares: Mapping[str, float] | None = None
    on: Mapping[Kind, float] | None = None
    area: Mapping[Kind, float] | None = None
    effect: Mapping[Kind, float] | None = None
    region_area: float | None = None
    region_evidence: float | None = None
    without: float | None = None
    p: float | None = None
    repeatable: str | None = None
    signal_to_noise: float | None = None
    out_of_distribution: float | None = None
    sanity: bool | None = None
    complete: bool | None = None
    notices: Sequence[str] = field(default=())
    pointing_game: bool | None = None
    energy: float | None = None
    top: float | None = None
    truth: float | None = None
    evaluations: int | None = None
    gradients: int | None = None
    seconds: float | None = None
    landmarks: Sequence[float] | None = None
    grid: Sequence[float] | None = None
    map: NDArray[np.float16] | None = None
    scale: float | None = None
    digest: str | None = None
    picture: bytes | None = None
    provenance: str | None = None
    folder: str | None = None

    @property
    def status(self) -> str:
        """``done``, ``same`` or ``failed``."""
        return "failed" if self.error is not None else "same" if self.same else "done"


_PLACES = pa.struct([(kind, pa.float32()) for kind in KINDS])
_TYPES: dict[str, pa.DataType] = {
    "same": pa.bool_(),
    "shape": pa.list_(pa.int32()),
    "spacing": pa.list_(pa.float32()),
    "probability": pa.float32(),
    "score": pa.float32(),
    "called": pa.bool_(),
    "probabilities": pa.map_(pa.string(), pa.float32()),
    "peak": pa.list_(pa.int32()),
    "shares": pa.map_(pa.string(), pa.float32()),
    "on": _PLACES,
    "area": _PLACES,
    "effect": _PLACES,
    **dict.fromkeys(
        ("region_area", "region_evidence", "without", "p", "signal_to_noise", "out_of_distribution"), pa.float32()
    ),
    "sanity": pa.bool_(),
    "complete": pa.bool_(),
    "notices": pa.list_(pa.string()),
    "pointing_game": pa.bool_(),
    **dict.fromkeys(("energy", "top", "truth", "seconds"), pa.float32()),
    "evaluations": pa.int64(),
    "gradients": pa.int64(),
    "landmarks": pa.list_(pa.float32()),
    "grid": pa.list_(pa.float32()),
    "scale": pa.float32(),
    "picture": pa.binary(),
}
_COLUMNS = {one.name: str(_TYPES.get(one.name, pa.string())) for one in dataclasses.fields(Row)}
FORMAT = f"lucency-archive-{hashlib.sha256(repr(_COLUMNS).encode()).hexdigest()[:8]}"
"""Follows from the columns, so that a place never holds rows of two kinds."""


def table(rows: Sequence[Row], grid: Sequence[int]) -> pa.Table:
    """The rows as an Arrow table; maps as a tensor of one shape, ``[*grid]``, nothing where there is none."""
    columns: dict[str, pa.Array] = {}
    for one in dataclasses.fields(Row):
        values = [getattr(row, one.name) for row in rows]
        if one.name == "map":
            columns[one.name] = _tensors(values, grid)
            continue
        kind = _TYPES.get(one.name, pa.string())
        if pa.types.is_map(kind):
            values = [None if value is None else list(value.items()) for value in values]
        columns[one.name] = pa.array(values, kind)
    return pa.table(columns, metadata={"format": FORMAT})


def _tensors(maps: Sequence[NDArray[np.float16] | None], grid: Sequence[int]) -> pa.Array:
    size = int(np.prod(grid))
    flat = np.zeros((len(maps), size), np.float16)
    for i, one in enumerate(maps):
        if one is not None:
            flat[i] = one.ravel()
    missing = pa.array([one is None for one in maps], pa.bool_())
    values = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), size, mask=missing)
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float16(), tuple(grid)), values)


def digest_of(half: NDArray[np.float16]) -> str:
    """SHA-256 of a map, little-endian."""
    return hashlib.sha256(np.ascontiguousarray(half).astype("<f2", copy=False).tobytes()).hexdigest()


def map_of(values: Any, grid: Sequence[int]) -> NDArray[np.float16]:
    """A map from what Arrow gives for one cell of the column."""
    return np.asarray(values, np.float16).reshape(tuple(grid))
