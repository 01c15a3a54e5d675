"""The whole suite of Lucency's own methods and removals, for these."""

from lucency_stripes import Quantile, Stripes

from lucency.testing import check_method, check_removal


def test_the_method_keeps_every_promise() -> None:
    check_method(Stripes(width=5))


def test_the_removal_keeps_every_promise() -> None:
    check_removal(Quantile)
