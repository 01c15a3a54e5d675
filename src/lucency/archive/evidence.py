"""Where on a film the evidence lies: in the lungs, or on what a model may have learnt instead of the disease.

Four places are told apart besides the named ones of :mod:`lucency.lungs`. "Outside" is all that is not chest, "border"
the rim of the film, "token" a bright and sharp thing beside the chest (a side letter, a word), "device" one on it (a
pacemaker, an electrode, a line). A map smears; so each place is hidden as well, and what the model then says is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import regionprops
from torch import Tensor
from torch.nn import functional as F

from lucency.classifier import Question
from lucency.engine import Engine
from lucency.explanation import Explanation
from lucency.lungs import LungFields, lung_fields, places
from lucency.lungs.zones import completed, midline
from lucency.removal.local import LocalMean
from lucency.scan import Scan

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]
Kind = Literal["outside", "border", "token", "device"]
KINDS: tuple[Kind, ...] = get_args(Kind)

SIDE = 384
"""Longest side, in pixels, of the film on which places are looked for."""
RIM = 0.06
"""Width of the border, as a share of the film's shorter side."""
STROKE = 0.032
"""What is narrower than this share of the longest side can be a stroke of a letter, or a wire."""
BRIGHTER = 0.22
"""How much brighter than its surroundings a sharp thing is, in display values of a film that spans 0..1."""
SHARP = 0.09
"""Mean step of display values from one pixel to the next at its edge."""
SMALLEST, LARGEST = 2e-4, 0.03
"""Area of a sharp thing, as shares of the film."""
HALO = 0.02
"""How far around a sharp thing evidence counts to it, as a share of the longest side: maps are no finer."""
BAR = 0.16
"""What touches the edge of the film and is longer than this share of it is the edge of the beam, and no token."""
CENTRAL = 0.22
"""Where no lungs are found, what lies farther than this share of each side from all edges counts as chest."""


@dataclass(frozen=True)
class Landmarks:
    """What carries a film into the common lung field; shares of the film's height and width, 0..1.

    Attributes:
        top, bottom: of the lung fields.
        right, middle, left: columns of the outer edge of the patient's right lung, the midline, and the left one's.
    """

    top: float
    bottom: float
    right: float
    middle: float
    left: float


@dataclass(frozen=True, eq=False)
class Regions:
    """The places of one film.

    Attributes:
        small: float32 ``[h, w]``, the film at :data:`SIDE`, display values 0..1.
        masks: bool ``[h, w]`` for each kind; without ``"outside"`` where no lungs were found.
        numbers: uint8 ``[h, w]``, the number of each pixel's named place, or ``None``.
        names: the names of the places, in the order of the numbers.
        landmarks: ``None`` where no lungs were found.
    """

    small: Floats
    masks: dict[Kind, Mask]
    numbers: NDArray[np.uint8] | None
    names: tuple[str, ...]
    landmarks: Landmarks | None


def regions(scan: Scan) -> Regions:
    """The places of a two-dimensional scan."""
    grey = scan.display.mean(0).clamp(0, 1)
    rows, columns = grey.shape
    scale = min(1.0, SIDE / max(rows, columns))
    size = (max(8, round(rows * scale)), max(8, round(columns * scale)))
    small = F.interpolate(grey[None, None], size, mode="bilinear", antialias=True)[0, 0]
    film: Floats = small.numpy()
    lungs = lung_fields(Scan.from_array(film))
    masks: dict[Kind, Mask] = {}
    numbers, landmarks = None, None
    names: tuple[str, ...] = ()
    if lungs is not None:
        found, numbers = places(lungs)
        names = tuple(map(str, found))
        chest = numbers != 0
        masks["outside"] = ~chest
        landmarks = _landmarks(lungs)
    else:
        chest = np.zeros(film.shape, bool)
        chest[tuple(slice(round(CENTRAL * n), n - round(CENTRAL * n)) for n in film.shape)] = True
    rim = max(1, round(RIM * min(film.shape)))
    border = np.ones(film.shape, bool)
    border[rim:-rim, rim:-rim] = False
    masks["border"] = border & ~chest
    masks["token"], masks["device"] = sharp_things(film, chest)
    return Regions(film, masks, numbers, names, landmarks)


