"""Every op of the tensor IR natively, in every element type, against the reference evaluator."""

from __future__ import annotations

import numpy as np
import pytest
from harness import Native, build, check, machines

from mapsto import ir
from mapsto.ir.affine import AffineExpr, AffineMap, axis
from mapsto.ir.core import DenseArray, registered_ops
from mapsto.ir.dims import symbol
from mapsto.ir.ops.contraction import access, contract, reduce_axes
from mapsto.ir.ops.elementwise import Elementwise
from mapsto.ir.types import DType, TensorType
from mapsto.lowering.apart_rules import APART_RULES
from mapsto.lowering.element_rules import ELEMENT_RULES
from mapsto.lowering.kernels import STAGE_OPS
from mapsto.lowering.whole_kernels import WHOLE_KERNELS

n = symbol("n")
TYPES = [d for d in DType if d not in (DType.F16, DType.BF16)]
NATIVE = machines()[:1]
STRUCTURAL = {"kernel", "return"}
BUILT_IN = {n: r for n, r in registered_ops().items() if r.__module__.startswith("mapsto.ir.ops")}
EXPANDED = {name for name, record in BUILT_IN.items() if record.traits & ir.Trait.OPAQUE}
ELEMENTWISE = [
    (record, dtype)
    for record in BUILT_IN.values()
    if issubclass(record, Elementwise) and record is not ir.Cast
    for dtype in TYPES
    if dtype in (frozenset(DType) if record is ir.Select else record.accepts)
]


def test_every_op_is_lowered_or_expanded_before() -> None:
    covered = {record.name for record in (*ELEMENT_RULES, *STAGE_OPS, *APART_RULES)}
    assert covered | EXPANDED | STRUCTURAL >= set(BUILT_IN)


def test_traits_say_which_table_an_op_is_in() -> None:
    tables = {ir.Trait.APART: APART_RULES, ir.Trait.WHOLE: WHOLE_KERNELS}
    for trait, table in tables.items():
        records = {name for name, record in BUILT_IN.items() if record.traits & trait}
        assert records == {record.name for record in table} & BUILT_IN.keys()


@pytest.mark.parametrize(("record", "dtype"), ELEMENTWISE, ids=lambda v: getattr(v, "name", v))
def test_elementwise(record, dtype) -> None:
    arity = record.arity or 3
    types = [(dtype, (3, 37))] * arity
    if record is ir.Select:
        types[0] = (DType.BOOL, (3, 37))
    function = build("f", types, lambda b, *xs: b.emit(record, *xs))
    given = [_special(t[0], i) for i, t in enumerate(types)]
    check(function, given, on=NATIVE)


def _special(dtype: DType, seed: int) -> np.ndarray:
    """Ordinary values, with zeros, extremes and (for floats) nan and infinities among them."""
    generator = np.random.default_rng(seed)
    if dtype is DType.BOOL:
        return generator.integers(0, 2, (3, 37)).astype(bool)
    if dtype.is_float:
        values = generator.normal(size=(3, 37)).astype(dtype.numpy)
        values.flat[seed : seed + 5] = [0, 1, -1, np.nan, np.inf]
        return values
    info = np.iinfo(dtype.numpy)
    values = generator.integers(0 if info.min == 0 else -9, 10, (3, 37)).astype(dtype.numpy)
    values.flat[seed : seed + 3] = [0, info.min, info.max]
    return values


