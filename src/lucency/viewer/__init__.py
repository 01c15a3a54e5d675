"""The viewer: one element for the page, the notebook and the report, and the bytes that it reads."""

from lucency.viewer.packed import packed, packed_film
from lucency.viewer.packing import pack, unpack

__all__ = ["pack", "packed", "packed_film", "unpack"]
