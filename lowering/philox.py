"""Random numbers as scalar operations: see `ir.ops.random` for what they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mapsto.ir.ops.random import (
    PHILOX_INCREMENTS,
    PHILOX_MULTIPLIERS,
    PHILOX_ROUNDS,
    RANDOM_BITS,
    Random,
)
from mapsto.ir.types import DType
from mapsto.lowering.indices import Index, floor_div, modulo
from mapsto.lowering.loops import Expression, IndexValue, apply, cast, constant, select

__all__ = ["random_element"]

Let = Callable[[str, Expression], Expression]
"""Binds an expression to a name and gives the reference."""

_WORD = 1 << 32


def random_element(key: Expression, position: Index, op: Random, let: Let) -> Expression:
    """The element of a key at a row-major position behind the key's own axes."""
    dtype = op.type.dtype
    if dtype is DType.I64:
        high = cast(_word(key, 2 * position, op.stream, let), DType.I64)
        low = cast(_word(key, 2 * position + 1, op.stream, let), DType.I64)
        return apply("or", apply("shift_left", high, constant(32, DType.I64)), low)
    if dtype is DType.F64:
        high = _shifted(_word(key, 2 * position, op.stream, let), 5)
        low = _shifted(_word(key, 2 * position + 1, op.stream, let), 6)
        wide = cast(high, DType.F64) * constant(2.0**26, DType.F64) + cast(low, DType.F64)
        return wide * constant(2.0**-53, DType.F64)
    word = _word(key, position, op.stream, let)
    if dtype is DType.U32:
        return word
    # The upper bits are exact in f32 and in the type; as i32 they convert without unsigned
    # arithmetic.
    bits = RANDOM_BITS[dtype]
    fraction = cast(cast(_shifted(word, 32 - bits), DType.I32), DType.F32)
    return cast(fraction * constant(2.0**-bits, DType.F32), dtype)


def _u32(value: int) -> Expression:
    return constant(value % _WORD, DType.U32)


def _shifted(word: Expression, bits: int) -> Expression:
    return apply("shift_right", word, _u32(bits))


def _word(key: Expression, position: Index, stream: int, let: Let) -> Expression:
    """Word `position` of the stream: one of the four of a block, chosen by the last two bits."""
    block = floor_div(position, 4)
    counter = [
        let("counter", IndexValue(block, DType.U32)),
        let("counter", IndexValue(floor_div(block, _WORD), DType.U32)),
        _u32(stream),
        _u32(stream >> 32),
    ]
    halves = [
        cast(key, DType.U32),
        cast(apply("shift_right", key, constant(32, DType.I64)), DType.U32),
    ]
    keys = [let("key", half) for half in halves]
    for number in range(PHILOX_ROUNDS):
        bumped = [
            apply("add", k, _u32(number * increment))
            for k, increment in zip(keys, PHILOX_INCREMENTS, strict=True)
        ]
        counter = [let("word", word) for word in _round(counter, bumped)]
    lane = let("lane", IndexValue(modulo(position, 4), DType.U32))
    chosen = counter[3]
    for number in (2, 1, 0):
        chosen = select(apply("eq", lane, _u32(number)), counter[number], chosen)
    return chosen


def _round(counter: Sequence[Expression], keys: Sequence[Expression]) -> list[Expression]:
    first, second = (_u32(m) for m in PHILOX_MULTIPLIERS)
    high_first = apply("mul_high", counter[0], first)
    high_second = apply("mul_high", counter[2], second)
    return [
        apply("xor", apply("xor", high_second, counter[1]), keys[0]),
        apply("mul", counter[2], second),
        apply("xor", apply("xor", high_first, counter[3]), keys[1]),
        apply("mul", counter[0], first),
    ]
