"""The interpreter is strict: wrong accesses raise and say where."""

import numpy as np
import pytest

from mapsto.ir.dims import symbol
from mapsto.ir.types import DType
from mapsto.lowering.indices import size, variable
from mapsto.lowering.loop_interpreter import LoopError, interpret
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    For,
    Load,
    LoopFunction,
    Space,
    constant,
    within,
)

F32 = DType.F32
X, Y = Buffer("x", F32, (symbol("n"),)), Buffer("y", F32, (symbol("n"),))
ACC = Buffer("acc", F32, (2,), Space.REGISTER)
N = size("n")


def run(*body: object) -> np.ndarray:
    arrays = {"x": np.arange(4, dtype=np.float32), "y": np.zeros(4, np.float32)}
    interpret(LoopFunction("f", (X, Y), ("n",), body), arrays, {"n": 4})  # type: ignore[arg-type]
    return arrays["y"]


def test_loops_and_guards() -> None:
    value = Load(X, (variable("i") + 1,), within(variable("i") + 1, N), -1.0)
    assert run(For("i", 0, N, (Y.store(("i",), value),))).tolist() == [1, 2, 3, -1]


def test_reads_out_of_bounds_are_named() -> None:
    with pytest.raises(LoopError, match=r"`x`\[4\] is accessed at \[4\]"):
        run(For("i", 0, N, (Y.store(("i",), X[variable("i") + 1]),)))


def test_writes_out_of_bounds_are_named() -> None:
    with pytest.raises(LoopError, match=r"`y`\[4\] is accessed at \[-1\]"):
        run(For("i", 0, N, (Y.store((variable("i") - 1,), X["i"]),)))


def test_reads_of_undefined_registers_are_named() -> None:
    with pytest.raises(LoopError, match=r"`acc` is read at \[1\] before it is written"):
        run(Allocate(ACC), ACC.store((0,), constant(1, F32)), Y.store((0,), ACC[1]))


def test_arrays_must_match() -> None:
    function = LoopFunction("f", (X,), ("n",), ())
    with pytest.raises(ValueError, match=r"`x` is f32\[4\], not float64"):
        interpret(function, {"x": np.zeros(4)}, {"n": 4})
