"""Mixed precision: `in_precision(f, bf16)` computes the products of a map in a half type.

What contracts two or more f32 tensors (matrix products, convolutions and their derivatives) rounds
its operands and its result to the half type, and accumulates in f32.  All else stays in f32: the
parameters, their gradients, elementwise functions, reductions, normalization, softmax, losses.
Micikevicius et al., "Mixed precision training", 2017.
"""

from __future__ import annotations

from collections.abc import Mapping

from mapsto import ir
from mapsto.dsl.calling import Parameters, map_argument
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.evaluation import applies, apply
from mapsto.dsl.frame import Frame, fail
from mapsto.dsl.source import Span
from mapsto.dsl.structures import mapped
from mapsto.dsl.tensors import as_tensor, describe
from mapsto.dsl.values import Argument, Builtin, ElementType, Expected, Precision, Product, Value

__all__ = ["PRECISIONS", "PRECISION_MAPS"]

PRECISIONS = {"f32": ir.DType.F32, "bf16": ir.DType.BF16, "f16": ir.DType.F16}
"""The element types to compute products of f32 tensors in, by name."""

_SIGNATURE = Parameters("f", "dtype", required=2)
_SUMMARY = "the map with products of f32 tensors rounded to bf16 or f16; f32 keeps them as they are"


@applies(Precision)
def _apply(
    function: Precision,
    frame: Frame,
    span: Span,
    arguments: tuple[Argument, ...],
    expected: Expected | None,
) -> Value:
    with frame.session.products_in(function.dtype):
        value = apply(function.function, frame, span, arguments, expected)
        return mapped(lambda leaf: _carried_out(frame, span, leaf), value)


def _carried_out(frame: Frame, span: Span, leaf: Value) -> Value:
    """The leaf, with a product computed here rather than where it is used."""
    return as_tensor(frame, span, leaf) if isinstance(leaf, Product) else leaf


def _in_precision(
    frame: Frame, span: Span, arguments: tuple[Argument, ...], expected: Expected | None
) -> Value:
    given = _SIGNATURE.match("in_precision", arguments, span)
    function, dtype = map_argument(given["f"]), given["dtype"]
    if not isinstance(dtype.value, ElementType) or dtype.value.dtype not in PRECISIONS.values():
        found = describe(dtype.value)
        what, known = "`dtype`", "f32, bf16 or f16"
        fail(Kind.WRONG_VALUE, dtype.span, what=what, expected=known, found=found)
    return Precision(function, dtype.value.dtype)


PRECISION_MAPS: Mapping[str, Value] = {
    "in_precision": Builtin("in_precision", _SUMMARY, _in_precision, usage=_SIGNATURE.usage)
}
"""What the language has for mixed precision, by name."""
