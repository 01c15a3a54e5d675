"""An animation taken apart, so that a page can pause it and step through it: a browser can do neither with a picture.

A WebP keeps of each frame only the box that changed. These boxes go into the page as they are, and a few lines of
script lay one over the other on a canvas.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageSequence, UnidentifiedImageError

from lucency.errors import OutputError
from lucency.render.animation import RATE, webp
from lucency.render.page import uri

MEDIA = (".gif", ".webp", ".mp4")


@dataclass(frozen=True)
class Player:
    """What the template needs of an animation.

    Attributes:
        title: what is shown, in words.
        poster: the last frame, which stands there until somebody plays it and where no script runs; empty for a video.
        video: the video as a data URI; empty for frames.
        frames: for each frame ``src``, its box ``x``, ``y`` and how long it stays, ``ms``; ``alone`` where it does not
            go over what was there, ``gone`` where its box is cleared after it.
        width, height: pixels; 0 for a video, which knows them itself.
        rate: frames a second of a video.
    """

    title: str
    poster: str
    video: str
    frames: list[dict[str, Any]]
    width: int
    height: int
    rate: int = RATE

    @classmethod
    def of(cls, path: str | Path, title: str) -> Player:
        """Reads a GIF, WebP or MP4.

        Raises:
            OutputError: when it cannot be read, or is none of these.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in MEDIA:
            raise OutputError(f"{path.name} is no animation that a page can show; use GIF, WebP or MP4.")
        try:
            data = path.read_bytes()
            if suffix == ".mp4":
                return cls(title, "", uri(data, suffix), [], 0, 0)
            with Image.open(BytesIO(data)) as image:
                frames = [
                    (one.convert("RGB"), int(one.info.get("duration", 0))) for one in ImageSequence.Iterator(image)
                ]
        except (OSError, UnidentifiedImageError) as error:
            said = getattr(error, "strerror", None) or "it is damaged"
            raise OutputError(f"The animation {path} cannot be read ({said}); make it again.") from error
        last = frames[-1][0]
        if suffix == ".gif" or len(frames) == 1:
            data = webp([one for one, _ in frames], [ms for _, ms in frames])
        poster = BytesIO()
        last.save(poster, format="WEBP", quality=85)
        return cls(title, uri(poster.getvalue(), ".webp"), "", list(_boxes(data)), *last.size)


def _boxes(data: bytes) -> Iterator[dict[str, Any]]:
    """The frames of an animated WebP, each as a picture of its own."""
    for name, body in _chunks(data[12:]):
        if name != b"ANMF":
            continue
        x, y, width, height, ms = (int.from_bytes(body[i : i + 3], "little") for i in range(0, 15, 3))
        kept = [(n, b) for n, b in _chunks(body[16:]) if n in (b"ALPH", b"VP8 ", b"VP8L")]
        if kept[0][0] == b"ALPH":
            size = width.to_bytes(3, "little") + height.to_bytes(3, "little")
            kept.insert(0, (b"VP8X", b"\x10\0\0\0" + size))
        inner = b"WEBP" + b"".join(n + struct.pack("<I", len(b)) + b + b"\0" * (len(b) % 2) for n, b in kept)
        yield {
            "src": uri(b"RIFF" + struct.pack("<I", len(inner)) + inner, ".webp"),
            "x": 2 * x, "y": 2 * y, "w": width + 1, "h": height + 1, "ms": ms,
            "alone": bool(body[15] & 2), "gone": bool(body[15] & 1),
        }  # fmt: skip


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        (size,) = struct.unpack_from("<I", data, at + 4)
        yield data[at : at + 4], data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
