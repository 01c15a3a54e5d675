"""Volumes: NIfTI, NRRD and MetaImage, and folders of DICOM slices."""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import itertools
import logging
import math
import re
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lucency.errors import MissingExtraError, ScanError
from lucency.reading import worker
from lucency.reading.common import decoding, frame_index, made, not_too_large, span
from lucency.reading.dicom import looks_like_dicom, read_dicom
from lucency.reading.dicom_file import opened
from lucency.scan import Scan, grey

DEFLATE = 1032
"""Deflate cannot swell by more than this."""
FURTHEST = 2**24
"""Bytes of a NIfTI header with its extensions."""
TEXT = 2**16
"""Bytes in which a header of text must end."""
GAP = 0.1
"""Distances of slices that differ by more than this share are said to be uneven."""
EVERYTHING = (-(2.0**24), 2.0**24)

Matrix = NDArray[np.float64]


def upright(
    values: NDArray[Any], directions: Matrix, spacing: Sequence[float] | Matrix
) -> tuple[NDArray[Any], tuple[float, ...]]:
    """``[C, D, H, W]`` of which D runs to the head, H to the back and W to the patient's left, as nearly as axes can.

    Args:
        values: ``[C, x, y, z]`` in any order of axes.
        directions: for each spatial axis the unit vector, towards left, back and head, in which its index grows.
        spacing: millimetres along each spatial axis.
    """
    wanted = (2, 1, 0)  # the head, the back, the left
    order = max(
        itertools.permutations(range(3)),
        key=lambda axes: sum(abs(directions[axis, way]) for axis, way in zip(axes, wanted, strict=True)),
    )
    values = values.transpose(0, *(axis + 1 for axis in order))
    backwards = tuple(
        i for i, (axis, way) in enumerate(zip(order, wanted, strict=True), 1) if directions[axis, way] < 0
    )
    return np.flip(values, backwards), tuple(float(spacing[axis]) for axis in order)


def _volume(
    path: Path,
    values: NDArray[Any],
    spacing: tuple[float, ...] | None,
    value_range: tuple[float, float] | None,
    notices: tuple[str, ...],
) -> Scan:
    """The scan of ``[C, D, H, W]``, or of one slice of it whatever its axis, with the head above."""
    if spacing is not None and not all(0 < s < math.inf for s in spacing):
        spacing = None
        notices += ("voxel spacing in the header makes no sense and was dropped",)
    if values.dtype.kind == "f" and (gone := np.isnan(values)).any():
        if gone.all():
            raise ScanError(f"{path} is NaN throughout; choose a scan that shows something.")
        low = float(np.nanmin(values))
        values = np.where(gone, values.dtype.type(low), values)
        notices += (f"{gone.mean():.1%} of the voxels are NaN, taken as background ({low:g})",)
    for axis in (2, 3):
        if values.shape[1] > 1 and values.shape[axis] == 1:
            values = np.flip(values, 1).swapaxes(1, axis)
            if axis == 2:
                spacing = None if spacing is None else (spacing[1], spacing[0], spacing[2])
            else:
                values = values.swapaxes(2, 3)
                spacing = None if spacing is None else (spacing[2], spacing[0], spacing[1])
    if value_range is None and values.dtype != np.uint8:
        value_range, said = span(values)
        notices += said
    return made(path, values, value_range, spacing, notices)


# NIfTI.


def read_nifti(path: Path, *, frame: int | None = None, value_range: tuple[float, float] | None = None) -> Scan:
    """A volume, or one of a time series."""
    try:
        nibabel = importlib.import_module("nibabel")
    except ImportError as error:
        raise MissingExtraError("Reading NIfTI needs nibabel; pip install 'lucency[nifti]'.") from error
    with decoding(path, "NIfTI"), _silent("nibabel.global"):
        measured = _nifti_header(path)
        image = nibabel.load(path)
        if np.dtype(image.get_data_dtype()).kind not in "iuf":
            raise ScanError(f"{path} holds {image.get_data_dtype()} values; save real numbers.")
        shape = image.shape + (1,) * (5 - image.ndim)
        if image.ndim < 2 or math.prod(shape[5:]) > 1:
            raise ScanError(f"{path} has {image.ndim} axes; save a slice, a volume or a time series of volumes.")
        index = frame_index(path, frame, shape[3], "volumes")
        chosen = (..., index) if image.ndim == 4 else (..., index, slice(None)) if image.ndim == 5 else ...
        values = np.asarray(image.dataobj[chosen])
        values = values.reshape(*shape[:3], shape[4])
        affine = np.asarray(image.affine, np.float64)[:3, :3] * _millimetres(image.header)
    lengths = np.linalg.norm(affine, axis=0)
    notices: tuple[str, ...] = ()
    if np.isfinite(affine).all() and lengths.all() and abs(np.linalg.det(affine / lengths)) > 1e-3:
        directions = (affine / lengths).T * (-1, -1, 1)
    else:
        directions, lengths = np.diag((-1.0, -1.0, 1.0)), np.zeros(3)
        notices += ("the orientation in the header makes no sense: taken as stored",)
    values, spacing = upright(np.moveaxis(values, 3, 0), directions, lengths if measured else np.zeros(3))
    return _volume(path, values, spacing, value_range, notices)


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """A logger that prints what it thinks of a header says nothing for a while."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


def _millimetres(header: Any) -> float:
    """What one unit of the header's lengths is in millimetres; unknown units are millimetres."""
    try:
        return {"meter": 1000.0, "micron": 0.001}.get(header.get_xyzt_units()[0], 1.0)
    except KeyError:
        return 1.0


