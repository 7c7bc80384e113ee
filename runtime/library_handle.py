"""The handles of a library, as LLVM text: made, loaded from a file, freed, looked into."""

from __future__ import annotations

import numpy as np

from mapsto.lowering.llvm.types import I8, I32, I64, NULL, PTR, VOID, Operand, constant
from mapsto.lowering.llvm.writer import ModuleWriter
from mapsto.runtime.c_code import (
    OUT_OF_MEMORY,
    Checks,
    add_array,
    add_bytes,
    add_string,
    allocate,
    store_unless_null,
)
from mapsto.runtime.checkpoint import FORMAT_NAMES
from mapsto.runtime.library import Library, element_count
from mapsto.runtime.signature import TensorSpec

__all__ = ["write_handle_functions"]

_LOADER = "mapsto.load_tensors"


def write_handle_functions(library: Library, module: ModuleWriter) -> None:
    """The functions NAME_create (if the library has the values), NAME_load, _destroy, _array."""
    if not library.external_weights:
        _write_create(library, module)
    _write_load(library, module)
    _write_destroy(library, module)
    _write_array(library, module)


def _write_create(library: Library, module: ModuleWriter) -> None:
    """A handle with the values that the library was built with."""
    f = module.function(f"{library.name}_create", [(PTR, "model")], I32)
    check = Checks(f)
    check.require_pointer(f.parameters[0])
    handle = allocate(f, constant(I64, library.handle_bytes))
    f.store(handle, f.parameters[0])
    check.require(f.icmp("ne", handle, NULL), OUT_OF_MEMORY)
    f.store(constant(I64, 0), handle)
    for name, spec in library.bound.items():
        target = f.getelementptr(I8, handle, library.offsets[name])
        source = add_array(module, library.constant_name(name), library.arrays[name])
        f.memcpy(target, source, constant(I64, _bytes(spec)))
    f.ret(constant(I32, 0))


def _write_load(library: Library, module: ModuleWriter) -> None:
    """A handle with the values of a safetensors file; null and an error code if that fails."""
    f = module.function(f"{library.name}_load", [(PTR, "path"), (PTR, "model")], I32)
    path, model = f.parameters
    check = Checks(f)
    check.require_pointer(path)
    check.require_pointer(model)
    f.store(NULL, model)
    handle = allocate(f, constant(I64, library.handle_bytes))
    check.require(f.icmp("ne", handle, NULL), OUT_OF_MEMORY)
    f.store(constant(I64, 0), handle)
    arguments = [path, handle, _tensor_table(library, module), constant(I64, len(library.bound))]
    f.declare(_LOADER, I32, [PTR, PTR, PTR, I64])
    code = f.call(_LOADER, I32, arguments)
    loaded, failed = f.block("loaded"), f.block("failed")
    f.branch_if(f.icmp("eq", code, constant(I32, 0)), loaded, failed)
    f.begin(failed)
    f.declare("free", VOID, [PTR])
    f.call("free", VOID, [handle])
    f.ret(code)
    f.begin(loaded)
    f.store(handle, model)
    f.ret(constant(I32, 0))


def _tensor_table(library: Library, module: ModuleWriter) -> Operand:
    """What the file should hold, as safetensors_loader.ll wants to know it."""
    rows = [_tensor_row(library, module, name, spec) for name, spec in library.bound.items()]
    row_type = "{ ptr, i64, ptr, i64, i64, ptr, i64, i64 }"
    text = ", ".join(f"{row_type} {{ {row} }}" for row in rows)
    return module.add_global("tensors", f"internal constant [{len(rows)} x {row_type}] [{text}]")


def _tensor_row(library: Library, module: ModuleWriter, name: str, spec: TensorSpec) -> str:
    symbol, key, dtype = library.constant_name(name), name.encode(), FORMAT_NAMES[spec.dtype]
    dims = np.array(spec.shape, "<i8").tobytes()
    pointers = [
        add_bytes(module, f"{symbol}.key", key),
        add_bytes(module, f"{symbol}.dtype", dtype.encode()),
        add_bytes(module, f"{symbol}.dims", dims),
    ]
    key_text, dtype_text, dims_text = (str(pointer) for pointer in pointers)
    return (
        f"{key_text}, i64 {len(key)}, {dtype_text}, i64 {len(dtype)}, i64 {len(spec.shape)},"
        f" {dims_text}, i64 {library.offsets[name]}, i64 {_bytes(spec)}"
    )


def _bytes(spec: TensorSpec) -> int:
    return element_count(spec) * spec.dtype.bytes


def _write_destroy(library: Library, module: ModuleWriter) -> None:
    """Frees a handle, or nothing."""
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
        known = add_string(module, f"{library.constant_name(key)}.name", key)
        order = f.call("strcmp", I32, [name, known])
        f.branch_if(f.icmp("eq", order, constant(I32, 0)), this, other)
        f.begin(this)
        store_unless_null(f, constant(I64, element_count(spec)), elements)
        f.ret(f.getelementptr(I8, model, library.offsets[key]))
        f.begin(other)
    f.branch(absent)
    f.begin(absent)
    store_unless_null(f, constant(I64, 0), elements)
    f.ret(NULL)
