"""The simulated device: threads of a block as coroutines on the CPU.

A thread is a coroutine that is suspended at each barrier; LLVM keeps what is live there.  A block
starts all its threads, which run to their first barriers, and then resumes all of them again and
again until all have ended.  Some that have ended, while others have not, have missed a barrier.
Threads that never meet are plain functions, one called after the other.

    ptr @NAME.thread(shared, threads x y z, blocks x y z, parameters...)     of a coroutine
    i32 @NAME.block(shared, blocks x y z, parameters...)                     0, or 1 on such a miss
    i32 @NAME(arguments, grid x y z)                                         all blocks in order
"""

from __future__ import annotations

from collections.abc import Sequence

from mapsto.lowering.gpu.device_code import DeviceCode, shared_offsets
from mapsto.lowering.gpu.kernel import GpuKernel
from mapsto.lowering.llvm.types import I1, I8, I32, I64, PTR, VOID, LLVMType, Operand, constant
from mapsto.lowering.llvm.writer import FunctionWriter, ModuleWriter, Parameter
from mapsto.lowering.loop_walk import statements
from mapsto.lowering.loops import Barrier, Buffer, Let, Shuffle

__all__ = ["simulated_device", "write_launcher"]

_AXES = "xyz"
_SLOT_BYTES = 8
_ZERO = constant(I64, 0)

_COROUTINES = """\
declare token @llvm.coro.id(i32, ptr, ptr, ptr)
declare i64 @llvm.coro.size.i64()
declare ptr @llvm.coro.begin(token, ptr)
declare i8 @llvm.coro.suspend(token, i1)
declare void @llvm.coro.end(ptr, i1, token)
declare ptr @llvm.coro.free(token, ptr)
declare void @llvm.coro.resume(ptr)
declare void @llvm.coro.destroy(ptr)
declare i1 @llvm.coro.done(ptr)
declare ptr @malloc(i64)
declare void @free(ptr)
"""


def _declare(module: ModuleWriter) -> None:
    for line in _COROUTINES.splitlines():
        module.declare_text(line.split("@")[1].split("(")[0], line)


def _numbers(prefix: str) -> list[Parameter]:
    return [(I64, f"{prefix}_{axis}") for axis in _AXES]


def _kernel_parameters(kernel: GpuKernel) -> list[Parameter]:
    pointers: list[Parameter] = [(PTR, f"b{i}") for i in range(len(kernel.parameters))]
    sizes: list[Parameter] = [(I64, f"s{i}") for i in range(len(kernel.loops.sizes))]
    return [*pointers, *sizes, *([(PTR, "scratch")] if kernel.scratch_bytes != 0 else [])]


def simulated_device(module: ModuleWriter, kernel: GpuKernel, warp: int) -> DeviceCode:
    """What writes a thread of the kernel."""
    device = _Coroutine if _meets(kernel) else _PlainThread
    return device(module, kernel, warp)


def _meets(kernel: GpuKernel) -> bool:
    """Whether threads wait for each other."""
    return any(
        isinstance(s, Barrier) or (isinstance(s, Let) and isinstance(s.value, Shuffle))
        for s in statements(kernel.loops.body)
    )


class _Thread:
    """What both kinds of threads have: their numbers, and memory."""

    result = VOID
    attributes = "alwaysinline"

    def __init__(self, module: ModuleWriter, kernel: GpuKernel, warp: int) -> None:
        _declare(module)
        self.kernel, self.warp = kernel, warp
        numbers = [*_numbers("thread"), *_numbers("block")]
        parameters = [(PTR, "shared"), *numbers, *_kernel_parameters(kernel)]
        name = f"{kernel.name}.thread"
        self.f = module.function(name, parameters, self.result, "internal", self.attributes)
        self.memory, *rest = self.f.parameters
        self.numbers, values = rest[:6], rest[6:]
        count = len(kernel.parameters)
        self.pointers: Sequence[Operand] = values[:count]
        self.sizes: Sequence[Operand] = values[count : count + len(kernel.loops.sizes)]
        self.scratch = values[-1] if kernel.scratch_bytes != 0 else None
        self.offsets = shared_offsets(kernel.shared)

    def number(self, kind: str, axis: int) -> Operand:
        return self.numbers[axis + (0 if kind == "thread" else 3)]

    def shared(self, buffer: Buffer) -> Operand:
        return self.f.getelementptr(I8, self.memory, self.offsets[buffer.name])


