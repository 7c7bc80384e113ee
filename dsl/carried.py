"""What a loop carries from step to step: a structure of tensors whose types stay the same.

A number written in the first value takes the type that the step makes of it: `0` is an `f32[n]`
where the step adds an `f32[n]` to it.  Under index notation a carried value may depend on indices
that its first value does not depend on: it gets axes for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from mapsto import ir
from mapsto.dsl.diagnostics import DiagnosticError, Kind, Note, NoteKind
from mapsto.dsl.frame import Frame, fail
from mapsto.dsl.source import Span
from mapsto.dsl.structures import describe_structure, leaves, rebuilt, same_structure
from mapsto.dsl.tensors import as_tensor, coerce, is_static, sorted_variables, spread
from mapsto.dsl.values import IndexVariable, Tensor, Truth, Value

__all__ = ["Carried", "LeafType", "adapts"]


def adapts(value: Value) -> bool:
    """Whether the value takes the element type and the shape that its context asks for."""
    return is_static(value) and not isinstance(value, Truth)


@dataclass(frozen=True, slots=True)
class LeafType:
    """The type of a tensor at each point of the indices that it depends on."""

    type: ir.TensorType
    axes: tuple[IndexVariable, ...] = ()

    @staticmethod
    def of(tensor: Tensor) -> LeafType:
        """That of a tensor."""
        return LeafType(tensor.type, tensor.axes)

    def over(self, axes: Sequence[IndexVariable]) -> LeafType:
        """The type with more indices."""
        return replace(self, axes=sorted_variables((*self.axes, *axes)))

    def fresh(self, hint: str = "") -> Tensor:
        """A new value of this type."""
        extents = tuple(variable.extent for variable in self.axes)
        full = self.type.with_shape((*extents, *self.type.shape))
        return Tensor(ir.Value(full, None, 0, hint), self.axes)

    def fitted(self, frame: Frame, span: Span, value: Value, what: str) -> Tensor:
        """A value in this type, repeated over its indices."""
        return self.spread(frame, span, coerce(frame, span, value, self.type, what=what))

    def spread(self, frame: Frame, span: Span, tensor: Tensor) -> Tensor:
        """A tensor of the element type repeated to this shape, over these indices."""
        return Tensor(spread(frame, span, tensor, self.axes, self.type.shape), self.axes)


class Carried:
    """The structure that a loop carries, with what is known of the types of its leaves."""

    def __init__(self, frame: Frame, first: Value, span: Span) -> None:
        """`first` is the value before the first step, written at `span`."""
        self.first = first
        self.span = span
        given = list(leaves(first))
        self.adapting = {i for i, leaf in enumerate(given) if adapts(leaf)}
        self.start = [
            leaf if i in self.adapting else as_tensor(frame, span, leaf)
            for i, leaf in enumerate(given)
        ]
        self.types = [LeafType.of(as_tensor(frame, span, leaf)) for leaf in self.start]
        self.doubt: DiagnosticError | None = None
        """Why the step could not tell what the numbers become."""
        self.guessed: Value | None = None
        """What it made of the numbers, if it could tell."""

    def guess(self, frame: Frame, step: Callable[[], Value]) -> None:
        """Gives the numbers of the first value the types that they have after a step, which `step`
        elaborates."""
        if not self.adapting:
            return
        with frame.session.scratch():
            try:
                after = step()
            except DiagnosticError as error:
                self.doubt = error
                return
            self._adapt(frame, after)

    def _adapt(self, frame: Frame, after: Value) -> None:
        if not same_structure(self.first, after):
            return
        self.guessed = after
        for i, leaf in enumerate(leaves(after)):
            if i in self.adapting and not adapts(leaf):
                try:
                    self.types[i] = LeafType.of(as_tensor(frame, self.span, leaf))
                except DiagnosticError:
                    continue

    @contextmanager
    def doubtful(self, place: Span) -> Iterator[None]:
        """Where a step does not accept the types that numbers were given: tells where those came
        from, the step's own result at `place` or an assumption."""
        try:
            yield
        except DiagnosticError as error:
            if self.doubt is not None:
                raise self.doubt from None
            if self.guessed is not None and error.diagnostic.span == self.span:
                expected = describe_structure(self.first)
                self._fail(place, expected, self.guessed)
            raise

    def fresh(self) -> list[Tensor]:
        """New values for the leaves, as a step sees them."""
        return [
            type.fresh(leaf.value.hint if isinstance(leaf, Tensor) else "")
            for type, leaf in zip(self.types, self.start, strict=True)
        ]

    def structure(self, tensors: Sequence[Tensor]) -> Value:
        """The carried structure with these leaves."""
        return rebuilt(self.first, tensors)

    def starting(self, frame: Frame) -> list[ir.Value]:
        """The values before the first step."""
        return [
            type.fitted(frame, self.span, leaf, "the first value").value
            for type, leaf in zip(self.types, self.start, strict=True)
        ]

    def cover(self, axes: Sequence[IndexVariable]) -> bool:
        """Whether every leaf depends on these indices; lets them all do so."""
        wider = [type.over(axes) for type in self.types]
        same = wider == self.types
        self.types = wider
        return same

    def settle(self, frame: Frame, span: Span, after: Value) -> bool:
        """Whether a step gives the types that it got.

        Where a leaf may still change its type it does, for another try.  DiagnosticError, at
        `span`, where the step carries something else on.
        """
        if not same_structure(self.first, after):
            self._fail_step(span, after)
        settled = True
        for i, leaf in enumerate(leaves(after)):
            if adapts(leaf):
                continue
            tensor = as_tensor(frame, span, leaf)
            known = self.types[i]
            if tensor.type != known.type and i not in self.adapting:
                self._fail_step(span, after)
            wider = LeafType.of(tensor).over(known.axes)
            if tensor.type != known.type:
                self.adapting.discard(i)
            if wider != known:
                self.types[i], settled = wider, False
        return settled

    def fitted(self, frame: Frame, span: Span, after: Value) -> list[ir.Value]:
        """The values that a step carries on."""
        return [
            type.fitted(frame, span, leaf, "the carried value").value
            for type, leaf in zip(self.types, leaves(after), strict=True)
        ]

    def _fail_step(self, span: Span, after: Value) -> None:
        shown = [Tensor(ir.Value(type.type, None, 0)) for type in self.types]
        self._fail(span, describe_structure(self.structure(shown)), after)

    def _fail(self, span: Span, expected: str, after: Value) -> None:
        note = Note(NoteKind.CARRY_STARTS, self.span, {"type": expected})
        found = describe_structure(after)
        fail(Kind.CARRY_CHANGES, span, notes=[note], expected=expected, found=found)
