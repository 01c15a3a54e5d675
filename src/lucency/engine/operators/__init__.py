"""The operators that are computed on windows: one file a family, one entry an operator."""

from lucency.engine.operators import joining, pixelwise, reducing, sliding
from lucency.engine.operators.base import FIRST, Axes, Operator, Site, find, kept, maps
from lucency.engine.operators.joining import Joint, link

__all__ = [
    "FIRST", "Axes", "Joint", "Operator", "Site", "find", "joining", "kept", "link", "maps", "pixelwise", "reducing",
    "sliding",
]  # fmt: skip
