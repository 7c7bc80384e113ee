"""The derivative of `scan`.

Forward mode is one scan that carries tangents beside the values.  For reverse mode the body is
linearized and split: a scan of the primal part, which also gives what the linear part needs
(residuals), and a scan of the linear part, whose transpose is a scan of the transposed body with
its steps in the other order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mapsto.ir.builder import Builder
from mapsto.ir.core import Block, Location, Operation, Value
from mapsto.ir.errors import MissingDerivative
from mapsto.ir.invariants import hoist_invariants
from mapsto.ir.linearize import push_forward, split_linear
from mapsto.ir.liveness import keep_live
from mapsto.ir.ops.elementwise import Add
from mapsto.ir.ops.flow import Scan
from mapsto.ir.ops.shaping import Constant
from mapsto.ir.residuals import Residuals, choose_residuals
from mapsto.ir.scan_parts import Bound, Carried, ScanParts
from mapsto.ir.transposition import transpose_operations

__all__ = ["BodyPush", "Derived", "linearize_scan", "pull_back_scan", "push_scan"]

Derived = tuple[Sequence[Value], Sequence[Value | None]]


def push_scan(op: Scan, build: Builder, tangents: Sequence[Value | None]) -> Derived:
    """Emits one scan that computes the values and their tangents; gives both."""
    loop = _pushed_loop(op, build, tangents, transposable=False)
    primal, linear = loop.primal, loop.linear
    joint = replace(
        primal,
        constants=(*primal.constants, *linear.constants),
        carried=(*primal.carried, *linear.carried),
        sequences=(*primal.sequences, *linear.sequences),
        outputs=(*primal.outputs, *linear.outputs),
    )
    finals, outputs = joint.emit(build)
    states, stacked = len(primal.carried), len(primal.outputs)
    return loop.derived((*finals[:states], *outputs[:stacked]), finals[states:], outputs[stacked:])


def linearize_scan(op: Scan, build: Builder, tangents: Sequence[Value | None]) -> Derived:
    """Emits a scan of the primal part and a scan that is linear in the tangents."""
    loop = _pushed_loop(op, build, tangents, transposable=True)
    constants, primal_part, linear_part = _split(loop, build)
    residuals = _residuals(loop, constants, primal_part, linear_part)
    primal = replace(
        loop.primal,
        constants=constants,
        outputs=(*loop.primal.outputs, *residuals.kept),
        operations=_live(primal_part, (*loop.primal.returned, *residuals.kept)),
    )
    finals, outputs = primal.emit(build)
    stacked = len(loop.primal.outputs)
    results = (*finals, *outputs[:stacked])
    kept = [Bound(*pair) for pair in zip(outputs[stacked:], residuals.kept, strict=True)]
    linear = replace(
        loop.linear,
        constants=constants,
        sequences=(*loop.primal.sequences, *kept, *loop.linear.sequences),
        operations=(*residuals.repeated, *linear_part),
    )
    return loop.derived(results, *linear.emit(build))


@dataclass(frozen=True, slots=True)
class _PushedLoop:
    """A scan with a body that also computes tangents: its primal part (which has the operations of
    both) and its linear part, values of one body in both."""

    primal: ScanParts
    linear: ScanParts
    is_active: tuple[bool, ...]
    """For each result, whether it has a tangent."""
    passed: Mapping[int, tuple[Value, Value | None]]
    """Carried values that no step changes, by number, with their tangents."""

    def derived(
        self, results: Sequence[Value], finals: Sequence[Value], outputs: Sequence[Value]
    ) -> Derived:
        """Results and their tangents, each in its place."""
        rest = iter(zip(results, self.is_active, strict=True))
        found, total = iter((*finals, *outputs)), len(results) + len(self.passed)
        pairs = []
        for number in range(total):
            if number in self.passed:
                pairs.append(self.passed[number])
            else:
                result, is_active = next(rest)
                pairs.append((result, next(found) if is_active else None))
        return [result for result, _ in pairs], [tangent for _, tangent in pairs]


def _pushed_loop(
    op: Scan, build: Builder, tangents: Sequence[Value | None], transposable: bool
) -> _PushedLoop:
    parts, numbers = _with_passed_as_constants(ScanParts.of(op))
    arguments = op.body.arguments
    given = {a: t for a, t in zip(arguments, tangents, strict=True) if t is not None}
    offset = len(op.constants)
    passed = {i: (op.carried[i], tangents[offset + i]) for i in numbers}
    push = BodyPush(parts, given, transposable, op.location)
    primal, linear, is_active = push.loops(build)
    return _PushedLoop(primal, linear, is_active, passed)


def _with_passed_as_constants(parts: ScanParts) -> tuple[ScanParts, list[int]]:
    """Carried values that no step changes are constants; gives their numbers too."""
    numbers = [i for i, state in enumerate(parts.carried) if state.returned is state.argument]
    fixed = tuple(Bound(parts.carried[i].operand, parts.carried[i].argument) for i in numbers)
    carried = tuple(state for i, state in enumerate(parts.carried) if i not in numbers)
    return replace(parts, constants=(*parts.constants, *fixed), carried=carried), numbers


class BodyPush:
    """Pushes tangents through the body of a loop."""

    def __init__(
        self,
        parts: ScanParts,
        given: Mapping[Value, Value],
        transposable: bool,
        location: Location | None,
    ) -> None:
        self.parts = parts
        self.given = given
        self.transposable = transposable
        self.location = location
        self.scratch = Builder(Block(()), location)
        self.seeds = {argument: _stand_in(argument) for argument in given}
        """For arguments of the body, what stands for their tangents."""

    def loops(self, build: Builder) -> tuple[ScanParts, ScanParts, tuple[bool, ...]]:
        """The loop with the operations of primal and linear part, the loop of tangents without
        operations, and which results have tangents."""
        parts, scratch = self.parts, self.scratch
        results, tangents = self._fixpoint()
        scratch.location = self.location
        states = len(parts.carried)
        carried = tuple(
            self._tangent_state(build, state, result, tangent)
            for state, result, tangent in zip(parts.carried, results, tangents, strict=False)
            if state.argument in self.seeds
        )
        stacked = tuple(tangent for tangent in tangents[states:] if tangent is not None)
        primal = replace(
            parts,
            carried=tuple(
                replace(state, returned=result)
                for state, result in zip(parts.carried, results, strict=False)
            ),
            outputs=tuple(results[states:]),
            operations=tuple(scratch.block.operations),
        )
        constants, sequences = self._bound(parts.constants), self._bound(parts.sequences)
        linear = replace(
            parts, constants=constants, carried=carried, sequences=sequences, outputs=stacked
        )
        is_carried = (state.argument in self.seeds for state in parts.carried)
        return primal, linear, (*is_carried, *(t is not None for t in tangents[states:]))

    def _fixpoint(self) -> tuple[Sequence[Value], Sequence[Value | None]]:
        """Results and tangents of the body where each carried value has a tangent that may get one
        at any step."""
        parts, block = self.parts, _block_of(self.parts)
        while True:
            self.scratch.block.operations.clear()
            tangents = {i: self.seeds[a] for i, a in enumerate(parts.arguments) if a in self.seeds}
            pushed = push_forward(
                self.scratch, block, parts.arguments, tangents, {}, self.transposable
            )
            pairs = zip(parts.carried, pushed.tangents, strict=False)
            new = [s.argument for s, t in pairs if t is not None and s.argument not in self.seeds]
            if not new:
                return pushed.results, pushed.tangents
            self.seeds.update((argument, _stand_in(argument)) for argument in new)

    def _tangent_state(
        self, build: Builder, state: Carried, result: Value, tangent: Value | None
    ) -> Carried:
        at_first = self.given.get(state.argument)
        if at_first is None:
            at_first = build.like(0, state.operand)
        if tangent is None:
            tangent = self.scratch.like(0, result)
        return Carried(at_first, self.seeds[state.argument], tangent)

    def _bound(self, parts: Sequence[Bound]) -> tuple[Bound, ...]:
        return tuple(
            Bound(self.given[part.argument], self.seeds[part.argument])
            for part in parts
            if part.argument in self.seeds
        )


def _block_of(parts: ScanParts) -> Block:
    """The body as a block to push through; its arguments are those of the parts."""
    from mapsto.ir.ops.control import Return

    block = Block(())
    block.arguments = parts.arguments
    block.operations = [*parts.operations, Return(parts.returned)]
    return block


def _stand_in(value: Value) -> Value:
    """A value for the tangent or cotangent of another."""
    return Value(value.type, None, 0, f"d_{value.hint}" if value.hint else "")


def _split(
    loop: _PushedLoop, build: Builder
) -> tuple[tuple[Bound, ...], Sequence[Operation], Sequence[Operation]]:
    """The constants of the loop, and the operations of its primal and of its linear part.

    What is the same at every step is emitted before the loop, so it is no residual of each step.
    """
    primal, linear = loop.primal, loop.linear
    constants, roots = (*primal.constants, *linear.constants), (*primal.returned, *linear.returned)
    live = _live(primal.operations, roots)
    _, linear_operations = split_linear(live, linear.arguments)
    depends = {*linear.arguments, *(value for op in linear_operations for value in op.results)}
    always_runs = isinstance(primal.extent, int) and primal.extent > 0
    constants, operations = hoist_invariants(build, constants, live, roots, always_runs)
    seeds = [part.argument for part in constants if part.argument in depends]
    return constants, *split_linear(operations, [*linear.arguments, *seeds])


def _residuals(
    loop: _PushedLoop,
    constants: Sequence[Bound],
    primal_part: Sequence[Operation],
    linear_part: Sequence[Operation],
) -> Residuals:
    """What the linear part needs of the primal part; constants and slices are known to it."""
    linear = {*loop.linear.arguments, *(value for op in linear_part for value in op.results)}
    free = [part.argument for part in (*constants, *loop.primal.sequences)]
    used = [*(value for op in linear_part for value in op.operands), *loop.linear.returned]
    return choose_residuals((v for v in used if v not in linear), free, primal_part)


def _live(operations: Sequence[Operation], roots: Sequence[Value]) -> tuple[Operation, ...]:
    return tuple(keep_live(operations, roots))


# ---- the transpose


def pull_back_scan(
    op: Scan, build: Builder, cotangents: Sequence[Value | None], linear: Sequence[bool]
) -> Sequence[Value | None]:
    """Emits the transpose of a scan that is linear in some operands, all carried ones among them.

    Cotangents are carried through the transposed steps from the last to the first; those of a
    constant are added up.
    """
    parts = ScanParts.of(op)
    _check_linear(op, linear)
    transposed, order = _BodyPull(op, parts, linear, cotangents).loop(build)
    finals, outputs = transposed.emit(build)
    found = dict(zip(order, (*finals, *outputs), strict=True))
    pairs = zip(parts.arguments, linear, strict=True)
    return [found.get(argument) if is_linear else None for argument, is_linear in pairs]


def _check_linear(op: Scan, linear: Sequence[bool]) -> None:
    """Raises MissingDerivative where a carried value starts neither linear nor at zero."""
    start = len(op.constants)
    for operand, is_linear in zip(op.carried, linear[start:], strict=False):
        source = operand.defining_op
        is_zero = isinstance(source, Constant) and source.splat == 0
        if not is_linear and not is_zero:
            raise MissingDerivative(op)


class _BodyPull:
    """Pulls cotangents back through the body of a linear scan."""

    def __init__(
        self,
        op: Scan,
        parts: ScanParts,
        linear: Sequence[bool],
        cotangents: Sequence[Value | None],
    ) -> None:
        self.op = op
        self.parts = parts
        states = {state.argument for state in parts.carried}
        flags = zip(parts.arguments, linear, strict=True)
        self.seeds = [a for a, is_linear in flags if is_linear or a in states]
        self.primal, self.linear = split_linear(parts.operations, self.seeds)
        self.scratch = Builder(Block(()), op.location)
        self.scratch.block.operations += self.primal
        self.given = {
            number: cotangent
            for number, cotangent in enumerate(cotangents)
            if cotangent is not None
        }
        """The cotangents of results, by number."""

    def loop(self, build: Builder) -> tuple[ScanParts, list[Value]]:
        """The transposed loop, and the arguments of the body whose cotangents are its results."""
        parts, scratch = self.parts, self.scratch
        returned, active = parts.returned, self._active()
        seeds = {number: _stand_in(returned[number]) for number in active}
        pairs = [(returned[number], seed) for number, seed in seeds.items()]
        found = dict(transpose_operations(scratch, self.linear, self.seeds, pairs))
        scratch.location = self.op.location
        states = len(parts.carried)
        carried = [
            self._cotangent_state(build, number, seeds[number], found)
            for number in active
            if number < states
        ]
        sums = [part for part in parts.constants if part.argument in found]
        slices = [part.argument for part in parts.sequences if part.argument in found]
        carried += [self._sum(build, part, found) for part in sums]
        outputs = [Bound(self.given[n], seed) for n, seed in seeds.items() if n >= states]
        roots = (*(state.returned for state in carried), *(found[value] for value in slices))
        transposed = ScanParts(
            parts.extent,
            not parts.reverse,
            self._known(parts.constants),
            tuple(carried),
            (*self._known(parts.sequences), *outputs),
            tuple(found[value] for value in slices),
            _live(scratch.block.operations, roots),
        )
        order = [parts.carried[number].argument for number in active if number < states]
        return transposed, [*order, *(part.argument for part in sums), *slices]

    def _active(self) -> list[int]:
        """The results that have a cotangent at some step."""
        active = set(self.given)
        carried = self.parts.carried
        while True:
            reached = self._reached(active)
            new = {i for i, state in enumerate(carried) if state.argument in reached} - active
            if not new:
                return sorted(active)
            active |= new

    def _reached(self, active: set[int]) -> set[Value]:
        """What the active results depend on through linear operations."""
        roots = [self.parts.returned[number] for number in active]
        reached = set(roots)
        for op in reversed(self.linear):
            if any(result in reached for result in op.results):
                reached.update(op.operands)
        return reached

    def _cotangent_state(
        self, build: Builder, number: int, seed: Value, found: Mapping[Value, Value]
    ) -> Carried:
        state = self.parts.carried[number]
        at_first = self.given.get(number)
        if at_first is None:
            at_first = build.like(0, state.operand)
        step = found.get(state.argument)
        return Carried(at_first, seed, step or self.scratch.like(0, state.argument))

    def _sum(self, build: Builder, part: Bound, found: Mapping[Value, Value]) -> Carried:
        total = _stand_in(part.argument)
        added = self.scratch.emit(Add, total, found[part.argument])
        return Carried(build.like(0, part.operand), total, added)

    def _known(self, parts: Sequence[Bound]) -> tuple[Bound, ...]:
        return tuple(part for part in parts if part.argument not in self.seeds)
