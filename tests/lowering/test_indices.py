"""Index expressions: canonical form, exact division, affine parts."""

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapsto.ir.dims import FloorDiv, symbol
from mapsto.ir.types import DType
from mapsto.lowering.index_facts import index_multiple, simplify_index
from mapsto.lowering.indices import (
    Index,
    evaluate_index,
    flat_offset,
    floor_div,
    from_dim,
    linear_parts,
    maximum,
    minimum,
    size,
    split_offset,
    substitute_index,
    value_of,
    variable,
)
from mapsto.lowering.loops import Buffer

P, Q, N = variable("i"), variable("j"), size("n")
VALUES = st.integers(-50, 50)


@st.composite
def indices(draw: st.DrawFn, depth: int = 3) -> Index:
    if depth == 0 or draw(st.booleans()):
        return draw(st.one_of(st.sampled_from([P, Q, N]), VALUES))
    left, right = draw(indices(depth=depth - 1)), draw(indices(depth=depth - 1))
    kind = draw(st.sampled_from(["+", "-", "*", "//", "%", "min", "max"]))
    positive = draw(st.integers(1, 9))
    return {
        "+": lambda: left + right,
        "-": lambda: left - right,
        "*": lambda: left * right,
        "//": lambda: left // positive,
        "%": lambda: left % positive,
        "min": lambda: minimum(left, right),
        "max": lambda: maximum(left, right),
    }[kind]()


@given(indices(), indices(), VALUES, VALUES, VALUES, st.integers(1, 20))
def test_arithmetic_commutes_with_evaluation(
    a: Index, b: Index, i: int, j: int, n: int, d: int
) -> None:
    values = {"i": i, "j": j, "$n": n}
    x, y = evaluate_index(a, values), evaluate_index(b, values)
    assert evaluate_index(a + b, values) == x + y
    assert evaluate_index(a - b, values) == x - y
    assert evaluate_index(a * b, values) == x * y
    assert evaluate_index(a // d, values) == x // d
    assert evaluate_index(a % d, values) == x % d
    assert evaluate_index(minimum(a, b), values) == min(x, y)
    assert evaluate_index(maximum(a, b), values) == max(x, y)


@given(indices(), VALUES, VALUES, VALUES)
def test_linear_parts(a: Index, i: int, j: int, n: int) -> None:
    parts = linear_parts(a, "i")
    if parts is None:
        return
    values = {"j": j, "$n": n}
    slope, rest = (evaluate_index(part, values) for part in parts)
    assert slope * i + rest == evaluate_index(a, {**values, "i": i})


def test_equal_indices_are_equal_objects() -> None:
    assert P + Q == Q + P
    assert (P - 1) + 1 == P
    assert P * N + N == N * (P + 1)
    assert P - P == 0


def test_division_is_carried_out_where_exact() -> None:
    assert (P * 16 + Q * 4 + 8) // 4 == P * 4 + Q + 2
    assert (P * 16 + Q) % 16 == Q % 16
    assert (P * 16 + 35) // 16 == P + 2
    assert str((P * 16 + Q) // 16) == "(j // 16) + i"
    assert P // P == 1


def test_ranges_decide_divisions() -> None:
    ranges = {"i": (0, 99), "j": (0, 15)}
    flat = P * 16 + Q
    assert simplify_index(flat // 16, ranges) == P
    assert simplify_index(flat % 16, ranges) == Q
    assert simplify_index(flat // 16 * 16 + flat % 16, ranges) == flat
    assert simplify_index((flat + 1) // 16, ranges) == (flat + 1) // 16
    assert simplify_index((P % 8 * 2 + Q // 16) // 16, ranges) == 0
    assert simplify_index(minimum(Q, 20), ranges) == Q
    assert simplify_index(maximum(Q, P * 0 + 15), ranges) == 15
    assert simplify_index(Q // 16, {}) == Q // 16


@given(indices(), st.tuples(VALUES, VALUES), st.tuples(VALUES, VALUES), VALUES)
def test_simplified_indices_are_equal(
    a: Index, i: tuple[int, int], j: tuple[int, int], n: int
) -> None:
    ranges = {"i": (min(i), max(i)), "j": (min(j), max(j))}
    values = {"i": i[0], "j": j[1], "$n": n}
    simple = simplify_index(a, ranges)
    assert evaluate_index(simple, values) == evaluate_index(a, values)


def test_extrema_are_decided_where_known() -> None:
    assert minimum(P, P + 1) == P
    assert maximum(P - 2, P) == P
    assert str(minimum(P, 4)) == "min(i, 4)"


def test_affine_forms_are_recognized() -> None:
    assert linear_parts(P * N + Q + 3, "i") == (N, Q + 3)
    assert linear_parts(P * P, "i") is None
    assert linear_parts(P // 2, "i") is None
    assert linear_parts(Q // 2 + P, "i") == (1, Q // 2)
    ids = Buffer("ids", DType.I32, (8,))
    assert linear_parts(value_of(ids["j"]), "i") is None


def test_sizes_do_not_collide_with_variables() -> None:
    assert size("i") != P
    assert substitute_index(size("i") + P, {"i": 5}) == size("i") + 5
    assert str(size("i") + P) in ("$i + i", "i + $i")


def test_dimensions_convert() -> None:
    n, d = symbol("n"), symbol("d")
    dim = (2 * n * d + d - 1) // 4
    index = from_dim(dim)
    assert evaluate_index(index, {"$n": 7, "$d": 5}) == (2 * 7 * 5 + 5 - 1) // 4
    assert isinstance(FloorDiv(n, d), FloorDiv)
    assert flat_offset((P, Q, 2), (n, d, 4)) == P * size("d") * 4 + Q * 4 + 2


def test_an_offset_splits_into_the_index_that_it_is_of() -> None:
    shape = (3, 4, 5)
    for flat in range(60):
        assert flat_offset(split_offset(flat, shape), shape) == flat
    assert split_offset(P, ()) == []
    assert split_offset(P, (0,)) == [P]
    assert len(split_offset(P, (2, 0, 0))) == 3


def test_missing_values_are_named() -> None:
    with pytest.raises(KeyError, match="j"):
        evaluate_index(P + Q, {"i": 1})
    with pytest.raises(ZeroDivisionError):
        P // 0


def test_numbers_that_divide_an_index() -> None:
    assert index_multiple(12 * P + 8 * Q) == 4
    assert index_multiple(8 * (P % 6) + 16) == 8
    assert index_multiple((4 * P) % 6) == 2
    assert index_multiple((4 * P) // 2) == 2
    assert index_multiple((4 * P) // 3) == 1
    assert index_multiple(minimum(8 * P, 28)) == 4
    assert index_multiple(P * Q * 2, lambda name: 3) == 18
    assert index_multiple(0) == 0


def test_indices_are_copied_without_what_they_remember() -> None:
    index = floor_div(variable("i") * 3 + variable("j"), 5) + 2
    assert hash(index) and str(index)
    copied = pickle.loads(pickle.dumps(index))
    assert copied == index == copy.deepcopy(index)
