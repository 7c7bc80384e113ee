"""The instructions that touch memory: addresses, loads and stores, whole, masked or gathered."""

from mapsto.lowering.llvm.instructions import InstructionWriter
from mapsto.lowering.llvm.types import I64, PTR, VOID, LLVMType, Operand, constant, zero


class MemoryWriter(InstructionWriter):
    """Appends loads, stores and address computations.  Alignments are in bytes."""

    def alloca(self, type: LLVMType, count: int = 1, align: int = 64) -> Operand:
        """Stack space for `count` values in the entry block, whatever the current block is."""
        raise NotImplementedError

    def getelementptr(self, type: LLVMType, base: Operand, index: int | Operand) -> Operand:
        """The address of element `index` (a vector gives a vector) of an array at `base`."""
        offset = constant(I64, index) if isinstance(index, int) else index
        result = base.type.vector(max(base.type.lanes, offset.type.lanes))
        return self.emit(result, f"getelementptr inbounds {type.text}, {base}, {offset}")

    def load(
        self, type: LLVMType, address: Operand, align: int | None = None, metadata: str = ""
    ) -> Operand:
        """Read a value; without `align` only the alignment of one element is assumed."""
        suffix = f", {metadata}" if metadata else ""
        alignment = align or _element_bytes(type)
        return self.emit(type, f"load {type.text}, {address}, align {alignment}{suffix}")

    def store(
        self, value: Operand, address: Operand, align: int | None = None, metadata: str = ""
    ) -> None:
        suffix = f", {metadata}" if metadata else ""
        alignment = align or _element_bytes(value.type)
        self.emit_void(f"store {value}, {address}, align {alignment}{suffix}")

    def masked_load(
        self,
        type: LLVMType,
        address: Operand,
        mask: Operand,
        otherwise: Operand | None = None,
        align: int | None = None,
    ) -> Operand:
        """Read only the lanes that the mask enables; the rest is `otherwise` or 0."""
        rest = zero(type) if otherwise is None else otherwise
        name = f"llvm.masked.load.{type.suffix}.p0"
        self.declare(name, type, [PTR, mask.type, type])
        pointer = f"ptr align {align or _element_bytes(type)} {address.text}"
        return self.emit(type, f"call {type.text} @{name}({pointer}, {mask}, {rest})")

    def masked_store(
        self, value: Operand, address: Operand, mask: Operand, align: int | None = None
    ) -> None:
        type = value.type
        name = f"llvm.masked.store.{type.suffix}.p0"
        self.declare(name, VOID, [type, PTR, mask.type])
        pointer = f"ptr align {align or _element_bytes(type)} {address.text}"
        self.emit_void(f"call void @{name}({value}, {pointer}, {mask})")

    def masked_gather(
        self,
        type: LLVMType,
        addresses: Operand,
        mask: Operand | None = None,
        otherwise: Operand | None = None,
    ) -> Operand:
        """Read one element from each address of a vector where the mask, if any, enables it."""
        enabled = constant(type.mask, True) if mask is None else mask
        rest = zero(type) if otherwise is None else otherwise
        name = f"llvm.masked.gather.{type.suffix}.{addresses.type.suffix}"
        self.declare(name, type, [addresses.type, enabled.type, type])
        pointers = f"{addresses.type.text} align {_element_bytes(type)} {addresses.text}"
        return self.emit(type, f"call {type.text} @{name}({pointers}, {enabled}, {rest})")

    def masked_scatter(self, value: Operand, addresses: Operand, mask: Operand) -> None:
        """Write each enabled lane to its address, in lane order where addresses coincide."""
        type = value.type
        name = f"llvm.masked.scatter.{type.suffix}.{addresses.type.suffix}"
        self.declare(name, VOID, [type, addresses.type, mask.type])
        pointers = f"{addresses.type.text} align {_element_bytes(type)} {addresses.text}"
        self.emit_void(f"call void @{name}({value}, {pointers}, {mask})")

    def prefetch(self, address: Operand, write: bool = False, locality: int = 3) -> None:
        """Hint that a line is needed soon; locality 0 (none) to 3 (keep in every level)."""
        name = "llvm.prefetch.p0"
        self.declare_text(name, f"declare void @{name}(ptr, i32, i32, i32)")
        self.emit_void(f"call void @{name}({address}, i32 {int(write)}, i32 {locality}, i32 1)")

    def memcpy(self, to: Operand, source: Operand, size: Operand) -> None:
        """Copy `size` (i64) bytes between places that do not overlap."""
        name = "llvm.memcpy.p0.p0.i64"
        self.declare_text(name, f"declare void @{name}(ptr, ptr, i64, i1)")
        self.emit_void(f"call void @{name}({to}, {source}, {size}, i1 false)")

    def memset(self, to: Operand, byte: Operand, size: Operand) -> None:
        name = "llvm.memset.p0.i64"
        self.declare_text(name, f"declare void @{name}(ptr, i8, i64, i1)")
        self.emit_void(f"call void @{name}({to}, {byte}, {size}, i1 false)")

    def declare_text(self, name: str, text: str) -> None:
        """Make an external function known by its whole declaration."""
        raise NotImplementedError


def _element_bytes(type: LLVMType) -> int:
    return max(1, type.bits // 8)
