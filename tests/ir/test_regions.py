"""Passes inside regions: dead parts of control flow, calls, equal operations, masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from rule_checks import after, function, left, tensor

from mapsto import ir
from mapsto.ir.core import Module, Trait
from mapsto.ir.errors import PassError
from mapsto.ir.kernel_key import block_key
from mapsto.ir.passes.cse import EliminateCommonSubexpressions
from mapsto.ir.passes.dce import EliminateDeadCode
from mapsto.ir.passes.differentiate import Differentiate
from mapsto.ir.passes.inline import Inline
from mapsto.ir.passes.masks import DeriveMasks
from mapsto.ir.verifier import verify

B, V = ir.Builder, ir.Value
Values = Sequence[V]
VECTOR, ROWS = tensor(4), tensor(3, 4)
TRUTH, COUNT = tensor(dtype=ir.DType.BOOL), tensor(dtype=ir.DType.I32)


def only(module: Module, name: str) -> ir.Operation:
    (op,) = (op for op in module["f"].operations() if op.name == name)
    return op


# ---- dead parts


def three_states(b: B, x: V, rows: V) -> tuple[Values, Values]:
    """One state needs another, a third needs none and is needed by none; two outputs."""

    def step(i: B, carried: Values, slices: Values) -> tuple[Values, Values]:
        first, second, third = carried
        new = i.emit(ir.Add, second, *slices)
        return [i.emit(ir.Mul, first, second), new, i.emit(ir.Exp, third)], [
            i.emit(ir.Sin, third),
            i.emit(ir.Cos, new),
        ]

    return ir.scan(b, step, [x, b.emit(ir.Neg, x), b.emit(ir.Abs, x)], [rows])


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ([0], ["neg", "scan", ["add", "mul"]]),
        ([1], ["neg", "scan", ["add"]]),
        ([2], ["abs", "scan", ["exp"]]),
        ([3], ["abs", "scan", ["exp", "sin"]]),
        ([4], ["neg", "scan", ["add", "cos"]]),
        ([1, 3], ["neg", "abs", "scan", ["add", "exp", "sin"]]),
        ([], []),
    ],
)
def test_scan_keeps_what_is_needed(chosen: list[int], expected: list[object]) -> None:
    def body(b: B, x: V, rows: V) -> Values:
        finals, outputs = three_states(b, x, rows)
        results = [*finals, *outputs]
        return [results[number] for number in chosen]

    module = after(function(body, VECTOR, ROWS))
    assert left(module) == expected
    if 3 in chosen and 4 not in chosen and 1 not in chosen:
        assert not only(module, "scan").operands[1:]


def test_while_keeps_what_its_condition_needs() -> None:
    def body(b: B, x: V, limit: V) -> Values:
        def condition(i: B, carried: Values) -> Values:
            return [i.emit(ir.Lt, carried[0], limit)]

        def step(i: B, carried: Values) -> Values:
            count, unused, result = carried
            new = i.emit(ir.Add, count, i.like(1, count))
            return [new, i.emit(ir.Exp, unused), i.emit(ir.Mul, result, x)]

        return ir.while_loop(b, condition, step, [b.like(0, limit), b.emit(ir.Abs, x), x])[2:]

    module = after(function(body, VECTOR, COUNT))
    assert left(module) == ["constant", "while", ["lt"], ["constant", "add", "mul"]]
    assert len(only(module, "while").operands) == 4


def test_if_keeps_what_its_results_need() -> None:
    def body(b: B, c: V, x: V, y: V) -> Values:
        return ir.branch(
            b,
            c,
            lambda i: [i.emit(ir.Exp, x), i.emit(ir.Exp, y)],
            lambda i: [i.emit(ir.Sin, x), i.emit(ir.Mul, x, y)],
        )[:1]

    module = after(function(body, TRUTH, VECTOR, VECTOR))
    assert left(module) == ["if", ["exp"], ["sin"]]
    assert len(only(module, "if").operands) == 2


def test_dead_parts_inside_nested_loops_go() -> None:
    def body(b: B, x: V, rows: V) -> Values:
        def outer(i: B, carried: Values, slices: Values) -> tuple[Values, Values]:
            finals, outputs = three_states(i, carried[0], rows)
            return [i.emit(ir.Add, finals[1], *slices)], [outputs[0]]

        return ir.scan(b, outer, [x], [rows])[0]

    assert left(after(function(body, VECTOR, ROWS))) == [
        "scan",
        ["neg", "scan", ["add"], "add"],
    ]


class Note(ir.Operation):
    """Has an effect and no result."""

    name = "test_note"
    traits = Trait.EFFECT

    def infer(self) -> tuple[ir.TensorType, ...]:
        return ()

    def evaluate(self, *operands: np.ndarray) -> Sequence[np.ndarray]:
        return ()


def test_effects_in_regions_keep_what_they_need() -> None:
    def body(b: B, c: V, x: V, rows: V) -> Values:
        def step(i: B, carried: Values, slices: Values) -> tuple[Values, Values]:
            def noted(j: B) -> Values:
                j.op(Note, *carried)
                return []

            ir.branch(i, c, noted, lambda _: [])
            return [i.emit(ir.Add, *carried, *slices)], [i.emit(ir.Exp, *slices)]

        ir.scan(b, step, [x], [rows])
        return [x]

    module = after(function(body, TRUTH, VECTOR, ROWS))
    assert left(module) == ["scan", ["if", ["test_note"], [], "add"]]


# ---- calls


def calling(callee: str) -> Module:
    def body(b: B, x: V) -> Values:
        def step(i: B, carried: Values, _: Values) -> tuple[Values, Values]:
            reference = ir.SymbolReference(callee)
            return [i.emit(ir.Call, *carried, callee=reference, results=(x.type,))], []

        return ir.scan(b, step, [x], extent=2)[0]

    double = function(lambda b, x: b.emit(ir.Add, x, x), VECTOR)["f"]
    module = function(body, VECTOR)
    return module.with_function(ir.Function("double", double.block, {"private": True}))


def test_calls_in_regions_are_inlined() -> None:
    module = after(calling("double"), Inline())
    assert left(module) == ["scan", ["add"]]
    assert list(module.functions) == ["f"]


def test_a_call_of_itself_in_a_region_is_found() -> None:
    with pytest.raises(PassError, match=r"a function calls itself.*: f -> f"):
        Inline().run(calling("f"))


def test_derivatives_are_taken_in_regions() -> None:
    """A loop of gradient descent on sum(sin(x)): its body asks for a derivative."""
    inner = function(lambda b, x: ir.reduce_axes(b, "sum", b.emit(ir.Sin, x), (0,)), VECTOR)["f"]

    def body(b: B, x: V) -> Values:
        def step(i: B, carried: Values, _: Values) -> tuple[Values, Values]:
            one = i.constant(1, ir.DType.F32)
            request = {"callee": ir.SymbolReference("g"), "wrt": (0,), "outputs": (0,)}
            types = (one.type, VECTOR)
            slope = i.op(ir.Vjp, *carried, one, **request, results=types).results[1]
            return [i.emit(ir.Sub, *carried, slope)], []

        return ir.scan(b, step, [x], extent=3)[0]

    module = function(body, VECTOR).with_function(ir.Function("g", inner.block))
    expanded = EliminateDeadCode().run(Differentiate().run(module))
    verify(expanded)
    x = expected = np.float32([0.1, 0.5, -2, 1])
    for _ in range(3):
        expected = expected - np.cos(expected)
    np.testing.assert_allclose(ir.evaluate(expanded, "f", [x])[0], expected, rtol=1e-5)


# ---- equal operations


def test_equal_operations_in_a_region_are_one() -> None:
    def body(b: B, x: V, rows: V) -> Values:
        def step(i: B, carried: Values, slices: Values) -> tuple[Values, Values]:
            sines = [i.emit(ir.Sin, *slices) for _ in range(2)]
            return [i.emit(ir.Add, *carried, i.emit(ir.Mul, *sines))], []

        return ir.scan(b, step, [x], [rows])[0]

    module = after(function(body, VECTOR, ROWS), EliminateCommonSubexpressions())
    assert left(module) == ["scan", ["sin", "mul", "add"]]


def test_equal_loops_are_one() -> None:
    def body(b: B, x: V, rows: V) -> Values:
        def step(factor: float) -> object:
            def made(i: B, carried: Values, slices: Values) -> tuple[Values, Values]:
                scaled = i.emit(ir.Mul, *slices, i.like(factor, *slices))
                return [i.emit(ir.Add, *carried, scaled)], []

            return made

        sums = [ir.scan(b, step(factor), [x], [rows])[0][0] for factor in (2, 2, 3)]  # type: ignore[arg-type]
        return [b.emit(ir.Add, sums[0], sums[1]), sums[2]]

    module = after(function(body, VECTOR, ROWS), EliminateCommonSubexpressions())
    assert [op.name for op in module["f"].block.operations].count("scan") == 2


def test_keys_of_blocks_tell_regions_apart() -> None:
    def looped(record: type[ir.Operation]) -> ir.Block:
        def body(b: B, x: V) -> Values:
            return ir.scan(b, lambda i, c, _: ([i.emit(record, *c)], []), [x], extent=3)[0]

        return function(body, VECTOR)["f"].block

    assert block_key(looped(ir.Exp)) == block_key(looped(ir.Exp))
    assert block_key(looped(ir.Exp)) != block_key(looped(ir.Sin))


def test_effects_are_not_shared() -> None:
    def body(b: B, c: V, x: V) -> Values:
        def noted(i: B) -> Values:
            i.op(Note, x)
            return []

        for _ in range(2):
            ir.branch(b, c, noted, lambda _: [])
        return [x]

    module = after(function(body, TRUTH, VECTOR), EliminateCommonSubexpressions())
    assert left(module) == ["if", ["test_note"], [], "if", ["test_note"], []]


# ---- masks


def test_masks_are_derived_in_regions() -> None:
    def body(b: B, x: V, rows: V) -> Values:
        def step(i: B, carried: Values, slices: Values) -> tuple[Values, Values]:
            zero = i.like(0, x)
            total = i.emit(ir.Add, *carried, *slices)
            mask = i.emit(ir.Le, total, zero)
            clamped = i.emit(ir.Select, mask, zero, total)
            return [clamped], [i.emit(ir.Select, mask, zero, i.emit(ir.Sin, clamped))]

        finals, outputs = ir.scan(b, step, [x], [rows])
        return [*finals, *outputs]

    module = after(function(body, VECTOR, ROWS), DeriveMasks())
    masks = [op for op in module["f"].operations() if isinstance(op, ir.Le)]
    assert len(masks) == 2
    assert isinstance(masks[1].operands[0].defining_op, ir.Select)
