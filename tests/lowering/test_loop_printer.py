"""The text of loop functions, and their cost."""

from mapsto.ir.dims import symbol
from mapsto.ir.types import DType
from mapsto.lowering.indices import size, value_of, variable
from mapsto.lowering.loop_cost import Cost, loop_cost
from mapsto.lowering.loop_printer import expression_text, loop_text
from mapsto.lowering.loops import (
    Allocate,
    AsyncCopy,
    Barrier,
    Buffer,
    Comment,
    CommitCopies,
    Expression,
    For,
    If,
    IndexValue,
    Let,
    Load,
    LoadMatrix,
    LoopFunction,
    LoopKind,
    MatrixMultiply,
    Prefetch,
    Reduce,
    Ref,
    Space,
    WaitCopies,
    all_of,
    apply,
    bitcast,
    cast,
    compare,
    constant,
    fma,
    select,
    within,
)

F32 = DType.F32
N = size("n")
X = Buffer("x", F32, (symbol("m"), symbol("n")), readonly=True, alignment=64)
Y = Buffer("y", F32, (symbol("n"),))
ACC = Buffer("acc", F32, (4, 8), Space.REGISTER)
PANEL = Buffer("panel", F32, (64,), Space.LOCAL)

FUNCTION = LoopFunction(
    "example",
    (X, Y),
    ("m", "n"),
    (
        Comment("a comment"),
        For(
            "i",
            0,
            size("m"),
            (
                Allocate(ACC),
                Allocate(PANEL),
                Let("scale", X["i", 0]),
                For(
                    "j",
                    0,
                    N - 1,
                    (Reduce("max", ACC, (0, 1), X["i", "j"]),),
                    LoopKind.VECTOR,
                    1,
                    8,
                    2,
                ),
                For("k", 0, 64, (Prefetch(Y, (variable("k") + 8,)),), step=4, unroll=2),
                If(
                    compare("lt", "i", 3),
                    (Y.store(("i",), Ref("scale", F32), within("i", N)),),
                    (Y.store((0,), constant(0, F32)),),
                ),
            ),
            LoopKind.PARALLEL,
        ),
    ),
)

TEXT = """\
kernel example(x: readonly align(64) f32[m, n], y: f32[n]; m, n) {
  # a comment
  for i in 0..$m parallel {
    register acc: f32[4, 8]
    local panel: f32[64]
    let scale = x[i, 0]
    for j in 0..($n - 1) vector(8) unroll(2) {
      acc[0, 1] max= x[i, j]
    }
    for k in 0..64 step 4 unroll(2) {
      prefetch y[k + 8]
    }
    if i < 3 {
      y[i] = scale where (i >= 0) and (i < $n)
    } else {
      y[0] = 0.0
    }
  }
}
"""


def test_text() -> None:
    assert loop_text(FUNCTION) == TEXT


def test_expressions() -> None:
    x = Y["i"]
    ids = Buffer("ids", DType.I64, (8,))
    cases: dict[str, Expression] = {
        "(y[i] + 1.0) * (-y[i])": (x + constant(1, F32)) * -x,
        "fma(y[i], y[i], 2.5)": fma(x, x, constant(2.5, F32)),
        "select(y[i] > 0.0, y[i], exp(y[i]))": select(
            apply("gt", x, constant(0, F32)), x, apply("exp", x)
        ),
        "i32(y[i])": cast(x, DType.I32),
        "bitcast<u32>(y[i])": bitcast(x, DType.U32),
        "f32(2*i + 1)": IndexValue(variable("i") * 2 + 1, F32),
        "(y[i] if i < 3 else -1.0)": Load(Y, (variable("i"),), compare("lt", "i", 3), -1.0),
        "y[index(ids[i])]": Y[value_of(ids["i"])],
        "true": constant(True, DType.BOOL),
    }
    for text, expression in cases.items():
        assert expression_text(expression) == text
    assert all_of() is None


def test_cost() -> None:
    row = For("j", 0, N, (Y.store(("j",), fma(X["i", "j"], X["i", "j"], Y["j"])),), LoopKind.VECTOR)
    function = LoopFunction("cost", (X, Y), ("m", "n"), (For("i", 0, size("m"), (row,)),))
    assert loop_cost(function, {"m": 10, "n": 100}) == Cost(2000, 4 * (1000 + 100))
    assert str(Cost(2_500_000, 4400)) == "2.5 Mflop, 4.4 KB"


def test_what_threads_do_together() -> None:
    panel = Buffer("panel", DType.F16, (16, 24), Space.SHARED)
    left, sums = (Buffer(n, t, (8,), Space.REGISTER) for n, t in (("a", DType.F16), ("c", F32)))
    half = Buffer("h", DType.F16, (64,))
    body = (
        AsyncCopy(panel, (0, 8), half["i"], 8),
        CommitCopies(),
        WaitCopies(1),
        WaitCopies(),
        Barrier(),
        LoadMatrix(left, (0,), panel, (variable("i"), 0), transposed=True),
        MatrixMultiply(sums, (0,), left, (0,), left, (4,), (16, 8, 16)),
    )
    text = loop_text(LoopFunction("k", (half,), (), (For("i", 0, 32, body, LoopKind.THREAD),)))
    assert [line.strip() for line in text.splitlines()[2:-2]] == [
        "copy 8 to panel[0, 8] from h[i]",
        "commit copies",
        "wait for copies but 1",
        "wait for copies",
        "barrier",
        "a[0] = matrix panel[i, 0] transposed",
        "c[0] += a[0] @ a[4] # 16 x 8 x 16",
    ]
