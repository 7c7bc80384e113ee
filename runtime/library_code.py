"""The C functions of a library, as LLVM text: they check every argument, then call the programs.

Nothing that a caller passes in the declared types is trusted but that a pointer is valid for the
number of elements passed with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mapsto.lowering.llvm.types import I8, I32, I64, NULL, PTR, VOID, LLVMType, Operand, constant
from mapsto.lowering.llvm.writer import FunctionWriter, ModuleWriter, Parameter
from mapsto.runtime.dim_code import DimWriter
from mapsto.runtime.errors import LIBRARY_ERRORS, PROGRAM_ERRORS
from mapsto.runtime.library import (
    CParameter,
    Library,
    LibraryEntry,
    element_count,
    entry_parameters,
    size_parameters,
)
from mapsto.runtime.signature import MAX_DIM, TensorSpec

__all__ = ["library_text"]

_OUT_OF_MEMORY = 2
_NULL_POINTER = 100
_BAD_DIMENSION = 101
_WRONG_ELEMENTS = 102
_SMALL_WORKSPACE = 103
_MISALIGNED = 104

_ALIGNMENT = 64


def library_text(library: Library) -> str:
    """The LLVM text of a library's C functions and constants, without its programs."""
    module = ModuleWriter()
    for name in library.bound:
        _add_constant(library, module, name)
    _write_error_message(library, module)
    _write_set_threads(library, module)
    if library.has_handle:
        _write_create(library, module)
        _write_destroy(library, module)
        _write_array(library, module)
    for entry in library.entries:
        _write_workspace_bytes(library, entry, module)
        _EntryWriter(library, entry, module).write()
    return str(module)


class _Checks:
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
        self.require(self.f.icmp("ne", pointer, NULL), _NULL_POINTER)

    def require_sizes(self, sizes: list[Operand], code: int) -> None:
        """The named sizes lie in [1, MAX_DIM]."""
        f = self.f
        for size in sizes:
            less = f.sub(size, constant(I64, 1))
            self.require(f.icmp("ult", less, constant(I64, MAX_DIM)), code)


class _EntryWriter:
    """The C function of one entry."""

    def __init__(self, library: Library, entry: LibraryEntry, module: ModuleWriter) -> None:
        self.library = library
        self.entry = entry
        self.signature = entry.signature
        self.module = module
        self.parameters = entry_parameters(library, entry)
        self.f = module.function(library.c_name(entry), _llvm_parameters(self.parameters), I32)
        self.check = _Checks(self.f)
        self.values = {p.name: v for p, v in zip(self.parameters, self.f.parameters, strict=True)}

    def write(self) -> None:
        f, check = self.f, self.check
        sizes = self.size_values()
        for parameter in self.tensors:
            check.require_pointer(self.values[parameter.name])
        if self.library.has_handle:
            check.require_pointer(self.values["model"])
        check.require_sizes(sizes, _BAD_DIMENSION)
        self.check_tensors(dict(zip(self.signature.symbols, sizes, strict=True)))
        dims = _store_all(f, sizes, I64)
        bytes_ = f.call(f"{self.entry.entry_name}.arena_bytes", I64, [dims])
        f.declare(f"{self.entry.entry_name}.arena_bytes", I64, [PTR])
        check.require(f.icmp("sge", bytes_, constant(I64, 0)), _BAD_DIMENSION)
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
        self.check.require(f.not_(writer.invalid()), _BAD_DIMENSION)
        for parameter, elements in zip(self.tensors, expected, strict=True):
            given = self.values[f"{parameter.name}_elements"]
            self.check.require(f.icmp("eq", given, elements), _WRONG_ELEMENTS)
            self.check_alignment(self.values[parameter.name], _tensor(parameter))

    def check_alignment(self, pointer: Operand, spec: TensorSpec) -> None:
        if spec.dtype.bytes > 1:
            f = self.f
            address = f.emit(I64, f"ptrtoint {pointer} to i64")
            low = f.and_(address, constant(I64, spec.dtype.bytes - 1))
            self.check.require(f.icmp("eq", low, constant(I64, 0)), _MISALIGNED)

    def with_workspace(self, bytes_: Operand, dims: Operand) -> None:
        """Calls the program in the caller's workspace, or in memory of the library's own."""
        f = self.f
        given, own = f.block("given"), f.block("own")
        f.branch_if(f.icmp("ne", self.values["workspace"], NULL), given, own)
        f.begin(given)
        needed = f.add(bytes_, constant(I64, _ALIGNMENT))
        enough = f.icmp("sge", self.values["workspace_bytes"], needed)
        self.check.require(enough, _SMALL_WORKSPACE)
        f.ret(self.call(dims, _aligned(f, self.values["workspace"])))
        f.begin(own)
        arena = _allocate(f, bytes_)
        self.check.require(f.icmp("ne", arena, NULL), _OUT_OF_MEMORY)
        code = self.call(dims, arena)
        f.declare("free", VOID, [PTR])
        f.call("free", VOID, [arena])
        f.ret(code)

    def call(self, dims: Operand, arena: Operand) -> Operand:
        """Calls the program, alone with its handle; the error code."""
        f, locked = self.f, self.library.has_handle
        buffers = _store_all(f, self.buffers(), PTR)
        if locked:
            _lock(f, self.values["model"])
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
        return [*arguments, *passed]

    def bound(self, name: str) -> Operand:
        if not self.library.has_handle:
            return Operand(f"@{_constant_name(self.library, name)}", PTR)
        return self.f.getelementptr(I8, self.values["model"], self.library.offsets[name])


