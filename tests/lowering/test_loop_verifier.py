"""Each rule of the loop verifier, broken once."""

import pytest

from mapsto.ir.dims import symbol
from mapsto.ir.types import DType
from mapsto.lowering.indices import size, value_of, variable
from mapsto.lowering.loop_verifier import InvalidLoop, verify_loops
from mapsto.lowering.loops import (
    TRUE,
    Allocate,
    Apply,
    AsyncCopy,
    Barrier,
    Buffer,
    For,
    If,
    IndexValue,
    Let,
    LoadMatrix,
    LoopFunction,
    LoopKind,
    MatrixMultiply,
    Prefetch,
    Reduce,
    Ref,
    Space,
    Statement,
    Store,
    constant,
)

F32 = DType.F32
X = Buffer("x", F32, (symbol("n"),), readonly=True)
Y = Buffer("y", F32, (symbol("n"),))
ACC = Buffer("acc", F32, (), Space.REGISTER)
LOCAL = Buffer("local", F32, (4,), Space.LOCAL)
HALVES = Buffer("halves", DType.F16, (64,), Space.SHARED)
LEFT = Buffer("left", DType.F16, (8,), Space.REGISTER)
ROW = Buffer("row", F32, (8,), Space.REGISTER)
N = size("n")
ONE = constant(1.0, F32)
STORE = Y.store(("i",), X["i"])
VECTOR, PARALLEL, UNROLL = LoopKind.VECTOR, LoopKind.PARALLEL, LoopKind.UNROLL


def loop(*body: Statement, variable: str = "i", kind: LoopKind = LoopKind.SERIAL) -> For:
    return For(variable, 0, N, body, kind)


def threads(*body: Statement) -> For:
    return For("thread", 0, 32, body, LoopKind.THREAD)


BROKEN: dict[str, tuple[tuple[Statement, ...], str]] = {
    "variable not defined": ((STORE,), "`i` is not a loop variable"),
    "variable defined again": ((loop(loop(STORE)),), "`i` is defined again"),
    "let defined again": ((Let("a", ONE), Let("a", ONE)), "`a` is defined again"),
    "let not bound": ((loop(Y.store(("i",), Ref("a", F32))),), "`a` is not a f32"),
    "let of another type": (
        (Let("a", ONE), loop(Y.store(("i",), Ref("a", F32)), Let("b", Ref("a", DType.I32)))),
        "`a` is not a i32",
    ),
    "buffer not declared": ((ACC.store((), ONE),), "buffer `acc` is not declared here"),
    "size not a parameter": ((Y.store((size("m"),), ONE),), "`\\$m` is not a loop variable"),
    "rank": ((Y.store((0, 0), ONE),), "`y` has 1 dimensions, not 2"),
    "index from a float": ((Y.store((value_of(X[0]),), ONE),), "is not an integer"),
    "type of a store": ((Y.store((0,), constant(1, DType.I32)),), "`y` holds f32, not i32"),
    "guard": ((Y.store((0,), ONE, ONE),), "the condition `1.0` is not a bool"),
    "condition": ((If(ONE, (), ()),), "the condition `1.0` is not a bool"),
    "reduction": ((Reduce("sub", Y, (0,), ONE),), "`sub` is not a reduction"),
    "step": ((For("i", 0, 9, (), step=0),), "the serial loop `i` has step 0"),
    "vector step": ((For("i", 0, 9, (), VECTOR, step=2),), "the vector loop `i` has step 2"),
    "unrolled extent": ((loop(STORE, kind=UNROLL),), "`i` has no static extent"),
    "nested vector loops": (
        (loop(loop(STORE, kind=VECTOR), variable="j", kind=VECTOR),),
        "the vector loop `i` is inside a vector loop",
    ),
    "parallel in vector": (
        (loop(loop(STORE, kind=PARALLEL), variable="j", kind=VECTOR),),
        "the parallel loop `i` is inside a vector loop",
    ),
    "parallel in parallel": (
        (loop(loop(STORE, kind=PARALLEL), variable="j", kind=PARALLEL),),
        "the parallel loop `i` is inside another one",
    ),
    "readonly": ((X.store((0,), ONE),), "`x` is readonly"),
    "declared argument": ((Allocate(Buffer("z", F32)),), "`z` is declared, but is in argument"),
    "register of unknown shape": (
        (Allocate(Buffer("z", F32, (symbol("n"),), Space.REGISTER)),),
        "register `z` has no static shape",
    ),
    "local in vector loop": (
        (loop(Allocate(LOCAL), kind=VECTOR),),
        "`local` is declared in a vector loop",
    ),
    "register across tasks": (
        (Allocate(ACC), loop(ACC.store((), ONE), kind=PARALLEL)),
        "buffer `acc` is not declared here",
    ),
    "barrier": ((loop(Barrier()),), "`Barrier` is not done by the threads of a block"),
    "barrier in a vector": (
        (threads(loop(Barrier(), kind=VECTOR)),),
        "`Barrier` is not done by the threads of a block",
    ),
    "copy to a register": (
        (Allocate(ACC), threads(AsyncCopy(ACC, (), X[0]))),
        "`x` cannot be copied to `acc` as it is",
    ),
    "copy of another type": (
        (Allocate(HALVES), threads(AsyncCopy(HALVES, (0,), X[0]))),
        "`x` cannot be copied to `halves` as it is",
    ),
    "matrix from memory": (
        (Allocate(LEFT), threads(LoadMatrix(LEFT, (0,), X, (0,)))),
        "`x` is not in shared space",
    ),
    "matrix of another type": (
        (Allocate(ROW), Allocate(HALVES), threads(LoadMatrix(ROW, (0,), HALVES, (0,)))),
        "`row` and `halves` are not both f16 or bf16",
    ),
    "sums of a product": (
        (Allocate(LEFT), threads(MatrixMultiply(*(LEFT, (0,)) * 3, (16, 8, 16)))),
        "`left` holds f16, not f32",
    ),
    "prefetch": ((Prefetch(LOCAL, (0,)),), "buffer `local` is not declared here"),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_broken_rules_are_named(rule: str) -> None:
    body, message = BROKEN[rule]
    with pytest.raises(InvalidLoop, match=message):
        verify_loops(LoopFunction("broken", (X, Y), ("n",), body))


def test_parameters() -> None:
    with pytest.raises(InvalidLoop, match="takes `acc`, which is in register space"):
        verify_loops(LoopFunction("broken", (ACC,), (), ()))
    with pytest.raises(InvalidLoop, match="uses size `n`, which is not a parameter"):
        verify_loops(LoopFunction("broken", (X,), (), ()))
    with pytest.raises(InvalidLoop, match="`x` is defined again"):
        verify_loops(LoopFunction("broken", (X, X), ("n",), ()))


def test_names_may_be_used_again_side_by_side() -> None:
    declared = (Let("a", X["i"]), Y.store(("i",), Ref("a", F32), TRUE))
    shifted = Apply("cast", (IndexValue(variable("i") - 1),), F32)
    loops = (loop(*declared), loop(*declared), loop(Store(Y, (variable("i"),), shifted)))
    verify_loops(LoopFunction("fine", (X, Y), ("n",), loops))
