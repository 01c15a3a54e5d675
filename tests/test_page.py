"""The page of ``lucency serve`` in a real browser, before a real server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the serve extra is not installed")
pytest.importorskip("sqlalchemy", reason="the serve extra is not installed")

from chromium import chromium, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Route

PAGE = Path(__file__).resolve().parent.parent / "src" / "lucency" / "serve" / "page"
QUICK: dict[str, dict[str, str]] = {
    "occlusion": {"Patch": "56", "Stride": "56"},
    "lime": {"Samples": "48"},
    "integrated_gradients": {"Alphas": "12"},
    "meaningful_perturbation": {"Iterations": "12"},
    "rise": {"Samples": "64"},
}
"""The methods that the idea began with, as short as they go."""
PANELS = {
    "occlusion": "map",
    "integrated_gradients": "map",
    "rise": "map",
    "meaningful_perturbation": "curve",
    "lime": "",
}


class Server:
    """``lucency serve`` in a process of its own, which can be killed and started again at the same address."""

    def __init__(self, folder: Path, *options: str, token: str = "") -> None:
        self.folder, self.port, self.options = folder, 0, options
        self.environment = os.environ | ({"LUCENCY_TOKEN": token} if token else {})
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "lucency", "serve"]
        command += ["--model", "lucency:phantom", "--model", "lucency:effusion"]
        command += ["--port", str(self.port), "--data", str(self.folder), *self.options]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=self.environment
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/", line):
                self.port = int(found[1])
                return
        raise AssertionError("The server did not start.")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.address}api/v1/{path}", timeout=30) as answer:
            return json.load(answer)


@dataclass
class Room:
    """A browser before the server, and whatever its pages complained about or asked of others."""

    server: Server
    context: BrowserContext
    complaints: list[str] = field(default_factory=list)

    def page(self, address: str = "", **size: int) -> Page:
        page = self.context.new_page()
        # Tests run beside other work.
        page.set_default_timeout(60_000)
        page.set_viewport_size({"width": size.get("width", 1280), "height": size.get("height", 800)})
        own = self.server.address

        def said(message: Any) -> None:
            # That a server that was killed does not answer is what one of the tests is about.
            expected = "ERR_CONNECTION" in message.text or "WebSocket" in message.text or " 422 " in message.text
            expected = expected or " 401 " in message.text
            slow = "ReadPixels" in message.text
            if message.type in ("error", "warning") and not expected and not slow:
                self.complaints.append(message.text)

        def asked(request: Any) -> None:
            if not request.url.startswith((own, "blob:", "data:")):
                self.complaints.append(f"asked {request.url}")

        page.on("console", said)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", asked)
        page.goto(address or own)
        page.wait_for_selector('.connection[data-now="open"]', state="attached")
        return page


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # Not before it is known that there is a browser to look at it.
    with chromium():
        pass
    found = Server(tmp_path_factory.mktemp("served"))
    yield found
    found.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def room(server: Server, browser: Browser) -> Iterator[Room]:
    context = browser.new_context(color_scheme="dark", accept_downloads=True)
    found = Room(server, context)
    try:
        yield found
        assert not found.complaints, found.complaints
    finally:
        context.close()


def opened(page: Page) -> Page:
    page.click("#demo")
    page.wait_for_selector(".probabilities .number:not(:empty)", state="attached")
    return page


def choose(page: Page, method: str, **parameters: str) -> None:
    page.get_by_label("Method", exact=True).select_option(method)
    if page.locator("#question details[open]").count() == 0:
        page.click("#question summary")
    for name, value in (QUICK[method] | parameters).items():
        control = page.locator(".parameters").get_by_label(name, exact=True)
        control.fill(value)
        control.blur()


def run(page: Page, method: str, **parameters: str) -> None:
    choose(page, method, **parameters)
    page.click("#run")
    page.wait_for_selector("#run:not(.stop)")
    page.wait_for_selector(".verdict:not(:empty)")
    page.wait_for_selector(".line input:enabled")


def drag(page: Page, where: str, start: tuple[float, float], end: tuple[float, float]) -> None:
    """From one place of the stage of a viewer to another, in shares of the film, which fits its height."""
    box = page.locator(f"{where} .stage").bounding_box()
    assert box is not None
    side = min(box["width"], box["height"])
    left, top = box["x"] + (box["width"] - side) / 2, box["y"] + (box["height"] - side) / 2
    page.mouse.move(left + side * start[0], top + side * start[1])
    page.mouse.down()
    page.mouse.move(left + side * end[0], top + side * end[1], steps=4)
    page.mouse.up()


def slider(page: Page) -> Any:
    return page.get_by_label("Moment of the run")


def hash_of(page: Page) -> dict[str, str]:
    """What the address holds, once it has settled."""
    page.wait_for_timeout(400)
    found: dict[str, str] = page.evaluate("Object.fromEntries(new URLSearchParams(location.hash.slice(1)))")
    return found


def test_each_method_of_the_idea_runs_live_and_can_be_scrubbed(room: Room) -> None:
    page = opened(room.page())
    assert page.locator(".panels .panel:visible").count() == 1, "the film has the room before the first run"
    for method, split in PANELS.items():
        run(page, method)
        assert page.locator(".panels .panel:visible").count() == 3
        assert page.locator(".panel .body").nth(2).get_attribute("data-split") == split
        label = page.locator(".panel .chart").get_attribute("aria-label") or ""
        assert re.search(r" from -?[\d.e-]+ to -?[\d.e-]+ over ", label), label
        number = int(slider(page).get_attribute("max") or 0)
        assert number >= 2
        slider(page).fill("0")
        first = page.inner_text(".line .said")
        assert first.startswith(f"step 1 of {number + 1},")
        page.keyboard.press(".")
        assert page.inner_text(".line .said").startswith("step 2 of ")
        title = page.locator("#question option:checked").all_inner_texts()
        assert page.locator(".numbers td", has_text=title[1]).count() >= 1
    page.get_by_label("Play").click()
    page.get_by_label("Pause").wait_for()
    page.keyboard.press("k")
    page.get_by_label("Play").wait_for()


def test_a_run_can_be_cancelled_and_leaves_the_map_so_far(room: Room) -> None:
    page = opened(room.page())
    choose(page, "rise")
    samples = page.locator(".parameters").get_by_label("Samples", exact=True)
    samples.fill("20000")
    samples.blur()
    page.keyboard.press("r")
    page.wait_for_selector(".panel:nth-child(2) .fact:not(:empty)")
    # With the question folded away, as on a tablet, there is a way to stop.
    assert not page.locator(".line .stop").is_visible()
    page.keyboard.press("]")
    assert re.search(r" left$", page.inner_text(".line .said"))
    page.click(".line .stop")
    page.wait_for_selector(".line .stop", state="hidden")
    page.keyboard.press("]")
    page.wait_for_selector("#run:not(.stop)")
    page.wait_for_selector(".notices li")
    assert "the map so far" in page.inner_text(".notices")


def test_a_region_that_is_removed_changes_the_probabilities(room: Room) -> None:
    page = opened(room.page())
    page.keyboard.press("a")
    page.wait_for_selector(".asking lucency-viewer")
    page.wait_for_timeout(300)
    drag(page, ".asking", (0.15, 0.6), (0.45, 0.9))
    page.wait_for_selector(".asked .tile")
    assert page.locator(".asked .tile").inner_text().startswith("Without this rectangle: ")
    assert page.locator(".answers .down, .answers .up").count() >= 1
    assert int(page.get_attribute(".took", "data-milliseconds") or 0) > 0
    page.get_by_label("Keep only it").check()
    page.wait_for_selector(".asked .tile >> nth=1")
    assert page.locator(".asked .tile").first.inner_text().startswith("Only this rectangle: ")
    page.click(".asking [data-tool=ellipse]")
    drag(page, ".asking", (0.5, 0.3), (0.7, 0.5))
    page.wait_for_selector(".asked .tile >> nth=2")
    page.click(".asking [data-tool=brush]")
    drag(page, ".asking", (0.3, 0.3), (0.5, 0.4))
    page.wait_for_selector(".asked .tile >> nth=3")
    until(page, "document.querySelector('.asking lucency-viewer').regions !== null")
    page.click(".asking [data-tool=pick]")
    drag(page, ".asking", (0.3, 0.7), (0.3, 0.7))
    page.wait_for_selector(".asked .tile >> nth=4")
    assert "superpixel" in page.locator(".asked .tile").first.inner_text()
    page.keyboard.press("u")
    assert "brush stroke" in page.inner_text(".asked [aria-current]")
    page.locator(".asked li").nth(4).get_by_role("button", name="Pin for the report").click()
    page.wait_for_selector(".asked [aria-pressed=true]")
    scan = hash_of(page)["scan"]
    kept = room.server.get(f"questions?scan={scan}")
    assert len(kept) == 1
    assert kept[0]["ask"]["remove"]["rectangle"]
    again = room.page(page.url)
    again.wait_for_selector(".asked [aria-pressed=true]")
    again.locator(".asked").get_by_role("button", name="Do not put into the report").click()
    again.wait_for_selector(".asked .hint, .asked [aria-pressed=false]")
    assert room.server.get(f"questions?scan={scan}") == []


def test_two_methods_stand_side_by_side_and_say_what_they_agree_on(room: Room) -> None:
    page = opened(room.page())
    choose(page, "lime")
    choose(page, "occlusion")
    page.keyboard.press("c")
    page.wait_for_selector(".column >> nth=1")
    page.get_by_label("Method, Column 2").select_option("lime")
    page.click("#question .primary")
    page.wait_for_selector(".answer .said .verdict:not(:empty)")
    assert "agree" in page.inner_text(".said .verdict")
    assert page.locator(".comparing .numbers th[scope=col]").all_inner_texts()[1:] == ["1 Occlusion", "2 LIME"]
    page.locator(".column .stage").first.hover()
    page.mouse.wheel(0, -400)
    page.wait_for_timeout(200)
    zooms = page.evaluate("[...document.querySelectorAll('.column lucency-viewer')].map((v) => v.view.zoom)")
    assert zooms[0] > 1.2
    assert zooms[1] == pytest.approx(zooms[0])
    assert len(json.loads(hash_of(page)["columns"])) == 2
    page.keyboard.press("e")
    page.keyboard.press("c")
    assert hash_of(page)["mode"] == "compare"
    again = room.page(page.url)
    again.wait_for_selector(".comparing .said .verdict:not(:empty)")
    assert again.inner_text(".said .verdict") == page.inner_text(".said .verdict")


def test_two_models_and_two_films_stand_side_by_side(room: Room) -> None:
    page = room.page()
    for title in ("Simulated film without fluid", "Simulated film with an effusion"):
        page.locator(".scans .tiles").first.get_by_text(title, exact=True).click()
        page.wait_for_selector(f".top .open:has-text('{title}')")
        page.keyboard.press("[")
    page.wait_for_selector(".probabilities .number:not(:empty)", state="attached")
    choose(page, "occlusion")
    page.keyboard.press("c")
    page.wait_for_selector(".column >> nth=1")
    page.get_by_label("Method, Column 2").select_option("occlusion")
    page.get_by_label("Model, Column 2").select_option("lucency:effusion")
    page.click("#question .primary")
    page.wait_for_selector(".answer .said .verdict:not(:empty)")
    heads = page.locator(".comparing .numbers th[scope=col]")
    assert heads.all_inner_texts()[1:] == ["1 Occlusion, lucency:phantom", "2 Occlusion, lucency:effusion"]
    page.get_by_label("Model, Column 2").select_option("lucency:phantom")
    page.get_by_label("Film, Column 2").select_option(label="Simulated film without fluid")
    assert page.inner_text(".column >> nth=1").split("\n")[1] == "Not run yet"
    page.click("#question .primary")
    until(page, "document.querySelectorAll('.comparing thead th').length === 3")
    assert heads.all_inner_texts()[1:] == [
        "1 Occlusion, Simulated film with an effusion",
        "2 Occlusion, Simulated film without fluid",
    ]
    # Maps agree on one film or not at all.
    assert page.inner_text(".answer .said .verdict") == ""
    films = page.evaluate("[...document.querySelectorAll('.column lucency-viewer')].map((v) => v.film.title)")
    assert films == ["Simulated film with an effusion", "Simulated film without fluid"]
    values = [float(row.all_inner_texts()[0]) for row in (page.locator(".column .fact").nth(i) for i in range(2))]
    assert values[0] > values[1]


def test_an_earlier_answer_that_comes_late_does_not_undo_what_was_chosen(room: Room) -> None:
    first = opened(room.page())
    # One that no other test has made, so that it is the newest.
    run(first, "occlusion", Patch="112", Stride="112")
    page = room.page()
    held: list[Route] = []
    page.route("**/api/v1/explanations/*/packed", lambda route: held.append(route))
    page.click("#demo")
    page.wait_for_selector(".probabilities .number:not(:empty)", state="attached")
    page.get_by_label("Method", exact=True).select_option("rise")
    assert held
    for route in held:
        route.continue_()
    page.wait_for_selector(".verdict:not(:empty)")
    assert page.get_by_label("Method", exact=True).input_value() == "rise"
    # Where nothing was chosen in between, the question of the answer stands again.
    again = opened(room.page())
    again.wait_for_selector(".verdict:not(:empty)")
    assert again.get_by_label("Method", exact=True).input_value() == "occlusion"


def test_a_link_opens_the_same_view_after_the_server_was_killed(room: Room) -> None:
    page = opened(room.page())
    run(page, "occlusion", Patch="75", Stride="75")
    for kind in ("WebP", "GIF"):
        with page.expect_download() as download:
            page.get_by_label(f"Save {kind}").click()
        assert download.value.suggested_filename == f"animation.{kind.lower()}"
        with Image.open(download.value.path()) as film:
            assert film.format == ("WEBP" if kind == "WebP" else kind)
            assert film.n_frames > 1  # type: ignore[attr-defined]
    if find_spec("imageio_ffmpeg"):
        with page.expect_download() as download:
            page.get_by_label("Save MP4").click()
        assert download.value.path().read_bytes()[4:8] == b"ftyp"
    with page.expect_download() as download:
        page.get_by_label("Save Explanation").click()
    assert download.value.path().read_bytes()[:2] == b"PK"
    page.click(".measured > button")
    page.wait_for_selector(".curves .chart")
    assert "MoRF, AOPC" in page.inner_text(".curves table")
    page.locator(".panel .stage").first.hover()
    page.mouse.wheel(0, -300)
    slider(page).fill("1")
    link = hash_of(page)
    zoom = page.evaluate("document.querySelector('.panel lucency-viewer').view.zoom")
    room.server.kill()
    page.wait_for_selector('.connection[data-now="lost"]')
    room.server.start()
    page.wait_for_selector('.connection[data-now="open"]')
    again = room.page(page.url)
    again.wait_for_selector(".verdict:not(:empty)")
    assert again.inner_text(".verdict") == page.inner_text(".verdict")
    until(again, "document.querySelector('.line .said').textContent.startsWith('step 2 of')")
    assert again.evaluate("document.querySelector('.panel lucency-viewer').view.zoom") == pytest.approx(zoom, rel=1e-4)
    assert hash_of(again) == link
    again.keyboard.press("[")
    assert "Simulated film with an effusion" in again.locator(".scans .tiles").nth(1).inner_text()


def test_files_and_phantoms_are_opened_and_what_cannot_be_is_said(room: Room, tmp_path: Path) -> None:
    page = room.page()
    good, bad = tmp_path / "mine.png", tmp_path / "broken.png"
    Image.fromarray((np.random.default_rng(3).random((96, 80)) * 255).astype(np.uint8)).save(good)
    bad.write_bytes(b"no picture")
    page.get_by_label("Open a file").last.set_input_files([good])
    page.wait_for_selector(".top .open:has-text('mine.png')")
    page.keyboard.press("[")
    page.get_by_label("Open a file").last.set_input_files([bad])
    page.wait_for_selector(".errors li")
    assert page.locator(".errors li span").inner_text().endswith(".")
    assert "Traceback" not in page.inner_text(".errors")
    page.get_by_label("Dismiss").click()
    assert page.locator(".errors li").count() == 0
    page.keyboard.press("n")
    page.get_by_label("Left").check()
    page.get_by_label("Fluid on each affected side").fill("500")
    page.get_by_role("button", name="Make it").click()
    page.get_by_role("button", name="Show the truth").click()
    until(page, "document.querySelector('.panel lucency-viewer').layers.some((layer) => layer.id === 'truth')")
    page.keyboard.press("[")
    rows = page.locator(".scans .tiles").nth(1).locator(".title").all_inner_texts()
    assert "500 ml, left" in rows[0]
    assert rows[1] == "mine.png"
    page.get_by_label("Take mine.png off the list").click()
    page.wait_for_timeout(200)
    assert "mine.png" not in [entry["title"] for entry in room.server.get("worklist")["entries"]]


def test_a_folder_is_opened_and_files_are_dropped(room: Room, tmp_path: Path) -> None:
    page = room.page()
    folder, one, other = tmp_path / "films", tmp_path / "dropped.png", tmp_path / "inside"
    for number, place in enumerate((folder / "a.png", folder / "b.png", one, other / "deep" / "c.png")):
        place.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(number).random((96, 80)) * 255
        Image.fromarray(values.astype(np.uint8)).save(place)
    page.get_by_label("Open a folder").last.set_input_files(folder)
    page.wait_for_selector(".top .open:has-text('a.png')")
    page.wait_for_selector(".scans .tiles .title:text-is('b.png')", state="attached")
    dropped(page, one)
    page.wait_for_selector(".top .open:has-text('dropped.png')")
    dropped(page, other)
    page.wait_for_selector(".top .open:has-text('c.png')")
    titles = [entry["title"] for entry in room.server.get("worklist")["entries"]]
    assert {"a.png", "b.png", "dropped.png", "c.png"} <= set(titles)
    assert page.locator(".errors li").count() == 0


def dropped(page: Page, *paths: Path) -> None:
    """As by a hand: the browser itself opens what is dropped, so that folders are folders."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 600, "y": 400, "data": data})
        if kind == "dragOver":
            assert page.locator("body.dropping").count() == 1
    assert page.locator("body.dropping").count() == 0


