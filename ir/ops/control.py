"""Blocks, calls and the grouping of ops into kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from mapsto.ir.core import Array, Operation, SymbolReference, Trait, Value
from mapsto.ir.errors import TypeRuleError
from mapsto.ir.types import TensorType

__all__ = ["Call", "Jvp", "Kernel", "Return", "Vjp"]


class Return(Operation):
    """Ends a block and gives its results."""

    name = "return"
    traits = Trait.TERMINATOR

    def infer(self) -> tuple[TensorType, ...]:
        return ()


class _Callee(Operation):
    """Refers to a function of the module; `results` are the types of the op's own results.

    They are given because an op does not see the module; the verifier compares them with those
    of the callee.
    """

    traits = Trait.OPAQUE
    attribute_types: ClassVar = {"callee": SymbolReference, "results": tuple}

    @property
    def callee(self) -> str:
        """The name of the function."""
        callee = self.attributes["callee"]
        assert isinstance(callee, SymbolReference)
        return callee.name

    @property
    def has_effect(self) -> bool:
        """True, as what the callee does is not known here."""
        return True

    def infer(self) -> tuple[TensorType, ...]:
        types = self.attributes["results"]
        assert isinstance(types, tuple)
        return tuple(type for type in types if isinstance(type, TensorType))


class Call(_Callee):
    """Applies a function of the module."""

    name = "call"
    has_own_derivative: ClassVar[bool] = False
    """Whether the derivative is more than that of the function's body."""


class Jvp(_Callee):
    """A function and its derivative along a direction (forward mode).

    Operands: the callee's arguments, then a tangent for each argument in `wrt`.  Results: the
    callee's results, then the tangents of the results in `outputs`.
    """

    name = "jvp"
    attribute_types: ClassVar = {**_Callee.attribute_types, "wrt": tuple, "outputs": tuple}


class Vjp(_Callee):
    """A function and the pullback of cotangents of its results (reverse mode).

    Operands: the callee's arguments, then a cotangent for each result in `outputs`.  Results: the
    callee's results, then the cotangents of the arguments in `wrt`.  The gradient of a scalar
    result is its pullback of 1.  Where it is `silent`, the callee's effects are left out.
    """

    name = "vjp"
    attribute_types: ClassVar = {
        **_Callee.attribute_types,
        "wrt": tuple,
        "outputs": tuple,
        "silent": bool,
    }
    defaults: ClassVar = {"silent": False}


class Kernel(Operation):
    """Ops that are computed together: operands are the buffers read, results those written.

    The region's block has one argument per operand and returns the results.
    """

    name = "kernel"
    not_differentiable = "kernels are made after derivatives are taken"

    def infer(self) -> tuple[TensorType, ...]:
        if len(self.regions) != 1:
            raise TypeRuleError(f"kernel has one body, found {len(self.regions)}")
        block = self.regions[0].block
        given = [operand.type for operand in self.operands]
        expected = [argument.type for argument in block.arguments]
        if given != expected:
            raise TypeRuleError(f"kernel of {given} where its body takes {expected}")
        return tuple(value.type for value in block.returned)

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        from mapsto.ir.evaluator import evaluate_block

        return evaluate_block(self.regions[0].block, operands)

    @property
    def returned(self) -> tuple[Value, ...]:
        """The values inside the body that become the results."""
        return self.regions[0].block.returned
