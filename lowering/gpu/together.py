"""What the threads of a block do together, as NVIDIA's instructions: copies to shared memory that
run by themselves, and matrices that the threads of a warp load and multiply.

Targets without these get loops without them: the schedule looks at the target's record.
"""

from __future__ import annotations

from collections.abc import Sequence

from mapsto.ir.types import DType
from mapsto.lowering.indices import Index
from mapsto.lowering.llvm.loop_scope import Scope
from mapsto.lowering.llvm.loop_statements import StatementEmitter
from mapsto.lowering.llvm.types import FLOAT, HALF, I32, LLVMType, Operand, constant
from mapsto.lowering.loops import (
    AsyncCopy,
    Barrier,
    Buffer,
    CommitCopies,
    LoadMatrix,
    MatrixMultiply,
    Together,
    WaitCopies,
)

__all__ = ["TogetherEmitter"]

_COPY = "llvm.nvvm.cp.async"
_LARGEST_COPY = 16
_ROUND = "llvm.nvvm.f2tf32.rna"
_OPERANDS = {
    DType.F16: ("f32.f32", HALF.vector(2)),
    DType.BF16: ("bf16", I32),
    DType.F32: ("tf32", FLOAT),
}
"""By the type of the factors: how the product is named, and the type of a register of it."""


class TogetherEmitter(StatementEmitter):
    """Emits copies and matrices; `barrier` comes from the kernel emitter."""

    def barrier(self) -> None:
        """Emit a barrier."""
        raise NotImplementedError

    def together(self, scope: Scope, statement: Together) -> None:
        match statement:
            case Barrier():
                self.barrier()
            case AsyncCopy():
                self._copy(scope, statement)
            case CommitCopies():
                self._call(f"{_COPY}.commit.group", "void", ())
            case WaitCopies(pending):
                self._call(f"{_COPY}.wait.group", "void", (constant(I32, pending),))
            case LoadMatrix():
                self._load_matrix(scope, statement)
            case MatrixMultiply():
                self._multiply(scope, statement)

    def _call(self, name: str, result: str, arguments: Sequence[Operand]) -> Operand:
        types = ", ".join(str(argument.type) for argument in arguments)
        self.f.declare_text(name, f"declare {result} @{name}({types})")
        text = f"call {result} @{name}({', '.join(map(str, arguments))})"
        if result == "void":
            self.f.emit_void(text)
            return constant(I32, 0)
        return self.f.emit(I32, text)

    def _place(self, scope: Scope, buffer: Buffer, indices: tuple[Index, ...]) -> Operand:
        """The address of an element."""
        place = scope.places[buffer.name]
        offset = self.resolve(scope, self.flat_offset(place, indices))
        return self.address(scope, place, offset)

    # ---- copies

    def _copy(self, scope: Scope, copy: AsyncCopy) -> None:
        source, size = copy.source, copy.count * copy.buffer.dtype.bytes
        target = self._place(scope, copy.buffer, copy.indices)
        # What a whole line brings is used by one block at a time: the first-level cache is for
        # smaller pieces, of which a warp reads a line several times.
        level = "cg" if size == _LARGEST_COPY else "ca"
        name = f"{_COPY}.{level}.shared.global.{size}"
        operands = [target, self._place(scope, source.buffer, source.indices)]
        guard = self.guard_operand(scope, source.guard)
        if guard is not None:
            # Bytes that are not read are zero.
            name += ".s"
            operands.append(self.f.select(guard, constant(I32, size), constant(I32, 0)))
        self._call(name, "void", operands)

    # ---- matrices

    def _load_matrix(self, scope: Scope, load: LoadMatrix) -> None:
        how = ".trans" if load.transposed else ""
        name = f"llvm.nvvm.ldmatrix.sync.aligned.m8n8.x4{how}.b16.p3"
        address = self._place(scope, load.source, load.source_indices)
        result = self._call(name, _struct(I32), (address,))
        target = self._place(scope, load.buffer, load.indices)
        for number in range(4):
            self._store_part(result, I32, target, number)

    def _multiply(self, scope: Scope, product: MatrixMultiply) -> None:
        m, n, k = product.shape
        kind, register = _OPERANDS[product.left.dtype]
        count = k * product.left.dtype.bytes // 4
        left = self._place(scope, product.left, product.left_indices)
        right = self._place(scope, product.right, product.right_indices)
        sums = self._place(scope, product.sums, product.sums_indices)
        factors = [
            self._parts(left, register, m * count // 32),
            self._parts(right, register, n * count // 32),
        ]
        if product.left.dtype is DType.F32:
            factors = self._rounded(*factors)
        operands = [*factors[0], *factors[1], *self._parts(sums, FLOAT, m * n // 32)]
        name = f"llvm.nvvm.mma.m{m}n{n}k{k}.row.col.{kind}"
        result = self._call(name, _struct(FLOAT), operands)
        for number in range(4):
            self._store_part(result, FLOAT, sums, number)

    def _rounded(self, left: list[Operand], right: list[Operand]) -> list[list[Operand]]:
        """Factors of 32 bits rounded to tf32.  The instruction has step `q` of the reduction beside
        `q + 4` where ours has `2 * q` beside the next: for a sum over all that is another order of
        the steps, but the rows come first among its registers."""
        upper, upper_next, lower, lower_next = left
        ordered = [upper, lower, upper_next, lower_next]
        return [[self._call(_ROUND, "i32", (x,)) for x in side] for side in (ordered, right)]

    def _parts(self, address: Operand, type: LLVMType, count: int) -> list[Operand]:
        """Registers of 32 bits from an address on."""
        places = (self.f.getelementptr(type, address, number) for number in range(count))
        return [self.f.load(type, place, 4) for place in places]

    def _store_part(self, result: Operand, type: LLVMType, target: Operand, number: int) -> None:
        part = self.f.emit(type, f"extractvalue {_struct(type)} {result.text}, {number}")
        self.f.store(part, self.f.getelementptr(type, target, number), 4)


def _struct(type: LLVMType) -> str:
    """Four of a type."""
    return f"{{{', '.join([str(type)] * 4)}}}"
