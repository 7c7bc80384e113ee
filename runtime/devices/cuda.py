"""NVIDIA GPUs through the CUDA driver."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Mapping, Sequence
from ctypes import c_float, c_size_t, c_uint64, c_void_p
from functools import cached_property, lru_cache
from itertools import pairwise

from mapsto.ir.core import Array
from mapsto.lowering.gpu.program import GpuKernel, GpuProgram
from mapsto.lowering.gpu.target import GpuTarget, target_names
from mapsto.runtime.devices.cuda_driver import LAUNCH_WORD, Driver, open_driver
from mapsto.runtime.devices.device import Command, Copy, DeviceKernel, Fill, Launch
from mapsto.runtime.devices.images import image_of
from mapsto.runtime.errors import DeviceError

__all__ = ["CudaDevice", "cuda_devices", "open_cuda"]

# Of cuda.h: CUdevice_attribute, CUfunction_attribute, flags.
_MAJOR, _MINOR = 75, 76
_DYNAMIC_SHARED = 8
_STATIC_SHARED_LIMIT = 48 * 1024
_NON_BLOCKING = 1
_CAPTURE_RELAXED = 2
_EVENT_IN_GRAPH = 1


class CudaDevice:
    """A GPU: its primary context, and one stream on which everything runs in order."""

    def __init__(self, driver: Driver, number: int) -> None:
        self.driver = driver
        self.name = f"cuda:{number}"
        self._device = driver.integer("cuDeviceGet", number)
        context = driver.handle("cuDevicePrimaryCtxRetain", self._device)
        self._turn = _Turn(driver, context)
        with self._turn:
            self._stream = driver.handle("cuStreamCreate", _NON_BLOCKING)

    def __repr__(self) -> str:
        return f"<{self.name}: {self.description}>"

    @cached_property
    def capability(self) -> tuple[int, int]:
        """The compute capability, such as (9, 0)."""
        return self._attribute(_MAJOR), self._attribute(_MINOR)

    @cached_property
    def description(self) -> str:
        """The product, its memory, its compute capability."""
        text = ctypes.create_string_buffer(256)
        self.driver.call("cuDeviceGetName", text, len(text), self._device)
        memory = c_size_t()
        self.driver.call("cuDeviceTotalMem_v2", ctypes.byref(memory), self._device)
        major, minor = self.capability
        return f"{text.value.decode()}, {memory.value / 2**30:.0f} GiB, sm_{major}{minor}"

    @cached_property
    def target(self) -> GpuTarget:
        """The newest kind of GPU that is known and not newer than this one."""
        return target_for(self.capability)

    # ---- memory

    def allocate(self, count: int) -> int:
        """The address of new memory."""
        address = c_uint64()
        with self._turn:
            self.driver.call("cuMemAlloc_v2", ctypes.byref(address), max(1, count))
        return address.value

    def free(self, address: int) -> None:
        """Gives memory back."""
        with self._turn:
            self.driver.call("cuMemFree_v2", address)

    def write(self, address: int, array: Array) -> None:
        """Copies an array to the device.  The driver takes pageable memory over before it returns,
        so the array may change again."""
        where = (address, array.ctypes.data, array.nbytes, self._stream)
        with self._turn:
            if array.nbytes:
                self.driver.call("cuMemcpyHtoDAsync_v2", *where)

    def read(self, address: int, array: Array) -> None:
        """Waits for the work so far and copies to an array."""
        where = (array.ctypes.data, address, array.nbytes, self._stream)
        with self._turn:
            if array.nbytes:
                self.driver.call("cuMemcpyDtoHAsync_v2", *where)
            self.synchronize()

    # ---- work

    def load(self, program: GpuProgram) -> CudaProgram:
        """Makes PTX, from which the driver makes machine code."""
        image = image_of(program)
        with self._turn:
            module = self.driver.load_module(image)
            return CudaProgram(self.driver, module, program.launches)

    def run(self, commands: Sequence[Command]) -> None:
        """Starts the commands, in order."""
        with self._turn:
            self._start_all(commands)

    def record(self, commands: Sequence[Command]) -> Callable[[], None]:
        """Captures the commands as a graph."""
        with self._turn:
            graph = _Graph(self.driver, self._capture(lambda: self._start_all(commands)))

        def replay() -> None:
            with self._turn:
                self.driver.call("cuGraphLaunch", graph.handle, self._stream)

        return replay

    def synchronize(self) -> None:
        """Waits for the work so far."""
        with self._turn:
            self.driver.call("cuStreamSynchronize", self._stream)

    def times(self, commands: Sequence[Command]) -> list[float]:
        """Runs the commands; the seconds of each, by events that stand between them in a graph, so
        that none waits for the host."""
        with self._turn:
            events = [self.driver.handle("cuEventCreate", 0) for _ in range(len(commands) + 1)]
            try:
                return self._between(commands, events)
            finally:
                for event in events:
                    self.driver.call("cuEventDestroy_v2", event)

    def _between(self, commands: Sequence[Command], events: Sequence[c_void_p]) -> list[float]:
        def start() -> None:
            self._mark(events[0])
            for command, event in zip(commands, events[1:], strict=True):
                self._start(command)
                self._mark(event)

        graph = _Graph(self.driver, self._capture(start))
        self.driver.call("cuGraphLaunch", graph.handle, self._stream)
        self.synchronize()
        return [self._elapsed(*pair) for pair in pairwise(events)]

    def _mark(self, event: c_void_p) -> None:
        """Records an event as a part of the graph that is captured."""
        self.driver.call("cuEventRecordWithFlags", event, self._stream, _EVENT_IN_GRAPH)

    def _elapsed(self, first: c_void_p, last: c_void_p) -> float:
        milliseconds = c_float()
        self.driver.call("cuEventElapsedTime", ctypes.byref(milliseconds), first, last)
        return milliseconds.value / 1000

    def _capture(self, start: Callable[[], None]) -> c_void_p:
        """An executable graph of what a function starts.

        What the collector of cycles may unload meanwhile is no part of it: the capture is relaxed.
        """
        call, graph = self.driver.call, c_void_p()
        call("cuStreamBeginCapture_v2", self._stream, _CAPTURE_RELAXED)
        try:
            start()
        finally:
            call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        executable = self.driver.handle("cuGraphInstantiateWithFlags", graph, 0)
        call("cuGraphDestroy", graph)
        return executable

    def _start_all(self, commands: Sequence[Command]) -> None:
        for command in commands:
            self._start(command)

    def _start(self, command: Command) -> None:
        call = self.driver.call
        match command:
            case Launch():
                self._launch(command)
            case Copy(target, source, count):
                call("cuMemcpyDtoDAsync_v2", target, source, count, self._stream)
            case Fill(target, count):
                call("cuMemsetD8Async", target, 0, count, self._stream)

    def _launch(self, launch: Launch) -> None:
        kernel = launch.kernel
        words = (LAUNCH_WORD * len(launch.arguments))(*launch.arguments)
        first, size = ctypes.addressof(words), ctypes.sizeof(LAUNCH_WORD)
        pointers = (c_void_p * len(words))(*(first + size * i for i in range(len(words))))
        where = (*launch.grid, *kernel.block, kernel.dynamic_bytes, self._stream)
        self.driver.call("cuLaunchKernel", kernel.handle, *where, pointers, None)

    def _attribute(self, number: int) -> int:
        return self.driver.integer("cuDeviceGetAttribute", number, self._device)


class _Turn:
    """The right to use the device: one thread at a time, and it has the device's context."""

    def __init__(self, driver: Driver, context: c_void_p) -> None:
        self._driver = driver
        self._context = context
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._driver.call("cuCtxSetCurrent", self._context)

    def __exit__(self, *error: object) -> None:
        self._lock.release()


