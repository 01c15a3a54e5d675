"""The viewer in a notebook: what a run sends, and what the browser makes of it."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
import torch

import lucency
from chromium import chromium, page_of, until
from lucency.errors import LucencyError
from lucency.viewer import unpack

pytest.importorskip("anywidget", reason="anywidget is not installed")
widget = pytest.importorskip("lucency.viewer.widget")


def bright(x: torch.Tensor) -> torch.Tensor:
    return x[..., 4:12, 8:20].mean((-1, -2, -3))[:, None]


PIXELS = torch.rand(1, 32, 24, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What reaches the notebook's side, in order; a notebook is pretended."""
    found: list[tuple[str, Any]] = []
    monkeypatch.setattr(widget, "get_ipython", lambda: object())
    monkeypatch.setattr(widget, "display", lambda one: one.observe(lambda c: found.append((c["name"], c["new"]))))
    monkeypatch.setattr(widget, "PAUSE", 0.0)
    return found


def watched(method: str, **how: Any) -> lucency.Explanation:
    return lucency.Explainer(bright, method=method, **how).watch(lucency.Scan(PIXELS), 0)


def test_live_panels_need_a_notebook() -> None:
    with pytest.raises(LucencyError, match="notebook"):
        watched("occlusion", patch=8)


def test_a_run_sends_film_perturbed_and_reaction_and_then_the_answer(sent: list[tuple[str, Any]]) -> None:
    answer = watched("occlusion", patch=8, removal=0.0, error_bars=2)
    steps = [unpack(value) for name, value in sent if name == "step" and value]
    header, arrays = steps[-1]
    assert header["done"] == 1
    assert header["panel"] == "map"
    assert np.array_equal(arrays["map"], answer.heatmap)
    assert arrays["perturbed"].shape == (32, 24)
    hidden = arrays["perturbed"] != np.rint(PIXELS[0].numpy() * 65535).astype(np.uint16)
    assert hidden.any()
    assert (arrays["perturbed"][hidden] == 0).all()
    said = [value for name, value in sent if name == "said"]
    assert any("100%" in text for text in said)
    assert any("error bars, copy 2 of 2" in text for text in said)
    # What a saved notebook has no use for is let go.
    last = dict(sent[-3:])
    assert (last["film"], last["step"]) == (b"", b"")
    assert np.array_equal(unpack(last["answer"])[1]["map-0-0"], answer.heatmap)


def test_a_scatter_grows_by_its_points(sent: list[tuple[str, Any]]) -> None:
    watched("lime", samples=60)
    counts = [len(unpack(value)[1]["points"]) for name, value in sent if name == "step" and value]
    assert counts == sorted(counts)
    assert counts[-1] > 0


def test_an_answer_in_a_cell_is_a_viewer_where_a_kernel_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = lucency.explain(lucency.Scan(PIXELS), bright, target=0, patch=8, removal=0.0)
    assert answer._repr_mimebundle_() == {}
    kernel = type("Shell", (), {"kernel": object()})
    monkeypatch.setattr(widget, "get_ipython", kernel)
    assert list(answer._repr_mimebundle_()) == ["application/vnd.jupyter.widget-view+json"]


PAGE = b"""<!doctype html><html lang="en"><title>Notebook</title><body><div id="cell"></div>
<script type="module" src="/page.js"></script></body></html>"""
SCRIPT = b"""import widget from "/widget.bundle.js";
const empty = new DataView(new ArrayBuffer(0));
const state = { film: empty, step: empty, said: "", answer: empty };
const acts = {};
const model = { get: (name) => state[name], on: (event, act) => { (acts[event] ??= []).push(act); }, off: () => {} };
window.send = (name, value, binary) => {
  // As a kernel's message: somewhere inside of a larger buffer.
  const bytes = binary && Uint8Array.from("xyz" + atob(value), (one) => one.charCodeAt(0));
  state[name] = bytes ? new DataView(bytes.buffer, 3) : value;
  (acts[`change:${name}`] ?? []).forEach((act) => act());
};
widget.render({ model, el: document.getElementById("cell") });
window.root = document.getElementById("cell").firstElementChild.shadowRoot;
window.drawn = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
window.ready = true;
"""


@pytest.mark.parametrize("method", ["occlusion", "lime"])
def test_three_panels_move_in_the_browser_and_end_as_the_viewer(method: str, sent: list[tuple[str, Any]]) -> None:
    how = {"occlusion": {"patch": 8, "removal": 0.0}, "lime": {"samples": 60}}[method]
    answer = watched(method, **how)
    first = widget.Live(PIXELS, lucency.Explainer(bright, method=method).method).widget.film
    files: dict[str, Any] = {"": PAGE, "page.js": SCRIPT, "widget.bundle.js": widget.Widget._esm.encode()}
    with chromium() as browser, page_of(browser, files) as page:
        until(page, "window.ready")

        def send(name: str, value: Any) -> None:
            binary = isinstance(value, bytes)
            text = base64.b64encode(value).decode() if binary else value
            page.evaluate("([name, value, binary]) => send(name, value, binary)", [name, text, binary])

        send("film", first)
        for name, value in sent[:-3]:
            send(name, value)
        page.evaluate("drawn()")
        panels = page.evaluate("[...root.querySelectorAll('figcaption')].map((one) => one.textContent)")
        assert panels == ["Film", "Film as perturbed now", "Reaction"]
        shown = "[...root.querySelectorAll('.panels lucency-viewer')].map((v) => [v.hidden, v.shown])"
        charted = method == "lime"
        assert page.evaluate(shown) == [
            [False, "map" if charted else None],
            [False, None],
            [charted, None if charted else "map"],
        ]
        assert page.evaluate("root.querySelector('progress').value") == 1
        assert page.evaluate("root.querySelector('.panels canvas').width") > 0
        if charted:
            label = page.evaluate("root.querySelector('.panels canvas').getAttribute('aria-label')")
            assert "–" in label
        for name, value in sorted(sent[-3:]):
            send(name, value)
        page.evaluate("drawn()")
        found = page.evaluate("[...root.querySelectorAll('.answer lucency-viewer')].map((v) => [...v.layers[0].data])")
        assert np.array_equal(np.array(found[0], np.float32).reshape(32, 24), answer.heatmap)
        assert page.evaluate("root.querySelector('.panels').hidden")
        assert answer.verdict is not None
        assert answer.verdict.text in page.evaluate("root.querySelector('[role=status]').textContent")
