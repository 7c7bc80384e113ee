"""Native code of loop functions against the interpreter, at every vector width of this machine.

The arrays end where memory becomes inaccessible, so a read past the end of one faults.
"""

import numpy as np
import pytest
from loop_buffers import (
    ACC,
    DIM_M,
    DIM_N,
    F32,
    MATRICES,
    PARALLEL,
    TAILS,
    UNROLL,
    VECTOR,
    A,
    B,
    I,
    M,
    N,
    X,
    Y,
    array,
    f32,
    register,
    vector,
)
from loop_harness import check, machines, module_text

from mapsto.ir.types import DType
from mapsto.lowering.indices import variable
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    Comment,
    For,
    If,
    Let,
    LoopFunction,
    Prefetch,
    Reduce,
    Ref,
    Space,
    Store,
    apply,
    compare,
    constant,
    fma,
)


@pytest.mark.parametrize("length", range(70))
def test_every_tail(length: int) -> None:
    loop = For("i", 0, N, (Y.store(("i",), fma(X["i"], f32(2), Y["i"])),), VECTOR)
    function = LoopFunction("axpy", (X, Y), ("n",), (loop,))
    check(function, {"x": array(length), "y": array(length, seed=1)}, {"n": length})


@pytest.mark.parametrize("length", range(40))
def test_every_static_tail(length: int) -> None:
    x, y = vector("x", extent=length + 3), vector("y", extent=length + 3)
    loop = For("i", 3, length + 3, (y.store(("i",), x[I] - x[I - 3]),), VECTOR)
    function = LoopFunction("difference", (x, y), (), (loop,))
    check(function, {"x": array(length + 3), "y": array(length + 3)})


def test_outer_loop_vectorization() -> None:
    body = (
        Allocate(ACC),
        ACC.store((), f32(0)),
        For("i", 0, M, (Reduce("add", ACC, (), A["i", "j"]),)),
        Y.store(("j",), ACC[()]),
    )
    function = LoopFunction("columns", (A, Y), ("m", "n"), (For("j", 0, N, body, VECTOR),))
    for m, n in MATRICES:
        check(function, {"a": array(m, n), "y": array(n)}, {"m": m, "n": n}, rtol=1e-5)


def test_conditions_become_masks() -> None:
    errors = Buffer("errors", DType.I32, (1,))
    positive = apply("gt", X["j"], f32(0))
    flag = Store(errors, (0,), constant(7, DType.I32), apply("gt", X["j"], f32(1.5)))
    branch = If(
        positive,
        (Y.store(("j",), X["j"]), If(apply("gt", X["j"], f32(1)), (Y.store(("j",), f32(9)),))),
        (Y.store(("j",), -X["j"] * f32(2)),),
    )
    function = LoopFunction(
        "branches", (X, Y, errors), ("n",), (For("j", 0, N, (flag, branch), VECTOR),)
    )
    for length in TAILS:
        arrays = {"x": array(length), "y": array(length), "errors": np.zeros(1, np.int32)}
        check(function, arrays, {"n": length})


def test_local_memory_of_tasks_and_of_the_kernel() -> None:
    panel = Buffer("panel", F32, (64, DIM_N), Space.LOCAL)
    shared = Buffer("shared", F32, (DIM_M, DIM_N), Space.LOCAL)
    small = Buffer("small", F32, (2, 4), Space.LOCAL)
    function = LoopFunction(
        "packed",
        (A, B),
        ("m", "n"),
        (
            Allocate(shared),
            For(
                "i",
                0,
                M,
                (For("j", 0, N, (shared.store(("i", "j"), A["i", "j"] * f32(2)),), VECTOR),),
                PARALLEL,
            ),
            For(
                "t",
                0,
                M,
                (
                    Allocate(panel),
                    Allocate(small),
                    For("q", 0, 4, (small.store((1, "q"), f32(3)),), VECTOR),
                    For("j", 0, N, (panel.store((5, "j"), shared["t", "j"]),), VECTOR),
                    For("j", 0, N, (B.store(("t", "j"), panel[5, "j"] + small[1, 2]),), VECTOR),
                ),
                PARALLEL,
            ),
        ),
    )
    for m, n in MATRICES:
        check(function, {"a": array(m, n), "b": array(m, n)}, {"m": m, "n": n})


