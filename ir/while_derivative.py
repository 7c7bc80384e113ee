"""The derivative of `while`: one loop that carries tangents beside the values."""

from __future__ import annotations

from collections.abc import Sequence

from mapsto.ir.builder import Builder
from mapsto.ir.core import Region, Value
from mapsto.ir.ops.flow import While
from mapsto.ir.regions import enclosed
from mapsto.ir.scan_derivative import BodyPush, Derived
from mapsto.ir.scan_parts import Bound, Carried, ScanParts

__all__ = ["push_while"]


def push_while(op: While, build: Builder, tangents: Sequence[Value | None]) -> Derived:
    """Emits the loop that computes values and tangents; gives both.  The condition is that of the
    values alone."""
    parts = _body_parts(op)
    given = {a: t for a, t in zip(parts.arguments, tangents, strict=True) if t is not None}
    primal, linear, is_active = BodyPush(parts, given, False, op.location).loops(build)
    constants = (*primal.constants, *linear.constants)
    carried = (*primal.carried, *linear.carried)
    bound: tuple[Bound, ...] = (*constants, *carried)
    arguments = [part.argument for part in bound]
    of_condition = dict(zip(parts.arguments, op.condition.arguments, strict=True))
    asked = [of_condition.get(argument, argument) for argument in arguments]
    condition = enclosed(asked, op.condition.operations[:-1], op.condition.returned)
    body = enclosed(arguments, primal.operations, [state.returned for state in carried])
    loop = build.op(
        While,
        *(part.operand for part in bound),
        regions=[Region(condition), Region(body)],
        constants=len(constants),
    )
    results, found = loop.results[: len(op.results)], iter(loop.results[len(op.results) :])
    return results, [next(found) if active else None for active in is_active]


def _body_parts(op: While) -> ScanParts:
    """The body as that of a scan: it carries values and gives no outputs."""
    arguments, constants = op.body.arguments, len(op.constants)
    states = zip(op.carried, arguments[constants:], op.body.returned, strict=True)
    return ScanParts(
        extent=0,
        reverse=False,
        constants=tuple(Bound(*pair) for pair in zip(op.constants, arguments, strict=False)),
        carried=tuple(Carried(*state) for state in states),
        sequences=(),
        outputs=(),
        operations=tuple(op.body.operations[:-1]),
    )
