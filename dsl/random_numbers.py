"""Random numbers: `random` and `random_bits`, from which `stdlib/random.mto` makes all others.

A key is an i64; where it depends on indices, each point of them has numbers of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from mapsto import ir
from mapsto.dsl.calling import Given, Parameters, wrong_kind
from mapsto.dsl.diagnostics import Help, Kind
from mapsto.dsl.frame import Frame, fail
from mapsto.dsl.shaping import shape_argument
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import as_tensor, describe, elementwise
from mapsto.dsl.values import Argument, Builtin, Expected, Key, Nothing, Number, Tensor, Value

__all__ = ["RANDOM"]

_SUMMARIES = {
    "random": "uniform random numbers in [0, 1) from a key; `stream` tells independent ones apart",
    "random_bits": "random integers from a key, all numbers of the dtype equally likely",
}
_SIGNATURE = Parameters("key", "stream", "shape", required=1)


def _draw(
    name: str,
    frame: Frame,
    span: Span,
    arguments: tuple[Argument, ...],
    expected: Expected | None,
) -> Value:
    """The shape is given or what the context asks for; the context says the dtype."""
    given = _SIGNATURE.match(name, arguments, span)
    shape = _shape(given, expected)
    if shape is None:
        fail(Kind.UNKNOWN_RESULT_SHAPE, span, help=Help.GIVE_SHAPE, name=name)
    default, accepts = _DTYPES[name]
    dtype = (expected and expected.dtype) or default
    if not accepts(dtype):
        fail(Kind.DTYPE_NOT_ACCEPTED, span, operation=name, dtype=dtype)
    number = _stream(given["stream"]) if "stream" in given else 0
    key = given["key"].value
    if isinstance(key, Key):
        number = (key.stream + number) % 2**64
        key = Tensor(key.seed)
    keys = _keys(frame, Argument(None, key, given["key"].span))
    drawn = dtype if dtype.is_float else ir.DType.I64
    type = ir.TensorType(drawn, (*(variable.extent for variable in keys.axes), *shape))
    numbers = Tensor(frame.emit(span, ir.Random, keys.value, stream=number, type=type), keys.axes)
    if drawn is dtype:
        return numbers
    return elementwise(frame, span, ir.Cast, [numbers], dtype=dtype)


def _shape(given: Given, expected: Expected | None) -> tuple[ir.Dim, ...] | None:
    if "shape" in given and not isinstance(given["shape"].value, Nothing):
        return shape_argument(given["shape"])
    return None if expected is None else expected.shape


def _keys(frame: Frame, key: Argument) -> Tensor:
    """The key as a scalar, perhaps one for each point of some indices."""
    tensor = as_tensor(frame, key.span, key.value, ir.DType.I64)
    if tensor.type != ir.TensorType(ir.DType.I64):
        wrong_kind("key", "a key of type i64", key)
    return tensor


def _stream(argument: Argument) -> int:
    value = argument.value
    if not isinstance(value, Number) or not isinstance(value.value, int) or value.value < 0:
        fail(Kind.NOT_A_WHOLE_NUMBER, argument.span, found=describe(value))
    return value.value


_DTYPES: Mapping[str, tuple[ir.DType, Callable[[ir.DType], bool]]] = {
    "random": (ir.DType.F32, lambda dtype: dtype.is_float),
    "random_bits": (ir.DType.I64, lambda dtype: dtype.is_integer),
}
"""The dtype where the context asks for none, and which it may ask for."""

RANDOM: Mapping[str, Value] = {
    name: Builtin(name, summary, partial(_draw, name), usage=_SIGNATURE.usage)
    for name, summary in _SUMMARIES.items()
}
"""The sources of random numbers, by name."""
