"""The cohort on one page: it finds what was planted, and says nothing where nothing is."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pytest.importorskip("fsspec", reason="fsspec is not installed")
pytest.importorskip("jinja2", reason="jinja2 is not installed")

import archives
from lucency import Scan, read_scan
from lucency.archive import Films, run
from lucency.archive.cohort import Cohort, _permuted, gathered
from lucency.archive.common import FIELD, SIDE, in_common
from lucency.archive.evidence import Landmarks, regions
from lucency.archive.report import save_cohort
from lucency.cli import main
from lucency.errors import OutputError

DEMO = Path(__file__).parent.parent / "src" / "lucency" / "phantom" / "demo.png"
PLANTED = {6, 7, 8, 9, 10, 11}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve films of one chest, of which those of site b carry a letter that decides; and one that is none."""
    folder = tmp_path_factory.mktemp("cohort")
    film = read_scan(DEMO).display[0].numpy()
    chest = np.asarray(Image.fromarray(film).resize((256, 256)), np.float32) * 255
    listed = []
    for number in range(12):
        grey = chest + np.random.default_rng(number).normal(0, 2, chest.shape)
        grey = np.clip(grey, 0, 180)
        if number in PLANTED:
            grey[12:36, 224:229] = grey[31:36, 224:240] = 200 + 5 * (number - 6)
        name = f"<q>{number:02d}.png"
        Image.fromarray(grey.astype(np.uint8)).save(folder / name)
        listed.append(
            {
                "path": name,
                "label": "fluid" if number % 3 else "none",
                "site": "b" if number in PLANTED else "a",
                "patient": str(number),
                "group": "test" if number < 6 else "train",
                "boxes": "213,5,38,38" if number % 2 else "",
            }
        )
    (folder / "no-film.png").write_bytes(b"no picture")
    listed.append({"path": "no-film.png", "label": "none", "site": "a", "patient": "x", "group": "test", "boxes": ""})
    with (folder / "films.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(listed[0]))
        writer.writeheader()
        writer.writerows(listed)
    run(Films(folder / "films.csv"), folder / "out", archives.asked(settings=("patch=8",)), workers=0)
    return folder / "out"


@pytest.fixture(scope="module")
def cohort(place: Path) -> Cohort:
    return gathered(str(place))


def test_the_planted_letter_is_ranked_first(cohort: Cohort) -> None:
    for kind in ("token", "outside"):
        first = [int(seen.row["path"][3:5]) for seen in cohort.ranked[kind][: len(PLANTED)]]
        assert set(first) == PLANTED
    assert len(cohort.ranked["outside"]) > len(PLANTED)
    token = next(one for one in cohort.kinds if one.kind == "token")
    assert token.found == len(PLANTED)
    assert token.times > 10
    assert token.evidence.low > 5 * token.area
    assert token.effect.low > 0.2
    assert token.moved == len(PLANTED)


def test_sites_at_which_it_looks_elsewhere_are_told_apart(cohort: Cohort) -> None:
    assert cohort.sites is not None
    assert cohort.sites.p < 0.02
    assert min(cohort.sites.apart.values()) > 0.05
    outside = cohort.sites.places.index("outside the lungs")
    assert cohort.sites.shares["b"][outside].low > cohort.sites.shares["a"][outside].high


def test_known_places_and_counts(cohort: Cohort) -> None:
    assert (cohort.done, cohort.failed, cohort.same) == (12, 1, 0)
    assert cohort.truth["pointing_game"].count == 6
    # Films 7, 9 and 11 carry the letter in the box.
    assert 0.5 <= cohort.truth["pointing_game"].mean <= 1
    assert cohort.truth["energy"].low <= cohort.truth["energy"].mean <= cohort.truth["energy"].high
    assert cohort.means[("site", "b")].count == 6
    assert {key[1] for key in cohort.means if key[0] == "label"} == {"fluid", "none"}
    assert {key[1]: mean.count for key, mean in cohort.means.items() if key[0] == "group"} == {"test": 6, "train": 6}


def test_the_mean_map_lies_where_the_letter_does(cohort: Cohort) -> None:
    density = cohort.means[("site", "b")].density
    row, column = np.unravel_index(int(density.argmax()), density.shape)
    assert row < 0.25 * SIDE
    assert column > 0.75 * SIDE
    assert density.mean() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize(("seed", "apart", "told"), [(0, 0.0, False), (1, 0.0, False), (2, 0.3, True)])
def test_the_test_between_sites_keeps_its_word(seed: int, apart: float, told: bool) -> None:
    random = np.random.default_rng(seed)
    sites, labels = random.integers(0, 3, 120), random.integers(0, 2, 120)
    values = random.normal(0, 0.2, (120, 4)) + apart * (sites == 1)[:, None]
    residual = values - np.stack([values[labels == label].mean(0) for label in (0, 1)])[labels]
    assert (_permuted(residual, sites, labels, np.arange(120)) < 0.01) == told


def test_a_film_that_lies_elsewhere_is_carried_to_the_same_place() -> None:
    def drawn(top: int, left: int, scale: int) -> tuple[np.ndarray[Any, Any], Landmarks]:
        film = np.zeros((300, 300), np.float32)
        film[top + 4 * scale : top + 6 * scale, left + 2 * scale : left + 4 * scale] = 1
        ends = (top / 300, (top + 10 * scale) / 300)
        across = (left / 300, (left + 5 * scale) / 300, (left + 10 * scale) / 300)
        return film, Landmarks(*ends, *across)

    one, other = (in_common(*drawn(*where)) for where in ((20, 30, 12), (90, 60, 18)))
    inner = slice(round(FIELD.top * SIDE) + 2, round(FIELD.bottom * SIDE) - 2)
    both = np.minimum(one, other)[inner].sum() / np.maximum(one, other)[inner].sum()
    assert both > 0.85


def test_letters_and_devices_are_told_from_bones() -> None:
    film = read_scan(DEMO).display[0].numpy().copy()
    assert not any(regions(Scan.from_array(film)).masks[kind].any() for kind in ("token", "device"))
    rows, columns = (n / 100 for n in film.shape)

    def box(top: float, left: float, height: float, width: float) -> tuple[slice, slice]:
        low, right = top + height, left + width
        return slice(round(top * rows), round(low * rows)), slice(round(left * columns), round(right * columns))

    film[box(5, 92, 6, 1)] = film[box(10, 92, 1, 4)] = 1
    film[box(45, 70, 2, 2)] = 1
    found = regions(Scan.from_array(film))
    assert found.landmarks is not None
    assert found.landmarks.right < found.landmarks.middle < found.landmarks.left
    for kind, (row, column) in (("token", (8, 92)), ("device", (46, 71))):
        at = ndimage.center_of_mass(found.masks[kind])  # type: ignore[index]
        there = (100 * at[0] / found.small.shape[0], 100 * at[1] / found.small.shape[1])
        assert there == pytest.approx((row, column), abs=3)


def test_the_page_stands_alone(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["archive", "report", str(place)])
    assert end.value.code == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "does not look at the same places at every site" in said.out
    page = (place / "report.html").read_text()
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    assert "<q>" not in page
    assert "&lt;q&gt;07.png" in page
    assert page.count('class="film" id=') == len(set(re.findall(r'id="film-(\d+)"', page)))
    assert "no-film.png" in page


def test_only_some_films(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["archive", "report", str(place), "--only", "site=a", "--out", str(tmp_path / "a.html"), "--json"])
    assert end.value.code == 0
    assert "6 films" in (tmp_path / "a.html").read_text()
    capsys.readouterr()
    for wrong, code in (("site=z", 3), ("site", 2), ("colour=x", 2)):
        with pytest.raises(SystemExit) as end:
            main(["archive", "report", str(place), "--only", wrong])
        assert end.value.code == code
        assert capsys.readouterr().err.count("\n") == 1


def test_a_model_that_measures(tmp_path: Path) -> None:
    archives.films(tmp_path / "in", 6)
    run(Films(tmp_path / "in"), tmp_path / "out", archives.asked(archives.brightness, target=None), workers=0)
    cohort = gathered(str(tmp_path / "out"))
    assert (cohort.done, cohort.failed) == (6, 0)
    border = next(one for one in cohort.kinds if one.kind == "border")
    assert abs(border.effect.mean) < 0.5
    page, _ = save_cohort(str(tmp_path / "out"))
    assert "nan" not in re.sub(r"data:[^\"]*", "", Path(page).read_text()).lower()


def test_a_place_without_films(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    run(Films(tmp_path / "x.png"), tmp_path / "out", archives.asked(), workers=0)
    with pytest.raises(OutputError, match="no film with an answer"):
        gathered(str(tmp_path / "out"))
