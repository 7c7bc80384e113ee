"""Conditions on positions beside reads: what is left of them, and that values stay."""

from __future__ import annotations

import pytest
from rule_checks import N, after, function, names, tensor

from mapsto import ir
from mapsto.ir.index_values import affine_value
from mapsto.ir.ops.contraction import access, contract
from mapsto.ir.ops.logic import And, Compare, Ge, Gt, Le, Lt, Select
from mapsto.ir.passes.contractions import Contractions
from mapsto.ir.passes.index_conditions import INDEX_RULES
from mapsto.ir.rewriting import fired

PASS = Contractions()
I32 = ir.DType.I32
LENGTH, TAPS = 9, 3


def position(b: ir.Builder, stride: int, offset: int) -> ir.Value:
    """t + stride * r + offset at [t, r]."""
    t = b.emit(ir.Iota, axis=0, type=tensor(LENGTH, TAPS, dtype=I32))
    r = b.emit(ir.Iota, axis=0, type=tensor(TAPS, dtype=I32))
    scaled = b.emit(ir.Mul, r, b.like(stride, r))
    wide = b.emit(ir.Broadcast, scaled, shape=(LENGTH, TAPS), dims=(1,))
    return b.emit(ir.Sub, b.emit(ir.Add, t, wide), b.like(-offset, wide))


def compared(b: ir.Builder, record: type[Compare], left: ir.Value, right: int) -> ir.Value:
    return b.emit(record, left, b.like(right, left))


def windows(b: ir.Builder, x: ir.Value, offset: int, stride: int = 2) -> ir.Value:
    """x[t + stride * r + offset] at [t, r]."""
    rows, columns = ir.axis(0, 2), ir.axis(1, 2).scaled(stride)
    return access(b, x, [(rows + columns).shifted(offset)], (LENGTH, TAPS))


def guarded(b: ir.Builder, x: ir.Value, *conditions: ir.Value, offset: int = -4) -> ir.Value:
    """Windows where all conditions hold, else 0."""
    condition = conditions[0]
    for more in conditions[1:]:
        condition = b.emit(And, condition, more)
    read = windows(b, x, offset)
    return b.emit(Select, condition, read, b.like(0.0, read))


@pytest.mark.parametrize(
    ("record", "bound", "offset"),
    [(Ge, 4, 0), (Gt, 3, 0), (Lt, LENGTH + 4, 0), (Le, LENGTH + 3, 0), (Ge, 0, -4), (Ge, 2, -1)],
)
def test_what_keeps_a_read_inside_is_no_condition(
    record: type[Compare], bound: int, offset: int
) -> None:
    def body(b: ir.Builder, x: ir.Value) -> ir.Value:
        return guarded(b, x, compared(b, record, position(b, 2, offset), bound))

    assert names(after(function(body, tensor(LENGTH)), PASS)) == ["contract"]


@pytest.mark.parametrize(("record", "bound"), [(Ge, 5), (Gt, 4), (Lt, 12), (Le, 11)])
def test_what_hides_elements_stays(record: type[Compare], bound: int) -> None:
    def body(b: ir.Builder, x: ir.Value) -> ir.Value:
        return guarded(b, x, compared(b, record, position(b, 2, 0), bound))

    assert "select" in names(after(function(body, tensor(LENGTH)), PASS))


def test_another_number_than_zero_stays() -> None:
    for other in (1.0, -0.0):

        def body(b: ir.Builder, x: ir.Value, other: float = other) -> ir.Value:
            read = windows(b, x, -4)
            condition = compared(b, Ge, position(b, 2, 0), 4)
            return b.emit(Select, condition, read, b.like(other, read))

        assert "select" in names(after(function(body, tensor(LENGTH)), PASS))


def test_the_rest_of_a_condition_stays() -> None:
    def body(b: ir.Builder, x: ir.Value, kept: ir.Value) -> ir.Value:
        inside = compared(b, Ge, position(b, 2, 0), 4)
        return guarded(b, x, inside, kept, compared(b, Lt, position(b, 2, 0), LENGTH + 4))

    module = after(function(body, tensor(LENGTH), tensor(LENGTH, TAPS, dtype=ir.DType.BOOL)), PASS)
    assert sorted(names(module)) == ["constant", "contract", "select"]


