"""Counter-based random numbers: the same key gives the same bits on every target.

Philox 4x32 with 10 rounds, from Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
Proc. SC 2011.
"""

from __future__ import annotations

from collections.abc import Sequence

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


class Random(Operation):
    """Random numbers from a key (i64[]) and a stream number.

    Element e in row-major order of a u32 result is word e mod 4 of Philox with the key's low and
    high half as key and the counter (e / 4 low, e / 4 high, stream low, stream high).  An f32
    result is the upper 24 bits of that word as a number in [0, 1); an f64 result takes 27 and 26
    bits of words 2e and 2e + 1.
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
        key = self.operands[0].type
        if key != TensorType(DType.I64):
            raise TypeRuleError(f"random by a key of type {key}, where i64[] is expected")
        if self.type.dtype not in (DType.U32, DType.F32, DType.F64):
            raise TypeRuleError(f"random numbers of type {self.type.dtype}")
        return (self.type,)

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        shape = [d for d in self.result.shape if isinstance(d, int)]
        count = int(np.prod(shape, dtype=np.int64))
        key = int(operands[0]) & (2**64 - 1)
        if self.type.dtype is DType.F64:
            words = philox(key, self.stream, 2 * count).astype(np.float64).reshape(-1, 2)
            high, low = np.floor(words[:, 0] / 32), np.floor(words[:, 1] / 64)
            return (((high * 2.0**26 + low) * 2.0**-53).reshape(shape),)
        bits = philox(key, self.stream, count).reshape(shape)
        if self.type.dtype is DType.U32:
            return (bits,)
        return ((bits >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24),)

    def jvp(
        self, build: Builder, results: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]:
        return [None]


def philox(key: int, stream: int, count: int) -> Array:
    """The first `count` 32-bit words of a stream."""
    blocks = np.arange((count + 3) // 4, dtype=np.uint64)
    low, high = stream & 0xFFFFFFFF, stream >> 32
    shape = blocks.shape
    counter = [blocks & _MASK, blocks >> np.uint64(32)]
    counter += [np.full(shape, word, np.uint64) for word in (low, high)]
    keys = [key & 0xFFFFFFFF, key >> 32]
    for _ in range(PHILOX_ROUNDS):
        counter = _round(counter, keys)
        keys = [(k + i) & 0xFFFFFFFF for k, i in zip(keys, PHILOX_INCREMENTS, strict=True)]
    return np.stack(counter, axis=1).reshape(-1)[:count].astype(np.uint32)


def _round(counter: list[Array], keys: list[int]) -> list[Array]:
    first = counter[0] * np.uint64(PHILOX_MULTIPLIERS[0])
    second = counter[2] * np.uint64(PHILOX_MULTIPLIERS[1])
    return [
        (second >> np.uint64(32)) ^ counter[1] ^ np.uint64(keys[0]),
        second & _MASK,
        (first >> np.uint64(32)) ^ counter[3] ^ np.uint64(keys[1]),
        first & _MASK,
    ]
