"""The cohort at a glance: one page from disk about every film of an archive."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lucency.archive.cohort import (
    DIMENSIONS,
    FEW,
    MOVED,
    SAMPLE,
    STRANGE,
    Cohort,
    Mean,
    Seen,
    Share,
    gathered,
    question_of,
)
from lucency.archive.common import FIELD
from lucency.archive.evidence import Kind
from lucency.archive.place import Place
from lucency.checks.verdict import percent
from lucency.render.overlay import NOTICE
from lucency.render.page import save_page, spoken, uri
from lucency.viewer import palette
from lucency.viewer.palette import Scale
from lucency.viewer.views import resized

Floats = NDArray[np.float32]

NAMED: dict[Kind, str] = {
    "outside": "Outside the chest",
    "border": "Border of the film",
    "token": "Tokens beside the chest",
    "device": "Devices on the chest",
}
MEANT: dict[Kind, str] = {
    "outside": "everything that is neither lung, pleura, heart nor mediastinum",
    "border": "the outer 6 % of the film, chest left out",
    "token": "bright and sharp things: side letters, words, arrows",
    "device": "bright and sharp things: pacemakers, electrodes, lines",
}
BY = {"label": "label", "score": "probability", "view": "view", "site": "site", "group": "group"}
SHOWN = 8
"""Films of each kind in the page."""
PICTURE, MEAN = 256, 240
"""Longest sides of pictures in the page."""


@dataclass(frozen=True)
class Picture:
    """A film or a mean film with a transparent map, as data URIs."""

    film: str
    map: str


@dataclass(frozen=True)
class Group:
    """A mean map of the page."""

    value: str
    picture: Picture
    count: int
    probability: str


@dataclass(frozen=True)
class Thumbnail:
    """A film of the page, with what its explanation says."""

    name: str
    path: str
    id: str
    picture: Picture
    caption: str
    verdict: str
    facts: tuple[tuple[str, str], ...]


def save_cohort(
    where: str,
    out: str | Path | None = None,
    *,
    only: dict[str, str] | None = None,
    on_progress: Callable[[float], None] | None = None,
    command: str | None = None,
) -> tuple[str, list[str]]:
    """Reads a place and writes the page; gives where it lies, and what it says in sentences.

    Args:
        where: what :func:`lucency.archive.run` wrote to.
        out: the page; ``report.html`` in the place when ``None``.
        only: the films whose columns have these values: ``{"group": "test"}``.
        on_progress: called with the share that is read.
        command: what was typed.

    Raises:
        OutputError: when there is nothing to show, or the page cannot be written.
    """
    cohort = gathered(where, only=only, on_progress=on_progress)
    about = _about(cohort, only or {}, command)
    if out is not None:
        return str(save_page("cohort.html", out, **about)), about["findings"]
    place = Place(where)
    with tempfile.TemporaryDirectory() as folder:
        page = save_page("cohort.html", Path(folder) / "report.html", **about)
        place.write("report.html", page.read_bytes())
    return f"{where.rstrip('/')}/report.html", about["findings"]


def _about(cohort: Cohort, only: dict[str, str], command: str | None) -> dict[str, Any]:
    question = question_of(cohort)
    everything = cohort.means[("all", "")]
    films = Thumbnails()
    return {
        "title": f"{question['model']['name']}: {cohort.done:,} films",
        "model": question["model"]["name"],
        "target": question["target"] or "the most probable class of each film",
        "method": question["method"]["title"],
        "cohort": cohort,
        "only": ", ".join(f"{name} {value}" for name, value in only.items()),
        "findings": findings(cohort),
        "whole": None if not everything.count - everything.without else _group("", everything, 2 * MEAN),
        "places": [(_shorter(name), share) for name, share in cohort.places.items()],
        "most": max((share.high for share in cohort.places.values() if not math.isnan(share.high)), default=1.0),
        "groups": _groups(cohort),
        "kinds": [(NAMED[one.kind], MEANT[one.kind], one) for one in cohort.kinds],
        "ranked": [
            (NAMED[kind], [films.thumbnail(seen, kind) for seen in cohort.ranked[kind][:SHOWN]])
            for kind in NAMED
            if kind in cohort.ranked
        ],
        "sites": None if cohort.sites is None else _sites(cohort),
        "truth": _truth(cohort),
        "strange": [
            films.thumbnail(seen, None, f"{percent(apart)} elsewhere") for apart, seen in cohort.strange[:STRANGE]
        ],
        "errors": cohort.errors.most_common(),
        "failures": cohort.failures,
        "made": _made(cohort, question),
        "command": command,
        "few": FEW,
        "sample": SAMPLE,
        "moved": MOVED,
        "percent": percent,
        "span": _span,
        "points": _points,
        "nan": math.isnan,
        "notice": NOTICE,
    }


def findings(cohort: Cohort) -> list[str]:
    """What the cohort says, in sentences that can go on a slide."""
    said = []
    kinds = {one.kind: one for one in cohort.kinds}
    if (outside := kinds.get("outside")) is not None:
        said.append(
            f"{percent(outside.evidence.mean)} of the evidence ({_span(outside.evidence)}) lies outside the chest, "
            f"which takes {percent(outside.area)} of the film."
        )
    for kind, name in (("token", "Tokens"), ("device", "Devices"), ("border", "The border")):
        one = kinds.get(kind)  # type: ignore[call-overload]
        if one is None or one.evidence.count < FEW:
            continue
        held, it, its = (
            (f"{name} holds", "it", "its")
            if kind == "border"
            else (f"{name} hold, where there are any,", "them", "their")
        )
        sentence = (
            f"{held} {percent(one.evidence.mean)} of the evidence, {one.times:.1f} times {its} share of the film; "
            f"hiding {it} moves the probability by {_points(one.effect.mean)} on average"
        )
        sentence += f", and by more than 10 points on {one.moved:,} of {one.found:,} films." if one.moved else "."
        said.append(sentence)
    if (sites := cohort.sites) is not None:
        far = max(sites.apart, key=lambda name: sites.apart[name])
        if sites.p < 0.05:
            said.append(
                f"The model does not look at the same places at every site (p = {sites.p:.3g}): at site {far} "
                f"{percent(sites.apart[far])} of the evidence lies elsewhere than at the others, labels alike."
            )
        else:
            said.append(f"No difference between sites in where the model looks was found (p = {sites.p:.2g}).")
    if cohort.truth:
        hit = cohort.truth["pointing_game"]
        said.append(
            f"On {hit.count:,} films with a known place, the maximum lies in it on {percent(hit.mean)} ({_span(hit)}); "
            f"the place takes {percent(cohort.truth['truth'].mean)} of the film."
        )
    if cohort.failed:
        said.append(f"{cohort.failed:,} films could not be explained; they stand at the end.")
    if cohort.unnamed:
        said.append(
            f"On {cohort.unnamed:,} films no lung fields were found; they are in no mean map and no named place."
        )
    return said


def _span(share: Share) -> str:
    if math.isnan(share.low):
        return "no interval: too few films"
    return f"{percent(max(share.low, 0.0))} to {percent(share.high)}"


def _points(effect: float) -> str:
    """A fall of a probability, in percentage points."""
    if math.isnan(effect):
        return "–"
    return f"{-100 * effect:+.1f} points".replace("-", "−")


def _shorter(place: str) -> str:
    said = place.removeprefix("the ").replace("patient's ", "")
    return said[:1].upper() + said[1:]


def _groups(cohort: Cohort) -> list[tuple[str, list[Group]]]:
    found = []
    for dimension in DIMENSIONS:
        groups = {key[1]: mean for key, mean in cohort.means.items() if key[0] == dimension}
        shown = [
            _group(value, mean, MEAN) for value, mean in sorted(groups.items()) if mean.count - mean.without >= FEW
        ]
        if len(shown) > (dimension != "score"):
            found.append((BY[dimension], shown))
    return found


def _group(value: str, mean: Mean, side: int) -> Group:
    density = mean.density
    probability = mean.probability / max(1, mean.count)
    said = "" if math.isnan(probability) else percent(probability)
    return Group(value, Picture(_film(mean.film, side), _layer(density, side)), mean.count, said)


def _film(grey: Floats | None, side: int) -> str:
    if grey is None:
        grey = np.full((8, 8), 0.1, np.float32)
        for column in (FIELD.right, FIELD.left):
            grey[:, round(8 * column) - 1] = 0.2
    image = Image.fromarray(np.rint(np.clip(resized(grey, side, side), 0, 1) * 255).astype(np.uint8))
    return _webp(image)


def _layer(density: Floats, side: int) -> str:
    """What a place holds more than if all evidence were spread evenly, from nothing to the most."""
    limit = max(float(np.percentile(density, palette.PERCENTILE)), 1.0 + 1e-6)
    strength = np.clip((density - 1) / np.float32(limit - 1), 0, 1).astype(np.float32)
    return _webp(Image.fromarray(palette.layer(resized(strength, side, side))))


def _webp(image: Image.Image) -> str:
    file = BytesIO()
    image.save(file, format="WEBP", quality=80, method=4)
    return uri(file.getvalue(), ".webp")


class Thumbnails:
    """Thumbnails with an id each, so that a link to one can be passed on."""

    def __init__(self) -> None:
        self._count = 0

    def thumbnail(self, seen: Seen, kind: Kind | None, caption: str = "") -> Thumbnail:
        row = seen.row
        self._count += 1
        grey = np.full((8, 8), 0.1, np.float32)
        if seen.picture is not None:
            grey = np.asarray(Image.open(BytesIO(seen.picture)).convert("L"), np.float32) / np.float32(255)
        rows, columns = grey.shape
        values = seen.map if seen.map.ndim == 2 else seen.map.max(0)
        layer = _on_film(values, row["grid"] or (0.0, 0.0, 1.0, 1.0), (rows, columns))
        scale = Scale.of(layer)
        picture = Picture(
            _webp(Image.fromarray(np.rint(grey * 255).astype(np.uint8))),
            _webp(Image.fromarray(palette.layer(scale.strength(layer)))),
        )
        if kind is not None:
            caption = f"{percent(row['on'][kind])} there"
            if (effect := (row["effect"] or {}).get(kind)) is not None:
                caption += f"; hidden {_points(effect)}"
        return Thumbnail(
            Path(row["path"]).name,
            str(row["path"]),
            f"film-{self._count}",
            picture,
            caption,
            str(row["verdict"]),
            tuple(_facts(row)),
        )


def _on_film(values: Floats, grid: Any, shape: tuple[int, int]) -> Floats:
    """A map ``[h, w]`` on the model's grid, on the small picture of its film."""
    top, left, height, width = grid
    rows, columns = shape
    size = max(1, round(height * rows)), max(1, round(width * columns))
    drawn = resized(values, *size)
    found = np.zeros(shape, np.float32)
    row, column = round(top * rows), round(left * columns)
    there = found[max(row, 0) : row + size[0], max(column, 0) : column + size[1]]
    there[...] = drawn[max(-row, 0) :, max(-column, 0) :][: there.shape[0], : there.shape[1]]
    return found


