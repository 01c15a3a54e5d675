"""The operators that are computed on windows: one file a family, one entry an operator."""

from lucency.engine.operators import enlarging, joining, layout, pixelwise, reducing, sliding

__all__ = ["enlarging", "joining", "layout", "pixelwise", "reducing", "sliding"]
