"""What takes the result of a contraction by blocks of columns: gates, in the kernel behind it."""

from __future__ import annotations

import numpy as np
import pytest
from harness import Native, build, check, machines, random_arguments

from mapsto import ir
from mapsto.ir.core import Function, Module
from mapsto.ir.dims import symbol
from mapsto.ir.ops.contraction import contract
from mapsto.ir.ops.control import Kernel
from mapsto.ir.ops.flow import scan
from mapsto.ir.passes.fuse import Fuse
from mapsto.ir.types import DType
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.driver import lower
from mapsto.lowering.loop_walk import statements
from mapsto.lowering.loops import Allocate, For, LoopFunction, LoopKind
from mapsto.lowering.lowered import ApartCall
from mapsto.runtime.threads import set_threads, threads

F16, F32, F64 = DType.F16, DType.F32, DType.F64
n = symbol("n")
AVX2 = Machine.named("x86-64-v3")
"""Whether tasks have blocks of columns together depends on the tile, which is another elsewhere."""


def product(b: ir.Builder, x: ir.Value, w: ir.Value) -> ir.Value:
    maps = [ir.projection((0, 2), 3), ir.projection((2, 1), 3)]
    return contract(b, [x, w], maps, (x.shape[0], w.shape[1], x.shape[1]), 2)


def columns(b: ir.Builder, x: ir.Value, start: int, count: int) -> ir.Value:
    sizes = (x.shape[0], count)
    return b.emit(ir.Slice, x, starts=(0, start), sizes=sizes, steps=(1, 1))


def gated(b: ir.Builder, x: ir.Value, w: ir.Value) -> ir.Value:
    """Half of the columns, each weighted by one of the other half."""
    y, half = product(b, x, w), w.shape[1] // 2
    gate = b.emit(ir.Sigmoid, columns(b, y, half, half))
    return b.emit(ir.Mul, columns(b, y, 0, half), gate)


def cell(b: ir.Builder, h: ir.Value, c: ir.Value, w: ir.Value, given: ir.Value):
    """An LSTM cell: the next h and c, and all gates before they are squashed."""
    gates, size = b.emit(ir.Add, product(b, h, w), given), h.shape[1]
    parts = [columns(b, gates, k * size, size) for k in range(4)]
    kept = b.emit(ir.Mul, b.emit(ir.Sigmoid, parts[1]), c)
    new = b.emit(ir.Mul, b.emit(ir.Sigmoid, parts[0]), b.emit(ir.Tanh, parts[2]))
    c = b.emit(ir.Add, kept, new)
    return [b.emit(ir.Mul, b.emit(ir.Sigmoid, parts[3]), b.emit(ir.Tanh, c)), c, gates]


def recurrent(b: ir.Builder, h: ir.Value, c: ir.Value, w: ir.Value, xs: ir.Value):
    def step(b, carried, slices):
        h, c, gates = cell(b, *carried, w, slices[0])
        return [h, c], [h, gates]

    finals, outputs = scan(b, step, [h, c], [xs])
    return [*finals, *outputs]


def kernel_count(function: Function) -> int:
    fused = Fuse().run(Module.of(function))[function.name]
    return sum(isinstance(op, Kernel) for op in fused.block.operations)


@pytest.mark.parametrize("dtype", [F16, F32, F64])
@pytest.mark.parametrize("rows", [1, 7, n])
def test_a_gated_unit_is_one_kernel(rows, dtype: DType) -> None:
    function = build("gated", [(dtype, (rows, 9)), (dtype, (9, 256))], gated)
    assert kernel_count(function) == 1
    check(function, sizes={"n": 5})


def test_tiles_of_rows_that_tasks_own_have_all_blocks() -> None:
    function = build("gated", [(F32, (300, 9)), (F32, (9, 128))], gated)
    assert kernel_count(function) == 1
    check(function)
    (kernel,) = lower(Module.of(function), "gated", AVX2).kernels
    assert is_together(kernel)


def test_rows_that_tasks_own_are_taken_by_blocks_afterwards() -> None:
    shapes = [(2000, 64), (2000, 64), (64, 256), (2000, 256)]
    function = build("cell", [(F32, shape) for shape in shapes], cell)
    check(function, on=machines()[:1])
    (kernel,) = lower(Module.of(function), "cell", AVX2).kernels
    assert not is_together(kernel)


