"""Parts of C functions as LLVM text: checks with error codes, memory, locks, constants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mapsto.lowering.llvm.types import I8, I32, I64, NULL, PTR, LLVMType, Operand, constant
from mapsto.lowering.llvm.writer import FunctionWriter, ModuleWriter
from mapsto.runtime.arrays import Array
from mapsto.runtime.signature import MAX_DIM

OUT_OF_MEMORY = 2
NULL_POINTER = 100
BAD_DIMENSION = 101
WRONG_ELEMENTS = 102
SMALL_WORKSPACE = 103
MISALIGNED = 104

ALIGNMENT = 64
"""What memory that the library allocates is a multiple of, in bytes."""

__all__ = [
    "ALIGNMENT",
    "BAD_DIMENSION",
    "MISALIGNED",
    "NULL_POINTER",
    "OUT_OF_MEMORY",
    "SMALL_WORKSPACE",
    "WRONG_ELEMENTS",
    "Checks",
    "add_array",
    "add_bytes",
    "add_string",
    "aligned",
    "allocate",
    "lock",
    "store_all",
    "store_unless_null",
]


class Checks:
    """Guards of a function that returns an error code."""

    def __init__(self, function: FunctionWriter, result: LLVMType = I32) -> None:
        self.f = function
        self.result = result

    def require(self, condition: Operand, code: int) -> None:
        """Returns the code where an i1 is false."""
        f = self.f
        failed, passed = f.block("failed"), f.block("passed")
        f.branch_if(condition, passed, failed)
        f.begin(failed)
        f.ret(constant(self.result, code))
        f.begin(passed)

    def require_pointer(self, pointer: Operand) -> None:
        """Returns an error code if a pointer is null."""
        self.require(self.f.icmp("ne", pointer, NULL), NULL_POINTER)

    def require_sizes(self, sizes: list[Operand], code: int) -> None:
        """The named sizes lie in [1, MAX_DIM]."""
        f = self.f
        for size in sizes:
            less = f.sub(size, constant(I64, 1))
            self.require(f.icmp("ult", less, constant(I64, MAX_DIM)), code)


def store_all(f: FunctionWriter, values: Sequence[Operand], type: LLVMType) -> Operand:
    """An array of the values on the stack."""
    array = f.alloca(type, max(1, len(values)), align=8)
    for k, value in enumerate(values):
        f.store(value, f.getelementptr(type, array, k))
    return array


def store_unless_null(f: FunctionWriter, value: Operand, address: Operand) -> None:
    """Stores a value where the caller wants it."""
    given, after = f.block("given"), f.block("after")
    f.branch_if(f.icmp("ne", address, NULL), given, after)
    f.begin(given)
    f.store(value, address)
    f.branch(after)
    f.begin(after)


def allocate(f: FunctionWriter, size: Operand) -> Operand:
    """At least `size` bytes at a multiple of 64, or null."""
    f.declare("aligned_alloc", PTR, [I64, I64])
    more = f.add(f.smax(size, constant(I64, 1)), constant(I64, ALIGNMENT - 1))
    rounded = f.and_(more, constant(I64, -ALIGNMENT))
    return f.call("aligned_alloc", PTR, [constant(I64, ALIGNMENT), rounded])


def aligned(f: FunctionWriter, pointer: Operand) -> Operand:
    """The first multiple of 64 from an address on."""
    address = f.ptrtoint(pointer, I64)
    skip = f.and_(f.sub(constant(I64, 0), address), constant(I64, ALIGNMENT - 1))
    return f.getelementptr(I8, pointer, skip)


def lock(f: FunctionWriter, word: Operand) -> None:
    """Waits until the lock at an address is free, and takes it."""
    attempt, wait, taken = f.block("attempt"), f.block("wait"), f.block("taken")
    f.declare("sched_yield", I32, [])
    f.branch(attempt)
    f.begin(attempt)
    before = f.emit(I32, f"atomicrmw xchg {word}, i32 1 acquire")
    f.branch_if(f.icmp("eq", before, constant(I32, 0)), taken, wait)
    f.begin(wait)
    f.call("sched_yield", I32, [])
    f.branch(attempt)
    f.begin(taken)


def add_bytes(module: ModuleWriter, name: str, data: bytes) -> Operand:
    """A constant, at a multiple of 64 bytes."""
    text = _ESCAPES[np.frombuffer(data, np.uint8)].tobytes().decode("ascii")
    return module.add_global(
        name, f'internal constant [{len(data)} x i8] c"{text}", align {ALIGNMENT}'
    )


def add_array(module: ModuleWriter, name: str, array: Array) -> Operand:
    """The bytes of an array, in the target's (little-endian) order."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return add_bytes(module, name, little.tobytes())


def add_string(module: ModuleWriter, name: str, text: str) -> Operand:
    """A text that ends with a zero byte."""
    return add_bytes(module, name, text.encode() + b"\0")


_ESCAPES = np.array([f"\\{byte:02X}".encode() for byte in range(256)])