def target_for(capability: tuple[int, int]) -> GpuTarget:
    """The newest kind of GPU that is known and not newer than the given compute capability.

    Raises DeviceError where the GPU is older than all that are known.
    """
    prefix, wanted = "nvptx64-sm_", capability[0] * 10 + capability[1]
    numbers = [int(n.removeprefix(prefix)) for n in target_names() if n.startswith(prefix)]
    fitting = [number for number in numbers if number <= wanted]
    if not fitting:
        raise DeviceError(f"a GPU of sm_{wanted} is too old; it takes sm_{min(numbers)}")
    return GpuTarget.named(f"{prefix}{max(fitting)}")


class CudaProgram:
    """A module that is loaded; it is unloaded with the object."""

    def __init__(self, driver: Driver, module: c_void_p, kernels: Sequence[GpuKernel]) -> None:
        self._driver = driver
        self._module = module
        self.kernels: Mapping[str, DeviceKernel] = {k.name: self._find(k) for k in kernels}

    def _find(self, kernel: GpuKernel) -> DeviceKernel:
        name = kernel.name.encode()
        function = self._driver.handle("cuModuleGetFunction", self._module, name)
        if kernel.shared_bytes > _STATIC_SHARED_LIMIT:
            asked = (_DYNAMIC_SHARED, kernel.dynamic_bytes)
            self._driver.call("cuFuncSetAttribute", function, *asked)
        return DeviceKernel(kernel.name, function, kernel.block, kernel.dynamic_bytes)

    def __del__(self) -> None:
        _quietly(self._driver, "cuModuleUnload", self._module)


class _Graph:
    """A graph that can be launched; it is destroyed with the object."""

    def __init__(self, driver: Driver, handle: c_void_p) -> None:
        self.driver = driver
        self.handle = handle

    def __del__(self) -> None:
        _quietly(self.driver, "cuGraphExecDestroy", self.handle)


def _quietly(driver: Driver, name: str, handle: c_void_p) -> None:
    """Ends something; at the process's end the driver may be gone before it."""
    try:
        driver.call(name, handle)
    except (DeviceError, TypeError, AttributeError):
        return


@lru_cache(maxsize=1)
def _driver() -> Driver:
    return open_driver()


@lru_cache
def open_cuda(number: int) -> CudaDevice:
    """The GPU of this number.  Raises DeviceError where there is none."""
    driver = _driver()
    count = driver.integer("cuDeviceGetCount")
    if number >= count:
        found = "no GPU" if count == 0 else f"cuda:0 to cuda:{count - 1}"
        raise DeviceError(f"there is no device cuda:{number}; the CUDA driver knows {found}")
    return CudaDevice(driver, number)


def cuda_devices() -> list[CudaDevice]:
    """All GPUs that the driver knows; none where there is no driver."""
    try:
        count = _driver().integer("cuDeviceGetCount")
        return [open_cuda(number) for number in range(count)]
    except DeviceError:
        return []
