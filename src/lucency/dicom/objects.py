"""All objects of an explanation, and their files."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from pydicom import Dataset

from lucency.dicom.animation import animation as animated
from lucency.dicom.animation import recorded, shots_in
from lucency.dicom.making import Making
from lucency.dicom.parametric_map import parametric_map
from lucency.dicom.presentation_state import presentation
from lucency.dicom.secondary_capture import overlay
from lucency.dicom.segmentation import fractional, segmentation
from lucency.dicom.source import source_of
from lucency.dicom.structured_report import report
from lucency.explanation import Explanation

OBJECTS: dict[str, Callable[[Making], Dataset | None]] = {
    "overlay.dcm": overlay,
    "presentation.dcm": presentation,
    "report.dcm": report,
    "segmentation.dcm": segmentation,
    "segmentation-fractional.dcm": fractional,
    "map.dcm": parametric_map,
}


def derived(
    explanation: Explanation,
    source: str | Path,
    *,
    window: str | int | None = None,
    value_range: tuple[float, float] | None = None,
    animation: str | Path | None = None,
) -> dict[str, Dataset]:
    """The objects by the names of their files.

    Args:
        source: the DICOM file that was explained.
        window, value_range: as they were given to :func:`lucency.read_scan` for the explanation.
        animation: a GIF or WebP that was made with the explanation; without it the steps that the explanation recorded
            are drawn, if it did.

    Raises:
        ScanError: when the source cannot be read, cannot be referred to or is another film.
        ParameterError: when the explanation is of a volume, or the animation is none.
    """
    with warnings.catch_warnings():
        # Of values in the film that bend the standard; they are copied as they are.
        warnings.simplefilter("ignore")
        making = Making(explanation, source_of(explanation, source, window=window, value_range=value_range))
        made = {name: make(making) for name, make in OBJECTS.items()}
        shots = recorded(explanation) if animation is None else shots_in(Path(animation))
        made["animation.dcm"] = None if shots is None else animated(making, shots)
    return {name: found for name, found in made.items() if found is not None}


def save(objects: Mapping[str, Dataset], folder: Path) -> list[Path]:
    """Writes each object into a file of its name in a folder that is there.

    Raises:
        OSError: when one cannot be written.
    """
    for name, found in objects.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found.save_as(folder / name, enforce_file_format=True)
            except OSError as error:
                # pydicom wraps what the operating system said into words about an element.
                raise error.__cause__ if isinstance(error.__cause__, OSError) else error from None
    return [folder / name for name in objects]
