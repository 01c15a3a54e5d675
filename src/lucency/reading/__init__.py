"""Reading scans: DICOM, pictures, NumPy arrays and volumes, at full depth, with one clear sentence when it fails."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from lucency.errors import ScanError
from lucency.reading.array import plain_array, read_npy
from lucency.reading.common import max_pixels
from lucency.reading.dicom import looks_like_dicom, read_dataset, read_dicom
from lucency.reading.picture import from_image, kind_of_picture, read_picture
from lucency.reading.volume import looks_like_itk, read_itk, read_nifti, read_series
from lucency.scan import Scan, checked_range

__all__ = ["as_scan", "read_scan"]

KNOWN = ("png", "jpg", "jpeg", "tif", "tiff", "bmp", "gif", "webp", "jp2", "j2k", "avif", "heic", "npy", "nrrd", "mha")
"""Names of files that must begin as such a file does."""


def read_scan(
    path: str | os.PathLike[str],
    *,
    frame: int | None = None,
    window: str | int | None = None,
    value_range: tuple[float, float] | None = None,
) -> Scan:
    """Reads one radiograph, slice or volume; the kind of file is found from its first bytes.

    The table of kinds in "Read DICOM and other files" says what becomes of each; :attr:`Scan.notices` says what had to
    be decided for this one.

    Args:
        path: a file, or a folder that holds the DICOM slices of one volume.
        frame: which frame of a multi-frame DICOM or an animation, page of a TIFF, or volume of a time series, counted
            from 1. Needed where there are several.
        window: which of several DICOM windows is shown, by its explanation or its number from 1; the first if left out.
        value_range: the pixel values shown as black and white, instead of what the file or its depth says. Give it for
            a series whose files do not say how many of their bits count, so that all get one scale.

    Raises:
        ScanError: when the file is missing, empty, damaged, no regular file, larger by its header than
            ``LUCENCY_MAX_PIXELS`` (268,435,456 if it is not set), of one value throughout, or of a kind that is not one
            scan.
        MissingExtraError: when an optional package is needed to read it.
    """
    if value_range is not None:
        value_range = checked_range(value_range)
    file = Path(path)
    if os.path.isdir(file):  # noqa: PTH112 (which never raises)
        scan = read_series(file, frame=frame, window=window, value_range=value_range)
        return _shows_something(replace(scan, source=str(file)), str(file))
    head = _first_bytes(file)
    suffix = file.suffix.lower()
    if head[128:132] == b"DICM" or suffix in (".dcm", ".dicom"):
        scan = read_dicom(file, frame=frame, window=window, value_range=value_range)
    elif head.startswith(b"\x93NUMPY"):
        _only_dicom_has(file, window)
        if frame not in (None, 1):
            raise ScanError(f"{file} holds one scan; leave frame= (--frame) out.")
        scan = read_npy(file, value_range)
    elif file.name.lower().endswith((".nii", ".nii.gz")) or head[344:348] in (b"n+1\x00", b"n+2\x00"):
        _only_dicom_has(file, window)
        scan = read_nifti(file, frame=frame, value_range=value_range)
    elif looks_like_itk(file, head):
        _only_dicom_has(file, window)
        scan = read_itk(file, frame=frame, value_range=value_range)
    elif (kind := kind_of_picture(head)) is not None:
        _only_dicom_has(file, window)
        scan = read_picture(file, kind, frame=frame, value_range=value_range)
    elif suffix[1:] in KNOWN:
        raise ScanError(f"{file} is damaged: it does not begin as a {suffix} file does; copy or export it again.")
    elif looks_like_dicom(head):
        scan = read_dicom(file, frame=frame, window=window, value_range=value_range)
    else:
        raise ScanError(f"{file} is no DICOM, picture, NumPy or volume file; convert it to one of these.")
    return _shows_something(replace(scan, source=file.name), str(file))


def as_scan(
    thing: Any,
    *,
    frame: int | None = None,
    window: str | int | None = None,
    value_range: tuple[float, float] | None = None,
) -> Scan:
    """A scan from whatever holds one; the same pixels give the same scan whichever way they come.

    Args:
        thing: a Scan (as it is), a path (:func:`read_scan`), a Pillow image, a pydicom data set, or an array, a tensor
            or nested lists (:meth:`Scan.from_array`).
        frame: as in :func:`read_scan`; for paths and data sets.
        window: as in :func:`read_scan`; for paths and data sets.
        value_range: the pixel values shown as black and white.

    Raises:
        ScanError: when it makes no scan.
        MissingExtraError: when an optional package is needed to read it.
    """
    if isinstance(thing, str | os.PathLike):
        return read_scan(thing, frame=frame, window=window, value_range=value_range)
    if type(thing).__module__.partition(".")[0] == "pydicom":
        return _shows_something(read_dataset(thing, frame=frame, window=window, value_range=value_range), "The dataset")
    if frame is not None or window is not None:
        raise ScanError("Frames and windows are chosen from a file or a data set; leave frame= and window= out.")
    if isinstance(thing, Scan):
        return thing if value_range is None else replace(thing, value_range=value_range)
    if isinstance(thing, Image.Image):
        return _shows_something(from_image(thing, value_range), "The image")
    return _shows_something(Scan.from_array(thing, value_range=value_range), "The array")


def read_numbers(path: str | Path) -> NDArray[Any]:
    """The array in a ``.npy`` file that is no scan: a map, a mask, a mean picture.

    Raises:
        ScanError: when the file is missing, damaged, too large, no regular file or holds anything but real numbers.
    """
    path = Path(path)
    if not _first_bytes(path).startswith(b"\x93NUMPY"):
        raise ScanError(f"{path} is no .npy file; save the array with numpy.save.")
    return plain_array(path)


def _shows_something(scan: Scan, name: str) -> Scan:
    low, high = scan.pixels.aminmax()
    if bool(low == high):
        raise ScanError(f"{name} has the same value in every pixel; choose a scan that shows something.")
    return scan


def _first_bytes(path: Path) -> bytes:
    """The head of a regular file; never waits for a pipe or a device."""
    try:
        # A pipe that somebody puts in the file's place would block without this flag.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:  # noqa: PTH123
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise ScanError(f"{path} is no regular file but a pipe, a socket or a device; save the scan to a file.")
            head = file.read(348)
    except OSError as error:
        raise ScanError(f"{path} cannot be opened ({error.strerror}); check the name and the permissions.") from error
    except ValueError as error:
        raise ScanError(f"{path} cannot be opened ({error}); check the name.") from error
    if found.st_size == 0:
        raise ScanError(f"{path} is empty; copy or export it again.")
    if found.st_size > 16 * max_pixels() + 2**26:
        raise ScanError(f"{path} has {found.st_size:,} bytes, more than any scan that is read; crop or reduce it.")
    return head


def _only_dicom_has(path: Path, window: str | int | None) -> None:
    if window is not None:
        raise ScanError(f"{path} has no windows, which only DICOM has; give value_range= (--value-range).")
