"""Loop functions to LLVM functions.

`emit_loop_function(module, function, machine)` writes

    define internal void @NAME(ptr BUFFERS..., i64 SIZES..., ptr %scratch)

A parallel loop becomes `call void @mapsto_parallel_for(ptr @NAME.taskN, ptr %closure, i64 %count)`;
the task reads what the body uses from the closure and calls `@NAME.taskN.body`, whose pointers are
parameters again and so keep their `noalias` and `readonly`.

`scratch` points to `shared + mapsto_worker_limit() * worker` bytes, 64-byte aligned, as
`scratch_sizes` (in `loop_scratch.py`) tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mapsto.ir.dims import Dim, symbols
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.indices import atom_index, from_dim
from mapsto.lowering.llvm.loop_indices import IndexEmitter
from mapsto.lowering.llvm.loop_scope import Fact, Place, Scope
from mapsto.lowering.llvm.loop_scratch import (
    ScratchSizes,
    scratch_buffers,
    scratch_offsets,
    scratch_sizes,
)
from mapsto.lowering.llvm.loop_statements import StatementEmitter
from mapsto.lowering.llvm.types import I8, I64, PTR, VOID, LLVMType, Operand
from mapsto.lowering.llvm.writer import FunctionWriter, ModuleWriter, Parameter
from mapsto.lowering.loop_walk import Names, free_names, stored_buffers
from mapsto.lowering.loops import Buffer, For, LoopFunction, Space, Statement

__all__ = ["PARALLEL_FOR", "emit_dim", "emit_loop_function"]

PARALLEL_FOR = "mapsto_parallel_for"
_STORE_FENCE = "llvm.x86.sse.sfence"
"""What is stored past the caches has no order with other stores before it."""


def emit_dim(f: FunctionWriter, dim: Dim, sizes: Mapping[str, Operand]) -> Operand:
    """Write the computation of a dimension from the i64 values of its named sizes."""
    emitter = IndexEmitter(f, Machine.baseline())
    scope = Scope({}, {}, {})
    for name, value in sizes.items():
        scope = emitter.bind(scope, f"${name}", value, Fact(nonnegative=True))
    return emitter.index_operand(scope, emitter.resolve(scope, from_dim(dim)))


def emit_loop_function(
    module: ModuleWriter, function: LoopFunction, machine: Machine, linkage: str = "internal"
) -> FunctionWriter:
    """Write a kernel and its tasks into the module; gives the kernel's function.

    Raises ValueError for what cannot be lowered: a loop nest or register use that the head of
    `loops.py` rules out.
    """
    stored = stored_buffers(function.body)
    parameters: list[Parameter] = [
        (PTR, f"b{number}", _pointer_attributes(buffer, stored))
        for number, buffer in enumerate(function.buffers)
    ]
    parameters += [(I64, f"s{number}") for number in range(len(function.sizes))]
    parameters.append((PTR, "scratch"))
    f = module.function(function.name, parameters, linkage=linkage, attributes="noinline")
    count = len(function.buffers)
    captures = _Captures(
        [_placed(buffer, p) for buffer, p in zip(function.buffers, f.parameters, strict=False)],
        {f"${name}": v for name, v in zip(function.sizes, f.parameters[count:], strict=False)},
        {},
    )
    kernel = _Kernel(module, function, machine, stored)
    emitter = _RegionEmitter(f, kernel, f.parameters[-1])
    scope = emitter.scope(captures)
    shared = scratch_buffers(function.body)
    if shared:
        captures = captures.with_places(emitter.scratch_places(scope, f.parameters[-1], shared))
        name = f"{function.name}.body"
        _emit_body(kernel, name, function.body, captures, (PTR, "scratch"))
        f.call(name, VOID, [*captures.operands(), f.parameters[-1]])
    else:
        emitter.run_block(scope, function.body)
    emitter.finish()
    return f


@dataclass(slots=True)
class _Kernel:
    """What the functions of a kernel have in common."""

    module: ModuleWriter
    function: LoopFunction
    machine: Machine
    stored: frozenset[str]
    tasks: int = 0
    sizes: ScratchSizes = field(init=False)

    def __post_init__(self) -> None:
        self.sizes = scratch_sizes(self.function)

    def new_task(self) -> str:
        """A name for the next task."""
        self.tasks += 1
        return f"{self.function.name}.task{self.tasks}"


@dataclass(frozen=True, slots=True)
class _Captures:
    """What a part of a kernel uses from outside: buffers; loop variables and sizes; `Let`s."""

    places: list[Place]
    integers: dict[str, Operand]
    lets: dict[str, Operand]
    known: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Fact] = field(default_factory=dict)
    ranges: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def operands(self) -> list[Operand]:
        """The values to pass, in a fixed order."""
        pointers = [place.pointer for place in self.places]
        return [*pointers, *self.integers.values(), *self.lets.values()]

    def renamed(self, operands: list[Operand]) -> _Captures:
        """The same, where the values have other names."""
        first = len(self.places)
        second = first + len(self.integers)
        return replace(
            self,
            places=[_placed(p.buffer, new) for p, new in zip(self.places, operands, strict=False)],
            integers=dict(zip(self.integers, operands[first:second], strict=True)),
            lets=dict(zip(self.lets, operands[second : second + len(self.lets)], strict=True)),
        )

    def with_places(self, places: list[Place]) -> _Captures:
        """The captures with more buffers."""
        return replace(self, places=[*self.places, *places])


def _placed(buffer: Buffer, pointer: Operand) -> Place:
    default = 64 if buffer.space is Space.LOCAL else buffer.dtype.bytes
    return Place(buffer, pointer, buffer.shape, buffer.alignment or default)


def _pointer_attributes(buffer: Buffer, stored: frozenset[str]) -> str:
    words = [] if buffer.may_alias else ["noalias"]
    if buffer.name not in stored:
        words.append("readonly")
    if buffer.alignment > buffer.dtype.bytes:
        words.append(f"align {buffer.alignment}")
    return " ".join(words)


def _emit_body(
    kernel: _Kernel,
    name: str,
    body: tuple[Statement, ...],
    captures: _Captures,
    last: Parameter,
    fact: Fact | None = None,
) -> None:
    """Write the function of a part of a kernel; its parameters are the captures and `last`: the
    scratch pointer of the kernel, or a parallel loop's variable, of which `fact` is known."""
    parameters: list[Parameter] = [
        (PTR, f"b{number}", _pointer_attributes(place.buffer, kernel.stored))
        for number, place in enumerate(captures.places)
    ]
    values = [*captures.integers.values(), *captures.lets.values()]
    parameters += [(value.type, f"c{number}") for number, value in enumerate(values)]
    f = kernel.module.function(name, [*parameters, last], linkage="internal", attributes="noinline")
    emitter = _RegionEmitter(f, kernel, f.parameters[-1])
    scope = emitter.scope(captures.renamed(f.parameters))
    if fact is not None:
        scope = emitter.bind(scope, last[1], f.parameters[-1], fact)
    emitter.run_block(scope, body)
    emitter.finish()


