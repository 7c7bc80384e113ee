"""Convolutions as contractions: every size, stride, dilation and padding agrees with the loop
interpreter, which checks every access, and with NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from harness import Native, check, compare, random_arguments
from loop_harness import machines, run_native
from test_contraction_loops import agree, arrays, function, problem, reference

from mapsto import ir
from mapsto.ir.core import Module
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.parser import parse_module
from mapsto.lowering.contraction_access import KernelAccess
from mapsto.lowering.contraction_problem import ContractionProblem, analyze
from mapsto.lowering.cpu.contraction_schedule import choose_orientation, choose_schedule
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.driver import lower
from mapsto.lowering.element_rules import ELEMENT_RULES
from mapsto.lowering.indexed import IndexedEmitter
from mapsto.lowering.loop_verifier import verify_loops
from mapsto.lowering.loop_walk import expressions, statements
from mapsto.lowering.loops import Buffer, For, Load, LoopKind, Store


@dataclass(frozen=True)
class Window:
    """Along one dimension: the sizes of image and kernel, and how they move over each other."""

    size: int
    taps: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1

    @property
    def count(self) -> int:
        return (
            self.size + 2 * self.padding - self.dilation * (self.taps - 1) - 1
        ) // self.stride + 1

    def expr(self, outer: int, inner: int, rank: int) -> ir.AffineExpr:
        moved = ir.axis(outer, rank).scaled(self.stride) + ir.axis(inner, rank).scaled(
            self.dilation
        )
        return moved.shifted(-self.padding)


def convolution(
    images: int,
    outputs: int,
    channels: int,
    windows: Sequence[Window],
    dtype: ir.DType = ir.DType.F32,
) -> ContractionProblem:
    """Result [n, o, p...], image [n, c, size...], kernel [o, c, taps...]."""
    count = len(windows)
    rank = 3 + 2 * count
    places = list(range(2, 2 + count))
    taps = list(range(3 + count, rank))
    pairs = zip(windows, places, taps, strict=True)
    moved = tuple(window.expr(p, t, rank) for window, p, t in pairs)
    image = ir.AffineMap(rank, (ir.axis(0, rank), ir.axis(2 + count, rank), *moved))
    kernel = ir.projection([1, 2 + count, *taps], rank)
    sizes, kernels = [w.size for w in windows], [w.taps for w in windows]
    extents = (images, outputs, *(w.count for w in windows), channels, *kernels)
    shapes = [(images, channels, *sizes), (outputs, channels, *kernels)]
    return problem(shapes, [image, kernel], extents, 2 + count, dtype, direct=False)


def weight_gradient(
    windows: Sequence[Window], images: int = 2, outputs: int = 7
) -> ContractionProblem:
    """Result [o, c, taps...], cotangent [n, o, p...], image [n, c, size...]."""
    count = len(windows)
    rank = 3 + 2 * count
    taps, places = list(range(2, 2 + count)), list(range(3 + count, rank))
    pairs = zip(windows, places, taps, strict=True)
    moved = tuple(window.expr(p, t, rank) for window, p, t in pairs)
    image = ir.AffineMap(rank, (ir.axis(2 + count, rank), ir.axis(1, rank), *moved))
    cotangent = ir.projection([2 + count, 0, *places], rank)
    extents = (outputs, 3, *(w.taps for w in windows), images, *(w.count for w in windows))
    shapes = [
        (images, outputs, *(w.count for w in windows)),
        (images, 3, *(w.size for w in windows)),
    ]
    return problem(shapes, [cotangent, image], extents, 2 + count)


CASES = {
    "same": [Window(9, 3, padding=1), Window(11, 3, padding=1)],
    "valid": [Window(7, 2), Window(18, 3)],
    "stride 2": [Window(9, 3, 2, 1), Window(10, 3, 2, 1)],
    "stride 3 and gaps": [Window(8, 2, 3), Window(19, 2, 3, 1)],
    "dilation": [Window(9, 3, 1, 2, 2), Window(13, 3, 1, 4, 3)],
    "stride and dilation": [Window(9, 2, 2, 1, 2), Window(16, 3, 2, 3, 3)],
    "padding beyond the kernel": [Window(3, 2, padding=4), Window(2, 3, padding=5)],
    "one by one": [Window(5, 1), Window(7, 1)],
    "one by one, stride 2": [Window(5, 1, 2), Window(7, 1, 2)],
    "long rows": [Window(1, 1), Window(37, 5, padding=2)],
    "sequence": [Window(37, 3, 1, 4, 2)],
    "volume": [Window(4, 3, padding=1), Window(3, 2), Window(9, 3, padding=1)],
}


def compiled_agrees(found: ContractionProblem | None, machine: Machine) -> None:
    assert found is not None
    given = arrays(found)
    loops = function(found, choose_schedule(found, machine))
    verify_loops(loops)
    run_native(loops, given, {}, machine)
    np.testing.assert_allclose(given["y"], reference(found, given), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_convolutions(case: str) -> None:
    for images, outputs in ((1, 7), (3, 1)):
        compiled_agrees(convolution(images, outputs, 2, CASES[case]), Machine.host())


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_kernels(case: str) -> None:
    compiled_agrees(weight_gradient(CASES[case]), Machine.host())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("gradient", [False, True])
def test_results_across_vectors(case: str, gradient: bool) -> None:
    first = weight_gradient(CASES[case]) if gradient else convolution(2, 9, 3, CASES[case])
    compiled_agrees(analyze(first.op, first.access, swapped=True), Machine.host())


def test_short_rows_of_an_image_are_not_vectors() -> None:
    machine = Machine.named("x86-64-v3")
    narrow = [Window(4, 3, padding=1), Window(4, 3, padding=1)]
    first = convolution(3, 19, 8, narrow)
    second = analyze(first.op, first.access, swapped=True)
    assert choose_orientation([first, second], machine) is second
    compiled_agrees(second, Machine.host())
    wide = convolution(3, 19, 8, [narrow[0], Window(32, 3, padding=1)])
    other = analyze(wide.op, wide.access, swapped=True)
    assert choose_orientation([wide, other], machine) is wide


def test_what_is_larger_passes_a_cache_once() -> None:
    machine = Machine.named("x86-64-v3")
    narrow = [Window(4, 3, padding=1), Window(4, 3, padding=1)]
    for images, outputs, private_rows in ((1, 256, False), (256, 16, True)):
        first = convolution(images, outputs, 32, narrow)
        second = analyze(first.op, first.access, swapped=True)
        assert second is not None
        schedule = choose_schedule(second, machine)
        assert "rows" in schedule.windows
        assert schedule.private_rows == private_rows


def test_steps_are_laid_out_unless_they_share_elements() -> None:
    """LLVM would keep those of the gradient, whose rows are the window, in registers."""
    machine = Machine.named("x86-64-v3")
    forward = convolution(2, 16, 8, [Window(14, 3, padding=1)] * 2)
    gradient = weight_gradient([Window(14, 2), Window(14, 3, padding=1)], outputs=16)
    for found, laid_out in ((forward, True), (gradient, False)):
        across = analyze(found.op, found.access, swapped=True)
        options = [choose_schedule(p, machine) for p in (found, across) if p is not None]
        assert [s.laid_out for s in options if "rows" in s.windows] == [laid_out]


def test_short_reductions_are_stored_in_vectors() -> None:
    machine = Machine.named("x86-64-v3")
    for channels, across in ((1, False), (32, True)):
        first = convolution(1, 64, channels, [Window(14, 3, padding=1)] * 2)
        second = analyze(first.op, first.access, swapped=True)
        assert choose_orientation([first, second], machine) is (second if across else first)


@pytest.mark.parametrize("case", ["stride and dilation", "sequence"])
def test_every_access_is_inside(case: str) -> None:
    found = convolution(1, 1, 1, CASES[case])
    agree(found, choose_schedule(found, Machine.host()))


@pytest.mark.parametrize("machine", machines(), ids=lambda m: f"{m.cpu}-{m.vector_bits}")
@pytest.mark.parametrize("dtype", [ir.DType.F32, ir.DType.F64])
def test_every_width_and_precision(machine: Machine, dtype: ir.DType) -> None:
    for outputs in (3, 33):
        compiled_agrees(convolution(2, outputs, 5, CASES["same"], dtype), machine)


def test_reductions_in_blocks() -> None:
    found = convolution(1, 4, 3, CASES["stride 2"])
    schedule = choose_schedule(found, Machine.host())
    agree(found, replace(schedule, reduction_block=18))


def test_windows_are_read_without_conditions() -> None:
    found = convolution(2, 64, 8, CASES["stride 2"])
    loops = function(found, choose_schedule(found, Machine.host()))
    loads = [e for e in expressions(loops.body) if isinstance(e, Load)]
    assert {load.buffer.name for load in loads} >= {"window0"}
    assert not [load for load in loads if load.guard is not None]


@pytest.mark.parametrize("size", [5, 12, 14, 15, 28])
def test_ends_of_runs_are_stored_without_masks(size: int) -> None:
    machine = Machine.named("x86-64-v3")
    found = convolution(2, 12, 1, [Window(3, 3, padding=1), Window(size, 3, padding=1)])
    loops = function(found, choose_schedule(found, machine))
    vectors = [
        s for s in statements(loops.body) if isinstance(s, For) and s.kind is LoopKind.VECTOR
    ]
    storing = [
        loop
        for loop in vectors
        if any(isinstance(s, Store) and s.buffer.name == "y" for s in loop.body)
    ]
    assert storing
    assert all((loop.start, loop.stop) == (0, loop.lanes) for loop in storing)
    compiled_agrees(found, machine)


SYMBOLIC = """
func @f(%x: {t}[n, 3, h, w], %k: {t}[5, 3, 3, 3]) -> ({t}[n, 5, h, w]) {{
  %0 = contract %x, %k {{extents = [n, 5, h, w, 3, 3, 3], maps = [{d} -> (d0, d4, {a}*d2 + d5 - 1, \
{a}*d3 + d6 - 1), {d} -> (d1, d4, d5, d6)], rank = 4}} : {t}[n, 5, h, w]
  return %0
}}
"""


@pytest.mark.parametrize(("stride", "dtype"), [(1, "f32"), (2, "f32"), (2, "f16")])
def test_sizes_with_names_may_be_empty(stride: int, dtype: str) -> None:
    dims = "(d0, d1, d2, d3, d4, d5, d6)"
    function = parse_module(SYMBOLIC.format(a=stride, d=dims, t=dtype)).functions["f"]
    native = Native(function, Machine.host())
    for n, h, w in ((0, 5, 6), (3, 0, 4), (2, 4, 0), (1, 1, 1), (2, 7, 19)):
        given = random_arguments(function, sizes={"n": n, "h": h, "w": w})
        compare(native, given, ir.evaluate(Module.of(function), "f", given))


CORRELATION = """
func @f(%x: f64[n + 200], %y: f64[n]) -> (f64[201]) {
  %0 = contract %x, %y {extents = [201, n], maps = [(d0, d1) -> (d0 + d1), (d0, d1) -> (d1)], \
rank = 1} : f64[201]
  return %0
}
"""


def test_correlations_of_signals_of_named_length() -> None:
    """There are no rows: only one of the operands has dimensions of the result."""
    function = parse_module(CORRELATION).functions["f"]
    native = Native(function, Machine.host())
    for n in (0, 1, 300):
        given = random_arguments(function, sizes={"n": n})
        compare(native, given, ir.evaluate(Module.of(function), "f", given))


SPREAD = """
func @f(%x: f32[2, 9, {h}, 14], %k: f32[9, 6, 2, 2]) -> (f32[2, {one}, 6, {h}, 2, 14, 2]) {{
  %0 = contract %x, %k {{extents = [2, {one}, 6, {h}, 2, 14, 2, 9], maps = [\
(d0, d1, d2, d3, d4, d5, d6, d7) -> (d0, d7, d3, d5), \
(d0, d1, d2, d3, d4, d5, d6, d7) -> (d7, d2, d4, d6)], rank = 7}} : \
f32[2, {one}, 6, {h}, 2, 14, 2]
  return %0
}}
"""
"""The transpose of a convolution of 2 x 2 with stride 2."""
ONES = """
func @f(%x: f32[2, 40, 7, 14], %k: f32[40, 24]) -> (f32[2, 24, 7, 1, 14, 1]) {
  %0 = contract %x, %k {extents = [2, 24, 7, 1, 14, 1, 40], maps = [\
(d0, d1, d2, d3, d4, d5, d6) -> (d0, d6, d2, d4), (d0, d1, d2, d3, d4, d5, d6) -> (d6, d1)], \
rank = 6} : f32[2, 24, 7, 1, 14, 1]
  return %0
}
"""
"""The same of one of 1 x 1, without the zeros between."""


def planned(function: ir.Function) -> ContractionProblem | None:
    """The contraction that a function is, the way round that is chosen."""
    op = function.block.operations[0]
    assert isinstance(op, Contract)
    inputs = {v: Buffer(f"x{i}", v.dtype, v.shape) for i, v in enumerate(function.arguments)}
    emitter = IndexedEmitter(function.block, inputs, ELEMENT_RULES, None)
    access = KernelAccess(op, emitter, [], {})
    return choose_orientation([analyze(op, access), analyze(op, access, True)], Machine.host())


@pytest.mark.parametrize("h", [1, 5])
def test_results_that_a_stride_spreads(h: int) -> None:
    """Vectors go along the image: those along the windows would be of two elements each."""
    function = parse_module(SPREAD.format(h=h, one=1)).functions["f"]
    check(function)
    found = planned(function)
    assert found is not None
    assert found.columns.dims[-1] == 5


def test_dimensions_of_one_behind_the_columns() -> None:
    function = parse_module(ONES).functions["f"]
    check(function)
    found = planned(function)
    assert found is not None
    assert found.columns.dims[-1] == 4


BESIDE = """
func @f(%x: f32[3, 8, 7, 7], %k: f32[{outputs}, 8, 3, 3], %b: f32[{outputs}], \
%r: f32[3, {outputs}, 7, 7]) -> (f32[3, {outputs}, 7, 7]) {{
  %0 = contract %x, %k {{extents = [3, {outputs}, 7, 7, 8, 3, 3], \
maps = [{d} -> (d0, d4, d2 + d5 - 1, d3 + d6 - 1), {d} -> (d1, d4, d5, d6)], rank = 4}} \
: f32[3, {outputs}, 7, 7]
  %1 = broadcast %b {{dims = [1]}} : f32[3, {outputs}, 7, 7]
  %2 = mul %0, %1 : f32[3, {outputs}, 7, 7]
  %3 = add %2, %r : f32[3, {outputs}, 7, 7]
  return %3
}}
"""


@pytest.mark.parametrize("outputs", [16, 29])
def test_pixels_are_read_and_stored_together(outputs: int) -> None:
    """Of tiles that are full and lie in one image; what the epilogue reads is read so too."""
    text = BESIDE.format(d="(d0, d1, d2, d3, d4, d5, d6)", outputs=outputs)
    found = parse_module(text).functions["f"]
    check(found, on=machines())
    machine = Machine.named("x86-64-v3")
    (kernel,) = lower(Module.of(found), "f", machine).kernels
    laid_out = [
        s
        for s in statements(kernel.body)
        if isinstance(s, For) and s.kind is LoopKind.UNROLL and "y0" in stored_in(s)
    ]
    assert [(loop.start, loop.stop) for loop in laid_out] == [(0, 6)]


def stored_in(loop: For) -> set[str]:
    return {s.buffer.name for s in loop.body if isinstance(s, Store)}
