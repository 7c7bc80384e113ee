"""The Python entry point of a compiled program, as LLVM text: a METH_FASTCALL C function.

The function takes NumPy arrays and reads their fields directly.  It returns the result, a tuple of
results or None; or `NotImplemented`, without any effect, when an argument is not an array of just
the right element type, rank, shape and layout.  The caller then converts or explains.

There are two: one makes its results; the other takes arrays for them behind the arguments, which
must not overlap one another, an argument or a bound array, and gives them back.

The code depends on the signature only: programs of one signature share it, and find what is theirs
(entry, arena, parameters) in the context behind `self` (see `python_support.ll`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby, islice

from mapsto.ir.dims import Dim
from mapsto.lowering.llvm.types import I1, I8, I32, I64, PTR, VOID, Operand, constant
from mapsto.lowering.llvm.writer import Block, ModuleWriter
from mapsto.runtime.dim_code import DimWriter
from mapsto.runtime.signature import MAX_DIM, Signature, TensorSpec, plain_symbol

__all__ = ["BOUND_OFFSET", "ENTRY_NAME", "PythonLayout", "prepared_offset", "python_entry_text"]

ENTRY_NAME = "mapsto.python_entry"
BOUND_OFFSET = 7
"""The word of a context where the bound buffers begin."""

_NULL = Operand("null", PTR)
_CONTIGUOUS_AND_ALIGNED = 0x101
_WRITEABLE = 0x400


class PythonLayout:
    """Where the fields of a NumPy array lie, in bytes, after an object header of a given size."""

    def __init__(self, header: int) -> None:
        self.type = header - 8
        self.data = header
        self.rank = header + 8
        self.dims = header + 16
        self.descriptor = header + 40
        self.flags = header + 48


def prepared_offset(bound: int) -> int:
    """The word of a context where the address of prepared memory stands, behind those of so many
    bound buffers and their sizes."""
    return BOUND_OFFSET + 2 * bound


def python_entry_text(signature: Signature, into: bool = False) -> str:
    """LLVM text of the function `mapsto.python_entry(self, arguments, count)` for a signature;
    `into`: it takes arrays for the results."""
    return (_IntoWriter if into else _EntryWriter)(signature).text()


@dataclass(frozen=True, slots=True)
class _Range:
    """Memory of an array: its address and its bytes."""

    data: Operand
    size: Operand


class _EntryWriter:
    """Writes an entry that makes its results."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.layout = PythonLayout(object.__basicsize__)
        self.module = ModuleWriter()
        self.f = self.module.function(
            ENTRY_NAME, [(PTR, "self"), (PTR, "args"), (I64, "count")], PTR
        )
        self.context = _NULL
        self.sizes: dict[str, Operand] = {}
        self.mismatch: Block = self.f.block("mismatch")

    def text(self) -> str:
        """The module."""
        f, signature = self.f, self.signature
        self.guard(f.icmp("eq", f.parameters[2], constant(I64, self.count)))
        inputs = [self.read_input(k, spec) for k, spec in enumerate(signature.inputs)]
        shapes = self.result_shapes(inputs)
        self.context = self.call("PyCapsule_GetPointer", f.parameters[0], _NULL)
        results = self.results(inputs, shapes)
        buffers = self.buffers([data for data, _ in inputs], results)
        self.finish(self.run(buffers), results)
        f.begin(self.mismatch)
        f.ret(self.new_reference("python.NotImplemented"))
        return str(self.module)

    @property
    def count(self) -> int:
        """How many arguments a caller passes."""
        return len(self.signature.inputs)

    # ---- arguments

    def array(self, position: int, spec: TensorSpec, flags: int) -> Operand:
        """An argument that is an array of some element type and rank with these flags."""
        f, layout = self.f, self.layout
        array = f.load(PTR, f.getelementptr(PTR, f.parameters[1], position))
        self.guard(f.icmp("eq", self.field(array, layout.type), self.symbol("numpy.ndarray")))
        self.check_header(array, spec, flags)
        return array

    def read_input(self, position: int, spec: TensorSpec) -> tuple[Operand, Operand]:
        """Checks an argument; its data pointer and the pointer to its dimensions."""
        f, layout = self.f, self.layout
        array = self.array(position, spec, _CONTIGUOUS_AND_ALIGNED)
        dims = self.field(array, layout.dims)
        for axis, dim in enumerate(spec.shape):
            self.read_dim(f.getelementptr(I64, dims, axis), dim)
        return self.field(array, layout.data), dims

    def check_header(self, array: Operand, spec: TensorSpec, wanted_flags: int) -> None:
        f, layout = self.f, self.layout
        descriptor = self.field(array, layout.descriptor)
        rank = f.load(I32, f.getelementptr(I8, array, layout.rank))
        flags = f.load(I32, f.getelementptr(I8, array, layout.flags))
        wanted = constant(I32, wanted_flags)
        same = f.icmp("eq", descriptor, self.symbol(f"numpy.{spec.dtype}"))
        ranked = f.icmp("eq", rank, constant(I32, len(spec.shape)))
        dense = f.icmp("eq", f.and_(flags, wanted), wanted)
        self.guard(f.and_(f.and_(same, ranked), dense))

    def read_dim(self, address: Operand, dim: Dim) -> None:
        """Compares a fixed or known dimension; takes an unknown named size from here."""
        f, name = self.f, plain_symbol(dim)
        if isinstance(dim, int):
            self.guard(f.icmp("eq", f.load(I64, address), constant(I64, dim)))
        elif name in self.sizes:
            self.guard(f.icmp("eq", f.load(I64, address), self.sizes[name]))
        elif name is not None:
            self.sizes[name] = f.load(I64, address)
            self.guard(f.icmp("ule", self.sizes[name], constant(I64, MAX_DIM)))

    def result_shapes(self, inputs: list[tuple[Operand, Operand]]) -> list[Operand]:
        """Arrays of the results' dimensions, once the arguments' composite dimensions agree."""
        f = self.f
        writer = DimWriter(f, self.sizes)
        for spec, (_, dims) in zip(self.signature.inputs, inputs, strict=True):
            for axis, dim in enumerate(spec.shape):
                if not isinstance(dim, int) and plain_symbol(dim) is None:
                    actual = f.load(I64, f.getelementptr(I64, dims, axis))
                    writer.require(f.icmp("eq", actual, writer.dim(dim)))
        shapes = [self.result_shape(writer, spec) for spec in self.signature.results]
        self.guard(f.not_(writer.invalid()))
        return shapes

    def result_shape(self, writer: DimWriter, spec: TensorSpec) -> Operand:
        f = self.f
        shape = f.alloca(I64, max(1, len(spec.shape)), align=8)
        for axis, dim in enumerate(spec.shape):
            value = writer.dim(dim)
            if not isinstance(dim, int) and plain_symbol(dim) is None:
                writer.require(f.icmp("sge", value, constant(I64, 0)))
            f.store(value, f.getelementptr(I64, shape, axis))
        return shape

    # ---- the call

    def results(
        self, inputs: list[tuple[Operand, Operand]], shapes: list[Operand]
    ) -> list[Operand]:
        """New references to the result arrays; where one cannot be made the function leaves with
        its exception."""
        results: list[Operand] = []
        for spec, shape in zip(self.signature.results, shapes, strict=True):
            rank = constant(I32, len(spec.shape))
            descriptor = self.symbol(f"numpy.{spec.dtype}")
            array = self.call("mapsto.new_array", descriptor, rank, shape)
            self.leave_if_null(array, results)
            results.append(array)
        return results

    def buffers(self, inputs: list[Operand], results: list[Operand]) -> Operand:
        """The entry's array of data pointers."""
        f, signature, arguments = self.f, self.signature, self.signature.arguments
        buffers = f.alloca(PTR, len(arguments) + len(results) + 1, align=8)
        position = copied = 0
        unbound = iter(inputs)
        for bound, run in groupby(arguments, key=lambda argument: argument.bound):
            count = len(list(run))
            if bound:
                target = f.getelementptr(PTR, buffers, position)
                self.copy_words(BOUND_OFFSET + copied, count, target)
                copied += count
            else:
                self.store_all(islice(unbound, count), buffers, position)
            position += count
        data = [self.field(array, self.layout.data) for array in results]
        self.store_all(data, buffers, position)
        if signature.prepared_bytes:
            prepared = self.f.getelementptr(PTR, buffers, position + len(data))
            self.copy_words(prepared_offset(len(signature.bound)), 1, prepared)
        return buffers

    def copy_words(self, first: int, count: int, target: Operand) -> None:
        """Copies pointers from the context."""
        source = self.f.getelementptr(I64, self.context, first)
        self.f.memcpy(target, source, constant(I64, 8 * count))

    def store_all(self, pointers: Iterable[Operand], array: Operand, position: int) -> None:
        for k, pointer in enumerate(pointers):
            self.f.store(pointer, self.f.getelementptr(PTR, array, position + k))

    def run(self, buffers: Operand) -> Operand:
        """Runs the program, without the GIL if so wanted; its error code."""
        f, signature = self.f, self.signature
        dims = f.alloca(I64, max(1, len(signature.symbols)), align=8)
        for k, name in enumerate(signature.symbols):
            f.store(self.sizes[name], f.getelementptr(I64, dims, k))
        exclusive = constant(I1, signature.exclusive)
        if not signature.release_gil:
            return self.call_run(buffers, dims, exclusive)
        state = self.call("PyEval_SaveThread")
        code = self.call_run(buffers, dims, exclusive)
        f.declare("PyEval_RestoreThread", VOID, [PTR])
        f.call("PyEval_RestoreThread", VOID, [state])
        return code

    def call_run(self, buffers: Operand, dims: Operand, exclusive: Operand) -> Operand:
        self.f.declare("mapsto.run", I32, [PTR, PTR, PTR, exclusive.type])
        return self.f.call("mapsto.run", I32, [self.context, buffers, dims, exclusive])

    def finish(self, code: Operand, results: list[Operand]) -> None:
        """Returns the results, or raises the exception of an error code."""
        f = self.f
        good, bad = f.block("good"), f.block("bad")
        f.branch_if(f.icmp("eq", code, constant(I32, 0)), good, bad)
        f.begin(bad)
        self.release(results)
        f.ret(self.call("mapsto.fail", self.context, code))
        f.begin(good)
        f.ret(self.result_value(results))

    def result_value(self, results: list[Operand]) -> Operand:
        if not results:
            return self.new_reference("python.None")
        if len(results) == 1:
            return results[0]
        f = self.f
        items = self.call("PyTuple_New", constant(I64, len(results)))
        self.leave_if_null(items, results)
        f.declare("PyTuple_SetItem", I32, [PTR, I64, PTR])
        for k, array in enumerate(results):
            f.call("PyTuple_SetItem", I32, [items, constant(I64, k), array])
        return items

    # ---- parts

    def guard(self, condition: Operand) -> None:
        """Leaves with NotImplemented where an i1 is false."""
        following = self.f.block("checked")
        self.f.branch_if(condition, following, self.mismatch)
        self.f.begin(following)

    def leave_if_null(self, value: Operand, owned: list[Operand]) -> None:
        f = self.f
        failed, following = f.block("failed"), f.block("made")
        f.branch_if(f.icmp("eq", value, _NULL), failed, following)
        f.begin(failed)
        self.release(owned)
        f.ret(_NULL)
        f.begin(following)

    def release(self, objects: list[Operand]) -> None:
        self.f.declare("Py_DecRef", VOID, [PTR])
        for value in objects:
            self.f.call("Py_DecRef", VOID, [value])

    def new_reference(self, name: str) -> Operand:
        self.f.declare("Py_IncRef", VOID, [PTR])
        value = self.symbol(name)
        self.f.call("Py_IncRef", VOID, [value])
        return value

    def field(self, pointer: Operand, offset: int) -> Operand:
        return self.f.load(PTR, self.f.getelementptr(I8, pointer, offset))

    def symbol(self, name: str) -> Operand:
        return self.module.add_global(name, "external global i8")

    def call(self, name: str, *arguments: Operand) -> Operand:
        """Calls an outside function that returns a pointer."""
        self.f.declare(name, PTR, [argument.type for argument in arguments])
        return self.f.call(name, PTR, arguments)


