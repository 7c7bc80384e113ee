"""Long sums of products with few results are divided into parts: which ones, and that they give the
same, on any number of threads and for any number of rows."""

from __future__ import annotations

import numpy as np
import pytest
from harness import Native, build, check, random_arguments

from mapsto import ir
from mapsto.ir.affine import AffineMap, axis
from mapsto.ir.core import Function, Module
from mapsto.ir.evaluator import evaluate
from mapsto.ir.ops.contraction import Contract, contract
from mapsto.ir.passes.split_sums import SplitSums
from mapsto.ir.types import DType
from mapsto.ir.verifier import verify
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.loops import For, LoopKind
from mapsto.runtime.threads import set_threads, threads

F32 = DType.F32
SMALL = SplitSums(length=16, least=3, work=1)
MAPS = {
    "nn": [(0, 2), (2, 1)],
    "nt": [(0, 2), (1, 2)],
    "tn": [(2, 0), (2, 1)],
}


def product(m: int, n: int, k: int | ir.Dim, layout: str = "nn", dtype: DType = F32) -> Function:
    sizes = (m, n, k)
    shapes = [tuple(sizes[d] for d in dims) for dims in MAPS[layout]]
    maps = [ir.projection(dims, 3) for dims in MAPS[layout]]
    arguments = [(dtype, shape) for shape in shapes]
    return build("f", arguments, lambda b, x, y: contract(b, [x, y], maps, sizes, 2))


def weight_gradient(n: int = 3, channels: int = 2, size: int = 12) -> Function:
    """The gradient by the weights of a padded 3 x 3 convolution of a few channels."""
    extents = (4, channels, 3, 3, n, size, size)
    image = [axis(4, 7), axis(1, 7), *(axis(5 + i, 7) + axis(2 + i, 7).shifted(-1) for i in (0, 1))]
    maps = [ir.projection((4, 0, 5, 6), 7), AffineMap(7, tuple(image))]
    arguments = [(F32, (n, 4, size, size)), (F32, (n, channels, size, size))]
    return build("f", arguments, lambda b, d, x: contract(b, [d, x], maps, extents, 4))


def extents(function: Function) -> list[tuple[ir.Dim, ...]]:
    return [op.extents for op in function.operations() if isinstance(op, Contract)]


def agree(function: Function, pass_: SplitSums = SMALL) -> Function:
    divided = pass_.run_on(function)
    verify(Module.of(divided))
    given = random_arguments(function)
    (expected,) = evaluate(Module.of(function), "f", given)
    (found,) = evaluate(Module.of(divided), "f", given)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    return divided


@pytest.mark.parametrize("layout", MAPS)
def test_parts_of_one_length_are_added_up(layout: str) -> None:
    divided = agree(product(5, 7, 96, layout))
    assert extents(divided) == [(5, 6, 7, 16), (5, 7, 6)]


def test_what_is_left_over_is_added_last() -> None:
    assert extents(agree(product(5, 7, 101))) == [(5, 6, 7, 16), (5, 7, 6), (5, 7, 5)]


def test_a_divisor_that_is_near_leaves_nothing_over() -> None:
    assert extents(agree(product(5, 7, 100))) == [(5, 5, 7, 20), (5, 7, 5)]


def test_parts_are_runs_of_memory() -> None:
    sums, total = extents(agree(weight_gradient()))
    assert sums == (4, 3, 12, 2, 3, 3, 1, 1, 12)
    assert total == (4, 2, 3, 3, 3, 12)


@pytest.mark.parametrize(
    "function",
    [
        product(5, 7, 40),
        product(5, 200, 4000),
        product(5, 7, 4000, dtype=DType.F16),
        product(5, 7, ir.symbol("k")),
        build("f", [(F32, (5, 4000))], lambda b, x: ir.reduce_axes(b, "sum", x, [1])),
    ],
    ids=["short", "many results", "half", "unknown", "no product"],
)
def test_others_stay_as_they_are(function: Function) -> None:
    assert extents(SMALL.run_on(function)) == extents(function)


def test_which_sums_are_divided_does_not_depend_on_the_batch() -> None:
    rows = {len(extents(SplitSums().run_on(product(m, 8, 9000)))) for m in (1, 7, 5000)}
    assert rows == {2}


@pytest.mark.parametrize("layout", MAPS)
def test_native_code_gives_what_the_evaluator_does(layout: str) -> None:
    check(product(3, 10, 8209, layout), on=[Machine.host(), Machine.baseline()], tolerance=1e-4)


def results(function: Function, given: list[np.ndarray], count: int) -> bytes:
    before = threads()
    set_threads(count)
    try:
        (found,) = Native(function, Machine.host(), threads=True)(given)
    finally:
        set_threads(before)
    return found.tobytes()


def test_bits_depend_neither_on_threads_nor_on_rows() -> None:
    x, y = random_arguments(product(9, 8, 9000))
    expected = results(product(9, 8, 9000), [x, y], 1)
    assert {results(product(9, 8, 9000), [x, y], count) for count in (2, 5)} == {expected}
    assert results(product(1, 8, 9000), [x[:1], y], 2) == expected[: 8 * 4]


def test_a_part_is_a_task() -> None:
    native = Native(product(8, 8, 1 << 14), Machine.host())
    first = native.compiled.kernels[0]
    (loop,) = first.body
    assert isinstance(loop, For)
    assert (loop.kind, loop.stop) == (LoopKind.PARALLEL, 32)
