"""The interface of the CUDA driver through ctypes: its functions, their types, their errors.

Only the driver is needed, which comes with NVIDIA's display driver; neither the CUDA toolkit nor
another package is.  Names and types are those of `cuda.h`.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from ctypes import POINTER, c_char_p, c_float, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any

from mapsto.runtime.errors import DeviceError

__all__ = ["LAUNCH_WORD", "Driver", "DriverError", "open_driver"]

LAUNCH_WORD = c_uint64
"""Parameters of our kernels are 64-bit words: addresses and sizes."""

_NAMES = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libcuda.so")

_HANDLE = POINTER(c_void_p)

PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
    # devices and contexts
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDeviceTotalMem_v2": (POINTER(c_size_t), c_int),
    "cuDevicePrimaryCtxRetain": (_HANDLE, c_int),
    "cuCtxSetCurrent": (c_void_p,),
    # modules
    "cuModuleLoadDataEx": (_HANDLE, c_void_p, c_uint, POINTER(c_int), _HANDLE),
    "cuModuleUnload": (c_void_p,),
    "cuModuleGetFunction": (_HANDLE, c_void_p, c_char_p),
    "cuFuncSetAttribute": (c_void_p, c_int, c_int),
    "cuFuncGetAttribute": (POINTER(c_int), c_int, c_void_p),
    # memory
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemGetInfo_v2": (POINTER(c_size_t), POINTER(c_size_t)),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuMemcpyDtoDAsync_v2": (c_uint64, c_uint64, c_size_t, c_void_p),
    "cuMemsetD8Async": (c_uint64, ctypes.c_ubyte, c_size_t, c_void_p),
    # streams, events and graphs
    "cuStreamCreate": (_HANDLE, c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, _HANDLE),
    "cuEventCreate": (_HANDLE, c_uint),
    "cuEventDestroy_v2": (c_void_p,),
    "cuEventRecordWithFlags": (c_void_p, c_void_p, c_uint),
    "cuEventElapsedTime": (POINTER(c_float), c_void_p, c_void_p),
    "cuGraphInstantiateWithFlags": (_HANDLE, c_void_p, ctypes.c_ulonglong),
    "cuGraphDestroy": (c_void_p,),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphExecDestroy": (c_void_p,),
    "cuLaunchKernel": (c_void_p, *(c_uint,) * 7, c_void_p, _HANDLE, _HANDLE),
}

_JIT_LOGS = (5, 6)
"""CU_JIT_ERROR_LOG_BUFFER and its size."""
_LOG_BYTES = 16384


class DriverError(DeviceError):
    """A function of the driver failed; `code` is the CUresult."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Driver:
    """The driver's functions; each raises DriverError unless it gives CUDA_SUCCESS."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """Raises DeviceError where a function is missing, or the driver has no use of a device."""
        self._functions: dict[str, Any] = {}
        for name, types in PROTOTYPES.items():
            try:
                function = getattr(library, name)
            except AttributeError:
                message = f"the CUDA driver is too old: it lacks {name} (CUDA 11.4 has it)"
                raise DeviceError(message) from None
            function.argtypes, function.restype = types, c_int
            self._functions[name] = function
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Calls a function of the driver.  Raises DriverError."""
        code = self._functions[name](*arguments)
        if code:
            raise DriverError(f"{name}: {self._error_text(code)}", code)

    def handle(self, name: str, *arguments: Any) -> c_void_p:
        """The handle that a function gives through its first parameter."""
        made = c_void_p()
        self.call(name, ctypes.byref(made), *arguments)
        return made

    def integer(self, name: str, *arguments: Any) -> int:
        """The int that a function gives through its first parameter."""
        found = c_int()
        self.call(name, ctypes.byref(found), *arguments)
        return found.value

    def load_module(self, image: bytes) -> c_void_p:
        """A module of PTX text or a cubin.  Raises DriverError with the log of the assembler."""
        log = ctypes.create_string_buffer(_LOG_BYTES)
        options = (c_int * 2)(*_JIT_LOGS)
        values = (c_void_p * 2)(ctypes.addressof(log), _LOG_BYTES)
        data = ctypes.create_string_buffer(image)
        try:
            return self.handle("cuModuleLoadDataEx", data, 2, options, values)
        except DriverError as error:
            text = log.value.decode(errors="replace").strip()
            raise DriverError(f"{error}\n{text}" if text else str(error), error.code) from None

    def _error_text(self, code: int) -> str:
        name, text = c_char_p(), c_char_p()
        self._functions["cuGetErrorName"](code, ctypes.byref(name))
        self._functions["cuGetErrorString"](code, ctypes.byref(text))
        found = [part.value.decode() for part in (name, text) if part.value]
        return ": ".join(found) or f"error {code}"


def open_driver(names: Sequence[str] = _NAMES) -> Driver:
    """The driver of this machine.  Raises DeviceError where there is none that can be used."""
    reason: OSError | None = None
    for name in names:
        try:
            return Driver(ctypes.CDLL(name))
        except OSError as error:
            reason = reason or error
    raise DeviceError(f"there is no CUDA driver ({reason}); it comes with NVIDIA's display driver")
