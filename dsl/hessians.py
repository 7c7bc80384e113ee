"""Second derivatives: the derivative of the gradient along each element, forward over reverse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mapsto import ir
from mapsto.dsl.derivatives import push
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.evaluation import scalar_or_tensor
from mapsto.dsl.frame import Frame, fail
from mapsto.dsl.source import Span
from mapsto.dsl.structures import leaves, rebuilt
from mapsto.dsl.tensors import as_tensor, describe, elementwise, is_static, spread
from mapsto.dsl.values import Argument, Group, IndexVariable, Position, Tensor, Transform, Value

__all__ = ["second_derivatives"]


def second_derivatives(
    function: Transform,
    argnums: Sequence[int],
    frame: Frame,
    span: Span,
    arguments: tuple[Argument, ...],
) -> list[list[Value]]:
    """For each chosen argument, and each again, the second derivatives by both.

    By tensors of shapes s and t that is a tensor of shape s + t; of structures it is the first
    structure with the second one in the place of each tensor.
    """
    work = _Hessian(function, argnums, frame, span, arguments)
    columns = [work.column(number) for number in range(len(work.tensors))]
    return [[work.block(columns, i, j) for j in range(len(argnums))] for i in range(len(argnums))]


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A tensor to differentiate by, and which of the chosen arguments it is in."""

    argument: int
    tensor: Tensor


class _Hessian:
    """The second derivatives of one call."""

    def __init__(
        self,
        function: Transform,
        argnums: Sequence[int],
        frame: Frame,
        span: Span,
        arguments: tuple[Argument, ...],
    ) -> None:
        self.gradient = replace(function, kind="grad", single=False)
        self.argnums = argnums
        self.frame = frame
        self.span = span
        self.arguments = arguments
        self.chosen = [arguments[number] for number in argnums]
        self.tensors = [
            _Leaf(i, self._tensor(given, leaf))
            for i, given in enumerate(self.chosen)
            for leaf in leaves(given.value)
        ]

    def _tensor(self, given: Argument, leaf: Value) -> Tensor:
        if not scalar_or_tensor(leaf) and not is_static(leaf):
            fail(Kind.NOT_DIFFERENTIABLE, given.span, found=describe(leaf))
        return as_tensor(self.frame, given.span, leaf, ir.DType.F32)

    def column(self, number: int) -> list[Tensor]:
        """The derivative of the whole gradient by the elements of one tensor, which are the last
        axes."""
        frame, span = self.frame, self.span
        shape = self.tensors[number].tensor.shape
        element = IndexVariable("element", ir.product(shape), span)
        directions = [self._direction(i, number, element) for i in range(len(self.chosen))]
        _, found = push(self.gradient, self.argnums, frame, span, self.arguments, directions)
        return [
            self._stacked(as_tensor(frame, span, leaf), element, shape) for leaf in leaves(found)
        ]

    def _direction(self, argument: int, number: int, element: IndexVariable) -> Argument:
        """The unit vectors of one tensor, zero elsewhere."""
        frame, span = self.frame, self.span
        parts: list[Value] = []
        for i, leaf in enumerate(self.tensors):
            if leaf.argument == argument:
                type = leaf.tensor.type
                parts.append(
                    self._units(type, element) if i == number else frame.constant(span, 0, type)
                )
        given = self.chosen[argument]
        return Argument(None, rebuilt(given.value, parts), given.span)

    def _units(self, type: ir.TensorType, element: IndexVariable) -> Tensor:
        """Element `element` is 1, the others are 0."""
        frame, span = self.frame, self.span
        own = as_tensor(frame, span, Position.of(element))
        numbers = ir.TensorType(ir.DType.I32, (element.extent,))
        places = Tensor(frame.emit(span, ir.Iota, axis=0, type=numbers))
        equal = elementwise(frame, span, ir.Eq, [places, own])
        units = elementwise(frame, span, ir.Cast, [equal], dtype=type.dtype)
        shape = (element.extent, *type.shape)
        return Tensor(frame.emit(span, ir.Reshape, units.value, shape=shape), (element,))

    def _stacked(self, tensor: Tensor, element: IndexVariable, shape: tuple[ir.Dim, ...]) -> Tensor:
        """The axis of the elements behind the others, in the shape that they have."""
        frame, span = self.frame, self.span
        outer = tuple(v for v in tensor.axes if v is not element)
        value = spread(frame, span, tensor, (*outer, element), tensor.shape)
        count, rank = len(outer), len(value.shape)
        order = (*range(count), *range(count + 1, rank), count)
        moved = frame.emit(span, ir.Transpose, value, permutation=order)
        full = (*moved.shape[:-1], *shape)
        return Tensor(frame.emit(span, ir.Reshape, moved, shape=full), outer)

    def block(self, columns: Sequence[Sequence[Tensor]], i: int, j: int) -> Value:
        """The second derivatives by chosen argument i, then j."""
        rows = [a for a, leaf in enumerate(self.tensors) if leaf.argument == i]
        others = [b for b, leaf in enumerate(self.tensors) if leaf.argument == j]
        second = self.chosen[j].value
        entries: list[Value] = [rebuilt(second, [columns[b][a] for b in others]) for a in rows]
        return _nested(self.chosen[i].value, entries)


def _nested(structure: Value, entries: list[Value]) -> Value:
    """The structure with these values, which may be structures themselves, at its leaves."""
    if isinstance(structure, Group):
        return structure.with_items([_nested(item, entries) for item in structure.items])
    return entries.pop(0)
