"""A real browser for tests: Debian's Chromium, driven by Playwright, with WebGL2 computed by the processor."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

STATIC = Path(__file__).resolve().parent.parent / "src" / "lucency" / "viewer" / "static"
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-quic"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Chromium, closed again; the test is skipped where it or Playwright is not installed."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("Chromium is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def page_of(browser: Browser, files: dict[str, bytes | Path], **how: Any) -> Iterator[Page]:
    """A page whose every file is one of these, by its path; anything that a script complains about fails the test."""
    context = browser.new_context(**how)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if _complains(said) else None)
    page.route("**/*", _server(files))
    page.goto("http://viewer.test/")
    try:
        yield page
        assert not complaints, complaints
    finally:
        context.close()


def until(page: Page, what: str) -> None:
    """Waits until an expression is true; Playwright's own waiting needs ``eval``, which a strict page forbids."""
    for _ in range(200):
        if page.evaluate(what):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never: {what}")


def _complains(said: Any) -> bool:
    # That reading pixels back is slow concerns tests only.
    return said.type in ("error", "warning") and "willReadFrequently" not in said.text and "ReadPixels" not in said.text


KINDS = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".html": "text/html; charset=utf-8",
    "": "text/html; charset=utf-8",
}
POLICY = "default-src 'self'"
"""What a strict page allows: no inline script, no inline style, no other server."""


def _server(files: dict[str, bytes | Path]) -> Callable[[Any], None]:
    def serve(route: Any) -> None:
        path = route.request.url.removeprefix("http://viewer.test/").split("?")[0]
        found = files.get(path) or (STATIC / path if path and (STATIC / path).is_file() else None)
        if found is None:
            route.fulfill(status=204 if path == "favicon.ico" else 404)
            return
        body = found if isinstance(found, bytes) else found.read_bytes()
        kind = KINDS.get(Path(path).suffix, "application/octet-stream")
        route.fulfill(body=body, content_type=kind, headers={"Content-Security-Policy": POLICY})

    return serve