def _facts(row: dict[str, Any]) -> list[tuple[str, str]]:
    found = []
    if row["probability"] is not None and not math.isnan(row["probability"]):
        found.append(("Probability", f"{row['probability']:.3f} of {row['target']}"))
    found += [(name.capitalize(), str(row[name])) for name in ("label", "site", "view", "group") if row[name]]
    if row["at"]:
        found.append(("Maximum", NAMED.get(row["at"], _shorter(row["at"]))))
    for kind, name in NAMED.items():
        on = (row["on"] or {}).get(kind)
        if on is None:
            continue
        words = f"{percent(on)} of the evidence, {percent(row['area'][kind])} of the film"
        if (effect := (row["effect"] or {}).get(kind)) is not None:
            words += f"; hidden {_points(effect)}"
        found.append((name, words))
    if row["p"] is not None:
        found.append(("Same shape elsewhere", f"does as much with p = {row['p']:.2f}"))
    if row["repeatable"]:
        found.append(("Error bars", str(row["repeatable"])))
    if row["pointing_game"] is not None:
        inside = "in" if row["pointing_game"] else "outside"
        found.append(("Known place", f"maximum {inside} it, {percent(row['energy'])} of the evidence in it"))
    return found


@dataclass(frozen=True)
class SiteTable:
    """The shares at each place, one column a site, and the widest end of an interval."""

    names: list[str]
    rows: list[tuple[str, list[Share]]]
    apart: list[str]
    p: float
    most: float


