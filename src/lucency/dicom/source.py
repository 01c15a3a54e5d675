"""The film that an explanation is of: what other objects take from it, and whether it is the one."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import Dataset

from lucency.errors import ParameterError, ScanError
from lucency.explanation import Explanation
from lucency.reading import read_scan
from lucency.reading.common import decoding
from lucency.reading.dicom import looks_like_dicom
from lucency.reading.dicom_file import DicomFile, opened
from lucency.reading.display import Window, chosen_view, table, windows

IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
STUDY = (
    "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber", "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianName", "PhysiciansOfRecord", "ProcedureCodeSequence", "AdmissionID",
)  # fmt: skip
"""Of the study; all of the patient's own groups goes along besides."""
PLACED = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
"""What a slice has and a radiograph has not, a place in the patient within a frame of reference, in so many numbers."""


@dataclass(frozen=True, eq=False)
class Source:
    """The film.

    Attributes:
        header: its dataset without the pixels, text decoded.
        value_range: the values after the rescale that are black and white, as the explanation shows them; ``None``
            where a look-up table or a sigmoid decides, and the header has it.
        inverted: whether small values are shown bright.
    """

    header: Dataset
    value_range: tuple[float, float] | None
    inverted: bool

    @property
    def placed(self) -> bool:
        """Whether the film says where in the patient it lies, as a CT slice does."""
        return bool(self.header.get("FrameOfReferenceUID")) and all(
            numbers(self.header, keyword, count) for keyword, count in PLACED.items()
        )

    @property
    def coloured(self) -> bool:
        return int(self.header.get("SamplesPerPixel") or 1) > 1 or "PALETTE" in str(
            self.header.get("PhotometricInterpretation")
        )

    def reference(self) -> Dataset:
        """A fresh dataset with what an object that refers to the film takes from it, and nothing else.

        Films in archives bend the standard in many places; what is wrong in them must not end the work.
        """
        found = Dataset()
        for keyword in IDENTIFIERS:
            setattr(found, keyword, str(self.header[keyword].value))
        found.Modality = str(self.header.get("Modality") or "OT")
        for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
            setattr(found, keyword, "")
        found.StudyDate, found.StudyTime, found.ReferringPhysicianName = None, None, ""
        found.SpecificCharacterSet = "ISO_IR 192"
        found.Rows, found.Columns = int(self.header.Rows), int(self.header.Columns)
        found.SamplesPerPixel, found.PhotometricInterpretation = 1, "MONOCHROME2"
        found.BitsAllocated = found.BitsStored = 16
        found.HighBit, found.PixelRepresentation = 15, 0
        if self.placed:
            found.FrameOfReferenceUID = str(self.header.FrameOfReferenceUID)
            for keyword, count in PLACED.items():
                setattr(found, keyword, numbers(self.header, keyword, count))
            found.SliceThickness = (numbers(self.header, "SliceThickness", 1) or [1.0])[0]
        return found


def numbers(header: Dataset, keyword: str, count: int) -> list[float]:
    """So many finite numbers, or none: what a header says of geometry may be anything."""
    value: Any = header.get(keyword)
    values = [value] if count == 1 and not isinstance(value, Sequence) else value
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != count:
        return []
    try:
        found = [float(v) for v in values]
    except (TypeError, ValueError):
        return []
    return found if all(map(math.isfinite, found)) else []


def source_of(
    explanation: Explanation,
    path: str | Path,
    *,
    window: str | int | None = None,
    value_range: tuple[float, float] | None = None,
) -> Source:
    """The film in a DICOM file, if the explanation is one of it.

    Raises:
        ScanError: when it is none, has no identifiers or is another film.
        ParameterError: when the explanation is of a volume.
    """
    path = Path(path)
    if explanation.heatmap.ndim != 2:
        raise ParameterError("This explanation is of a volume; DICOM objects are made of single films and slices.")
    if not path.is_file():
        raise ScanError(f"{path} is no file; give the DICOM file that the explanation was made from.")
    with decoding(path, "DICOM"):
        film = _film(path)
        header = film.header
        if "SOPClassUID" not in header and "Rows" not in header:
            raise ScanError(f"{path} is not a DICOM file or is damaged; copy or export it again.")
        if int(film.number("NumberOfFrames") or 1) > 1:
            raise ScanError(
                f"{path} has {film.header.NumberOfFrames} frames; DICOM objects are made of single films, so export "
                "the frame as a file of its own and explain that."
            )
        missing = [keyword for keyword in IDENTIFIERS if not film.get(keyword)]
        if missing:
            raise ScanError(f"{path} has no {missing[0]}, so nothing can refer to it; export it from its archive.")
        linear = _linear(film, window, value_range)
        inverted = "MONOCHROME1" in film.word("PhotometricInterpretation")
        inverted = inverted or film.word("PresentationLUTShape") == "INVERSE"
        header.decode()
    scan = read_scan(path, window=window, value_range=value_range)
    if scan.sha256 != explanation.provenance.scan.sha256:
        raise ScanError(
            f"{path} does not show the pixels that were explained; give the film itself, with the --window or "
            "--value-range that it was explained with."
        )
    return Source(header, scan.value_range if linear else None, inverted)


def _film(path: Path) -> DicomFile:
    with path.open("rb") as file:
        if not looks_like_dicom(file.read(132)) and path.suffix.lower() not in (".dcm", ".dicom"):
            raise ScanError(f"{path} is no DICOM film, so that nothing can lie beside it; give the .dcm file.")
        file.seek(0)
        film = opened(path, file)
    # What has not been read by now is pixels.
    return DicomFile(film.name, film.header, io.BytesIO(), film.length, film.pixel_vr, film.syntax)  # type: ignore[arg-type]


def _linear(film: DicomFile, window: str | int | None, value_range: tuple[float, float] | None) -> bool:
    """Whether nothing but two values decides what the viewer shows."""
    if value_range is not None:
        return True
    items: list[Any] = list(film.get("VOILUTSequence") or ())
    if window is not None:
        tables = [table(item, film.name, film.header.original_encoding[1] is not False, False) for item in items]
        view = chosen_view(film.name, windows(film), tables, window)
        return isinstance(view, Window) and view.function != "SIGMOID"
    return not items and film.word("VOILUTFunction") != "SIGMOID"
