"""The C functions of a library, as LLVM text: they check every argument, then call the programs.

Nothing that a caller passes in the declared types is trusted but that a pointer is valid for the
number of elements passed with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from mapsto.lowering.llvm.types import I8, I32, I64, NULL, PTR, VOID, Operand, constant
from mapsto.lowering.llvm.writer import Block, ModuleWriter, Parameter
from mapsto.runtime.c_code import (
    ALIGNMENT,
    BAD_DIMENSION,
    MISALIGNED,
    OUT_OF_MEMORY,
    SMALL_WORKSPACE,
    WRONG_ELEMENTS,
    Checks,
    add_array,
    add_string,
    aligned,
    allocate,
    lock,
    store_all,
)
from mapsto.runtime.dim_code import DimWriter
from mapsto.runtime.library import (
    CParameter,
    Library,
    LibraryEntry,
    entry_parameters,
    size_parameters,
)
from mapsto.runtime.library_handle import write_handle_functions
from mapsto.runtime.signature import TensorSpec

__all__ = ["library_text"]


def library_text(library: Library) -> str:
    """The LLVM text of a library's C functions and constants, without its programs."""
    module = ModuleWriter()
    _write_error_message(library, module)
    _write_set_threads(library, module)
    weights: dict[str, Operand] = {}
    if library.has_handle:
        write_handle_functions(library, module)
    else:
        weights = {
            name: add_array(module, library.constant_name(name), library.arrays[name])
            for name in library.bound
        }
    for entry in library.entries:
        _write_workspace_bytes(library, entry, module)
        _EntryWriter(library, entry, module, weights).write()
    return str(module)


class _EntryWriter:
    """The C function of one entry."""

    def __init__(
        self,
        library: Library,
        entry: LibraryEntry,
        module: ModuleWriter,
        weights: Mapping[str, Operand],
    ) -> None:
        self.library = library
        self.module = module
        self.weights = weights
        self.entry = entry
        self.signature = entry.signature
        self.parameters = entry_parameters(library, entry)
        self.f = module.function(library.c_name(entry), _llvm_parameters(self.parameters), I32)
        self.check = Checks(self.f)
        self.values = {p.name: v for p, v in zip(self.parameters, self.f.parameters, strict=True)}

    def write(self) -> None:
        f, check = self.f, self.check
        sizes = self.size_values()
        for parameter in self.tensors:
            check.require_pointer(self.values[parameter.name])
        if self.library.has_handle:
            check.require_pointer(self.values["model"])
        check.require_sizes(sizes, BAD_DIMENSION)
        self.check_tensors(dict(zip(self.signature.symbols, sizes, strict=True)))
        dims = store_all(f, sizes, I64)
        bytes_ = f.call(f"{self.entry.entry_name}.arena_bytes", I64, [dims])
        f.declare(f"{self.entry.entry_name}.arena_bytes", I64, [PTR])
        check.require(f.icmp("sge", bytes_, constant(I64, 0)), BAD_DIMENSION)
        self.with_workspace(bytes_, dims)

    @property
    def tensors(self) -> list[CParameter]:
        """The pointers to inputs and results."""
        return [parameter for parameter in self.parameters if parameter.spec is not None]

    def size_values(self) -> list[Operand]:
        return [self.values[parameter.name] for parameter in size_parameters(self.entry)]

    def check_tensors(self, sizes: dict[str, Operand]) -> None:
        """Each tensor has the elements that the sizes call for, and is aligned for them."""
        f, writer = self.f, DimWriter(self.f, sizes)
        expected = []
        for parameter in self.tensors:
            spec = _tensor(parameter)
            dims = [writer.dim(dim) for dim in spec.shape]
            for dim, value in zip(spec.shape, dims, strict=True):
                if not isinstance(dim, int):
                    writer.require(f.icmp("sge", value, constant(I64, 0)))
            elements = writer.elements(dims)
            writer.elements([elements, constant(I64, spec.dtype.bytes)])
            expected.append(elements)
        self.check.require(f.not_(writer.invalid()), BAD_DIMENSION)
        for parameter, elements in zip(self.tensors, expected, strict=True):
            given = self.values[f"{parameter.name}_elements"]
            self.check.require(f.icmp("eq", given, elements), WRONG_ELEMENTS)
            self.check_alignment(self.values[parameter.name], _tensor(parameter))

    def check_alignment(self, pointer: Operand, spec: TensorSpec) -> None:
        if spec.dtype.bytes > 1:
            f = self.f
            address = f.ptrtoint(pointer, I64)
            low = f.and_(address, constant(I64, spec.dtype.bytes - 1))
            self.check.require(f.icmp("eq", low, constant(I64, 0)), MISALIGNED)

    def with_workspace(self, bytes_: Operand, dims: Operand) -> None:
        """Calls the program in the caller's workspace, or in memory of the library's own."""
        f = self.f
        given, own = f.block("given"), f.block("own")
        f.branch_if(f.icmp("ne", self.values["workspace"], NULL), given, own)
        f.begin(given)
        needed = f.add(bytes_, constant(I64, ALIGNMENT))
        enough = f.icmp("sge", self.values["workspace_bytes"], needed)
        self.check.require(enough, SMALL_WORKSPACE)
        f.ret(self.call(dims, aligned(f, self.values["workspace"])))
        f.begin(own)
        arena = allocate(f, bytes_)
        self.check.require(f.icmp("ne", arena, NULL), OUT_OF_MEMORY)
        code = self.call(dims, arena)
        f.declare("free", VOID, [PTR])
        f.call("free", VOID, [arena])
        f.ret(code)

    def call(self, dims: Operand, arena: Operand) -> Operand:
        """Calls the program, alone with its handle; the error code."""
        f, locked = self.f, self.library.has_lock
        buffers = store_all(f, self.buffers(), PTR)
        if self.signature.prepared_bytes:
            self.prepare(buffers, dims, arena)
        if locked:
            lock(f, self.values["model"])
        f.declare(self.entry.entry_name, I32, [PTR, PTR, PTR])
        code = f.call(self.entry.entry_name, I32, [buffers, dims, arena])
        if locked:
            f.emit_void(f"store atomic i32 0, {self.values['model']} release, align 4")
        return code

    def buffers(self) -> list[Operand]:
        """The data pointers of all arguments and results, in ABI order."""
        passed = iter([self.values[parameter.name] for parameter in self.tensors])
        arguments = [
            self.bound(argument.spec.name) if argument.bound else next(passed)
            for argument in self.signature.arguments
        ]
        prepared = [self.prepared] if self.signature.prepared_bytes else []
        return [*arguments, *passed, *prepared]

    @cached_property
    def prepared(self) -> Operand:
        """The memory that the program reads and that is filled once."""
        size = self.signature.prepared_bytes
        kind = f"internal global [{size} x i8] zeroinitializer, align {ALIGNMENT}"
        return self.module.add_global(f"{self.entry.entry_name}.prepared", kind)

    def prepare(self, buffers: Operand, dims: Operand, arena: Operand) -> None:
        """Fills the prepared memory at the first call; others that come meanwhile wait."""
        f, name = self.f, self.entry.entry_name
        words = self.module.add_global(f"{name}.once", "internal global [2 x i32] zeroinitializer")
        is_done = f.getelementptr(I32, words, 1)
        first, mine, after = f.block("first"), f.block("mine"), f.block("after")
        done = f.block("done")

        def check(otherwise: Block, following: Block) -> None:
            state = f.emit(I32, f"load atomic i32, {is_done} acquire, align 4")
            f.branch_if(f.icmp("eq", state, constant(I32, 0)), otherwise, following)

        check(first, after)
        f.begin(first)
        lock(f, words)
        check(mine, done)
        f.begin(mine)
        f.declare(f"{name}.prepare", VOID, [PTR, PTR, PTR])
        f.call(f"{name}.prepare", VOID, [buffers, dims, arena])
        f.emit_void(f"store atomic i32 1, {is_done} release, align 4")
        f.branch(done)
        f.begin(done)
        f.emit_void(f"store atomic i32 0, {words} release, align 4")
        f.branch(after)
        f.begin(after)

    def bound(self, name: str) -> Operand:
        """Where a bound array is: a constant of the library, or in the handle."""
        if name in self.weights:
            return self.weights[name]
        return self.f.getelementptr(I8, self.values["model"], self.library.offsets[name])


