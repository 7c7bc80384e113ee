"""Scatters on GPUs: updates are brought into order, and each element gets its own one by one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from harness import build
from mapped_harness import Mapped, Simulated
from ptx_functions import Interpreted

from mapsto import ir
from mapsto.ir.core import Function, Module
from mapsto.ir.types import DType
from mapsto.lowering.element_rules import INDEX_OUT_OF_RANGE
from mapsto.lowering.gpu.program import lower_gpu
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.gpu.verifier import unproven_races

UPDATES = 70


def scattered(
    record: type[ir.Scatter],
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    batch: tuple[int, ...] = (UPDATES,),
    dtype: DType = DType.F32,
) -> Function:
    """Updates for the axes of a result of this shape."""
    kept = tuple(extent for axis, extent in enumerate(shape) if axis not in axes)
    types = [(dtype, (*batch, *kept)), *((DType.I32, batch) for _ in axes)]
    return build("f", types, lambda b, u, *at: b.emit(record, u, *at, axes=axes, shape=shape))


def arguments(
    function: Function, shape: tuple[int, ...], axes: tuple[int, ...]
) -> list[np.ndarray]:
    """Numbers whose sums depend on their order, and many indices that are the same."""
    rng = np.random.default_rng(0)
    updates, *indices = (value.type for value in function.block.arguments)
    numbers = rng.standard_normal(updates.shape) * 10.0 ** rng.integers(-3, 4, updates.shape)
    places = [
        rng.integers(0, shape[a], t.shape, dtype=np.int32)
        for a, t in zip(axes, indices, strict=True)
    ]
    return [numbers.astype(updates.dtype.numpy), *places]


CASES = [
    (ir.ScatterAdd, (9, 5), (0,), (UPDATES,)),
    (ir.ScatterAdd, (4, 3, 6, 2), (1, 2), (10, 7)),
    (ir.ScatterAdd, (11,), (0,), (UPDATES,)),
    (ir.ScatterMax, (3, 50), (1,), (5, 14)),
    (ir.ScatterMin, (6, 2, 4), (0, 2), (UPDATES,)),
]


@pytest.mark.parametrize(("record", "shape", "axes", "batch"), CASES)
def test_elements_get_their_updates_in_order(
    record: type[ir.Scatter], shape: tuple[int, ...], axes: tuple[int, ...], batch: tuple[int, ...]
) -> None:
    function = scattered(record, shape, axes, batch)
    given = arguments(function, shape, axes)
    (expected,) = ir.evaluate(Module.of(function), "f", given)
    simulated = Simulated(function)
    found = simulated(given)
    assert len(simulated.launches) == 4, "it is cleared, placed, sorted, added up"
    assert isinstance(found, list)
    np.testing.assert_array_equal(found[0].view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("run", [Interpreted, lambda function: Mapped(function, "gpusim")])
def test_no_two_threads_write_one_element(run: Callable[[Function], Mapped]) -> None:
    """The interpreters of PTX and of loops look for that."""
    function = scattered(ir.ScatterAdd, (9, 5), (0,), (40,))
    given = arguments(function, (9, 5), (0,))
    found = run(function)(given)
    assert isinstance(found, list)
    np.testing.assert_array_equal(found[0], ir.evaluate(Module.of(function), "f", given)[0])


def test_work_is_for_many_blocks() -> None:
    function = scattered(ir.ScatterAdd, (10_000, 16), (0,), (2048,))
    program = lower_gpu(Module.of(function), "f", GpuTarget.named("nvptx64-sm_80"))
    clear, place, sort, add = program.launches
    assert place.grid == sort.grid == (16, 1, 1) and place.threads == sort.threads == 128
    assert add.grid == (2048, 1, 1) and clear.grid[0] > 100
    races = [len(unproven_races(kernel)) for kernel in program.launches]
    assert races == [0, 0, 2, 0], "that computed positions differ is not seen"


@pytest.mark.parametrize("bad", [-1, 9, 2**31 - 1])
def test_an_index_out_of_range_is_an_error(bad: int) -> None:
    function = scattered(ir.ScatterAdd, (9, 5), (0,))
    given = arguments(function, (9, 5), (0,))
    given[1][UPDATES // 2] = bad
    assert Simulated(function)(given) == INDEX_OUT_OF_RANGE


@pytest.mark.parametrize("count", [31, 120_000])
def test_few_and_very_many_updates_are_not_sorted(count: int) -> None:
    function = scattered(ir.ScatterAdd, (9, 5), (0,), (count,))
    program = lower_gpu(Module.of(function), "f", GpuTarget.named("nvptx64-sm_80"))
    assert len(program.launches) == 1
