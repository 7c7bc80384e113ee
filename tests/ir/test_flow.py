"""Control flow: meaning, shape rules, regions closed over what they use, text form."""

from __future__ import annotations

import re

import numpy as np
import pytest
from rule_checks import N, function, tensor

from mapsto import ir
from mapsto.ir.core import Block, Module, Region
from mapsto.ir.errors import TypeRuleError, VerifyError
from mapsto.ir.parser import parse_module
from mapsto.ir.printer import module_text
from mapsto.ir.verifier import verify

F32, I32, BOOL = ir.DType.F32, ir.DType.I32, ir.DType.BOOL
SCALAR, VECTOR, COUNT, TRUTH = tensor(), tensor(3), tensor(dtype=I32), tensor(dtype=BOOL)


def cumulative(reverse: bool = False):
    """x, xs -> the sum of x and all of xs, and the sums on the way times x."""

    def body(b, x, xs):
        def step(inner, carried, slices):
            total = inner.emit(ir.Add, *carried, *slices)
            return [total], [inner.emit(ir.Mul, total, x)]

        finals, outputs = ir.scan(b, step, [x], [xs], reverse=reverse)
        return [*finals, *outputs]

    return function(body, SCALAR, tensor(N))


def power():
    """x, n -> x to the power n, by repeated squaring."""

    def body(b, x, n):
        zero, one, two = (b.like(i, n) for i in (0, 1, 2))

        def step(inner, carried):
            result, base, left = carried
            is_odd = inner.emit(ir.Eq, inner.emit(ir.Mod, left, two), one)
            grown = inner.emit(ir.Select, is_odd, inner.emit(ir.Mul, result, base), result)
            half = inner.emit(ir.Div, left, two)
            return [grown, inner.emit(ir.Mul, base, base), half]

        def condition(inner, carried):
            return [inner.emit(ir.Gt, carried[2], zero)]

        return ir.while_loop(b, condition, step, [b.like(1, x), x, n])[0]

    return function(body, SCALAR, COUNT)


def choice():
    """c, x, y -> x + y, x where c holds, else x - y, y."""

    def body(b, c, x, y):
        return ir.branch(
            b,
            c,
            lambda inner: [inner.emit(ir.Add, x, y), x],
            lambda inner: [inner.emit(ir.Sub, x, y), y],
        )

    return function(body, TRUTH, VECTOR, VECTOR)


def only(module: Module, name: str) -> ir.Operation:
    (op,) = (op for op in module["f"].operations() if op.name == name)
    return op


# ---- meaning


@pytest.mark.parametrize(
    ("reverse", "totals"), [(False, [11.0, 13.0, 16.0]), (True, [16.0, 15.0, 13.0])]
)
def test_scan(reverse, totals):
    found = ir.evaluate(cumulative(reverse), "f", [np.float32(10), np.float32([1, 2, 3])])
    np.testing.assert_array_equal(found[0], 16)
    np.testing.assert_array_equal(found[1], np.float32(totals) * 10)


def test_scan_without_steps():
    found = ir.evaluate(cumulative(), "f", [np.float32(10), np.zeros(0, np.float32)])
    np.testing.assert_array_equal(found[0], 10)
    assert found[1].shape == (0,) and found[1].dtype == np.float32


def test_scan_over_no_sequence():
    def body(b, x):
        return ir.scan(b, lambda i, c, _: ([i.emit(ir.Add, *c, x)], []), [x], extent=4)[0]

    (found,) = ir.evaluate(function(body, VECTOR), "f", [np.float32([1, 2, 3])])
    np.testing.assert_array_equal(found, [5, 10, 15])


@pytest.mark.parametrize("exponent", [0, 1, 10])
def test_while(exponent):
    (found,) = ir.evaluate(power(), "f", [np.float32(2), np.int32(exponent)])
    assert found == 2**exponent


@pytest.mark.parametrize(("condition", "expected"), [(True, (5, 3)), (False, (1, 2))])
def test_if(condition, expected):
    arrays = [np.full(3, value, np.float32) for value in (3, 2)]
    for found, value in zip(
        ir.evaluate(choice(), "f", [np.bool_(condition), *arrays]), expected, strict=True
    ):
        np.testing.assert_array_equal(found, np.full(3, value))


def test_calls_in_regions_are_evaluated():
    def body(b, x):
        def step(inner, carried, _):
            callee = ir.SymbolReference("double")
            return [inner.emit(ir.Call, *carried, callee=callee, results=(x.type,))], []

        return ir.scan(b, step, [x], extent=3)[0]

    double = function(lambda b, x: b.emit(ir.Add, x, x), SCALAR)["f"]
    module = function(body, SCALAR)
    module = Module({**module.functions, "double": ir.Function("double", double.block)})
    assert ir.evaluate(module, "f", [np.float32(1)]) == (8,)


# ---- closed regions


def test_what_a_body_uses_becomes_a_constant():
    op = only(cumulative(), "scan")
    assert [value.hint for value in op.constants] == ["x0"]
    assert [value.hint for value in op.carried] == ["x0"]
    assert [value.hint for value in op.sequences] == ["x1"]
    assert [value.hint for value in op.body.arguments] == ["x0", "x0", "x1"]


def test_numbers_are_written_again_inside():
    op = only(power(), "while")
    assert not op.constants
    assert [inner.name for inner in op.condition.operations] == ["constant", "gt", "return"]


