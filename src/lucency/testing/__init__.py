"""The checks that every method and every removal passes, for your own: ``check_method(MyMethod)`` in your test.

Whoever writes a method or a removal in a package of their own gets the suite that the project's pass. A check that
fails raises ``AssertionError`` and says which promise was not kept.
"""

from lucency.testing.methods import check_method
from lucency.testing.removals import check_removal

__all__ = ["check_method", "check_removal"]
