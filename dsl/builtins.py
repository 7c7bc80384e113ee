"""The functions that the elaborator knows: elementwise ops, shapes, conversions, groups.

Every elementwise op of the IR without attributes is a function of the language under the name of
the op, so an op that a plugin registers can be called at once.  Layers, losses and optimizers are
not here: they are written in the language.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mapsto import ir
from mapsto.dsl.array_functions import ARRAY_FUNCTIONS
from mapsto.dsl.branches import choose
from mapsto.dsl.calling import Parameters, wrong_kind
from mapsto.dsl.calls import convert
from mapsto.dsl.configuration import CONFIGURATION
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.dimensions import DTYPES
from mapsto.dsl.effects import EFFECTS
from mapsto.dsl.evaluation import is_applicable, scalar_or_tensor
from mapsto.dsl.frame import Frame, fail
from mapsto.dsl.loops import LOOPS
from mapsto.dsl.modes import MODES
from mapsto.dsl.precision import PRECISION_MAPS
from mapsto.dsl.random_numbers import RANDOM
from mapsto.dsl.reductions import REDUCTIONS
from mapsto.dsl.source import Span
from mapsto.dsl.static_values import static_integer
from mapsto.dsl.structures import over_trees
from mapsto.dsl.tensors import as_tensor, describe, elementwise
from mapsto.dsl.transforms import TRANSFORMS
from mapsto.dsl.trees import TREES
from mapsto.dsl.values import (
    Argument,
    Builtin,
    Composition,
    Dimensions,
    ElementType,
    Expected,
    Formula,
    Group,
    Nothing,
    Number,
    ParameterTree,
    Position,
    Truth,
    Value,
)

__all__ = ["builtin", "builtins", "registered_function"]

Arguments = tuple[Argument, ...]
_RENAMED = {"max": "maximum", "min": "minimum"}
_OPERATORS = frozenset({"add", "sub", "mul", "div", "neg", "not", "and", "or", "select", "cast"})


def builtin(
    name: str, summary: str, *parameters: str, required: int | None = None
) -> Callable[[Callable[..., Value]], Builtin]:
    """Makes a builtin of a function of a frame, a span, the context's wish and its arguments."""
    count = len(parameters) if required is None else required
    signature = Parameters(*parameters, required=count)

    def decorate(function: Callable[..., Value]) -> Builtin:
        def apply(
            frame: Frame, span: Span, arguments: Arguments, expected: Expected | None
        ) -> Value:
            return function(frame, span, expected, **signature.match(name, arguments, span))

        return Builtin(name, summary, apply, usage=signature.usage)

    return decorate


def elementwise_builtin(op: type[ir.Operation]) -> Builtin:
    """A function of the language that applies an elementwise op."""
    name = _RENAMED.get(op.name, op.name)
    count = op.arity or 1
    names = ("x", "y", "z")[:count] if count <= 3 else tuple(f"x{i}" for i in range(count))
    signature = Parameters(*names, required=count)

    def apply(frame: Frame, span: Span, arguments: Arguments, expected: Expected | None) -> Value:
        given = signature.match(name, arguments, span)
        values = [given[n].value for n in names]
        if any(isinstance(value, ParameterTree) for value in values):
            return over_trees(frame, span, values, lambda _, own: elementwise(frame, span, op, own))
        for n in names:
            _check_operand(name, given[n])
        numbers = [value for value in values if isinstance(value, Number | Formula)]
        if len(numbers) == len(values):
            return _of_numbers(op, numbers)
        return elementwise(frame, span, op, values)

    doc = (op.__doc__ or "").strip().splitlines()
    summary = doc[0].rstrip(".") if doc else ""
    return Builtin(name, summary, apply, usage=signature.usage)


def _check_operand(name: str, given: Argument) -> None:
    value = given.value
    if not scalar_or_tensor(value) and not isinstance(value, Number | Formula | Position | Truth):
        fail(Kind.BAD_OPERAND, given.span, operator=name, found=describe(value))


def _of_numbers(op: type[ir.Operation], values: list[Number | Formula]) -> Value:
    """The op on numbers known during elaboration, in double precision."""
    operands = []
    for value in values:
        if isinstance(value, Formula) or isinstance(value.value, ir.DimExpression):
            return Formula(op, tuple(values))
        operands.append(value.value)
    scalars = [ir.Value(ir.TensorType(ir.DType.F64), None, 0) for _ in operands]
    with np.errstate(all="ignore"):
        (result,) = op(scalars).evaluate(*(np.asarray(float(x)) for x in operands))
    number = float(result)
    whole = all(isinstance(x, int) for x in operands) and op in (ir.Abs, ir.Max, ir.Min, ir.Sign)
    return Number(int(number) if whole else number)


