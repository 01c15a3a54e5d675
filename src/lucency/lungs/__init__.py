"""Where the lungs of a frontal chest film are, and what the places in and around them are called."""

from lucency.lungs.fields import LungFields, lung_fields

__all__ = ["LungFields", "lung_fields"]
