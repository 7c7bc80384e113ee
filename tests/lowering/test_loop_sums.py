"""Reductions in native loops against the interpreter, at every vector width of this machine."""

import numpy as np
import pytest
from loop_buffers import (
    ACC,
    DIM_M,
    F32,
    MATRICES,
    PARALLEL,
    SERIAL,
    TAILS,
    UNROLL,
    VECTOR,
    A,
    B,
    M,
    N,
    X,
    Y,
    array,
    f32,
    register,
    vector,
)
from loop_harness import check

from mapsto.ir.types import DType
from mapsto.lowering.indices import variable
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    For,
    If,
    Let,
    LoopFunction,
    LoopKind,
    Reduce,
    Ref,
    apply,
    compare,
    constant,
)
from mapsto.lowering.scalar_operations import identity

REDUCTIONS = [
    (op, dtype)
    for op in ("add", "mul", "min", "max")
    for dtype in (DType.F32, DType.F64, DType.I32, DType.I64, DType.U8)
] + [("and", DType.BOOL), ("or", DType.BOOL), ("and", DType.U32), ("or", DType.I64)]


@pytest.mark.parametrize(("op", "dtype"), REDUCTIONS, ids=str)
def test_reductions(op: str, dtype: DType) -> None:
    x, y, acc = vector("x", dtype), Buffer("y", dtype), register("acc", dtype=dtype)
    function = LoopFunction(
        "reduce",
        (x, y),
        ("n",),
        (
            Allocate(acc),
            acc.store((), constant(identity(op, dtype), dtype)),
            For("i", 0, N, (Reduce(op, acc, (), x["i"]),), VECTOR),
            y.store((), acc[()]),
        ),
    )
    for length in TAILS:
        arrays = {"x": array(length, dtype=dtype), "y": np.zeros((), dtype.numpy)}
        check(function, arrays, {"n": length}, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("unroll", [1, 2, 3, 4])
def test_reduction_into_several_registers(unroll: int) -> None:
    rows = 3
    acc = register("acc", rows)
    y = Buffer("y", F32, (rows,))
    body = For("r", 0, rows, (Reduce("add", acc, (variable("r"),), A["r", "i"]),), UNROLL)
    function = LoopFunction(
        "rows",
        (A, y),
        ("m", "n"),
        (
            Allocate(acc),
            For("r", 0, rows, (acc.store(("r",), f32(1)),), UNROLL),
            For("i", 0, N, (body,), VECTOR, unroll=unroll),
            For("r", 0, rows, (y.store(("r",), acc["r"]),), UNROLL),
        ),
    )
    for length in TAILS:
        arrays = {"a": array(rows, length), "y": np.zeros(rows, np.float32)}
        check(function, arrays, {"m": rows, "n": length}, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [SERIAL, PARALLEL])
def test_softmax(kind: LoopKind) -> None:
    top = register("top")
    e = apply("exp", A["i", "j"] - Ref("t", F32))
    body = (
        Allocate(top),
        top.store((), f32(-np.inf)),
        For("j", 0, N, (Reduce("max", top, (), A["i", "j"]),), VECTOR),
        Let("t", top[()]),
        Allocate(ACC),
        ACC.store((), f32(0)),
        For(
            "j",
            0,
            N,
            (
                Let("e", e),
                B.store(("i", "j"), Ref("e", F32)),
                Reduce("add", ACC, (), Ref("e", F32)),
            ),
            VECTOR,
        ),
        Let("r", f32(1) / ACC[()]),
        For("j", 0, N, (B.store(("i", "j"), B["i", "j"] * Ref("r", F32)),), VECTOR),
    )
    function = LoopFunction("softmax", (A, B), ("m", "n"), (For("i", 0, M, body, kind),))
    for m, n in MATRICES:
        check(function, {"a": array(m, n), "b": array(m, n)}, {"m": m, "n": n}, rtol=1e-5)


def test_masked_reduction_and_uniform_condition() -> None:
    y = Buffer("y", F32)
    loop = For(
        "i",
        0,
        N,
        (
            If(apply("gt", X["i"], f32(0)), (Reduce("add", ACC, (), X["i"]),)),
            Reduce("add", ACC, (), f32(0.5), apply("lt", X["i"], f32(-1))),
        ),
        VECTOR,
    )
    body = (
        Allocate(ACC),
        ACC.store((), f32(0)),
        If(compare("gt", N, 20), (loop,), (ACC.store((), f32(-1)),)),
        y.store((), ACC[()]),
    )
    function = LoopFunction("masked", (X, y), ("n",), body)
    for length in TAILS:
        arrays = {"x": array(length), "y": np.zeros((), np.float32)}
        check(function, arrays, {"n": length}, rtol=1e-4)


@pytest.mark.parametrize(("rows", "columns"), MATRICES)
def test_sums_over_several_loops(rows: int, columns: int) -> None:
    """Vectors of several widths, some of them in some rows only, added up over all rows."""
    total, narrow = register("total", 3), Buffer("c", F32, (DIM_M, 3))
    result = Buffer("y", F32, (3,))

    def add(number: int, buffer: Buffer) -> tuple[Reduce, ...]:
        return (Reduce("add", total, (number,), buffer["i", "j"]),)

    body = (
        Allocate(total),
        For("k", 0, 3, (total.store(("k",), f32(0.5)),), UNROLL),
        For(
            "i",
            0,
            M,
            (
                For("j", 0, N, add(0, A), VECTOR),
                For("j", 0, 3, add(1, narrow), VECTOR),
                For("j", 0, 1, add(2, narrow), VECTOR),
                If(compare("lt", "i", 2), (For("j", 0, N, add(1, A), VECTOR),)),
            ),
        ),
        *(result.store((number,), total[number]) for number in range(3)),
    )
    function = LoopFunction("sums", (A, narrow, result), ("m", "n"), body)
    arrays = {"a": array(rows, columns), "c": array(rows, 3), "y": array(3)}
    check(function, arrays, {"m": rows, "n": columns})


def test_sums_that_are_read_between_rows() -> None:
    body = (
        Allocate(ACC),
        ACC.store((), f32(0)),
        For(
            "i",
            0,
            M,
            (
                For("j", 0, N, (Reduce("add", ACC, (), A["i", "j"]),), VECTOR),
                Buffer("y", F32, (DIM_M,)).store(("i",), ACC[()]),
            ),
        ),
    )
    sums = Buffer("y", F32, (DIM_M,))
    function = LoopFunction("running", (A, sums), ("m", "n"), body)
    check(function, {"a": array(4, 21), "y": array(4)}, {"m": 4, "n": 21})


@pytest.mark.parametrize("columns", [1, 5, 8, 14, 28, 33, 56, 77])
@pytest.mark.parametrize("sums", [1, 3])
def test_sums_down_columns(columns: int, sums: int) -> None:
    """Vectors of several registers, and what is left of columns in one of no more than it needs."""
    a, y = Buffer("a", F32, (5, columns)), Buffer("y", F32, (sums, columns))
    totals = [register(f"total{number}") for number in range(sums)]
    add = tuple(Reduce("add", total, (), a["i", "j"]) for total in totals)
    body = (
        *(s for total in totals for s in (Allocate(total), total.store((), f32(1)))),
        For("i", 0, 5, add),
        *(y.store((number, "j"), total[()]) for number, total in enumerate(totals)),
    )
    function = LoopFunction("columns", (a, y), (), (For("j", 0, columns, body, VECTOR),))
    check(function, {"a": array(5, columns), "y": array(sums, columns, seed=1)}, {})


def test_sums_of_one_element_over_several_rows() -> None:
    one = Buffer("a", F32, (DIM_M, 1))
    add = For("j", 0, 1, (Reduce("add", ACC, (), one["i", "j"]),), VECTOR)
    body = (Allocate(ACC), ACC.store((), f32(0)), For("i", 0, M, (add,)), Y.store((0,), ACC[()]))
    function = LoopFunction("column", (one, Y), ("m", "n"), body)
    check(function, {"a": array(6, 1), "y": array(1)}, {"m": 6, "n": 1})
