"""Rewriting by patterns: match an op, give what replaces it.

A pattern is a function marked with `@rewrite`; the annotation of its first parameter selects the
class of ops that it is tried on:

    @rewrite
    def double_negation(op: ir.Neg, rewriter: Rewriter) -> ir.Value | None:
        "-(-x) = x"
        inner = op.operands[0].defining_op
        return inner.operands[0] if isinstance(inner, ir.Neg) else None

The driver rebuilds a block in one forward walk: each op is offered, on its already rewritten
operands, to the patterns of its class, again and again until none applies.  Walks are repeated
until nothing changes; what nothing uses after one is gone before the next.
"""

from __future__ import annotations

import inspect
import typing
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mapsto.ir.builder import Builder
from mapsto.ir.core import Block, Location, Module, Operation, Region, Value
from mapsto.ir.errors import PassError
from mapsto.ir.liveness import count_uses, live_operations
from mapsto.ir.passes.base import Pass
from mapsto.ir.substitution import Values

__all__ = [
    "Pattern",
    "Rewriter",
    "fired",
    "registered_patterns",
    "rewrite",
    "rewrite_block",
    "rewrite_module",
]

Replacement = Value | Sequence[Value] | None
MAX_WALKS = 32

fired: Counter[str] = Counter()
"""How often each pattern applied in this process; the tests see that no rule is dead."""


class Rewriter:
    """What a pattern works with: a builder before the matched op, and use counts; `counted` tells
    whether it asked for these."""

    def __init__(self, build: Builder, uses: Counter[Value]) -> None:
        self.build = build
        self.counted = False
        self._uses = uses

    def emit(self, record: type[Operation], /, *operands: Value, **attributes: Any) -> Value:
        """Builds an op before the matched one and gives its result."""
        return self.build.emit(record, *operands, **attributes)

    def constant_like(self, value: float, reference: Value) -> Value:
        """A constant of the type of another value."""
        return self.build.like(value, reference)

    def uses(self, value: Value) -> int:
        """How often the value was used when the walk began; 0 for values that are new since."""
        self.counted = True
        return self._uses[value]

    def used_once(self, value: Value) -> bool:
        """Whether the value has at most one use, so that it goes away with its user."""
        return self.uses(value) <= 1


@dataclass(frozen=True)
class Pattern:
    """A named rewrite rule for ops of a class."""

    name: str
    op_class: type[Operation]
    apply: Callable[[Any, Rewriter], Replacement]
    description: str

    def as_pass(self) -> type[Pass]:
        """A pass that applies this pattern alone; its name has dashes.

        It does not stand in the list of passes: `registered_patterns` has it.
        """
        pattern = self

        @dataclass(frozen=True)
        class PatternPass(Pass):
            def run(self, module: Module) -> Module:
                return rewrite_module(module, [pattern])

        PatternPass.name = self.name.replace("_", "-")
        PatternPass.__doc__ = self.description
        PatternPass.__qualname__ = f"{self.name}.as_pass"
        return PatternPass


_REGISTRY: dict[str, Pattern] = {}


def registered_patterns() -> Mapping[str, Pattern]:
    """Every pattern known to the process, by its name with dashes.

    Each can stand in a pipeline as it is; of two with one name it is the later one.
    """
    return _REGISTRY


def rewrite(function: Callable[[Any, Rewriter], Replacement]) -> Pattern:
    """Makes a pattern of a function `(op: SomeOp, rewriter) -> replacement or None`.

    It can be named in a pipeline from then on, with dashes for underscores.
    The replacement is a value, or one value for each result of the op.  Raises TypeError where the
    first parameter is not annotated with a class of ops.
    """
    first = next(iter(inspect.signature(function).parameters), None)
    op_class = typing.get_type_hints(function).get(first or "")
    if not (isinstance(op_class, type) and issubclass(op_class, Operation)):
        raise TypeError(
            f"annotate the first parameter of `{function.__name__}` with a class of ops"
        )
    pattern = Pattern(function.__name__, op_class, function, inspect.getdoc(function) or "")
    _REGISTRY[pattern.name.replace("_", "-")] = pattern
    return pattern