# ---- the other functions


def _write_workspace_bytes(library: Library, entry: LibraryEntry, module: ModuleWriter) -> None:
    """How many bytes of workspace an entry needs for these sizes; -1 if they are not valid."""
    name = f"{library.c_name(entry)}_workspace_bytes"
    f = module.function(name, _llvm_parameters(size_parameters(entry)), I64)
    check = _Checks(f, I64)
    check.require_sizes(f.parameters, -1)
    arena_bytes = f"{entry.entry_name}.arena_bytes"
    f.declare(arena_bytes, I64, [PTR])
    bytes_ = f.call(arena_bytes, I64, [_store_all(f, f.parameters, I64)])
    check.require(f.icmp("sge", bytes_, constant(I64, 0)), -1)
    f.ret(f.add(bytes_, constant(I64, _ALIGNMENT)))


def _write_error_message(library: Library, module: ModuleWriter) -> None:
    f = module.function(f"{library.name}_error_message", [(I32, "code")], PTR)
    messages = {0: "success", **PROGRAM_ERRORS, **LIBRARY_ERRORS}
    for code, message in messages.items():
        this, other = f.block("this"), f.block("other")
        f.branch_if(f.icmp("eq", f.parameters[0], constant(I32, code)), this, other)
        f.begin(this)
        f.ret(_string(module, f"message.{code}", message))
        f.begin(other)
    f.ret(_string(module, "message.unknown", "unknown error"))


def _write_set_threads(library: Library, module: ModuleWriter) -> None:
    f = module.function(f"{library.name}_set_threads", [(I64, "threads")], VOID)
    f.declare("mapsto_set_threads", VOID, [I64])
    f.call("mapsto_set_threads", VOID, [f.parameters[0]])
    f.ret()


def _write_create(library: Library, module: ModuleWriter) -> None:
    f = module.function(f"{library.name}_create", [(PTR, "model")], I32)
    check = _Checks(f)
    check.require_pointer(f.parameters[0])
    handle = _allocate(f, constant(I64, library.handle_bytes))
    f.store(handle, f.parameters[0])
    check.require(f.icmp("ne", handle, NULL), _OUT_OF_MEMORY)
    f.store(constant(I64, 0), handle)
    for name, spec in library.bound.items():
        target = f.getelementptr(I8, handle, library.offsets[name])
        size = constant(I64, element_count(spec) * spec.dtype.bytes)
        f.memcpy(target, Operand(f"@{_constant_name(library, name)}", PTR), size)
    f.ret(constant(I32, 0))


def _write_destroy(library: Library, module: ModuleWriter) -> None:
    f = module.function(f"{library.name}_destroy", [(PTR, "model")], VOID)
    f.declare("free", VOID, [PTR])
    f.call("free", VOID, [f.parameters[0]])
    f.ret()


