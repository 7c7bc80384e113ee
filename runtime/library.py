"""C libraries: what one is made of, and the names and parameters of its C functions.

A library holds programs (entries) and the arrays that they are bound to.  Where no entry writes its
arrays they are constants of the library, its functions need no handle, and what depends on the
arrays alone is computed at the first call; else (a training step) a handle owns a copy of them, and
every entry takes it first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mapsto.ir.dims import Dim, dim_value
from mapsto.ir.types import DType
from mapsto.lowering.assertions import Assertion
from mapsto.lowering.llvm.types import I64, PTR, LLVMType
from mapsto.runtime.arrays import Array
from mapsto.runtime.errors import LIBRARY_ERRORS, PROGRAM_ERRORS
from mapsto.runtime.signature import Signature, TensorSpec

__all__ = ["CParameter", "Library", "LibraryEntry", "entry_parameters"]

_HEADER_BYTES = 64
_ALIGNMENT = 64

_C_TYPES = {
    DType.BOOL: "uint8_t",
    DType.I8: "int8_t",
    DType.I16: "int16_t",
    DType.I32: "int32_t",
    DType.I64: "int64_t",
    DType.U8: "uint8_t",
    DType.U32: "uint32_t",
    DType.F16: "uint16_t",
    DType.F32: "float",
    DType.F64: "double",
}

_KEYWORDS = """
auto bool break case catch char class const continue default delete do double else enum extern
false float for goto if inline int long namespace new operator private protected public register
restrict return short signed sizeof static struct switch template this throw true try typedef
typename union unsigned using virtual void volatile while
"""
_RESERVED = frozenset([*_KEYWORDS.split(), "model", "workspace", "workspace_bytes"])


@dataclass(frozen=True)
class LibraryEntry:
    """A program of a library: its C name after the library's, the ABI entry in the LLVM text."""

    name: str
    entry_name: str
    signature: Signature
    documentation: str = ""


@dataclass(frozen=True)
class Library:
    """A library called `name` (a C identifier): LLVM text, its entries, and the bound arrays.

    `arrays` has a value for each bound argument of the entries; arguments of one name share it.
    With `external_weights` the values are not in the library but read from a file at run time.
    `assertions` are those of the programs, by error code.
    Raises ValueError if the name is no C identifier or an array is missing or of another type.
    """

    name: str
    text: str
    entries: tuple[LibraryEntry, ...]
    arrays: Mapping[str, Array] = field(default_factory=dict)
    external_weights: bool = False
    assertions: Mapping[int, Assertion] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z]\w*", self.name, re.ASCII):
            raise ValueError(f"`{self.name}` cannot be the name of a C library")
        for spec in () if self.external_weights else self.bound.values():
            _check_array(spec, self.arrays.get(spec.name))

    @cached_property
    def bound(self) -> dict[str, TensorSpec]:
        """The bound arguments of all entries, by name, in order of first appearance."""
        return {spec.name: spec for entry in self.entries for spec in entry.signature.bound}

    @cached_property
    def has_handle(self) -> bool:
        """Whether each user has arrays of his own: they are written, or come from a file."""
        return self.external_weights or self.has_lock

    @cached_property
    def has_lock(self) -> bool:
        """Whether some entry writes its arrays: calls with one handle then wait for each other."""
        return any(entry.signature.exclusive for entry in self.entries)

    @cached_property
    def offsets(self) -> dict[str, int]:
        """Where in a handle's memory each array begins, in bytes."""
        offsets, offset = {}, _HEADER_BYTES
        for name, spec in self.bound.items():
            offsets[name] = offset
            offset += _round_up(element_count(spec) * spec.dtype.bytes)
        return offsets

    @cached_property
    def handle_bytes(self) -> int:
        """The size of a handle's memory."""
        sizes = [element_count(spec) * spec.dtype.bytes for spec in self.bound.values()]
        return _HEADER_BYTES + sum(map(_round_up, sizes))

    @property
    def error_messages(self) -> dict[int, str]:
        """A sentence for each code that a function of the library may return."""
        failed = {code: _assertion_message(found) for code, found in self.assertions.items()}
        return {0: "success", **PROGRAM_ERRORS, **LIBRARY_ERRORS, **failed}

    @property
    def function_names(self) -> tuple[str, ...]:
        """All C functions of the library."""
        names = [f"{self.name}_error_message", f"{self.name}_set_threads"]
        if self.has_handle:
            verbs = ("load", "destroy", "array") + (() if self.external_weights else ("create",))
            names += [f"{self.name}_{verb}" for verb in verbs]
        for entry in self.entries:
            names += [self.c_name(entry), f"{self.c_name(entry)}_workspace_bytes"]
        return tuple(names)

    def constant_name(self, name: str) -> str:
        """The LLVM name of the values of a bound array."""
        return f"array.{list(self.bound).index(name)}"

    def c_name(self, entry: LibraryEntry) -> str:
        """The name of an entry's C function."""
        return f"{self.name}_{entry.name}"


