"""Programs of bf16 tensors: native code rounds as the reference evaluator does."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from harness import Native, build, machines, random_arguments
from random_programs import ProgramWriter

from mapsto import ir
from mapsto.ir.affine import projection
from mapsto.ir.core import Function, Module, Value
from mapsto.ir.ops.contraction import contract, reduce_axes
from mapsto.ir.passes.fold import Fold
from mapsto.ir.rounding import rounded
from mapsto.ir.substitution import copy_into
from mapsto.ir.types import DType

BF16, F32 = DType.BF16, DType.F32
ULP = 2.0**-7
"""The distance of two neighbouring numbers, at most, by their size."""


def between_casts(function: Function) -> Function:
    """The function on and to f32, which NumPy has."""

    def body(b: ir.Builder, *arguments: Value) -> list[Value]:
        narrow = [b.emit(ir.Cast, argument, dtype=BF16) for argument in arguments]
        values = dict(zip(function.arguments, narrow, strict=True))
        results = copy_into(function.block, b.block, values)
        return [b.emit(ir.Cast, result, dtype=F32) for result in results]

    return build("f", [(F32, argument.shape) for argument in function.arguments], body)


def outputs(
    function: Function, arguments: Sequence[np.ndarray]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Results of native code and of the reference evaluator."""
    expected = ir.evaluate(Module.of(function), "f", arguments)
    found = Native(function, machines()[0])(arguments)
    assert not isinstance(found, int)
    return list(zip(found, expected, strict=True))


@pytest.mark.parametrize("seed", range(16))
def test_random_programs(seed: int) -> None:
    """Results agree within a unit in the last place of what they are computed from."""
    function = between_casts(ProgramWriter(Random(seed), BF16).write())
    for found, expected in outputs(function, random_arguments(function, seed, {"n": 5})):
        assert np.array_equal(found, rounded(found, BF16), equal_nan=True)
        scale = np.abs(expected).max(initial=1.0)
        np.testing.assert_allclose(found, expected, rtol=ULP, atol=ULP * scale)


def test_sums_are_rounded_once() -> None:
    """5000 ones are 4992, the nearest number; rounded at each step they would be 256."""

    def body(b: ir.Builder, x: Value, y: Value) -> list[Value]:
        product = contract(b, [x, y], [projection([0], 1)] * 2, (5000,), 0)
        return [reduce_axes(b, "sum", x, [0]), product]

    function = build("f", [(BF16, (5000,)), (BF16, (5000,))], body)
    arguments = [np.ones(5000, np.float32)] * 2
    for found, expected in outputs(between_casts(function), arguments):
        assert found == expected == 4992


def test_every_result_is_rounded() -> None:
    """x + 2^-9 - x is 0 for x = 1, in a program that is folded as well."""

    def body(b: ir.Builder, x: Value) -> Value:
        return b.emit(ir.Sub, b.emit(ir.Add, x, b.like(2.0**-9, x)), x)

    function = between_casts(build("f", [(BF16, ())], body))
    ((found, expected),) = outputs(function, [np.ones((), np.float32)])
    assert found == expected == 0
    known = build("f", [], lambda b: body(b, b.constant(1.0, BF16)))
    folded = Fold().run(Module.of(known))
    assert ir.evaluate(folded, "f", []) == ir.evaluate(Module.of(known), "f", []) == (0.0,)
