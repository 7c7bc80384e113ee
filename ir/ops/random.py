"""Counter-based random numbers: the same key gives the same bits on every target.

Philox 4x32 with 10 rounds, from Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
Proc. SC 2011.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mapsto.ir.builder import Builder
from mapsto.ir.core import Array, Operation, Trait, Value
from mapsto.ir.errors import TypeRuleError
from mapsto.ir.types import DType, TensorType

__all__ = ["Random", "philox"]

PHILOX_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
PHILOX_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
PHILOX_ROUNDS = 10
_MASK = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


RANDOM_BITS: Mapping[DType, int] = {DType.F16: 11, DType.BF16: 8, DType.F32: 24}
"""How many bits of a word a floating-point number takes."""
_WIDE = frozenset({DType.I64, DType.F64})


class Random(Operation):
    """Random numbers from keys (i64) and a stream number.

    The result's shape begins with that of the key: each key gives the elements along the axes that
    follow.  Element e of a key in row-major order, of a u32 result, is word e mod 4 of Philox with
    the key's low and high half as key and the counter (e / 4 low, e / 4 high, stream low, stream
    high).  An f32 result is the upper 24 bits of that word as a number in [0, 1), f16 takes 11 bits
    and bf16 takes 8.  An i64 result has word 2e as its upper and 2e + 1 as its lower half; an f64
    result takes 27 and 26 bits of these.
    """

    name = "random"
    not_differentiable = "it depends on a key, which is not a continuous quantity"
    traits = Trait.EXPENSIVE
    arity = 1
    attribute_types = {"stream": int, "type": TensorType}
    defaults = {"stream": 0}

    @property
    def type(self) -> TensorType:
        """The type of the result."""
        type_ = self.attributes["type"]
        assert isinstance(type_, TensorType)
        return type_

    @property
    def stream(self) -> int:
        """The number of the stream, in [0, 2^64)."""
        stream = self.attributes["stream"]
        assert isinstance(stream, int)
        return stream

    def infer(self) -> tuple[TensorType, ...]:
        key, dtype = self.operands[0].type, self.type.dtype
        if key.dtype is not DType.I64 or self.type.shape[: key.rank] != key.shape:
            raise TypeRuleError(f"random numbers of type {self.type} by keys of type {key}")
        if dtype not in (DType.U32, *_WIDE, *RANDOM_BITS):
            raise TypeRuleError(f"random numbers of type {dtype}")
        return (self.type,)

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        shape = [d for d in self.result.shape if isinstance(d, int)]
        dtype, rank = self.type.dtype, self.operands[0].type.rank
        keys = np.asarray(operands[0]).astype(np.uint64)
        count = int(np.prod(shape[rank:], dtype=np.int64))
        words = philox(keys, self.stream, 2 * count if dtype in _WIDE else count)
        return (_numbers(words, dtype).reshape(shape),)

    def jvp(
        self, build: Builder, results: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]:
        return [None]


def _numbers(words: Array, dtype: DType) -> Array:
    """Words, along the last axis, as numbers of a type."""
    if dtype is DType.U32:
        return words
    if dtype in RANDOM_BITS:
        bits = RANDOM_BITS[dtype]
        kept = (words >> np.uint32(32 - bits)).astype(np.float32)
        return (kept * np.float32(2.0**-bits)).astype(dtype.numpy)
    high, low = words[..., ::2].astype(np.uint64), words[..., 1::2].astype(np.uint64)
    if dtype is DType.I64:
        return (high << np.uint64(32) | low).astype(np.int64)
    upper, lower = (high >> np.uint64(5)).astype(float), (low >> np.uint64(6)).astype(float)
    return np.asarray((upper * 2.0**26 + lower) * 2.0**-53)


def philox(keys: Array, stream: int, count: int) -> Array:
    """The first `count` words (u32) of a stream by each of the keys (u64), along a last axis."""
    blocks = np.arange((count + 3) // 4, dtype=np.uint64)
    shape = (*keys.shape, len(blocks))
    counter = [np.broadcast_to(part, shape) for part in (blocks & _MASK, blocks >> _HALF)]
    words = (stream & 0xFFFFFFFF, stream >> 32)
    counter += [np.full(shape, word, np.uint64) for word in words]
    halves = [(keys & _MASK)[..., None], (keys >> _HALF)[..., None]]
    for _ in range(PHILOX_ROUNDS):
        counter = _round(counter, halves)
        pairs = zip(halves, PHILOX_INCREMENTS, strict=True)
        halves = [(half + np.uint64(increment)) & _MASK for half, increment in pairs]
    return np.stack(counter, axis=-1).reshape(*keys.shape, -1)[..., :count].astype(np.uint32)


def _round(counter: list[Array], keys: list[Array]) -> list[Array]:
    first = counter[0] * np.uint64(PHILOX_MULTIPLIERS[0])
    second = counter[2] * np.uint64(PHILOX_MULTIPLIERS[1])
    return [
        (second >> _HALF) ^ counter[1] ^ keys[0],
        second & _MASK,
        (first >> _HALF) ^ counter[3] ^ keys[1],
        first & _MASK,
    ]
