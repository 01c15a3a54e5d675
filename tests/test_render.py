"""Pictures: what they must show, how large they may be, and what happens when they cannot be written."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from collections.abc import Callable, Iterator
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from lucency import Explanation, Scan, explain
from lucency.classifier import Classifier
from lucency.classifier.base import Fit
from lucency.errors import OutputError, ParameterError
from lucency.methods import METHODS, Step, Trials
from lucency.methods.integrated_gradients import IntegratedGradients
from lucency.methods.lime import Lime
from lucency.methods.occlusion import Occlusion
from lucency.metrics import Curve, evaluate, localise
from lucency.records import VerdictRecord
from lucency.removal import Mean, Noise
from lucency.render import (
    Compared,
    Recorder,
    overlay,
    save_animation,
    save_comparison,
    save_overlay,
    save_report,
)
from lucency.render.agreement import agreement
from lucency.render.comparison import LIGHT_LINES, LINES
from lucency.render.lettering import font, lines
from lucency.render.overlay import nice_length
from lucency.render.panels import Panels
from lucency.render.player import Player
from lucency.render.recorder import FRAMES, SHARE, Trace
from lucency.viewer import palette
from lucency.viewer.smooth import patches_of, smooth, strength
from lucency.viewer.views import views
from nets import Window, classifier_of


def explained(
    shape: tuple[int, ...] = (40, 36), recorder: Recorder | None = None, **how: object
) -> tuple[Explanation, Recorder]:
    recorder = recorder or Recorder()
    pixels = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25
    scan = Scan(pixels, spacing=(0.5,) * len(shape))
    window = Window(*((n // 2, n // 2 + 4) for n in shape))
    method = how.pop("method", Occlusion(patch=4, stride=4))
    return explain(scan, classifier_of(window), target=0, method=method, on_step=recorder, **how), recorder  # type: ignore[arg-type]


def step(i: int, of: int, counts: dict[str, int]) -> Step:
    def build(what: str) -> Callable[[], torch.Tensor]:
        def count() -> torch.Tensor:
            counts[what] = counts.get(what, 0) + 1
            return torch.full((1, 6, 6) if what == "perturbed" else (6, 6), float(i))

        return count

    return Step(
        (i + 1) / of, float(i), build("heatmap"), build("perturbed"), point=(float(i), float(i)), evaluations=i + 1
    )


@given(steps=st.integers(1, 3000), most=st.integers(2, 60))
@settings(max_examples=40, deadline=None)
def test_frames_are_bounded_even_and_end_with_the_last_step(steps: int, most: int) -> None:
    recorder = Recorder(most)
    counts: dict[str, int] = {}
    for i in range(steps):
        recorder(step(i, steps, counts))
    frames = [int(f.score) for f in recorder.frames]
    assert len(frames) <= most
    assert len(frames) >= min(steps, most // 2)
    assert frames[0] == 0
    assert frames[-1] == steps - 1
    assert len(set(np.diff(frames[:-1]))) <= 1
    assert len(recorder.points) <= 1001
    assert recorder.points[-1][1] == (steps - 1, steps - 1)


def trials(scores: list[float], counts: dict[str, int], at_once: int = 16) -> Iterator[Step]:
    """A run that asks about one piece after the other, so many at once; what trial i shows is full of i."""
    for start in range(0, len(scores), at_once):
        told = tuple(scores[start : start + at_once])

        def show(i: int, start: int = start) -> Step:
            return dataclasses.replace(step(start + i, len(scores), counts), score=scores[start + i], point=None)

        yield dataclasses.replace(show(len(told) - 1), trials=Trials(1.0, told, show))


@pytest.mark.parametrize("at", [0, 1, 333, 698, 699])
def test_the_one_piece_of_many_that_reacts_is_shown(at: int) -> None:
    scores = [1.0] * 700
    scores[at] = 0.4
    recorder, counts = Recorder(), dict[str, int]()
    for one in trials(scores, counts):
        recorder(one)
    frames = recorder.frames
    assert len(frames) <= FRAMES
    assert [f.number for f in frames if f.telling] == [at]
    (shown,) = [f for f in frames if f.number == at]
    assert shown.score == 0.4
    assert float(shown.perturbed.settle().grey.max()) == (255 if at else 0)
    assert np.allclose(shown.heatmap.settle().floats, at, rtol=1e-3)
    rest = [f.number for f in frames if f.number not in (at, 699)]
    assert max(np.diff(rest)) <= 2 * 700 / 30
    assert (frames[0].number, frames[-1].number) == (0, 699)


@given(scores=st.lists(st.floats(0, 1), min_size=1, max_size=400), most=st.integers(2, 30), at_once=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_the_largest_reactions_are_shown_in_order(scores: list[float], most: int, at_once: int) -> None:
    recorder = Recorder(most)
    for one in trials(scores, {}, at_once):
        recorder(one)
    numbers = [f.number for f in recorder.frames]
    assert numbers == sorted(set(numbers))
    assert len(numbers) <= most
    assert numbers[-1] == len(scores) - 1
    assert all(f.score == scores[f.number] for f in recorder.frames)
    reactions = sorted((1 - s for s in scores), reverse=True)[: (most - 1) // 2]
    least = 0.1 * max(reactions, default=0)
    told = sorted((1 - f.score for f in recorder.frames if f.telling), reverse=True)
    assert told == [r for r in reactions if r >= least > 0]


def test_a_long_curve_keeps_its_extremes() -> None:
    trace, scores = Trace(50), np.ones(10_000)
    scores[[77, 5000, 9999]] = 0.2, 1.5, 0.3
    for i, score in enumerate(scores):
        trace.add(i, float(score), 1.0)
    assert 50 <= len(trace.points) <= 100
    assert {(77, 0.2), (5000, 1.5), (9999, 0.3)} <= set(trace.points)
    assert trace.points == sorted(trace.points)


def test_an_occlusion_shows_the_patch_that_reacts_and_the_curve() -> None:
    explanation, recorder = explained((64, 64))
    lowest = min(recorder.frames, key=lambda f: f.score)
    assert lowest.score == min(score for _, score in recorder.scores)
    assert len(recorder.scores) == explanation.facts["patches"]
    film = Panels(explanation, recorder)
    assert film.chart is not None
    top, left, bottom, right = film.stage.changed(film.clean, lowest.perturbed.settle().grey)  # type: ignore[misc]
    scale = film.stage.size[0] / 64
    assert top <= 35 * scale <= bottom
    assert left <= 35 * scale <= right
    last = list(film.images())[-1]
    assert last.height > 72 + film.tall + 150


def test_a_dropped_step_is_never_built_and_no_perturbed_scan_during_the_run() -> None:
    recorder = Recorder(10)
    counts: dict[str, int] = {}
    for i in range(1000):
        recorder(step(i, 1000, counts))
    # A step that was kept for a while may have been built: 10 at first, then half as many for each doubling.
    assert counts.get("heatmap", 0) <= 10 + 5 * 8
    assert "perturbed" not in counts
    for frame in recorder.frames:
        frame.perturbed.settle()
        frame.perturbed.settle()
    assert counts["perturbed"] == len(recorder.frames)


def test_a_slow_run_builds_on_the_way_within_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("lucency.render.recorder.time.perf_counter", lambda: now[0])
    recorder = Recorder()
    counts: dict[str, int] = {}

    def slow(i: int) -> Step:
        plain = step(i, 400, counts)

        def heatmap() -> torch.Tensor:
            now[0] += 0.005
            return plain.heatmap()

        return dataclasses.replace(plain, heatmap=heatmap)

    for i in range(400):
        now[0] += 0.1
        recorder(slow(i))
    assert counts["heatmap"] > 20
    assert recorder.seconds <= SHARE * now[0] + 0.005


def test_watching_changes_nothing() -> None:
    how = Occlusion(patch=8, stride=4, removal=Noise())
    watched, recorder = explained(method=how)
    assert len(recorder.frames) > 1
    pixels = torch.from_numpy(watched.pixels)
    alone = explain(Scan(pixels), classifier_of(Window((20, 24), (18, 22))), target=0, method=how)
    assert np.array_equal(watched.heatmap, alone.heatmap)


def test_zero_leaves_the_scan_as_it_is_and_the_hues_weigh_the_same() -> None:
    grey = np.linspace(0, 1, 256, dtype=np.float32)[None]
    rgb = palette.composite(grey, grey * 0)
    assert np.array_equal(rgb, np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2))
    ends = [oklab(np.array(c) / 255) for c in (palette.SUPPORTS, palette.AGAINST)]
    assert abs(ends[0][0] - ends[1][0]) < 0.01
    assert abs(np.hypot(*ends[0][1:]) - np.hypot(*ends[1][1:])) < 0.01


@pytest.mark.parametrize("background", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("sign", [-1, 1])
def test_equal_steps_of_the_map_look_equal(background: float, sign: int) -> None:
    hue = np.array(palette.SUPPORTS if sign > 0 else palette.AGAINST) / 255
    share = palette.OPACITY * np.linspace(0, 1, 33)[:, None]
    seen = oklab(background * (1 - share) + share * hue)
    steps = np.linalg.norm(np.diff(seen, axis=0), axis=1)
    assert steps.max() / steps.min() < 1.34


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Ottosson's OKLab from sRGB 0..1."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_lms = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
              [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
    to_lab = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
              [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip
    return np.cbrt(linear @ np.array(to_lms).T) @ np.array(to_lab).T


@given(st.floats(0.01, 900))
def test_a_scale_bar_is_a_round_length(room: float) -> None:
    length = nice_length(room)
    assert length <= room < 2.5 * length * (1 + 1e-9)
    assert re.fullmatch(r"0*\.?0*[125]0*", np.format_float_positional(length, precision=6, trim="-"))


def drawn(explanation: Explanation, **how: object) -> np.ndarray:
    canvas = FigureCanvasAgg(overlay(explanation, **how))  # type: ignore[arg-type]
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def test_the_crosshair_is_at_the_peak() -> None:
    explanation, _ = explained((40, 36))
    row, column = explanation.peak
    figure = explanation.overlay()
    picture = figure.axes[0]
    rgb = drawn(explanation)
    centre = picture.transData.transform(((column + 0.5) / 36 * picture.get_xlim()[1], 0))[0]
    middle = picture.transData.transform((0, (row + 0.5) / 40 * picture.get_ylim()[0]))[1]
    y, x = round(rgb.shape[0] - middle), round(centre)
    white = (rgb > 200).all(2)
    arms = [white[y - 22 : y - 8, x - 1 : x + 2], white[y + 9 : y + 23, x - 1 : x + 2]]
    arms += [white[y - 1 : y + 2, x - 22 : x - 8].T, white[y - 1 : y + 2, x + 9 : x + 23].T]
    assert all(arm.any(1).mean() > 0.8 for arm in arms)
    texts = [t.get_text() for t in picture.texts]
    assert any(t.startswith("+") for t in texts)
    assert any(t.endswith(" mm") for t in texts)


def test_nothing_that_supports_is_said_and_has_no_crosshair() -> None:
    explanation, _ = explained()
    nothing = dataclasses.replace(explanation, heatmap=np.zeros_like(explanation.heatmap))
    figure = nothing.overlay()
    assert not any(t.get_text().startswith("+") for t in figure.axes[0].texts)
    assert any("zero everywhere" in t.get_text() for t in figure.texts)
    against = dataclasses.replace(explanation, heatmap=-np.abs(explanation.heatmap))
    assert any("No pixel supports" in t.get_text() for t in against.overlay().texts)


@pytest.mark.parametrize("shape", [(200, 12), (12, 200), (10, 24, 18)])
def test_odd_shapes_and_volumes(shape: tuple[int, ...], tmp_path: Path) -> None:
    explanation, recorder = explained(shape)
    figure = explanation.overlay()
    assert len(figure.axes) == (2 if len(shape) == 2 else 4)
    save_overlay(explanation, tmp_path / "o.png")
    with Image.open(save_animation(explanation, recorder, tmp_path / "a.gif")) as image:
        assert image.width == 960
        assert image.n_frames > 2
    save_report(explanation, tmp_path / "r.html")


def test_a_class_name_is_no_formula_and_no_markup(tmp_path: Path) -> None:
    explanation, _ = explained()
    name = "<script>alert(1)</script> $\\frac{"
    question = dataclasses.replace(explanation.provenance.question, name=name, label=name)
    bad = dataclasses.replace(
        explanation,
        probabilities={name: 0.5, "<b>": 0.5},
        provenance=dataclasses.replace(explanation.provenance, question=question),
        facts={"<i>": "<img src=x>", "warning": "<u>"},
        verdict=VerdictRecord("<em>", ()),
        notices=("<s>",),
    )
    save_overlay(bad, tmp_path / "o.png")
    page = save_report(bad, tmp_path / "r.html", command="<tt>").read_text()
    for tag in ("<script>alert", "<b>", "<i>", "<img src=x", "<u>", "<em>", "<tt>", "<s>"):
        assert tag not in page
    assert "&lt;script&gt;alert" in page


def frames_of(path: Path) -> int:
    if path.suffix != ".mp4":
        with Image.open(path) as image:
            return int(image.n_frames)
    return int(imageio_ffmpeg.count_frames_and_secs(str(path))[0])


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".mp4"])
def test_animations_decode(suffix: str, tmp_path: Path) -> None:
    explanation, recorder = explained((64, 64))
    path = save_animation(explanation, recorder, tmp_path / f"a{suffix}")
    frames, telling = recorder.frames, sum(f.telling for f in recorder.frames[:-1])
    assert len(frames) > 10
    assert telling > 0
    # A film cannot hold a picture longer than another, so it comes again and again.
    assert frames_of(path) == (len(frames) + 1 if suffix != ".mp4" else len(frames) - 1 + telling + 8 + 25)
    assert path.stat().st_size < 3_000_000
    assert list(tmp_path.iterdir()) == [path]


def test_noise_stays_under_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lucency.render.animation.LARGEST", 1_000_000)
    explanation, _ = explained((320, 320), method=Occlusion(patch=160, stride=160))
    recorder, generator = Recorder(), torch.Generator().manual_seed(0)
    for i in range(20):
        noise = torch.rand(1, 320, 320, generator=generator)
        recorder(dataclasses.replace(step(i, 20, {}), perturbed=lambda noise=noise: noise))
    path = save_animation(explanation, recorder, tmp_path / "a.gif")
    with Image.open(path) as image:
        assert 4 < image.n_frames < 15
        assert sum(_duration(image, i) for i in range(image.n_frames)) == 100 * (8 + 19 + 25)
    assert path.stat().st_size < 1_000_000


def _duration(image: Image.Image, frame: int) -> int:
    image.seek(frame)
    image.load()
    return int(image.info["duration"])


def test_a_large_reaction_stays_when_frames_must_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explanation, _ = explained((320, 320), method=Occlusion(patch=160, stride=160))
    recorder, generator = Recorder(), torch.Generator().manual_seed(0)
    scores = [1.0] * 30
    scores[16] = 0.1
    for one in trials(scores, {}, 1):
        noise = torch.rand(1, 320, 320, generator=generator)
        show = partial(_noisy, one.trials.show, noise)  # type: ignore[union-attr]
        recorder(dataclasses.replace(show(0), trials=Trials(1.0, (one.score,), show)))
    monkeypatch.setattr("lucency.render.animation.LARGEST", 1_500_000)
    path = save_animation(explanation, recorder, tmp_path / "a.gif")
    with Image.open(path) as image:
        held = [_duration(image, i) for i in range(image.n_frames)]
    assert len(held) < 20
    assert sum(held) == 100 * (8 + 28 + 2 + 25)
    # The one before it went, if any did.
    shown = np.cumsum(held) / 100
    assert 8 + 16 in shown


def _noisy(show: Callable[[int], Step], noise: torch.Tensor, i: int) -> Step:
    return dataclasses.replace(show(i), perturbed=lambda: noise)


def laid(film: Player) -> list[np.ndarray]:
    """The frames as the script of the page lays them over each other."""
    canvas, found = Image.new("RGBA", (film.width, film.height)), []
    for f in film.frames:
        with Image.open(io.BytesIO(base64.b64decode(f["src"].split(",")[1]))) as box:
            assert box.size == (f["w"], f["h"])
            (canvas.paste if f["alone"] else canvas.alpha_composite)(box.convert("RGBA"), (f["x"], f["y"]))
        found.append(np.asarray(canvas.convert("RGB")).astype(int))
        if f["gone"]:
            canvas.paste((0, 0, 0, 0), (f["x"], f["y"], f["x"] + f["w"], f["y"] + f["h"]))
    return found


@pytest.mark.parametrize("suffix", [".webp", ".gif"])
def test_a_page_steps_through_the_frames_of_an_animation(suffix: str, tmp_path: Path) -> None:
    explanation, recorder = explained((64, 64))
    path = save_animation(explanation, recorder, tmp_path / f"a{suffix}")
    film = Player.of(path, "How")
    drawn = list(Panels(explanation, recorder).images())
    shown = laid(film)
    assert len(shown) == len(drawn)
    for there, meant in zip(shown, drawn, strict=True):
        assert np.abs(there - np.asarray(meant)).mean() < 4
    with Image.open(path) as image:
        assert [f["ms"] for f in film.frames] == [_duration(image, i) for i in range(image.n_frames)]
    page = save_report(explanation, tmp_path / "r.html", animation=path).read_text()
    assert "prefers-reduced-motion: reduce" in page
    for label in ("One step back", "One step on", "Step of Animation"):
        assert label in page


def test_a_damaged_animation_is_said(tmp_path: Path) -> None:
    for suffix in (".gif", ".webp"):
        (tmp_path / f"a{suffix}").write_bytes(b"GIF89a and then nothing")
        with pytest.raises(OutputError, match="it is damaged"):
            Player.of(tmp_path / f"a{suffix}", "")


def contrast(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
    """WCAG 2.2's contrast ratio."""
    lights = []
    for colour in (a, b):
        c = np.array(colour) / 255
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        lights.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_pages_follow_the_reader_and_can_be_read_in_both_lights(tmp_path: Path) -> None:
    explanation, _ = explained()
    for page in (
        save_report(explanation, tmp_path / "r.html").read_text(),
        save_comparison([Compared("a", explanation)], tmp_path / "c.html").read_text(),
    ):
        assert "color-scheme: light dark" in page
        light, dark = page.split("(prefers-color-scheme: dark)", 1)
        assert palette.hexed(palette.LIGHT["background"]) in light
        assert palette.hexed(palette.BACKGROUND) in dark
    dark_theme = {name: getattr(palette, name.upper()) for name in palette.LIGHT}
    for theme in (palette.LIGHT, dark_theme):
        for ground in ("background", "surface"):
            assert all(contrast(theme[name], theme[ground]) >= 4.5 for name in ("text", "muted", "warning"))
    for lines_, ground in ((LIGHT_LINES, palette.LIGHT["surface"]), (LINES, palette.SURFACE)):
        assert all(contrast(tuple(bytes.fromhex(c[1:])), ground) >= 3 for c in lines_)  # type: ignore[arg-type]


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("shape", [(96, 80), (40, 32, 32)])
def test_patches_are_drawn_smoothly_and_the_peak_stays(fit: Fit, shape: tuple[int, ...]) -> None:
    window = Window(*((n // 2, n // 2 + 4) for n in (32,) * len(shape)))
    classifier = Classifier(
        window, name="w", classes=["a", "b"], fingerprint="w", module=window, input_size=(32,) * len(shape), fit=fit
    )
    explanation = explain(Scan(torch.rand(1, *shape)), classifier, target=0, method=Occlusion(patch=8, stride=4))
    whole = explanation.heatmap.copy()
    for plane, raw in zip(views(explanation), views(explanation, cells=True), strict=True):
        assert np.array_equal(raw.drawn, raw.heatmap)
        assert plane.peak == raw.peak
        # At the middle of a patch the value is that of the patch.
        assert plane.drawn[plane.peak] == pytest.approx(float(plane.heatmap[plane.peak]), rel=0.06 * len(shape))
        assert np.abs(np.diff(plane.drawn, axis=0)).max() < 0.7 * np.abs(np.diff(plane.heatmap, axis=0)).max()
        assert plane.drawn.max() <= plane.heatmap.max() * (1 + 1e-6)
    assert np.array_equal(explanation.heatmap, whole)
    assert not np.array_equal(drawn(explanation), drawn(explanation, cells=True))


def test_smooth_is_linear_between_the_middles_of_cells() -> None:
    flat = np.repeat(np.array([[0.0, 4.0, 2.0]], np.float32), 4, 1)
    edges = [np.array([0.0, 1.0]), np.array([0.0, 4.0, 8.0, 12.0])]
    assert smooth(flat, edges)[0] == pytest.approx([0, 0, 0.5, 1.5, 2.5, 3.5, 3.75, 3.25, 2.75, 2.25, 2, 2])
    one = smooth(flat[:, :4], [edges[0], np.array([0.0, 4.0])])
    assert np.array_equal(one, flat[:, :4])


def test_what_is_not_made_of_sharp_patches_is_drawn_as_it_is() -> None:
    assert patches_of(explained(method=Lime(samples=20))[0]) is None
    assert patches_of(explained(method=Occlusion(patch=8, soft=2.0))[0]) is None
    sharp, _ = explained(method=Occlusion(patch=8, stride=2, box=(4, 30, 6, 28)))
    patches = patches_of(sharp)
    assert patches is not None
    assert patches.region == ((4, 30), (6, 28))
    method = dataclasses.replace(sharp.provenance.method, parameters={"patch": "8 parsecs"})
    other = dataclasses.replace(sharp.provenance, method=method)
    assert patches_of(dataclasses.replace(sharp, provenance=other)) is None


def test_a_report_says_where_patches_are_drawn_smoothly(tmp_path: Path) -> None:
    said = "Between the middles of the patches the colour is interpolated"
    assert said in save_report(explained()[0], tmp_path / "r.html").read_text()
    assert said not in save_report(explained(method=Lime(samples=20))[0], tmp_path / "l.html").read_text()


@pytest.mark.parametrize("shape", [(40, 36), (12, 16, 14)])
def test_a_grainy_map_stands_beside_its_strength(shape: tuple[int, ...], tmp_path: Path) -> None:
    explanation, recorder = explained(shape, method=IntegratedGradients(rule="trapezoid", alphas=4))
    figure = explanation.overlay()
    assert len(figure.axes) == 2 * (2 if len(shape) == 2 else 4)
    texts = [t.get_text() for t in figure.texts]
    assert any(t.startswith("strength, smoothed") for t in texts)
    assert any(t.startswith("signed map") for t in texts)
    assert len(explanation.overlay(which="strength").axes) == len(figure.axes) // 2
    assert strength(explanation.heatmap).min() >= 0
    assert strength(np.tile(np.float32([[1, -1], [-1, 1]]), (20, 20))) == pytest.approx(np.ones((40, 40)))
    film = Panels(explanation, recorder)
    assert film.grainy
    assert len(list(film.images())) > 2
    page = save_report(explanation, tmp_path / "r.html").read_text()
    assert page.count("Signed map as a colour over the scan") >= 1
    tiles = save_comparison([Compared("integrated_gradients", explanation)], tmp_path / "c.html").read_text()
    assert tiles.count('class="map still"') == 2 * (1 if len(shape) == 2 else 3)


def agreeing(at: tuple[int, int], title: str, place: str = "", name: str = "occlusion") -> Explanation:
    explanation, _ = explained((40, 40), method=Occlusion(patch=20, stride=20))
    heatmap = np.zeros((40, 40), np.float32)
    heatmap[at[0] : at[0] + 8, at[1] : at[1] + 8] = 1
    locates = METHODS[name].locates
    method = dataclasses.replace(explanation.provenance.method, title=title, name=name, locates=locates)
    return dataclasses.replace(
        explanation,
        heatmap=heatmap,
        provenance=dataclasses.replace(explanation.provenance, method=method),
        verdict=VerdictRecord("", (), place=place),
    )


def test_what_methods_agree_on() -> None:
    base = "the base of the patient's left lung"
    a, b, c = agreeing((5, 5), "A", base), agreeing((7, 5), "B", base), agreeing((25, 25), "C")
    assert agreement([a, b, c]) == (
        f"2 of the 3 methods that locate evidence agree on a place, {base}: the top 5 % of their maps overlap there, "
        "by 75 % on average; C points elsewhere."
    )
    assert agreement([a, a, b]).startswith(f"All 3 methods that locate evidence agree on a place, {base}: ")
    assert "around row 8, column 8" in agreement([agreeing((5, 5), "A"), agreeing((5, 5), "B")])
    assert agreement([a, c]).startswith("The methods do not agree on a place: no point lies in the top 5 %")
    # What a gradient says of places does not count, nor what supports nothing.
    gradient = agreeing((25, 25), "Gradient", name="gradient")
    nothing = dataclasses.replace(a, heatmap=-a.heatmap)
    assert agreement([a, b, gradient, nothing]).startswith("Both methods that locate evidence agree")
    assert agreement([a, gradient]).startswith("Fewer than two")


def test_panels_follow_the_method() -> None:
    plain, seen = explained()
    assert Panels(plain, seen).panels == ["Scan", "Scan at this step", "Map so far"]
    weighed, seen = explained(method=Lime(samples=60))
    assert Panels(weighed, seen).panels == ["Map so far", "Scan at this step", "Score"]
    summed, seen = explained(method=IntegratedGradients(rule="trapezoid", alphas=8))
    film = Panels(summed, seen)
    assert film.panels == ["Scan", "Scan at this step", "Reaction at this step", "Map so far"]
    assert len(list(film.images())) == len(seen.frames) + 1 <= FRAMES + 1


def test_the_patch_is_outlined_where_it_lies() -> None:
    explanation, recorder = explained((40, 40))
    film = Panels(explanation, recorder)
    first = recorder.frames[5].perturbed.settle().grey
    top, left, bottom, right = film.stage.changed(film.clean, first)  # type: ignore[misc]
    scale = film.stage.size[0] / 40
    row, column = divmod(recorder.frames[5].number, 10)
    assert (top, left, bottom, right) == pytest.approx(
        (4 * row * scale, 4 * column * scale, 4 * (row + 1) * scale, 4 * (column + 1) * scale), abs=1.5
    )
    assert film.stage.changed(film.clean, film.clean) is None


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("shape", [(20, 90), (90, 20)])
def test_patches_outside_the_scan_and_smaller_than_a_pixel(fit: Fit, shape: tuple[int, int]) -> None:
    window = Window((20, 60), (20, 60))
    classifier = Classifier(
        window, name="w", classes=["a", "b"], fingerprint="w", module=window, input_size=(80, 80), fit=fit
    )
    recorder = Recorder()
    how = Occlusion(patch=8, stride=8, removal=Mean())
    explanation = explain(Scan(torch.rand(1, *shape)), classifier, target=0, method=how, on_step=recorder)
    film = Panels(explanation, recorder)
    assert len(list(film.images())) == len(recorder.frames) + 1
    one = np.zeros_like(film.clean)
    for row, column in [(0, 0), (40, 40), (79, 79)]:
        one[:] = 0
        one[row, column] = 255
        box = film.stage.changed(np.zeros_like(one), one)
        inside = fit != "pad" or row == 40
        assert (box is not None) == inside
        if box is not None:
            top, left, bottom, right = box
            assert 0 <= top < bottom <= film.stage.size[0]
            assert 0 <= left < right <= film.stage.size[1]


class Links(HTMLParser):
    """Everything that a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "poster", "data", "action")]


def fetched(page: str) -> list[str]:
    links = Links()
    links.feed(page)
    assert "@import" not in page
    assert "url(" not in page
    return [link for link in links.found if not link.startswith("data:")]


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".mp4"])
def test_a_report_needs_nothing_else(suffix: str, tmp_path: Path) -> None:
    explanation, recorder = explained(method=Lime(samples=200))
    film = save_animation(explanation, recorder, tmp_path / f"a{suffix}")
    page = save_report(explanation, tmp_path / "report.html", animation=film).read_text()
    assert fetched(page) == []
    # Without the viewer: the scan and its first map.
    assert page.count("data:image/png") == 1 + 1
    assert "default-src 'none'" in page
    assert ("<video" in page) == (suffix == ".mp4")
    assert "not a medical device" in page
    assert all(f'alt="' in tag for tag in re.findall(r"<img [^>]*>", page))  # noqa: F541


def test_an_unfinished_map_says_so(tmp_path: Path) -> None:
    explanation, _ = explained(budget=0.0001)
    assert not explanation.complete
    assert any("stopped before its end" in t.get_text() for t in explanation.overlay().texts)
    assert "stopped before its end" in save_report(explanation, tmp_path / "r.html").read_text()


def save_any(explanation: Explanation, recorder: Recorder, path: Path) -> Path:
    if path.suffix == ".html":
        return save_report(explanation, path)
    if path.suffix == ".png":
        return save_overlay(explanation, path)
    return save_animation(explanation, recorder, path)


@pytest.mark.parametrize("suffix", [".png", ".gif", ".webp", ".mp4", ".html"])
def test_a_place_that_cannot_be_written(suffix: str, tmp_path: Path) -> None:
    explanation, recorder = explained()
    with pytest.raises(OutputError, match=r"cannot be written .*choose another place\.$"):
        save_any(explanation, recorder, tmp_path / "missing" / f"x{suffix}")
    with pytest.raises(OutputError, match="use one of"):
        save_any(explanation, recorder, (tmp_path / f"x{suffix}").with_suffix(suffix + "x"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".png", ".gif", ".webp", ".html"])
def test_a_full_disk_leaves_nothing_half_written(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explanation, recorder = explained()
    old = tmp_path / f"x{suffix}"
    old.write_text("before")

    def full(self: Path, *_: object) -> Path:
        assert self.stat().st_size > 0
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_any(explanation, recorder, old)
    assert old.read_text() == "before"
    assert list(tmp_path.iterdir()) == [old]


def test_a_film_that_ffmpeg_could_not_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explanation, recorder = explained()
    real = imageio_ffmpeg.count_frames_and_secs

    def torso(path: str) -> object:
        file = Path(path)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        return real(path)

    monkeypatch.setattr("imageio_ffmpeg.count_frames_and_secs", torso)
    with pytest.raises(OutputError, match="ffmpeg could not finish it"):
        save_animation(explanation, recorder, tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_ffmpeg_dies_on_a_full_disk_while_frames_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explanation, recorder = explained()

    def dying(path: str, *_: object, **__: object) -> Iterator[None]:
        Path(path).write_bytes(b"torso")
        yield
        raise OSError("[Errno 32] Broken pipe\n\nFFMPEG COMMAND: ...")

    monkeypatch.setattr("imageio_ffmpeg.write_frames", dying)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(OutputError, match="No space left on device"):
        save_animation(explanation, recorder, tmp_path / "a.mp4")


def compared(tmp_path: Path) -> tuple[list[Compared], Curve, np.ndarray]:
    found = {}
    for name, how in {"fine": Occlusion(patch=4, stride=4), "coarse": Occlusion(patch=12, stride=6)}.items():
        explanation, recorder = explained(method=how)
        found[name] = explanation, save_animation(explanation, recorder, tmp_path / f"{name}.webp")
    pixels = torch.from_numpy(found["fine"][0].pixels)
    seen = evaluate(
        {name: e for name, (e, _) in found.items()},
        Scan(pixels),
        classifier_of(Window((20, 24), (18, 22))),
        curves=("MoRF", "deletion", "random"),
        points=6,
        region=8,
        repeats=2,
    )
    truth = np.zeros((40, 36))
    truth[20:24, 18:22] = 1
    methods = [
        Compared(
            name, e, animation=film, curves=[c for c in seen.curves if c.map == name],
            localisation=localise(e.heatmap, truth),
        )
        for name, (e, film) in found.items()
    ]  # fmt: skip
    methods.insert(1, Compared("grad_cam", None, error="It has no <b>layer</b>."))
    return methods, seen.curve("random", "random"), truth


def test_a_comparison_needs_nothing_else_and_a_failure_stands_in_its_place(tmp_path: Path) -> None:
    methods, random, truth = compared(tmp_path)
    page = save_comparison(methods, tmp_path / "c.html", random=random, truth=truth, command="<tt>").read_text()
    assert fetched(page.replace("url(data:", "(data:")) == []
    assert "It has no &lt;b&gt;layer&lt;/b&gt;." in page
    assert "<tt>" not in page
    films = [m.animation for m in methods if m.animation is not None]
    assert page.count("data:image/webp") == sum(1 + len(Player.of(film, "").frames) for film in films)
    assert page.count('<g class="line"') == 2 + 2 + 1
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</th>(.*?)</tr>", page)
    fine, failed, coarse = (re.findall(r"<td(?: data-value=\"([^\"]*)\")?>([^<]*)", cells) for _, cells in rows[:3])
    assert all(cell == ("", "–") for cell in failed)
    assert fine[0][1] == f"{methods[0].explanation.probability:.3f}"  # type: ignore[union-attr]
    number = methods[2].curves[0].number
    assert float(coarse[4][0]) == pytest.approx(number.value)
    hits = [m.localisation.pointing_game for m in methods if m.localisation is not None]
    assert True in hits
    assert [cell[1] == "yes" for cell in (fine[8], coarse[8])] == hits
    assert len(fine) == len(coarse) == page.count('<th scope="col">') - 1


def test_each_map_of_a_comparison_has_its_own_maximum(tmp_path: Path) -> None:
    explanation, _ = explained()
    elsewhere = np.zeros_like(explanation.heatmap)
    elsewhere[5, 7] = 1
    other = dataclasses.replace(explanation, heatmap=elsewhere)
    page = save_comparison([Compared("a", explanation), Compared("b", other)], tmp_path / "c.html").read_text()
    places = re.findall(r"left: ([0-9.]+)%; top: ([0-9.]+)%", page)
    row, column = explanation.peak
    assert [(float(x), float(y)) for x, y in places] == [
        pytest.approx((100 * (c + 0.5) / 36, 100 * (r + 0.5) / 40)) for r, c in ((row, column), (5, 7))
    ]


def test_volumes_are_compared_in_the_same_planes(tmp_path: Path) -> None:
    explanation, _ = explained((10, 24, 18))
    elsewhere = np.zeros_like(explanation.heatmap)
    elsewhere[explanation.peak[0], 1, 2] = 1
    other = dataclasses.replace(explanation, heatmap=elsewhere)
    assert [p.peak for p in views(other, through=explanation.peak)] == [(1, 2), None, None]
    page = save_comparison([Compared("a", explanation), Compared("b", other)], tmp_path / "c.html").read_text()
    assert len(re.findall(r"left: [0-9.]+%", page)) == 3 + 1


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    explanation, _ = explained()
    other, _ = explained((30, 30))
    with pytest.raises(ParameterError, match="no method gave a map"):
        save_comparison([Compared("a", None, error="x")], tmp_path / "c.html")
    with pytest.raises(ParameterError, match="different scans"):
        save_comparison([Compared("a", explanation), Compared("b", other)], tmp_path / "c.html")
    with pytest.raises(ParameterError, match="does not fit"):
        save_comparison([Compared("a", explanation)], tmp_path / "c.html", truth=np.zeros((3, 3)))


@given(words=st.lists(st.text("abc", min_size=1, max_size=30), max_size=20), width=st.integers(60, 400))
@settings(max_examples=30, deadline=None)
def test_lines_fit(words: list[str], width: int) -> None:
    broken = lines(" ".join(words), 12, width)
    assert all(font(12).getlength(line) <= width for line in broken)
    if not any("…" in line for line in broken):
        assert " ".join(broken).split() == words


def test_wrong_use_is_said(tmp_path: Path) -> None:
    explanation, _ = explained()
    with pytest.raises(ParameterError, match="no map 'x'; further maps"):
        explanation.overlay(which="x")
    with pytest.raises(ParameterError, match="0 to 1"):
        explanation.overlay(opacity=2)
    with pytest.raises(ParameterError, match="on_step"):
        save_animation(explanation, Recorder(), tmp_path / "a.gif")
    with pytest.raises(ParameterError, match="2 frames"):
        Recorder(1)
    with pytest.raises(OutputError, match="cannot be read"):
        save_report(explanation, tmp_path / "r.html", animation=tmp_path / "a.gif")