def _nifti_header(path: Path) -> bool:
    """Refuses, before anything is unpacked, a header of which the file cannot hold the pixels.

    Returns:
        Whether the header gives lengths that can be: NiBabel would make them positive, and 1 of 0.
    """
    packed = path.suffix.lower() == ".gz"
    with gzip.open(path) if packed else path.open("rb") as file:
        head = file.read(540)
    order = next((o for o in "<>" if head[:4] in (struct.pack(o + "i", 348), struct.pack(o + "i", 540))), None)
    if order is None or len(head) < 348:
        raise ValueError("no NIfTI header")
    if struct.unpack(order + "i", head[:4]) == (348,):
        dims = struct.unpack(order + "8h", head[40:56])
        (bits,), (offset,) = struct.unpack(order + "h", head[72:74]), struct.unpack(order + "f", head[108:112])
        lengths, (affine,) = struct.unpack(order + "3f", head[80:92]), struct.unpack(order + "h", head[254:256])
    else:
        dims = struct.unpack(order + "8q", head[16:80])
        (bits,), (offset,) = struct.unpack(order + "h", head[14:16]), struct.unpack(order + "q", head[168:176])
        lengths, (affine,) = struct.unpack(order + "3d", head[112:136]), struct.unpack(order + "i", head[348:352])
    if not 1 <= dims[0] <= 7 or not 0 <= offset <= FURTHEST:
        raise ValueError("a header of rubbish")
    sizes = dims[1 : dims[0] + 1]
    if min(sizes) < 1:
        raise ScanError(f"{path} has an axis of length {min(sizes)} ({' x '.join(map(str, sizes))}); export it again.")
    not_too_large(path, sizes[:3] + sizes[4:])
    held = path.stat().st_size * (DEFLATE if packed else 1)
    if offset + math.prod(sizes) * bits / 8 > held:
        raise ScanError(f"{path} is damaged: it ends before its pixels do; copy or export it again.")
    return affine > 0 or all(0 < length < math.inf for length in lengths)


# NRRD and MetaImage.


def looks_like_itk(path: Path, head: bytes) -> bool:
    """Whether a file is NRRD, or MetaImage by its name and first words."""
    return head.startswith(b"NRRD000") or (path.suffix.lower() in (".mha", ".mhd") and b"=" in head)


def read_itk(path: Path, *, frame: int | None = None, value_range: tuple[float, float] | None = None) -> Scan:
    """NRRD or MetaImage: a picture, a volume, or one of a time series. ITK reads it in the worker."""
    if importlib.util.find_spec("SimpleITK") is None:
        raise MissingExtraError("Reading NRRD and MetaImage needs SimpleITK; pip install 'lucency[itk]'.")
    with decoding(path, "volume"):
        sizes = _text_header(path)
        not_too_large(path, sizes)
        values, facts = worker.decode(
            "volume", b"", {"path": str(path.resolve())}, name=str(path), decoded=math.prod(sizes) * 8
        )
        axes = int(facts["axes"])
        values = values if facts["channels"] > 1 else values[..., None]
        if axes == 4:
            values = values[frame_index(path, frame, len(values), "volumes")]
        else:
            frame_index(path, frame, 1, "volumes")
        spacing = tuple(float(s) for s in facts["spacing"][:3])[::-1]
        notices: tuple[str, ...] = ()
        if values.shape[-1] == 3:
            if value_range is None and values.dtype == np.uint8:
                value_range = (0.0, 255.0)
            values, notices = grey(values)
            values = values[None] if axes == 2 else values
        else:
            values = np.moveaxis(values, -1, 0)
        if axes == 2:
            return _volume(path, values[:, None], (1.0, *spacing), value_range, notices)
        directions = np.array(facts["direction"], np.float64).reshape(axes, axes)[:3, :3].T[::-1]
    values, spacing = upright(values, directions, spacing)
    return _volume(path, values, spacing, value_range, notices)


