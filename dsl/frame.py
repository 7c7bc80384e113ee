"""The state of one elaboration, and the place in it where an expression is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from mapsto import ir
from mapsto.dsl.diagnostics import DiagnosticError, Help, Kind, Note, report
from mapsto.dsl.scope import Scope
from mapsto.dsl.source import Span
from mapsto.dsl.values import Tensor, Value

if TYPE_CHECKING:
    from mapsto.dsl.instances import Instance

__all__ = [
    "MAXIMUM_DEPTH",
    "MAXIMUM_STEPS",
    "Budget",
    "Facts",
    "Frame",
    "Guard",
    "Session",
    "StateCell",
    "fail",
]

MAXIMUM_DEPTH = 64
"""How deep calls may nest; recursion without an end is reported there."""
MAXIMUM_STEPS = 2_000_000
"""How much work the elaboration of one function may take, in expressions evaluated."""
_OPERATION_STEPS = 4
_CALL_STEPS = 10
"""The work of building an operation and of a call, in the same unit."""

SlotKey = tuple["Instance", str]
Facts = dict[str, Any]
"""The facts of a diagnostic by name."""


def fail(
    kind: Kind, span: Span, *, notes: Iterable[Note] = (), help: Help | None = None, **facts: object
) -> NoReturn:
    """Raises a DiagnosticError."""
    raise DiagnosticError(report(kind, span, notes=notes, help=help, **facts))


@dataclass(slots=True)
class Budget:
    """How much work is left before a program is given up as too large."""

    limit: int = MAXIMUM_STEPS
    spent: int = 0

    def spend(self, span: Span, steps: int = 1) -> None:
        """Counts work that is done at a place."""
        self.spent += steps
        if self.spent > self.limit:
            fail(Kind.PROGRAM_TOO_LARGE, span, limit=self.limit)


@dataclass(slots=True)
class StateCell:
    """A state of a module during an elaboration: its value at the start, and now."""

    initial: ir.Value
    current: ir.Value

    @property
    def updated(self) -> bool:
        """Whether it was given a new value."""
        return self.current is not self.initial


@dataclass(frozen=True, slots=True)
class Guard:
    """A branch that is computed everywhere and taken at the points where the condition is so."""

    condition: Tensor
    holds: bool


@dataclass(slots=True)
class Session:
    """What one elaboration builds.

    Parameters and states appear as free values of the block that is built; they become arguments of
    the function when it is finished (`functions.close`).
    """

    build: ir.Builder
    resolve: Callable[[Frame, Scope, str], Value]
    """Gives the value of a definition of a file or of a library name."""
    functions: dict[str, ir.Function] = field(default_factory=dict)
    parameters: dict[SlotKey, ir.Value] = field(default_factory=dict)
    states: dict[SlotKey, StateCell] = field(default_factory=dict)
    renewed: dict[SlotKey, ir.Value] = field(default_factory=dict)
    """The new values of parameters that training changed."""
    errors: list[DiagnosticError] | None = None
    """While a program is checked: the mistakes that did not end the elaboration."""
    resolving: set[SlotKey] = field(default_factory=set)
    """Parameters and states whose type is being found, to notice one that depends on itself."""
    budget: Budget = field(default_factory=Budget)
    frozen: bool = False
    """Whether parameters are constants to derivatives."""
    depth: int = 0
    compared: set[object] | None = field(default_factory=set)
    """The gradients written by hand that were compared with the derivative; None in what is
    elaborated for such a comparison."""
    training: bool = False
    """What the name `training` stands for."""
    mode_was_read: bool = False
    """Whether `training` was looked at."""
    products: ir.DType = ir.DType.F32
    """The element type in which products of f32 tensors are computed."""
    guards: tuple[Guard | None, ...] = ()
    """The branches that the elaboration is in and that may not be taken; None stands for one that
    does not run then."""

    @contextmanager
    def products_in(self, dtype: ir.DType) -> Iterator[None]:
        """Elaborates with products in another precision."""
        outer, self.products = self.products, dtype
        try:
            yield
        finally:
            self.products = outer

    @contextmanager
    def guarded(self, guard: Guard | None) -> Iterator[None]:
        """Elaborates a branch."""
        outer, self.guards = self.guards, (*self.guards, guard)
        try:
            yield
        finally:
            self.guards = outer

    @contextmanager
    def mode(self, training: bool) -> Iterator[None]:
        """Elaborates as a part of training, or not."""
        outer, self.training = self.training, training
        try:
            yield
        finally:
            self.training = outer

    @contextmanager
    def freezing(self) -> Iterator[None]:
        """Elaborates with parameters as constants to derivatives."""
        outer, self.frozen = self.frozen, True
        try:
            yield
        finally:
            self.frozen = outer

    def initial(self, key: SlotKey) -> ir.Value:
        """The value of a parameter or state at the start."""
        cell = self.states.get(key)
        return self.parameters[key] if cell is None else cell.initial

    def current(self, key: SlotKey) -> ir.Value:
        """The value that a parameter or state has now."""
        cell = self.states.get(key)
        return cell.current if cell else self.renewed.get(key) or self.parameters[key]

    def assign(self, key: SlotKey, value: ir.Value) -> None:
        """Gives a parameter or state a new value."""
        cell = self.states.get(key)
        if cell is not None:
            cell.current = value
        elif value is self.parameters[key]:
            self.renewed.pop(key, None)
        else:
            self.renewed[key] = value

    def slots(self) -> dict[SlotKey, ir.Value]:
        """The parameters and states that are in use, with the values that they have now."""
        return {key: self.current(key) for key in (*self.parameters, *self.states)}

    @contextmanager
    def block(self) -> Iterator[ir.Builder]:
        """Builds into a block of its own."""
        outer, self.build = self.build, ir.Builder(ir.Block([]))
        try:
            yield self.build
        finally:
            self.build = outer

    @contextmanager
    def scratch(self) -> Iterator[None]:
        """Builds what is thrown away, to learn types."""
        states = {key: (cell, cell.current) for key, cell in self.states.items()}
        functions, renewed = dict(self.functions), dict(self.renewed)
        try:
            with self.block():
                yield
        finally:
            self.functions, self.renewed = functions, renewed
            self.states = {key: cell for key, (cell, _) in states.items()}
            for cell, current in states.values():
                cell.current = current


@dataclass(frozen=True, slots=True)
class Frame:
    """A place of evaluation: the session, and the names in scope."""

    session: Session
    scope: Scope

    def inside(self, scope: Scope) -> Frame:
        """The same elaboration in another scope."""
        return Frame(self.session, scope)

    def nested(self) -> Frame:
        """The same elaboration in a new scope inside this one."""
        return self.inside(Scope(self.scope))

    def emit(self, span: Span, op: type[ir.Operation], *operands: ir.Value, **facts: Any) -> Any:
        """Emits an operation with one result, located at the span."""
        return self.operation(span, op, *operands, **facts).result

    def operation(
        self, span: Span, op: type[ir.Operation], *operands: ir.Value, **facts: Any
    ) -> ir.Operation:
        """Emits an operation, located at the span."""
        with self.building(span) as build:
            return build.op(op, *operands, **facts)
        raise AssertionError

    def contract(
        self,
        span: Span,
        operands: Sequence[ir.Value],
        maps: Sequence[ir.AffineMap],
        extents: Sequence[ir.Dim],
        rank: int,
        kind: str = "sum",
    ) -> ir.Value:
        """Emits a contraction; see `ir.Contract`.  A sum of products of f32 tensors is computed in
        the precision of the session."""
        facts: Facts = {"kind": kind, "rank": rank, "extents": tuple(extents), "maps": tuple(maps)}
        dtype = self.session.products
        plain = dtype is ir.DType.F32 or kind != "sum" or len(operands) < 2
        if plain or any(operand.dtype is not ir.DType.F32 for operand in operands):
            result: ir.Value = self.emit(span, ir.Contract, *operands, **facts)
            return result
        rounded = [self.emit(span, ir.Cast, operand, dtype=dtype) for operand in operands]
        product = self.emit(span, ir.Contract, *rounded, **facts)
        back: ir.Value = self.emit(span, ir.Cast, product, dtype=ir.DType.F32)
        return back

    @contextmanager
    def building(self, span: Span) -> Iterator[ir.Builder]:
        """The builder for an operation; an ill-typed one is reported at the span."""
        try:
            yield self.locate(span)
        except ir.TypeRuleError as error:
            fail(Kind.ILL_TYPED_OPERATION, span, reason=error.message)

    def locate(self, span: Span) -> ir.Builder:
        """The builder, set to the place in the source that is elaborated."""
        self.session.budget.spend(span, _OPERATION_STEPS)
        begin = span.begin
        self.session.build.location = ir.Location(span.file, begin.line, begin.column)
        return self.session.build

    @contextmanager
    def deeper(self, span: Span, name: str) -> Iterator[None]:
        """Counts a call or an instantiation against the depth limit."""
        if self.session.depth >= MAXIMUM_DEPTH:
            fail(Kind.RECURSION, span, name=name, limit=MAXIMUM_DEPTH)
        self.session.budget.spend(span, _CALL_STEPS)
        self.session.depth += 1
        try:
            yield
        finally:
            self.session.depth -= 1

    def constant(self, span: Span, value: float, type: ir.TensorType) -> Tensor:
        """A tensor with one value everywhere."""
        build = self.locate(span)
        return Tensor(build.constant(value, type.dtype, type.shape))