class _RegionEmitter(StatementEmitter):
    """Emits one function of a kernel."""

    def __init__(self, f: FunctionWriter, kernel: _Kernel, scratch: Operand) -> None:
        super().__init__(f, kernel.machine)
        self.kernel = kernel
        self.scratch = scratch

    def finish(self) -> None:
        """End the function, when what it stored is there for other threads too."""
        if self.has_streams and self.machine.is_x86:
            self.f.declare(_STORE_FENCE, VOID, [])
            self.f.call(_STORE_FENCE, VOID, [])
        self.f.ret()

    def scope(self, captures: _Captures) -> Scope:
        """The scope at the start of a function that has captured these."""
        scope = Scope(captures.known, captures.lets, {}, ranges=captures.ranges)
        for place in captures.places:
            scope = scope.with_place(place)
        for name, value in captures.integers.items():
            fact = captures.facts.get(name, Fact(nonnegative=name.startswith("$")))
            scope = self.bind(scope, name, value, fact)
        return scope

    def scratch_places(self, scope: Scope, base: Operand, buffers: list[Buffer]) -> list[Place]:
        """The buffers of one part of the scratch memory, which begins at `base`."""
        places = []
        for buffer, offset in zip(buffers, scratch_offsets(buffers), strict=True):
            bytes_before = self._dim(scope, offset)
            places.append(_placed(buffer, self.f.getelementptr(I8, base, bytes_before)))
        return places

    def _dim(self, scope: Scope, dim: Dim) -> Operand:
        return self.index_operand(scope, self.resolve(scope, from_dim(dim)))

    # ---- parallel loops

    def parallel_loop(self, scope: Scope, loop: For) -> None:
        if scope.lanes is not None or ".task" in self.f.name:
            raise ValueError(f"parallel loop `{loop.variable}` inside a vector or parallel loop")
        start = self.resolve(scope, loop.start)
        extent = self.resolve(scope, loop.stop) - start
        task, locals_ = self.kernel.new_task(), scratch_buffers(loop.body)
        captures = self._capture(scope, loop, locals_)
        scratch = self.f.getelementptr(I8, self.scratch, self._dim(scope, self.kernel.sizes.shared))
        first = self.index_operand(scope, start)
        values = [*captures.operands(), scratch, first]
        closure = self.f.alloca(I64, len(values))
        for number, value in enumerate(values):
            self.f.store(value, self.f.getelementptr(I64, closure, number))
        fact = Fact(nonnegative=self.is_nonnegative(start))
        self._emit_task(task, loop, captures, locals_, fact)
        self.kernel.module.declare(PARALLEL_FOR, VOID, [PTR, PTR, I64])
        count = self.index_operand(scope, extent)
        self.f.call(PARALLEL_FOR, VOID, [Operand(f"@{task}", PTR), closure, count])

    def _capture(self, scope: Scope, loop: For, locals_: list[Buffer]) -> _Captures:
        names = free_names(loop.body)
        integers: dict[str, Operand] = {}
        known: dict[str, int] = {}
        facts: dict[str, Fact] = {}
        for name in dict.fromkeys([*names.indices, *_size_atoms(self.kernel.sizes, locals_)]):
            if name == loop.variable:
                continue
            value = self.resolve(scope, atom_index(name))
            if isinstance(value, int):
                known[name] = value
                continue
            integers[name] = self.index_operand(scope, value)
            facts[name] = Fact(self.multiple_of(value), self.is_nonnegative(value))
        lets = {name: scope.lets[name] for name in names.lets}
        places = self._captured_places(scope, names, loop)
        return _Captures(places, integers, lets, known, facts, scope.ranges)

    def _captured_places(self, scope: Scope, names: Names, loop: For) -> list[Place]:
        places = [scope.places[buffer.name] for buffer in names.buffers]
        for place in places:
            if place.is_register:
                raise ValueError(
                    f"register `{place.buffer.name}` is used in the parallel loop over "
                    f"`{loop.variable}`: declare it inside"
                )
        return places

    def _emit_task(
        self, name: str, loop: For, captures: _Captures, locals_: list[Buffer], fact: Fact
    ) -> None:
        """Write the task, which unpacks the closure, and its body."""
        kernel = self.kernel
        parameters: list[Parameter] = [(PTR, "closure"), (I64, "index"), (I64, "worker")]
        f = kernel.module.function(name, parameters, linkage="internal")
        closure, index, worker = f.parameters
        types: list[LLVMType] = [operand.type for operand in captures.operands()]
        values = [
            f.load(type, f.getelementptr(I64, closure, number))
            for number, type in enumerate([*types, PTR, I64])
        ]
        emitter = _RegionEmitter(f, kernel, values[-2])
        inside = captures.renamed(values)
        scope = emitter.scope(inside)
        if locals_:
            stride = emitter._dim(scope, kernel.sizes.worker)
            base = f.getelementptr(I8, values[-2], f.mul(worker, stride))
            inside = inside.with_places(emitter.scratch_places(scope, base, locals_))
        variable = f.add(values[-1], index, "nsw")
        body = f"{name}.body"
        _emit_body(kernel, body, loop.body, inside, (I64, loop.variable), fact)
        f.call(body, VOID, [*inside.operands(), variable])
        f.ret()


def _size_atoms(sizes: ScratchSizes, buffers: list[Buffer]) -> list[str]:
    """The sizes that the place of a task's scratch buffers depends on."""
    dims = [sizes.worker, *(dim for buffer in buffers for dim in buffer.shape)] if buffers else []
    return [f"${name}" for dim in dims for name in sorted(symbols(dim))]
