"""Runs functions of the tensor IR natively and compares them with the reference evaluator."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
from loop_harness import PARALLEL_FOR, WORKERS, GuardedArrays, machines, random_array

from mapsto import ir
from mapsto.ir.bodies import alias_pairs
from mapsto.ir.core import Function, Module
from mapsto.ir.dims import dim_value
from mapsto.ir.evaluator import infer_sizes
from mapsto.ir.types import DType, TensorType
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.driver import Compiled, lower
from mapsto.lowering.loop_verifier import verify_loops
from mapsto.runtime.jit import compile_module

__all__ = ["Native", "build", "check", "machines", "random_arguments"]

_WORKER_LIMIT = f"define internal i64 @mapsto_worker_limit() {{ ret i64 {WORKERS} }}\n"
TOLERANCES = {DType.F16: 4e-3, DType.BF16: 2e-2, DType.F32: 2e-5, DType.F64: 1e-11}


def build(name: str, arguments, body, aliases=(), constants=()) -> Function:
    """A function whose body is `body(builder, *arguments)`, given types as `(dtype, shape)`."""
    types = [TensorType(dtype, tuple(shape)) for dtype, shape in arguments]
    builder = ir.Builder(ir.Block(types, [f"x{i}" for i in range(len(types))]))
    results = body(builder, *builder.block.arguments)
    results = results if isinstance(results, (tuple, list)) else [results]
    attributes = {"aliases": tuple(aliases)} if aliases else {}
    if constants:
        attributes["constants"] = tuple(constants)
    return ir.finish_function(name, builder, results, attributes)


class Native:
    """A compiled function; calling it gives the results that alias no argument, or an error code
    as an `int`; arguments that are updated are changed in place.

    What is computed once for all calls is computed anew at each, as arguments may be others.  A
    pool of one thread poses as several workers, unless `threads` asks for that of the process.
    """

    def __init__(self, function: Function, machine: Machine, threads: bool = False) -> None:
        self.function = function
        self.compiled: Compiled = lower(Module.of(function), function.name, machine)
        for kernel in self.compiled.kernels:
            verify_loops(kernel)
        text = self.compiled.text
        self.module = compile_module(text if threads else _with_own_pool(text), machine)
        pointer = ctypes.c_void_p
        self._entry = ctypes.CFUNCTYPE(ctypes.c_int32, pointer, pointer, pointer)(
            self.module.address(function.name)
        )
        self._arena_bytes = ctypes.CFUNCTYPE(ctypes.c_int64, pointer)(
            self.module.address(f"{function.name}.arena_bytes")
        )

    def __call__(self, arguments: Sequence[np.ndarray]) -> list[np.ndarray] | int:
        entry = self.compiled.entry(self.function.name)
        sizes = infer_sizes(self.function, arguments)
        shapes = [[dim_value(d, sizes) for d in type_.shape] for type_ in entry.results]
        results = [
            np.zeros(shape, type_.dtype.numpy)
            for shape, type_ in zip(shapes, entry.results, strict=True)
        ]
        named = {f"{i}": array for i, array in enumerate([*arguments, *results])}
        guarded = GuardedArrays(named)
        code = self._run(list(guarded.arrays.values()), [sizes[name] for name in entry.sizes])
        for argument, copy in zip(arguments, guarded.arrays.values(), strict=False):
            argument[...] = copy
        return code or list(guarded.arrays.values())[len(arguments) :]

    def _run(self, arrays: list[np.ndarray], sizes: list[int]) -> int:
        dims = (ctypes.c_int64 * max(1, len(sizes)))(*sizes)
        prepared = _Memory(self.compiled.prepared_bytes(self.function.name))
        addresses = [*(array.ctypes.data for array in arrays), prepared.address]
        pointers = (ctypes.c_void_p * len(addresses))(*addresses)
        if prepared.size:
            self._prepare(pointers)
        arena = _Memory(self._arena_bytes(dims))
        code = self._entry(pointers, dims, arena.address)
        assert arena.is_kept_to(), "written past the end of the arena"
        assert prepared.is_kept_to(), "written past the end of what is prepared"
        return int(code)

    def _prepare(self, pointers: object) -> None:
        """Fills the prepared memory, the last pointer; no size is known then."""
        name, pointer = f"{self.function.name}.prepare", ctypes.c_void_p
        run = ctypes.CFUNCTYPE(None, pointer, pointer, pointer)(self.module.address(name))
        run(pointers, (ctypes.c_int64 * 16)(), None)


class _Memory:
    """Aligned memory of a size, and bytes behind it that nobody should write."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._bytes = np.full(size + 128, 0xA5, np.uint8)
        self._start = -self._bytes.ctypes.data % 64
        self.address = self._bytes.ctypes.data + self._start

    def is_kept_to(self) -> bool:
        """Whether nothing was written behind it."""
        return bool((self._bytes[self._start + self.size :] == 0xA5).all())


def _with_own_pool(text: str) -> str:
    declared = ("declare void @mapsto_parallel_for", "declare i64 @mapsto_worker_limit")
    lines = [line for line in text.splitlines() if not line.startswith(declared)]
    return "\n".join(lines) + PARALLEL_FOR + _WORKER_LIMIT


def random_arguments(
    function: Function, seed: int = 0, sizes: dict[str, int] | None = None
) -> list[np.ndarray]:
    """Random arrays for the arguments of a function."""
    generator = np.random.default_rng(seed)
    return [
        np.asarray(
            random_array(generator, a.dtype, tuple(dim_value(d, sizes or {}) for d in a.shape))
        )
        for a in function.arguments
    ]


def check(
    function: Function,
    arguments: Sequence[np.ndarray] | None = None,
    sizes: dict[str, int] | None = None,
    on: Sequence[Machine] | None = None,
    tolerance: float | None = None,
) -> list[Native]:
    """Compares native code, at every vector width, with the reference evaluator."""
    given = random_arguments(function, sizes=sizes) if arguments is None else list(arguments)
    expected = ir.evaluate(Module.of(function), function.name, given)
    natives = [Native(function, machine) for machine in on or machines()]
    for native in natives:
        compare(native, given, expected, tolerance)
    return natives


def compare(
    native: Native,
    arguments: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
    tolerance: float | None = None,
) -> None:
    """Runs native code once and compares all results, those in place included."""
    function = native.function
    aliases = dict(alias_pairs(function))
    copies = [np.array(a) for a in arguments]
    results = native(copies)
    assert not isinstance(results, int), f"error code {results}"
    for i, array in enumerate(arguments):
        if i not in aliases.values():
            np.testing.assert_array_equal(copies[i], array)
    rest = iter(results)
    for i, (value, wanted) in enumerate(zip(function.results, expected, strict=True)):
        actual = copies[aliases[i]] if i in aliases else next(rest)
        assert actual.shape == wanted.shape
        bound = tolerance or TOLERANCES.get(value.dtype)
        if bound is None:
            np.testing.assert_array_equal(actual, wanted)
        else:
            scale = np.nanmax(np.abs(wanted[np.isfinite(wanted)]), initial=1.0)
            np.testing.assert_allclose(actual, wanted, rtol=bound, atol=bound * scale)
