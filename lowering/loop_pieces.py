"""Loops cut into pieces where conditions on their variable change.

    for j in 0..512 vector:                             for j in 0..256 vector:
      y[j] = (a[j] if j < 256 else 0.0)           =>      y[j] = a[j] + 0.0
           + (b[j - 256] if j >= 256 else 0.0)          for j in 256..512 vector:
                                                          y[j] = 0.0 + b[j - 256]

Elements of a concatenation, and of a sum of padded parts as in the gradient of slices, are chosen
among those of all parts, with a condition for each: of a piece only what is there is left.  A loop
is cut where its pieces together are hardly larger than it is; edges of convolutions, which leave
most of the body as it is in each piece, stay conditions.  A loop that is laid out is never larger
in pieces: it is cut wherever a condition holds for the rest, whatever the variables of the loops
around it are, and the inner taps of a window are read without any.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from mapsto.lowering.index_facts import index_bounds
from mapsto.lowering.indices import linear_parts
from mapsto.lowering.loop_rewrite import Rewriter
from mapsto.lowering.loop_walk import expressions, statements
from mapsto.lowering.loops import (
    FALSE,
    TRUE,
    Apply,
    Expression,
    For,
    If,
    IndexValue,
    Let,
    Load,
    LoopKind,
    Reduce,
    Ref,
    Statement,
    Store,
    constant,
)

__all__ = ["cut_loops"]

MOST_PIECES = 16
SHORTEST_PIECE = 16
"""Iterations of a vector loop, so that what is left over at the end of each piece is little."""

GROWTH = 1.5
"""How much larger the pieces may be together than the loop that they are made from."""

_OPPOSITE = {"lt": "ge", "ge": "lt", "le": "gt", "gt": "le", "eq": "ne", "ne": "eq"}


Ranges = Mapping[str, tuple[int, int]]
"""The least and the greatest value of the variables of loops."""


def cut_loops(body: Iterable[Statement]) -> tuple[Statement, ...]:
    """The statements with their loops cut, inner ones first; they do the same in the same order."""
    return _cut_block(body, {})


def _cut_block(body: Iterable[Statement], around: Ranges) -> tuple[Statement, ...]:
    return tuple(piece for statement in body for piece in _cut(statement, around))


def _cut(statement: Statement, around: Ranges) -> Iterator[Statement]:
    match statement:
        case If(condition, then, otherwise):
            yield If(condition, _cut_block(then, around), _cut_block(otherwise, around))
        case For(variable, start, stop):
            inside = dict(around)
            if isinstance(start, int) and isinstance(stop, int):
                inside[variable] = (start, stop - 1)
            body = _cut_block(statement.body, inside)
            yield from _pieces(replace(statement, body=body), around)
        case _:
            yield statement


def _pieces(loop: For, around: Ranges) -> list[Statement]:
    """The pieces of a loop, or the loop where it is better as it is."""
    start, stop = loop.start, loop.stop
    if not isinstance(start, int) or not isinstance(stop, int) or not _can_be_cut(loop):
        return [loop]
    laid_out = loop.kind is LoopKind.UNROLL
    known = around if laid_out else {}
    inside = {p for p in _places(loop, known) if start < p < stop}
    ends = [start, *sorted(inside), stop]
    shortest = SHORTEST_PIECE if loop.kind is LoopKind.VECTOR else 1
    if not 1 < len(ends) - 1 <= MOST_PIECES or any(b - a < shortest for a, b in pairwise(ends)):
        return [loop]
    bodies = [
        _Known(ranges={**known, loop.variable: (a, b - 1)}).cleaned(loop.body)
        for a, b in pairwise(ends)
    ]
    if not laid_out and sum(map(_size, bodies)) > GROWTH * _size(loop.body):
        return [loop]
    triples = zip(pairwise(ends), bodies, strict=True)
    return [replace(loop, start=a, stop=b, body=body) for (a, b), body in triples if body]


def _can_be_cut(loop: For) -> bool:
    """Whether the iterations of a loop come to the same in several loops: those of a vector loop
    have partial results of reductions in common."""
    if loop.step != 1 or loop.kind not in (LoopKind.SERIAL, LoopKind.VECTOR, LoopKind.UNROLL):
        return False
    in_order = loop.kind is not LoopKind.VECTOR and loop.unroll <= 1
    return in_order or not any(isinstance(s, Reduce) for s in statements(loop.body))


def _size(body: Iterable[Statement]) -> int:
    block = tuple(body)
    return sum(1 for _ in expressions(block)) + sum(1 for _ in statements(block))


def _places(loop: For, around: Ranges) -> Iterator[int]:
    """The values of the loop's variable from which a condition on it is another one, or begins or
    ceases to depend on variables of the loops around it."""
    for expression in expressions(loop.body):
        match expression:
            case Apply(op, (IndexValue(left), IndexValue(right))) if op in _OPPOSITE:
                parts = linear_parts(left - right, loop.variable)
                if parts is None or parts[0] not in (1, -1):
                    continue
                for rest in set(index_bounds(parts[1], around) or ()):
                    yield from _changes(op, int(parts[0]), rest)


def _changes(op: str, slope: int, rest: int) -> Iterator[int]:
    """Where `slope * v + rest OP 0` changes as v grows."""
    zero = -rest * slope
    before_zero = op in ("eq", "ne") or (op in ("lt", "ge")) == (slope == 1)
    if before_zero:
        yield zero
    if op in ("eq", "ne") or not before_zero:
        yield zero + 1


@dataclass(frozen=True, slots=True)
class _Known(Rewriter):
    """Decides what the ranges of variables decide."""

    def cleaned(self, body: Iterable[Statement]) -> tuple[Statement, ...]:
        """The statements, decided, without what is no longer used."""
        block = self.block(body)
        while True:
            used = {e.name for e in expressions(block) if isinstance(e, Ref)}
            smaller = _without_lets(block, used)
            if smaller == block:
                return block
            block = smaller

    def block(self, body: Iterable[Statement]) -> tuple[Statement, ...]:
        return tuple(kept for s in body for kept in _decided_statement(Rewriter.statement(self, s)))

    def expression(self, expression: Expression) -> Expression:
        return _decided(Rewriter.expression(self, expression), self)


def _without_lets(body: Iterable[Statement], used: set[str]) -> tuple[Statement, ...]:
    """The statements without bindings of other names."""
    kept: list[Statement] = []
    for statement in body:
        match statement:
            case Let(name) if name not in used:
                continue
            case For():
                statement = replace(statement, body=_without_lets(statement.body, used))
            case If(condition, then, otherwise):
                branches = _without_lets(then, used), _without_lets(otherwise, used)
                statement = If(condition, *branches)
        kept.append(statement)
    return tuple(kept)


def _decided_statement(statement: Statement) -> Iterable[Statement]:
    match statement:
        case If(condition, then, otherwise) if condition in (TRUE, FALSE):
            return then if condition == TRUE else otherwise
        case Store() | Reduce() if statement.guard in (TRUE, FALSE):
            return [replace(statement, guard=None)] if statement.guard == TRUE else []
    return [statement]


def _decided(expression: Expression, known: _Known) -> Expression:
    """An expression whose parts are decided."""
    match expression:
        case Apply("and" | "or", (left, right)):
            return _decided_logic(expression, left, right)
        case Apply("select", (condition, then, otherwise)) if condition in (TRUE, FALSE):
            return then if condition == TRUE else otherwise
        case Load(guard=guard) if guard in (TRUE, FALSE):
            unguarded = replace(expression, guard=None)
            return unguarded if guard == TRUE else constant(expression.otherwise, expression.type)
        case Apply(op, (IndexValue(left), IndexValue(right))) if op in _OPPOSITE:
            bounds = index_bounds(left - right, known.ranges)
            return _compared(op, *bounds, expression) if bounds else expression
    return expression


def _decided_logic(expression: Apply, left: Expression, right: Expression) -> Expression:
    """A conjunction or a disjunction of conditions."""
    decisive, neutral = (FALSE, TRUE) if expression.op == "and" else (TRUE, FALSE)
    if decisive in (left, right):
        return decisive
    if left == neutral:
        return right
    return left if right == neutral else expression


def _compared(op: str, low: int, high: int, expression: Expression) -> Expression:
    """`x OP 0` for x between two bounds; the expression where they do not decide it."""
    always = {
        "lt": high < 0,
        "le": high <= 0,
        "gt": low > 0,
        "ge": low >= 0,
        "eq": low == high == 0,
    }
    always["ne"] = low > 0 or high < 0
    if always[op]:
        return TRUE
    return FALSE if always[_OPPOSITE[op]] else expression
