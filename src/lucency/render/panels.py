"""The frames of an animation: the scan, the scan as perturbed at this step, and what the method makes of the reaction.

What does not move is drawn once; each frame is a copy of that with a few small pictures pasted in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lucency.checks.out_of_distribution import LEVEL
from lucency.classifier import Placement
from lucency.errors import ParameterError
from lucency.explanation import Explanation
from lucency.render.lettering import cut, font, lines, signed
from lucency.render.recorder import Frame, Recorder, packed_scan
from lucency.render.recording import Recording
from lucency.viewer import palette
from lucency.viewer.palette import Bytes, Floats, Scale, composite
from lucency.viewer.smooth import edges_on_grid, grainy, patches_of, smooth, strength
from lucency.viewer.views import resized, views

FIRST, TELLING, LAST = 8, 2, 25
"""How many frames long the first one, those with a large reaction and the last one stay."""
WIDTH = 960
EDGE = 20
GAP = 16
TOP = 72
FOOT = 46
TITLE = 17
SMALL = 12
STRIP = 168
"""Height of the curve of the trials' scores, which lies beneath the panels."""
OUTSIDE = 0.35
"""Brightness, in the perturbed scan, of what the model does not see."""

Box = tuple[int, int, int, int]


class Panels:
    """Draws the frames of one run.

    Raises:
        ParameterError: when the recorder saw no step, or the steps of another scan.
    """

    def __init__(self, explanation: Explanation, recorder: Recorder | Recording) -> None:
        self.frames = recorder.frames
        if not self.frames:
            raise ParameterError("The recorder has seen no step; pass it to explain() as on_step.")
        self.explanation = explanation
        method = explanation.provenance.method
        self.chart = None
        if self.frames[-1].reaction is not None:
            self.panels = ["Scan", "Scan at this step", "Reaction at this step", "Map so far"]
        elif method.panel != "map" and recorder.points:
            self.panels = ["Map so far", "Scan at this step", "Score"]
        else:
            self.panels = ["Scan", "Scan at this step", "Map so far"]

        self.grainy = grainy(explanation)
        whole = strength(explanation.heatmap) if self.grainy else explanation.heatmap
        view = views(explanation, whole, through=explanation.peak)[0]
        self.view = view
        patches = patches_of(explanation)
        self.edges = None if patches is None else edges_on_grid(patches)
        self.stage = Stage(explanation, self._picture_size(view.extent))
        self.scale = Scale.of(whole)
        self.reactions = Scale(
            max(Scale.of(f.reaction.settle().floats).limit for f in self.frames if f.reaction is not None)
            if self.panels[2] == "Reaction at this step"
            else 1.0
        )
        self.grey = resized(view.grey, *self.stage.size)
        clean = torch.from_numpy(explanation.pixels)
        self.clean = self.stage.plane(packed_scan(self.stage.grid.to_grid(clean)))
        self.trials = bool(recorder.scores)
        self.also = self.frames[-1].also if self.trials else None
        self.others = Scale(1.0) if self.also is None else Scale.of(self.also[1].settle().floats)
        strip = STRIP if self.trials else 0
        self.size = (WIDTH, (TOP + self.tall + FOOT + 16 + strip) // 2 * 2)
        self.score = Gauge.of(explanation, self.frames)
        if self.panels[2] == "Score":
            self.chart = Chart(recorder.points, method.axes, method.panel == "curve", self.score.clean, self._panel(2))
        elif self.trials:
            label = explanation.provenance.question.watch
            # Beneath the perturbed scan and the map; beneath the scan, what else reacts.
            x, y, _, _ = self._panel(1)
            self.chart = Chart(
                [(number, (number, score)) for number, score in recorder.scores],
                ("patches hidden, in the order of asking", label if len(label) < 20 else "score"),
                True,
                self.score.clean,
                (x, y + self.tall + FOOT + 8, WIDTH - EDGE - x, STRIP),
            )
        self.still = self._still()

    def _picture_size(self, extent: tuple[float, float]) -> tuple[int, int]:
        n = len(self.panels)
        self.wide = (WIDTH - 2 * EDGE - (n - 1) * GAP) // n
        scale = min(self.wide / extent[1], 1.25 * self.wide / extent[0])
        size = max(8, round(extent[0] * scale)), max(8, round(extent[1] * scale))
        # A chart needs some height even beside a flat scan.
        self.tall = max(size[0], 190 if self.panels[2] == "Score" else 80)
        return size

    def _panel(self, i: int) -> Box:
        x = EDGE + i * (self.wide + GAP)
        return x, TOP, self.wide, self.tall

    def _corner(self, i: int) -> tuple[int, int]:
        x, y, w, h = self._panel(i)
        return x + (w - self.stage.size[1]) // 2, y + (h - self.stage.size[0]) // 2

    def _still(self) -> Image.Image:
        image = Image.new("RGB", self.size, palette.BACKGROUND)
        draw = ImageDraw.Draw(image)
        provenance = self.explanation.provenance
        how = provenance.method.title
        title = f"{self.explanation.target}: {self.explanation.answer} · {how}"
        draw.text((EDGE, 14), cut(title, TITLE, WIDTH - 2 * EDGE, True), palette.TEXT, font(TITLE, True))
        plane = f" · {self.view.name}" if self.view.name else ""
        for i, name in enumerate(self.panels):
            x, y, w, _ = self._panel(i)
            named = name + (plane if i == 0 else "")
            if self.grainy and name == "Map so far":
                named += ": strength, smoothed"
            draw.text((x, y - 20), cut(named, SMALL, w), palette.MUTED, font(SMALL))
            if self.panels[i] == "Scan":
                self._paste(image, i, composite(self.grey, self.grey * 0))
            if self.panels[i] in ("Map so far", "Reaction at this step"):
                scale = self.scale if self.panels[i] == "Map so far" else self.reactions
                unit = "either sign" if self.grainy else provenance.method.unit
                unsigned = self.grainy and self.panels[i] == "Map so far"
                self._bar(image, i, scale, unit if self.panels[i] == "Map so far" else "", signed_map=not unsigned)
        if self.chart is not None:
            self.chart.still(draw)
        if self.also is not None:
            self._also_still(image, self.also[0])
        return image

    def _also_place(self) -> tuple[int, int, int, int]:
        """Left, top, height and width of the small picture of what else reacts."""
        x, y, w, h = self._panel(0)
        down, across = self.stage.size
        scale = min(STRIP / down, 0.55 * w / across)
        return x, y + h + FOOT + 8, round(down * scale), round(across * scale)

    def _also_still(self, image: Image.Image, name: str) -> None:
        x, y, _, across = self._also_place()
        draw = ImageDraw.Draw(image)
        room = self.wide - across - 12
        said = [*lines(f"Also watched: {name}", SMALL, room)[:5], f"full at {self.others}"]
        for n, text in enumerate(said):
            draw.text((x + across + 12, y + 16 * n), text, palette.MUTED, font(SMALL))

    def _also_moving(self, image: Image.Image, frame: Frame | None) -> None:
        x, y, down, across = self._also_place()
        there = self.grey * 0
        if frame is not None and frame.also is not None:
            there = self._strength(frame.also[1].settle().floats, self.others)
        picture = composite(resized(self.grey, down, across), resized(there, down, across))
        image.paste(Image.fromarray(picture), (x, y))

    def _paste(self, image: Image.Image, i: int, rgb: Bytes) -> None:
        image.paste(Image.fromarray(rgb), self._corner(i))

    def _foot(self, i: int) -> tuple[int, int, int]:
        x, y, w, h = self._panel(i)
        return x, y + h + 10, w

    def _bar(self, image: Image.Image, i: int, scale: Scale, unit: str, *, signed_map: bool) -> None:
        x, y, w = self._foot(i)
        ramp = np.repeat(palette.ramp(w, signed_map)[None], 6, 0)
        image.paste(Image.fromarray(composite(ramp * 0 + 0.5, ramp)), (x, y))
        draw = ImageDraw.Draw(image)
        low, high = (signed(-scale.limit), signed(scale.limit)) if signed_map else ("0", f"{scale.limit:.3g}")
        sides = font(SMALL).getlength(low) + font(SMALL).getlength(high) + 16
        draw.text((x, y + 10), low, palette.TEXT, font(SMALL))
        draw.text((x + w, y + 10), high, palette.TEXT, font(SMALL), anchor="ra")
        middle = cut(unit, SMALL, w - sides)
        draw.text((x + w / 2, y + 10), middle if middle == unit else "0", palette.MUTED, font(SMALL), anchor="ma")

    @property
    def held(self) -> list[int]:
        """How many frames long each of :meth:`images` stays."""
        return [FIRST, *(TELLING if frame.telling else 1 for frame in self.frames[:-1]), LAST]

    def images(self) -> Iterator[Image.Image]:
        """The clean scan first, then every kept step; the last one bears the crosshair of the maximum."""
        yield self._draw(None)
        for frame in self.frames:
            yield self._draw(frame)

    def _draw(self, frame: Frame | None) -> Image.Image:
        image = self.still.copy()
        draw = ImageDraw.Draw(image)
        nothing = self.grey * 0
        perturbed = self.clean if frame is None else self.stage.plane(frame.perturbed.settle().grey)
        seen = self.stage.placed(perturbed.astype(np.float32) / np.float32(255), self.grey * np.float32(OUTSIDE))
        self._paste(image, self.panels.index("Scan at this step"), composite(seen, nothing))
        so_far = nothing
        if frame is not None:
            floats = frame.heatmap.settle().floats
            so_far = self._strength(strength(floats) if self.grainy else floats, self.scale)
        self._paste(image, self.panels.index("Map so far"), composite(self.grey, so_far))
        if "Reaction at this step" in self.panels:
            reaction = nothing
            if frame is not None and frame.reaction is not None:
                reaction = self._strength(frame.reaction.settle().floats, self.reactions)
            self._paste(image, 2, composite(self.grey, reaction))
        patch = None if frame is None else self.stage.changed(self.clean, perturbed)
        if patch is not None:
            for i in (self.panels.index("Scan at this step"), self.panels.index("Map so far")):
                self._outline(draw, i, patch)
        if self.chart is not None:
            self.chart.moving(image, -1.0 if frame is None else frame.number + 1 if self.trials else frame.done)
        if self.also is not None:
            self._also_moving(image, frame)
        if frame is not None and frame.perturbed.settle().odd:
            self._odd(draw)
        self.score.draw(draw, self._foot(1), None if frame is None else frame.score)
        self._progress(draw, frame)
        if frame is self.frames[-1]:
            self._crosshair(draw)
        return image

    def _strength(self, heatmap: Floats, scale: Scale) -> Floats:
        if self.edges is not None:
            rows = zip(self.edges, heatmap.shape, self.stage.grid.grid, strict=True)
            heatmap = smooth(heatmap, [edges * small / n for edges, small, n in rows])
        return scale.strength(self.stage.placed(self.stage.plane(heatmap), self.grey * 0))

    def _outline(self, draw: ImageDraw.ImageDraw, i: int, patch: Box) -> None:
        x, y = self._corner(i)
        top, left, bottom, right = patch
        draw.rectangle((x + left - 1, y + top - 1, x + right, y + bottom), outline=(0, 0, 0))
        draw.rectangle((x + left, y + top, x + right - 1, y + bottom - 1), outline=(255, 255, 255))

    def _progress(self, draw: ImageDraw.ImageDraw, frame: Frame | None) -> None:
        i = 0 if self.panels[0] == "Scan" else 2
        x, y, w = self._foot(i)
        done = 0.0 if frame is None else min(1.0, frame.done)
        draw.rectangle((x, y, x + w - 1, y + 5), palette.LINE)
        if done > 0:
            draw.rectangle((x, y, x + max(1, round(done * w)) - 1, y + 5), palette.MUTED)
        asked = 0 if frame is None else frame.evaluations
        draw.text((x, y + 10), f"{done:.0%} done", palette.TEXT, font(SMALL))
        draw.text((x + w, y + 10), f"{asked:,} evaluations", palette.MUTED, font(SMALL), anchor="ra")

    def _odd(self, draw: ImageDraw.ImageDraw) -> None:
        x, y = self._corner(1)
        draw.text(
            (x + 6, y + self.stage.size[0] - 6),
            f"out-of-distribution p<{LEVEL:g}",
            (255, 255, 255),
            font(SMALL),
            anchor="ls",
            stroke_width=2,
            stroke_fill=(0, 0, 0),
        )

    def _crosshair(self, draw: ImageDraw.ImageDraw) -> None:
        if self.view.peak is None:
            return
        x, y = self._corner(self.panels.index("Map so far"))
        rows, columns = self.view.grey.shape
        h, w = self.stage.size
        px = x + round((self.view.peak[1] + 0.5) * w / columns)
        py = y + round((self.view.peak[0] + 0.5) * h / rows)
        for width, colour in ((3, (0, 0, 0)), (1, (255, 255, 255))):
            for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                draw.line((px + 5 * dx, py + 5 * dy, px + 14 * dx, py + 14 * dy), colour, width)
        right = px < x + 0.7 * w
        value = float(self.view.heatmap[self.view.peak])
        draw.text(
            (px + (9 if right else -9), py + (9 if py < y + 30 else -9)),
            f"{value:.3g}" if self.grainy else signed(value),
            (255, 255, 255),
            font(SMALL),
            anchor=("l" if right else "r") + ("t" if py < y + 30 else "b"),
            stroke_width=2,
            stroke_fill=(0, 0, 0),
        )


class Stage:
    """Where pictures on the model's grid lie within a picture of the scan of ``size`` (height, width)."""

    def __init__(self, explanation: Explanation, size: tuple[int, int]) -> None:
        model = explanation.provenance.model
        shape = explanation.heatmap.shape
        margins = model.margins
        self.grid = Placement(shape, margins, model.grid)
        self.size = size
        through = explanation.peak or tuple(n // 2 for n in shape)
        self.slice = through[0] if len(shape) == 3 else None
        rows, columns = shape[-2:]
        (top, _), (left, _) = margins[-2:]
        tall, wide = self.grid.box_shape[-2:]
        self.corner = round(-top * size[0] / rows), round(-left * size[1] / columns)
        self.box = max(1, round(tall * size[0] / rows)), max(1, round(wide * size[1] / columns))

    def plane(self, picture: NDArray[Any]) -> NDArray[Any]:
        """The plane that is shown, of a picture on the (reduced) grid."""
        if self.slice is None:
            return picture
        before = self.grid.margins[0][0]
        at = int((self.slice + before + 0.5) / self.grid.box_shape[0] * len(picture))
        plane: NDArray[Any] = picture[min(max(at, 0), len(picture) - 1)]
        return plane

    def placed(self, plane: Floats, ground: Floats) -> Floats:
        """A plane of the grid where it belongs on ``ground`` ``[height, width]``."""
        found = ground.copy()
        (y, x), (h, w) = self.corner, self.box
        height, width = self.size
        top, left, bottom, right = max(0, y), max(0, x), min(height, y + h), min(width, x + w)
        found[top:bottom, left:right] = resized(plane, h, w)[top - y : bottom - y, left - x : right - x]
        return found

    def changed(self, clean: Bytes, perturbed: Bytes) -> Box | None:
        """The box (top, left, bottom, right) of what differs, if that is a small part of the scan."""
        differs = np.abs(clean.astype(np.int16) - perturbed) > 3
        rows, columns = np.flatnonzero(differs.any(1)), np.flatnonzero(differs.any(0))
        if not len(rows):
            return None
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        if (bottom - top) * (right - left) > 0.2 * differs.size:
            return None
        down, across = self.box[0] / differs.shape[0], self.box[1] / differs.shape[1]
        height, width = self.size
        y, x = round(top * down) + self.corner[0], round(left * across) + self.corner[1]
        tall, wide = max(1, round((bottom - top) * down)), max(1, round((right - left) * across))
        box = max(0, y), max(0, x), min(height, y + tall), min(width, x + wide)
        # What a model pads lies outside the scan, and so may a patch.
        return box if box[0] < box[2] and box[1] < box[3] else None


@dataclass(frozen=True)
class Gauge:
    """The score against that of the clean scan, on a bar from ``low`` to ``high``."""

    clean: float
    low: float
    high: float

    @classmethod
    def of(cls, explanation: Explanation, frames: list[Frame]) -> Gauge:
        question = explanation.provenance.question
        if question.watch == "probability":
            return cls(question.score, 0.0, 1.0)
        scores = [question.score, *(f.score for f in frames)]
        return cls(question.score, min(scores), max(scores))

    def draw(self, draw: ImageDraw.ImageDraw, foot: tuple[int, int, int], score: float | None) -> None:
        x, y, w = foot
        draw.rectangle((x, y, x + w - 1, y + 5), palette.LINE)
        shown = self.clean if score is None else score
        if score is not None:
            a, b = sorted((self._at(score, w), self._at(self.clean, w)))
            draw.rectangle((x + a, y, x + b, y + 5), palette.SUPPORTS if score < self.clean else palette.AGAINST)
        tick = x + self._at(self.clean, w)
        draw.rectangle((tick - 1, y - 2, tick, y + 7), palette.TEXT)
        draw.text((x, y + 10), f"score {shown:.3f}".replace("-", "−"), palette.TEXT, font(SMALL))
        beside = f"clean {self.clean:.3f}".replace("-", "−")
        if score is not None:
            beside += f" ({score - self.clean:+.3f})".replace("-", "−")
        draw.text((x + w, y + 10), beside, palette.MUTED, font(SMALL), anchor="ra")

    def _at(self, value: float, width: int) -> int:
        span = (self.high - self.low) or 1.0
        return round(min(1.0, max(0.0, (value - self.low) / span)) * (width - 1))


class Chart:
    """The third panel of methods whose reaction is a curve or a scatter."""

    def __init__(
        self,
        points: list[tuple[float, tuple[float, float]]],
        axes: tuple[str, str],
        joined: bool,
        clean: float,
        panel: Box,
    ) -> None:
        self.points = points
        self.axes = axes
        self.joined = joined
        self.clean = clean
        self.panel = panel
        x, y, w, h = panel
        self.plot = (x + 54, y, w - 54, h - 40)
        xs = [p[0] for _, p in points]
        ys = [p[1] for _, p in points] + [clean]
        self.x = _limits(xs)
        self.y = _limits(ys)

    def still(self, draw: ImageDraw.ImageDraw) -> None:
        """Axes, ticks, labels and the line of the clean score."""
        x, y, w, h = self.plot
        draw.rectangle((x, y, x + w - 1, y + h - 1), palette.SURFACE)
        small = font(11)
        for value in _ticks(self.x):
            px = round(self._to(value, 0.0)[0])
            draw.line((px, y, px, y + h + 3), palette.LINE)
            draw.text((px, y + h + 5), f"{value:g}", palette.MUTED, small, anchor="ma")
        for value in _ticks(self.y):
            py = round(self._to(0.0, value)[1])
            draw.line((x - 4, py, x + w - 1, py), palette.LINE)
            draw.text((x - 6, py), f"{value:g}".replace("-", "−"), palette.MUTED, small, anchor="rm")
        draw.text((x + w / 2, y + h + 20), self.axes[0], palette.TEXT, font(SMALL), anchor="ma")
        label = Image.new("L", (h, 16))
        ImageDraw.Draw(label).text((h / 2, 0), self.axes[1], 255, font(SMALL), anchor="ma")
        draw.bitmap((self.panel[0], y), label.rotate(90, expand=True), palette.TEXT)
        py = round(self._to(0.0, self.clean)[1])
        for px in range(x, x + w, 8):
            draw.line((px, py, min(px + 3, x + w - 1), py), palette.MUTED)
        low = py < y + 18
        draw.text((x + 5, py + (4 if low else -3)), "clean", palette.MUTED, small, anchor="la" if low else "ld")

    def moving(self, image: Image.Image, done: float) -> None:
        """The points that were there when that share of the work was done."""
        there = [p for at, p in self.points if at <= done]
        if not there:
            return
        x, y, w, h = self.plot
        box = (x, y, x + w, y + h)
        # Drawn at twice the size: lines of Pillow have hard edges.
        fine = image.crop(box).resize((2 * w, 2 * h), Image.Resampling.NEAREST)
        draw = ImageDraw.Draw(fine)
        at = [tuple(2 * (c - o) for c, o in zip(self._to(*p), (x, y), strict=True)) for p in there]
        if self.joined:
            draw.line([c for p in sorted(at) for c in p], palette.TEXT, 3, joint="curve")
        else:
            for px, py in at[:-1]:
                draw.ellipse((px - 5, py - 5, px + 5, py + 5), (128, 140, 150))
        px, py = at[-1]
        draw.ellipse((px - 8, py - 8, px + 8, py + 8), palette.SUPPORTS, palette.TEXT, 2)
        image.paste(fine.resize((w, h), Image.Resampling.BOX), box[:2])

    def _to(self, px: float, py: float) -> tuple[float, float]:
        x, y, w, h = self.plot
        across = (px - self.x[0]) / (self.x[1] - self.x[0])
        up = (py - self.y[0]) / (self.y[1] - self.y[0])
        return x + across * (w - 1), y + (1 - up) * (h - 1)


def _limits(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.5
    return low - room, high + room


def _ticks(limits: tuple[float, float]) -> list[float]:
    low, high = limits
    return [float(f"{t:.6g}") for t in MaxNLocator(4).tick_values(low, high) if low <= t <= high]
