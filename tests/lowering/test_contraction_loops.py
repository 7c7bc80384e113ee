"""The packed schedule of contractions: every shape, layout and choice of the schedule agrees with
the loop interpreter and with NumPy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from contraction_harness import (
    Plain,
    arrays,
    conv2d,
    function_of,
    problem,
    product,
    reference,
)
from loop_harness import check, machines, module_text, run_native

from mapsto import ir
from mapsto.ir.ops.contraction import Contract
from mapsto.lowering.contraction_loops import contraction_body
from mapsto.lowering.contraction_plan import Schedule
from mapsto.lowering.contraction_problem import ContractionProblem, analyze
from mapsto.lowering.cpu.contraction_schedule import choose_schedule
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.cpu.tiles import Tile, choose_tile, heights
from mapsto.lowering.indices import Index
from mapsto.lowering.loop_walk import statements
from mapsto.lowering.loops import (
    Buffer,
    Expression,
    For,
    LoopFunction,
    LoopKind,
    Prefetch,
    Statement,
    apply,
    constant,
)
from mapsto.runtime.code_generation import emit_assembly


def function(found: ContractionProblem, schedule: Schedule) -> LoopFunction:
    return function_of(found, contraction_body(found, schedule))


def agree(found: ContractionProblem, schedule: Schedule) -> None:
    given = arrays(found)
    loose = 1e-4 if found.dtype is ir.DType.F32 else 1e-11
    expected = check(function(found, schedule), given, rtol=loose, atol=loose)
    np.testing.assert_allclose(expected["y"], reference(found, given), rtol=loose, atol=loose)


SMALL = Tile(rows=3, vectors=2, lanes=4)
SCHEDULES = [
    Schedule(SMALL, private_rows, block, depth, *packs)
    for private_rows in (True, False)
    for block in (1, 2)
    for depth in (64, 5)
    for packs in ((True, True), (False, True), (True, False), (False, False))
]
SCHEDULES += [replace(schedule, by_rows=True) for schedule in SCHEDULES[:8]]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("layout", ["nn", "tn", "nt", "tt"])
def test_every_schedule_of_a_product(schedule: Schedule, layout: str) -> None:
    found = product(7, 19, 11, layout)
    given = arrays(found)
    loops = function(found, schedule)
    run_native(loops, given, {}, Machine.host())
    np.testing.assert_allclose(given["y"], reference(found, given), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", ["nn", "tn", "nt", "tt"])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (4, 9, 5), (12, 16, 32)])
def test_small_products_at_every_width(sizes: tuple[int, int, int], layout: str) -> None:
    agree(product(*sizes, layout), Schedule(SMALL, True, 2, 6, True, True))


@pytest.mark.parametrize("dtype", [ir.DType.F32, ir.DType.F64])
@pytest.mark.parametrize("machine", machines(), ids=lambda m: f"{m.cpu}-{m.vector_bits}")
@pytest.mark.parametrize("layout", ["nn", "tn", "nt"])
def test_chosen_schedules(machine: Machine, dtype: ir.DType, layout: str) -> None:
    for m, n, k in ((1, 37, 29), (37, 1, 29), (53, 61, 47), (130, 100, 90)):
        found = product(m, n, k, layout, dtype=dtype)
        given = arrays(found)
        run_native(function(found, choose_schedule(found, machine)), given, {}, machine)
        loose = 1e-4 if dtype is ir.DType.F32 else 1e-12
        np.testing.assert_allclose(given["y"], reference(found, given), rtol=loose, atol=loose)


def test_long_reductions_are_blocked() -> None:
    found = product(20, 30, 9000)
    machine = replace(Machine.host(), l2=64 * 1024)
    schedule = choose_schedule(found, machine)
    assert schedule.reduction_block < 9000
    given = arrays(found)
    run_native(function(found, schedule), given, {}, machine)
    np.testing.assert_allclose(given["y"], reference(found, given), rtol=1e-3, atol=1e-3)


def test_rows_of_two_heights_in_blocks_of_a_reduction() -> None:
    """17 rows are tiles of 5 and 4; each tile has its sums between blocks."""
    schedule = Schedule(replace(SMALL, rows=5), False, 1, 16, True, True)
    for rows in (17, 19):
        agree(product(rows, 9, 37), schedule)


def test_columns_that_no_cache_holds_are_fetched_ahead() -> None:
    """Where they stay the same, and there is enough to do while they come."""
    machine = Machine.named("x86-64-v3")
    steady = frozenset({"columns"})
    sizes = [(32, 512, 600), (32, 64, 64), (1, 512, 600)]
    schedules = [choose_schedule(product(*at), machine, steady) for at in sizes]
    assert [schedule.fetched_steps > 0 for schedule in schedules] == [True, False, False]
    assert choose_schedule(product(*sizes[0]), machine).fetched_steps == 0
    body = contraction_body(product(*sizes[0]), schedules[0])
    hints = {s.buffer.name for s in statements(body) if isinstance(s, Prefetch) and not s.writes}
    assert hints == {"packed_columns"}


def test_batched_product() -> None:
    maps = [ir.projection([0, 1, 3], 4), ir.projection([0, 3, 2], 4)]
    found = problem([(5, 7, 6), (5, 6, 9)], maps, (5, 7, 9, 6), 3)
    for private_rows in (True, False):
        agree(found, Schedule(SMALL, private_rows, 2, 4, True, True))


@pytest.mark.parametrize("private_rows", [True, False])
@pytest.mark.parametrize("batches", [1, 2, 5])
def test_tasks_of_whole_batches(batches: int, private_rows: bool) -> None:
    shifted = ir.axis(0, 4).scaled(6) + ir.axis(3, 4)
    maps = [ir.AffineMap(4, (ir.axis(1, 4), shifted)), ir.projection([0, 3, 2], 4)]
    found = problem([(7, 30), (5, 6, 9)], maps, (5, 7, 9, 6), 3)
    for depth, pack in ((4, True), (6, False)):
        agree(found, Schedule(SMALL, private_rows, 2, depth, pack, True, batches=batches))


def test_small_batches_are_tasks_as_a_whole() -> None:
    maps = [ir.projection([0, 1, 3], 4), ir.projection([0, 3, 2], 4)]
    machine = Machine.host()
    found = [problem([(b, n, n), (b, n, n)], maps, (b, n, n, n), 3) for b, n in ((99, 16), (3, 16))]
    assert [choose_schedule(each, machine).batches for each in found] == [8, 0]


def test_rows_and_columns_of_several_dimensions() -> None:
    maps = [ir.projection([0, 1, 4, 5], 6), ir.projection([5, 4, 2, 3], 6)]
    found = problem([(2, 3, 4, 5), (5, 4, 3, 6)], maps, (2, 3, 3, 6, 4, 5), 4)
    agree(found, Schedule(SMALL, True, 2, 64, True, True))


def test_convolution_packs_windows() -> None:
    found = conv2d()
    assert found.row_operand == 1
    schedule = choose_schedule(found, Machine.host())
    assert not schedule.private_rows, "the image is packed by each task, never as a whole"
    agree(found, schedule)
    agree(found, Schedule(SMALL, False, 1, 8, True, True))


def test_columns_are_packed_along_runs_of_memory_in_each_block() -> None:
    """The gradient of a kernel that channels share: neighbouring columns are whole rows apart."""
    window = ir.AffineMap(
        5, (ir.axis(1, 5), ir.axis(2, 5), ir.axis(3, 5) + ir.axis(0, 5), ir.axis(4, 5))
    )
    maps = [window, ir.projection([1, 2, 3, 4], 5)]
    found = problem([(3, 4, 12, 16), (3, 4, 8, 16)], maps, (5, 3, 4, 8, 16), 1)
    for depth in (32, 96):
        schedule = Schedule(Tile(rows=1, vectors=2, lanes=4), True, 1, depth, False, True)
        agree(found, schedule)
        loops = [s for s in statements(contraction_body(found, schedule)) if isinstance(s, For)]
        assert any(loop.variable == "run" for loop in loops)


def test_what_is_not_a_product() -> None:
    x = ir.Block([ir.TensorType(ir.DType.F32, (4, 5))]).arguments[0]
    diagonal = {"rank": 1, "extents": (4, 5), "maps": (ir.projection([0, 1], 2),) * 2}
    assert analyze(Contract([x, x], diagonal), Plain([], [], Buffer("y", ir.DType.F32))) is None
    ordered = {"rank": 2, "extents": (4, 4, 5), "reassociate": False}
    maps = (ir.projection([0, 2], 3), ir.projection([1, 2], 3))
    op = Contract([x, x], {**ordered, "maps": maps})
    assert analyze(op, Plain([], [], Buffer("y", ir.DType.F32))) is None


@pytest.mark.parametrize("machine", machines(), ids=lambda m: f"{m.cpu}-{m.vector_bits}")
def test_tiles_fit_the_registers(machine: Machine) -> None:
    for rows in (1, 5, 32, 1000):
        for columns in (1, 10, 64, 1000):
            tile = choose_tile(machine, 32, rows, columns)
            accumulators = tile.rows * tile.vectors
            kept = tile.vectors if rows > 1 else 0
            assert accumulators + kept + 2 <= machine.vector_registers


def test_heights_cover_the_rows() -> None:
    assert heights(32, 6) == ((2, 6), (4, 5))
    assert heights(600, 6) == ((100, 6),)
    for height in range(1, 13):
        for rows in range(1, 60):
            found = heights(rows, height)
            covered = sum(tiles * each for tiles, each in found)
            assert sum(tiles for tiles, _ in found) == -(-rows // height)
            assert covered == rows or (len(found) == 1 and 0 <= covered - rows < height)


@pytest.mark.parametrize("machine", machines(), ids=lambda m: f"{m.cpu}-{m.vector_bits}")
@pytest.mark.parametrize("sizes", [(96, 96, 64), (96, 8, 64), (1, 512, 64)], ids=str)
def test_accumulators_stay_in_registers(machine: Machine, sizes: tuple[int, int, int]) -> None:
    found = product(*sizes)
    text = module_text(function(found, choose_schedule(found, machine)), machine)
    assembly = emit_assembly(text, machine)
    inner = [line for line in assembly.splitlines() if "vfmadd" in line or "mulps" in line]
    assert inner, "the innermost loop multiplies vectors"
    assert not [line for line in inner if "(%rsp" in line or "(%rbp" in line]


@pytest.mark.parametrize("layout", ["nn", "tn", "nt", "tt"])
def test_packing_moves_vectors(layout: str) -> None:
    machine = Machine.named("x86-64-v3")
    found = product(96, 160, 128, layout)
    schedule = choose_schedule(found, machine)
    assert schedule.pack_rows or schedule.pack_columns
    assembly = emit_assembly(module_text(function(found, schedule), machine), machine)
    scalars = [
        line for line in assembly.splitlines() if re.search(r"v(movss|extractps)\t.*\)$", line)
    ]
    assert not scalars


class Activated(Plain):
    """Results through a function that needs many constants."""

    def store(
        self, indices: Sequence[Index], value: Expression, guard: Expression | None
    ) -> Sequence[Statement]:
        number = partial(constant, dtype=value.type)
        cube = apply("mul", apply("mul", value, value), value)
        inner = apply("mul", number(0.8), apply("fma", number(0.04), cube, value))
        gate = apply("add", number(1.0), apply("tanh", inner))
        half = apply("mul", number(0.5), value)
        return [self.result.store(tuple(indices), apply("mul", half, gate), guard)]


def test_accumulators_stay_in_registers_before_a_long_epilogue() -> None:
    machine = next((m for m in machines() if m.vector_bits == 256 and "x86" in m.triple), None)
    if machine is None:
        pytest.skip("no machine with 16 registers of 256 bits")
    found = product(768, 512, 128)
    assert isinstance(found.access, Plain)
    found = replace(found, access=Activated(**vars(found.access)))
    schedule = replace(choose_schedule(found, machine), tile=Tile(rows=6, vectors=2, lanes=8))
    assembly = emit_assembly(module_text(function(found, schedule), machine), machine)
    count = 2 * schedule.tile.rows * schedule.tile.vectors
    blocks = assembly.split("\n.LBB")
    loops = [block for block in blocks if block.count("vfmadd231ps") == count]
    assert len(loops) == 1
    assert "rsp" not in loops[0].split("\tj")[0]


def test_small_products_stay_on_one_thread() -> None:
    machine = Machine.host()
    assert not choose_schedule(product(16, 16, 16), machine).parallel
    assert choose_schedule(product(256, 256, 256), machine).parallel
    found = product(9, 17, 12)
    agree(found, choose_schedule(found, machine))


def test_the_number_of_tasks_depends_on_sizes_alone() -> None:
    found = product(300, 300, 300)
    machine = Machine.host()
    one, many = (choose_schedule(found, replace(machine, cores=c)) for c in (1, 64))
    assert one == many
    loops = [s for s in contraction_body(found, one) if isinstance(s, For)]
    assert all(loop.kind is LoopKind.PARALLEL and isinstance(loop.stop, int) for loop in loops)