def test_a_server_that_needs_a_token_asks_for_it_in_the_page(browser: Browser, tmp_path: Path) -> None:
    server = Server(tmp_path, token="a-token-of-the-test")
    context = browser.new_context()
    try:
        room = Room(server, context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(server.address)
        field = page.get_by_label("Token")
        field.fill("another")
        field.press("Enter")
        page.wait_for_selector(".login .wrong:not(:empty)")
        page.keyboard.press("Escape")
        assert page.locator("dialog").count() == 1, "without a token there is nothing behind it"
        field.fill("a-token-of-the-test")
        page.get_by_role("button", name="Log in").click()
        page.wait_for_selector('.connection[data-now="open"]', state="attached")
        assert page.locator("dialog").count() == 0
        opened(page)
        # A token that is no longer known is asked for again, and what was asked goes on.
        context.clear_cookies()
        page.keyboard.press("n")
        page.get_by_role("button", name="Make it").click()
        page.get_by_label("Token").fill("a-token-of-the-test")
        page.get_by_label("Token").press("Enter")
        page.get_by_role("button", name="Show the truth").wait_for()
        assert not room.complaints
    finally:
        context.close()
        server.kill()


def test_axe_finds_nothing_and_every_text_is_large_enough(room: Room) -> None:
    module = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")

    def looked_at(page: Page, state: str) -> None:
        for scheme in ("dark", "light"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            found = module.Axe().run(page).response["violations"]
            said = [(v["id"], [n["html"][:200] for n in v["nodes"]][:3]) for v in found]
            assert not found, (state, scheme, said)
        small = page.evaluate(
            "[...document.querySelectorAll('body *')].filter((e) => parseFloat(getComputedStyle(e).fontSize) < 12"
            " && e.offsetParent && e.textContent.trim() && !matchMedia('(max-width: 999px)').matches)"
            ".map((e) => e.className)"
        )
        assert not small, (state, small)
        assert page.locator("footer").is_visible()
        assert "not a medical device" in page.inner_text("footer")

    page = room.page()
    looked_at(page, "welcome")
    opened(page)
    run(page, "lime")
    looked_at(page, "explained")
    page.keyboard.press("?")
    looked_at(page, "keys")
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    page.wait_for_timeout(300)
    drag(page, ".asking", (0.2, 0.6), (0.4, 0.8))
    page.wait_for_selector(".asked .tile")
    looked_at(page, "asked")
    # A film that has the focus takes C for its contour.
    page.keyboard.press("Escape")
    page.keyboard.press("c")
    page.wait_for_selector(".column >> nth=1")
    looked_at(page, "compare")
    for width in (820, 400):
        narrow = opened(room.page(width=width, height=1000))
        looked_at(narrow, f"{width} px")
        narrow.keyboard.press("]")
        looked_at(narrow, f"{width} px, question")
        wide = narrow.evaluate("document.documentElement.scrollWidth")
        assert wide <= width


def test_the_types_of_the_page_hold() -> None:
    program = shutil.which("tsc")
    if program is None:
        pytest.skip("tsc is not installed")
    done = subprocess.run([program, "-p", str(PAGE / "jsconfig.json")], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout
