"""Statements in the body of a map."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mapsto.dsl import syntax
from mapsto.dsl.arithmetic import decide
from mapsto.dsl.branches import branch_all
from mapsto.dsl.conformance import conform, type_of_result
from mapsto.dsl.diagnostics import DiagnosticError, Help, Kind
from mapsto.dsl.evaluation import call_arguments, evaluate, fail_unknown, find, tensor_of
from mapsto.dsl.expressions import rounds
from mapsto.dsl.frame import Frame, fail
from mapsto.dsl.instances import Instance, member, slot_tensor
from mapsto.dsl.scope import Scope
from mapsto.dsl.targets import bind_target, target_names
from mapsto.dsl.tensors import coerce, describe
from mapsto.dsl.values import Closure, Effect, Expected, Slot, Tensor, Unknown, Value

__all__ = ["evaluate_block"]


def evaluate_block(block: syntax.Block, frame: Frame, expected: Expected | None) -> Value | None:
    """Runs the statements; the value of the last if it is an expression or an `if`."""
    last = len(block.statements) - 1
    for i, statement in enumerate(block.statements):
        if i == last:
            return _run(statement, frame, expected, is_last=True)
        with _recovery(statement, frame):
            _run(statement, frame, None, is_last=False)
    return None


@contextmanager
def _recovery(statement: syntax.Statement, frame: Frame) -> Iterator[None]:
    """While a program is checked: notes a mistake, and goes on without what it would have bound."""
    try:
        yield
    except DiagnosticError as error:
        errors = frame.session.errors
        if errors is None or frame.session.depth != 1:
            raise
        errors.append(error)
        for name in _bound_by(statement):
            frame.scope.bind(name, Unknown(error), statement.span)


def _bound_by(statement: syntax.Statement) -> Iterator[str]:
    for node in syntax.walk(statement):
        if isinstance(node, syntax.Let):
            yield from target_names(node.target)


def _run(
    statement: syntax.Statement, frame: Frame, expected: Expected | None, *, is_last: bool
) -> Value | None:
    """Runs one statement; the value of an expression or an `if`."""
    match statement:
        case syntax.ExpressionStatement():
            return _expression(statement.value, frame, expected, is_last)
        case syntax.If():
            return _if(statement, frame, expected)
        case syntax.Let():
            _let(statement, frame)
        case syntax.StateUpdate():
            _update(statement, frame)
        case syntax.For():
            _for(statement, frame)
        case syntax.MapDefinition():
            name = "" if statement.name is None else statement.name.name
            closure = Closure(statement, frame.scope, name or "an unnamed map")
            frame.scope.bind(name, closure, statement.span)
    return None


def _expression(
    node: syntax.Expression, frame: Frame, expected: Expected | None, is_last: bool
) -> Value | None:
    """The value of an expression, which is that of the body if it comes last."""
    if isinstance(node, syntax.Call) and isinstance(node.function, syntax.Name):
        function = find(frame, node.function.name)
        if isinstance(function, Effect):
            function.run(frame, node.span, call_arguments(node, frame))
            return None
    if not is_last and not isinstance(node, syntax.Call):
        fail(Kind.UNUSED_VALUE, node.span)
    return evaluate(node, frame, expected)


def _let(statement: syntax.Let, frame: Frame) -> None:
    expected = None if statement.type is None else type_of_result(statement.type, frame)
    value = tensor_of(statement.value, frame, expected)
    if statement.type is not None:
        what = f"`{', '.join(target_names(statement.target))}`"
        value = conform(frame, statement.type, value, statement.value.span, what)
    bind_target(frame, statement.target, value, statement.value.span)


def _update(statement: syntax.StateUpdate, frame: Frame) -> None:
    slot = _target(statement.target, frame)
    if not isinstance(slot, Slot) or not slot.is_state:
        text = statement.target.span.text
        fail(Kind.NOT_A_STATE, statement.target.span, name=text, help=Help.DECLARE_STATE)
    current = slot_tensor(frame, slot, statement.target.span)
    expected = Expected(current.dtype, current.shape)
    value = evaluate(statement.value, frame, expected)
    span = statement.value.span
    new = coerce(frame, span, value, current.type, what=f"the new value of `{slot.name}`")
    if new.axes:
        fail(Kind.STATE_IN_INDEX, statement.span, name=slot.name)
    frame.session.states[slot.instance, slot.name].current = new.value


def _target(target: syntax.Expression, frame: Frame) -> Value:
    if isinstance(target, syntax.Attribute):
        base = evaluate(target.base, frame)
        if isinstance(base, Instance):
            return member(base, target.name.name, target.name.span)
        fail(Kind.NO_MEMBER, target.span, name=target.name.name, found=describe(base))
    assert isinstance(target, syntax.Name)
    value = find(frame, target.name)
    if value is None:
        fail_unknown(frame, target.name, target.span)
    return value


def _for(statement: syntax.For, frame: Frame) -> None:
    """The body once for each item; names that it binds stay bound, as in the next round, and the
    item's own names mean what they did before."""
    names = frame.scope.names
    targets = [*target_names(statement.target)]
    before = {name: names[name] for name in targets if name in names}
    for item in rounds(evaluate(statement.iterable, frame), statement.iterable.span):
        frame.session.budget.spend(statement.span)
        bind_target(frame, statement.target, item, statement.iterable.span)
        evaluate_block(statement.body, frame, None)
    for name in targets:
        names.pop(name, None)
    names.update(before)


def _if(statement: syntax.If, frame: Frame, expected: Expected | None) -> Value | None:
    span = statement.condition.span
    condition = decide(frame, span, evaluate(statement.condition, frame))
    if isinstance(condition, bool):
        block = statement.then if condition else statement.otherwise
        return None if block is None else evaluate_block(block, frame, expected)
    if condition.shape:
        fail(Kind.CONDITION_NOT_SCALAR, span, construct="an `if` statement", found=condition.type)
    return _both(statement, frame, condition, expected)


def _both(
    statement: syntax.If, frame: Frame, condition: Tensor, expected: Expected | None
) -> Value | None:
    """Elaborates both branches; chooses between what they bind, update and give."""
    then, other = frame.nested(), frame.nested()
    names: list[str] = []

    def otherwise() -> Value | None:
        block = statement.otherwise
        return None if block is None else evaluate_block(block, other, expected)

    def pairs(value: Value | None, second: Value | None) -> list[tuple[Value, Value]]:
        names.extend(_rebound(frame, then.scope, other.scope))
        found = [(_bound(frame, then.scope, n), _bound(frame, other.scope, n)) for n in names]
        return found if value is None or second is None else [*found, (value, second)]

    def first() -> Value | None:
        return evaluate_block(statement.then, then, expected)

    chosen = branch_all(frame, statement.span, condition, first, otherwise, pairs)
    for name, value in zip(names, chosen, strict=False):
        frame.scope.bind(name, value, statement.span)
    return chosen[-1] if len(chosen) > len(names) else None


def _rebound(frame: Frame, then: Scope, other: Scope) -> Iterator[str]:
    """The names that have a value after the `if` whichever branch runs."""
    for name in dict.fromkeys((*then.names, *other.names)):
        if _is_local(frame.scope, name) or (name in then.names and name in other.names):
            yield name


def _is_local(scope: Scope, name: str) -> bool:
    """Whether a map around has given the name a value: a definition of a file or of the library of
    the same name is another thing."""
    return any(name in outer.names for outer in scope.enclosing() if type(outer) is Scope)


def _bound(frame: Frame, scope: Scope, name: str) -> Value:
    value = find(frame.inside(scope), name)
    assert value is not None
    return value
