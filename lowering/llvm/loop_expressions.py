"""Scalar expressions to LLVM values: one value where all lanes agree, else a vector."""

from __future__ import annotations

from mapsto.lowering.indices import Index
from mapsto.lowering.llvm.loop_access import AccessEmitter
from mapsto.lowering.llvm.loop_scope import Scope, value_type
from mapsto.lowering.llvm.scalar_lowering import lower, lower_cast
from mapsto.lowering.llvm.types import I1, I64, LLVMType, Operand, constant, constant_vector
from mapsto.lowering.loops import (
    Apply,
    Constant,
    Expression,
    IndexValue,
    Load,
    Ref,
    Shuffle,
)
from mapsto.lowering.scalar_operations import OPERATIONS

__all__ = ["ExpressionEmitter"]

_POSITIVE = {"lt": (0, False), "ge": (0, True), "gt": (1, False), "le": (1, True)}
"""`a op b` as `difference > 0` (or its negation); the difference is `b - a` or (1) `a - b`."""


class ExpressionEmitter(AccessEmitter):
    """Evaluates scalar expressions."""

    def evaluate(self, scope: Scope, expression: Expression) -> Operand:
        match expression:
            case Ref(name):
                return scope.lets[name]
            case Load():
                return self.load(scope, expression)
            case Constant(value, dtype):
                return constant(value_type(dtype), value)
            case IndexValue(index, dtype):
                return self._index_value(scope, index, value_type(dtype))
            case Apply():
                return self._apply(scope, expression)
            case Shuffle():
                return self.shuffle(scope, expression)
        raise TypeError(f"not a scalar expression: {expression!r}")

    def shuffle(self, scope: Scope, expression: Shuffle) -> Operand:
        """The value that another thread has.  Raises ValueError where there are no threads."""
        raise ValueError(f"`{expression}` outside of a kernel for GPUs")

    def _apply(self, scope: Scope, expression: Apply) -> Operand:
        first = expression.operands[0]
        if OPERATIONS[expression.op].compares and isinstance(first, IndexValue):
            other = expression.operands[1]
            if isinstance(other, IndexValue):
                return self._compare_indices(scope, expression.op, first.index, other.index)
        operands = [self.evaluate(scope, operand) for operand in expression.operands]
        if expression.op == "cast":
            return lower_cast(self.f, operands[0], first.type, expression.dtype)
        if expression.op == "bitcast":
            target = value_type(expression.dtype, operands[0].type.lanes)
            same = target == operands[0].type
            return operands[0] if same else self.f.bitcast(operands[0], target)
        lanes = max(operand.type.lanes for operand in operands)
        wide = tuple(self.splat(scope, operand, lanes) for operand in operands)
        return lower(self.f, expression.op, expression.operands[-1].type, wide)

    # ---- indices as values

    def _index_value(self, scope: Scope, index: Index, type: LLVMType) -> Operand:
        parts = self.split(scope, index)
        if parts is None:
            return self._convert(self.index_vector(scope, index), type)
        first, slope = parts
        if isinstance(first, int) and slope == 0:
            return constant(type, first)
        start = self.index_operand(scope, first)
        if slope == 0:
            return self._convert(start, type)
        assert scope.lanes is not None, "only lanes make an index vary"
        if not (type.is_integer and isinstance(slope, int)):
            return self._convert(self.index_vector(scope, index), type)
        steps = constant_vector(type, [slope * lane for lane in range(scope.lanes.count)])
        return self.f.add(self.splat(scope, self._convert(start, type), steps.type.lanes), steps)

    def _convert(self, value: Operand, type: LLVMType) -> Operand:
        target = type.vector(value.type.lanes)
        if target.is_float:
            return self.f.sitofp(value, target)
        if target == value.type:
            return value
        is_wider = target.bits > value.type.bits
        return (self.f.sext if is_wider else self.f.trunc)(value, target)

    # ---- comparisons of indices

    def _compare_indices(self, scope: Scope, op: str, left: Index, right: Index) -> Operand:
        """`left op right`.  Where the difference moves by one from lane to lane, the lanes that
        hold are those before (or after) a number that is computed once, as a scalar."""
        swap, negated = _POSITIVE.get(op, (0, False))
        difference = left - right if swap else right - left
        parts = self.split(scope, difference)
        if parts is None or (parts[1] != 0 and (parts[1] not in (1, -1) or op not in _POSITIVE)):
            return self._compare_lanes(scope, op, left, right)
        first, slope = parts
        if slope == 0:
            return self._compare_uniform(scope, op, left, right, first if not swap else -first)
        assert scope.lanes is not None, "only lanes make a comparison vary"
        lanes = scope.lanes.count
        if slope == -1:
            return self._lanes_below(scope, first, lanes, negated)
        return self._lanes_below(scope, 1 - first, lanes, not negated)

    def _compare_uniform(
        self, scope: Scope, op: str, left: Index, right: Index, difference: Index
    ) -> Operand:
        if isinstance(difference, int):
            return constant(I1, _DECIDED[op](difference))
        if op == "ge" and self.is_nonnegative(-difference):
            return constant(I1, True)
        first = self.index_operand(scope, self.resolve(scope, left))
        second = self.index_operand(scope, self.resolve(scope, right))
        return self.f.icmp(op if op in ("eq", "ne") else f"s{op}", first, second)

    def _compare_lanes(self, scope: Scope, op: str, left: Index, right: Index) -> Operand:
        first, second = self.index_vector(scope, left), self.index_vector(scope, right)
        return self.f.icmp(op if op in ("eq", "ne") else f"s{op}", first, second)

    def _lanes_below(self, scope: Scope, limit: Index, lanes: int, negated: bool) -> Operand:
        """The mask of the lanes `l < limit` (negated: `l >= limit`)."""
        if isinstance(limit, int) and not 0 < limit < lanes:
            return constant(I1, (limit > 0) != negated)
        return self.lane_mask(scope, self.index_operand(scope, limit), lanes, negated)

    def lane_mask(
        self, scope: Scope, limit: Operand, lanes: int, negated: bool = False, inside: bool = False
    ) -> Operand:
        """The mask of the lanes `l < limit` (negated: `l >= limit`) for an index, which is known to
        be `inside` 0..lanes or else is clamped to that."""
        key = ("mask", limit.text, lanes, negated)
        found = scope.cache.get(key)
        if found is not None:
            return found
        kind = I64.with_kind(f"i{max(8, min(64, self.machine.vector_bits // lanes))}")
        if not inside:
            limit = self._clamped(limit, lanes)
        narrow = self._convert(limit, kind)
        numbers = constant_vector(kind, range(lanes))
        wide = self.splat(scope, narrow, lanes)
        mask = self.f.icmp("sge" if negated else "slt", numbers, wide)
        return scope.cache.put(key, mask)

    def _clamped(self, limit: Operand, lanes: int) -> Operand:
        low, high = constant(limit.type, 0), constant(limit.type, lanes)
        return self.f.smin(self.f.smax(limit, low), high)


_DECIDED = {
    "eq": lambda difference: difference == 0,
    "ne": lambda difference: difference != 0,
    "lt": lambda difference: difference > 0,
    "le": lambda difference: difference >= 0,
    "gt": lambda difference: difference < 0,
    "ge": lambda difference: difference <= 0,
}
"""What `left op right` is for a known `right - left`."""
