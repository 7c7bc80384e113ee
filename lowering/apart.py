"""What lowerings of single ops are written with: the function they are in and their memory.

An op that is lowered on its own (`Trait.APART`) has a row in `apart_rules.py`: an `ApartLowering`,
which says how much scratch memory the op needs and writes it between the calls of kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mapsto.ir.core import Operation, Value
from mapsto.ir.dims import Dim
from mapsto.lowering.assertions import AssertionTable
from mapsto.lowering.llvm.loop_emitter import emit_dim
from mapsto.lowering.llvm.types import I8, I32, I64, Operand, constant
from mapsto.lowering.llvm.writer import FunctionWriter, ModuleWriter
from mapsto.lowering.lowered import LoweredFunction

__all__ = ["ApartLowering", "ApartWriter", "Sizes"]


class Sizes:
    """Computes sizes in a function that has the values of the named sizes in an array, `dims`."""

    def __init__(self, f: FunctionWriter, dims: Operand, names: Sequence[str]) -> None:
        self.f = f
        self.dims = dims
        self.values = {
            name: f.load(I64, f.getelementptr(I64, dims, i)) for i, name in enumerate(names)
        }

    def dim(self, dim: Dim) -> Operand:
        """The value (i64) of a dimension."""
        return emit_dim(self.f, dim, self.values)

    def bytes(self, value: Value) -> Operand:
        """The size of a tensor."""
        return self.dim(value.type.elements * value.dtype.bytes)

    def arena_bytes(self, body: LoweredFunction) -> Operand:
        """The scratch memory that the function of a region needs."""
        return self.f.call(f"{body.entry.name}.arena_bytes", I64, [self.dims])


@dataclass(frozen=True, slots=True, eq=False)
class ApartWriter:
    """Where an op is written: pointers to its operands and results, its scratch memory."""

    f: FunctionWriter
    module: ModuleWriter
    assertions: AssertionTable
    sizes: Sizes
    op: Operation
    bodies: tuple[LoweredFunction, ...]
    operands: tuple[Operand, ...]
    results: tuple[Operand, ...]
    scratch: Operand
    ahead: tuple[Operand | None, ...] = ()
    """Where what a body prepares is, if that is done."""

    def copy(self, target: Operand, source: Operand, value: Value) -> None:
        """Copies a tensor, unless it is there."""
        if target != source:
            self.f.memcpy(target, source, self.sizes.bytes(value))

    def fail_if(self, condition: Operand, code: Operand) -> None:
        """Ends the function with an error code (i32) where the condition (i1) holds."""
        f = self.f
        failed, fine = f.block("failed"), f.block("fine")
        f.branch_if(condition, failed, fine)
        f.begin(failed)
        f.ret(code)
        f.begin(fine)

    def run(self, body: LoweredFunction, buffers: Operand, arena: Operand) -> None:
        """Calls the function of a region; ends this one with its error code if there is one."""
        code = self.f.call(body.entry.name, I32, [buffers, self.sizes.dims, arena])
        self.fail_if(self.f.icmp("ne", code, constant(I32, 0)), code)

    def past(self, pointer: Operand, bytes_: Operand) -> Operand:
        """The address so many bytes behind another."""
        return self.f.getelementptr(I8, pointer, bytes_)


class ApartLowering(Protocol):
    """The row of an op in the table of lowerings."""

    def scratch_bytes(
        self, sizes: Sizes, op: Operation, bodies: Sequence[LoweredFunction]
    ) -> Operand:
        """The scratch memory (i64) that the op needs, whose start is aligned to cache lines."""

    def write(self, writer: ApartWriter) -> None:
        """Writes the op."""
