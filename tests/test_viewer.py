"""The viewer in a real browser: what it shows, against the same mathematics in NumPy; what hands and keys do."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from chromium import chromium, page_of, until
from lucency.viewer import pack
from lucency.viewer.palette import AGAINST, SUPPORTS, Scale
from lucency.viewer.smooth import smooth

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Floats = NDArray[np.float64]
SIDE = 256
HTML = b"""<!doctype html><html lang="en"><head><title>Viewer</title><link rel="stylesheet" href="/page.css"></head>
<body><main><h1>Viewer</h1><div id="place"></div></main><script type="module" src="/page.js"></script></body></html>"""
CSS = f"""body {{ margin: 0; }}
h1 {{ position: absolute; left: 300px; }}
lucency-viewer {{ width: {SIDE}px; height: {SIDE}px; }}""".encode()
SCRIPT = b"""import { unpack } from "/packing.js";
import { opened } from "/viewer.js";
// Two frames later everything that was asked for is drawn.
window.drawn = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
window.open = async (path) => {
  const [plane] = opened(unpack(await (await fetch(path)).arrayBuffer()));
  const v = document.createElement("lucency-viewer");
  v.toggleAttribute("bare");
  v.setAttribute("aria-label", "Test film");
  v.crosses = false;
  v.film = plane.film;
  v.layers = plane.layers;
  window.v = v;
  window.events = [];
  for (const name of ["viewchange", "cursor", "shape", "layerchange"]) {
    v.addEventListener(name, (event) => window.events.push([name, event.detail]));
  }
  document.getElementById("place").replaceChildren(v);
  await window.drawn();
};
window.pixels = async () => {
  await window.drawn();
  const { width, height } = v.canvas;
  let text = "";
  for (const byte of v.pen.getImageData(0, 0, width, height).data) text += String.fromCharCode(byte);
  return [width, height, btoa(text)];
};
window.ready = true;
"""


class Room:
    """One page for all tests; each opens its own film in it."""

    def __init__(self, browser: Browser) -> None:
        self.files: dict[str, Any] = {"": HTML, "page.css": CSS, "page.js": SCRIPT}
        self.browser = browser
        self.number = 0

    @contextmanager
    def entered(self) -> Iterator[Room]:
        with page_of(self.browser, self.files, viewport={"width": 400, "height": 400}, has_touch=True) as self.page:
            until(self.page, "window.ready")
            yield self

    def open(self, data: bytes) -> Page:
        self.number += 1
        self.files[f"data-{self.number}"] = data
        self.page.mouse.move(399, 399)
        self.page.evaluate("path => open(path)", f"/data-{self.number}")
        return self.page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def room(browser: Browser) -> Iterator[Room]:
    with Room(browser).entered() as found:
        yield found


def film_of(pixels: NDArray[np.uint16], **more: Any) -> tuple[dict[str, Any], NDArray[np.uint16]]:
    rows, columns = pixels.shape[:2]
    about = {"width": columns, "height": rows, "channels": 3 if pixels.ndim == 3 else 1, "spacing": None}
    return {**about, "range": [0.0, 1.0], "title": "film", **more}, pixels


def layer_of(values: NDArray[Any], **more: Any) -> tuple[dict[str, Any], NDArray[Any]]:
    rows, columns = values.shape
    about = {"id": "map", "title": "A map", "kind": "map", "width": columns, "height": rows, "place": None}
    return {**about, "unit": "unit", "cells": None, **more}, values


def shown(room: Room, film: tuple[Any, Any], *layers: tuple[Any, Any]) -> Page:
    about, pixels = film
    named = [{**one, "array": f"layer-{i}"} for i, (one, _) in enumerate(layers)]
    header = {"planes": [{"name": "", "film": {**about, "array": "film"}, "layers": named}]}
    return room.open(pack(header, {"film": pixels, **{f"layer-{i}": values for i, (_, values) in enumerate(layers)}}))


def pixels_of(page: Page) -> NDArray[np.uint8]:
    width, height, text = page.evaluate("pixels()")
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)[..., :3]


def view(page: Page, **change: Any) -> None:
    page.evaluate("change => { v.view = { ...v.view, ...change }; }", change)


def last(page: Page, name: str) -> Any:
    return page.evaluate("name => (window.events.findLast(([n]) => n === name) ?? [])[1]", name)


# The same mathematics in NumPy


def points(shape: tuple[int, ...], zoom: float = 1, centre: tuple[float, float] | None = None) -> tuple[Floats, Floats]:
    """Row and column of the film in the middle of each pixel of the screen."""
    rows, columns = shape[:2]
    scale = min(SIDE / rows, SIDE / columns) * zoom
    middle = centre or (rows / 2, columns / 2)
    at = (np.arange(SIDE) + 0.5 - SIDE / 2) / scale
    row, column = np.meshgrid(at + middle[0], at + middle[1], indexing="ij")
    return row, column


def sampled(field: NDArray[Any], row: Floats, column: Floats, *, linear: bool) -> Floats:
    """A field at points, clamped at its edges."""
    values = field.astype(np.float64)
    rows, columns = field.shape[:2]
    if not linear:
        return values[
            np.clip(np.floor(row), 0, rows - 1).astype(int), np.clip(np.floor(column), 0, columns - 1).astype(int)
        ]
    r, c = np.floor(row - 0.5).astype(int), np.floor(column - 0.5).astype(int)
    fr, fc = row - 0.5 - r, column - 0.5 - c

    def at(dr: int, dc: int) -> Floats:
        found: Floats = values[np.clip(r + dr, 0, rows - 1), np.clip(c + dc, 0, columns - 1)]
        return found

    upper = at(0, 0) * (1 - fc) + at(0, 1) * fc
    return upper * (1 - fr) + (at(1, 0) * (1 - fc) + at(1, 1) * fc) * fr


def inside(field: NDArray[Any], row: Floats, column: Floats) -> NDArray[np.bool_]:
    return (row >= 0) & (column >= 0) & (row < field.shape[0]) & (column < field.shape[1])


def grey(film: NDArray[np.uint16], row: Floats, column: Floats, level: float, width: float, linear: bool) -> Floats:
    there = np.clip((sampled(film, row, column, linear=linear) / 65535 - (level - width / 2)) / width, 0, 1)
    return np.where(inside(film, row, column), there, 0)


def coloured(scan: Floats, strength: Floats, opacity: float, threshold: float = 0) -> Floats:
    share = np.where(np.abs(strength) < threshold, 0, np.abs(strength) * opacity)[..., None]
    hue = np.where(strength[..., None] < 0, np.array(AGAINST), np.array(SUPPORTS)) / 255
    return (scan[..., None] * (1 - share) + hue * share) * 255


def close(found: NDArray[np.uint8], wanted: Floats, share: float = 1.0) -> None:
    """To one count of 255, as cards round; ``share`` of all pixels, where an edge may fall on either side."""
    assert found.std() > 1
    assert (np.abs(found.astype(float) - wanted) <= 1.0).mean() >= share


RNG = np.random.default_rng(0)
FILM = RNG.integers(0, 65536, (32, 24), dtype=np.uint16)
MAP = RNG.normal(size=(32, 24)).astype(np.float32)


def test_the_film_keeps_its_sixteen_bits_through_a_narrow_window(room: Room) -> None:
    # 256 neighbouring counts fill the whole window: in 8 bits they would be one grey.
    pixels = (30000 + np.arange(256, dtype=np.uint16)).reshape(16, 16)
    page = shown(room, film_of(pixels))
    view(page, window={"level": 30127.5 / 65535, "width": 255 / 65535}, smooth=False)
    found = pixels_of(page)
    row, column = points(pixels.shape)
    close(found, np.repeat(255 * grey(pixels, row, column, 30127.5 / 65535, 255 / 65535, False)[..., None], 3, 2))
    assert len(np.unique(found)) > 250


@pytest.mark.parametrize("linear", [True, False])
def test_window_map_opacity_and_threshold_are_those_of_numpy(room: Room, linear: bool) -> None:
    limit = Scale.of(MAP).limit
    page = shown(room, film_of(FILM), layer_of(MAP))
    page.evaluate("v.shown = 'map'")
    for level, width, opacity, threshold in ((0.5, 1.0, 0.8, None), (0.4, 0.3, 0.5, 0.3)):
        setting = {"window": {"level": level, "width": width}, "opacity": opacity, "threshold": threshold}
        view(page, **setting, smooth=linear, zoom=1.7, centre=[20.0, 9.0])
        row, column = points(FILM.shape, 1.7, (20.0, 9.0))
        strength = np.clip(sampled(MAP, row, column, linear=linear) / limit, -1, 1)
        strength[~inside(FILM, row, column)] = 0
        wanted = coloured(grey(FILM, row, column, level, width, linear), strength, opacity, threshold or 0)
        # Where the map crosses the threshold, the last bit of a float decides.
        close(pixels_of(page), wanted, 0.9995)


def test_invert_and_flicker(room: Room) -> None:
    page = shown(room, film_of(FILM), layer_of(MAP))
    page.evaluate("v.shown = 'map'")
    view(page, flicker=True, invert=True, smooth=False)
    row, column = points(FILM.shape)
    scan = np.where(inside(FILM, row, column), 1 - grey(FILM, row, column, 0.5, 1, False), 0)
    close(pixels_of(page), np.repeat(255 * scan[..., None], 3, 2))


def test_a_layer_lies_at_its_place_and_the_film_is_bare_beside_it(room: Room) -> None:
    small = RNG.normal(size=(4, 4)).astype(np.float32)
    place = {"row": 8, "column": -4, "height": 16, "width": 16}
    page = shown(room, film_of(FILM), layer_of(small, place=place, limit=2.0))
    page.evaluate("v.shown = 'map'")
    view(page, smooth=False)
    row, column = points(FILM.shape)
    r, c = (row - 8) / 4, (column + 4) / 4
    strength = np.where(inside(small, r, c), np.clip(sampled(small, r, c, linear=False) / 2, -1, 1), 0)
    strength[~inside(FILM, row, column)] = 0
    close(pixels_of(page), coloured(grey(FILM, row, column, 0.5, 1, False), strength, 0.8))


def test_the_other_palettes_colour_as_they_say(room: Room) -> None:
    ramp = np.linspace(-1, 1, 32, dtype=np.float32)[:, None].repeat(24, 1)
    black = np.zeros((32, 24), np.uint16)
    page = shown(room, film_of(black), layer_of(ramp, limit=1.0))
    page.evaluate("v.shown = 'map'")
    row, _ = points(black.shape)
    at = np.clip(np.floor(row), 0, 31).astype(int)
    for name in ("sequential", "safe"):
        view(page, palette=name, opacity=1, smooth=False)
        hues = page.evaluate(
            "async ([name, ts]) => { const { PALETTES, colourAt } = await import('/palettes.js');"
            " return ts.map((t) => colourAt(PALETTES[name], t)); }",
            [name, ramp[:, 0].tolist()],
        )
        drawn = np.where(ramp[:, 0] < 0, name == "safe", True) * np.abs(ramp[:, 0])
        found = pixels_of(page)[:, SIDE // 2]
        close(found, (np.array(hues) * drawn[:, None])[at[:, 0]])


def test_a_threshold_as_contour_and_a_mask_are_outlines_around_what_they_enclose(room: Room) -> None:
    bump = np.zeros((32, 24), np.float32)
    bump[8:16, 6:12], bump[20:26, 6:12] = 1.0, -1.0
    mask = np.zeros((32, 24), np.uint8)
    mask[4:30, 14:20] = 1
    black = np.zeros((32, 24), np.uint16)
    layers = layer_of(bump, limit=1.0), layer_of(mask, id="truth", kind="mask")
    page = shown(room, film_of(black), *layers)
    page.evaluate("v.shown = 'map'")
    view(page, contour=True, threshold=0.5, smooth=False)
    row, column = points(black.shape)

    def ring(field: NDArray[Any]) -> NDArray[np.bool_]:
        def there(down: int, across: int) -> NDArray[np.bool_]:
            r, c = row + down / 8, column + across / 8
            return (sampled(field, r, c, linear=False) > 0) & inside(field, r, c)

        near = [there(d, a) for d, a in ((0, 2), (1, 1), (2, 0), (1, -1), (0, -2), (-1, -1), (-2, 0), (-1, 1))]
        return np.logical_or.reduce(near) & ~there(0, 0)

    wanted = np.zeros((SIDE, SIDE, 3))
    wanted[ring(bump > 0)], wanted[ring(bump < 0)], wanted[ring(mask)] = SUPPORTS, AGAINST, (128, 226, 140)
    close(pixels_of(page), wanted)
    page.evaluate("v.outlines = false")
    wanted[ring(mask)] = 0
    close(pixels_of(page), wanted)


def test_a_small_picture_of_a_large_film_shows_means_and_no_patterns(room: Room) -> None:
    large = RNG.integers(0, 65536, (1024, 1024), dtype=np.uint16)
    page = shown(room, film_of(large))
    means = large.reshape(SIDE, 4, SIDE, 4).mean((1, 3)) / 65535 * 255
    close(pixels_of(page), np.repeat(means[..., None], 3, 2))
    odd = np.full((1023, 777), 40000, np.uint16)
    odd[:, :400] = 20000
    page = shown(room, film_of(odd))
    found = pixels_of(page)[SIDE // 2, :, 0]
    assert set(np.unique(found[100:125])) == {round(20000 / 257)}
    assert set(np.unique(found[140:200])) == {round(40000 / 257)}


def test_colour_films_are_shown_in_colour(room: Room) -> None:
    pixels = RNG.integers(0, 65536, (16, 16, 3), dtype=np.uint16)
    page = shown(room, film_of(pixels))
    view(page, smooth=False)
    row, column = points(pixels.shape)
    close(pixels_of(page), sampled(pixels, row, column, linear=False) / 257)


def test_maps_of_patches_are_smoothed_as_the_pictures_of_python_are(room: Room) -> None:
    rows, columns = [-3.0, 5.5, 8, 16, 24, 30.25], [0.0, 8, 16, 24]
    values = np.zeros((32, 24), np.float32)
    for i in range(5):
        for j in range(3):
            values[max(0, round(rows[i])) : round(rows[i + 1]), int(columns[j]) : int(columns[j + 1])] = RNG.normal()
    values[31] = 0.25
    wanted = smooth(values, [np.array(rows), np.array(columns)])
    cells = {"rows": rows, "columns": columns}
    page = shown(room, film_of(FILM), layer_of(values, cells=cells))
    found = page.evaluate(
        "async () => { const { smoothed } = await import('/fields.js'); const { data, width, height, cells } ="
        " v.layers[0]; return [...smoothed(data, width, height, cells)]; }"
    )
    assert np.array(found).reshape(32, 24) == pytest.approx(wanted, abs=1e-6)
    limit = page.evaluate("async () => (await import('/fields.js')).fullAt(v.layers[0].data)")
    assert limit == pytest.approx(Scale.of(values).limit, rel=1e-6)
    page.evaluate("v.shown = 'map'")
    row, column = points(FILM.shape)
    strength = np.clip(sampled(wanted, row, column, linear=True) / limit, -1, 1)
    strength[~inside(FILM, row, column)] = 0
    close(pixels_of(page), coloured(grey(FILM, row, column, 0.5, 1, True), strength, 0.8))


# What hands do


def middle(row: float, column: float, zoom: float = 1) -> tuple[float, float]:
    """Where a point of FILM lies on the screen."""
    scale = SIDE / 32 * zoom
    return SIDE / 2 + (column - 12) * scale, SIDE / 2 + (row - 16) * scale


def test_the_cursor_reads_row_column_millimetres_value_and_map_exactly(room: Room) -> None:
    film = film_of(FILM, spacing=[0.2, 0.2], range=[-1000.0, 3000.0])
    page = shown(room, film, layer_of(MAP))
    page.evaluate("v.shown = 'map'")
    for row, column in ((0, 0), (31, 23), (17, 5)):
        page.mouse.move(*middle(row + 0.3, column + 0.8))
        page.evaluate("drawn()")
        found = last(page, "cursor")
        value = -1000 + FILM[row, column] / 65535 * 4000
        assert (found["row"], found["column"]) == (row, column)
        assert found["mm"] == [(row + 0.5) * 0.2, (column + 0.5) * 0.2]
        assert found["value"] == pytest.approx(value, abs=1e-9)
        assert found["mapValue"] == float(MAP[row, column])
        said = page.evaluate("v.shadowRoot.querySelector('.read').textContent")
        assert said.startswith(f"row {row}, column {column} · {found['mm'][0]:.1f}, {found['mm'][1]:.1f} mm · value ")
        assert said.split("value ")[1].split(" ")[0] == f"{value:.0f}".replace("-", "−")
        number = float(said.split("map ")[1].replace("−", "-"))
        assert number == float(f"{MAP[row, column]:.3g}")
    page.mouse.move(390, 390)
    assert last(page, "cursor") is None


def test_dragging_sets_the_window_and_a_double_click_resets_it(room: Room) -> None:
    page = shown(room, film_of(FILM, range=[0.0, 4.0]))
    page.mouse.move(100, 100)
    page.mouse.down()
    page.mouse.move(140, 90, steps=4)
    page.mouse.up()
    window = page.evaluate("v.view.window")
    assert window == pytest.approx({"level": 2 - 10 * 0.01, "width": 4 + 40 * 0.01})
    assert last(page, "viewchange")["window"] == pytest.approx(window)
    page.mouse.move(100, 100)
    page.mouse.down()
    page.mouse.move(-900, 100)
    page.mouse.up()
    assert page.evaluate("v.view.window.width") > 0
    view(page, zoom=3)
    page.mouse.dblclick(100, 100)
    assert page.evaluate("v.view.window") == {"level": 2, "width": 4}
    assert page.evaluate("[v.view.zoom, v.view.centre]") == [1, [16, 12]]


def test_the_wheel_zooms_and_leaves_the_point_under_the_cursor_where_it_is(room: Room) -> None:
    page = shown(room, film_of(FILM))
    page.mouse.move(*middle(10.25, 7.75))
    for turn in (-300, -300, 200):
        page.mouse.wheel(0, turn)
        page.evaluate("drawn()")
    (zoom, (row, column)) = page.evaluate("[v.view.zoom, v.view.centre]")
    assert zoom == pytest.approx(1.0015**400)
    scale = 8 * zoom
    x, y = middle(10.25, 7.75)
    assert row + (y - SIDE / 2) / scale == pytest.approx(10.25, abs=1e-3)
    assert column + (x - SIDE / 2) / scale == pytest.approx(7.75, abs=1e-3)


@pytest.mark.parametrize("how", ["right", "middle", "space", "tool"])
def test_the_film_is_moved(room: Room, how: str) -> None:
    page = shown(room, film_of(FILM), layer_of(MAP))
    view(page, zoom=2)
    page.mouse.click(10, 10)
    if how == "tool":
        page.evaluate("v.tool = 'pan'")
    if how == "space":
        page.keyboard.down(" ")
    button: Any = how if how in ("right", "middle") else "left"
    page.mouse.move(100, 100)
    page.mouse.down(button=button)
    page.mouse.move(116, 84, steps=3)
    page.mouse.up(button=button)
    if how == "space":
        page.keyboard.up(" ")
    assert page.evaluate("v.view.centre") == pytest.approx([16 + 1, 12 - 1])
    assert page.evaluate("[v.view.flicker, v.view.window.width]") == [False, 1]


def test_every_key_does_what_the_list_says(room: Room) -> None:
    layers = layer_of(MAP), layer_of(np.abs(MAP), id="error", kind="error", signed=False)
    page = shown(room, film_of(FILM), *layers)
    page.mouse.click(10, 10)
    for key, reads, wanted in (
        (" ", "v.view.flicker", True), (" ", "v.view.flicker", False), ("i", "v.view.invert", True),
        ("c", "v.view.contour", True), ("s", "v.view.smooth", False), ("o", "v.view.opacity", 0.7),
        ("Shift+O", "v.view.opacity", 0.8), ("t", "v.view.threshold", 0.05), ("Shift+T", "v.view.threshold", None),
        ("p", "v.view.palette", "sequential"), ("+", "v.view.zoom", 1.25), ("-", "v.view.zoom", 1),
        ("ArrowRight", "v.view.centre[1]", 12 + 40 / 8), ("ArrowUp", "v.view.centre[0]", 16 - 40 / 8),
        ("Shift+ArrowRight", "v.view.window.width", 1.05), ("Shift+ArrowUp", "v.view.window.level", 0.45),
        ("l", "v.shown", "map"), ("l", "v.shown", "error"), ("l", "v.shown", None), ("Shift+L", "v.shown", "error"),
        ("x", "v.crosses", True), ("m", "v.outlines", False), ("2", "v.tool", "pan"), ("3", "v.tool", "pan"),
        ("1", "v.tool", "window"), ("f", "[v.view.zoom, v.view.centre]", [1, [16, 12]]),
        ("r", "[v.view.invert, v.view.window]", [False, {"level": 0.5, "width": 1}]),
    ):  # fmt: skip
        page.keyboard.press(key)
        found = page.evaluate(reads)
        assert found == (pytest.approx(wanted) if isinstance(wanted, float) else wanted), (key, reads, found)
    page.keyboard.press("k")
    before = last(page, "cursor")
    page.keyboard.press("ArrowDown")
    assert last(page, "cursor")["row"] == before["row"] + 1
    assert "row" in page.evaluate("v.shadowRoot.querySelector('[role=status]').textContent")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    dialog = page.locator("dialog[open]")
    assert dialog.count() == 1
    assert "Double click" in (dialog.text_content() or "")
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert page.evaluate("v.shadowRoot.activeElement.className") == "stage"


def drag(page: Page, start: tuple[float, float], *ends: tuple[float, float]) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    for end in ends:
        page.mouse.move(*end, steps=2)
    page.mouse.up()


@pytest.mark.parametrize("kind", ["rectangle", "ellipse"])
def test_boxes_are_drawn_in_pixels_of_the_film(room: Room, kind: str) -> None:
    page = shown(room, film_of(FILM))
    page.evaluate("kind => { v.tool = kind; }", kind)
    drag(page, middle(20.9, 15.1), middle(4.1, 3.9))
    assert last(page, "shape") == {"kind": kind, "rows": [4, 21], "columns": [3, 16]}
    drag(page, middle(30.5, 20.5), (300, 300))
    assert last(page, "shape") == {"kind": kind, "rows": [30, 32], "columns": [20, 24]}
    page.evaluate("v.setAttribute('draw', '')")
    # The same by keyboard: the cursor moves by pixels, Enter sets the corners.
    page.mouse.move(*middle(10.5, 10.5))
    page.keyboard.press("Enter")
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    assert last(page, "shape") == {"kind": kind, "rows": [10, 13], "columns": [10, 12]}


def test_a_brush_stroke_is_the_pixels_within_its_radius(room: Room) -> None:
    page = shown(room, film_of(FILM, spacing=[1.0, 1.0]))
    page.evaluate("v.tool = 'brush'")
    drag(page, middle(10.5, 5.5), middle(10.5, 15.5), middle(20.5, 15.5))
    found = page.evaluate("(() => { const d = window.events.findLast(([n]) => n === 'shape')[1];"
                          " return [d.kind, d.width, d.height, [...d.mask]]; })()")  # fmt: skip
    assert found[:3] == ["brush", 24, 32]
    row, column = np.mgrid[:32, :24] + 0.5
    across = np.hypot(row - 10.5, column - np.clip(column, 5.5, 15.5))
    down = np.hypot(row - np.clip(row, 10.5, 20.5), column - 15.5)
    wanted = np.minimum(across, down) <= 12 / 8
    assert np.array_equal(np.array(found[3]).reshape(32, 24), wanted)


def test_a_superpixel_is_picked(room: Room) -> None:
    page = shown(room, film_of(FILM))
    page.evaluate(
        "v.tool = 'pick'; v.regions = { width: 3, height: 4, place: null,"
        " data: Uint16Array.from({ length: 12 }, (_, i) => 100 + i) };"
    )
    x, y = middle(17.5, 9.5)
    page.mouse.move(x, y)
    before = pixels_of(page)
    assert (before == (128, 226, 140)).all(2).any()
    page.mouse.click(x, y)
    assert last(page, "shape") == {"kind": "pick", "row": 17, "column": 9, "label": 107}


def test_two_fingers_zoom_and_move_and_one_sets_the_window(room: Room) -> None:
    page = shown(room, film_of(FILM))
    client = page.context.new_cdp_session(page)

    def touch(kind: str, *fingers: tuple[float, float]) -> None:
        spots = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(fingers)]
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": spots})

    touch("touchStart", (128, 128))
    touch("touchMove", (148, 128))
    touch("touchEnd")
    assert page.evaluate("v.view.window.width") == pytest.approx(1 + 20 / 400, abs=0.011)
    touch("touchStart", (108, 128))
    touch("touchStart", (108, 128), (148, 128))
    for step in range(1, 11):
        touch("touchMove", (108 - 2 * step, 128), (148 + 2 * step, 128))
    touch("touchEnd")
    assert page.evaluate("v.view.zoom") == pytest.approx(2, rel=0.02)
    assert page.evaluate("v.view.centre") == pytest.approx([16, 12], abs=0.3)
    touch("touchStart", (108, 128))
    touch("touchStart", (108, 128), (148, 128))
    for step in range(1, 11):
        touch("touchMove", (108 + 2 * step, 128), (148 + 2 * step, 128))
    touch("touchEnd")
    assert page.evaluate("v.view.centre[1]") == pytest.approx(12 - 20 / 16, abs=0.3)


def test_axe_finds_nothing_and_every_text_is_large_enough(room: Room) -> None:
    module = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    for scheme in ("light", "dark"):
        page = shown(room, film_of(FILM, spacing=[0.1, 0.1]), layer_of(MAP))
        page.emulate_media(color_scheme=scheme)
        page.evaluate("v.shown = 'map'; v.removeAttribute('bare'); v.setAttribute('draw', ''); v.style.width = '390px'")
        page.evaluate("v.shadowRoot.querySelector('.open').click()")
        # As HTML puts it: of a language, with a heading; the page around the viewer is no business of it.
        found = module.Axe().run(page).response["violations"]
        assert not found, [(v["id"], [n["html"] for n in v["nodes"]]) for v in found]
        page.evaluate("v.help()")
        found = module.Axe().run(page).response["violations"]
        assert not found, [(v["id"], [n["html"] for n in v["nodes"]]) for v in found]
        sizes = page.evaluate(
            "[...v.shadowRoot.querySelectorAll('*')].map((e) => parseFloat(getComputedStyle(e).fontSize))"
        )
        assert min(sizes) >= 12


def test_without_webgl_it_says_so_in_one_sentence(browser: Browser) -> None:
    files: dict[str, Any] = {
        "": b'<!doctype html><html lang="en"><title>x</title><lucency-viewer id="v"></lucency-viewer>'
        b'<script src="/first.js"></script><script type="module" src="/page.js"></script></html>',
        "first.js": b"const get = HTMLCanvasElement.prototype.getContext; HTMLCanvasElement.prototype.getContext ="
        b" function (kind, how) { return kind === 'webgl2' ? null : get.call(this, kind, how); };",
        "page.js": b"import { LucencyViewer } from '/viewer.js'; window.supported = LucencyViewer.supported;"
        b"document.getElementById('v').film = { width: 1, height: 1, channels: 1, data: new Uint16Array(1),"
        b" spacing: null, range: [0, 1], title: '' };",
    }
    with page_of(browser, files) as page:
        until(page, "window.supported === false")
        until(page, "document.getElementById('v').shadowRoot.textContent.includes('has no WebGL2')")


def test_a_lost_context_comes_back(room: Room) -> None:
    page = shown(room, film_of(FILM), layer_of(MAP))
    page.evaluate("v.shown = 'map'")
    before = pixels_of(page)
    page.evaluate(
        "async () => { const { painter } = await import('/painter.js'); const lose ="
        " painter().gl.getExtension('WEBGL_lose_context'); lose.loseContext();"
        " await new Promise((done) => setTimeout(done, 50)); lose.restoreContext();"
        " await new Promise((done) => setTimeout(done, 100)); }"
    )
    assert np.array_equal(pixels_of(page), before)


def test_twenty_viewers_share_one_context_and_what_goes_is_let_go(room: Room) -> None:
    page = shown(room, film_of(FILM), layer_of(MAP))
    held = page.evaluate(
        """async () => {
          const { painter } = await import("/painter.js");
          const kept = painter().held;
          v.shown = "map";
          const more = Array.from({ length: 20 }, () => document.createElement("lucency-viewer"));
          for (const w of more) {
            w.toggleAttribute("bare");
            w.crosses = false;
            Object.assign(w, { film: v.film, layers: v.layers, shown: "map" });
          }
          document.body.append(...more);
          await drawn();
          const during = kept.size;
          const part = (w) => String(w.pen.getImageData(50, 50, 9, 9).data);
          const same = more.filter((w) => part(w) === part(v)).length;
          more.forEach((w) => w.remove());
          v.layers = [];
          await drawn();
          const after = kept.size;
          v.remove();
          return [during, same, after, kept.size];
        }"""
    )
    # Film and map once for all; without its layer only the film; without viewers nothing.
    assert held == [2, 20, 1, 0]
