"""The canonical forms: one test a law, both sides compared by the reference evaluator."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from rule_checks import F32, N, after, function, names, tensor

from mapsto import ir
from mapsto.ir.passes.canonicalize import RULES, Canonicalize
from mapsto.ir.passes.fold import FOLDING, Fold
from mapsto.ir.rewriting import fired

B, V = ir.Builder, ir.Value
SHAPE = (N, 4)


def number(b: B, value: float) -> V:
    return b.constant(value, F32, SHAPE)


def whole(b: B, x: V) -> V:
    return b.emit(ir.Cast, x, dtype=ir.DType.I32)


LAWS: dict[str, tuple[Callable[[B, V, V], V], list[str]]] = {
    "add_zero": (lambda b, x, y: b.emit(ir.Add, number(b, 0), x), []),
    "subtract_zero": (lambda b, x, y: b.emit(ir.Sub, x, number(b, 0)), []),
    "subtract_from_zero": (lambda b, x, y: b.emit(ir.Sub, number(b, 0), x), ["neg"]),
    "multiply_one": (lambda b, x, y: b.emit(ir.Mul, x, number(b, 1)), []),
    "multiply_minus_one": (lambda b, x, y: b.emit(ir.Mul, x, number(b, -1)), ["neg"]),
    "divide_one": (lambda b, x, y: b.emit(ir.Div, x, number(b, 1)), []),
    "divide_power_of_two": (lambda b, x, y: b.emit(ir.Div, x, number(b, 4)), ["constant", "mul"]),
    "multiply_reciprocal": (
        lambda b, x, y: b.emit(ir.Mul, x, b.emit(ir.Div, number(b, 1), y)),
        ["div"],
    ),
    "multiply_integer_zero": (
        lambda b, x, y: b.emit(ir.Mul, whole(b, x), b.constant(0, ir.DType.I32, SHAPE)),
        ["constant"],
    ),
    "integer_difference_of_same": (
        lambda b, x, y: b.emit(ir.Sub, *[whole(b, x)] * 2),
        ["constant"],
    ),
    "conjunction_with_known": (
        lambda b, x, y: b.emit(ir.And, b.constant(True, ir.DType.BOOL, SHAPE), b.emit(ir.Lt, x, y)),
        ["lt"],
    ),
    "disjunction_with_known": (
        lambda b, x, y: b.emit(ir.Or, b.emit(ir.Lt, x, y), b.constant(True, ir.DType.BOOL, SHAPE)),
        ["constant"],
    ),
    "double_not": (
        lambda b, x, y: b.emit(ir.Not, b.emit(ir.Not, b.emit(ir.Lt, x, y))),
        ["lt"],
    ),
    "double_negation": (lambda b, x, y: b.emit(ir.Neg, b.emit(ir.Neg, x)), []),
    "negated_difference": (lambda b, x, y: b.emit(ir.Neg, b.emit(ir.Sub, x, y)), ["sub"]),
    "add_negative": (lambda b, x, y: b.emit(ir.Add, b.emit(ir.Neg, x), y), ["sub"]),
    "subtract_negative": (lambda b, x, y: b.emit(ir.Sub, x, b.emit(ir.Neg, y)), ["add"]),
    "negative_factor": (
        lambda b, x, y: b.emit(ir.Mul, b.emit(ir.Neg, x), number(b, 3)),
        ["constant", "mul"],
    ),
    "small_power": (lambda b, x, y: b.emit(ir.Pow, x, number(b, 3)), ["mul", "mul"]),
    "square_root": (
        lambda b, x, y: b.emit(ir.Pow, b.emit(ir.Abs, x), number(b, 0.5)),
        ["abs", "sqrt"],
    ),
    "select_known": (
        lambda b, x, y: b.emit(ir.Select, b.constant(True, ir.DType.BOOL, SHAPE), x, y),
        [],
    ),
    "select_negated": (
        lambda b, x, y: b.emit(ir.Select, b.emit(ir.Not, b.emit(ir.Lt, x, y)), x, y),
        ["lt", "select"],
    ),
    "cast_to_same": (lambda b, x, y: b.emit(ir.Cast, x, dtype=F32), []),
    "same_shape": (lambda b, x, y: b.emit(ir.Pad, x, low=(0, 0), high=(0, 0)), []),
    "reshape_of_reshape": (
        lambda b, x, y: b.emit(ir.Reshape, b.emit(ir.Reshape, x, shape=(N, 2, 2)), shape=(N * 4,)),
        ["reshape"],
    ),
    "identity_transpose": (lambda b, x, y: b.emit(ir.Transpose, x, permutation=(0, 1)), []),
    "transpose_of_transpose": (
        lambda b, x, y: b.emit(
            ir.Transpose, b.emit(ir.Transpose, x, permutation=(1, 0)), permutation=(1, 0)
        ),
        [],
    ),
    "broadcast_of_broadcast": (
        lambda b, x, y: b.emit(
            ir.Broadcast,
            b.emit(ir.Broadcast, x, shape=(2, N, 4), dims=(1, 2)),
            shape=(2, 3, N, 4),
            dims=(0, 2, 3),
        ),
        ["broadcast"],
    ),
    "single_concat": (lambda b, x, y: b.emit(ir.Concat, x, axis=0), []),
    "elementwise_of_broadcasts": (
        lambda b, x, y: b.emit(
            ir.Add,
            b.emit(ir.Broadcast, b.emit(ir.Exp, x), shape=(2, N, 4), dims=(1, 2)),
            b.constant(1.0, F32, (2, N, 4)),
        ),
        ["exp", "constant", "add", "broadcast"],
    ),
    "fold_elementwise": (
        lambda b, x, y: b.emit(ir.Mul, x, b.emit(ir.Exp, number(b, 1))),
        ["constant", "mul"],
    ),
    "fold_view": (
        lambda b, x, y: b.emit(
            ir.Mul, x, b.emit(ir.Broadcast, b.constant(2, F32), shape=SHAPE, dims=())
        ),
        ["constant", "mul"],
    ),
}


@pytest.mark.parametrize("law", LAWS)
def test_law(law: str) -> None:
    build, expected = LAWS[law]
    module = function(build, tensor(*SHAPE), tensor(*SHAPE))
    before = fired[law]
    assert names(after(module, Canonicalize())) == expected
    assert fired[law] > before


def test_every_law_has_a_test() -> None:
    tested = set(LAWS) | {"fold_array", "uniform_array"}
    assert {pattern.name for pattern in (*RULES, *FOLDING)} == tested


def test_arrays_are_folded() -> None:
    def body(b: B) -> V:
        array = b.emit(ir.Constant, value=ir.DenseArray(_iota(6)), type=ir.TensorType(F32, (2, 3)))
        return b.emit(ir.Transpose, array, permutation=(1, 0))

    assert names(after(function(body), Fold())) == ["constant"]


def _iota(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.float32).reshape(2, -1)


def array_of(b: B, *numbers: float, dtype: ir.DType = F32) -> V:
    array = np.array(numbers, dtype.numpy)
    return b.emit(ir.Constant, value=ir.DenseArray(array), type=tensor(len(numbers), dtype=dtype))


def test_arrays_of_one_number_are_numbers() -> None:
    module = after(function(lambda b: b.emit(ir.Neg, array_of(b, 2, 2, 2))), Fold())
    assert module["f"].block.operations[0].attributes["value"] == -2.0
    different = after(function(lambda b: array_of(b, 0.0, -0.0)), Fold())
    assert isinstance(different["f"].block.operations[0].attributes["value"], ir.DenseArray)


def test_an_index_outside_is_left_to_the_run() -> None:
    def body(b: B) -> V:
        index = array_of(b, 7, 1, dtype=ir.DType.I32)
        return b.emit(ir.Gather, array_of(b, 1, 2, 3), index, axes=(0,))

    module = Fold().run(function(body))
    assert "gather" in names(module)
    with pytest.raises(IndexError, match="index 7 into an axis of size 3"):
        ir.evaluate(module, "f", [])


def test_large_contractions_of_constants_are_left_to_the_run() -> None:
    def body(b: B) -> V:
        big = b.constant(1.5, F32, (4096,))
        maps = [ir.projection([d], 3) for d in range(3)]
        return ir.contract(b, [big] * 3, maps, (4096,) * 3, 0)

    assert "contract" in names(Fold().run(function(body)))


def test_infinities_and_nan_are_kept() -> None:
    def body(b: B, x: V) -> V:
        return b.emit(ir.Mul, x, b.constant(0.0, F32, (4,)))

    assert names(after(function(body, tensor(4)), Canonicalize())) == ["constant", "mul"]


def test_powers_that_are_no_numbers_are_kept() -> None:
    def body(b: B, x: V) -> list[V]:
        return [b.emit(ir.Pow, x, b.like(p, x)) for p in (math.inf, -math.inf, math.nan, 1e300)]

    changed = after(function(body, tensor(4)), Canonicalize())
    assert names(changed).count("pow") == 4


def test_division_by_what_has_no_exact_inverse_is_kept() -> None:
    def body(b: B, x: V) -> V:
        return b.emit(ir.Div, x, b.like(2.0**20, x))

    half = tensor(4, dtype=ir.DType.F16)
    assert names(after(function(body, half), Canonicalize())) == ["constant", "div"]
    assert names(after(function(body, tensor(4)), Canonicalize())) == ["constant", "mul"]


def test_a_reciprocal_with_several_uses_is_computed_once() -> None:
    def body(b: B, x: V, y: V) -> list[V]:
        inverse = b.emit(ir.Div, b.like(1, y), y)
        return [b.emit(ir.Mul, x, inverse), b.emit(ir.Mul, b.emit(ir.Exp, x), inverse)]

    changed = after(function(body, tensor(4), tensor(4)), Canonicalize())
    assert names(changed).count("div") == 1
