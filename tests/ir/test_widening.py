"""A module in double precision: every floating-point type, in regions and constants too."""

from __future__ import annotations

import numpy as np

from mapsto import ir
from mapsto.ir.ops.flow import scan
from mapsto.ir.verifier import verify
from mapsto.ir.widening import in_double_precision

HALF = ir.TensorType(ir.DType.BF16, (3,))


def program() -> ir.Module:
    """Adds a table of bf16 in each of two steps, and casts to f32; counts in i32."""
    build = ir.Builder(ir.Block([HALF]))
    (x,) = build.block.arguments
    numbers = np.array([0.1, 0.2, 0.3], np.float32)
    table = build.emit(
        ir.Constant, value=ir.DenseArray(numbers), type=ir.TensorType(ir.DType.F32, (3,))
    )

    def step(inner: ir.Builder, carried, slices):  # type: ignore[no-untyped-def]
        wide = inner.emit(ir.Add, inner.emit(ir.Cast, carried[0], dtype=ir.DType.F32), table)
        return [inner.emit(ir.Cast, wide, dtype=ir.DType.BF16)], slices

    counted = build.emit(ir.Iota, axis=0, type=ir.TensorType(ir.DType.I32, (2,)))
    (last,), (counts,) = scan(build, step, [x], [counted])
    function = ir.finish_function("f", build, [last, counts])
    return ir.Module.of(function)


def test_types_constants_and_regions() -> None:
    wide = in_double_precision(program())
    verify(wide)
    dtypes = {value.dtype for op in wide["f"].operations() for value in op.results}
    assert dtypes == {ir.DType.F64, ir.DType.I32}
    assert wide["f"].arguments[0].type == ir.TensorType(ir.DType.F64, (3,))


def test_values_are_those_without_rounding() -> None:
    last, counts = ir.evaluate(in_double_precision(program()), "f", [np.zeros(3)])
    np.testing.assert_allclose(last, 2 * np.float32([0.1, 0.2, 0.3]), rtol=1e-15)
    assert counts.tolist() == [0, 1]
