"""What threads do together: shuffles, votes, tensor cores, atomics, barriers of a warp."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import ptx
import pytest
from instruction_harness import COUNT, execute, random_bits

Array = np.ndarray

VALUES = random_bits(32, 3)
LANES = np.arange(COUNT) % 32
WARPS = VALUES.reshape(-1, 32)

SHUFFLES: dict[str, Callable[[Array], Array]] = {
    "shfl.sync.up.b32 %d, %x0, 3, 0, -1;": lambda w: np.hstack([w[:, :3], w[:, :-3]]),
    "shfl.sync.down.b32 %d, %x0, 5, 31, -1;": lambda w: np.hstack([w[:, 5:], w[:, -5:]]),
    "shfl.sync.bfly.b32 %d, %x0, 6, 31, -1;": lambda w: w[:, np.arange(32) ^ 6],
    "shfl.sync.idx.b32 %d, %x0, 9, 31, -1;": lambda w: np.repeat(w[:, 9:10], 32, 1),
    "shfl.sync.idx.b32 %d, %x0, 2, 0x181f, -1;": lambda w: w[:, np.arange(32) // 8 * 8 + 2],
    "shfl.sync.down.b32 %d|%p, %x0, 5, 31, -1; selp.b32 %d, %d, 77, %p;": lambda w: np.hstack(
        [w[:, 5:], np.full((len(w), 5), 77, np.uint32)]
    ),
    "redux.sync.add.u32 %d, %x0, -1;": lambda w: np.repeat(
        w.sum(1, keepdims=True, dtype=np.uint32), 32, 1
    ),
    "redux.sync.max.s32 %d, %x0, -1;": lambda w: np.repeat(
        w.view(np.int32).max(1, keepdims=True).view(np.uint32), 32, 1
    ),
    "setp.gt.s32 %p, %x0, 0; vote.sync.ballot.b32 %d, %p, -1;": lambda w: np.repeat(
        ((w.view(np.int32) > 0) << np.arange(32)).sum(1, keepdims=True).astype(np.uint32), 32, 1
    ),
    "setp.gt.s32 %p, %x0, 0; vote.sync.any.pred %q, %p, -1; selp.b32 %d, 1, 0, %q;": lambda w: (
        np.ones_like(w)
    ),
    "and.b32 %x0, %x0, 1; match.any.sync.b32 %d, %x0, -1;": lambda w: np.where(
        w & 1,
        ((w & 1) << np.arange(32)).sum(1, keepdims=True),
        ((1 - (w & 1)) << np.arange(32)).sum(1, keepdims=True),
    ).astype(np.uint32),
    "elect.sync %d|%p, -1; selp.b32 %d, %d, 5, %p;": lambda w: np.broadcast_to(
        np.where(np.arange(32) == 0, 0, 5), w.shape
    ).astype(np.uint32),
    "bar.warp.sync -1; mov.b32 %d, %x0;": lambda w: w,
    "bar.red.popc.u32 %d, 0, %r;": lambda w: np.full_like(w, (VALUES.view(np.int32) > 0).sum()),
}


@pytest.mark.parametrize("code", SHUFFLES)
def test_warps(code: str) -> None:
    declarations = ".reg .pred %r; setp.gt.s32 %r, %x0, 0;" if "%r" in code else ""
    declared = code.replace("bar.red", f"{declarations} bar.red")
    found = execute(declared, "b32", ["b32"], [VALUES])
    assert np.array_equal(found.reshape(-1, 32), SHUFFLES[code](WARPS))


FRAGMENTS: dict[str, tuple[list[str], list[str], list[str], list[str]]] = {
    "m16n8k16": (
        ["g", "g", "g+8", "g+8", "g", "g", "g+8", "g+8"],
        ["q*2", "q*2+1", "q*2", "q*2+1", "q*2+8", "q*2+9", "q*2+8", "q*2+9"],
        ["q*2", "q*2+1", "q*2+8", "q*2+9"],
        ["g", "g+8"],
    ),
    "m16n8k8": (
        ["g", "g", "g+8", "g+8"],
        ["q*2", "q*2+1", "q*2", "q*2+1"],
        ["q*2", "q*2+1"],
        ["g", "g+8"],
    ),
    "m16n8k8.tf32": (
        ["g", "g+8", "g", "g+8"],
        ["q", "q", "q+4", "q+4"],
        ["q", "q+4"],
        ["g", "g+8"],
    ),
    "m16n8k4.tf32": (["g", "g+8"], ["q", "q"], ["q"], ["g", "g+8"]),
    "m8n8k4.f64": (["g"], ["q"], ["q"], ["g"]),
    "m16n8k32.s8": (
        [*["g"] * 4, *["g+8"] * 4, *["g"] * 4, *["g+8"] * 4],
        [f"q*4+{i + 16 * half}" for half in (0, 1) for _ in (0, 1) for i in range(4)],
        [f"q*4+{i + 16 * half}" for half in (0, 1) for i in range(4)],
        ["g", "g+8"],
    ),
}
"""Rows and columns of the numbers of A, rows of those of B, rows of the result, as the manual lists
them; g is the lane / 4, q the lane % 4."""

PRODUCTS = [
    ("m16n8k16", "f16", "f32"),
    ("m16n8k16", "bf16", "f32"),
    ("m16n8k8", "f16", "f32"),
    ("m16n8k8", "bf16", "f32"),
    ("m16n8k8.tf32", "tf32", "f32"),
    ("m16n8k4.tf32", "tf32", "f32"),
    ("m8n8k4.f64", "f64", "f64"),
    ("m16n8k32.s8", "s8", "s32"),
    ("m16n8k16", "f16", "f16"),
]


def _encoded(x: Array, kind: str) -> Array:
    """Small integers as bits of a type."""
    if kind == "bf16":
        return (x.astype("f4").view("u4") >> np.uint32(16)).astype("u2")
    number = {"tf32": "f4", "f32": "f4", "f16": "f2", "f64": "f8", "s8": "i1", "s32": "i4"}[kind]
    return x.astype(number).view(f"u{number[1]}")


def _places(expressions: list[str]) -> Array:
    lane = np.arange(32)
    names = {"g": lane // 4, "q": lane % 4}
    return np.stack([eval(text, {}, names) + 0 * lane for text in expressions], axis=1)


def _words(numbers: Array, kind: str) -> Array:
    """[lane, number] as registers [register][thread], the same in all warps."""
    bits = np.ascontiguousarray(_encoded(numbers, kind))
    words = bits.view("u8" if bits.itemsize == 8 else "u4")
    return [np.tile(words[:, i], COUNT // 32) for i in range(words.shape[1])]


@pytest.mark.parametrize(("shape", "kind", "sums"), PRODUCTS)
def test_products_of_tensor_cores(shape: str, kind: str, sums: str) -> None:
    rows, columns, b_rows, c_rows = FRAGMENTS[shape]
    m, k = int(shape[1:].split("n")[0]), int(shape.split(".")[0].split("k")[1])
    rng = np.random.default_rng(1)
    a, b, c = (rng.integers(-4, 5, s) for s in ((m, k), (k, 8), (m, 8)))
    lane = np.arange(32)
    c_rows = [row for row in c_rows for _ in (0, 1)]
    c_columns = np.stack([lane % 4 * 2 + i % 2 for i in range(len(c_rows))], axis=1)
    b_columns = np.broadcast_to((lane // 4)[:, None], (32, len(b_rows)))
    groups = [
        _words(a[_places(rows), _places(columns)], kind),
        _words(b[_places(b_rows), b_columns], kind),
        _words(c[_places(c_rows), c_columns], sums),
    ]
    operands = [x for group in groups for x in group]
    size = 64 if operands[0].itemsize == 8 else 32
    names = iter([f"%x{i}" for i in range(len(operands))])
    texts = ["{" + ", ".join(next(names) for _ in group) + "}" for group in groups]
    results = "{" + ", ".join(f"%r{i}" for i in range(len(groups[2]))) + "}"
    types = f"{sums}.{kind}.{kind}.{sums}"
    code = f"mma.sync.aligned.{shape.split('.')[0]}.row.col.{types} {results}, {', '.join(texts)};"
    expected = _words((a @ b + c)[_places(c_rows), c_columns], sums)
    for i, wanted in enumerate(expected):
        declared = f".reg .b{size} %r<{len(expected)}>;"
        found = execute(
            f"{code} mov.b{size} %d, %r{i};",
            f"b{size}",
            [f"b{size}"] * len(operands),
            operands,
            declared,
        )
        assert np.array_equal(found, wanted), i


def test_matrices_stored_and_loaded() -> None:
    """`ldmatrix.trans` of what `stmatrix` stored is the transposed matrix."""
    code = """
    mov.u32 %address, rows;
    shr.u32 %r0, %t, 5; mad.lo.u32 %address, %r0, 128, %address;
    and.b32 %r0, %t, 7; mad.lo.u32 %address, %r0, 16, %address;
    stmatrix.sync.aligned.m8n8.x1.shared.b16 [%address], {%x0};
    bar.warp.sync -1;
    ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%d}, [%address];
    """
    declared = ".reg .b32 %address; .reg .b32 %r0; .shared .align 16 .b8 rows[1024];"
    found = execute(code, "b32", ["b32"], [VALUES], declared)
    given = VALUES.view(np.uint16).reshape(-1, 8, 8)
    assert np.array_equal(found.view(np.uint16).reshape(-1, 8, 8), given.swapaxes(1, 2))


SHARED = ".shared .align 16 .b8 place[16]; .reg .b32 %address; mov.u32 %address, place;"
CLEARED = "setp.eq.u32 %p, %t, 0; @%p st.shared.b32 [%address], 0; bar.sync 0;"


def test_atomic_additions_count() -> None:
    code = f"{CLEARED} atom.shared.add.u32 %d, [%address], 1;"
    found = execute(code, "b32", ["b32"], [VALUES], SHARED)
    assert np.array_equal(np.sort(found), np.arange(COUNT))


def test_compare_and_swap() -> None:
    code = f"""{CLEARED} atom.shared.cas.b32 %d, [%address], 0, 7;
    bar.sync 0; ld.shared.b32 %x0, [%address]; add.u32 %d, %d, %x0;"""
    found = execute(code, "b32", ["b32"], [VALUES], SHARED)
    assert np.array_equal(np.sort(found), np.array([7] + [14] * (COUNT - 1)))


def test_floats_are_added_in_order_of_threads() -> None:
    values = np.random.default_rng(0).standard_normal(COUNT).astype(np.float32)
    code = f"""{CLEARED} red.shared.add.f32 [%address], %x0;
    bar.sync 0; ld.shared.b32 %d, [%address];"""
    found = execute(code, "b32", ["b32"], [values.view(np.uint32)], SHARED)
    total = np.float32(0)
    for x in values:
        total += x
    assert (found.view(np.float32) == total).all()


RACES = {
    "atomic and plain": f"""{CLEARED} atom.shared.add.u32 %d, [%address], 1;
        ld.shared.b32 %d, [%address];""",
    "all write": "st.shared.b32 [%address], %t; mov.b32 %d, 0;",
    "read, then written by a reader": f"""{CLEARED} ld.shared.b32 %d, [%address];
        setp.eq.u32 %p, %t, 9; @%p st.shared.b32 [%address], 1;""",
    "a barrier of a warp for a block": """mul.wide.u32 %wide, %t, 4; cvt.u32.u64 %r0, %wide;
        mov.u32 %address, places; add.u32 %r0, %r0, %address; st.shared.b32 [%r0], %t;
        bar.warp.sync -1; xor.b32 %r1, %t, 32; mad.lo.u32 %r1, %r1, 4, %address;
        ld.shared.b32 %d, [%r1];""",
}


@pytest.mark.parametrize("name", RACES)
def test_races(name: str) -> None:
    declared = f"""{SHARED} .shared .align 16 .b8 places[1024];
    .reg .b64 %wide; .reg .b32 %r<2>;"""
    with pytest.raises(ptx.DataRace):
        execute(RACES[name], "b32", ["b32"], [VALUES], declared)


def test_a_barrier_of_a_warp_orders_its_threads() -> None:
    declared = f"""{SHARED} .shared .align 16 .b8 places[1024];
    .reg .b64 %wide; .reg .b32 %r<2>;"""
    code = RACES["a barrier of a warp for a block"].replace("%t, 32;", "%t, 16;")
    found = execute(code, "b32", ["b32"], [VALUES], declared)
    assert np.array_equal(found, np.arange(COUNT) ^ 16)


def test_local_memory_by_generic_addresses() -> None:
    code = """mov.b64 %stack, depot; cvta.local.u64 %stack, %stack;
    and.b32 %r0, %t, 3; mad.wide.u32 %place, %r0, 4, %stack;
    st.local.v4.b32 [depot], {1, 2, 3, 4}; st.b32 [%place], %x0; ld.local.b32 %d, [depot+8];"""
    declared = """.local .align 16 .b8 depot[16]; .reg .b64 %stack; .reg .b64 %place;
    .reg .b32 %r0;"""
    found = execute(code, "b32", ["b32"], [VALUES], declared)
    assert np.array_equal(found, np.where(np.arange(COUNT) % 4 == 2, VALUES, 3))


def test_branches_by_index_and_loops_of_different_lengths() -> None:
    code = """
    mov.b32 %d, 0; and.b32 %r0, %t, 3;
    table: .branchtargets A, B, C, D;
    brx.idx %r0, table;
    A: add.u32 %d, %d, 1; bra.uni done;
    B: add.u32 %d, %d, 10; bra.uni done;
    C: add.u32 %d, %d, 100; bra.uni done;
    D: add.u32 %d, %d, 1000;
    done: setp.lt.u32 %p, %d, %t; @%p brx.idx %r0, table;
    """
    found = execute(code, "b32", ["b32"], [VALUES], ".reg .b32 %r0;")
    step = np.array([1, 10, 100, 1000])[np.arange(COUNT) % 4]
    assert np.array_equal(found, np.maximum(1, -(-np.arange(COUNT) // step)) * step)


def test_a_barrier_orders_reads_of_global_memory_before_a_write() -> None:
    code = """ld.global.b32 %d, [%base]; bar.sync 0;
    setp.eq.u32 %p, %t, 0; @%p st.global.b32 [%base], 5;"""
    declared = ".reg .b64 %base; ld.param.u64 %base, [in0];"
    found = execute(code, "b32", ["b32"], [VALUES], declared)
    assert (found == VALUES[0]).all()
    with pytest.raises(ptx.DataRace, match="no barrier"):
        execute(code.replace("bar.sync 0;", ""), "b32", ["b32"], [VALUES], declared)


FUNCTIONS = """
.version 7.0
.target sm_80
.address_size 64
.func (.param .b32 result) twice_if_even(.param .b32 x);
.func (.param .b32 result) plus_one(.param .b32 x) {
.reg .b32 %r1;
ld.param.b32 %r1, [x]; add.u32 %r1, %r1, 1; st.param.b32 [result], %r1; ret;
}
.func (.param .b32 result) twice_if_even(.param .b32 x) {
.reg .b32 %r1; .reg .pred %p;
ld.param.b32 %r1, [x]; and.b32 %r1, %r1, 1; setp.eq.u32 %p, %r1, 1;
ld.param.b32 %r1, [x]; st.param.b32 [result], %r1;
@%p ret;
{ .param .b32 given; .param .b32 back;
st.param.b32 [given], %r1; call.uni (back), plus_one, (given); ld.param.b32 %r1, [back]; }
shl.b32 %r1, %r1, 1; st.param.b32 [result], %r1; ret;
}
.visible .entry k(.param .u64 out) {
.reg .b32 %r1; .reg .b64 %a; .reg .b64 %b;
mov.u32 %r1, %tid.x;
{ .param .b32 given; .param .b32 back;
st.param.b32 [given], %r1; call.uni (back), twice_if_even, (given); ld.param.b32 %r1, [back]; }
{ .param .b32 given; .param .b32 back;
st.param.b32 [given], %r1; call.uni (back), plus_one, (given); ld.param.b32 %r1, [back]; }
ld.param.u64 %a, [out]; mov.u32 %r1, %r1;
mov.b64 %b, 0; cvt.u64.u32 %b, %tid.x; shl.b64 %b, %b, 2; add.u64 %a, %a, %b;
st.global.b32 [%a], %r1; ret;
}
"""


def test_functions_are_called() -> None:
    memory = ptx.GlobalMemory()
    out = memory.allocate(4 * 64)
    ptx.launch(ptx.prepare(ptx.parse(FUNCTIONS), "k"), (1, 1, 1), (64, 1, 1), [out], memory)
    x = np.arange(64)
    expected = np.where(x % 2, x, 2 * (x + 1)) + 1
    assert np.array_equal(memory.read(out, "u4", (64,)), expected)


def test_functions_that_call_themselves_are_refused() -> None:
    with pytest.raises(ptx.InvalidProgram, match="calls itself"):
        ptx.parse(FUNCTIONS.replace("(back), plus_one, (given)", "(back), twice_if_even, (given)"))
