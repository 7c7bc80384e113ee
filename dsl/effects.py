"""The statements `print` and `assert`."""

from __future__ import annotations

from collections.abc import Sequence

from mapsto import ir
from mapsto.dsl.arithmetic import decide
from mapsto.dsl.calling import Given, Parameters, wrong_kind
from mapsto.dsl.diagnostics import Help, Kind
from mapsto.dsl.evaluation import applies
from mapsto.dsl.frame import Frame, Guard, fail
from mapsto.dsl.reductions import reduce_variables
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import as_tensor, elementwise
from mapsto.dsl.values import Argument, Effect, Expected, Group, Number, Tensor, Text, Truth, Value
from mapsto.ir.array_text import PLACEHOLDER

__all__ = ["EFFECTS"]

_ASSERT = Parameters("condition", "message", required=1)


@applies(Effect)
def _as_value(
    function: Effect,
    frame: Frame,
    span: Span,
    arguments: tuple[Argument, ...],
    expected: Expected | None,
) -> Value:
    fail(Kind.NO_VALUE_OF_STATEMENT, span, name=function.name)


def _print(frame: Frame, span: Span, arguments: tuple[Argument, ...]) -> None:
    """Text with the values at its placeholders; without any, they follow the text."""
    for argument in arguments:
        if argument.name is not None:
            place = argument.name_span or argument.span
            fail(Kind.UNKNOWN_ARGUMENT, place, name=argument.name, owner="print", suggestion=None)
    text, values = "", list(arguments)
    if values and isinstance(values[0].value, Text):
        text = values.pop(0).value.value  # type: ignore[attr-defined]
    pieces = text.split(PLACEHOLDER)
    if len(pieces) == 1:
        pieces = [text, *[""] * len(values)]
        separators = [" " * bool(number or text) for number in range(len(values))]
    elif len(pieces) != len(values) + 1:
        fail(Kind.PLACEHOLDERS, span, places=len(pieces) - 1, found=len(values))
    else:
        separators = [""] * len(values)
    operands: list[ir.Value] = []
    shown = [_shown(frame, argument, operands) for argument in values]
    parts = zip(separators, shown, pieces[1:], strict=True)
    whole = pieces[0] + "".join(before + value + after for before, value, after in parts)
    frame.operation(span, ir.Print, *operands, text=whole)


def _shown(frame: Frame, argument: Argument, operands: list[ir.Value]) -> str:
    """The text of a value that is known; placeholders of tensors, which `operands` receives."""
    match argument.value:
        case Text(text):
            return text
        case Truth(value):
            return str(value)
        case Number(value) if isinstance(value, int | float):
            return f"{value}"
        case Group(items):
            parts = [Argument(None, item, argument.span) for item in items]
            texts = [_shown(frame, part, operands) for part in parts]
            names = argument.value.names or [""] * len(texts)
            shown = ", ".join(f"{n} = {t}" if n else t for n, t in zip(names, texts, strict=True))
            return f"[{shown}]" if argument.value.is_list else f"({shown})"
    dtype = ir.DType.I64 if isinstance(argument.value, Number) else None
    operands.append(as_tensor(frame, argument.span, argument.value, dtype).value)
    return PLACEHOLDER


def _assert(frame: Frame, span: Span, arguments: tuple[Argument, ...]) -> None:
    given = _ASSERT.match("assert", arguments, span)
    condition = given["condition"]
    message = _message(given)
    holds = decide(frame, condition.span, condition.value, "assert")
    if isinstance(holds, bool):
        if holds:
            return
        if not frame.session.guards:
            fail(Kind.ASSERTION_FALSE, condition.span, message=message)
        holds = as_tensor(frame, condition.span, Truth(False))
    if holds.shape:
        fail(Kind.NOT_ONE_TRUTH, condition.span, found=holds.type, help=Help.WRITE_ALL)
    for guard in frame.session.guards:
        if guard is not None:
            holds = _unless(frame, span, guard, holds)
    if holds.axes:
        holds = reduce_variables(frame, span, "all", holds, holds.axes)
    frame.operation(span, ir.Assert, holds.value, message=message)


def _unless(frame: Frame, span: Span, guard: Guard, holds: Tensor) -> Tensor:
    """Whether it holds at the points whose branch is taken."""
    other = guard.condition
    if guard.holds:
        other = elementwise(frame, span, ir.Not, [other])
    return elementwise(frame, span, ir.Or, [other, holds])


def _message(given: Given) -> str:
    """What an assertion says; without a message, what it is about."""
    argument = given.get("message")
    if argument is None:
        return " ".join(given["condition"].span.text.split())
    if not isinstance(argument.value, Text):
        wrong_kind("message", "a string", argument)
    return argument.value.value


_ALL: Sequence[Effect] = (
    Effect(
        "print", "a line on standard output: text with the values at its `{}`", _print, "text, .."
    ),
    Effect(
        "assert", "stops with a message where the condition does not hold", _assert, _ASSERT.usage
    ),
)

EFFECTS = {effect.name: effect for effect in _ALL}
"""The statements by name."""