def test_tasks_capture_what_they_use() -> None:
    body = (
        Let("scale", X[0]),
        Let("negative", apply("lt", X[0], f32(0))),
        For(
            "k",
            0,
            2,
            (
                For(
                    "i",
                    variable("k") + 1,
                    M,
                    (
                        For(
                            "j",
                            0,
                            N,
                            (
                                B.store(
                                    ("i", "j"),
                                    A["i", "j"] * Ref("scale", F32),
                                    Ref("negative", DType.BOOL),
                                ),
                                A.store(("k", "j"), f32(1)),
                            ),
                            VECTOR,
                        ),
                    ),
                    PARALLEL,
                ),
            ),
        ),
    )
    function = LoopFunction("captures", (X, A, B), ("m", "n"), body)
    for start in (-2.0, 2.0):
        x = np.full(9, start, np.float32)
        check(function, {"x": x, "a": array(4, 9), "b": array(4, 9)}, {"m": 4, "n": 9})


def tile(rows: int, columns: int, depth: int) -> LoopFunction:
    """The inner part of a packed matrix product: a tile of registers, stored with guards."""
    a = Buffer("a", F32, (depth, rows), alignment=64)
    b = Buffer("b", F32, (depth, columns), alignment=64)
    c = Buffer("c", F32, (DIM_M, DIM_N))
    acc = register("acc", rows, columns)
    product = fma(Ref("x", F32), b["k", "j"], acc["i", "j"])
    update = (
        Let("x", a["k", "i"]),
        For("j", 0, columns, (acc.store(("i", "j"), product),), VECTOR),
    )
    store = c.store(("i", "j"), acc["i", "j"], compare("lt", "j", N))
    return LoopFunction(
        "tile",
        (a, b, c),
        ("m", "n"),
        (
            Allocate(acc),
            For(
                "i",
                0,
                rows,
                (For("j", 0, columns, (acc.store(("i", "j"), f32(0)),), VECTOR),),
                UNROLL,
            ),
            Comment("rank-one updates"),
            For(
                "k",
                0,
                depth,
                (Prefetch(b, (variable("k") + 8, 0)), For("i", 0, rows, update, UNROLL)),
            ),
            For(
                "i",
                0,
                rows,
                (If(compare("lt", "i", M), (For("j", 0, columns, (store,), VECTOR),)),),
                UNROLL,
            ),
        ),
    )


@pytest.mark.parametrize("columns", [1, 3, 8, 13, 16, 20, 33, 48])
def test_register_tile(columns: int) -> None:
    function = tile(4, columns, 7)
    for m, n in [(4, columns), (3, columns - 1), (1, 1), (4, 0)]:
        arrays = {"a": array(7, 4), "b": array(7, columns), "c": array(m, n)}
        check(function, arrays, {"m": m, "n": n}, rtol=1e-4, atol=1e-4)


def test_register_tile_stays_in_registers() -> None:
    from mapsto.runtime.code_generation import emit_assembly

    machine = next((m for m in machines() if m.vector_bits == 256 and "x86" in m.triple), None)
    if machine is None:
        pytest.skip("no machine with 16 registers of 256 bits")
    assembly = emit_assembly(module_text(tile(6, 16, 100), machine), machine)
    blocks = assembly.split("\n.LBB")
    hot = max(blocks, key=lambda block: block.count("vfmadd"))
    loop = hot.split("\tj")[0]
    assert loop.count("vfmadd") == 12
    assert "rsp" not in loop, loop
    assert loop.count("vbroadcastss") == 6


def test_serial_loop_in_groups() -> None:
    loop = For("i", 0, N, (Y.store(("i",), X["i"] + f32(1)),), unroll=3)
    function = LoopFunction("groups", (X, Y), ("n",), (loop,))
    for length in range(11):
        check(function, {"x": array(length), "y": array(length)}, {"n": length})


def test_steps_and_empty_loops() -> None:
    loop = For("i", 1, N - 1, (Y.store(("i",), X["i"] + f32(1)),), step=3)
    empty = For("j", 5, 2, (Y.store((100,), f32(0)),), VECTOR)
    tasks = For("k", N, 0, (Y.store((100,), f32(0)),), PARALLEL)
    function = LoopFunction("steps", (X, Y), ("n",), (loop, empty, tasks))
    for length in range(1, 11):
        check(function, {"x": array(length), "y": array(length)}, {"n": length})


def test_what_cannot_be_lowered_is_named() -> None:
    store = Y.store(("i",), ACC[()])
    function = LoopFunction(
        "bad",
        (Y,),
        ("n",),
        (Allocate(ACC), ACC.store((), f32(0)), For("i", 0, N, (store,), PARALLEL)),
    )
    with pytest.raises(ValueError, match="register `acc` is used in the parallel loop over `i`"):
        module_text(function, machines()[0])
    total = Buffer("total", F32)
    loop = For("i", 0, N, (Reduce("add", total, (), X["i"]),), VECTOR)
    with pytest.raises(ValueError, match="reduces into `total`"):
        module_text(LoopFunction("bad", (X, total), ("n",), (loop,)), machines()[0])
