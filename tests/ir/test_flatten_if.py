"""Which branches become selections."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from rule_checks import F32, N, after, function, names, tensor

from mapsto import ir
from mapsto.ir.passes.flatten_if import FlattenIf

B, V = ir.Builder, ir.Value
TRUTH, COUNT = tensor(dtype=ir.DType.BOOL), tensor(dtype=ir.DType.I32)
Branch = Callable[[B, V], V]


def chosen(first: Branch, second: Branch, type_: ir.TensorType) -> ir.Module:
    def body(b: B, c: V, x: V) -> Sequence[V]:
        return ir.branch(b, c, lambda i: [first(i, x)], lambda i: [second(i, x)])

    return function(body, TRUTH, type_)


def keep(_: B, x: V) -> V:
    return x


def negated(b: B, x: V) -> V:
    return b.emit(ir.Neg, x)


def exponential(b: B, x: V) -> V:
    return b.emit(ir.Exp, x)


def chain(count: int) -> Branch:
    def body(b: B, x: V) -> V:
        for _ in range(count):
            x = b.emit(ir.Neg, x)
        return x

    return body


def summed(b: B, x: V) -> V:
    total = ir.reduce_axes(b, "sum", x, (0,))
    return b.emit(ir.Broadcast, total, shape=x.shape, dims=())


def gathered(b: B, x: V) -> V:
    return b.emit(
        ir.Gather, x, b.emit(ir.Iota, axis=0, type=tensor(4, dtype=ir.DType.I32)), axes=(0,)
    )


def looped(b: B, x: V) -> V:
    return ir.scan(b, lambda i, c, _: ([i.emit(ir.Neg, *c)], []), [x], extent=3)[0][0]


@pytest.mark.parametrize(
    ("first", "type_", "expected"),
    [
        (negated, tensor(), ["neg", "select"]),
        (negated, tensor(1000), ["neg", "broadcast", "select"]),
        (negated, tensor(N, 7), ["neg", "broadcast", "select"]),
        (chain(4), tensor(N), ["neg"] * 4 + ["broadcast", "select"]),
        (exponential, tensor(4), ["exp", "broadcast", "select"]),
        (exponential, tensor(N), ["if"]),
        (chain(6), tensor(1000), ["if"]),
        (summed, tensor(4), ["if"]),
        (gathered, tensor(4), ["if"]),
        (looped, tensor(4), ["if"]),
    ],
)
def test_cheap_branches(first: Branch, type_: ir.TensorType, expected: list[str]) -> None:
    for branches in ((first, keep), (keep, first)):
        assert names(after(chosen(*branches, type_), FlattenIf())) == expected


def test_branches_in_branches_and_loops() -> None:
    def body(b: B, c: V, d: V, xs: V) -> Sequence[V]:
        def step(i: B, carried: Sequence[V], slices: Sequence[V]) -> tuple[list[V], list[V]]:
            def first(j: B) -> Sequence[V]:
                return ir.branch(j, d, lambda k: [k.emit(ir.Neg, *slices)], lambda _: carried)

            return list(ir.branch(i, c, first, lambda _: slices)), []

        return ir.scan(b, step, [b.constant(0, F32)], [xs])[0]

    module = after(function(body, TRUTH, TRUTH, tensor(N)), FlattenIf())
    found = [op.name for op in module["f"].operations()]
    assert "if" not in found and found.count("select") == 2
