"""Buffers, indices and arrays that tests of emitted loops have in common."""

import numpy as np
from loop_harness import random_array

from mapsto.ir.dims import Dim, symbol
from mapsto.ir.types import DType
from mapsto.lowering.indices import size, variable
from mapsto.lowering.loops import (
    Buffer,
    Expression,
    LoopKind,
    Space,
    constant,
)

F32 = DType.F32
SERIAL, UNROLL, VECTOR, PARALLEL = (
    LoopKind.SERIAL,
    LoopKind.UNROLL,
    LoopKind.VECTOR,
    LoopKind.PARALLEL,
)
M, N = size("m"), size("n")
DIM_M, DIM_N = symbol("m"), symbol("n")
I, J = variable("i"), variable("j")  # noqa: E741
TAILS = [0, 1, 2, 3, 5, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 129]
MATRICES = [(3, 0), (1, 1), (3, 5), (2, 16), (3, 17), (5, 33), (2, 100)]


def array(*shape: int, dtype: DType = F32, seed: int = 0) -> np.ndarray:
    return random_array(np.random.default_rng(seed), dtype, shape)


def vector(name: str, dtype: DType = F32, extent: Dim = DIM_N) -> Buffer:
    return Buffer(name, dtype, (extent,))


def register(name: str, *shape: int, dtype: DType = F32) -> Buffer:
    return Buffer(name, dtype, shape, Space.REGISTER)


def f32(value: float) -> Expression:
    return constant(value, F32)


X, Y = vector("x"), vector("y")
A, B = Buffer("a", F32, (DIM_M, DIM_N)), Buffer("b", F32, (DIM_M, DIM_N))
ACC = register("acc")