@pytest.mark.parametrize("source", TYPES, ids=str)
@pytest.mark.parametrize("target", TYPES, ids=str)
def test_cast(source: DType, target: DType) -> None:
    function = build("f", [(source, (3, 37))], lambda b, x: b.emit(ir.Cast, x, dtype=target))
    given = _special(source, 0)
    if source.is_float:
        given[np.isinf(given)] = 3e38
    check(function, [given], on=NATIVE)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_indexing(dtype: DType) -> None:
    def body(b, x, y):
        return [
            b.emit(ir.Broadcast, x, shape=(2, 5, 3, 19), dims=(1, 3)),
            b.emit(ir.Transpose, x, permutation=(1, 0)),
            b.emit(ir.Slice, x, starts=(4, 1), sizes=(3, 6), steps=(-2, 3)),
            b.emit(ir.Pad, x, low=(1, 0), high=(2, 3), value=1),
            b.emit(ir.Concat, x, y, x, axis=1),
            b.emit(ir.Reshape, x, shape=(19, 5)),
            b.emit(ir.Reshape, x, shape=(5, 1, 19)),
            b.emit(ir.Constant, value=1, type=TensorType(dtype, (4, 3))),
            x,
        ]

    check(build("f", [(dtype, (5, 19)), (dtype, (5, 2))], body), on=NATIVE)


@pytest.mark.parametrize("dtype", [d for d in TYPES if d is not DType.BOOL], ids=str)
def test_iota_and_dense_constants(dtype: DType) -> None:
    table = DenseArray(np.arange(12).reshape(3, 4).astype(dtype.numpy))

    def body(b, x):
        dense = b.emit(ir.Constant, value=table, type=TensorType(dtype, (3, 4)))
        iota = b.emit(ir.Iota, axis=1, type=TensorType(dtype, (3, 4)))
        return [b.emit(ir.Add, x, dense), iota, dense]

    check(build("f", [(dtype, (3, 4))], body), on=NATIVE)


@pytest.mark.parametrize("dtype", [DType.BF16, DType.F16], ids=str)
def test_half_types(dtype: DType) -> None:
    def body(b, x, y):
        wide = b.emit(ir.Cast, x, dtype=DType.F32)
        narrow = b.emit(ir.Cast, b.emit(ir.Exp, wide), dtype=dtype)
        total = reduce_axes(b, "sum", b.emit(ir.Mul, x, y), [1])
        return [b.emit(ir.Cast, v, dtype=DType.F32) for v in (narrow, total)]

    arguments = [(DType.F32, (4, 33)), (DType.F32, (4, 33))]

    def cast_body(b, x, y):
        return body(b, b.emit(ir.Cast, x, dtype=dtype), b.emit(ir.Cast, y, dtype=dtype))

    check(build("f", arguments, cast_body), tolerance=3e-2)


