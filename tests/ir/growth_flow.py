"""Random control flow: loops and branches with random bodies, nested now and then.

Bodies are made of smooth functions with bounded results, so that values stay tame over all steps.
"""

from __future__ import annotations

from collections.abc import Sequence

from growth import Growth, N
from hypothesis import strategies as st

from mapsto import ir
from mapsto.ir.core import Operation, Value
from mapsto.ir.dims import Dim

__all__ = ["FLOW"]

Values = Sequence[Value]
MOST_ELEMENTS = 64


class _Body:
    """Emits random operations on values of one type into a region."""

    def __init__(self, growth: Growth, type_: ir.TensorType) -> None:
        self.growth = growth
        self.type = type_

    def captured(self) -> list[Value]:
        """A few values from outside."""
        found = [self.growth.value(self._fits) for _ in range(self.growth.number(0, 2))]
        return [value for value in found if value is not None]

    def grow(self, build: ir.Builder, pool: Values, depth: int = 1) -> Value:
        """A bounded value computed from those of the pool."""
        growth, values = self.growth, [*pool, build.constant(0.5, self.type.dtype, self.type.shape)]
        for _ in range(growth.number(1, 3)):
            x, y = growth.choose(values), growth.choose(values)
            values.append(self._step(build, x, y, depth))  # type: ignore[arg-type]
        bounded = growth.choose([ir.Tanh, ir.Sin, ir.Sigmoid])
        return build.emit(bounded, values[-1])  # type: ignore[arg-type]

    def _step(self, build: ir.Builder, x: Value, y: Value, depth: int) -> Value:
        kind = self.growth.number(0, 9)
        if kind == 0 and depth:
            return ir.scan(build, lambda i, c, _: ([self.grow(i, [*c, y], 0)], []), [x], extent=2)[
                0
            ][0]
        if kind == 1 and depth:
            truth = condition(self.growth)
            if truth is not None:
                return ir.branch(
                    build,
                    truth,
                    lambda i: [self.grow(i, [x, y], 0)],
                    lambda i: [self.grow(i, [x], 0)],
                )[0]
        if kind <= 3:
            return build.emit(self.growth.choose([ir.Cos, ir.Neg, ir.Tanh]), x)  # type: ignore[arg-type]
        return build.emit(self.growth.choose([ir.Add, ir.Sub, ir.Mul]), x, y)  # type: ignore[arg-type]

    def _fits(self, value: Value) -> bool:
        return value.type == self.type


def _body(growth: Growth) -> tuple[_Body, Value] | tuple[None, None]:
    """A body on the type of a value so far, and that value."""
    x = growth.value(
        lambda v: v.dtype in (ir.DType.F32, ir.DType.F64) and _size(growth, v) <= MOST_ELEMENTS
    )
    return (None, None) if x is None else (_Body(growth, x.type), x)


def _size(growth: Growth, value: Value) -> int:
    return growth.arrays[value].size


def condition(growth: Growth) -> Value | None:
    """A truth value: one so far, or a comparison."""
    truth = growth.value(lambda v: v.type == ir.TensorType(ir.DType.BOOL))
    if truth is not None:
        return truth
    x = growth.value(
        lambda v: v.type.rank == 0 and growth.exact[v] and v.dtype is not ir.DType.BOOL
    )
    if x is None:
        return growth.emit(ir.Constant, value=True, type=ir.TensorType(ir.DType.BOOL))
    # Between the numbers that exact values are, so that none is close to where the truth changes.
    limit = 1 + 2.0**-10 if x.dtype.is_float else 1
    return growth.emit(ir.Gt, x, growth.emit(ir.Constant, value=limit, type=x.type))


def _only(block: ir.Block) -> Operation:
    (op,) = block.operations
    return op


def scan(growth: Growth) -> Value | None:
    body, x = _body(growth)
    if body is None:
        return None
    sequence = growth.value(lambda v: v.dtype is x.dtype and v.shape[1:] == x.shape and v.shape)
    extent: Dim | None = None if sequence is not None else _extent(growth)
    counts = growth.draw(st.booleans())
    zero = growth.emit(ir.Constant, value=0, type=ir.TensorType(ir.DType.I32)) if counts else None
    captured, build = body.captured(), ir.Builder(ir.Block(()))

    def step(inner: ir.Builder, carried: Values, slices: Values) -> tuple[Values, Values]:
        pool = [carried[0], *slices, *captured]
        new = [inner.emit(ir.Add, c, inner.like(1, c)) for c in carried[1:]]
        outputs = [body.grow(inner, pool) for _ in range(growth.number(0, 2))]
        return [body.grow(inner, pool), *new], outputs

    ir.scan(
        build,
        step,
        [x] if zero is None else [x, zero],
        [] if sequence is None else [sequence],
        extent=extent,
        reverse=growth.draw(st.booleans()),
    )
    return growth.add(_only(build.block))


def _extent(growth: Growth) -> Dim:
    named = any(N in value.shape for value in growth.build.block.arguments)
    return N if named and growth.draw(st.booleans()) else growth.number(0, 4)


def while_(growth: Growth) -> Value | None:
    body, x = _body(growth)
    if body is None:
        return None
    start = growth.emit(ir.Constant, value=growth.number(0, 3), type=ir.TensorType(ir.DType.I32))
    assert start is not None
    captured, build = body.captured(), ir.Builder(ir.Block(()))

    def goes_on(inner: ir.Builder, carried: Values) -> Values:
        return [inner.emit(ir.Lt, carried[0], inner.like(3, carried[0]))]

    def step(inner: ir.Builder, carried: Values) -> Values:
        count, state = carried
        new = body.grow(inner, [state, *captured])
        return [inner.emit(ir.Add, count, inner.like(1, count)), new]

    ir.while_loop(build, goes_on, step, [start, x])
    return growth.add(_only(build.block))


def if_(growth: Growth) -> Value | None:
    body, x = _body(growth)
    truth = condition(growth)
    if body is None or truth is None:
        return None
    captured, build = body.captured(), ir.Builder(ir.Block(()))
    results = growth.number(1, 2)

    def side(inner: ir.Builder) -> Values:
        return [
            x if growth.number(0, 4) == 0 else body.grow(inner, [x, *captured])
            for _ in range(results)
        ]

    ir.branch(build, truth, side, side)
    return growth.add(_only(build.block))


FLOW = (scan, while_, if_)