@builtin("where", "`x` where the condition holds, else `y`", "condition", "x", "y")
def _where(
    frame: Frame,
    span: Span,
    expected: Expected | None,
    condition: Argument,
    x: Argument,
    y: Argument,
) -> Value:
    if isinstance(condition.value, Truth):
        return x.value if condition.value.value else y.value
    test = as_tensor(frame, condition.span, condition.value)
    if test.dtype is not ir.DType.BOOL:
        fail(Kind.NOT_A_TRUTH_VALUE, condition.span, found=test.type, operator="where")
    return choose(frame, span, test, x.value, y.value)


@builtin("cast", "the value in another dtype; to integers it rounds toward zero", "x", "dtype")
def _cast(
    frame: Frame, span: Span, expected: Expected | None, x: Argument, dtype: Argument
) -> Value:
    if not isinstance(dtype.value, ElementType):
        wrong_kind("dtype", "a dtype", dtype)
    return convert(frame, span, x.value, dtype.value.dtype)


@builtin("chain", "the maps of a list, one applied after another", "functions")
def _chain(frame: Frame, span: Span, expected: Expected | None, functions: Argument) -> Value:
    value = functions.value
    items = value.items if isinstance(value, Group) else (value,)
    for item in items:
        if not is_applicable(item):
            fail(Kind.NOT_CALLABLE, functions.span, found=describe(item))
    return Composition(items)


@builtin("identity", "x itself", "x")
def _identity(frame: Frame, span: Span, expected: Expected | None, x: Argument) -> Value:
    return x.value


@builtin("len", "the length of a list, or of a tensor's first axis", "x")
def _len(frame: Frame, span: Span, expected: Expected | None, x: Argument) -> Value:
    if isinstance(x.value, Group):
        return Number(len(x.value.items))
    tensor = as_tensor(frame, x.span, x.value)
    if not tensor.shape:
        fail(Kind.NOT_ITERABLE, x.span, found="a scalar")
    return Number(tensor.shape[0])


@builtin("size", "the number of elements of a tensor, or the product of a list of sizes", "x")
def _size(frame: Frame, span: Span, expected: Expected | None, x: Argument) -> Value:
    if isinstance(x.value, Dimensions):
        return Number(ir.product(x.value.dims))
    if isinstance(x.value, Group):
        numbers = [item.value for item in x.value.items if isinstance(item, Number)]
        wholes = [number for number in numbers if not isinstance(number, float)]
        if len(wholes) != len(x.value.items):
            fail(Kind.NOT_A_WHOLE_NUMBER, x.span, found=describe(x.value))
        return Number(ir.product(tuple(wholes)))
    return Number(ir.product(as_tensor(frame, x.span, x.value).shape))


_MAXIMUM_RANGE = 100_000


@builtin(
    "range",
    "the list of whole numbers from `start` up to `stop`",
    "start",
    "stop",
    "step",
    required=1,
)
def _range(
    frame: Frame, span: Span, expected: Expected | None, start: Argument, **rest: Argument
) -> Value:
    bounds = [static_integer(given.value, given.span) for given in (start, *rest.values())]
    if len(bounds) == 3 and bounds[2] == 0:
        fail(Kind.BAD_SLICE, span, text=span.text)
    numbers = range(*bounds)
    if len(numbers) > _MAXIMUM_RANGE:
        fail(Kind.TOO_MANY_ITERATIONS, span, limit=_MAXIMUM_RANGE)
    return Group(tuple(map(Number, numbers)), is_list=True)


_OWN = (_where, _cast, _chain, _identity, _len, _size, _range)


def builtins() -> Mapping[str, Value]:
    """Everything that has a name without being defined in the language."""
    found: dict[str, Value] = {
        _RENAMED.get(op.name, op.name): elementwise_builtin(op)
        for op in ir.registered_ops().values()
        if _is_function(op)
    }
    maps_of_maps = {**TRANSFORMS, **LOOPS, **MODES, **PRECISION_MAPS}
    found |= {**REDUCTIONS, **ARRAY_FUNCTIONS, **maps_of_maps, **RANDOM, **EFFECTS, **TREES}
    found |= CONFIGURATION
    found |= {function.name: function for function in _OWN}
    found["none"] = Nothing()
    found |= {name: ElementType(dtype) for name, dtype in DTYPES.items()}
    return found


def registered_function(name: str) -> Value | None:
    """The function of a registered op of this name; None if there is no such op."""
    op = ir.registered_ops().get(name)
    return elementwise_builtin(op) if op is not None and _is_function(op) else None


def _is_function(op: type[ir.Operation]) -> bool:
    return (
        issubclass(op, ir.Elementwise)
        and bool(op.arity)
        and not op.attribute_types
        and op.name not in _OPERATORS
        and not issubclass(op, ir.Compare | ir.Logical)
    )