def test_a_long_reduction_is_summed_up_before() -> None:
    function = build("gated", [(F32, (2, 9000)), (F32, (9000, 128))], gated)
    check(function, on=machines()[:1], tolerance=1e-3)


@pytest.mark.parametrize("rows", [1, 2, 3, n])
def test_a_cell_gives_its_gates_as_well(rows) -> None:
    shapes = [(rows, 64), (rows, 64), (64, 256), (rows, 256)]
    function = build("cell", [(F32, shape) for shape in shapes], cell)
    assert kernel_count(function) == 1
    check(function, sizes={"n": 4})


def test_a_recurrent_network_updates_its_cell_in_place() -> None:
    shapes = [(30, 64), (30, 64), (64, 256), (3, 30, 256)]
    function = build("lstm", [(F32, shape) for shape in shapes], recurrent)
    check(function)
    (loop,) = lower(Module.of(function), "lstm", AVX2).functions["lstm"].calls
    assert isinstance(loop, ApartCall)
    (call,) = loop.bodies[0].kernel_calls
    assert is_together(call.loops)


@pytest.mark.parametrize("rows", [16, 23, 50, 64])
def test_chunks_of_rows(rows: int) -> None:
    function = build("gated", [(F32, (rows, 64)), (F32, (64, 512))], gated)
    check(function)
    (kernel,) = lower(Module.of(function), "gated", AVX2).kernels
    assert is_together(kernel)


@pytest.mark.parametrize("rows", [16, 23, 32])
def test_chunks_of_rows_whose_tiles_have_some_of_the_blocks(rows: int) -> None:
    shapes = [(rows, 64), (rows, 64), (64, 256), (rows, 256)]
    function = build("cell", [(F32, shape) for shape in shapes], cell)
    check(function)
    (kernel,) = lower(Module.of(function), "cell", AVX2).kernels
    assert any(s.variable == "part" for s in statements(kernel.body) if isinstance(s, For))


def test_a_single_row_has_tiles_across_all_blocks() -> None:
    shapes = [(1, 256), (1, 256), (256, 1024), (1, 1024)]
    function = build("cell", [(F32, shape) for shape in shapes], cell)
    check(function)
    (kernel,) = lower(Module.of(function), "cell", AVX2).kernels
    assert is_together(kernel)
    (tasks,) = kernel.body
    assert isinstance(tasks, For)
    assert tasks.kind is LoopKind.PARALLEL


def is_together(kernel: LoopFunction) -> bool:
    """Whether a kernel uses the sums of a task there, and does not write all of them first."""
    written = (s.buffer.name for s in statements(kernel.body) if isinstance(s, Allocate))
    return "product" not in written


def test_the_bits_are_those_of_any_number_of_threads_and_rows() -> None:
    def call(rows: int, known: bool, count: int) -> np.ndarray:
        function = build("gated", [(F32, (rows if known else n, 64)), (F32, (64, 512))], gated)
        arguments = random_arguments(function, sizes={"n": rows})
        set_threads(count)
        return Native(function, machines()[0], threads=True)(arguments)[0]

    before = threads()
    found = {call(40, known, count).tobytes() for known in (True, False) for count in (1, 2, 5)}
    set_threads(before)
    assert len(found) == 1


def test_what_is_no_block_has_a_kernel_of_its_own() -> None:
    def shifted(b: ir.Builder, x: ir.Value, w: ir.Value) -> ir.Value:
        y = product(b, x, w)
        return b.emit(ir.Mul, columns(b, y, 0, 64), b.emit(ir.Tanh, columns(b, y, 32, 64)))

    def swapped(b: ir.Builder, x: ir.Value, w: ir.Value) -> ir.Value:
        y = product(b, x, w)
        left, right = columns(b, y, 0, 64), columns(b, y, 64, 64)
        return b.emit(ir.Tanh, b.emit(ir.Concat, right, left, axis=1))

    def both(b: ir.Builder, x: ir.Value, w: ir.Value):
        y = product(b, x, w)
        return [b.emit(ir.Tanh, columns(b, y, 64, 64)), b.emit(ir.Tanh, columns(b, y, 128, 128))]

    for body, width in ((gated, 96), (shifted, 128), (swapped, 128), (both, 256)):
        function = build("other", [(F32, (3, 9)), (F32, (9, width))], body)
        assert kernel_count(function) == 2
        check(function, on=machines()[:1])
