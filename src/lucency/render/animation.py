"""Animations as GIF, WebP or MP4."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from lucency.errors import MissingExtraError
from lucency.explanation import Explanation
from lucency.render.output import written
from lucency.render.panels import Panels
from lucency.render.recorder import Recorder
from lucency.render.recording import Recording

ANIMATIONS = (".gif", ".webp", ".mp4")
RATE = 10
"""Frames a second."""
GREYS = 64
STEADY = 4
LARGEST = 2_900_000
"""Bytes of a GIF."""


def save_animation(explanation: Explanation, recorder: Recorder | Recording, path: str | Path) -> Path:
    """Writes what the recorder saw as GIF, WebP or MP4, told by the suffix.

    Three panels: the scan, the scan as it was perturbed at this step, and the map, curve or scatter growing; four
    where a method shows its reaction (a gradient) besides the map. Where a step tells its trials, their scores stand
    beneath as a curve, beside the reaction of the strongest feature map where it was watched. A volume is shown in
    the slice of its maximum.

    Raises:
        OutputError: when the file cannot be written; nothing half-written is left.
        ParameterError: when the recorder saw no step.
        MissingExtraError: for MP4 without the ``mp4`` extra.
    """
    with written(path, ANIMATIONS) as part:
        film = Panels(explanation, recorder)
        images, held = list(film.images()), film.held
        match part.suffix.lower():
            case ".gif":
                _save_gif(images, held, part)
            case ".webp":
                part.write_bytes(webp(images, [n * 1000 // RATE for n in held]))
            case _:
                _save_mp4(images, held, part)
    return Path(path)


def _save_gif(images: Sequence[Image.Image], held: Sequence[int], path: Path) -> None:
    held = list(held)
    colours = shared_palette(images)
    # Without dithering: a pixel that does not change keeps its colour, and costs nothing.
    drawn = [image.quantize(palette=colours, dither=Image.Dither.NONE) for image in steadied(images)]
    times = list(held)
    while True:
        file = BytesIO()
        drawn[0].save(
            file, format="GIF", save_all=True, append_images=drawn[1:], loop=0, optimize=False,
            duration=[n * 1000 // RATE for n in times],
        )  # fmt: skip
        if file.tell() <= LARGEST or len(drawn) <= 4:
            break
        # Scans that are all noise do not compress; then every other frame goes, those with a large reaction last, and
        # its time to the one before.
        middle = range(1, len(drawn) - 1)
        dull = [i for i in middle if held[i] == 1] or list(middle)
        for i in reversed(dull[1::2] or dull):
            times[i - 1] += times.pop(i)
            del drawn[i], held[i]
    path.write_bytes(file.getbuffer())


def steadied(images: Sequence[Image.Image]) -> Iterator[Image.Image]:
    """The frames, with pixels left as they stand until they have changed by more than ``STEADY`` of 255."""
    shown = np.asarray(images[0]).astype(np.int16)
    for image in images:
        new = np.asarray(image).astype(np.int16)
        apart = np.abs(new - shown) > STEADY
        moved = apart[..., 0] | apart[..., 1] | apart[..., 2]
        shown = np.where(moved[..., None], new, shown)
        yield Image.fromarray(shown.astype(np.uint8))


def webp(images: Sequence[Image.Image], ms: Sequence[int]) -> bytes:
    """An animated WebP of frames that stay so many milliseconds, one of which is one frame too."""
    file = BytesIO()
    images[0].save(
        file, format="WEBP", save_all=True, append_images=images[1:], loop=0, quality=80, method=2, duration=list(ms)
    )
    return file.getvalue()


def _save_mp4(images: Sequence[Image.Image], held: Sequence[int], path: Path) -> None:
    try:
        import imageio_ffmpeg
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "MP4 needs imageio-ffmpeg, which is not installed; run pip install 'lucency[mp4]', or take GIF or WebP."
        ) from error
    writer = imageio_ffmpeg.write_frames(
        str(path), images[0].size, fps=RATE, codec="libx264", pix_fmt_out="yuv420p", quality=None, bitrate=None,
        macro_block_size=2, output_params=["-crf", "20", "-preset", "veryfast", "-movflags", "+faststart"],
        ffmpeg_log_level="quiet",
    )  # fmt: skip
    writer.send(None)
    # On a full disk ffmpeg leaves a torso, or dies while frames are still sent to it, and never says why.
    try:
        with closing(writer):
            for image, n in zip(images, held, strict=True):
                pixels = np.ascontiguousarray(image)
                for _ in range(n):
                    writer.send(pixels)
        whole = imageio_ffmpeg.count_frames_and_secs(str(path))[0] == sum(held)
    except (RuntimeError, OSError):
        whole = False
    if not whole:
        # A file of the same size again fits nowhere: the disk is full, and that is the reason.
        full = shutil.disk_usage(path.parent).free < max(2**20, path.stat().st_size if path.exists() else 0)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if full else OSError("ffmpeg could not finish it")


def shared_palette(images: Sequence[Image.Image]) -> Image.Image:
    """One palette for all frames: even greys for the scan, the rest of the 256 colours for what has a colour."""
    some = np.stack([np.asarray(images[i]) for i in np.linspace(0, len(images) - 1, min(6, len(images))).astype(int)])
    pixels = some[:, ::2, ::2].reshape(-1, 3)
    coloured = pixels[np.ptp(pixels.astype(np.int16), axis=1) > 4]
    greys = np.linspace(0, 255, GREYS).round().astype(np.uint8)
    entries = np.repeat(greys[:, None], 3, 1)
    if len(coloured):
        found = Image.fromarray(coloured[None]).quantize(256 - GREYS, Image.Quantize.MEDIANCUT).getpalette() or []
        entries = np.concatenate([entries, np.reshape(found, (-1, 3)).astype(np.uint8)])
    colours = Image.new("P", (1, 1))
    colours.putpalette(entries.tobytes())
    return colours