def _write_array(library: Library, module: ModuleWriter) -> None:
    """The address and the number of elements of a handle's array, by name; else null and 0."""
    parameters = [(PTR, "model"), (PTR, "name"), (PTR, "elements")]
    f = module.function(f"{library.name}_array", parameters, PTR)
    model, name, elements = f.parameters
    search, absent = f.block("search"), f.block("absent")
    missing = f.or_(f.icmp("eq", model, NULL), f.icmp("eq", name, NULL))
    f.branch_if(missing, absent, search)
    f.begin(search)
    f.declare("strcmp", I32, [PTR, PTR])
    for key, spec in library.bound.items():
        this, other = f.block("this"), f.block("other")
        known = _string(module, f"{_constant_name(library, key)}.name", key)
        order = f.call("strcmp", I32, [name, known])
        f.branch_if(f.icmp("eq", order, constant(I32, 0)), this, other)
        f.begin(this)
        _store_unless_null(f, constant(I64, element_count(spec)), elements)
        f.ret(f.getelementptr(I8, model, library.offsets[key]))
        f.begin(other)
    f.branch(absent)
    f.begin(absent)
    _store_unless_null(f, constant(I64, 0), elements)
    f.ret(NULL)


# ---- parts


def _llvm_parameters(parameters: Sequence[CParameter]) -> list[Parameter]:
    """With names that cannot be those of values of the function."""
    return [(parameter.llvm_type, f"given.{parameter.name}") for parameter in parameters]


def _tensor(parameter: CParameter) -> TensorSpec:
    assert parameter.spec is not None
    return parameter.spec


def _store_all(f: FunctionWriter, values: Sequence[Operand], type: LLVMType) -> Operand:
    """An array of the values on the stack."""
    array = f.alloca(type, max(1, len(values)), align=8)
    for k, value in enumerate(values):
        f.store(value, f.getelementptr(type, array, k))
    return array


def _store_unless_null(f: FunctionWriter, value: Operand, address: Operand) -> None:
    given, after = f.block("given"), f.block("after")
    f.branch_if(f.icmp("ne", address, NULL), given, after)
    f.begin(given)
    f.store(value, address)
    f.branch(after)
    f.begin(after)


def _allocate(f: FunctionWriter, size: Operand) -> Operand:
    """At least `size` bytes at a multiple of 64, or null."""
    f.declare("aligned_alloc", PTR, [I64, I64])
    more = f.add(f.smax(size, constant(I64, 1)), constant(I64, _ALIGNMENT - 1))
    rounded = f.and_(more, constant(I64, -_ALIGNMENT))
    return f.call("aligned_alloc", PTR, [constant(I64, _ALIGNMENT), rounded])


def _aligned(f: FunctionWriter, pointer: Operand) -> Operand:
    """The first multiple of 64 from an address on."""
    address = f.emit(I64, f"ptrtoint {pointer} to i64")
    skip = f.and_(f.sub(constant(I64, 0), address), constant(I64, _ALIGNMENT - 1))
    return f.getelementptr(I8, pointer, skip)


def _lock(f: FunctionWriter, word: Operand) -> None:
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


def _constant_name(library: Library, name: str) -> str:
    return f"array.{list(library.bound).index(name)}"


def _add_constant(library: Library, module: ModuleWriter, name: str) -> None:
    """The bytes of an array, in the target's (little-endian) order."""
    array = library.arrays[name]
    data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    text = f'internal constant [{len(data)} x i8] c"{_escaped(data)}", align {_ALIGNMENT}'
    module.add_global(_constant_name(library, name), text)


def _string(module: ModuleWriter, name: str, text: str) -> Operand:
    data = text.encode() + b"\0"
    return module.add_global(name, f'internal constant [{len(data)} x i8] c"{_escaped(data)}"')


_ESCAPES = np.array([f"\\{byte:02X}".encode() for byte in range(256)])


def _escaped(data: bytes) -> str:
    return _ESCAPES[np.frombuffer(data, np.uint8)].tobytes().decode("ascii")
