"""Inputs for a benchmark where no files give them: random numbers that the program accepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mapsto.ir.core import Array, Function, Operation, Trait, Value
from mapsto.ir.dims import Dim
from mapsto.ir.ops.indexing import Gather
from mapsto.ir.ops.logic import Cast
from mapsto.ir.types import DType, TensorType

__all__ = ["index_bounds", "sample"]


def sample(type_: TensorType, bound: int | None, seed: int) -> Array:
    """Numbers from a normal distribution; whole numbers below a bound, zeros without one."""
    random = np.random.default_rng(seed)
    shape = tuple(dim for dim in type_.shape if isinstance(dim, int))
    assert len(shape) == len(type_.shape), "sizes are known"
    dtype = type_.dtype
    if dtype.is_float:
        return np.asarray(random.normal(size=shape)).astype(dtype.numpy)
    if dtype is DType.BOOL:
        return np.asarray(random.integers(0, 2, shape)).astype(dtype.numpy)
    return np.asarray(random.integers(0, bound or 1, shape)).astype(dtype.numpy)


def index_bounds(function: Function) -> Mapping[int, int]:
    """The numbers below which arguments of a function have to be, as they are indices."""
    came_from: dict[Value, int] = {v: i for i, v in enumerate(function.block.arguments)}
    bounds: dict[int, int] = {}
    for op in function.block.operations:
        if isinstance(op, Gather):
            sizes = [op.operands[0].shape[axis] for axis in op.axes]
            _note(bounds, came_from, op.indices, sizes)
        elif _passes_on(op) and op.operands[0] in came_from:
            came_from[op.result] = came_from[op.operands[0]]
    return bounds


def _passes_on(op: Operation) -> bool:
    """Whether the elements of the result are those of the only operand."""
    return len(op.operands) == 1 and (isinstance(op, Cast) or op.has(Trait.INDEXING))


def _note(
    bounds: dict[int, int],
    came_from: Mapping[Value, int],
    indices: Sequence[Value],
    sizes: Sequence[Dim],
) -> None:
    for index, size in zip(indices, sizes, strict=True):
        argument = came_from.get(index)
        if argument is not None and isinstance(size, int):
            bounds[argument] = min(size, bounds.get(argument, size))
