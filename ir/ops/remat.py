"""Calls whose inner values are not kept for the backward pass but computed again in it.

The method is that of Griewank and Walther, "Algorithm 799: revolve", 2000, with one level: memory
for the arguments of the call alone, at the price of a second forward computation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from mapsto.ir.builder import Builder
from mapsto.ir.core import Array, Operation, SymbolReference, Trait, Value
from mapsto.ir.ops.control import Call, Jvp, Vjp
from mapsto.ir.ops.shaping import Constant, ints_of
from mapsto.ir.types import TensorType

__all__ = ["Barrier", "RematCall", "RematTangent"]

Derived = tuple[Sequence[Value], Sequence[Value | None]]


class RematCall(Call):
    """Applies a function of the module; its derivative keeps nothing but the arguments.

    In reverse mode the function is computed again, without its effects, when cotangents of its
    results are known.  In forward mode it is like any call.
    """

    name = "remat_call"
    has_own_derivative = True

    def pushed(self, build: Builder, tangents: Sequence[Value | None]) -> Derived:
        given = [tangent for tangent in tangents if tangent is not None]
        outputs = _floats(self.results)
        op = build.op(
            Jvp,
            *(*self.operands, *given),
            callee=self.attributes["callee"],
            results=tuple(v.type for v in (*self.results, *(self.results[i] for i in outputs))),
            wrt=_numbers(tangents),
            outputs=outputs,
        )
        count = len(self.results)
        return op.results[:count], _spread(op.results[count:], outputs, count)

    def linearized(self, build: Builder, tangents: Sequence[Value | None]) -> Derived:
        build.append(self)
        outputs = _floats(self.results)
        op = build.op(
            RematTangent,
            *(*(tangent for tangent in tangents if tangent is not None), *self.operands),
            callee=self.attributes["callee"],
            wrt=_numbers(tangents),
            called=tuple(result.type for result in self.results),
        )
        return self.results, _spread(op.results, outputs, len(self.results))


class RematTangent(Operation):
    """The tangents of a `remat_call`, as differentiation leaves them for a moment.

    Operands: a tangent for each argument in `wrt`, then the arguments.  `called` are the types of
    the call's results; the tangents are those of its floating-point results.
    """

    name = "remat_tangent"
    traits = Trait.OPAQUE
    not_differentiable = "it is transposed before that is asked for"
    attribute_types: ClassVar = {"callee": SymbolReference, "wrt": tuple, "called": tuple}

    @property
    def called(self) -> tuple[TensorType, ...]:
        """The types of the call's results."""
        types = self.attributes["called"]
        assert isinstance(types, tuple)
        return tuple(type_ for type_ in types if isinstance(type_, TensorType))

    def infer(self) -> tuple[TensorType, ...]:
        return tuple(type_ for type_ in self.called if type_.dtype.is_float)

    def pulled_back(
        self, build: Builder, cotangents: Sequence[Value | None], linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        wrt = ints_of(self, "wrt")
        arguments = self.operands[len(wrt) :]
        given = {i: ct for i, ct in enumerate(cotangents) if ct is not None}
        outputs = [i for i, type_ in enumerate(self.called) if type_.dtype.is_float]
        held = _held_back(build, arguments, list(given.values()))
        op = build.op(
            Vjp,
            *held,
            callee=self.attributes["callee"],
            results=(*self.called, *(arguments[i].type for i in wrt)),
            wrt=wrt,
            outputs=tuple(outputs[i] for i in given),
            silent=True,
        )
        return [*op.results[len(self.called) :], *[None] * len(arguments)]


class Barrier(Operation):
    """Its operands as they are; what is computed from its results is not merged with what is
    computed from the operands themselves, and starts when all operands are known."""

    name = "barrier"
    traits = Trait.OPAQUE

    def infer(self) -> tuple[TensorType, ...]:
        return tuple(operand.type for operand in self.operands)

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return operands

    def jvp(
        self, build: Builder, results: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]:
        return tangents


def _held_back(
    build: Builder, arguments: Sequence[Value], cotangents: Sequence[Value]
) -> list[Value]:
    """Arguments and cotangents behind a barrier; constants stay before it, where rules see them."""
    values = [v for v in (*arguments, *cotangents) if not isinstance(v.defining_op, Constant)]
    held = dict(zip(values, build.op(Barrier, *values).results, strict=True))
    return [held.get(value, value) for value in (*arguments, *cotangents)]


def _floats(values: Sequence[Value]) -> tuple[int, ...]:
    return tuple(i for i, value in enumerate(values) if value.dtype.is_float)


def _numbers(tangents: Sequence[Value | None]) -> tuple[int, ...]:
    return tuple(i for i, tangent in enumerate(tangents) if tangent is not None)


def _spread(values: Sequence[Value], places: Sequence[int], count: int) -> list[Value | None]:
    """The values at their places, None elsewhere."""
    found = dict(zip(places, values, strict=True))
    return [found.get(i) for i in range(count)]
