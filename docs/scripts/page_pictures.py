"""Looks at the page of `lucency serve` in Chromium: `python docs/scripts/page_pictures.py [WHAT ...] [--to FOLDER]`.

`states` takes pictures of the main states, dark and light, at 1280, 820 and 400 pixels, into FOLDER. `measure` prints
frames a second of the live panels and milliseconds of questions by hand. `docs` makes the pictures of the
documentation: `workbench.webp`, the animation, and `workbench.png`.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from lucency.render.animation import webp

IMAGES = Path(__file__).resolve().parent.parent / "images"
FLAGS = ["--no-sandbox", "--disable-quic", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
MOST_BYTES = 2_000_000
"""Of the animation."""
SIZE = (1000, 625)
"""Of its frames."""


@contextmanager
def serving() -> Iterator[str]:
    """The address of a server with an empty worklist."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "lucency", "serve", "--port", "0", "--data", folder]
        command += ["--model", "lucency:phantom", "--model", "lucency:effusion"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            try:
                yield next(m[0] for line in process.stdout if (m := re.search(r"http://127\.0\.0\.1:\d+/", line)))
            finally:
                process.kill()


def opened(browser: Browser, address: str, width: int = 1280, height: int = 800, scheme: Any = "dark") -> Page:
    """The page with the example open."""
    page = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme).new_page()
    page.set_default_timeout(180_000)
    page.goto(address)
    page.click("#demo")
    page.wait_for_selector(".probabilities .number:not(:empty)", state="attached")
    page.wait_for_timeout(500)
    return page


def choose(page: Page, method: str) -> None:
    page.get_by_label("Method", exact=True).select_option(method)


def answered(page: Page) -> None:
    """Waits until the run is over and its steps are there."""
    page.wait_for_selector("#run:not(.stop)", state="attached")
    page.wait_for_selector(".verdict:not(:empty)")
    page.wait_for_selector(".line input:enabled")
    page.wait_for_timeout(600)


def drag(page: Page, where: str, start: tuple[float, float], end: tuple[float, float]) -> Iterator[None]:
    """Draws on a film, in shares of its sides; stops at each step."""
    box = page.locator(f"{where} .stage").bounding_box()
    assert box is not None
    side = min(box["width"], box["height"])
    left, top = box["x"] + (box["width"] - side) / 2, box["y"] + (box["height"] - side) / 2
    page.mouse.move(left + side * start[0], top + side * start[1])
    page.mouse.down()
    for i in range(1, 7):
        x, y = (s + (e - s) * i / 6 for s, e in zip(start, end, strict=True))
        page.mouse.move(left + side * x, top + side * y)
        yield
    page.mouse.up()


def states(browser: Browser, address: str, to: Path) -> None:
    """Pictures of the main states."""
    for scheme in ("dark", "light"):
        for width, height in ((1280, 800), (820, 1180), (400, 860)):
            name = f"{scheme}-{width}"
            page = opened(browser, address, width, height, scheme)
            page.screenshot(path=to / f"{name}-reading.png")
            if width < 1000:
                page.keyboard.press("]")
                page.screenshot(path=to / f"{name}-question.png")
            choose(page, "occlusion")
            page.click("#run")
            if width < 1000:
                page.keyboard.press("]")
            answered(page)
            page.screenshot(path=to / f"{name}-explained.png")
            page.keyboard.press("1")
            page.wait_for_timeout(400)
            page.screenshot(path=to / f"{name}-large.png")
            page.keyboard.press("1")
            page.keyboard.press("a")
            page.wait_for_timeout(500)
            for _ in drag(page, ".asking", (0.15, 0.6), (0.45, 0.9)):
                pass
            page.wait_for_selector(".asked .tile", state="attached")
            page.wait_for_timeout(300)
            page.screenshot(path=to / f"{name}-asked.png")
            page.keyboard.press("Escape")
            page.keyboard.press("c")
            page.wait_for_selector(".column >> nth=1")
            page.get_by_label("Method, Column 2").select_option("gradcam")
            page.keyboard.press("r")
            page.wait_for_selector(".answer .said .verdict:not(:empty)")
            page.wait_for_timeout(500)
            page.screenshot(path=to / f"{name}-compared.png")
            page.keyboard.press("?")
            page.wait_for_timeout(300)
            page.screenshot(path=to / f"{name}-keys.png")
            page.context.close()


