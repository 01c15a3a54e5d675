"""An explanation of a DICOM film as DICOM objects that lie beside the film. Needs the ``clinic`` extra."""

from lucency.errors import MissingExtraError

try:
    import highdicom  # noqa: F401
except ImportError as error:
    raise MissingExtraError(
        f"DICOM objects need {error.name}, which is not installed; run pip install 'lucency[clinic]'."
    ) from error

from lucency.dicom.objects import derived, save

__all__ = ["derived", "save"]
