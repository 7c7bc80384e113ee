"""OpenCL devices through `pyopencl`: the same kernels as SPIR-V.

Memory is shared virtual memory, in which addresses may be computed with.  Intel's CPU device comes
as a Python package, so kernels can be compiled and run by code that is not ours without a GPU.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from mapsto.ir.core import Array
from mapsto.lowering.gpu.program import GpuProgram
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.runtime.devices.device import (
    Command,
    Copy,
    DeviceKernel,
    Fill,
    Launch,
    times_by_the_clock,
)
from mapsto.runtime.devices.images import image_of
from mapsto.runtime.errors import DeviceError

__all__ = ["OpenClDevice", "open_opencl", "opencl_devices"]

_ALIGNMENT = 256
_PACKAGES = "pip install pyopencl intel-opencl-rt intel-cmplr-lib-rt"
_LIBRARY = "libintelocl.so"
_VENDORS = "OCL_ICD_VENDORS"
_SYSTEM_VENDORS = Path("/etc/OpenCL/vendors")


class OpenClDevice:
    """A device with shared virtual memory, and one queue on which everything runs in order."""

    def __init__(self, api: Any, device: Any, number: int) -> None:
        self.name = f"opencl:{number}"
        self.api = api
        self.description = f"{device.name.strip()}, {device.version.strip()}"
        self._options = _options(api, device)
        self._context = api.Context([device])
        self._queue = api.CommandQueue(self._context)
        self._memory: dict[int, Any] = {}
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<{self.name}: {self.description}>"

    @cached_property
    def target(self) -> GpuTarget:
        """SPIR-V for OpenCL."""
        return GpuTarget.named("spirv64")

    def allocate(self, count: int) -> int:
        """The address of new memory."""
        flags = self.api.svm_mem_flags.READ_WRITE
        with self._errors():
            memory = self.api.SVMAllocation(
                self._context, count + _ALIGNMENT, 0, flags, queue=self._queue
            )
        address = int(memory.svm_ptr) + -int(memory.svm_ptr) % _ALIGNMENT
        self._memory[address] = memory
        return address

    def free(self, address: int) -> None:
        """Gives memory back."""
        self._memory.pop(address).release()

    def write(self, address: int, array: Array) -> None:
        """Copies an array to the device."""
        if array.nbytes:
            self._copy(self._at(address, array.nbytes), self._at(array.ctypes.data, array.nbytes))

    def read(self, address: int, array: Array) -> None:
        """Waits for the work so far and copies to an array."""
        if array.nbytes:
            self._copy(self._at(array.ctypes.data, array.nbytes), self._at(address, array.nbytes))
        self.synchronize()

    def load(self, program: GpuProgram) -> OpenClProgram:
        """Builds the program from SPIR-V."""
        image = image_of(program)
        with self._errors(), warnings.catch_warnings():
            # What the compiler says of a program that it accepts.
            warnings.simplefilter("ignore", self.api.CompilerWarning)
            built = self.api.Program(self._context, image).build(self._options)
            return OpenClProgram(self.api, built, program)

    def run(self, commands: Sequence[Command]) -> None:
        """Starts the commands, in order."""
        with self._errors():
            for command in commands:
                self._start(command)

    def record(self, commands: Sequence[Command]) -> Callable[[], None]:
        """The commands as they are."""
        return partial(self.run, tuple(commands))

    def times(self, commands: Sequence[Command]) -> list[float]:
        """Runs the commands; the seconds of each."""
        return times_by_the_clock(self, commands)

    def synchronize(self) -> None:
        """Waits for the work so far."""
        with self._errors():
            self._queue.finish()

    def _start(self, command: Command) -> None:
        match command:
            case Launch():
                self._launch(command)
            case Copy(target, source, count):
                self._copy(self._at(target, count), self._at(source, count), is_blocking=False)
            case Fill(target, count):
                zero = np.zeros((), np.uint8)
                self.api.enqueue_svm_memfill(self._queue, self._at(target, count), zero, count)

    def _launch(self, launch: Launch) -> None:
        kernel, pointers = launch.kernel, launch.kernel.pointers
        for number, word in enumerate(launch.arguments):
            is_pointer = number < pointers or number >= pointers + kernel.sizes
            value = self._at(word, 1) if is_pointer else np.int64(word)
            kernel.handle.set_arg(number, value)
        extent = tuple(g * b for g, b in zip(launch.grid, kernel.block, strict=True))
        self.api.enqueue_nd_range_kernel(self._queue, kernel.handle, extent, kernel.block)

    def _copy(self, target: Any, source: Any, is_blocking: bool = True) -> None:
        with self._errors():
            self.api.enqueue_copy(self._queue, target, source, is_blocking=is_blocking)

    def _at(self, address: int, count: int) -> Any:
        """Memory as `pyopencl` wants it."""
        memory = (ctypes.c_uint8 * count).from_address(address)
        return self.api.SVM(np.ctypeslib.as_array(memory))

    def _errors(self) -> _Errors:
        return _Errors(self.api, self._lock)


class OpenClProgram:
    """A program that is built."""

    def __init__(self, api: Any, built: Any, program: GpuProgram) -> None:
        self.kernels: Mapping[str, DeviceKernel] = {
            kernel.name: DeviceKernel(
                kernel.name,
                api.Kernel(built, kernel.name),
                kernel.block,
                kernel.dynamic_bytes,
                len(kernel.parameters),
                len(kernel.loops.sizes),
            )
            for kernel in program.launches
        }


class _Errors:
    """The right to use the device, one thread at a time; what OpenCL raises becomes DeviceError."""

    def __init__(self, api: Any, lock: Any) -> None:
        self._api = api
        self._lock = lock

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._lock.release()
        if isinstance(error, self._api.Error):
            raise DeviceError(f"OpenCL: {error}") from error


@lru_cache(maxsize=1)
def _found() -> tuple[Any, list[Any]]:
    """The interface and all devices that can run kernels.  Raises DeviceError."""
    try:
        api = importlib.import_module("pyopencl")
    except ImportError:
        raise DeviceError(f"OpenCL devices need pyopencl: {_PACKAGES}") from None
    try:
        with _packaged_library():
            devices = [d for platform in api.get_platforms() for d in platform.get_devices()]
    except api.Error:
        devices = []
    return api, [device for device in devices if _is_able(api, device)]


def _is_able(api: Any, device: Any) -> bool:
    """Whether a device takes SPIR-V and has shared virtual memory."""
    try:
        return bool(device.svm_capabilities) and "SPIR-V" in device.il_version
    except (api.Error, AttributeError):  # it is too old to be asked
        return False


def _options(api: Any, device: Any) -> list[str]:
    """Options for the compiler.  That of Intel's CPU device (2026.2) takes `(i << 31) >> 32`, which
    LLVM makes of half of an i64 that is converted to i32 and back, for a sign extension where it is
    an index, and so reads other elements; without optimization it does not."""
    return ["-cl-opt-disable"] if device.type & api.device_type.CPU else []


@contextmanager
def _packaged_library() -> Iterator[None]:
    """Shows the loader of OpenCL the device that came as a Python package, which it does not find
    by itself, where no device is installed in the system."""
    library = Path(sys.prefix) / "lib" / _LIBRARY
    if _VENDORS in os.environ or not library.exists() or any(_SYSTEM_VENDORS.glob("*.icd")):
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "intel.icd").write_text(f"{library}\n")
        os.environ[_VENDORS] = folder
        try:
            yield
        finally:
            del os.environ[_VENDORS]


@lru_cache
def open_opencl(number: int) -> OpenClDevice:
    """The OpenCL device of this number.  Raises DeviceError where there is none."""
    api, devices = _found()
    if number >= len(devices):
        known = f"{len(devices)} can run kernels" if devices else f"none was found ({_PACKAGES})"
        raise DeviceError(f"there is no device opencl:{number}: {known}")
    return OpenClDevice(api, devices[number], number)


def opencl_devices() -> list[OpenClDevice]:
    """All OpenCL devices that can run kernels."""
    try:
        return [open_opencl(number) for number in range(len(_found()[1]))]
    except DeviceError:
        return []
