"""What a recorder saw as a file of plain arrays, so that a run can be replayed and animated after a restart."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lucency.errors import ParameterError
from lucency.render.recorder import Frame, Perturbed, Picture, Recorder, SmallMap

Array = NDArray[Any]
MAPS = ("heatmap", "reaction", "also")


@dataclass(frozen=True)
class Recording:
    """The kept moments of one run, in order; what an animation is drawn from.

    Attributes:
        frames: the moments, each with its pictures built.
        scores: number (from 1) and score of the trials, see :attr:`Recorder.scores`.
        points: share of the work done and place in the third panel, see :attr:`Recorder.points`.
    """

    frames: list[Frame]
    scores: list[tuple[float, float]]
    points: list[tuple[float, tuple[float, float]]]

    @classmethod
    def of(cls, recorder: Recorder) -> Recording:
        """Builds all that is still to be built.

        Raises:
            ParameterError: when the recorder saw no step.
        """
        frames = recorder.frames
        if not frames:
            raise ParameterError("The recorder has seen no step; pass it to explain() as on_step.")
        for frame in frames:
            frame.perturbed.settle()
            for picture in frame.unbuilt:
                picture.settle()
        return cls(frames, recorder.scores, recorder.points)

    def maps(self, which: str) -> tuple[Array, Array] | None:
        """One kind of map of all frames: float16 ``[N, *small]`` in -1..1, and the unit float32 ``[N]`` of each.

        Args:
            which: ``"heatmap"``, ``"reaction"`` or ``"also"``; ``None`` is returned where a frame has none.
        """
        choose: dict[str, Callable[[Frame], Picture[SmallMap] | None]] = {
            "heatmap": lambda f: f.heatmap,
            "reaction": lambda f: f.reaction,
            "also": lambda f: None if f.also is None else f.also[1],
        }
        pictures = [choose[which](frame) for frame in self.frames]
        built = [p.settle() for p in pictures if p is not None]
        if len(built) < len(pictures):
            return None
        return np.stack([b.values for b in built]), np.array([b.unit for b in built], np.float32)

    @property
    def perturbed(self) -> NDArray[np.uint8]:
        """The perturbed scans, grey, uint8 ``[N, *small]``."""
        return np.stack([frame.perturbed.settle().grey for frame in self.frames])

    def packed(self) -> bytes:
        """The bytes of a file that :meth:`load` reads, compressed."""
        arrays: dict[str, Array] = {"perturbed": self.perturbed}
        for which in MAPS:
            if (found := self.maps(which)) is not None:
                arrays[which], arrays[f"{which}_units"] = found
        also = self.frames[-1].also
        about = {
            "frames": [
                [f.done, f.evaluations, f.score, f.point, f.number, f.telling, f.perturbed.settle().odd]
                for f in self.frames
            ],
            "scores": self.scores,
            "points": self.points,
            "also": None if also is None else also[0],
        }
        arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
        file = io.BytesIO()
        np.savez_compressed(file, allow_pickle=False, **arrays)
        return file.getvalue()

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Reads a file of what :meth:`packed` gave.

        Raises:
            OSError, ValueError, KeyError: when the file is missing, damaged or something else.
        """
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        about = json.loads(arrays["about"].tobytes())
        frames = []
        for i, (done, evaluations, score, point, number, telling, odd) in enumerate(about["frames"]):
            small = {w: SmallMap(arrays[w][i], float(arrays[f"{w}_units"][i])) for w in MAPS if w in arrays}
            frames.append(
                Frame(
                    done,
                    evaluations,
                    score,
                    None if point is None else tuple(point),
                    Picture.ready(small["heatmap"]),
                    Picture.ready(Perturbed(arrays["perturbed"][i], odd)),
                    Picture.ready(small["reaction"]) if "reaction" in small else None,
                    (str(about["also"]), Picture.ready(small["also"])) if "also" in small else None,
                    number,
                    telling,
                )
            )
        points = [(share, (x, y)) for share, (x, y) in about["points"]]
        return cls(frames, [(n, s) for n, s in about["scores"]], points)
