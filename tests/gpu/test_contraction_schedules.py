"""Contractions on a GPU: the loops of every schedule, run by the interpreter, agree with NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from contraction_harness import (
    arrays,
    conv2d,
    function_of,
    problem,
    product,
    reference,
    rounded_to_tf32,
)

from mapsto import ir
from mapsto.lowering.contraction_problem import ContractionProblem
from mapsto.lowering.gpu.contraction_blocks import contraction_body
from mapsto.lowering.gpu.contraction_schedule import choose_schedule, schedule_with
from mapsto.lowering.gpu.contraction_tiles import (
    BlockTile,
    Side,
    Sizes,
    choose_tile,
    resident_blocks,
)
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.indices import Index, evaluate_index, flat_offset
from mapsto.lowering.loop_interpreter import LoopError, interpret
from mapsto.lowering.loop_verifier import verify_loops
from mapsto.lowering.loop_walk import expressions, statements
from mapsto.lowering.loops import (
    AsyncCopy,
    Barrier,
    Buffer,
    For,
    Load,
    LoadMatrix,
    LoopFunction,
    LoopKind,
    Space,
    Statement,
    WaitCopies,
)

PLAIN, AMPERE = GpuTarget.named("gpusim"), GpuTarget.named("nvptx64-sm_80")
TURING, ROUNDING = GpuTarget.named("nvptx64-sm_75"), AMPERE.with_tf32()
SLOW = pytest.mark.slow
TARGETS = pytest.mark.parametrize("target", [PLAIN, AMPERE], ids=lambda target: target.name)
THREADS = BlockTile(8, 8, 4, 2, 1)
WARPS = BlockTile(16, 16, 16, 16, 16, 2, is_matrix=True)
TOLERANCES = {ir.DType.F32: 1e-5, ir.DType.F16: 4e-3, ir.DType.BF16: 2e-2}


def agree(found: ContractionProblem, target: GpuTarget, tile: BlockTile) -> None:
    loops = function_of(found, contraction_body(found, schedule_with(found, target, tile)))
    verify_loops(loops)
    given = arrays(found)
    interpret(loops, given, {})
    factors = rounded_to_tf32(given) if target.rounds_to_tf32 else given
    expected = reference(found, factors).astype(np.float32)
    loose = TOLERANCES[found.dtype]
    np.testing.assert_allclose(given["y"].astype(np.float32), expected, rtol=loose, atol=loose)


@TARGETS
@pytest.mark.parametrize("layout", ["nn", "tn", "nt", "tt"])
def test_layouts_and_tails(target: GpuTarget, layout: str) -> None:
    agree(product(9, 7, 5, layout), target, THREADS)


@TARGETS
def test_whole_tiles_in_wide_accesses(target: GpuTarget) -> None:
    found = product(16, 8, 8, "tn")
    tile = BlockTile(16, 8, 4, 4, 1)
    schedule = schedule_with(found, target, tile)
    assert (schedule.rows.chunk, schedule.columns.chunk) == (4, 4)
    agree(found, target, tile)


@TARGETS
@pytest.mark.parametrize(
    "tile", [replace(THREADS, stages=3), replace(THREADS, splits=2), BlockTile(1, 32, 4, 1, 1)]
)
def test_stages_splits_and_flat_tiles(target: GpuTarget, tile: BlockTile) -> None:
    agree(product(3, 5, 19), target, tile)


@pytest.mark.parametrize(
    ("layout", "dtype"),
    [
        ("nn", ir.DType.F16),
        ("tt", ir.DType.BF16),
        pytest.param("tt", ir.DType.F16, marks=SLOW),
        pytest.param("nn", ir.DType.BF16, marks=SLOW),
    ],
)
def test_matrix_instructions(layout: str, dtype: ir.DType) -> None:
    agree(product(16, 24, 32, layout, dtype=dtype), AMPERE, WARPS)
    agree(product(5, 17, 19, layout, dtype=dtype), AMPERE, WARPS)


@pytest.mark.parametrize("layout", [pytest.param("nn", marks=SLOW), "tt"])
def test_factors_that_are_rounded(layout: str) -> None:
    agree(product(16, 24, 32, layout), ROUNDING, WARPS)
    agree(product(5, 17, 19, layout), ROUNDING, WARPS)


def test_instructions_with_half_the_depth() -> None:
    agree(product(16, 24, 32, dtype=ir.DType.F16), TURING, WARPS)


def test_batched_products() -> None:
    maps = [ir.projection([0, 1, 3], 4), ir.projection([0, 3, 2], 4)]
    agree(problem([(2, 7, 6), (2, 6, 9)], maps, (2, 7, 9, 6), 3), AMPERE, THREADS)


def test_convolutions_read_their_windows() -> None:
    agree(conv2d(), AMPERE, THREADS)


def test_gradients_by_kernels_read_along_rows_of_the_image() -> None:
    def window(outer: int, inner: int) -> ir.AffineExpr:
        return ir.axis(outer, 7) + ir.axis(inner, 7)

    image = ir.AffineMap(7, (ir.axis(4, 7), ir.axis(1, 7), window(5, 2), window(6, 3)))
    maps = [ir.projection([4, 0, 5, 6], 7), image]
    found = problem([(1, 3, 4, 4), (1, 2, 6, 6)], maps, (3, 2, 3, 3, 1, 4, 4), 4)
    schedule = schedule_with(found, AMPERE, THREADS)
    assert schedule.columns.along_k, "a row has 4 elements of the image, the window 3"
    agree(found, AMPERE, THREADS)


# ---- mistakes are found


def _without(body: tuple[Statement, ...], kind: type[Statement]) -> tuple[Statement, ...]:
    """The statements but for those of a kind that stand in the loop over steps."""
    result: list[Statement] = []
    for statement in body:
        if isinstance(statement, For):
            inner = _without(statement.body, kind)
            statement = replace(statement, body=inner)
        if not isinstance(statement, kind):
            result.append(statement)
    return tuple(result)


@pytest.mark.parametrize("kind", [Barrier, WaitCopies])
def test_the_interpreter_finds_what_is_missing(kind: type[Statement]) -> None:
    found = product(8, 8, 8)
    body = contraction_body(found, schedule_with(found, AMPERE, THREADS))
    loops: LoopFunction = function_of(found, _without(body, kind))
    with pytest.raises(LoopError, match=r"by thread|before it is written"):
        interpret(loops, arrays(found), {})


# ---- what makes it fast


_Access = tuple[Buffer, tuple[Index, ...], int]
"""A buffer in shared memory, where in it, and how many bytes each thread reads or writes."""


def _shared_reads(body: tuple[Statement, ...]) -> Iterator[_Access]:
    for statement in statements(body):
        if isinstance(statement, LoadMatrix):
            yield statement.source, statement.source_indices, 16
        if isinstance(statement, For) and statement.kind is LoopKind.VECTOR:
            for load in (e for e in expressions(statement.body) if isinstance(e, Load)):
                if load.buffer.space is Space.SHARED:
                    yield load.buffer, load.indices, statement.lanes * load.buffer.dtype.bytes


def _shared_copies(body: tuple[Statement, ...]) -> Iterator[_Access]:
    for copy in (s for s in statements(body) if isinstance(s, AsyncCopy)):
        yield copy.buffer, copy.indices, copy.count * copy.buffer.dtype.bytes


def _conflicts(buffer: Buffer, indices: tuple[Index, ...], width: int) -> int:
    """How often the threads that are served at once (a quarter of a warp for 16 bytes) ask for
    different lines of one bank."""
    offset = flat_offset(indices, buffer.shape)
    together = min(32, 128 // width)
    worst = 0
    for first in range(0, 32, together):
        values = {"step": 1, "k": 0, "e": 0, "r": 0, "i": 0, "chunk": 1}
        lines = {
            evaluate_index(offset, {**values, "thread": lane}) * buffer.dtype.bytes // width
            for lane in range(first, first + together)
        }
        banks = [line % together for line in lines]
        worst = max(worst, max(banks.count(bank) for bank in banks))
    return worst


@pytest.mark.parametrize("dtype", [ir.DType.F32, ir.DType.BF16], ids=str)
@pytest.mark.parametrize("layout", ["nn", "tn", "nt", "tt"])
def test_threads_use_different_banks(layout: str, dtype: ir.DType) -> None:
    found = product(512, 512, 512, layout, dtype=dtype)
    body = contraction_body(found, choose_schedule(found, AMPERE))
    reads, copies = list(_shared_reads(body)), list(_shared_copies(body))
    assert [_conflicts(*read) for read in reads] == [1] * len(reads)
    assert reads and copies
    assert max(_conflicts(*copy) for copy in copies) <= 2, "copies are few"


def sizes_of(rows: int, columns: int, depth: int, element_bytes: int = 4, batch: int = 1) -> Sizes:
    """Sizes of a product of which everything can be copied in wide accesses."""
    side = Side(16 // element_bytes)
    return Sizes(batch, rows, columns, depth, element_bytes, side, side)


def test_large_products_have_large_tiles() -> None:
    tile = choose_tile(AMPERE, sizes_of(4096, 4096, 4096), False, True)
    assert (tile.part_rows, tile.part_columns) == (8, 8)
    assert tile.rows * tile.columns >= 64 * 128
    assert tile.splits == 1
    matrix = choose_tile(AMPERE, sizes_of(4096, 4096, 4096, 2), True, True)
    assert matrix.rows * matrix.columns >= 128 * 128


def test_long_reductions_of_few_results_are_split() -> None:
    sizes = sizes_of(64, 64, 100_000)
    assert choose_tile(AMPERE, sizes, False, True).splits > 1
    assert choose_tile(AMPERE, sizes, False, False).splits == 1


@pytest.mark.parametrize("name", ["nvptx64-sm_80", "nvptx64-sm_90", "spirv64", "gpusim"])
@pytest.mark.parametrize("shape", [(7, 11, 13), (1, 1000, 1000), (2000, 10, 784)])
def test_tiles_fit_every_target(name: str, shape: tuple[int, int, int]) -> None:
    target = GpuTarget.named(name)
    sizes = sizes_of(*shape, batch=3)
    tile = choose_tile(target, sizes, False, True)
    assert resident_blocks(target, sizes, tile) >= 1
    assert tile.threads % target.warp == 0


def test_what_passes_through_registers_has_smaller_tiles() -> None:
    direct = sizes_of(4096, 4096, 4096, 2)
    passing = replace(direct, row_side=Side(1, False), column_side=Side(1, False))
    tiles = [choose_tile(AMPERE, sizes, True, True) for sizes in (direct, passing)]
    large, small = (tile.rows * tile.columns for tile in tiles)
    assert small < large


def test_what_is_not_aligned_is_read_by_elements() -> None:
    odd = schedule_with(product(64, 64, 63), AMPERE, BlockTile(32, 32, 16, 4, 2))
    assert odd.rows.chunk == 1, "a row of 63 elements begins anywhere"
    assert odd.columns.chunk == 4
    assert odd.rows.is_copy and odd.columns.is_copy
