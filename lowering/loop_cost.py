"""What a kernel costs, to an order of magnitude: arithmetic, and bytes read and written.

Loops of unknown extent are counted for given sizes.  Bytes are those of the elements that loads and
stores of argument buffers name, each buffer at most once over: what must come from memory at least.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mapsto.ir.dims import dim_value, product
from mapsto.lowering.indices import Atom, Composite, Index, map_atoms
from mapsto.lowering.loop_walk import direct_expressions, subexpressions
from mapsto.lowering.loops import (
    Apply,
    Expression,
    For,
    If,
    Load,
    LoopFunction,
    Reduce,
    Space,
    Statement,
    Store,
)
from mapsto.lowering.scalar_operations import OPERATIONS

__all__ = ["Cost", "loop_cost"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Floating-point (and integer) operations, weighted as in `OPERATIONS`, and bytes."""

    flops: int = 0
    bytes: int = 0

    def __str__(self) -> str:
        return f"{_short(self.flops)}flop, {_short(self.bytes)}B"


def loop_cost(function: LoopFunction, sizes: Mapping[str, int]) -> Cost:
    """The cost of one run of a kernel for these sizes."""
    touched: dict[str, int] = {}
    bindings = {f"${name}": value for name, value in sizes.items()}
    flops = _block_flops(function.body, bindings, 1, touched)
    total = 0
    for buffer in function.buffers:
        whole = dim_value(product(buffer.shape), sizes)
        total += min(touched.get(buffer.name, 0), whole) * buffer.dtype.bytes
    return Cost(flops, total)


def _block_flops(
    body: tuple[Statement, ...], bindings: dict[str, int], times: int, touched: dict[str, int]
) -> int:
    flops = 0
    for statement in body:
        for expression in direct_expressions(statement):
            flops += times * _expression_flops(expression, times, touched)
        if isinstance(statement, Store | Reduce) and statement.buffer.space is Space.ARGUMENT:
            touched[statement.buffer.name] = touched.get(statement.buffer.name, 0) + times
        if isinstance(statement, Reduce):
            flops += times
        elif isinstance(statement, For):
            flops += _loop_flops(statement, bindings, times, touched)
        elif isinstance(statement, If):
            flops += _block_flops(statement.then, bindings, times, touched)
    return flops


def _loop_flops(loop: For, bindings: dict[str, int], times: int, touched: dict[str, int]) -> int:
    start, stop = _index_value(loop.start, bindings), _index_value(loop.stop, bindings)
    trips = max(0, -(-(stop - start) // loop.step))
    inside = {**bindings, loop.variable: start}
    return _block_flops(loop.body, inside, times * trips, touched)


def _index_value(index: Index, bindings: Mapping[str, int]) -> int:
    """The index in the first iteration of the loops around; a value from memory counts as 0."""

    def value(atom: Atom) -> int | None:
        if isinstance(atom, Composite):
            return None
        return bindings.get(atom, 0) if isinstance(atom, str) else 0

    result = map_atoms(index, value)
    return result if isinstance(result, int) else 0


def _expression_flops(expression: Expression, times: int, touched: dict[str, int]) -> int:
    flops = 0
    for part in subexpressions(expression):
        if isinstance(part, Apply):
            flops += OPERATIONS[part.op].flops
        elif isinstance(part, Load) and part.buffer.space is Space.ARGUMENT:
            touched[part.buffer.name] = touched.get(part.buffer.name, 0) + times
    return flops


def _short(number: int) -> str:
    value = float(number)
    for prefix in ("", "K", "M", "G"):
        if value < 1000:
            return f"{value:.3g} {prefix}"
        value /= 1000
    return f"{value:.3g} T"
