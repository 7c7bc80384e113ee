"""Functions whose derivative another function gives: `map f(...): ... gradient (dy): ...`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from mapsto.ir.builder import Builder
from mapsto.ir.core import Operation, SymbolReference, Trait, Value
from mapsto.ir.ops.control import Call, Vjp
from mapsto.ir.ops.shaping import ints_of
from mapsto.ir.types import TensorType

__all__ = ["CustomCall", "CustomTangent"]


class CustomCall(Call):
    """Applies a function of the module; the function `gradient` is its derivative.

    That one takes the arguments and then a cotangent for each floating-point result, and gives a
    cotangent for each floating-point argument.  It has to be linear in the cotangents it takes.
    Differentiation uses it in place of the function's body, in forward mode through its transpose.
    """

    name = "custom_call"
    has_own_derivative = True
    attribute_types: ClassVar = {**Call.attribute_types, "gradient": SymbolReference}

    def jvp(
        self, build: Builder, results: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]:
        floats = [i for i, operand in enumerate(self.operands) if operand.dtype.is_float]
        wrt = tuple(k for k, i in enumerate(floats) if tangents[i] is not None)
        given = [tangent for tangent in tangents if tangent is not None]
        types = tuple(result.type for result in results if result.dtype.is_float)
        outgoing: list[Value | None] = []
        for result in results:
            if not result.dtype.is_float:
                outgoing.append(None)
                continue
            output = sum(tangent is not None for tangent in outgoing)
            tangent = build.emit(
                CustomTangent,
                *(*given, *self.operands),
                gradient=self.attributes["gradient"],
                wrt=wrt,
                output=output,
                cotangents=types,
            )
            outgoing.append(tangent)
        return outgoing


class CustomTangent(Operation):
    """The tangent of one result of a `custom_call`, as differentiation leaves it for a moment.

    Operands: a tangent for each argument in `wrt` (numbered among those of floating point), then
    the arguments.  `cotangents` are the types of all floating-point results, of which this is
    number `output`.
    """

    name = "custom_tangent"
    traits = Trait.OPAQUE
    not_differentiable = "it is expanded before that is asked for"
    attribute_types: ClassVar = {
        "gradient": SymbolReference,
        "wrt": tuple,
        "output": int,
        "cotangents": tuple,
    }

    @property
    def wrt(self) -> tuple[int, ...]:
        """The floating-point arguments whose tangents are given."""
        return ints_of(self, "wrt")

    @property
    def output(self) -> int:
        """The number of the result among those of floating point."""
        output = self.attributes["output"]
        assert isinstance(output, int)
        return output

    @property
    def arguments(self) -> tuple[Value, ...]:
        """The arguments of the call."""
        return self.operands[len(self.wrt) :]

    @property
    def cotangents(self) -> tuple[TensorType, ...]:
        """The types of the call's floating-point results."""
        types = self.attributes["cotangents"]
        assert isinstance(types, tuple)
        return tuple(type for type in types if isinstance(type, TensorType))

    def infer(self) -> tuple[TensorType, ...]:
        return (self.cotangents[self.output],)

    def transpose(
        self, build: Builder, cotangent: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        seeds = self._zeros(build)
        seeds[self.output] = cotangent
        gradient, results = self.attributes["gradient"], self._gradient_types()
        operands = (*self.arguments, *seeds)
        call = build.op(Call, *operands, callee=gradient, results=results)
        return [*(call.results[k] for k in self.wrt), *[None] * len(self.arguments)]

    def expanded(self, build: Builder) -> Value:
        """Emits the tangent as the transpose of the gradient function, which is linear."""
        seeds, types = self._zeros(build), self._gradient_types()
        tangents = self.operands[: len(self.wrt)]
        op = build.op(
            Vjp,
            *(*self.arguments, *seeds, *tangents),
            callee=self.attributes["gradient"],
            results=(*types, self.cotangents[self.output]),
            wrt=(len(self.arguments) + self.output,),
            outputs=self.wrt,
        )
        return op.results[-1]

    def _zeros(self, build: Builder) -> list[Value]:
        return [build.constant(0, type.dtype, type.shape) for type in self.cotangents]

    def _gradient_types(self) -> tuple[TensorType, ...]:
        return tuple(v.type for v in self.arguments if v.dtype.is_float)