class _PlainThread(_Thread):
    """A thread that never waits."""

    def barrier(self) -> None:
        raise ValueError("a thread that never waits has come to a barrier")

    def shuffle(self, shuffle: Shuffle, value: Operand) -> Operand:
        raise ValueError("a thread that never waits has come to a shuffle")

    def end(self) -> None:
        self.f.ret()


class _Coroutine(_Thread):
    """A thread that is suspended where it waits."""

    result = PTR
    attributes = "presplitcoroutine"

    def __init__(self, module: ModuleWriter, kernel: GpuKernel, warp: int) -> None:
        super().__init__(module, kernel, warp)
        self.suspended, self.cleanup = self.f.block("suspended"), self.f.block("cleanup")
        f = self.f
        f.emit_void("%self.id = call token @llvm.coro.id(i32 0, ptr null, ptr null, ptr null)")
        size = f.emit(I64, "call i64 @llvm.coro.size.i64()")
        frame = f.emit(PTR, f"call ptr @malloc({size})")
        self.handle = f.emit(PTR, f"call ptr @llvm.coro.begin(token %self.id, {frame})")

    def barrier(self) -> None:
        following = self.f.block("resumed")
        self._suspend("false", following.label)
        self.f.begin(following)

    def _suspend(self, final: str, following: str) -> None:
        state = self.f.emit(I8, f"call i8 @llvm.coro.suspend(token none, i1 {final})")
        self.f.emit_void(
            f"switch {state}, label %{self.suspended.label} "
            f"[i8 0, label %{following} i8 1, label %{self.cleanup.label}]"
        )

    def shuffle(self, shuffle: Shuffle, value: Operand) -> Operand:
        """Through memory that has a slot for each thread."""
        f, own = self.f, self._linear()
        lane = constant(I64, shuffle.lane)
        first = f.and_(own, constant(I64, -self.warp))
        other = f.xor(own, lane) if shuffle.across else f.add(first, lane)
        type = LLVMType("i8") if value.type == I1 else value.type
        f.store(f.zext(value, type) if value.type == I1 else value, self._slot(own))
        self.barrier()
        found = f.load(type, self._slot(other))
        self.barrier()
        return f.trunc(found, I1) if value.type == I1 else found

    def _linear(self) -> Operand:
        x, y, z, *_ = self.numbers
        width, height, _ = self.kernel.block
        f = self.f
        row = f.add(f.mul(z, constant(I64, height)), y)
        return f.add(f.mul(row, constant(I64, width)), x)

    def _slot(self, thread: Operand) -> Operand:
        slots = self.f.getelementptr(I8, self.memory, self.kernel.shared_bytes)
        return self.f.getelementptr(I64, slots, thread)

    def end(self) -> None:
        f, trap = self.f, self.f.block("trap")
        self._suspend("true", trap.label)
        f.begin(trap)
        f.unreachable()
        f.begin(self.cleanup)
        frame = f.emit(PTR, f"call ptr @llvm.coro.free(token %self.id, {self.handle})")
        f.emit_void(f"call void @free({frame})")
        f.branch(self.suspended)
        f.begin(self.suspended)
        f.emit_void(f"call void @llvm.coro.end({self.handle}, i1 false, token none)")
        f.ret(self.handle)


# ---- blocks and grids


