"""Index expressions to LLVM integers: scalar values, or one value a lane."""

from __future__ import annotations

import math

from mapsto.ir.dims import Dim
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.index_facts import index_multiple
from mapsto.lowering.indices import (
    Atom,
    Composite,
    Index,
    IndexExpression,
    ValueOf,
    atom_index,
    flat_offset,
    index_terms,
    map_atoms,
)
from mapsto.lowering.llvm.loop_resolution import Resolver
from mapsto.lowering.llvm.loop_scope import Fact, Place, Scope, memory_type
from mapsto.lowering.llvm.types import I64, LLVMType, Operand, constant, constant_vector
from mapsto.lowering.llvm.writer import FunctionWriter
from mapsto.lowering.loops import Expression

__all__ = ["IndexEmitter", "is_literal"]

_UNKNOWN = Fact()


def is_literal(operand: Operand) -> bool:
    """Whether an operand is a constant written in place."""
    return not operand.text.startswith("%")


class IndexEmitter:
    """Computes indices and addresses.  A resolved index has SSA names (`%v1`) as its atoms."""

    index_type: LLVMType = I64
    """That of all indices."""

    def __init__(self, f: FunctionWriter, machine: Machine) -> None:
        self.f = f
        self.machine = machine
        self.facts: dict[str, Fact] = {}
        self.resolver = Resolver()
        self._multiples: dict[IndexExpression, int] = {}
        self._offsets: dict[tuple[int, tuple[Dim, ...]], tuple[tuple[Index, ...], Index]] = {}

    def evaluate(self, scope: Scope, expression: Expression) -> Operand:
        """The value of a scalar expression: one lane where it is the same in all, else a vector."""
        raise NotImplementedError

    def splat(self, scope: Scope, value: Operand, lanes: int) -> Operand:
        """The value in every lane, computed once."""
        if lanes == 1 or value.type.lanes == lanes:
            return value
        if is_literal(value):
            text = f"splat ({value.type} {value.text})"
            return Operand(text, value.type.vector(lanes))
        key = ("splat", value.text, lanes)
        return scope.cache.get(key) or scope.cache.put(key, self.f.splat(value, lanes))

    # ---- resolving

    def resolve(self, scope: Scope, index: Index) -> Index:
        """The index with variables replaced by what they are bound to (a vector loop's variable:
        by that of its first lane) and values of expressions computed."""
        if isinstance(index, int):
            return index
        simplified = self.resolver.simplified(index, scope.ranges)
        if not self.resolver.contents(index).has_values:
            return self.resolver.bound(simplified, scope.indices)
        bindings = scope.indices.get
        return map_atoms(
            simplified,
            lambda atom: bindings(atom) if isinstance(atom, str) else self._binding(scope, atom),
        )

    def _binding(self, scope: Scope, atom: Atom) -> Index | None:
        if isinstance(atom, ValueOf):
            return atom_index(self._integer_value(scope, atom).text)
        return None

    def _integer_value(self, scope: Scope, atom: ValueOf) -> Operand:
        value = self.evaluate(scope, atom.expression)
        bits = self.index_type.bits
        if value.type.bits == bits:
            return value if not is_literal(value) else self.f.add(value, constant(value.type, 0))
        widen = self.f.sext if atom.expression.type.is_signed else self.f.zext
        return widen(value, value.type.with_kind(self.index_type.kind))

    def split(self, scope: Scope, index: Index) -> tuple[Index, Index] | None:
        """`(first, slope)`, resolved: lane `l` has the index `first + slope * l`.  None where it is
        not of that form.  Outside vector loops the slope is 0."""
        lanes = scope.lanes
        if lanes is None or isinstance(index, int):
            return self.resolve(scope, index), 0
        simplified = self.resolver.simplified(index, scope.ranges)
        pinned: Index | None = simplified
        if self.resolver.contents(index).has_values:
            pinned = self._pin_uniform_values(scope, simplified)
        parts = None if pinned is None else self.resolver.linear_parts(pinned, lanes.variable)
        if pinned is None or parts is None:
            return None
        slope = parts[0]
        if not isinstance(slope, int):
            slope = self.resolve(scope, slope)
        return self.resolve(scope, pinned), slope

    def _pin_uniform_values(self, scope: Scope, index: Index) -> Index | None:
        """The index with values of expressions computed; None where one differs between lanes."""
        uniform = True

        def pin(atom: Atom) -> Index | None:
            nonlocal uniform
            if not isinstance(atom, ValueOf):
                return None
            value = self._integer_value(scope, atom)
            uniform = uniform and value.type.lanes == 1
            return atom_index(value.text)

        pinned = map_atoms(index, pin)
        return pinned if uniform else None

    # ---- scalars

    def index_operand(self, scope: Scope, index: Index) -> Operand:
        """The value of a resolved index."""
        if isinstance(index, int):
            return constant(self.index_type, index)
        found = scope.cache.get(index)
        if found is not None:
            return found
        total: Operand | None = None
        for monomial, coefficient in index.terms:
            term = self._term(scope, monomial, coefficient)
            total = term if total is None else self.f.add(total, term, "nsw")
        assert total is not None, "an index expression has terms"
        return scope.cache.put(index, total)

    def _term(self, scope: Scope, monomial: tuple[Atom, ...], coefficient: int) -> Operand:
        if not monomial:
            return constant(self.index_type, coefficient)
        product = self._product(scope, monomial)
        if coefficient == 1:
            return product
        return self.f.mul(product, constant(self.index_type, coefficient), "nsw")

    def _product(self, scope: Scope, monomial: tuple[Atom, ...]) -> Operand:
        if len(monomial) == 1:
            return self._atom(scope, monomial[0])
        found = scope.cache.get(monomial)
        if found is not None:
            return found
        left = self._product(scope, monomial[:-1])
        value = self.f.mul(left, self._atom(scope, monomial[-1]), "nsw")
        return scope.cache.put(monomial, value)

    def _atom(self, scope: Scope, atom: Atom) -> Operand:
        if isinstance(atom, Composite):
            left = self.index_operand(scope, atom.left)
            right = self.index_operand(scope, atom.right)
            return self._composite(atom, left, right)
        text = str(atom)
        if not text.startswith("%"):
            raise KeyError(f"loop variable or size `{text}` is not defined here")
        return Operand(text, self.index_type)

    def _composite(self, atom: Composite, left: Operand, right: Operand) -> Operand:
        if atom.kind == "min":
            return self.f.smin(left, right)
        if atom.kind == "max":
            return self.f.smax(left, right)
        if self.is_nonnegative(atom.left):
            divide = self.f.udiv if atom.kind == "floordiv" else self.f.urem
            return divide(left, right)
        return self._floor_divide(atom.kind, left, right)

    def _floor_divide(self, kind: str, left: Operand, right: Operand) -> Operand:
        """Rounding down for a positive divisor, from division that truncates."""
        f = self.f
        remainder = f.srem(left, right)
        negative = f.icmp("slt", remainder, constant(left.type, 0))
        if kind == "mod":
            return f.select(negative, f.add(remainder, right), remainder)
        return f.add(f.sdiv(left, right), f.sext(negative, left.type))

    # ---- facts

    def bind(self, scope: Scope, name: str, value: Operand, fact: Fact = _UNKNOWN) -> Scope:
        """The scope with a loop variable bound to an SSA value of which the fact is known."""
        self.facts[value.text] = fact
        return scope.with_index(name, atom_index(value.text))

    def is_nonnegative(self, index: Index) -> bool:
        """Whether a resolved index is known not to be negative."""
        return all(
            c >= 0 and all(self._fact(atom).nonnegative for atom in monomial)
            for monomial, c in index_terms(index)
        )

    def multiple_of(self, index: Index) -> int:
        """A number that is known to divide a resolved index (0 for the index 0)."""
        if isinstance(index, int):
            return abs(index)
        found = self._multiples.get(index)
        if found is None:
            found = index_multiple(index, lambda name: self._fact(name).multiple)
            self._multiples[index] = found
        return found

    def _fact(self, atom: Atom) -> Fact:
        if isinstance(atom, str):
            return self.facts.get(atom, _UNKNOWN)
        if isinstance(atom, Composite):
            left, right = self.is_nonnegative(atom.left), self.is_nonnegative(atom.right)
            return Fact(1, {"min": left and right, "max": left or right}.get(atom.kind, left))
        return _UNKNOWN

    # ---- one value a lane

    def index_vector(self, scope: Scope, index: Index) -> Operand:
        """The value of an (unresolved) index in each lane of the vector loop around."""
        assert scope.lanes is not None, "lanes exist only in vector loops"
        count = scope.lanes.count
        parts = self.split(scope, index)
        if parts is not None:
            return self._lane_sequence(scope, *parts)
        total: Operand | None = None
        for monomial, coefficient in index_terms(index):
            term = constant(self.index_type.vector(count), coefficient)
            for atom in monomial:
                term = self.f.mul(term, self._atom_vector(scope, atom))
            total = term if total is None else self.f.add(total, term)
        assert total is not None, "an index expression has terms"
        return total

    def _lane_sequence(self, scope: Scope, first: Index, slope: Index) -> Operand:
        assert scope.lanes is not None, "lanes exist only in vector loops"
        count = scope.lanes.count
        start = self.splat(scope, self.index_operand(scope, first), count)
        if slope == 0:
            return start
        if isinstance(slope, int):
            lanes = [slope * lane for lane in range(count)]
            return self.f.add(start, constant_vector(self.index_type, lanes))
        steps = self.splat(scope, self.index_operand(scope, slope), count)
        return self.f.add(start, self.f.mul(steps, constant_vector(self.index_type, range(count))))

    def _atom_vector(self, scope: Scope, atom: Atom) -> Operand:
        assert scope.lanes is not None, "lanes exist only in vector loops"
        if isinstance(atom, ValueOf):
            return self.splat(scope, self._integer_value(scope, atom), scope.lanes.count)
        if isinstance(atom, str):
            return self.index_vector(scope, atom_index(atom))
        left = self.index_vector(scope, atom.left)
        right = self.index_vector(scope, atom.right)
        if atom.kind in ("min", "max"):
            return (self.f.smin if atom.kind == "min" else self.f.smax)(left, right)
        return self._floor_divide(atom.kind, left, right)

    # ---- addresses

    def flat_offset(self, place: Place, indices: tuple[Index, ...]) -> Index:
        """The (unresolved) row-major element offset, found once for each access of the kernel."""
        key = (id(indices), place.shape)
        found = self._offsets.get(key)
        if found is None or found[0] is not indices:
            found = self._offsets[key] = (indices, flat_offset(indices, place.shape))
        return found[1]

    def address(self, scope: Scope, place: Place, offset: Index) -> Operand:
        """The address of the element at a resolved offset; neighbours share the variable part."""
        if offset == 0:
            return place.pointer
        key = (place.pointer.text, offset)
        found = scope.cache.get(key)
        if found is not None:
            return found
        element = memory_type(place.buffer.dtype, place.lanes)
        base, index = place.pointer, self.index_operand
        terms = index_terms(offset)
        if len(terms) > 1 and not terms[-1][0]:
            base = self.address(scope, place, IndexExpression(terms[:-1]))
            offset = terms[-1][1]
        return scope.cache.put(key, self._element_address(element, base, index(scope, offset)))

    def _element_address(self, element: LLVMType, base: Operand, index: Operand) -> Operand:
        """Without `inbounds`: a guarded access may compute an address outside its buffer."""
        result = base.type.vector(index.type.lanes)
        return self.f.emit(result, f"getelementptr {element.text}, {base}, {index}")

    def lane_addresses(self, scope: Scope, place: Place, index: Index) -> Operand:
        """The address of the element at an (unresolved) offset in each lane."""
        offsets = self.index_vector(scope, index)
        return self._element_address(memory_type(place.buffer.dtype), place.pointer, offsets)

    def alignment(self, place: Place, offset: Index) -> int:
        """The alignment in bytes of the element at a resolved offset."""
        bytes_each = place.buffer.dtype.bytes * place.lanes
        return math.gcd(place.alignment, bytes_each * self.multiple_of(offset))
