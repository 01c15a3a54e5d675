"""NIfTI volumes."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np

from lucency.errors import MissingExtraError, ScanError
from lucency.reading.common import decoding, made, not_too_large, span
from lucency.scan import Scan


def read_nifti(path: Path) -> Scan:
    try:
        nibabel = importlib.import_module("nibabel")
    except ImportError as error:
        raise MissingExtraError("Reading NIfTI needs nibabel; pip install 'lucency[nifti]'.") from error
    with decoding(path, "NIfTI"):
        image = nibabel.load(path)
        not_too_large(path, image.shape)
        if len(image.shape) not in (3, 4):
            raise ScanError(f"{path} has {len(image.shape)} axes; save a volume, or a volume with channels last.")
        if np.dtype(image.get_data_dtype()).kind not in "iuf":
            raise ScanError(f"{path} holds {image.get_data_dtype()} values; save real numbers.")
        image = nibabel.as_closest_canonical(image)
        values = np.asarray(image.dataobj, np.float32)
        spacing = tuple(float(s) for s in image.header.get_zooms()[:3])
    values = values[..., None] if values.ndim == 3 else values
    # Canonical runs to the right, the front and the head; a picture begins at the front and at the patient's right.
    values = np.flip(values.transpose(3, 2, 1, 0), (2, 3))
    shown, said = span(values)
    return made(path, values, shown, (spacing[2], spacing[1], spacing[0]), said)
