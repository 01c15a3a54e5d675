"""The page over a folder of explanations: each film with its map, linked to its report."""

from __future__ import annotations

import math
from pathlib import Path
from urllib.parse import quote

from lucency.archive.cohort import films_of
from lucency.archive.manifest import head, shards
from lucency.archive.place import Place
from lucency.archive.report import Thumbnail, Thumbnails
from lucency.checks.verdict import percent
from lucency.render.overlay import NOTICE
from lucency.render.page import save_page

FILMS = "films"
"""The folder with a folder for each film."""


def save_index(where: Path, *, command: str = "") -> Path:
    """Writes ``index.html`` into a folder that ``lucency explain FOLDER`` has filled; gives its path.

    Raises:
        OutputError: when the results cannot be read, or the page cannot be written.
    """
    place = Place(where)
    question = head(place)["question"]
    thumbnails, found = Thumbnails(), []
    failures: list[tuple[str, str]] = []
    same = 0
    for seen, _ in films_of(place, list(shards(place)), {}):
        row = seen.row
        if row["error"] is not None:
            failures.append((str(row["path"]), str(row["error"])))
        elif row["same"]:
            same += 1
        elif row["folder"] is not None:
            found.append((_link(str(row["folder"])), thumbnails.thumbnail(seen, None, _answer(row))))
    found.sort(key=_order)
    return save_page(
        "index.html",
        where / "index.html",
        title=f"{question['model']['name']}: {len(found):,} films",
        model=question["model"]["name"],
        target=question["target"] or "the most probable class of each film",
        method=question["method"]["title"],
        films=found,
        failures=failures,
        same=same,
        command=command,
        notice=NOTICE,
    )


def _order(pair: tuple[str, Thumbnail]) -> str:
    return pair[1].path


def _link(folder: str) -> str:
    return quote(f"{FILMS}/{folder}/report.html")


def _answer(row: dict[str, object]) -> str:
    probability = row["probability"]
    if isinstance(probability, float) and not math.isnan(probability):
        return f"{row['target']} {percent(probability)}"
    return f"{row['target']}"
