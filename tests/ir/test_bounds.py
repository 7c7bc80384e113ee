"""What is proved of dimensions and reads holds for all sizes, 0 too."""

from __future__ import annotations

from itertools import product as pairs

from hypothesis import given
from hypothesis import strategies as st

from mapsto.ir.affine import AffineExpr, axis
from mapsto.ir.bounds import inside_above, inside_below, nonnegative
from mapsto.ir.dims import Dim, dim_value, floor_div, symbol

n, m = symbol("n"), symbol("m")
NUMBERS = st.integers(-3, 3)
SUMS = st.builds(lambda a, b, c, d: a * n + b * m + c * n * m + d, *[NUMBERS] * 4)
QUOTIENTS = st.builds(lambda a, b, c: floor_div(a, b) * 2 + c, SUMS, st.integers(1, 4), SUMS)


@given(SUMS | QUOTIENTS)
def test_what_is_proved_nonnegative_is(dim: Dim) -> None:
    if nonnegative(dim):
        for sizes in pairs(range(4), repeat=2):
            assert dim_value(dim, dict(zip("nm", sizes, strict=True))) >= 0


def test_a_size_may_be_zero() -> None:
    assert nonnegative(n * m)
    assert not nonnegative(n - 1)
    assert not nonnegative(n * m - n)


def test_reads_along_an_axis_are_inside() -> None:
    forward, backward = axis(0, 1), AffineExpr((-1,), n - 1)
    for expr in (forward, backward):
        assert inside_below(expr, [n])
        assert inside_above(expr, [n], n)


def test_a_fixed_element_of_an_axis_that_may_be_empty_is_not_certain() -> None:
    first, last = AffineExpr((0,), 0), AffineExpr((0,), n - 1)
    assert not inside_above(first, [m], n)
    assert not inside_below(last, [m])
