"""Every op of the tensor IR on the simulated device, and assembled for the other targets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from harness import build, random_arguments
from mapped_harness import Simulated, check

from mapsto import ir
from mapsto.ir.core import Function, Module, registered_ops
from mapsto.ir.ops.contraction import reduce_axes
from mapsto.ir.ops.elementwise import Elementwise
from mapsto.ir.types import DType, TensorType
from mapsto.lowering.gpu.program import assemble, lower_gpu
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.gpu.verifier import unproven_races
from mapsto.lowering.whole_kernels import WHOLE_KERNELS

SHAPE = (3, 37)
BUILT_IN = [r for r in registered_ops().values() if r.__module__.startswith("mapsto.ir.ops")]
ELEMENTWISE = [r for r in BUILT_IN if issubclass(r, Elementwise) and r is not ir.Cast]
NUMBERS = (DType.U8, DType.I64, DType.F16, DType.F32)
OTHERS = ("nvptx64-sm_75", "spirv64")


def assembled(function: Function) -> None:
    """Assembles the kernels for the devices that are not here."""
    for name in OTHERS:
        assert assemble(lower_gpu(Module.of(function), function.name, GpuTarget.named(name)))


def elementwise(dtype: DType) -> Function:
    """All elementwise ops, and casts to all types, of tensors of one type.  bf16 is only computed
    with: NumPy has no such arrays."""
    outside = DType.F32 if dtype is DType.BF16 else dtype

    def body(b, mask, *given):
        operands = [b.emit(ir.Cast, x, dtype=dtype) for x in given]
        results = [b.emit(ir.Select, mask, *operands[:2])]
        for record in ELEMENTWISE:
            if record is not ir.Select and dtype in record.accepts:
                results.append(b.emit(record, *operands[: record.arity]))
        results += [b.emit(ir.Cast, operands[0], dtype=other) for other in DType]
        wide = (b.emit(ir.Cast, x, dtype=DType.F32) for x in results if x.dtype is DType.BF16)
        return [*(x for x in results if x.dtype is not DType.BF16), *wide]

    return build("f", [(DType.BOOL, SHAPE), *[(outside, SHAPE)] * 2], body)


@pytest.mark.parametrize("dtype", DType, ids=str)
def test_elementwise(dtype: DType) -> None:
    function = elementwise(dtype)
    arguments = random_arguments(function)
    if arguments[1].dtype.kind == "f":
        arguments[1].flat[:5] = [0, 1, -1, np.nan, np.inf]
    check(function, arguments, tolerance=3e-2 if dtype is DType.BF16 else None)
    assembled(function)


def whole(dtype: DType) -> Function:
    """Reductions along each axis, and the ops that are computed as a whole."""

    def body(b, x, rows, updates):
        kinds = ("sum", "max", "min") if dtype.is_float else ("sum", "prod", "max", "min")
        facts = {"axes": (0,), "shape": (5, 19), "index_rank": 1}
        scatters = (ir.ScatterAdd, ir.ScatterMax, ir.ScatterMin)
        results = [reduce_axes(b, kind, x, axes) for kind in kinds for axes in ([0], [1], [0, 1])]
        results += [b.emit(r, x, axis=a) for r in (ir.ArgMax, ir.ArgMin) for a in (0, 1)]
        results += [b.emit(record, updates, rows, **facts) for record in scatters]
        results += [
            b.emit(ir.ArgSort, x, axis=1, descending=d, count=c)
            for d, c in ((False, 19), (True, 2))
        ]
        results += [
            b.emit(ir.Cumulative, x, kind="sum", axis=a, reverse=r)
            for a, r in ((0, False), (1, True))
        ]
        start = b.emit(ir.Constant, value=1, type=TensorType(DType.I32, ()))
        small = b.emit(ir.Slice, x, starts=(0, 0), sizes=(2, 19), steps=(1, 1))
        results.append(b.emit(ir.DynamicUpdate, x, small, start, axes=(0,)))
        results.append(b.emit(ir.Gather, x, rows, axes=(0,)))
        if dtype.is_float:
            results.append(b.emit(ir.Recurrence, x, x, axis=1, reverse=False))
        return results

    return build("f", [(dtype, (5, 19)), (DType.I32, (7,)), (dtype, (7, 19))], body)


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
def test_reductions_and_whole_ops(dtype: DType) -> None:
    function = whole(dtype)
    arguments = random_arguments(function)
    arguments[1] = np.array([4, 0, 2, 2, 4, 1, 0], np.int32)
    check(function, arguments)
    assembled(function)


def test_whole_ops_are_all_there() -> None:
    used = {type(op) for op in whole(DType.F32).block.operations}
    assert used >= set(WHOLE_KERNELS)


def test_random_numbers() -> None:
    def body(b, key):
        types = [TensorType(dtype, (5, 13)) for dtype in (DType.U32, DType.I64, DType.F32)]
        return [b.emit(ir.Random, key, stream=i << 31, type=t) for i, t in enumerate(types)]

    function = build("f", [(DType.I64, ())], body)
    check(function, [np.array(12345678901234567)])
    assembled(function)


@pytest.mark.parametrize("bad", [5, -1, 2**40])
def test_an_index_out_of_range_is_an_error_code(bad: int) -> None:
    types = [(DType.F32, (5, 19)), (DType.I64, (4,))]
    function = build("f", types, lambda b, table, i: b.emit(ir.Gather, table, i, axes=(0,)))
    simulated = Simulated(function)
    table = np.ones((5, 19), np.float32)
    assert simulated([table, np.array([0, 1, bad, 2])]) == 1
    assert not isinstance(simulated([table, np.array([0, 1, 4, 2])]), int)


@pytest.mark.parametrize("target", ["nvptx64-sm_80", "spirv64"])
@pytest.mark.parametrize("make", [elementwise, whole])
def test_no_kernel_has_a_race_that_is_not_ruled_out(
    make: Callable[[DType], Function], target: str
) -> None:
    program = lower_gpu(Module.of(make(DType.F32)), "f", GpuTarget.named(target))
    assert len(program.launches) > 1 or make is elementwise
    assert [race for kernel in program.launches for race in unproven_races(kernel)] == []