def sharp_things(film: Floats, chest: Mask) -> tuple[Mask, Mask]:
    """What is brighter than its surroundings and has sharp edges: beside the chest, and on it; bool ``[h, w]`` each.

    Args:
        film: ``[h, w]`` display values 0..1, bright = dense, about :data:`SIDE` pixels long.
        chest: ``[h, w]``.
    """
    low, high = np.percentile(film, [0.5, 99.8])
    level = np.clip((film - low) / max(float(high - low), 1e-6), 0, 1)
    side = max(film.shape)
    stroke = max(3, round(STROKE * side)) | 1
    hat = level - ndimage.grey_opening(level, (stroke, stroke))
    steep = ndimage.gaussian_gradient_magnitude(level, 0.7)
    labels, _ = ndimage.label(ndimage.binary_closing(hat > BRIGHTER, iterations=2), np.ones((3, 3)))
    token, device = np.zeros(film.shape, bool), np.zeros(film.shape, bool)
    for thing in regionprops(labels):  # type: ignore[no-untyped-call]
        if not SMALLEST * film.size <= thing.area <= LARGEST * film.size:
            continue
        lengths = [b - a for a, b in zip(thing.bbox[:2], thing.bbox[2:], strict=True)]
        touches = any(a <= 3 or b >= n - 3 for a, b, n in zip(thing.bbox[:2], thing.bbox[2:], film.shape, strict=True))
        if touches and max(lengths) > BAR * side:
            continue
        at = tuple(slice(max(0, a - 2), b + 2) for a, b in zip(thing.bbox[:2], thing.bbox[2:], strict=True))
        mine = labels[at] == thing.label
        edge = mine ^ ndimage.binary_erosion(mine)
        if float(steep[at][edge].mean()) < SHARP:
            continue
        (device if chest[at][mine].mean() > 0.5 else token)[at] |= mine
    halo = max(1, round(HALO * side))
    return _grown(token, halo) & ~chest, _grown(device, halo)


def _grown(mask: Mask, by: int) -> Mask:
    if not mask.any():
        return mask
    return np.asarray(ndimage.distance_transform_edt(~mask) <= by)


def _landmarks(lungs: LungFields) -> Landmarks:
    whole = completed(lungs)
    rows = [np.flatnonzero(lung.any(1)) for lung in (whole.right, whole.left)]
    columns = [np.flatnonzero(lung.any(0)) for lung in (whole.right, whole.left)]
    height, width = whole.right.shape
    return Landmarks(
        top=float(np.mean([r[0] for r in rows])) / height,
        bottom=float(np.mean([r[-1] + 1 for r in rows])) / height,
        right=float(columns[0][0]) / width,
        middle=(midline(whole) + 0.5) / width,
        left=float(columns[1][-1] + 1) / width,
    )


@dataclass(frozen=True)
class Evidence:
    """How the supporting evidence of one map is spread.

    Attributes:
        shares: of each named place; sum 1; empty where no lungs were found or nothing supports the answer.
        on: share of it on each kind of place that was looked for and found.
        area: share of the film that this place takes: what ``on`` comes to for a map that knows nothing.
        effect: by how much the probability falls when the place is hidden behind the mean of its surroundings; where
            the classifier measures something, by what share the number falls.
        at: the kind of place, or the named place, where the map has its maximum; empty for a flat map.
    """

    shares: dict[str, float]
    on: dict[Kind, float]
    area: dict[Kind, float]
    effect: dict[Kind, float]
    at: str


def evidence(explanation: Explanation, scan: Scan, engine: Engine, found: Regions) -> Evidence:
    """Weighs a two-dimensional map by the places of its film, and hides each of these once (four evaluations)."""
    support = torch.from_numpy(explanation.heatmap).clamp(min=0)
    weights = _resized(support, found.small.shape).numpy().astype(np.float64)
    total = float(weights.sum())
    there = {kind: mask for kind, mask in found.masks.items() if mask.any()}
    area = {kind: float(mask.mean()) for kind, mask in there.items()}
    effect = _effects(explanation, scan, engine, there)
    if not total > 0:
        return Evidence({}, {}, area, effect, "")
    on = {kind: float(weights[mask].sum() / total) for kind, mask in there.items()}
    shares: dict[str, float] = {}
    peak = np.unravel_index(int(weights.argmax()), weights.shape)
    at = ""
    if found.numbers is not None:
        sums = np.bincount(found.numbers.ravel(), weights.ravel(), len(found.names)) / total
        shares = {name: float(share) for name, share in zip(found.names, sums, strict=True)}
        at = found.names[int(found.numbers[peak])]
    at = next((kind for kind in ("token", "device", "border") if kind in there and there[kind][peak]), at)
    return Evidence(shares, on, area, effect, at)


def _effects(explanation: Explanation, scan: Scan, engine: Engine, there: dict[Kind, Mask]) -> dict[Kind, float]:
    if not there:
        return {}
    placement = engine.classifier.placement(scan)
    masks = torch.stack(
        [placement.to_grid(_resized(torch.from_numpy(mask).float(), scan.shape)[None])[0] for mask in there.values()]
    )
    question = Question.ask(engine.classifier, scan, explanation.target, "probability")
    probe = engine.open(scan, question, LocalMean())
    clean = float(probe.clean[0])
    scores = probe.scores(1 - masks.clamp(0, 1))[:, 0].tolist()
    # A measured number has no scale of its own.
    unit = 1.0 if explanation.probabilities else abs(clean) or 1.0
    return {kind: (clean - float(score)) / unit for kind, score in zip(there, scores, strict=True)}


def _resized(plane: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tuple(plane.shape) == tuple(shape):
        return plane
    shrinks = plane.shape[0] > shape[0]
    return F.interpolate(plane[None, None], shape, mode="bilinear", antialias=shrinks)[0, 0]
