"""Whether two modules compute the same: their functions, evaluated on random inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mapsto.ir.core import Array, Function, Module, Trait
from mapsto.ir.dims import Dim
from mapsto.ir.errors import IRError
from mapsto.ir.evaluator import evaluate_block
from mapsto.ir.ops.control import Call
from mapsto.ir.substitution import specialize
from mapsto.ir.types import DType, TensorType

__all__ = ["find_difference", "random_inputs", "same_values", "small_sizes"]

TOLERANCES = {DType.F16: 1e-2, DType.BF16: 3e-2, DType.F32: 1e-4, DType.F64: 1e-9}
"""Relative to the greatest magnitude of an array: passes may change the order of a sum."""

_SMALLEST_SIZES = (3, 8, 17)
_INTEGERS_BELOW = (3, 1)


def find_difference(before: Module, after: Module, seed: int = 0) -> str | None:
    """In words, where a function of both modules computes another value; None where none does.

    Functions that the reference cannot evaluate yet (those that ask for derivatives) and inputs on
    which the first one fails, such as indices out of range, are left out.
    """
    for name in before.functions.keys() & after.functions.keys():
        function = before[name]
        if not is_evaluable(before, function):
            continue
        sizes, inputs, expected = _sample(before, function, seed)
        if expected is None:
            continue
        difference = _difference(after, after[name], sizes, inputs, expected)
        if difference is not None:
            return f"@{name}, {_sizes_text(sizes)}seed {seed}: {difference}"
    return None


def _difference(
    module: Module,
    function: Function,
    sizes: dict[str, Dim],
    inputs: Sequence[Array],
    expected: Sequence[Array],
) -> str | None:
    """Where the function gives other results than expected for these inputs."""
    try:
        found = _evaluate(module, function, sizes, inputs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if len(found) != len(expected):
        return f"{len(found)} results, {len(expected)} before"
    for number, value in enumerate(function.results):
        if not same_values(value.dtype, expected[number], found[number]):
            return f"result {number}"
    return None


def is_evaluable(module: Module, function: Function) -> bool:
    """Whether the reference evaluator can run the function: nothing in it is left to expand."""
    return all(
        is_evaluable(module, module[op.callee])
        if isinstance(op, Call)
        else not op.has(Trait.OPAQUE)
        for op in function.operations()
    )


def same_values(dtype: DType, expected: Array, found: Array) -> bool:
    """Whether two arrays are equal up to what reordering of sums may change."""
    if expected.shape != found.shape:
        return False
    if not dtype.is_float:
        return bool(np.array_equal(expected, found))
    finite = np.abs(expected[np.isfinite(expected)]).astype(np.float64)
    tolerance = TOLERANCES[dtype]
    limit = tolerance * max(1.0, float(finite.max(initial=0.0)))
    with np.errstate(all="ignore"):
        close = np.isclose(expected, found, rtol=tolerance, atol=limit, equal_nan=True)
    return bool(close.all())


def small_sizes(function: Function) -> Iterator[dict[str, Dim]]:
    """Small values, all different, for the function's named sizes, for which its types exist."""
    names = sorted(set[str]().union(*(v.type.symbols for v in function.arguments)))
    for smallest in _SMALLEST_SIZES[: 3 if names else 1]:
        sizes: dict[str, Dim] = {name: smallest + i for i, name in enumerate(names)}
        types = [v.type.substitute(sizes) for v in function.arguments]
        if all(isinstance(d, int) and d >= 0 for type_ in types for d in type_.shape):
            yield sizes


def random_inputs(types: Sequence[TensorType], seed: int, below: int = 3) -> list[Array]:
    """An array for each type: floats in [-2, 2), integers in [0, below)."""
    random = np.random.default_rng(seed)
    return [_random_array(random, type_, below) for type_ in types]


def _random_array(random: np.random.Generator, type_: TensorType, below: int) -> Array:
    shape = [d for d in type_.shape if isinstance(d, int)]
    if type_.dtype.is_float:
        return np.asarray(random.uniform(-2, 2, shape)).astype(type_.dtype.numpy)
    limit = 2 if type_.dtype is DType.BOOL else below
    return np.asarray(random.integers(0, limit, shape)).astype(type_.dtype.numpy)


def _sample(
    module: Module, function: Function, seed: int
) -> tuple[dict[str, Dim], list[Array], tuple[Array, ...] | None]:
    """Sizes and inputs on which the function can be evaluated, with its results; else None."""
    for sizes in small_sizes(function):
        types = [v.type.substitute(sizes) for v in function.arguments]
        for below in _INTEGERS_BELOW:
            inputs = random_inputs(types, seed, below)
            try:
                return sizes, inputs, _evaluate(module, function, sizes, inputs)
            except (IRError, IndexError):
                continue
    return {}, [], None


def _evaluate(
    module: Module, function: Function, sizes: dict[str, Dim], inputs: Sequence[Array]
) -> tuple[Array, ...]:
    return evaluate_block(specialize(function, sizes).block, inputs, module)


def _sizes_text(sizes: dict[str, Dim]) -> str:
    return "".join(f"{name} = {size}, " for name, size in sizes.items())
