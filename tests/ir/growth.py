"""Functions under construction from random choices; `generator` says what for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from mapsto import ir
from mapsto.ir.core import Array, Function, Module, Operation, Value
from mapsto.ir.dims import Dim, dim_value, symbol
from mapsto.ir.errors import IRError
from mapsto.ir.ops.indexing import ArgMax, ArgMin
from mapsto.ir.ops.logic import Compare
from mapsto.ir.ops.sequences import ArgSort
from mapsto.ir.substitution import Values, copy_operation

__all__ = ["DTYPES", "POSITIVE", "Family", "Growth", "N", "Program", "random_inputs"]

N = symbol("n")
DTYPES = (
    ir.DType.F32,
    ir.DType.F32,
    ir.DType.F32,
    ir.DType.F64,
    ir.DType.I32,
    ir.DType.I64,
    ir.DType.BOOL,
)
LARGEST = 64.0
"""Magnitude up to which values are kept."""
MOST_ELEMENTS = 600
MOST_POINTS = 20_000
"""Points of a contraction's domain."""
QUANTUM = 2.0**-8
"""Numbers that are multiples of this and at most LARGEST add up exactly in f32 in any order."""

JUMPS = (ir.Floor, ir.Ceil, ir.Round, ir.Sign, ir.Mod, Compare, ArgMax, ArgMin, ArgSort)
AWAY_FROM_ZERO = (ir.Div, ir.Mod)
POSITIVE = (ir.Log, ir.Log1p, ir.Sqrt, ir.Rsqrt)
"""Functions that take a positive number; so does the base of `pow`."""


Family = Callable[["Growth"], "Value | None"]
"""Adds operations of one kind; None where the choices did not allow any."""


@dataclass(frozen=True)
class Program:
    """A function with arguments to apply it to, and what the reference gives for them."""

    function: Function
    arguments: list[Array]
    sizes: dict[str, int]
    expected: tuple[Array, ...]

    @property
    def module(self) -> Module:
        """The module of the function alone."""
        return Module.of(self.function)

    def __repr__(self) -> str:
        from mapsto.ir.printer import function_text

        return f"sizes {self.sizes}\n{function_text(self.function)}"