def test_through_broadcasts() -> None:
    def body(b: ir.Builder, x: ir.Value) -> ir.Value:
        condition = compared(b, Ge, position(b, 2, 0), 4)
        shape = (LENGTH, 4, TAPS)
        wide = b.emit(ir.Broadcast, condition, shape=shape, dims=(0, 2))
        place = (ir.axis(0, 3) + ir.axis(2, 3).scaled(2)).shifted(-4)
        read = access(b, x, [ir.axis(1, 3), place], shape)
        return b.emit(Select, wide, read, b.like(0.0, read))

    assert names(after(function(body, tensor(4, LENGTH)), PASS)) == ["contract"]


def test_a_condition_that_holds_wherever_it_is_read() -> None:
    """The derivative of a causal convolution that is written with a condition."""

    def body(b: ir.Builder, w: ir.Value, u: ir.Value) -> ir.Value:
        # sum[o](w[o, r] * u[o, t]) at [t, r], where t + 2 * r >= 4.
        maps = [ir.projection([2, 1], 3), ir.projection([2, 0], 3)]
        product = contract(b, [w, u], maps, (LENGTH, TAPS, 5), 2)
        condition = compared(b, Ge, position(b, 2, 0), 4)
        kept = b.emit(Select, condition, product, b.like(0.0, product))
        place = (ir.axis(0, 2) + ir.axis(1, 2).scaled(-2)).shifted(4)
        map_ = ir.AffineMap(2, (place, ir.axis(1, 2)))
        return contract(b, [kept], [map_], (LENGTH, TAPS), 1)

    module = after(function(body, tensor(5, TAPS), tensor(5, LENGTH)), PASS)
    (op,) = [op for op in module["f"].block.operations if op.name == "contract"]
    assert names(module) == ["contract"] and op.result.shape == (LENGTH,)


def test_windows_of_a_product_that_reads_outside_where_no_factor_does() -> None:
    def body(b: ir.Builder, w: ir.Value, u: ir.Value) -> ir.Value:
        # Here u is read at 2 * t, so what is outside of the product is inside of u.
        maps = [
            ir.projection([2, 1], 3),
            ir.AffineMap(3, (ir.axis(2, 3), ir.axis(0, 3).scaled(2))),
        ]
        product = contract(b, [w, u], maps, (LENGTH, TAPS, 5), 2)
        place = (ir.axis(0, 2) + ir.axis(1, 2).scaled(-2)).shifted(4)
        return contract(b, [product], [ir.AffineMap(2, (place, ir.axis(1, 2)))], (LENGTH, TAPS), 1)

    module = after(function(body, tensor(5, TAPS), tensor(5, 3 * LENGTH)), PASS)
    assert names(module) == ["contract", "contract"]


def test_decided_comparisons() -> None:
    def body(b: ir.Builder, x: ir.Value) -> ir.Value:
        always = compared(b, Gt, position(b, 2, 1), 0)
        never = compared(b, Lt, position(b, 2, 1), 1)
        first = b.emit(Select, always, x, b.like(0.0, x))
        return b.emit(Select, never, b.like(1.0, x), first)

    assert names(after(function(body, tensor(LENGTH, TAPS)), PASS)) == []


def test_numbers_that_wrap_around_are_no_affine_function() -> None:
    b = ir.Builder(ir.Block([], []))
    index = b.emit(ir.Iota, axis=0, type=tensor(200, dtype=ir.DType.I8))
    assert affine_value(index) is None
    fine = b.emit(ir.Iota, axis=0, type=tensor(100, dtype=ir.DType.I8))
    assert affine_value(fine) == ir.axis(0, 1)
    assert affine_value(b.emit(ir.Mul, fine, b.like(2, fine))) is None
    assert affine_value(b.emit(ir.Iota, axis=0, type=tensor(N, dtype=I32))) is None


def test_every_rule_fires() -> None:
    """In tests of this file."""
    before = fired.copy()
    test_decided_comparisons()
    test_through_broadcasts()
    test_a_condition_that_holds_wherever_it_is_read()
    assert not [rule.name for rule in INDEX_RULES if fired[rule.name] == before[rule.name]]