def _text_header(path: Path) -> tuple[int, ...]:
    """The sizes of all axes, after a look that the pixels lie in this file or beside it."""
    with path.open("rb") as file:
        text = file.read(TEXT).decode("latin-1")
    if text.startswith("NRRD"):
        text = re.split(r"\r?\n\r?\n", text, maxsplit=1)[0]
        sizes = re.search(r"^sizes:(.*)$", text, re.MULTILINE | re.IGNORECASE)
        beside = re.search(r"^data ?file:(.*)$", text, re.MULTILINE | re.IGNORECASE)
        channels = None
    else:
        sizes = re.search(r"^\s*DimSize\s*=(.*)$", text, re.MULTILINE)
        beside = re.search(r"^\s*ElementDataFile\s*=(.*)$", text, re.MULTILINE)
        channels = re.search(r"^\s*ElementNumberOfChannels\s*=(.*)$", text, re.MULTILINE)
        if beside is None:
            raise ValueError("no ElementDataFile")
    if sizes is None:
        raise ValueError("no sizes")
    name = "" if beside is None else beside.group(1).strip()
    if name not in ("", "LOCAL"):
        # Another folder's file, or a list of files, could be anybody's.
        other = path.parent / name
        if Path(name).name != name or "\\" in name or not other.is_file():
            raise ScanError(f"{path} says that its pixels lie in {name!r}, which is no file beside it; copy it there.")
    found = tuple(int(n) for n in sizes.group(1).split())
    if min(found) < 1:
        raise ScanError(f"{path} has an axis of length {min(found)} ({' x '.join(map(str, found))}); export it again.")
    return found if channels is None else (*found, int(channels.group(1)))


# A folder of DICOM slices.


@dataclass(frozen=True)
class _Slice:
    path: Path
    series: str
    instance: str
    number: float
    size: tuple[float | None, float | None]
    spacing: tuple[float, ...]
    axes: tuple[float, ...]
    """Directions in which columns and rows are counted: six numbers, or none."""
    place: tuple[float, ...]
    distance: float | None
    """Between slices, as the header says."""
    windowed: bool
    modality: str


def read_series(
    folder: Path,
    *,
    frame: int | None = None,
    window: str | int | None = None,
    value_range: tuple[float, float] | None = None,
) -> Scan:
    """The DICOM slices of one series as a volume, in the order in which they lie in the patient."""
    slices = _slices(folder)
    if not slices:
        raise ScanError(f"{folder} is a folder without DICOM slices; give the file of one scan.")
    series = Counter(s.series for s in slices)
    if len(series) > 1:
        counts = ", ".join(str(n) for n in series.values())
        raise ScanError(f"{folder} holds {len(series)} series (of {counts} slices); give each a folder of its own.")
    notices: tuple[str, ...] = ()
    once = list({s.instance: s for s in slices}.values())
    if len(once) < len(slices):
        notices += (f"{len(slices) - len(once)} file(s) are copies of others and were left out",)
    if len(once) == 1:
        return read_dicom(once[0].path, frame=frame, window=window, value_range=value_range)
    frame_index(folder, frame, 1, "volumes")
    first = once[0]
    kinds: tuple[tuple[str, set[tuple[float | None, ...]]], ...] = (
        ("sizes", {s.size for s in once}),
        ("spacings", {tuple(round(v, 3) for v in s.spacing) for s in once}),
        ("directions", {tuple(round(v, 2) for v in s.axes) for s in once}),
    )
    for what, different in kinds:
        if len(different) > 1:
            raise ScanError(f"{folder} holds slices of {len(different)} {what}; leave one volume in it.")
    not_too_large(folder, (len(once), *(int(n or 0) for n in first.size)))
    ordered, thick, directions, said = _in_order(folder, once)
    notices += said
    values, shown, said = _stacked(folder, ordered, window, value_range)
    notices += said
    spacing = None if thick is None or len(first.spacing) != 2 else (thick, *first.spacing)
    values, turned = upright(values[None], directions, spacing or (1.0, 1.0, 1.0))
    return made(folder, values, shown, turned if spacing else None, notices, modality=first.modality)


FILMS = ("CR", "DX", "IO", "MG", "PX", "RF", "RG", "XA")
"""Modalities whose files are pictures of their own, however many lie in one series."""


def is_volume(folder: Path) -> bool:
    """Whether the DICOM files of a folder are one scan (the slices of one series), rather than films of their own."""
    try:
        slices = _slices(folder)
    except (ScanError, OSError):
        return False
    if len({s.instance for s in slices}) == 1:
        return True
    return len({s.series for s in slices}) == 1 and not any(s.modality in FILMS for s in slices)