class Growth:
    """A function under construction, with the value of everything in it."""

    def __init__(self, draw: DrawFn, dtypes: tuple[ir.DType, ...]) -> None:
        self.draw = draw
        self.sizes: dict[str, Dim] = {"n": draw(st.integers(1, 7))}
        self.random = np.random.default_rng(draw(st.integers(0, 2**16)))
        types = draw(st.lists(self._types(dtypes), min_size=1, max_size=4))
        # Every named size stands alone in some argument.
        if any(type_.symbols for type_ in types) and not any(N in t.shape for t in types):
            types.append(ir.TensorType(ir.DType.F32, (N,)))
        self.build = ir.Builder(ir.Block(types, [f"x{i}" for i in range(len(types))]))
        self.values: list[Value] = []
        self.arrays: dict[Value, Array] = {}
        self.exact: dict[Value, bool] = {}
        self._concrete: Values = {}
        for value in self.build.block.arguments:
            self._add(value, random_inputs(self.random, value.type, self._shape(value)), True)
            fixed = value.type.substitute(self.sizes)
            self._concrete[value] = Value(fixed, None, value.index)

    def _types(self, dtypes: tuple[ir.DType, ...]) -> SearchStrategy[ir.TensorType]:
        dims = st.lists(st.integers(1, 5), max_size=3)
        shapes = st.one_of(dims.map(tuple), dims.map(lambda rest: (N, *rest[:2])))
        return st.builds(ir.TensorType, st.sampled_from(dtypes), shapes)

    def _shape(self, value: Value) -> tuple[int, ...]:
        return tuple(dim_value(d, self.sizes) for d in value.shape)  # type: ignore[arg-type]

    def _add(self, value: Value, array: Array, exact: bool) -> None:
        self.values.append(value)
        self.arrays[value] = array
        self.exact[value] = exact and _is_exact(array)

    # ---- choices

    def choose(self, items: Sequence[object]) -> object:
        """One of the items."""
        return self.draw(st.sampled_from(list(items)))

    def number(self, least: int, most: int) -> int:
        """An integer."""
        return self.draw(st.integers(least, most))

    def value(self, fits: Callable[[Value], bool] = lambda _: True) -> Value | None:
        """A value so far that fits, recent ones preferred; None where none does."""
        fitting = [value for value in self.values if fits(value)]
        if not fitting:
            return None
        return fitting[-1 - min(self.number(0, len(fitting) - 1), self.number(0, 5))]

    # ---- growing

    def grow(self, families: Sequence[Family]) -> None:
        """Adds an operation of a family, if one of a few tries gives tame values."""
        for _ in range(3):
            family = self.choose(families)
            assert callable(family)
            before = len(self.build.block.operations), len(self.values)
            if family(self) is not None:
                return
            del self.build.block.operations[before[0] :]
            del self.values[before[1] :]

    def emit(self, record: type[Operation], *operands: Value | None, **attributes: object):
        """Emits an op; None where an operand is missing, or the op ill-typed or its values wild."""
        given = [operand for operand in operands if operand is not None]
        if len(given) != len(operands):
            return None
        try:
            op = record(given, attributes)
        except (IRError, ZeroDivisionError):
            return None
        jumps = issubclass(record, JUMPS) or (record is ir.Cast and not _keeps(op))
        exact = all(self.exact[v] for v in given)
        if (jumps and not exact) or not self._in_domain(record, given):
            return None
        array = self._evaluate(op)
        if array is None or not _is_tame(array) or array.size > MOST_ELEMENTS:
            return None
        self.build.append(op)
        self._add(op.result, array, exact)
        return op.result

    def add(self, op: Operation) -> Value | None:
        """Adds an op with regions; its last result, or None where values are wild."""
        try:
            fixed = copy_operation(op, dict(self._concrete), self.sizes)
            results = fixed.evaluate(*(self.arrays[v] for v in op.operands))
        except IRError:
            return None
        arrays = [np.asarray(result) for result in results]
        if any(not _is_tame(array) or array.size > MOST_ELEMENTS for array in arrays):
            return None
        self.build.append(op)
        for result, array in zip(op.results, arrays, strict=True):
            self._add(result, array, not result.dtype.is_float)
        return op.results[-1] if op.results else None

    def _in_domain(self, record: type[Operation], operands: Sequence[Value]) -> bool:
        """Whether the op is smooth around these operands, or they are integers."""
        if not operands or not operands[0].dtype.is_float:
            return True
        first, last = self.arrays[operands[0]], self.arrays[operands[-1]]
        if record in AWAY_FROM_ZERO and np.abs(last).min(initial=1) < 0.25:
            return False
        return record not in (*POSITIVE, ir.Pow) or first.min(initial=1) >= 0.25

    def _evaluate(self, op: Operation) -> Array | None:
        try:
            fixed = copy_operation(op, self._concrete, self.sizes)
            with np.errstate(all="ignore"):
                return np.asarray(fixed.evaluate(*(self.arrays[v] for v in op.operands))[0])
        except (IRError, IndexError):
            return None

    def program(self) -> Program:
        """The function that returns a few of the values."""
        results = [self.values[-1]]
        for _ in range(self.number(0, 2)):
            results.append(self.value() or results[0])
        results = list(dict.fromkeys(results))
        function = ir.finish_function("f", self.build, results, self._aliases(results))
        sizes = {name: int(str(size)) for name, size in self.sizes.items()}
        used = {name for v in function.arguments for name in v.type.symbols}
        return Program(
            function,
            [self.arrays[v] for v in function.arguments],
            {name: size for name, size in sizes.items() if name in used},
            tuple(self.arrays[v] for v in results),
        )

    def _aliases(self, results: Sequence[Value]) -> dict[str, ir.core.Attribute]:
        """Sometimes a result that is written to the memory of an argument."""
        arguments = self.build.block.arguments
        pairs = [
            (i, j)
            for i, result in enumerate(results)
            for j, argument in enumerate(arguments)
            if result.type == argument.type and result not in arguments
        ]
        if not pairs or not self.draw(st.booleans()):
            return {}
        return {"aliases": (pairs[0],)}


def random_inputs(random: np.random.Generator, type_: ir.TensorType, shape: Sequence[int]) -> Array:
    if type_.dtype.is_float:
        return np.asarray(random.integers(-4, 5, shape) / 2).astype(type_.dtype.numpy)
    if type_.dtype is ir.DType.BOOL:
        return np.asarray(random.integers(0, 2, shape)).astype(bool)
    return np.asarray(random.integers(0, 6, shape)).astype(type_.dtype.numpy)


def _is_tame(array: Array) -> bool:
    if array.dtype == bool:
        return True
    return bool((np.abs(array.astype(np.float64)) <= LARGEST).all())


def _is_exact(array: Array) -> bool:
    if array.dtype.kind != "f":
        return True
    scaled = array.astype(np.float64) / QUANTUM
    return bool((scaled == np.rint(scaled)).all())


def _keeps(op: Operation) -> bool:
    """Whether a cast has no jumps."""
    return op.operands[0].dtype.is_float and op.results[0].dtype.is_float
