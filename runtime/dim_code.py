"""LLVM code that computes dimensions from the values of named sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mapsto.ir.dims import Dim, FloorDiv
from mapsto.lowering.llvm.types import I1, I64, LLVMType, Operand, constant
from mapsto.lowering.llvm.writer import FunctionWriter

__all__ = ["DimWriter"]


class DimWriter:
    """Writes the computation of dimensions into a function and collects what makes them invalid.

    `invalid` is an i1 that is true where an operation so far overflowed 64 bits, divided by a
    number that is not positive, or failed a `require`.
    """

    def __init__(self, function: FunctionWriter, sizes: Mapping[str, Operand]) -> None:
        self.function = function
        self.sizes = sizes
        self._faults: list[Operand] = []

    def invalid(self) -> Operand:
        """Whether anything was wrong since this was last asked."""
        result = constant(I1, False)
        for fault in self._faults:
            result = fault if result == constant(I1, False) else self.function.or_(result, fault)
        self._faults.clear()
        return result

    def require(self, condition: Operand) -> None:
        """Makes the dimensions invalid where an i1 is false."""
        self._faults.append(self.function.not_(condition))

    def dim(self, dim: Dim) -> Operand:
        """The value of a dimension, as an i64."""
        if isinstance(dim, int):
            return constant(I64, dim)
        total: Operand | None = None
        for monomial, coefficient in dim.terms:
            factors = [self._atom(atom) for atom in monomial]
            term = self._product(coefficient, factors)
            total = term if total is None else self._checked("sadd", total, term)
        return constant(I64, 0) if total is None else total

    def elements(self, dims: Iterable[Operand]) -> Operand:
        """The product of dimensions that are already computed."""
        return self._product(1, list(dims))

    def _product(self, coefficient: int, factors: list[Operand]) -> Operand:
        if coefficient != 1 or not factors:
            factors = [*factors, constant(I64, coefficient)]
        total = factors[0]
        for factor in factors[1:]:
            total = self._checked("smul", total, factor)
        return total

    def _atom(self, atom: str | FloorDiv) -> Operand:
        if isinstance(atom, str):
            return self.sizes[atom]
        f = self.function
        zero = constant(I64, 0)
        numerator, divisor = self.dim(atom.numerator), self.dim(atom.denominator)
        positive = f.icmp("sgt", divisor, zero)
        self.require(positive)
        safe = f.select(positive, divisor, constant(I64, 1))
        quotient = f.sdiv(numerator, safe)
        below = f.icmp("slt", f.srem(numerator, safe), zero)
        return f.sub(quotient, f.zext(below, I64))

    def _checked(self, operation: str, left: Operand, right: Operand) -> Operand:
        f = self.function
        name = f"llvm.{operation}.with.overflow.i64"
        f.declare_text(name, f"declare {{ i64, i1 }} @{name}(i64, i64)")
        pair = f.emit(I64, f"call {{ i64, i1 }} @{name}({left}, {right})")
        self._faults.append(self._part(pair, 1, I1))
        return self._part(pair, 0, I64)

    def _part(self, pair: Operand, index: int, type: LLVMType) -> Operand:
        return self.function.emit(type, f"extractvalue {{ i64, i1 }} {pair.text}, {index}")