def test_regions_inside_regions_capture_through_them():
    def body(b, c, x, xs):
        def step(inner, carried, slices):
            def first(deep):
                return [deep.emit(ir.Mul, x, *slices)]

            return ir.branch(inner, c, first, lambda _: carried), []

        return ir.scan(b, step, [x], [xs])[0]

    module = function(body, TRUTH, SCALAR, tensor(N))
    verify(module)
    assert [value.hint for value in only(module, "scan").constants] == ["x0", "x1"]
    (found,) = ir.evaluate(module, "f", [np.True_, np.float32(2), np.float32([3, 4])])
    assert found == 8


def test_an_open_region_is_refused():
    block = Block([VECTOR, TRUTH])
    (x, c), inner = block.arguments, ir.Builder(Block([]))
    regions = [Region(ir.Builder(Block([])).returning(x)), Region(inner.returning(x))]
    build = ir.Builder(block)
    module = Module.of(ir.finish_function("f", build, build.op(ir.If, c, regions=regions).results))
    with pytest.raises(VerifyError, match=r"operand 0, <value 0 : .*is not defined"):
        verify(module)


# ---- text


@pytest.mark.parametrize("make", [cumulative, power, choice])
def test_the_text_form_round_trips(make):
    module = make()
    verify(module)
    text = module_text(module)
    again = parse_module(text)
    verify(again)
    assert module_text(again) == text


def test_the_text_of_a_scan():
    def body(b, _, xs):
        return ir.scan(b, lambda i, c, x: (c, [i.emit(ir.Exp, *x)]), [], [xs])[1]

    assert (
        module_text(function(body, SCALAR, tensor(N)))
        == """\
func @f(%x0: f32[], %x1: f32[n]) -> (f32[n]) {
  %0 = scan %x1 {carried = 0, constants = 0, extent = n} (%x1$1: f32[]) {
    %1 = exp %x1$1 : f32[]
    return %1
  } : f32[n]
  return %0
}
"""
    )


# ---- shape rules


def identity(*types):
    block = Block(types)
    return Region(ir.Builder(block).returning(*block.arguments))


def constant(*types):
    """A region without arguments that returns zeros."""
    build = ir.Builder(Block([]))
    return Region(build.returning(*(build.constant(0, t.dtype, t.shape) for t in types)))


def values(*types):
    return Block(types).arguments


SCAN = {"constants": 0, "carried": 1, "extent": 4}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ir.Scan([], SCAN), "scan has a body, found 0 regions"),
        (
            lambda: ir.Scan(values(VECTOR), {**SCAN, "constants": 1}, [identity()]),
            "scan of 1 operands with constants 1 and carried 1",
        ),
        (
            lambda: ir.Scan(values(VECTOR), {**SCAN, "extent": -1}, [identity(VECTOR)]),
            "scan of -1 steps",
        ),
        (
            lambda: ir.Scan(values(VECTOR, VECTOR), SCAN, [identity(VECTOR, SCALAR)]),
            "scan of 4 steps over sequence 0, f32[3]",
        ),
        (
            lambda: ir.Scan(values(VECTOR, SCALAR), SCAN, [identity(VECTOR)]),
            "scan of 4 steps over sequence 0, f32[]",
        ),
        (
            lambda: ir.Scan(values(VECTOR), SCAN, [identity(SCALAR)]),
            "scan: the body takes (f32[]), not (f32[3])",
        ),
        (
            lambda: ir.Scan(values(VECTOR, tensor(4)), SCAN, [Region(swapped(VECTOR, SCALAR))]),
            "scan: the body carries (f32[]), not (f32[3])",
        ),
        (
            lambda: ir.While(values(VECTOR), {"constants": 0}, [identity(VECTOR)] * 2),
            "while: the condition gives (f32[3]), not (bool[])",
        ),
        (
            lambda: ir.While([], {"constants": 0}, [constant(TRUTH), constant(SCALAR)]),
            "while: the body carries (f32[]), not ()",
        ),
        (
            lambda: ir.While([], {"constants": 0}, [constant(TRUTH)]),
            "while has a condition and a body, found 1 regions",
        ),
        (
            lambda: ir.If(values(VECTOR), {}, [identity()] * 2),
            "if: the condition is f32[3], not bool[]",
        ),
        (lambda: ir.If([], {}, [identity()] * 2), "if: the condition is nothing, not bool[]"),
        (
            lambda: ir.If(values(TRUTH), {}, [constant(VECTOR), constant(SCALAR)]),
            "if: the second branch gives (f32[]), not (f32[3])",
        ),
        (
            lambda: ir.If(values(TRUTH, SCALAR), {}, [constant(), constant()]),
            "if: the first branch takes (), not (f32[])",
        ),
    ],
)
def test_ill_typed(make, message):
    with pytest.raises(TypeRuleError, match=re.escape(message)):
        make()


def swapped(*types):
    block = Block(types)
    return ir.Builder(block).returning(*reversed(block.arguments))


def test_the_number_of_steps_is_a_size_of_an_argument():
    def body(b, x):
        return ir.scan(b, lambda i, c, _: (c, []), [x], extent=ir.symbol("m"))[0]

    with pytest.raises(VerifyError, match="`scan` in @f: the size m is no size of an argument"):
        verify(function(body, tensor(N)))
