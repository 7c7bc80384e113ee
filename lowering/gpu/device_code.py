"""What the text of a kernel needs of its device: parameters, numbers, barriers, shared memory.

`DeviceCode` is what the emitter is written against.  `CalledDevice` spells it with the calls of a
`Dialect`, for devices that run threads; `simulated` has the one for the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from mapsto.lowering.gpu.dialect import Call
from mapsto.lowering.gpu.kernel import GpuKernel
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.gpu.vector_access import buffer_alignment
from mapsto.lowering.llvm.loop_scope import memory_type
from mapsto.lowering.llvm.types import (
    GLOBAL_PTR,
    I32,
    I64,
    SHARED_PTR,
    VOID,
    LLVMType,
    Operand,
    constant,
)
from mapsto.lowering.llvm.writer import FunctionWriter, ModuleWriter, Parameter
from mapsto.lowering.loop_walk import expressions, stored_buffers
from mapsto.lowering.loops import Buffer, Load, Shuffle

__all__ = ["CalledDevice", "DeviceCode", "pointer_attributes", "shared_offsets"]

_SHARED_ALIGNMENT = 16


class DeviceCode(Protocol):
    """Writes one kernel for one device.  `f` is the function of a thread, `pointers` its buffers
    (those in scratch memory excluded), `sizes` the named sizes, `scratch` the scratch memory."""

    f: FunctionWriter
    pointers: Sequence[Operand]
    sizes: Sequence[Operand]
    scratch: Operand | None

    def number(self, kind: str, axis: int) -> Operand:
        """The number of the `thread` in its block or of the `block`, along an axis: an integer of
        any width."""

    def barrier(self) -> None:
        """A barrier of the block."""

    def shuffle(self, shuffle: Shuffle, value: Operand) -> Operand:
        """What the value is in another thread of the warp."""

    def shared(self, buffer: Buffer) -> Operand:
        """The address of a buffer in shared memory."""

    def end(self) -> None:
        """The end of the kernel."""


def pointer_attributes(kernel: GpuKernel) -> list[str]:
    """What LLVM may assume of the pointers to a kernel's buffers.

    A buffer through which threads hand on values is not `noalias`: LLVM would take no barrier as a
    reason to read it again.
    """
    stored = stored_buffers(kernel.loops.body)
    read = {e.buffer.name for e in expressions(kernel.loops.body) if isinstance(e, Load)}

    def attributes(buffer: Buffer) -> str:
        handed_on = buffer.name in stored and buffer.name in read
        words = [] if buffer.may_alias or handed_on else ["noalias"]
        words += [] if buffer.name in stored else ["readonly"]
        return " ".join([*words, f"align {buffer_alignment(buffer)}"])

    return list(map(attributes, kernel.parameters))


def _block_attributes(module: ModuleWriter, kernel: GpuKernel, target: GpuTarget) -> str:
    """How the code generator is told how many threads a block has, and that it has registers for
    no more than one block where shared memory is for no more."""
    dialect = target.dialect
    if not dialect.block_metadata:
        block = dialect.block_attribute.format(block=",".join(map(str, kernel.block)))
        is_alone = target.resident_blocks(kernel.threads, kernel.shared_bytes) == 1
        return f"{block} {dialect.alone_attribute}" if is_alone else block
    extents = ", ".join(f"i32 {extent}" for extent in kernel.block)
    return f"{dialect.block_metadata} {module.metadata(f'!{{{extents}}}')}"


def shared_offsets(buffers: Sequence[Buffer]) -> dict[str, int]:
    """Where each of the buffers begins in one piece of shared memory."""
    offsets: dict[str, int] = {}
    end = 0
    for buffer in buffers:
        offsets[buffer.name] = end
        size = math.prod(d for d in buffer.shape if isinstance(d, int)) * buffer.dtype.bytes
        end += -(-size // _SHARED_ALIGNMENT) * _SHARED_ALIGNMENT
    return offsets


class CalledDevice:
    """A device with threads, whose numbers and barriers are calls."""

    def __init__(self, module: ModuleWriter, kernel: GpuKernel, target: GpuTarget) -> None:
        self.module, self.kernel = module, kernel
        self.dialect, self.warp = target.dialect, target.warp
        parameters: list[Parameter] = [
            (GLOBAL_PTR, f"b{number}", attributes)
            for number, attributes in enumerate(pointer_attributes(kernel))
        ]
        parameters += [(I64, f"s{number}") for number in range(len(kernel.loops.sizes))]
        if kernel.scratch_bytes != 0:
            parameters.append((GLOBAL_PTR, "scratch", "align 256"))
        attributes = _block_attributes(module, kernel, target)
        convention = target.dialect.convention
        self.f = module.function(kernel.name, parameters, VOID, convention, attributes)
        count = len(kernel.parameters)
        self.pointers: Sequence[Operand] = self.f.parameters[:count]
        self.sizes: Sequence[Operand] = self.f.parameters[count : count + len(kernel.loops.sizes)]
        self.scratch = self.f.parameters[-1] if kernel.scratch_bytes != 0 else None

    def number(self, kind: str, axis: int) -> Operand:
        calls = self.dialect.thread if kind == "thread" else self.dialect.block
        return self._call(calls[axis], ())

    def barrier(self) -> None:
        assert self.dialect.barrier is not None, "every dialect of calls has a barrier"
        self._call(self.dialect.barrier, ())

    def shuffle(self, shuffle: Shuffle, value: Operand) -> Operand:
        dialect = self.dialect
        call = dialect.shuffle_across if shuffle.across else dialect.shuffle_index
        assert call is not None, "reductions go through shared memory where there are no shuffles"
        rest = (constant(I32, shuffle.lane), constant(I32, self.warp - 1))
        words = [self._call(call, (word, *rest)) for word in _words(self.f, value)]
        return _from_words(self.f, words, value.type)

    def shared(self, buffer: Buffer) -> Operand:
        type = memory_type(buffer.dtype)
        if self.kernel.dynamic_bytes:
            return self._dynamic(buffer)
        count = math.prod(d for d in buffer.shape if isinstance(d, int))
        name = f"{self.kernel.name}_{buffer.name}"
        array = f"[{count} x {type}]"
        text = f"internal addrspace(3) global {array} undef, align {_SHARED_ALIGNMENT}"
        return self.module.add_global(name, text)._replace(type=SHARED_PTR)

    def _dynamic(self, buffer: Buffer) -> Operand:
        """A place in the shared memory that a launch provides."""
        text = f"external addrspace(3) global [0 x i8], align {_SHARED_ALIGNMENT}"
        base = self.module.add_global("mapsto_shared", text)._replace(type=SHARED_PTR)
        offset = shared_offsets(self.kernel.shared)[buffer.name]
        return self.f.getelementptr(LLVMType("i8"), base, offset)

    def end(self) -> None:
        self.f.ret()

    def _call(self, call: Call, values: Sequence[Operand]) -> Operand:
        fixed = [call.arguments] if call.arguments else []
        types = [text.split(" ")[0] for text in fixed] + [str(value.type) for value in values]
        convention = f"{call.convention} " if call.convention else ""
        declaration = f"declare {convention}{call.result} @{call.name}({', '.join(types)})"
        self.module.declare_text(call.name, f"{declaration} {call.attributes}".rstrip())
        arguments = ", ".join([*fixed, *map(str, values)])
        text = f"call {convention}{call.result} @{call.name}({arguments})"
        if call.result == "void":
            self.f.emit_void(text)
            return Operand("", VOID)
        return self.f.emit(LLVMType(call.result), text)


def _words(f: FunctionWriter, value: Operand) -> list[Operand]:
    """The bits of a value as 32-bit words, the low one first."""
    type = value.type
    bits = value if type.is_integer or type.kind == "bfloat" else f.bitcast(value, type.integer)
    bits = bits._replace(type=type.integer)
    if type.bits < 32:
        return [f.zext(bits, I32)]
    if type.bits == 32:
        return [bits]
    high = f.trunc(f.lshr(bits, constant(I64, 32)), I32)
    return [f.trunc(bits, I32), high]


def _from_words(f: FunctionWriter, words: Sequence[Operand], type: LLVMType) -> Operand:
    """The value of a type that `_words` took apart."""
    low, *rest = words
    if rest:
        high = f.shl(f.zext(rest[0], I64), constant(I64, 32))
        low = f.or_(f.zext(low, I64), high)
    bits = low if low.type.bits == type.bits else f.trunc(low, type.integer)
    if type.is_integer or type.kind == "bfloat":
        return bits._replace(type=type)
    return f.bitcast(bits, type)