@dataclass(frozen=True)
class CParameter:
    """A parameter of a C function; `spec` is the tensor behind a pointer."""

    c_type: str
    name: str
    llvm_type: LLVMType
    spec: TensorSpec | None = None


def entry_parameters(library: Library, entry: LibraryEntry) -> list[CParameter]:
    """The parameters of an entry's C function.

    The handle if there is one; the named sizes; for each input and then each result a pointer and
    a number of elements; the workspace and its size.
    """
    parameters = handle_parameters(library) + size_parameters(entry)
    taken = {parameter.name for parameter in parameters}
    signature = entry.signature
    for spec in (*signature.inputs, *signature.results):
        qualifier = "const " if spec in signature.inputs else ""
        name = c_identifier(spec.name, taken)
        taken |= {name, f"{name}_elements"}
        c_type = f"{qualifier}{_C_TYPES[spec.dtype]} *"
        parameters.append(CParameter(c_type, name, PTR, spec))
        parameters.append(CParameter("int64_t", f"{name}_elements", I64))
    workspace = CParameter("void *", "workspace", PTR)
    return [*parameters, workspace, CParameter("int64_t", "workspace_bytes", I64)]


def handle_parameters(library: Library) -> list[CParameter]:
    """The handle, if the library has one."""
    if not library.has_handle:
        return []
    return [CParameter(f"{library.name}_model *", "model", PTR)]


def size_parameters(entry: LibraryEntry) -> list[CParameter]:
    """The named sizes of an entry, in the order of the ABI."""
    taken: set[str] = set()
    parameters = []
    for symbol in entry.signature.symbols:
        name = c_identifier(symbol, taken)
        taken.add(name)
        parameters.append(CParameter("int64_t", name, I64))
    return parameters


def c_identifier(name: str, taken: frozenset[str] | set[str]) -> str:
    """A C and C++ identifier near a name, and none of `taken`."""
    text = re.sub(r"\W", "_", name, flags=re.ASCII)
    if not text or text[0].isdigit() or text[0] == "_":
        text = f"a{text}"
    while text in _RESERVED or text in taken or f"{text}_elements" in taken:
        text += "_"
    return text


def element_count(spec: TensorSpec) -> int:
    """The number of elements of a tensor of fixed shape."""
    elements: Dim = spec.type.elements
    return dim_value(elements, {})


def _assertion_message(assertion: Assertion) -> str:
    """The message with the name of the file, not its path, which is that of another machine."""
    where = assertion.location
    place = f"{Path(where.file).name}:{where.line}: " if where is not None else ""
    return f"{place}assertion failed: {assertion.message}"


def _check_array(spec: TensorSpec, array: Array | None) -> None:
    if array is None:
        raise ValueError(f"the library lacks the array {spec}")
    if array.shape != spec.shape or DType.of(array.dtype) is not spec.dtype:
        raise ValueError(f"expected {spec}, found {array.dtype}{list(array.shape)}")


def _round_up(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
