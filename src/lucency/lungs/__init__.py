"""Where the lungs of a frontal chest film are, and what the places in and around them are called."""

from lucency.lungs.fields import LungFields, lung_fields
from lucency.lungs.zones import Place, places

__all__ = ["LungFields", "Place", "lung_fields", "places"]
