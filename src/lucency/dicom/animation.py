"""How the map came about, step by step, as a colour film that viewers play."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from highdicom.base import SOPClass
from PIL import Image, ImageDraw, ImageSequence
from pydicom import Dataset
from pydicom.tag import Tag
from pydicom.uid import JPEGLSLossless

from lucency.dicom.making import NOTICE, Making
from lucency.dicom.secondary_capture import pictured_like
from lucency.errors import ParameterError
from lucency.explanation import Explanation
from lucency.reading.common import decoding
from lucency.render.animation import RATE
from lucency.render.lettering import cut, font
from lucency.render.panels import Panels
from lucency.render.recorder import Recorder
from lucency.viewer import palette
from lucency.writing import digest_of, manifest

MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.7.4"
MOST_FRAMES, MOST_PIXELS = 500, 2**22
STRIP = 26
"""Rows below each picture, for the words that must be on it."""


@dataclass(frozen=True)
class Shots:
    """Pictures of one size, and how many milliseconds each stays."""

    images: Sequence[Image.Image]
    held: Sequence[int]


def recorded(explanation: Explanation) -> Shots | None:
    """From the steps that an explanation kept; ``None`` where it kept none."""
    if not explanation.steps:
        return None
    recorder = Recorder()
    for step in explanation.steps:
        recorder(step)
    film = Panels(explanation, recorder)
    return Shots(list(film.images()), [n * 1000 // RATE for n in film.held])


def shots_in(path: Path) -> Shots:
    """From a GIF or WebP that ``lucency explain`` wrote.

    Raises:
        ScanError: when it cannot be read.
        ParameterError: when it is too long or too large.
    """
    with decoding(path, "animation"), Image.open(path, formats=("GIF", "WEBP")) as file:
        frames = getattr(file, "n_frames", 1)
        if not 1 < frames <= MOST_FRAMES or file.width * file.height > MOST_PIXELS:
            raise ParameterError(f"{path} is no animation that Lucency wrote; make it again with lucency explain.")
        shots = [(frame.convert("RGB"), int(frame.info.get("duration", 100))) for frame in ImageSequence.Iterator(file)]
    return Shots([image for image, _ in shots], [held for _, held in shots])


def beside(explanation: Path) -> Path | None:
    """The GIF or WebP that the same run of ``lucency explain`` left beside an explanation, if both are as it left them.

    An MP4 is not read back.
    """
    run = manifest(explanation.parent).get("explain", {})
    for name in ("animation.gif", "animation.webp"):
        pair = (explanation, explanation.with_name(name))
        if all(file.name in run and file.is_file() and digest_of(file) == run[file.name] for file in pair):
            return pair[1]
    return None


def animation(making: Making, shots: Shots) -> Dataset:
    """A multi-frame Secondary Capture of pictures that are there."""
    frames = [np.asarray(_noted(image, making)) for image in shots.images]
    digest = hashlib.sha256(b"".join(frame.tobytes() for frame in frames)).hexdigest()
    heading = making.heading("animation", "animation") | {"sop_instance_uid": making.uid("animation", digest)}
    found: Dataset = SOPClass(
        study_instance_uid=str(making.source.header.StudyInstanceUID),
        sop_class_uid=MULTI_FRAME,
        modality="OT",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        **heading,
    )
    pictured_like(found, making)
    # The panels have no direction in the patient.
    found.PatientOrientation = []
    found.NumberOfFrames = len(frames)
    # When each frame comes after the one before, in milliseconds.
    found.FrameIncrementPointer = Tag("FrameTimeVector")
    found.FrameTimeVector = [0, *shots.held[:-1]]
    found.RecommendedDisplayFrameRate = RATE
    found.Rows, found.Columns = frames[0].shape[:2]
    found.SamplesPerPixel, found.PhotometricInterpretation, found.PlanarConfiguration = 3, "RGB", 0
    found.BitsAllocated = found.BitsStored = 8
    found.HighBit, found.PixelRepresentation = 7, 0
    found.PixelData = b"".join(frame.tobytes() for frame in frames)
    found.compress(JPEGLSLossless, generate_instance_uid=False)
    return making.finished(found, described=making.derivation)


def _noted(image: Image.Image, making: Making) -> Image.Image:
    taller = Image.new("RGB", (image.width, image.height + STRIP), palette.BACKGROUND)
    taller.paste(image)
    draw = ImageDraw.Draw(taller)
    notice = NOTICE.upper()
    draw.text((20, image.height), notice, palette.WARNING, font(12, True))
    left = 36 + round(font(12, True).getlength(notice))
    said = f"Model {making.model}, {making.how}"
    draw.text((left, image.height), cut(said, 12, image.width - left - 20), palette.TEXT, font(12))
    return taller
