"""Indices of kernels have 32 bits where all of them fit, and else 64."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from mapped_harness import Mapped, check

from mapsto import ir
from mapsto.ir.affine import AffineExpr, AffineMap
from mapsto.ir.core import Function
from mapsto.ir.dims import Dim
from mapsto.ir.ops.contraction import contract
from mapsto.lowering.gpu.emitter import emit_kernel, new_module
from mapsto.lowering.gpu.short_indices import has_short_indices
from mapsto.lowering.gpu.target import GpuTarget

n = ir.symbol("n")
TARGET = "nvptx64-sm_80"


def turned(*shape: Dim) -> Function:
    """Twice the transpose of a matrix."""
    builder = ir.Builder(ir.Block([ir.TensorType(ir.DType.F32, shape)]))
    (x,) = builder.block.arguments
    result = builder.emit(ir.Transpose, builder.emit(ir.Add, x, x), permutation=(1, 0))
    return ir.finish_function("f", builder, [result])


def taken(*shape: Dim) -> Function:
    """Rows of a matrix by indices of 64 bits, which may be any numbers."""
    types = [ir.TensorType(ir.DType.F32, shape), ir.TensorType(ir.DType.I64, (8,))]
    builder = ir.Builder(ir.Block(types))
    result = builder.emit(ir.Gather, *builder.block.arguments, axes=(0,))
    return ir.finish_function("f", builder, [result])


def apart(distance: int) -> Function:
    """Elements so far from each other, where there are some, else zero."""
    rows = ir.TensorType(ir.DType.F32, (5,))
    builder = ir.Builder(ir.Block([rows]))
    maps = [AffineMap(2, (AffineExpr((distance, 1)),))]
    result = contract(builder, builder.block.arguments, maps, (4096, 3), 1)
    return ir.finish_function("f", builder, [result])


def text(function: Function) -> tuple[str, Sequence[bool]]:
    """The LLVM IR of the kernels, and whether each has short indices."""
    mapped, target = Mapped(function, TARGET), GpuTarget.named(TARGET)
    kernels = [kernel for each in mapped.kernels.values() for kernel in each]
    module = new_module(target)
    for kernel in kernels:
        emit_kernel(module, kernel, target)
    return str(module), [has_short_indices(kernel) for kernel in kernels]


WIDE = r"= (mul|udiv|urem|sdiv|srem|add)( nsw)? i64"


@pytest.mark.parametrize(
    ("function", "short"),
    [
        (turned(100, 70), True),
        (turned(1 << 14, 1 << 14), True),
        (turned(1 << 15, 1 << 15), False),
        (turned(1 << 33, 8), False),
        (turned(n, 70), False),
        (taken(100, 70), False),
        (apart(1 << 10), True),
        (apart(1 << 20), False),
    ],
)
def test_which_are_short(function: Function, short: bool) -> None:
    found, kinds = text(function)
    assert kinds == [short]
    assert bool(re.search(WIDE, found)) != short
    assert "getelementptr" in found and not re.search(r"getelementptr .*, i32 %", found)


def test_results_are_the_same() -> None:
    check(turned(100, 70))
    check(turned(n, 70), sizes={"n": 100})
    check(apart(1 << 20))
