"""What threads do and move, counted from loops."""

from __future__ import annotations

from mapsto.ir.dims import Dim, symbol
from mapsto.ir.types import DType
from mapsto.lowering.gpu.traffic import Traffic, traffic
from mapsto.lowering.indices import floor_div, variable
from mapsto.lowering.loops import (
    Allocate,
    Barrier,
    Buffer,
    For,
    LoopFunction,
    LoopKind,
    Reduce,
    Space,
    Store,
    apply,
    constant,
)

TILE = 16


def tiled_product(n: Dim) -> LoopFunction:
    """c = a @ b of n x n matrices by tiles of 16 x 16 threads."""
    a, b = (Buffer(name, DType.F32, (n, n), readonly=True) for name in "ab")
    c = Buffer("c", DType.F32, (n, n))
    shared_a, shared_b = (
        Buffer(f"shared_{name}", DType.F32, (TILE, TILE), Space.SHARED) for name in "ab"
    )
    total = Buffer("total", DType.F32, (1,), Space.REGISTER)
    row = variable("by") * TILE + variable("ty")
    column = variable("bx") * TILE + variable("tx")
    step = variable("step")
    blocks = floor_div(variable("$n"), TILE)
    body = (
        Store(total, (0,), constant(0, DType.F32)),
        For(
            "step",
            0,
            blocks,
            (
                shared_a.store(("ty", "tx"), a[row, step * TILE + variable("tx")]),
                shared_b.store(("ty", "tx"), b[step * TILE + variable("ty"), column]),
                Barrier(),
                For(
                    "k",
                    0,
                    TILE,
                    (
                        Reduce(
                            "add",
                            total,
                            (0,),
                            apply("mul", shared_a["ty", "k"], shared_b["k", "tx"]),
                        ),
                    ),
                ),
                Barrier(),
            ),
        ),
        c.store((row, column), total[0]),
    )
    threads = For(
        "ty",
        0,
        TILE,
        (For("tx", 0, TILE, (Allocate(total), *body), LoopKind.THREAD),),
        LoopKind.THREAD,
    )
    inner = (Allocate(shared_a), Allocate(shared_b), threads)
    columns = For("bx", 0, blocks, inner, LoopKind.BLOCK)
    rows = For("by", 0, blocks, (columns,), LoopKind.BLOCK)
    return LoopFunction("product", (a, b, c), ("n",), (rows,))


def test_a_tiled_product() -> None:
    n = 64
    found = traffic(tiled_product(symbol("n")), {"n": n})
    assert found == Traffic(
        multiply_adds=n**3,
        global_read=2 * 4 * n**3 // TILE,
        global_written=4 * n**2,
        shared_read=2 * 4 * n**3,
        shared_written=2 * 4 * n**3 // TILE,
    )
    assert found.shared_bytes_each == 8 + 8 / TILE
    assert found.global_bytes_each == 8 / TILE + 4 / n
