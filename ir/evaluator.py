"""The reference evaluator: runs a function with NumPy, op by op, from the op records.

It is the meaning of the IR; compiled code is compared with it.  Every result is rounded to its
element type; what an op computes inside, such as the sum of a contraction, is not: sums of bf16 are
accumulated in f32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mapsto.ir.core import Array, Block, Function, Module, Operation
from mapsto.ir.dims import Dim, dim_value, symbols
from mapsto.ir.ops.control import Call
from mapsto.ir.ops.flow import Flow
from mapsto.ir.rounding import evaluated, rounded
from mapsto.ir.substitution import specialize

__all__ = ["evaluate", "evaluate_block", "infer_sizes"]


def evaluate(module: Module, name: str, arguments: Sequence[Array]) -> tuple[Array, ...]:
    """The results of the function for these arguments.

    Named sizes take their values from the arguments' shapes; ValueError where those disagree.
    """
    function = module[name]
    sizes = infer_sizes(function, arguments)
    return evaluate_block(specialize(function, sizes).block, arguments, module)


def infer_sizes(function: Function, arguments: Sequence[Array]) -> dict[str, int]:
    """The values of the named sizes, from the arguments' shapes: of those that stand alone as a
    dimension, then of those in a dimension, such as `2*h + 1`, that is linear in one more.

    Raises ValueError where they disagree.
    """
    sizes: dict[str, int] = {}
    found: list[tuple[str, Dim, int]] = []
    for value, array in zip(function.arguments, arguments, strict=True):
        if len(value.shape) != np.ndim(array):
            raise ValueError(f"argument {value.hint}: {value.type} got shape {np.shape(array)}")
        found += [(value.hint or "", *pair) for pair in zip(value.shape, array.shape, strict=True)]
    for hint, dim, size in sorted(found, key=lambda entry: str(entry[1]) not in symbols(entry[1])):
        unknown = symbols(dim) - sizes.keys()
        if len(unknown) == 1:
            _solve(dim, next(iter(unknown)), size, sizes)
        at = dim_value(dim, sizes) if symbols(dim) <= sizes.keys() else size
        if at != size:
            raise ValueError(f"argument {hint}: {dim} is {at} and {size}")
    return sizes


def _solve(dim: Dim, name: str, size: int, sizes: dict[str, int]) -> None:
    """Finds the size with which a dimension that is linear in it comes next to a value."""
    at = [dim_value(dim, {**sizes, name: n}) for n in range(3)]
    slope = at[1] - at[0]
    if slope and slope == at[2] - at[1]:
        sizes[name] = (size - at[0]) // slope


def evaluate_block(
    block: Block, arguments: Sequence[Array], module: Module | None = None
) -> tuple[Array, ...]:
    """The results of a block, whose dimensions are all numbers; `module` holds what it calls."""
    arrays: dict[int, Array] = {}
    for value, array in zip(block.arguments, arguments, strict=True):
        arrays[id(value)] = rounded(array, value.dtype)
    with np.errstate(all="ignore"):
        for op in block.operations[:-1]:
            operands = [arrays[id(value)] for value in op.operands]
            results = _evaluate_operation(op, operands, module)
            for value, result in zip(op.results, results, strict=True):
                arrays[id(value)] = np.asarray(result)
    return tuple(arrays[id(value)] for value in block.returned)


def _evaluate_operation(
    op: Operation, operands: Sequence[Array], module: Module | None
) -> Sequence[Array]:
    if module is not None and isinstance(op, Call):
        return evaluate(module, op.callee, operands)
    if isinstance(op, Flow):
        return op.evaluate_with(lambda block, given: evaluate_block(block, given, module), operands)
    return evaluated(op, operands)
