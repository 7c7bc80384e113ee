"""Compiled functions on a device: arrays in, arrays on the device out."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mapsto.ir.core import Array
from mapsto.ir.dims import dim_value
from mapsto.runtime.arrays import as_array, check_arrays, convert_arguments
from mapsto.runtime.devices import host_steps  # noqa: F401  fills the table of rules
from mapsto.runtime.devices.array import DeviceArray
from mapsto.runtime.devices.device import Command, Device
from mapsto.runtime.devices.executable import Executable
from mapsto.runtime.devices.memory import Block
from mapsto.runtime.devices.walk import Walk, needs_host
from mapsto.runtime.errors import ArgumentError
from mapsto.runtime.signature import Signature, TensorSpec

__all__ = ["DeviceFunction"]

_KEPT = 8
"""For so many sets of addresses the commands of a function are kept."""


class DeviceFunction:
    """An entry of a program on a device, with its parameters: arrays in, device arrays out.

    `bound` are the arrays of the signature's bound arguments, in order, on the device; they are
    read, and (by a training step) written in place.  NumPy arrays are copied to the device; arrays
    that are there are read where they are.
    """

    has_quick_entry = True

    def __init__(
        self,
        executable: Executable,
        entry: str,
        signature: Signature,
        bound: Sequence[Array | DeviceArray] = (),
    ) -> None:
        self.signature = signature
        self.executable = executable
        self._lowered = executable.program.functions[entry]
        self._bound = _checked(signature.bound, bound, executable.device)
        bound_addresses = iter(array.address for array in self._bound)
        self._order = [next(bound_addresses) if a.bound else None for a in signature.arguments]
        """The addresses of bound arguments among all."""
        self._needs_host = needs_host(self._lowered)
        self._sized: dict[tuple[int, ...], _Sized] = {}
        self._lock = threading.Lock()

    @property
    def device(self) -> Device:
        """Where it runs."""
        return self.executable.device

    def __call__(self, *arguments: object) -> Any:
        """Runs the program: None, the result, or the tuple of results, as new device arrays.

        Raises ArgumentError if the arguments do not fit, AssertionFailed if an assertion of the
        program does not hold, ExecutionError if it fails otherwise, and DeviceError.
        """
        result = self.fast(*arguments)
        if result is not NotImplemented:
            return result
        specs = self.signature.inputs
        if len(arguments) != len(specs):
            convert_arguments(specs, arguments)
        arrays = [
            _converted(spec, a, self.device) for spec, a in zip(specs, arguments, strict=True)
        ]
        check_arrays(specs, arrays)
        return self._run(arrays)

    def into(self, arguments: Sequence[object], outputs: Sequence[object]) -> None:
        """Runs the program and copies the results to arrays, of NumPy or on the device.

        Raises ArgumentError where one of them does not fit.
        """
        specs = self.signature.results
        if len(outputs) != len(specs):
            raise ArgumentError(f"expected {len(specs)} arrays for the results")
        results = self(*arguments)
        found = [results] if len(specs) == 1 else list(results)
        for spec, output, result in zip(specs, outputs, found, strict=True):
            _check_output(spec, output, result)
        for output, result in zip(outputs, found, strict=True):
            output[...] = result  # type: ignore[index]

    def fast(self, *arguments: Any) -> Any:
        """The same for arrays of just the right types; NotImplemented if they do not fit."""
        specs = self.signature.inputs
        if len(arguments) != len(specs):
            return NotImplemented
        if not all(map(self._is_fitting, specs, arguments)):
            return NotImplemented
        return self._run(arguments)

    def _is_fitting(self, spec: TensorSpec, value: object) -> bool:
        if isinstance(value, DeviceArray):
            same = value.device is self.device and value.element is spec.dtype
            return same and value.shape == spec.shape
        if type(value) is not np.ndarray:
            return False
        dense = value.flags.c_contiguous and value.flags.aligned
        return dense and value.dtype == spec.dtype.numpy and value.shape == spec.shape

    def _run(self, arguments: Sequence[Any]) -> Any:
        sizes = check_arrays(self.signature.inputs, arguments) if self.signature.symbols else {}
        with self._lock:
            sized = self._for_sizes(sizes)
            results = sized.new_results()
            sized.run(sized.passed(arguments), [array.address for array in results])
            self.executable.raise_errors()
        return results[0] if len(results) == 1 else tuple(results) or None

    def _for_sizes(self, sizes: Mapping[str, int]) -> _Sized:
        key = tuple(sizes[name] for name in self.signature.symbols)
        found = self._sized.get(key)
        if found is None:
            where = self.executable, self._lowered, self.signature, self._order
            found = self._sized[key] = _Sized(*where, self._needs_host, sizes)
        return found


class _Sized:
    """A function for given values of the named sizes: its memory, and its commands."""

    def __init__(
        self,
        executable: Executable,
        lowered: Any,
        signature: Signature,
        order: Sequence[int | None],
        needs_host: bool,
        sizes: Mapping[str, int],
    ) -> None:
        self.executable = executable
        self.lowered = lowered
        self.order = order
        self.needs_host = needs_host
        self.sizes = sizes
        self._results = [(s.dtype, _shape(s, sizes)) for s in signature.results]
        self._arena = executable.pool.allocate(Walk(executable, sizes).arena_bytes(lowered))
        self._staging: list[Block | None] = [None] * len(signature.inputs)
        self._kept: OrderedDict[tuple[int, ...], _Repeated] = OrderedDict()

    def passed(self, arguments: Sequence[Any]) -> list[int]:
        """The addresses of arguments; NumPy arrays are copied to the device."""
        return [self._passed(number, argument) for number, argument in enumerate(arguments)]

    def _passed(self, number: int, argument: Any) -> int:
        if isinstance(argument, DeviceArray):
            return argument.address
        block = self._staging[number]
        if block is None:
            block = self._staging[number] = self.executable.pool.allocate(argument.nbytes)
        self.executable.device.write(block.address, argument)
        return block.address

    def new_results(self) -> list[DeviceArray]:
        """Memory for the results."""
        return [DeviceArray(self.executable.pool, *result) for result in self._results]

    def run(self, passed: Sequence[int], results: Sequence[int]) -> None:
        """Runs the function on the addresses of the arguments that are passed, and of results."""
        if self.needs_host:
            self._walk(passed, results).flush()
            return
        key = (*passed, *results)
        found = self._kept.get(key)
        if found is None:
            found = _Repeated(self.executable.device, self._walk(passed, results).commands)
            self._kept[key] = found
        self._kept.move_to_end(key)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        found()

    def _walk(self, passed: Sequence[int], results: Sequence[int]) -> Walk:
        walk = Walk(self.executable, self.sizes)
        rest = iter(passed)
        arguments = [next(rest) if address is None else address for address in self.order]
        walk.run(self.lowered, [*arguments, *results], self._arena.address)
        return walk


class _Repeated:
    """Commands that are run as they are the first time, and recorded when they come again."""

    def __init__(self, device: Device, commands: Sequence[Command]) -> None:
        self._device = device
        self._commands = commands
        self._is_first = True
        self._replay: Callable[[], None] | None = None

    def __call__(self) -> None:
        if self._is_first:
            self._is_first = False
            self._device.run(self._commands)
            return
        if self._replay is None:
            self._replay = self._device.record(self._commands)
        self._replay()


def _check_output(spec: TensorSpec, output: Any, result: DeviceArray) -> None:
    if not isinstance(output, np.ndarray | DeviceArray):
        raise ArgumentError(f"expected an array for {spec}, found {type(output).__name__}")
    if output.shape != result.shape or output.dtype != result.dtype:
        found = f"{output.dtype}{list(output.shape)}"
        raise ArgumentError(f"expected an array for {spec}, found {found}")


def _shape(spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple([dim_value(dim, sizes) for dim in spec.shape])


def _converted(spec: TensorSpec, value: object, device: Device) -> Any:
    """An argument as a dense array of the right element type; DeviceArrays that are here as they
    are."""
    if not isinstance(value, DeviceArray):
        return as_array(spec, value)
    if value.device is not device:
        where = f"{spec.name} is on {value.device.name}"
        raise ArgumentError(f"{where}, the function runs on {device.name}")
    if value.element is not spec.dtype:
        raise ArgumentError(f"expected {spec}, found {value.element}{list(value.shape)}")
    return value


def _checked(
    specs: Sequence[TensorSpec], arrays: Sequence[object], device: Device
) -> list[DeviceArray]:
    """The arrays of bound arguments.  Raises ArgumentError unless they are on the device, and of
    the right types."""
    return [_on(device, spec, array) for spec, array in zip(specs, arrays, strict=True)]


def _on(device: Device, spec: TensorSpec, array: object) -> DeviceArray:
    if not isinstance(array, DeviceArray):
        raise ArgumentError(f"{spec.name} is in the host's memory, not on {device.name}")
    if array.device is not device:
        raise ArgumentError(f"{spec.name} is on {array.device.name}, not on {device.name}")
    if array.element is not spec.dtype or array.shape != spec.shape:
        raise ArgumentError(f"expected {spec}, found {array.element}{list(array.shape)}")
    return array
