"""Each rule for control flow on a small function: what is left of it, and equal values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from rule_checks import F32, N, after, function, left, tensor

from mapsto import ir
from mapsto.ir.core import Module, Trait
from mapsto.ir.passes.fold import Fold
from mapsto.ir.passes.loops import LOOP_RULES, Loops
from mapsto.ir.rewriting import fired

B, V = ir.Builder, ir.Value
Values = Sequence[V]
VECTOR, MATRIX, TRUTH = tensor(4), tensor(3, 4), tensor(dtype=ir.DType.BOOL)
COUNT = tensor(dtype=ir.DType.I32)


def accumulate(extent: ir.Dim) -> Callable[..., Values]:
    """Sums rows into x, and gives each sum."""

    def body(b: B, x: V, rows: V) -> Values:
        def step(i: B, carried: Values, slices: Values) -> tuple[Values, Values]:
            total = i.emit(ir.Add, *carried, *slices)
            return [total], [total]

        taken = b.emit(ir.Slice, rows, starts=(0, 0), sizes=(extent, 4), steps=(1, 1))
        finals, outputs = ir.scan(b, step, [x], [taken])
        return [*finals, *outputs]

    return body


def unchanged(b: B, x: V, rows: V) -> Values:
    def step(i: B, carried: Values, slices: Values) -> tuple[Values, Values]:
        return [carried[0], i.emit(ir.Mul, *carried)], []

    return ir.scan(b, step, [x, b.emit(ir.Exp, x)], [rows])[0]


def with_numbers(b: B, x: V, rows: V) -> Values:
    """A loop that reads a number, and a sequence of one number."""
    build = B(ir.Block([VECTOR, VECTOR, VECTOR]))
    two, state, one = build.block.arguments
    new = build.emit(ir.Mul, build.emit(ir.Add, state, one), two)
    regions = [ir.Region(build.returning(new))]
    operands = b.like(2, x), x, b.like(1, rows)
    return b.op(ir.Scan, *operands, regions=regions, constants=1, carried=1, extent=3).results


def reading_twice(b: B, x: V, rows: V) -> Values:
    def step(i: B, carried: Values, slices: Values) -> tuple[Values, Values]:
        return [i.emit(ir.Add, *carried, i.emit(ir.Mul, *slices))], []  # type: ignore[arg-type]

    return ir.scan(b, step, [x], [rows, rows])[0]


def giving_twice(b: B, x: V, rows: V) -> Values:
    def step(i: B, carried: Values, slices: Values) -> tuple[Values, Values]:
        total = i.emit(ir.Add, *carried, *slices)
        return [total], [total, total]

    return ir.scan(b, step, [x], [rows])[1]


def giving_what_is_known(b: B, x: V, rows: V) -> Values:
    def step(i: B, carried: Values, slices: Values) -> tuple[Values, Values]:
        return [], [x, *slices, i.emit(ir.Add, x, *slices)]

    return ir.scan(b, step, [], [rows])[1]


def with_invariant(b: B, x: V, rows: V) -> Values:
    """exp(x) is the same at every step; the row sum is not; a broadcast of it is a view."""

    def step(i: B, carried: Values, slices: Values) -> tuple[Values, Values]:
        scale = i.emit(ir.Exp, x)
        return [i.emit(ir.Mul, *carried, scale)], [i.emit(ir.Add, *slices, scale)]

    finals, outputs = ir.scan(b, step, [x], [rows])
    return [*finals, *outputs]


def never(b: B, x: V) -> Values:
    return ir.while_loop(
        b,
        lambda i, _: [i.constant(False, ir.DType.BOOL)],
        lambda i, c: [i.emit(ir.Exp, *c)],
        [x],
    )


def below(i: B, value: V, limit: V) -> Values:
    return [i.emit(ir.Lt, ir.reduce_axes(i, "sum", value, (0,)), limit)]


def while_with_number(b: B, x: V) -> Values:
    build = [B(ir.Block([tensor(), VECTOR])) for _ in range(2)]
    blocks = []
    for i, part in enumerate(build):
        limit, value = part.block.arguments
        blocks.append(part.returning(*(below(part, value, limit) if not i else grown(part, value))))
    regions = [ir.Region(block) for block in blocks]
    start = b.emit(ir.Abs, x)
    return b.op(ir.While, b.constant(9, F32), start, regions=regions, constants=1).results


def grown(i: B, value: V) -> Values:
    return [i.emit(ir.Add, value, i.like(1, value))]


def while_with_invariants(b: B, x: V) -> Values:
    def condition(i: B, carried: Values) -> Values:
        return below(i, carried[0], ir.reduce_axes(i, "sum", i.emit(ir.Exp, x), (0,)))

    def step(i: B, carried: Values) -> Values:
        return [i.emit(ir.Add, *carried, i.emit(ir.Exp, x))]

    return ir.while_loop(b, condition, step, [b.emit(ir.Neg, x)])


def known_if(b: B, x: V, y: V) -> Values:
    two = b.constant(2, F32)
    holds = b.emit(ir.Gt, two, b.constant(1, F32))
    return ir.branch(b, holds, lambda i: [i.emit(ir.Exp, x)], lambda i: [i.emit(ir.Sin, y)])


def equal_branches(b: B, c: V, x: V) -> Values:
    return ir.branch(b, c, lambda i: [i.emit(ir.Exp, x)], lambda i: [i.emit(ir.Exp, x)])


def if_with_number(b: B, c: V, x: V) -> Values:
    blocks = []
    for op in (ir.Mul, ir.Add):
        build = B(ir.Block([VECTOR, VECTOR]))
        blocks.append(build.returning(build.emit(op, *build.block.arguments)))
    regions = [ir.Region(block) for block in blocks]
    return b.op(ir.If, c, x, b.like(3, x), regions=regions).results


def asking_again(b: B, c: V, x: V) -> Values:
    def first(i: B) -> Values:
        return ir.branch(i, c, lambda j: [j.emit(ir.Exp, x)], lambda j: [j.emit(ir.Sin, x)])

    return ir.branch(b, c, first, lambda i: [i.emit(ir.Cos, x)])


def one_result_known(b: B, c: V, x: V) -> Values:
    return ir.branch(b, c, lambda i: [x, i.emit(ir.Exp, x)], lambda i: [x, i.emit(ir.Sin, x)])


ROWS = (VECTOR, MATRIX)
LAWS: dict[str, tuple[Callable[..., Values], tuple[ir.TensorType, ...], list[object]]] = {
    "scan_without_steps": (accumulate(0), ROWS, ["constant"]),
    "scan_of_one_step": (accumulate(1), ROWS, ["slice", "reshape", "add", "reshape"]),
    "unchanged_carry": (unchanged, ROWS, ["exp", "scan", ["mul"]]),
    "number_in_scan": (with_numbers, ROWS, ["scan", ["constant", "constant", "add", "mul"]]),
    "repeated_operand": (reading_twice, ROWS, ["scan", ["mul", "add"]]),
    "repeated_output": (giving_twice, ROWS, ["scan", ["add"]]),
    "known_output": (giving_what_is_known, ROWS, ["scan", ["add"], "broadcast"]),
    "invariant_in_scan": (with_invariant, ROWS, ["exp", "scan", ["mul", "add"]]),
    "while_without_steps": (never, (VECTOR,), []),
    "number_in_while": (
        while_with_number,
        (VECTOR,),
        ["abs", "while", ["constant", "contract", "lt"], ["constant", "add"]],
    ),
    "invariant_in_while": (
        while_with_invariants,
        (VECTOR,),
        ["neg", "exp", "contract", "exp", "while", ["contract", "lt"], ["add"]],
    ),
    "if_of_constant": (known_if, (VECTOR, VECTOR), ["exp"]),
    "if_of_equal_branches": (equal_branches, (TRUTH, VECTOR), ["exp"]),
    "number_in_if": (
        if_with_number,
        (TRUTH, VECTOR),
        ["if", ["constant", "mul"], ["constant", "add"]],
    ),
    "condition_in_branch": (asking_again, (TRUTH, VECTOR), ["if", ["exp"], ["cos"]]),
    "result_of_both_branches": (one_result_known, (TRUTH, VECTOR), ["if", ["exp"], ["sin"]]),
}


@pytest.mark.parametrize("law", LAWS)
def test_law(law: str) -> None:
    build, types, expected = LAWS[law]
    before = fired[law]
    assert left(after(function(build, *types), Fold(), Loops())) == expected
    assert fired[law] > before


def test_every_law_has_a_test() -> None:
    assert {pattern.name for pattern in LOOP_RULES} == LAWS.keys()


def looked_up(extent: ir.Dim, rows: ir.TensorType) -> Module:
    """A loop that reads a table at an index from outside: the same at every step."""

    def body(b: B, table: V, index: V, xs: V) -> Values:
        def step(i: B, carried: Values, slices: Values) -> tuple[Values, Values]:
            row = i.emit(ir.Gather, table, index, axes=(0,))
            return [], [i.emit(ir.Add, row, *slices)]

        return ir.scan(b, step, [], [xs], extent=extent)[1]

    return function(body, MATRIX, COUNT, rows)


def test_what_may_fail_leaves_only_loops_that_run() -> None:
    assert left(after(looked_up(2, tensor(2, 4)), Loops()))[0] == "gather"
    assert left(Loops().run(looked_up(N, tensor(N, 4))))[0] == "scan"


def test_invariants_leave_all_loops_that_they_can() -> None:
    """Of two nested loops: exp(x) both, exp of what the outer carries the inner alone."""

    def body(b: B, x: V, rows: V) -> Values:
        def outer(i: B, carried: Values, slices: Values) -> tuple[Values, Values]:
            def inner(j: B, deep: Values, _: Values) -> tuple[Values, Values]:
                factor = j.emit(ir.Add, j.emit(ir.Exp, *carried), j.emit(ir.Exp, x))
                return [j.emit(ir.Mul, *deep, factor)], []

            return list(ir.scan(i, inner, list(slices), extent=2)[0]), []

        return ir.scan(b, outer, [x], [rows])[0]

    found = left(after(function(body, *ROWS), Loops()))
    assert found == ["exp", "scan", ["exp", "add", "scan", ["mul"]]]


def test_effects_stay_in_loops() -> None:
    class Shout(ir.Operation):
        """Has an effect and a result."""

        name = "test_shout"
        traits = Trait.EFFECT

        def infer(self) -> tuple[ir.TensorType, ...]:
            return (self.operands[0].type,)

        def evaluate(self, *operands: np.ndarray) -> Sequence[np.ndarray]:
            return operands

    def body(b: B, x: V, rows: V) -> Values:
        def step(i: B, carried: Values, slices: Values) -> tuple[Values, Values]:
            i.emit(Shout, x)
            return [i.emit(ir.Add, *carried, *slices)], []

        ir.scan(b, step, [x], [rows])
        return [x]

    assert left(after(function(body, *ROWS), Loops())) == ["scan", ["test_shout"]]


def test_random_numbers_differ_from_step_to_step_only_by_their_key() -> None:
    """The same key gives the same numbers: they leave the loop like anything else."""

    def body(b: B, key: V, rows: V) -> Values:
        def step(i: B, _: Values, slices: Values) -> tuple[Values, Values]:
            noise = i.emit(ir.Random, key, stream=1, type=VECTOR)
            return [], [i.emit(ir.Add, noise, *slices)]

        return ir.scan(b, step, [], [rows])[1]

    module = function(body, tensor(dtype=ir.DType.I64), MATRIX)
    assert left(after(module, Loops())) == ["random", "scan", ["add"]]