def rewrite_module(module: Module, patterns: Iterable[Pattern]) -> Module:
    """The module with the patterns applied everywhere until none applies."""
    chosen = tuple(patterns)
    return Module(
        {
            name: replace(function, block=rewrite_block(function.block, chosen))
            for name, function in module.functions.items()
        }
    )


def rewrite_block(block: Block, patterns: Sequence[Pattern]) -> Block:
    """The block with the patterns applied until none applies.

    Raises PassError where they do not come to an end.
    """
    settled: set[Operation] = set()
    for _ in range(MAX_WALKS):
        walk = _Walk(patterns, count_uses(block), settled)
        block = walk.rebuilt(block)
        if not walk.changed:
            return block
        # What is replaced no longer counts as a use of its operands.
        block = live_operations(block)
    names = ", ".join(sorted({pattern.name for pattern in patterns}))
    raise PassError(f"rewriting does not come to an end: {names}")


class _Walk:
    """One forward walk over a block.

    `settled` are the ops to which no pattern applies, whoever uses what: they need not be offered
    again.  A pattern looks at an op and at what its operands come from, and an op of which any of
    that changes is built anew.
    """

    def __init__(
        self, patterns: Sequence[Pattern], uses: Counter[Value], settled: set[Operation]
    ) -> None:
        self.patterns = patterns
        self.uses = uses
        self.settled = settled
        self.changed = False
        self._by_class: dict[type[Operation], list[Pattern]] = {}

    def rebuilt(self, block: Block) -> Block:
        """The block, rewritten; it has the same arguments, and operations that stay as they are."""
        target = block.with_operations(())
        values: Values = {}
        for op in block.operations:
            self._visit(op, target, values)
        return target

    def _visit(self, op: Operation, target: Block, values: Values) -> None:
        moved = self._moved(op, values)
        results = self._rewritten(moved, target)
        values.update(
            (old, new) for old, new in zip(op.results, results, strict=True) if old is not new
        )

    def _moved(self, op: Operation, values: Values) -> Operation:
        """The op on rewritten operands, with rewritten regions."""
        if not op.regions and not any(value in values for value in op.operands):
            return op
        operands = [values.get(value, value) for value in op.operands]
        blocks = [live_operations(region.block) for region in op.regions]
        moved = op.rebuilt(operands, [Region(self.rebuilt(block)) for block in blocks])
        for old, new in zip(op.results, moved.results, strict=True):
            new.hint = old.hint
        self._count_alike(op.results, moved.results)
        return moved

    def _patterns_for(self, record: type[Operation]) -> Sequence[Pattern]:
        found = self._by_class.get(record)
        if found is None:
            found = [pattern for pattern in self.patterns if issubclass(record, pattern.op_class)]
            self._by_class[record] = found
        return found

    def _rewritten(self, op: Operation, target: Block) -> Sequence[Value]:
        """Offers an op that is not in the block yet to the patterns."""
        patterns = self._patterns_for(type(op))
        if not patterns or op in self.settled:
            target.operations.append(op)
            return op.results
        rewriter = Rewriter(Builder(target, op.location), self.uses)
        for pattern in patterns:
            found = pattern.apply(op, rewriter)
            if found is None:
                continue
            results = [found] if isinstance(found, Value) else list(found)
            _check(pattern, op, results)
            fired[pattern.name] += 1
            self.changed = True
            self._count_alike(op.results, results)
            return results
        if not rewriter.counted:
            self.settled.add(op)
        target.operations.append(op)
        return op.results

    def _count_alike(self, old: Sequence[Value], new: Sequence[Value]) -> None:
        for before, after in zip(old, new, strict=True):
            self.uses[after] += self.uses[before] if after is not before else 0


def _check(pattern: Pattern, op: Operation, results: Sequence[Value]) -> None:
    expected = [result.type for result in op.results]
    found = [result.type for result in results]
    if expected != found:
        where = _at(op.location)
        types = f"{', '.join(map(str, expected))} by {', '.join(map(str, found))}"
        raise PassError(f"{where}the rewrite `{pattern.name}` replaces {op.name} of type {types}")


def _at(location: Location | None) -> str:
    return f"{location}: " if location else ""
