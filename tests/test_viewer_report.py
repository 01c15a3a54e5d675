"""Reports and comparisons that were mailed: the viewer works from the file alone; without it pictures stand there."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import lucency
from chromium import STATIC, chromium, until
from lucency.render import Compared, save_comparison, save_report
from lucency.viewer import unpack
from lucency.viewer.inlined import MODULES, carried, module

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def bright(x: torch.Tensor) -> torch.Tensor:
    return x[..., 4:12, 8:20].mean((-1, -2, -3))[:, None]


def explained(*shape: int, **how: Any) -> lucency.Explanation:
    pixels = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    scan = lucency.Scan(pixels, spacing=(0.5,) * len(shape))
    return lucency.explain(scan, bright, **{"method": "occlusion", "removal": 0.0, "patch": 8, **how})


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@contextmanager
def opened(browser: Browser, path: Path, **how: Any) -> Iterator[Page]:
    """The page from disk; a request or a complaint fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **how)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None)
    page.goto(path.as_uri())
    try:
        yield page
        assert not wrong
    finally:
        context.close()


ALIVE = "document.documentElement.classList.contains('alive')"
READ = """(async () => {
  const all = [...document.querySelectorAll("lucency-viewer")];
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return all.map((v) => ({ shown: v.shown, view: v.view, pointer: v.pointer, frames: v.frames, crosses: v.crosses,
    said: v.shadowRoot.querySelector(".read").textContent, film: [...v.film.data.slice(0, 40)],
    map: v.shown ? [...v.layers.find((l) => l.id === v.shown).data] : [], masks: v.outlines }));
})()"""


def test_a_mailed_report_zooms_windows_and_reads_without_a_server(browser: Browser, tmp_path: Path) -> None:
    explanation = explained(40, 32)
    with opened(browser, save_report(explanation, tmp_path / "r.html")) as page:
        until(page, ALIVE)
        (found,) = page.evaluate(READ)
        assert found["shown"] == "map"
        assert found["frames"] > 0
        span = float(np.ptp(explanation.heatmap))
        assert np.abs(np.array(found["map"]).reshape(40, 32) - explanation.heatmap).max() <= span / 131070 * 1.01
        assert found["film"] == np.rint(explanation.pixels[0] * 65535).ravel()[:40].tolist()
        stage = page.locator("lucency-viewer .stage")
        box = stage.bounding_box() or {}
        page.mouse.move(box["x"] + box["width"] / 2 + 2, box["y"] + box["height"] / 2 + 2)
        (found,) = page.evaluate(READ)
        assert found["said"].startswith(f"row 20, column 16 · 10.3, 8.3 mm · value {explanation.pixels[0, 20, 16]:.3f}")
        page.mouse.wheel(0, -400)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2 + 42, box["y"] + box["height"] / 2 + 2)
        page.mouse.up()
        view = page.evaluate(READ)[0]["view"]
        assert view["zoom"] == pytest.approx(1.0015**400)
        assert view["window"]["width"] == pytest.approx(1.1)
        assert page.locator(".stage img.still").first.is_hidden()
        page.emulate_media(media="print")
        assert page.locator(".stage img.still").first.is_visible()
        assert page.locator("lucency-viewer").first.is_hidden()


def test_without_scripts_the_pictures_stand_there(browser: Browser, tmp_path: Path) -> None:
    path = save_report(explained(40, 32), tmp_path / "r.html")
    with opened(browser, path, java_script_enabled=False) as page:
        assert page.locator(".stage img").count() == 2
        assert all(image.is_visible() for image in page.locator(".stage img").all())
        assert page.locator(".live").is_hidden()


def test_the_planes_of_a_volume_share_their_window_and_keep_their_place(browser: Browser, tmp_path: Path) -> None:
    path = save_report(explained(16, 24, 20), tmp_path / "r.html")
    with opened(browser, path) as page:
        until(page, ALIVE)
        page.locator("lucency-viewer .stage").first.hover()
        page.mouse.wheel(0, -200)
        page.keyboard.press("Tab")
        page.locator("lucency-viewer .stage").first.press("i")
        views = [one["view"] for one in page.evaluate(READ)]
        assert [view["invert"] for view in views] == [True] * 3
        assert [view["zoom"] > 1 for view in views] == [True, False, False]


def test_a_comparison_moves_together(browser: Browser, tmp_path: Path) -> None:
    first, second = explained(40, 32), explained(40, 32, patch=16)
    truth = np.zeros((40, 32))
    truth[4:12, 8:20] = 1
    compared = [Compared("a", first), Compared("b", None, error="Broken."), Compared("c", second)]
    path = save_comparison(compared, tmp_path / "c.html", truth=truth)
    with opened(browser, path) as page:
        until(page, ALIVE)
        scan, one, other = page.evaluate(READ)
        assert [scan["shown"], one["shown"], other["shown"]] == [None, "a", "c"]
        for seen, explanation in ((one, first), (other, second)):
            span = float(np.ptp(explanation.heatmap))
            assert np.abs(np.array(seen["map"]).reshape(40, 32) - explanation.heatmap).max() <= span / 131070 * 1.01
        page.locator("lucency-viewer .stage").nth(1).hover()
        page.mouse.wheel(0, -300)
        found = page.evaluate(READ)
        assert found[0]["view"] == found[1]["view"] == found[2]["view"]
        assert found[0]["view"]["zoom"] > 1.5
        assert found[0]["pointer"] == found[2]["pointer"]
        assert found[0]["pointer"] is not None
        # What stands under the one cursor is read in every map.
        assert found[2]["said"].split(" · map")[0] == found[1]["said"].split(" · map")[0]
        page.get_by_label("Maps", exact=True).uncheck()
        page.get_by_label("Maxima").uncheck()
        page.get_by_label("Outline of the truth").uncheck()
        for seen in page.evaluate(READ):
            assert (seen["view"]["flicker"], seen["crosses"], seen["masks"]) == (True, False, False)


def test_carried_maps_keep_sixteen_bits_and_films_every_bit() -> None:
    rng = np.random.default_rng(0)
    film = rng.integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    flat = np.full((3, 4), -2.5, np.float32)
    text = carried({"title": "x"}, {"film": film, "flat": flat, "mask": np.ones((2, 2), np.uint8)})
    header, arrays = unpack(zlib.decompress(base64.b64decode(text)))
    low, high = arrays["film"].astype(np.int64)
    back = np.cumsum(np.cumsum(low + 256 * high, 0), 1) % 65536
    assert np.array_equal(back, film)
    assert header["differences"]["flat"]["low"] == -2.5
    assert not arrays["flat"].any()
    assert arrays["mask"].all()


@pytest.mark.parametrize("more", [("report",), ("chart", "widget")])
def test_the_one_module_holds_every_module_and_imports_nothing(more: tuple[str, ...]) -> None:
    assert {path.stem for path in STATIC.glob("*.js")} == {*MODULES, "chart", "report", "types", "widget"}
    source = module(*more)
    assert not re.search(r"^(import|export (?!default))", source, re.MULTILINE)
    assert "</script" not in source
    program = shutil.which("node")
    if program is not None:
        done = subprocess.run([program, "--input-type=module", "--check"], input=source, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
