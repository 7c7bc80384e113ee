"""Compiled programs as Python functions."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from importlib.resources import files
from typing import Any

import numpy as np

from mapsto.ir.errors import AssertionFailed
from mapsto.ir.types import DType
from mapsto.lowering.assertions import Assertion
from mapsto.lowering.cpu.machine import Machine
from mapsto.runtime.arrays import Array, check_arrays, convert_arguments
from mapsto.runtime.ctypes_entry import ctypes_entry
from mapsto.runtime.errors import ArgumentError, ExecutionError
from mapsto.runtime.jit import CompiledModule, compile_module
from mapsto.runtime.numpy_abi import layout_is_known, numpy_symbols
from mapsto.runtime.outputs import check_outputs
from mapsto.runtime.prepared import prepared_memory
from mapsto.runtime.python_entry import (
    BOUND_OFFSET,
    ENTRY_NAME,
    prepared_offset,
    python_entry_text,
)
from mapsto.runtime.signature import Signature, TensorSpec

__all__ = ["NativeFunction"]


class NativeFunction:
    """A compiled entry with its parameters: arrays in, arrays out.

    `bound` are the arrays of the signature's bound arguments, in order: dense, of the right types.
    They are kept alive, read, and (by a training step) written in place.  Raises ArgumentError if
    one does not fit.  Where the signature says so, what depends on them alone is computed here,
    once for all calls.  `assertions` are those of the program, by error code.

    `fast` is the C function: positional NumPy arrays only; `NotImplemented` if they do not fit.
    `fast_into` takes arrays for the results behind the arguments, and gives them back.
    """

    def __init__(
        self,
        compiled: CompiledModule,
        entry_name: str,
        signature: Signature,
        bound: Sequence[Array] = (),
        assertions: Mapping[int, Assertion] | None = None,
    ) -> None:
        self.signature = signature
        self.compiled = compiled
        self.entry_name = entry_name
        self._bound = list(bound)
        self._raise = partial(raise_error, assertions or {})
        self._context = _new_context(compiled, entry_name, len(self._bound), self._raise)
        check_bound(signature.bound, self._bound, signature.exclusive)
        for position, array in enumerate(self._bound):
            self._context[BOUND_OFFSET + position] = array.ctypes.data
            self._context[BOUND_OFFSET + len(self._bound) + position] = array.nbytes
        self._prepare()
        self._entries: list[object] = []
        self.has_quick_entry = layout_is_known()
        """Whether `fast` tells arguments that do not fit by giving NotImplemented."""
        self._capsule = _new_capsule(self) if self.has_quick_entry else None
        self.fast: Callable[..., Any] = self._make()

    @cached_property
    def fast_into(self) -> Callable[..., Any]:
        """The C function that takes arrays for the results."""
        return self._make(into=True)

    def __call__(self, *arguments: object) -> Any:
        """Runs the program: None, the result, or the tuple of results, as new NumPy arrays.

        Raises ArgumentError if the arguments do not fit, AssertionFailed if an assertion of the
        program does not hold, and ExecutionError if it fails otherwise.
        """
        result = self.fast(*arguments)
        if result is not NotImplemented:
            return result
        result = self.fast(*convert_arguments(self.signature.inputs, arguments))
        if result is NotImplemented:
            raise ArgumentError("the arguments give a result a negative or too large dimension")
        return result

    def into(self, arguments: Sequence[object], outputs: Sequence[object]) -> None:
        """Runs the program and writes its results to arrays.

        Raises as a call does, and ArgumentError where an output is no dense writeable NumPy array
        of the result's type, or shares memory with another array that the program uses.
        """
        if self.fast_into(*arguments, *outputs) is not NotImplemented:
            return
        arrays = convert_arguments(self.signature.inputs, arguments)
        outs = check_outputs(self.signature, arrays, self._bound, outputs)
        if self.fast_into(*arrays, *outs) is NotImplemented:
            raise ArgumentError("the arguments give a result a negative or too large dimension")

    def _make(self, into: bool = False) -> Callable[..., Any]:
        if self.has_quick_entry:
            return _c_function(self, into)
        where = self.compiled, self.entry_name, self.signature
        return ctypes_entry(*where, self._bound, self._prepared, self._raise, into)

    def _prepare(self) -> None:
        where = self.compiled, self.entry_name, self.signature
        self._prepared = prepared_memory(*where, self._bound)
        self._context[prepared_offset(len(self._bound))] = self._prepared.ctypes.data

    def rebind(self, position: int, array: Array) -> None:
        """Replaces the array of a bound argument.

        Raises ArgumentError if it does not fit, or if something was prepared for the old one.
        """
        if self.signature.prepared_bytes:
            raise ArgumentError(
                f"{self.entry_name} was prepared for the arrays that it is bound to"
            )
        check_bound([self.signature.bound[position]], [array], self.signature.exclusive)
        self._bound[position] = array
        self._context[BOUND_OFFSET + position] = array.ctypes.data

    @property
    def keepalive(self) -> tuple[object, ...]:
        """What must live as long as the C functions; `rebind` changes the list of bound arrays."""
        kept = self.compiled, self._context, self._bound, self._prepared, self._raise
        return (*kept, self._entries)

    @property
    def context_address(self) -> int:
        """The address of the context that the C function works with."""
        return int(self._context.ctypes.data)


def check_bound(specs: Sequence[TensorSpec], arrays: Sequence[Array], written: bool) -> None:
    """Raises ArgumentError unless compiled code can work on the arrays in place."""
    if len(specs) != len(arrays):
        raise ArgumentError(f"expected {len(specs)} bound arrays, found {len(arrays)}")
    for spec, array in zip(specs, arrays, strict=True):
        if DType.of(array.dtype) is not spec.dtype or not array.dtype.isnative:
            raise ArgumentError(f"expected {spec}, found an array of {array.dtype}")
        if not (array.flags.c_contiguous and array.flags.aligned):
            raise ArgumentError(f"expected {spec} as a dense, aligned array")
        if written and not array.flags.writeable:
            raise ArgumentError(f"expected {spec} as a writeable array")
    check_arrays(specs, arrays)


def _new_context(
    compiled: CompiledModule, entry_name: str, bound: int, on_error: Callable[[int], None]
) -> Array:
    """The words that python_support.ll describes."""
    context = np.zeros(prepared_offset(bound) + 1, np.int64)
    context[0] = compiled.address(entry_name)
    context[1] = compiled.address(f"{entry_name}.arena_bytes")
    context[5] = id(on_error)
    return context


def raise_error(assertions: Mapping[int, Assertion], code: int) -> None:
    """Called by native code: raises the exception for an error code."""
    failed = assertions.get(code)
    if failed is not None:
        raise AssertionFailed(failed.message, failed.location)
    raise ExecutionError(code)


# ---- the C function


class _MethodDefinition(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    ]


_METH_FASTCALL = 0x80


def _c_function(function: NativeFunction, into: bool) -> Callable[..., Any]:
    wrapper = compile_module(
        python_entry_text(function.signature, into), Machine.host(), "none", _support_symbols()
    )
    name = function.entry_name.encode()
    definition = _MethodDefinition(name, wrapper.address(ENTRY_NAME), _METH_FASTCALL, None)
    function._entries.append((wrapper, definition))
    new = ctypes.pythonapi.PyCFunction_NewEx
    new.argtypes = [ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p]
    new.restype = ctypes.py_object
    made: Callable[..., Any] = new(ctypes.addressof(definition), function._capsule, None)
    return made


def _new_capsule(function: NativeFunction) -> object:
    """A capsule around the context that owns what its functions need until its destructor runs."""
    keepalive = function.keepalive
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(keepalive))
    function._context[6] = id(keepalive)
    new = ctypes.pythonapi.PyCapsule_New
    new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    new.restype = ctypes.py_object
    capsule: object = new(function.context_address, None, _support().address("mapsto.destroy"))
    return capsule


@lru_cache(maxsize=1)
def _support() -> CompiledModule:
    """What all entry points share; it lives as long as the process, for destructors at its end."""
    text = files("mapsto.runtime").joinpath("python_support.ll").read_text(encoding="utf-8")
    module = compile_module(text, Machine.host(), "none", numpy_symbols())
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(module))
    return module


@lru_cache(maxsize=1)
def _support_symbols() -> Mapping[str, int]:
    names = ("mapsto.new_array", "mapsto.run", "mapsto.fail", "mapsto.is_apart")
    return {**numpy_symbols(), **{name: _support().address(name) for name in names}}
