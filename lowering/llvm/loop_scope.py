"""What the code at one point of an emitted kernel may use: variables, bindings, buffers, lanes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace

from mapsto.ir.dims import Dim
from mapsto.ir.types import DType
from mapsto.lowering.indices import Index
from mapsto.lowering.llvm.types import (
    BFLOAT,
    DOUBLE,
    FLOAT,
    HALF,
    I1,
    I8,
    I32,
    I64,
    LLVMType,
    Operand,
)
from mapsto.lowering.loops import Buffer, Space

__all__ = ["Cache", "Fact", "Lanes", "Partial", "Place", "Scope", "memory_type", "value_type"]

_I16 = LLVMType("i16")
_MEMORY_TYPES = {
    DType.BOOL: I8,
    DType.I8: I8,
    DType.U8: I8,
    DType.I16: _I16,
    DType.I32: I32,
    DType.U32: I32,
    DType.I64: I64,
    DType.F16: HALF,
    DType.BF16: BFLOAT,
    DType.F32: FLOAT,
    DType.F64: DOUBLE,
}


def memory_type(dtype: DType, lanes: int = 1) -> LLVMType:
    """The type of elements in memory; a bool is a byte."""
    return _MEMORY_TYPES[dtype].vector(lanes)


def value_type(dtype: DType, lanes: int = 1) -> LLVMType:
    """The type of values in registers; a bool is an i1."""
    return (I1 if dtype is DType.BOOL else _MEMORY_TYPES[dtype]).vector(lanes)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a buffer is.  `lanes` > 1: a register of a vector loop's body, a vector an element.
    The shape of a register buffer is padded, so that whole vectors along a row stay inside it."""

    buffer: Buffer
    pointer: Operand
    shape: tuple[Dim, ...]
    alignment: int
    lanes: int = 1

    @property
    def is_register(self) -> bool:
        """Whether it is on the stack: any access inside it is safe and private."""
        return self.buffer.space is Space.REGISTER


@dataclass(frozen=True, slots=True)
class Partial:
    """Vector accumulators of a reduction: element `e` of copy `c` is at `c * elements + e`."""

    place: Place
    elements: int


@dataclass(frozen=True, slots=True)
class Lanes:
    """The vector loop around the current point.

    Lane `l` is the iteration `variable = base + l`, where the scope binds the variable to `base`.
    `tail` marks the lanes before the end of the loop (at least one), of which there are `filled`
    if that is known; `predicate` those for which the conditions around hold (perhaps none); None
    means all.
    """

    variable: str
    count: int
    tail: Operand | None = None
    filled: int | None = None
    predicate: Operand | None = None
    partials: Mapping[str, Partial] = field(default_factory=dict)
    copy: int = 0


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known of an integer value: a divisor, and whether it cannot be negative."""

    multiple: int = 1
    nonnegative: bool = False


class Cache:
    """Values already computed in blocks that dominate the current one."""

    __slots__ = ("_parent", "_values")

    def __init__(self, parent: Cache | None = None) -> None:
        self._parent = parent
        self._values: dict[Hashable, Operand] = {}

    def get(self, key: Hashable) -> Operand | None:
        """The value computed for the key, here or in an enclosing block."""
        cache: Cache | None = self
        while cache is not None:
            if (value := cache._values.get(key)) is not None:
                return value
            cache = cache._parent
        return None

    def put(self, key: Hashable, value: Operand) -> Operand:
        """Remember a value computed in the current block."""
        self._values[key] = value
        return value


@dataclass(frozen=True, slots=True)
class Scope:
    """Bindings at one point: loop variables (to an index over SSA names, written as atoms `%v1`),
    `Let` names, buffers, the vector loop around, ranges of variables, values computed before."""

    indices: Mapping[str, Index]
    lets: Mapping[str, Operand]
    places: Mapping[str, Place]
    lanes: Lanes | None = None
    ranges: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    cache: Cache = field(default_factory=Cache)

    def with_range(self, name: str, low: int, high: int) -> Scope:
        """The scope in which a loop variable is known to stay within (inclusive) bounds."""
        ranges = {**self.ranges, name: (low, high)}
        return Scope(self.indices, self.lets, self.places, self.lanes, ranges, self.cache)

    def with_index(self, name: str, value: Index) -> Scope:
        """The scope with a loop variable bound."""
        indices = {**self.indices, name: value}
        return Scope(indices, self.lets, self.places, self.lanes, self.ranges, self.cache)

    def with_let(self, name: str, value: Operand) -> Scope:
        """The scope with a `Let` name bound."""
        lets = {**self.lets, name: value}
        return Scope(self.indices, lets, self.places, self.lanes, self.ranges, self.cache)

    def with_place(self, place: Place) -> Scope:
        """The scope with a buffer added."""
        return replace(self, places={**self.places, place.buffer.name: place})

    def with_lanes(self, lanes: Lanes | None) -> Scope:
        """The scope inside (or outside) a vector loop."""
        return Scope(self.indices, self.lets, self.places, lanes, self.ranges, self.cache)

    def nested(self) -> Scope:
        """The scope of a block that the current one dominates but that does not dominate what
        follows: values computed inside stay inside."""
        cache = Cache(self.cache)
        return Scope(self.indices, self.lets, self.places, self.lanes, self.ranges, cache)
