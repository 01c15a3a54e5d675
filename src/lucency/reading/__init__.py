"""Reading scans: DICOM, PNG, JPEG, TIFF, NumPy and NIfTI, at full bit depth, with one clear sentence when it fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lucency.errors import ScanError
from lucency.reading.array import read_npy
from lucency.reading.dicom import read_dicom
from lucency.reading.picture import read_picture
from lucency.reading.volume import read_nifti
from lucency.scan import Scan

__all__ = ["read_scan"]


def read_scan(path: str | Path) -> Scan:
    """Reads one radiograph or volume; the kind of file is found from its first bytes.

    * DICOM: any transfer syntax that the ``dicom`` extra decodes; rescale slope and intercept are applied, MONOCHROME1
      is turned round, the first VOI window (or LUT range) becomes the value range; spacing from ``PixelSpacing`` or
      ``ImagerPixelSpacing``.
    * PNG, JPEG, TIFF: 8 and 16 bit; the range of the bit depth is the value range (12 or so bits stored in 16 are
      noticed), signed, wider and float TIFF runs from its minimum to its maximum; colour is turned to grey.
    * ``.npy``: ``[H, W]`` or ``[C, (D,) H, W]``; ``uint8`` is shown from 0 to 255, floats within 0..1 from 0 to 1, all
      else from its minimum to its maximum.
    * NIfTI: ``[C, D, H, W]`` in the closest canonical orientation: D towards the head, H towards the front reversed
      (so anterior is up), W towards the left of the patient; spacing from the affine.

    Raises:
        ScanError: when the file is missing, empty, damaged, larger than ``MAX_PIXELS`` by its header, of one value
            throughout, or of a kind that is not one grey scan.
        MissingExtraError: when an optional package is needed to read it.
    """
    path = Path(path)
    if path.is_dir():
        raise ScanError(f"{path} is a folder; give the file of one scan.")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(348)
    except OSError as error:
        raise ScanError(f"{path} cannot be opened ({error.strerror}); check the name and the permissions.") from error
    if size == 0:
        raise ScanError(f"{path} is empty; copy or export it again.")
    if head[128:132] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom"):
        scan = read_dicom(path)
    elif head.startswith(b"\x93NUMPY"):
        scan = read_npy(path)
    elif path.name.lower().endswith((".nii", ".nii.gz")):
        scan = read_nifti(path)
    elif head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*")):
        scan = read_picture(path)
    elif path.suffix.lower() in (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy"):
        raise ScanError(f"{path} is damaged: it does not begin as a {path.suffix} file does; copy or export it again.")
    elif _looks_like_bare_dicom(head):
        scan = read_dicom(path)
    else:
        raise ScanError(f"{path} is no DICOM, PNG, JPEG, TIFF, NumPy or NIfTI file; convert it to one of these.")
    return replace(scan, source=str(path))


def _looks_like_bare_dicom(head: bytes) -> bool:
    """A data set without preamble begins with a tag of group 0002 or 0008."""
    return len(head) > 8 and head[:2] in (b"\x02\x00", b"\x08\x00") and head[4:6].isalpha()