def _slices(folder: Path) -> list[_Slice]:
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        with path.open("rb") as file:
            if not looks_like_dicom(file.read(348)):
                continue
            with decoding(path, "DICOM"):
                file.seek(0)
                film = opened(path, file)
                if film.get("Rows") is None:
                    continue  # a report, or the directory of the medium
                window = film.number("WindowWidth") is not None or film.get("VOILUTSequence") is not None
                found.append(
                    _Slice(
                        path,
                        str(film.get("SeriesInstanceUID") or ""),
                        str(film.get("SOPInstanceUID") or path),
                        film.number("InstanceNumber") or 0,
                        (film.number("Rows"), film.number("Columns")),
                        _numbers(film.get("PixelSpacing"), 2),
                        _numbers(film.get("ImageOrientationPatient"), 6),
                        _numbers(film.get("ImagePositionPatient"), 3),
                        film.number("SpacingBetweenSlices") or film.number("SliceThickness"),
                        window,
                        film.word("Modality"),
                    )
                )
    return found


def _numbers(value: Any, count: int) -> tuple[float, ...]:
    """``count`` finite numbers, or none."""
    try:
        numbers = tuple(float(v) for v in value)
    except (TypeError, ValueError):
        return ()
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else ()


def _in_order(folder: Path, slices: list[_Slice]) -> tuple[list[_Slice], float | None, Matrix, tuple[str, ...]]:
    """Slices along their normal, millimetres between them, directions of the axes ``[slice, row, column]``."""
    axes = np.array(slices[0].axes).reshape(-1, 3)
    if len(axes) == 2 and all(len(s.place) == 3 for s in slices):
        across, down = axes
        normal = np.cross(across, down)
        along = {s.instance: float(np.dot(s.place, normal)) for s in slices}
        ordered = sorted(slices, key=lambda s: along[s.instance])
        steps = np.diff([along[s.instance] for s in ordered])
        step = float(np.median(steps))
        if steps.min() < max(1e-3, step * 0.01):
            i = int(steps.argmin())
            raise ScanError(
                f"{folder} holds two slices at one place ({ordered[i].path.name}, {ordered[i + 1].path.name}); "
                "leave one volume in it."
            )
        if steps.max() <= step * (1 + GAP) and steps.min() >= step * (1 - GAP):
            return ordered, float(steps.mean()), np.stack([normal, down, across]), ()
        i = int(steps.argmax())
        said = (
            f"slices lie {steps.min():.3g} to {steps.max():.3g} mm apart, and are taken as {step:.3g} mm apart: "
            f"one may be missing between {ordered[i].path.name} and {ordered[i + 1].path.name}"
        )
        return ordered, step, np.stack([normal, down, across]), (said,)
    ordered = sorted(slices, key=lambda s: s.number)
    distance = slices[0].distance
    as_stored: Matrix = np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])
    return ordered, distance, as_stored, ("no slice positions in the headers: ordered by number, turned as stored",)


def _looked_up(
    folder: Path, slices: list[_Slice], window: str | int | None
) -> tuple[NDArray[np.float32], tuple[float, float], tuple[str, ...]]:
    """The same for slices whose display is not linear."""
    films = [read_dicom(s.path, window=window) for s in slices]
    if len({film.value_range for film in films}) > 1:
        raise ScanError(f"{folder} holds slices whose look-up tables have no scale in common; give value_range=.")
    common = tuple(n for n in films[0].notices if all(n in film.notices for film in films))
    return np.stack([film.pixels[0].numpy() for film in films]), films[0].value_range, common


def _stacked(
    folder: Path, slices: list[_Slice], window: str | int | None, value_range: tuple[float, float] | None
) -> tuple[NDArray[np.float32], tuple[float, float] | None, tuple[str, ...]]:
    """``[slices, rows, columns]`` in one scale, and what is shown of it."""
    middle = slices[len(slices) // 2]
    notices: tuple[str, ...] = ()
    shown = value_range
    if shown is None and (window is not None or middle.windowed):
        one = read_dicom(middle.path, window=window)
        shown = one.value_range
        if not torch.equal(one.pixels, read_dicom(middle.path, value_range=shown).pixels):
            # A look-up table or a sigmoid is applied to the pixels: each slice has its own.
            return _looked_up(folder, slices, window)
        notices = (f"all slices are shown from {shown[0]:g} to {shown[1]:g}, the window of the middle one",)
    films = [read_dicom(s.path, value_range=shown or EVERYTHING) for s in slices]
    values = np.stack([film.pixels[0].numpy() for film in films])
    if shown is None:
        padding = values == EVERYTHING[0]
        if padding.any() and not padding.all():
            values[padding] = values[~padding].min()
        shown, said = span(values)
        notices += said
    common = [n for n in films[0].notices if all(n in film.notices for film in films)]
    return values, shown, (*common, *notices)