class _IntoWriter(_EntryWriter):
    """Writes an entry that takes arrays for its results."""

    @property
    def count(self) -> int:
        return len(self.signature.inputs) + len(self.signature.results)

    def results(
        self, inputs: list[tuple[Operand, Operand]], shapes: list[Operand]
    ) -> list[Operand]:
        """New references to the arrays for the results, once all of them fit."""
        f, signature, first = self.f, self.signature, len(self.signature.inputs)
        flags = _CONTIGUOUS_AND_ALIGNED | _WRITEABLE
        taken = [
            self.range_of(data, dims, spec)
            for spec, (data, dims) in zip(signature.inputs, inputs, strict=True)
        ]
        arrays = []
        for k, (spec, shape) in enumerate(zip(signature.results, shapes, strict=True)):
            array = self.array(first + k, spec, flags)
            self.check_shape(array, shape, len(spec.shape))
            memory = self.range_of(self.field(array, self.layout.data), shape, spec)
            self.check_apart(memory, taken)
            taken.append(memory)
            arrays.append(array)
        f.declare("Py_IncRef", VOID, [PTR])
        for array in arrays:
            f.call("Py_IncRef", VOID, [array])
        return arrays

    def check_shape(self, array: Operand, shape: Operand, rank: int) -> None:
        """Compares the dimensions of an array with those that a result has."""
        f, dims = self.f, self.field(array, self.layout.dims)
        for axis in range(rank):
            sizes = (f.load(I64, f.getelementptr(I64, each, axis)) for each in (dims, shape))
            self.guard(f.icmp("eq", *sizes))

    def check_apart(self, memory: _Range, others: Iterable[_Range]) -> None:
        """Leaves where memory overlaps with other memory, or with that of a bound array."""
        f = self.f
        for other in others:
            before = f.icmp("ule", self.end_of(memory), other.data)
            behind = f.icmp("ule", self.end_of(other), memory.data)
            self.guard(f.or_(before, behind))
        count = constant(I64, len(self.signature.bound))
        f.declare("mapsto.is_apart", I1, [PTR, I64, PTR, PTR])
        arguments = [self.context, count, memory.data, self.end_of(memory)]
        self.guard(f.call("mapsto.is_apart", I1, arguments))

    def range_of(self, data: Operand, dims: Operand, spec: TensorSpec) -> _Range:
        """The memory of a dense array."""
        f = self.f
        size = constant(I64, spec.dtype.bytes)
        for axis in range(len(spec.shape)):
            size = f.mul(size, f.load(I64, f.getelementptr(I64, dims, axis)))
        return _Range(data, size)

    def end_of(self, memory: _Range) -> Operand:
        """The address behind some memory."""
        return self.f.getelementptr(I8, memory.data, memory.size)