# ---- the other functions


def _write_workspace_bytes(library: Library, entry: LibraryEntry, module: ModuleWriter) -> None:
    """How many bytes of workspace an entry needs for these sizes; -1 if they are not valid."""
    name = f"{library.c_name(entry)}_workspace_bytes"
    f = module.function(name, _llvm_parameters(size_parameters(entry)), I64)
    check = Checks(f, I64)
    check.require_sizes(f.parameters, -1)
    arena_bytes = f"{entry.entry_name}.arena_bytes"
    f.declare(arena_bytes, I64, [PTR])
    bytes_ = f.call(arena_bytes, I64, [store_all(f, f.parameters, I64)])
    check.require(f.icmp("sge", bytes_, constant(I64, 0)), -1)
    f.ret(f.add(bytes_, constant(I64, ALIGNMENT)))


def _write_error_message(library: Library, module: ModuleWriter) -> None:
    f = module.function(f"{library.name}_error_message", [(I32, "code")], PTR)
    for code, message in library.error_messages.items():
        this, other = f.block("this"), f.block("other")
        f.branch_if(f.icmp("eq", f.parameters[0], constant(I32, code)), this, other)
        f.begin(this)
        f.ret(add_string(module, f"message.{code}", message))
        f.begin(other)
    f.ret(add_string(module, "message.unknown", "unknown error"))


def _write_set_threads(library: Library, module: ModuleWriter) -> None:
    f = module.function(f"{library.name}_set_threads", [(I64, "threads")], VOID)
    f.declare("mapsto_set_threads", VOID, [I64])
    f.call("mapsto_set_threads", VOID, [f.parameters[0]])
    f.ret()


# ---- parts


def _llvm_parameters(parameters: Sequence[CParameter]) -> list[Parameter]:
    """With names that cannot be those of values of the function."""
    return [(parameter.llvm_type, f"given.{parameter.name}") for parameter in parameters]


def _tensor(parameter: CParameter) -> TensorSpec:
    assert parameter.spec is not None
    return parameter.spec
