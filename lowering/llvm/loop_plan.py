"""What the body of a vector loop does, and what follows for its lanes and copies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from mapsto.ir.types import DType
from mapsto.lowering.indices import atoms
from mapsto.lowering.llvm.scalar_lowering import FUNCTIONS, HEAVY
from mapsto.lowering.loop_walk import (
    direct_expressions,
    expressions,
    free_names,
    statements,
    subexpressions,
)
from mapsto.lowering.loops import (
    Allocate,
    Apply,
    Constant,
    Expression,
    For,
    If,
    Load,
    LoopKind,
    Reduce,
    Space,
    Statement,
    Store,
)
from mapsto.lowering.scalar_operations import OPERATIONS

__all__ = ["LoopPlan", "plan_loop", "vector_sums"]

_LAID_OUT_COST = 64
_LAID_OUT_VECTORS = 64
_LIGHT_OPERATIONS = 8
_LAID_OUT = (LoopKind.UNROLL, LoopKind.VECTOR)


@dataclass(frozen=True, slots=True)
class LoopPlan:
    """`widest_bits`: of the values in the loop, which decides the lanes (guards and iotas, which
    are computed in any width, do not count).  `narrowest_bits`: of the buffers it uses.  `copies`:
    how many vectors to interleave.  `is_chain`: whether its values take long chains of
    instructions; `lane_sums`: how many sums each lane makes in a loop, one term after the other.
    `reductions`: names of the registers that it reduces into, with the operation.
    `indexes_registers`: whether its variable indexes registers from outside.  `streamed`: names of
    buffers that it stores to past the caches."""

    widest_bits: int
    narrowest_bits: int
    copies: int
    is_chain: bool
    lane_sums: int
    cost: int
    indexes_registers: bool
    reductions: tuple[tuple[str, str], ...]
    streamed: tuple[str, ...] = ()

    def is_laid_out(self, vectors: int) -> bool:
        """Whether to lay out so many copies of the body instead of a loop."""
        if vectors <= 1 or (self.indexes_registers and vectors <= _LAID_OUT_VECTORS):
            return True
        return vectors * self.cost <= _LAID_OUT_COST


def plan_loop(loop: For) -> LoopPlan:
    """Analyse a vector loop.  Raises ValueError for a reduction that vector accumulators cannot
    hold."""
    reductions = tuple(_reductions(loop).items())
    used = free_names(loop.body).buffers
    registers = {buffer.name for buffer in used if buffer.space is Space.REGISTER}
    return LoopPlan(
        widest_bits=max(_widths(loop)),
        narrowest_bits=min((buffer.dtype.bits for buffer in used), default=64),
        copies=_choose_copies(loop, bool(reductions)),
        is_chain=not FUNCTIONS.isdisjoint(_operations(loop)),
        lane_sums=_lane_sums(loop),
        cost=_cost(loop.body),
        indexes_registers=_indexes_registers(loop, registers),
        reductions=reductions,
        streamed=tuple(_streamed(loop)),
    )


def _streamed(loop: For) -> dict[str, None]:
    stores = (s for s in statements(loop.body) if isinstance(s, Store))
    return {store.buffer.name: None for store in stores if store.streams}


def _widths(loop: For) -> Iterator[int]:
    yield 8
    for expression in expressions(loop.body):
        if isinstance(expression, Load) or (
            isinstance(expression, Apply | Constant) and expression.type is not DType.BOOL
        ):
            yield expression.type.bits
    for statement in statements(loop.body):
        if isinstance(statement, Store | Reduce):
            yield statement.buffer.dtype.bits


def _choose_copies(loop: For, reduces: bool) -> int:
    """Enough vectors to hide the latency of an accumulation."""
    operations = _operations(loop)
    nested = any(isinstance(statement, For) for statement in loop.body)
    if nested or len(operations) > _LIGHT_OPERATIONS or not HEAVY.isdisjoint(operations):
        return 1
    return 4 if reduces else 2


def _lane_sums(loop: For) -> int:
    """How many registers loops in the body add to; 0 where there is much to do between terms."""
    if not HEAVY.isdisjoint(_operations(loop)):
        return 0
    serial = [s for s in statements(loop.body) if isinstance(s, For) and s.kind is LoopKind.SERIAL]
    inside = (s for inner in serial for s in statements(inner.body))
    return len({s.buffer.name for s in inside if isinstance(s, Reduce)})


def _operations(loop: For) -> list[str]:
    return [e.op for e in expressions(loop.body) if isinstance(e, Apply)]


def _cost(body: tuple[Statement, ...]) -> int:
    total = 0
    for statement in body:
        for expression in direct_expressions(statement):
            total += sum(map(_instructions, subexpressions(expression)))
        total += 1
        if isinstance(statement, For):
            extent = statement.stop - statement.start
            repeats = extent if isinstance(extent, int) and statement.kind in _LAID_OUT else 1
            total += repeats * _cost(statement.body)
        elif isinstance(statement, If):
            total += _cost(statement.then) + _cost(statement.otherwise)
    return total


def _instructions(expression: Expression) -> int:
    return OPERATIONS[expression.op].flops if isinstance(expression, Apply) else 1


def _indexes_registers(loop: For, registers: set[str]) -> bool:
    accesses: list[Load | Statement] = [e for e in expressions(loop.body) if isinstance(e, Load)]
    accesses += statements(loop.body)
    return any(
        isinstance(access, Load | Store | Reduce)
        and access.buffer.name in registers
        and any(loop.variable in atoms(index) for index in access.indices)
        for access in accesses
    )


def _reductions(loop: For) -> dict[str, str]:
    inside = {s.buffer.name for s in statements(loop.body) if isinstance(s, Allocate)}
    found: dict[str, str] = {}
    for statement in statements(loop.body):
        if not isinstance(statement, Reduce) or statement.buffer.name in inside:
            continue
        if any(loop.variable in atoms(index) for index in statement.indices):
            continue
        name, space = statement.buffer.name, statement.buffer.space
        if space is not Space.REGISTER or found.setdefault(name, statement.op) != statement.op:
            raise ValueError(
                f"the vector loop over `{loop.variable}` reduces into `{name}`: "
                "the target must be a register buffer, reduced by one operation"
            )
    return found


def vector_sums(loop: For) -> dict[str, list[For]]:
    """The registers that are nowhere used in a loop but where vector loops reduce into them by one
    operation, with those vector loops."""
    vectors = list(_vector_loops(loop.body))
    inside = [s for vector in vectors for s in statements(vector.body)]
    used = _register_uses(loop.body)
    own = {s.buffer.name for s in statements(loop.body) if isinstance(s, Allocate)}
    found: dict[str, list[For]] = {}
    operations: dict[str, set[str]] = {}
    for vector in vectors:
        for name, op in _reductions(vector).items():
            found.setdefault(name, []).append(vector)
            operations.setdefault(name, set()).add(op)
    reduced = Counter(s.buffer.name for s in inside if isinstance(s, Reduce))
    return {
        name: loops
        for name, loops in found.items()
        if name not in own and len(operations[name]) == 1 and used[name] == reduced[name]
    }


def _vector_loops(body: tuple[Statement, ...]) -> Iterator[For]:
    for statement in body:
        match statement:
            case For(kind=LoopKind.VECTOR):
                yield statement
            case For(kind=LoopKind.SERIAL | LoopKind.UNROLL):
                yield from _vector_loops(statement.body)
            case If(_, then, otherwise):
                yield from _vector_loops((*then, *otherwise))


def _register_uses(body: tuple[Statement, ...]) -> Counter[str]:
    """How often each register occurs."""
    accesses: list[Load | Store | Reduce] = [e for e in expressions(body) if isinstance(e, Load)]
    accesses += [s for s in statements(body) if isinstance(s, Store | Reduce)]
    return Counter(a.buffer.name for a in accesses if a.buffer.space is Space.REGISTER)