@pytest.mark.parametrize("size", [4, 33])
@pytest.mark.parametrize("dtype", [DType.BF16, DType.F16], ids=str)
def test_half_types_need_no_functions_of_a_runtime_library(dtype: DType, size: int) -> None:
    """Roundings, choices and positions: where LLVM likes to move conversions."""

    def body(b, given, positions):
        x = b.emit(ir.Cast, given, dtype=dtype)
        rounded = [b.emit(record, x) for record in (ir.Floor, ir.Ceil, ir.Round)]
        places = [b.emit(record, x, axis=0) for record in (ir.ArgMax, ir.ArgMin)]
        facts = {"shape": (size,), "axes": (0,), "index_rank": 1}
        scattered = [
            b.emit(record, x, positions, **facts) for record in (ir.ScatterMax, ir.ScatterMin)
        ]
        chosen = b.emit(ir.Select, b.emit(ir.Gt, x, rounded[0]), x, rounded[1])
        values = [*rounded, *scattered, chosen, reduce_axes(b, "max", x, [0])]
        return [*(b.emit(ir.Cast, v, dtype=DType.F32) for v in values), *places]

    function = build("f", [(DType.F32, (size,)), (DType.I32, (size,))], body)
    positions = np.arange(size, dtype=np.int32)[::-1] % 3
    exact = ((np.arange(size) - size // 2) / 4).astype(np.float32)
    check(function, [exact, positions])


@pytest.mark.parametrize("kind", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("dtype", [d for d in TYPES if d is not DType.BOOL], ids=str)
def test_reductions(kind: str, dtype: DType) -> None:
    def body(b, x):
        axes = [[2], [1], [0], [0, 1], [1, 2], [0, 2], [0, 1, 2]]
        return [reduce_axes(b, kind, x, a) for a in axes]

    check(build("f", [(dtype, (3, 5, 21))], body), on=NATIVE)


@pytest.mark.parametrize("dtype", [d for d in TYPES if d is not DType.BOOL], ids=str)
@pytest.mark.parametrize("record", [ir.ArgMax, ir.ArgMin], ids=lambda r: r.name)
def test_positions_of_extrema(record, dtype: DType) -> None:
    function = build(
        "f", [(dtype, (3, 37))], lambda b, x: [b.emit(record, x, axis=a) for a in (0, 1)]
    )
    check(function, [_special(dtype, 1)], on=NATIVE)
    check(function, [np.ones((3, 37), dtype.numpy)], on=NATIVE)


RANDOM_TYPES = [DType.U32, DType.I64, DType.F16, DType.BF16, DType.F32, DType.F64]


@pytest.mark.parametrize("dtype", RANDOM_TYPES, ids=str)
def test_random(dtype: DType) -> None:
    def body(b, key):
        types = [TensorType(dtype, shape) for shape in [(5, 13), (), (7,)]]
        numbers = [b.emit(ir.Random, key, stream=i << 31, type=t) for i, t in enumerate(types)]
        # bf16 is computed only: NumPy has no such arrays.
        return (
            numbers
            if dtype is not DType.BF16
            else [b.emit(ir.Cast, x, dtype=DType.F32) for x in numbers]
        )

    for key in (0, 12345678901234567, -1):
        check(build("f", [(DType.I64, ())], body), [np.array(key)])


@pytest.mark.parametrize("dtype", [DType.I64, DType.F32], ids=str)
def test_random_numbers_by_many_keys(dtype: DType) -> None:
    def body(b, keys):
        types = [TensorType(dtype, (3, 2, *shape)) for shape in [(5, 4), ()]]
        return [b.emit(ir.Random, keys, stream=7, type=t) for t in types]

    keys = np.arange(6).reshape(3, 2) * 2**40 - 2**41
    check(build("f", [(DType.I64, (3, 2))], body), [keys])


@pytest.mark.parametrize("dtype", [DType.F32, DType.I64, DType.U8], ids=str)
@pytest.mark.parametrize("index", [DType.I32, DType.I64, DType.U8], ids=str)
def test_gather_and_scatter(dtype: DType, index: DType) -> None:
    def body(b, table, i, j, updates):
        return [
            b.emit(ir.Gather, table, i, axes=(0,)),
            b.emit(ir.Gather, table, j, axes=(1,)),
            b.emit(ir.Gather, table, i, j, axes=(0, 1)),
            b.emit(ir.ScatterAdd, updates, i, axes=(0,), shape=(5, 19)),
        ]

    types = [(dtype, (5, 19)), (index, (4, 3)), (index, (4, 3)), (dtype, (4, 3, 19))]
    function = build("f", types, body)
    generator = np.random.default_rng(0)
    table = generator.integers(0, 50, (5, 19)).astype(dtype.numpy)
    updates = generator.integers(0, 50, (4, 3, 19)).astype(dtype.numpy)
    rows = generator.integers(0, 5, (4, 3)).astype(index.numpy)
    columns = generator.integers(0, 19, (4, 3)).astype(index.numpy)
    check(function, [table, rows, columns, updates], on=NATIVE)


@pytest.mark.parametrize("bad", [5, -1, 2**40])
@pytest.mark.parametrize("scatter", [False, True])
def test_an_index_out_of_range_is_an_error_code(bad: int, scatter: bool) -> None:
    def body(b, table, i):
        if scatter:
            return b.emit(ir.ScatterAdd, table, i, axes=(0,), shape=(5, 19))
        return b.emit(ir.Gather, table, i, axes=(0,))

    types = [(DType.F32, (4, 19) if scatter else (5, 19)), (DType.I64, (4,))]
    function = build("f", types, body)
    table = np.ones(function.arguments[0].shape, np.float32)
    for machine in machines():
        native = Native(function, machine)
        assert native([table, np.array([0, 1, bad, 2])]) == 1
        assert not isinstance(native([table, np.array([0, 1, 4, 2])]), int)


def test_accesses_outside_are_zero() -> None:
    def body(b, x, y):
        i, j = axis(0, 2), axis(1, 2)
        windowed = access(b, x, [i.scaled(2).shifted(-1), j.shifted(-3)], (6, 25))
        reversed_ = access(b, x, [i, j.scaled(-1).shifted(18)], (5, 19))
        product = contract(
            b,
            [x, y],
            [AffineMap(2, (i, j)), AffineMap(2, (i.shifted(1), j.scaled(3).shifted(-4)))],
            (5, 19),
            2,
        )
        return [windowed, reversed_, product]

    check(build("f", [(DType.F32, (5, 19)), (DType.F32, (5, 19))], body))


@pytest.mark.parametrize("kind", ["sum", "max", "min", "prod"])
def test_windows_take_the_identity_outside(kind: str) -> None:
    """A padded, strided pooling: positions outside do not take part."""
    dims = [axis(d, 4) for d in range(4)]
    p, q, r, s = dims
    rows = p.scaled(2) + r.shifted(-1)
    columns = q.scaled(2) + s.shifted(-1)

    def body(b, x):
        return contract(b, [x], [AffineMap(4, (rows, columns))], (4, 5, 3, 3), 2, kind)

    check(build("f", [(DType.F32, (8, 9))], body))


def test_convolution() -> None:
    """A heavy contraction with a padded access, and a small one that is a plain reduction."""

    def convolution(b, x, k, out):
        height, width = x.shape[2], x.shape[3]
        rank = 7
        d = [axis(i, rank) for i in range(rank)]
        image = (d[0], d[4], (d[2] + d[5]).shifted(-1), (d[3] + d[6]).shifted(-1))
        kernel = (d[1], d[4], d[5], d[6])
        extents = (x.shape[0], out, height, width, x.shape[1], 3, 3)
        return contract(b, [x, k], [AffineMap(rank, image), AffineMap(rank, kernel)], extents, 4)

    for channels, out, size in ((1, 2, 5), (3, 8, 12)):
        types = [(DType.F32, (n, channels, size, size)), (DType.F32, (out, channels, 3, 3))]
        function = build("f", types, lambda b, x, k, out=out: convolution(b, x, k, out))
        for batch in (1, 3):
            check(function, sizes={"n": batch})


def test_symbolic_coefficients_and_offsets() -> None:
    """A flattened index with a named size as its stride."""

    def body(b, x, y):
        i, j = axis(0, 2), axis(1, 2)
        return [access(b, x, [i.scaled(n) + j], (3, n)), b.emit(ir.Concat, y, y, axis=0)]

    function = build("f", [(DType.F32, (n * 3,)), (DType.F32, (n, 2))], body)
    for size in (1, 2, 7, 64):
        check(function, sizes={"n": size})


def test_fixed_elements_of_an_empty_axis_are_zero() -> None:
    """The first and the last element, of a tensor that has none."""

    def body(b, x, y):
        places = [AffineExpr((0,), 0), AffineExpr((0,), n - 1)]
        maps = [AffineMap(1, (axis(0, 1),)), *(AffineMap(1, (place,)) for place in places)]
        return contract(b, [y, x, x], maps, y.shape, 1)

    function = build("f", [(DType.F32, (n,)), (DType.F32, (symbol("m"),))], body)
    for size in (0, 1, 7):
        check(function, sizes={"n": size, "m": 5})