def write_launcher(module: ModuleWriter, kernel: GpuKernel) -> None:
    """Write the functions that run one block and all blocks."""
    _write_block(module, kernel)
    name = f"{kernel.name}.block"
    f = module.function(kernel.name, [(PTR, "arguments"), *_numbers("grid")], I32)
    arguments, *grid = f.parameters
    types = [parameter[0] for parameter in _kernel_parameters(kernel)]
    values = [f.load(t, f.getelementptr(I64, arguments, i)) for i, t in enumerate(types)]
    bytes_ = kernel.shared_bytes + 2 * _SLOT_BYTES * kernel.threads
    memory = f.call("malloc", PTR, [constant(I64, bytes_)])

    def run(x: Operand, y: Operand, z: Operand) -> None:
        code = f.call(name, I32, [memory, x, y, z, *values])
        missed, fine = f.block("missed"), f.block("fine")
        f.branch_if(f.icmp("ne", code, constant(I32, 0)), missed, fine)
        f.begin(missed)
        f.call("free", VOID, [memory])
        f.ret(code)
        f.begin(fine)

    def row(z: Operand, y: Operand) -> None:
        f.loop(_ZERO, grid[0], 1, lambda x: run(x, y, z))

    f.loop(_ZERO, grid[2], 1, lambda z: f.loop(_ZERO, grid[1], 1, lambda y: row(z, y)))
    f.call("free", VOID, [memory])
    f.ret(constant(I32, 0))


def _write_block(module: ModuleWriter, kernel: GpuKernel) -> None:
    parameters = [(PTR, "shared"), *_numbers("block"), *_kernel_parameters(kernel)]
    f = module.function(f"{kernel.name}.block", parameters, I32, "internal")
    if _meets(kernel):
        _write_turns(f, kernel)
        return

    def run(thread: Operand) -> None:
        _call_thread(f, kernel, thread, VOID)

    f.loop(_ZERO, constant(I64, kernel.threads), 1, run)
    f.ret(constant(I32, 0))


def _call_thread(
    f: FunctionWriter, kernel: GpuKernel, thread: Operand, result: LLVMType
) -> Operand:
    """The call that runs a thread, a coroutine to where it first waits."""
    shared, *values = f.parameters
    width, height, _ = (constant(I64, extent) for extent in kernel.block)
    row, x = f.udiv(thread, width), f.urem(thread, width)
    y, z = f.urem(row, height), f.udiv(row, height)
    return f.call(f"{kernel.name}.thread", result, [shared, x, y, z, *values])


def _write_turns(f: FunctionWriter, kernel: GpuKernel) -> None:
    """Starts all coroutines and resumes them, all by turns, until they have ended."""
    end = kernel.shared_bytes + _SLOT_BYTES * kernel.threads
    handles = f.getelementptr(I8, f.parameters[0], end)
    count = constant(I64, kernel.threads)

    def start(thread: Operand) -> None:
        handle = _call_thread(f, kernel, thread, PTR)
        f.store(handle, f.getelementptr(PTR, handles, thread))

    def each(intrinsic: str) -> None:
        def call(thread: Operand) -> None:
            handle = f.load(PTR, f.getelementptr(PTR, handles, thread))
            f.call(intrinsic, VOID, [handle])

        f.loop(_ZERO, count, 1, call)

    f.loop(_ZERO, count, 1, start)
    phase, mixed = f.block("phase"), f.block("mixed")
    resume, missed, finished = f.block("resume"), f.block("missed"), f.block("finished")
    f.branch(phase)
    f.begin(phase)
    ended = _count_ended(f, handles, count)
    f.branch_if(f.icmp("eq", ended, count), finished, mixed)
    f.begin(mixed)
    f.branch_if(f.icmp("eq", ended, _ZERO), resume, missed)
    f.begin(resume)
    each("llvm.coro.resume")
    f.branch(phase)
    f.begin(missed)
    each("llvm.coro.destroy")
    f.ret(constant(I32, 1))
    f.begin(finished)
    each("llvm.coro.destroy")
    f.ret(constant(I32, 0))


def _count_ended(f: FunctionWriter, handles: Operand, count: Operand) -> Operand:
    """How many threads have ended."""
    total = f.alloca(I64)
    f.store(_ZERO, total)

    def add(thread: Operand) -> None:
        handle = f.load(PTR, f.getelementptr(PTR, handles, thread))
        done = f.emit(I1, f"call i1 @llvm.coro.done({handle})")
        f.store(f.add(f.load(I64, total), f.zext(done, I64)), total)

    f.loop(_ZERO, count, 1, add)
    return f.load(I64, total)