def measure(browser: Browser, address: str) -> None:
    """Frames a second of the live panels, and milliseconds of questions by hand."""
    page = opened(browser, address)
    for method in ("occlusion", "rise", "meaningful_perturbation"):
        choose(page, method)
        page.click("#run")
        page.wait_for_selector(".panel:nth-child(2) .fact:not(:empty)")
        frames = "[...document.querySelectorAll('.panel lucency-viewer')].map((viewer) => viewer.frames)"
        before, began = page.evaluate(frames), time.perf_counter()
        while time.perf_counter() - began < 5 and page.locator("#run.stop").count():
            page.wait_for_timeout(100)
        seconds = time.perf_counter() - began
        rates = [(b - a) / seconds for a, b in zip(before, page.evaluate(frames), strict=True)]
        said = ", ".join(f"{rate:.1f}" for rate in rates)
        print(f"{method}: {said} frames a second in the three panels, over {seconds:.1f} s")
        if page.locator("#run.stop").count():
            page.click("#run")
        answered(page)
    page.keyboard.press("a")
    page.wait_for_timeout(500)
    took = []
    for i in range(21):
        for _ in drag(page, ".asking", (0.1 + 0.02 * i, 0.55), (0.3 + 0.02 * i, 0.75)):
            pass
        page.wait_for_selector(f".asked .tile >> nth={i}")
        took.append(int(page.get_attribute(".took", "data-milliseconds") or 0))
    later = sorted(took[1:])
    said = f"median {statistics.median(later):.0f}, 9 of 10 within {later[17]}, the first {took[0]}"
    print(f"ask, from the mouse let go to the answer: {said} ms")
    page.context.close()


def record(browser: Browser, address: str) -> None:
    """The animation and the still picture of the documentation."""
    page = opened(browser, address)
    frames: list[Image.Image] = []
    times: list[int] = []

    def shoot(ms: int) -> None:
        picture = Image.open(BytesIO(page.screenshot(type="png"))).convert("RGB")
        frames.append(picture.resize(SIZE, Image.Resampling.LANCZOS))
        times.append(ms)

    page.wait_for_timeout(5500)
    shoot(1200)
    page.click("#run")
    while page.locator("#run.stop").count():
        # What stands still while the machine thinks is shown shorter.
        shoot(80)
    answered(page)
    page.screenshot(path=IMAGES / "workbench.png")
    shoot(1500)
    slider = page.get_by_label("Moment of the run")
    last = int(slider.get_attribute("max") or 0)
    for i in range(13):
        slider.fill(str(last * i // 12))
        page.wait_for_timeout(60)
        shoot(110)
    times[-1] = 800
    page.keyboard.press("a")
    page.wait_for_timeout(500)
    shoot(700)
    for _ in drag(page, ".asking", (0.16, 0.58), (0.44, 0.88)):
        shoot(90)
    page.wait_for_selector(".asked .tile")
    page.wait_for_timeout(300)
    shoot(2500)
    page.context.close()
    kept = [0]
    for i in range(1, len(frames)):
        if frames[i].tobytes() == frames[kept[-1]].tobytes():
            continue
        kept.append(i)
    data = webp([frames[i] for i in kept], [times[i] for i in kept])
    assert len(data) < MOST_BYTES, f"{len(data):,} bytes"
    (IMAGES / "workbench.webp").write_bytes(data)
    print(f"workbench.webp: {len(kept)} frames, {len(data):,} bytes")


def main(asked: list[str]) -> None:
    to = Path(asked.pop(asked.index("--to") + 1)) if "--to" in asked else Path("out") / "page"
    wanted = [name for name in asked if name != "--to"] or ["states", "measure", "docs"]
    to.mkdir(parents=True, exist_ok=True)
    with serving() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        if "states" in wanted:
            states(browser, address, to)
        if "measure" in wanted:
            measure(browser, address)
        if "docs" in wanted:
            record(browser, address)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
