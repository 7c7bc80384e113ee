"""Forward mode: the derivative of a block along tangents, by the `jvp` rule of each op.

What is emitted for the tangents is linear in them, so that reverse mode is the transpose of it
(see `transposition`).  The method is that of Radul et al., "You only linearize once", POPL 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mapsto.ir.builder import Builder
from mapsto.ir.core import Block, Operation, Value
from mapsto.ir.dims import Dim
from mapsto.ir.substitution import Values, copy_operation

__all__ = ["Pushed", "push_forward", "split_linear"]

Tangents = dict[Value, Value]


@dataclass(frozen=True, slots=True)
class Pushed:
    """The results of a block and their tangents; None stands for a tangent that is zero."""

    results: tuple[Value, ...]
    tangents: tuple[Value | None, ...]


def push_forward(
    build: Builder,
    block: Block,
    arguments: Sequence[Value],
    tangents: Mapping[int, Value],
    sizes: Mapping[str, Dim],
    transposable: bool = True,
) -> Pushed:
    """Copies a block, with the tangents of what depends on the arguments numbered in `tangents`.

    An operation that does not depend on those is copied and nothing more.  Where the tangents are
    `transposable`, they are computed by operations of their own.  Raises MissingDerivative, which
    names the op and its source line, where one that does has no rule.
    """
    values: Values = dict(zip(block.arguments, arguments, strict=True))
    found: Tangents = {}
    # Keyed by the callee's own values: a value may be passed for several arguments, of which only
    # some are differentiated.
    for number, tangent in tangents.items():
        if tangent.dtype.is_float:
            found[block.arguments[number]] = tangent
    for op in block.operations[:-1]:
        copy = copy_operation(op, values, sizes)
        incoming = [found.get(value) for value in op.operands]
        if not _is_differentiated(copy, incoming):
            build.append(copy)
            continue
        build.location = op.location
        rule = copy.linearized if transposable else copy.pushed
        results, outgoing = rule(build, incoming)
        values.update(zip(op.results, results, strict=True))
        _record(found, op.results, outgoing)
    returned = block.returned
    results = tuple(values.get(value, value) for value in returned)
    return Pushed(results, tuple(found.get(value) for value in returned))


def _is_differentiated(op: Operation, tangents: Sequence[Value | None]) -> bool:
    has_tangent = any(tangent is not None for tangent in tangents)
    return has_tangent and any(result.dtype.is_float for result in op.results)


def _record(tangents: Tangents, results: Sequence[Value], given: Sequence[Value | None]) -> None:
    for result, tangent in zip(results, given, strict=True):
        if tangent is not None and result.dtype.is_float:
            tangents[result] = tangent


def split_linear(
    operations: Sequence[Operation], inputs: Sequence[Value]
) -> tuple[list[Operation], list[Operation]]:
    """The operations that do not depend on the inputs, and those that do, each in order."""
    linear = set(inputs)
    primal_part: list[Operation] = []
    linear_part: list[Operation] = []
    for op in operations:
        depends = any(value in linear for value in op.operands)
        (linear_part if depends else primal_part).append(op)
        if depends:
            linear.update(op.results)
    return primal_part, linear_part