def _sites(cohort: Cohort) -> SiteTable:
    sites = cohort.sites
    assert sites is not None
    names = list(sites.shares)
    rows = [(_shorter(place), [sites.shares[name][k] for name in names]) for k, place in enumerate(sites.places)]
    most = max(share.high for _, shares in rows for share in shares if not math.isnan(share.high))
    return SiteTable(names, rows, [percent(sites.apart[name]) for name in names], sites.p, most)


def _truth(cohort: Cohort) -> list[tuple[str, str, Share]]:
    named = {
        "pointing_game": ("Maximum in the place", "pointing game"),
        "energy": ("Evidence in the place", "share of the map's positive part"),
        "top": ("Top 5 % in the place", "share of the highest 5 % of the pixels"),
        "truth": ("Area of the place", "what the two rows above come to for a map that knows nothing"),
    }
    return [(*named[name], share) for name, share in cohort.truth.items()]


def _made(cohort: Cohort, question: dict[str, Any]) -> list[tuple[str, str]]:
    method = question["method"]
    return [
        ("Model", question["model"]["name"]),
        ("Model fingerprint", question["model"]["fingerprint"]),
        ("Method", method["title"]),
        *((f"  {name}", spoken(value)) for name, value in method.get("parameters", {}).items()),
        *(
            (name.replace("_", " ").capitalize(), spoken(question[name]))
            for name in ("target", "watch", "removal", "budget", "error_bars", "seed", "value_range")
        ),
        ("Question", cohort.head["hash"]),
        (
            "Films",
            f"{cohort.done:,} explained, {cohort.same:,} with the same bytes as another, {cohort.failed:,} failed",
        ),
        ("Cost", f"{cohort.evaluations:,} evaluations, {cohort.seconds / 60:,.1f} minutes of maps on one worker"),
        ("Begun with", f"lucency {cohort.head['lucency']}"),
    ]
