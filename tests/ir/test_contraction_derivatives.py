"""Derivatives of contractions: transposes are contractions that only read, for every affine map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from derivative_checks import check_function, function_of, run, vjp_function
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mapsto import ir
from mapsto.ir import AffineExpr, AffineMap, DType
from mapsto.ir.passes.autodiff import expand_differentiation

F64 = DType.F64
Exprs = Sequence[tuple[Sequence[int], int]]


def affine(*exprs: tuple[Sequence[int], int]) -> AffineMap:
    """A map from pairs (coefficients, constant)."""
    return AffineMap(len(exprs[0][0]), tuple(AffineExpr(tuple(c), k) for c, k in exprs))


def plain(rank: int, *dims: int) -> AffineMap:
    return ir.projection(dims, rank)


def windows(rank: int, axes: Sequence[int | tuple[dict[int, int], int]]) -> AffineMap:
    """A map in which an axis is a dimension, or coefficients by dimension and a constant."""
    exprs = []
    for spec in axes:
        terms, constant = ({spec: 1}, 0) if isinstance(spec, int) else spec
        exprs.append(AffineExpr(tuple(terms.get(d, 0) for d in range(rank)), constant))
    return AffineMap(rank, tuple(exprs))


@dataclass(frozen=True)
class Case:
    """A contraction of operands of these shapes."""

    label: str
    shapes: tuple[tuple[int, ...], ...]
    maps: tuple[AffineMap, ...]
    extents: tuple[int, ...]
    rank: int
    kind: str = "sum"
    order: int = 2

    def function(self) -> ir.Function:
        def body(build: ir.Builder, *operands: ir.Value) -> ir.Value:
            return ir.contract(build, operands, self.maps, self.extents, self.rank, self.kind)

        return function_of("f", [ir.TensorType(F64, s) for s in self.shapes], body)

    def __str__(self) -> str:
        return self.label


def conv1d(size: int, taps: int, stride: int, pad: int, dilation: int, label: str) -> Case:
    """n = 2, c = 2, o = 3: out[n, o, p] = sum[c, r](x[n, c, s*p + d*r - pad] * k[o, c, r])."""
    out = (size + 2 * pad - dilation * (taps - 1) - 1) // stride + 1
    x = windows(5, [0, 3, ({2: stride, 4: dilation}, -pad)])
    shapes = (2, 2, size), (3, 2, taps)
    return Case(label, shapes, (x, plain(5, 1, 3, 4)), (2, 3, out, 2, taps), 3)


def conv2d(stride: int, pad: int, taps: int, size: int = 5) -> Case:
    out = (size + 2 * pad - taps) // stride + 1
    x = windows(7, [0, 4, ({2: stride, 5: 1}, -pad), ({3: stride, 6: 1}, -pad)])
    shapes = (1, 2, size, size), (2, 2, taps, taps)
    extents = (1, 2, out, out, 2, taps, taps)
    label = f"conv2d-stride{stride}-pad{pad}-taps{taps}"
    return Case(label, shapes, (x, plain(7, 1, 4, 5, 6)), extents, 4)


def pool(kind: str, size: int, taps: int, stride: int, pad: int) -> Case:
    out = (size + 2 * pad - taps) // stride + 1
    x = windows(5, [0, ({1: stride, 3: 1}, -pad), ({2: stride, 4: 1}, -pad)])
    label = f"pool-{kind}-taps{taps}-stride{stride}-pad{pad}"
    return Case(label, ((2, size, size),), (x,), (2, out, out, taps, taps), 3, kind)


def unary(label: str, shape: tuple[int, ...], map_: AffineMap, extents, rank, kind="sum") -> Case:  # type: ignore[no-untyped-def]
    return Case(label, (shape,), (map_,), extents, rank, kind)


CASES = [
    Case("matmul", ((3, 4), (4, 2)), (plain(3, 0, 2), plain(3, 2, 1)), (3, 2, 4), 2),
    Case(
        "batched",
        ((2, 3, 4), (2, 4, 5)),
        (plain(4, 0, 1, 3), plain(4, 0, 3, 2)),
        (2, 3, 5, 4),
        3,
    ),
    Case("inner", ((4,), (4,)), (plain(1, 0), plain(1, 0)), (4,), 0),
    Case("outer", ((3,), (4,)), (plain(2, 0), plain(2, 1)), (3, 4), 2),
    Case(
        "three-operands",
        ((3, 2), (2, 4), (4, 3)),
        (plain(4, 0, 2), plain(4, 2, 3), plain(4, 3, 1)),
        (3, 3, 2, 4),
        2,
    ),
    unary("sum-axis", (3, 4), plain(2, 0, 1), (3, 4), 1),
    unary("unread-dimension", (3,), plain(3, 0), (3, 2, 4), 2),
    unary("diagonal", (4, 4), plain(1, 0, 0), (4,), 1),
    unary("trace", (4, 4), plain(1, 0, 0), (4,), 0),
    unary("oblong-diagonal", (5, 3), plain(1, 0, 0), (5,), 1),
    unary("reversed", (5,), windows(1, [({0: -1}, 4)]), (5,), 1),
    unary("shifted", (5,), windows(1, [({0: 1}, -2)]), (6,), 1),
    unary("partial", (6,), plain(1, 0), (4,), 1),
    unary("beyond", (4,), plain(1, 0), (6,), 1),
    unary("strided", (7,), windows(1, [({0: 2}, 1)]), (3,), 1),
    unary("strided-reversed", (7,), windows(1, [({0: -2}, 6)]), (4,), 1),
    unary("one-row", (4, 3), windows(1, [({}, 2), 0]), (3,), 1),
    unary("row-outside", (4, 3), windows(1, [({}, 5), 0]), (3,), 1),
    unary("skewed", (4, 6), windows(2, [0, ({0: 1, 1: 1}, 0)]), (4, 3), 1),
    unary("windows-of-windows", (9,), windows(3, [({0: 2, 1: 1, 2: 1}, 0)]), (3, 2, 2), 1),
    unary("stride-4-step-2", (12,), windows(2, [({0: 4, 1: 2}, -1)]), (3, 3), 1),
    conv1d(8, 3, 1, 0, 1, "conv1d"),
    conv1d(8, 3, 1, 1, 1, "conv1d-pad"),
    conv1d(9, 3, 2, 1, 1, "conv1d-stride"),
    conv1d(9, 4, 2, 1, 1, "conv1d-stride-whole-phases"),
    conv1d(9, 2, 3, 0, 1, "conv1d-gaps"),
    conv1d(9, 3, 1, 2, 2, "conv1d-dilation"),
    conv1d(11, 3, 2, 1, 3, "conv1d-stride-dilation"),
    conv1d(11, 3, 2, 1, 2, "conv1d-stride-equal-dilation"),
    conv1d(20, 11, 5, 2, 1, "conv1d-many-phases"),
    conv2d(1, 1, 3),
    conv2d(2, 1, 3),
    conv2d(2, 0, 1),
    conv2d(2, 0, 2),
    Case(
        "grouped",
        ((1, 2, 2, 6), (2, 3, 2, 3)),
        (windows(6, [0, 1, 4, ({3: 1, 5: 1}, -1)]), plain(6, 1, 2, 4, 5)),
        (1, 2, 3, 6, 2, 3),
        4,
    ),
    Case(
        "depthwise",
        ((2, 3, 6), (3, 3)),
        (windows(4, [0, 1, ({2: 1, 3: 1}, -1)]), plain(4, 1, 3)),
        (2, 3, 6, 3),
        3,
    ),
    Case(
        "transposed-convolution",
        ((2, 4), (3,)),
        (windows(3, [0, ({1: 1, 2: -1}, 1)]), plain(3, 2)),
        (2, 4, 3),
        2,
    ),
    pool("max", 4, 2, 2, 0),
    pool("max", 5, 3, 2, 1),
    pool("min", 5, 3, 1, 1),
    pool("sum", 6, 2, 2, 0),
    Case(
        "max-plus-product",
        ((3, 4), (4, 2)),
        (plain(3, 0, 2), plain(3, 2, 1)),
        (3, 2, 4),
        2,
        "max",
    ),
    unary("prod", (3, 4), plain(2, 0, 1), (3, 4), 1, "prod"),
    unary("prod-of-one", (3, 1), plain(2, 0, 1), (3, 1), 1, "prod"),
    unary("prod-beyond", (3, 4), windows(2, [0, ({0: 1, 1: 1}, -1)]), (3, 3), 1, "prod"),
    Case(
        "prod-of-products",
        ((2, 3), (3,)),
        (plain(3, 0, 2), plain(3, 2)),
        (2, 2, 3),
        1,
        "prod",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_orders_1_and_2(case: Case) -> None:
    generator = np.random.default_rng(len(case.label))
    arguments = [generator.standard_normal(shape) for shape in case.shapes]
    check_function(case.function(), arguments, case.order)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_scatters(case: Case) -> None:
    names = {op.name for op in gradient(case.function(), range(len(case.shapes))).operations()}
    assert "scatter_add" not in names


def gradient(function: ir.Function, wrt: Sequence[int]) -> ir.Function:
    module = ir.Module.of(function, vjp_function("g", function, list(wrt)))
    return expand_differentiation(module)["g"]


def contractions(function: ir.Function) -> list[ir.Contract]:
    return [op for op in function.operations() if isinstance(op, ir.Contract)]


def test_matrix_product_gradients_are_matrix_products() -> None:
    g = gradient(CASES[0].function(), (0, 1))
    assert [op.name for op in g.operations()] == ["contract", "contract", "return"]
    assert all(m.is_projection for op in contractions(g) for m in op.maps)


def test_convolution_gradients_are_single_contractions() -> None:
    case = conv2d(1, 1, 3)
    g = gradient(case.function(), (0, 1))
    assert [op.name for op in g.operations()] == ["contract", "contract", "return"]
    reads = {str(m) for op in contractions(g) for m in op.maps}
    assert "(d0, d1, d2, d3, d4, d5, d6) -> (d0, d4, d2 - d5 + 1, d3 - d6 + 1)" in reads


def test_gradient_of_non_overlapping_windows_is_one_contraction() -> None:
    g = gradient(pool("sum", 6, 2, 2, 0).function(), (0,))
    assert len(contractions(g)) <= 1
    assert {op.name for op in g.operations()} <= {"contract", "broadcast", "reshape", "return"}


def test_gradient_of_a_sum_is_a_broadcast() -> None:
    g = gradient(unary("sum", (3, 4), plain(2, 0, 1), (3, 4), 0).function(), (0,))
    assert [op.name for op in g.operations()] == ["broadcast", "return"]


def test_strided_gradient_has_no_guards() -> None:
    g = gradient(conv2d(2, 1, 3).function(), (0,))
    assert len(contractions(g)) == 4
    assert all(len(op.operands) == 2 for op in contractions(g))


@pytest.mark.parametrize("zeros", [0, 1, 2, 4])
def test_product_is_differentiable_at_zeros(zeros: int) -> None:
    x = np.array([[1.5, -2.0, 0.5, 3.0]])
    x[0, :zeros] = 0
    case = unary("prod", (1, 4), plain(2, 0, 1), (1, 4), 1, "prod")
    check_function(case.function(), [x], 3, 1e-5)


def test_ties_of_a_maximum_share() -> None:
    case = unary("max", (2, 3), plain(2, 0, 1), (2, 3), 1, "max")
    f = case.function()
    module = ir.Module.of(f, vjp_function("g", f, [0]))
    (found,) = run(
        module, "g", [np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 2.0]]), np.array([1.0, 3.0])]
    )
    np.testing.assert_allclose(found, [[0.5, 0.5, 0], [1, 1, 1]])


def test_padding_takes_no_share_of_a_maximum() -> None:
    """The maximum of a window may be 0, which is also what a read outside gives."""
    case = pool("max", 2, 3, 1, 1)
    f = case.function()
    module = ir.Module.of(f, vjp_function("g", f, [0]))
    x = np.array([[[0.0, -1], [-2, -3]]] * 2)
    (found,) = run(module, "g", [x, np.ones((2, 2, 2))])
    np.testing.assert_allclose(found, [[[4, 0], [0, 0]]] * 2)


def test_windows_wholly_outside_have_no_gradient() -> None:
    case = unary("max", (2,), windows(2, [({0: 1, 1: 1}, 5)]), (2, 2), 1, "max")
    f = case.function()
    module = ir.Module.of(f, vjp_function("g", f, [0]))
    (found,) = run(module, "g", [np.zeros(2), np.ones(2)])
    np.testing.assert_array_equal(found, [0, 0])


SYMBOLIC = ["stride1", "stride2", "shifted-by-size", "unequal"]


@pytest.mark.parametrize("label", SYMBOLIC)
def test_named_sizes(label: str) -> None:
    """Gradients are taken before sizes are known; a read by symbolic constants included."""
    n, r = ir.symbol("n"), ir.symbol("r")
    extents, exprs = {
        "stride1": ((n - r + 1, r), (1, 1, 0)),
        "stride2": (((n - r) // 2 + 1, r), (2, 1, 0)),
        "shifted-by-size": ((n, r), (1, 1, 1 - r)),
        "unequal": ((n + r, r), (-1, 1, n)),
    }[label]
    maps = [AffineMap(2, (AffineExpr(exprs[:2], exprs[2]),)), plain(2, 1)]

    def body(build: ir.Builder, *operands: ir.Value) -> ir.Value:
        return ir.contract(build, operands, maps, extents, 1)

    function = function_of("f", [ir.TensorType(F64, (n,)), ir.TensorType(F64, (r,))], body)
    generator = np.random.default_rng(1)
    for sizes in (7, 3), (8, 4), (5, 1), (4, 4):
        check_function(function, [generator.standard_normal(size) for size in sizes], 2)


def test_symbolic_matrix_product_gradient_is_plain() -> None:
    n, k, m = (ir.symbol(name) for name in "nkm")
    maps = (plain(3, 0, 2), plain(3, 2, 1))

    def body(build: ir.Builder, *operands: ir.Value) -> ir.Value:
        return ir.contract(build, operands, maps, (n, m, k), 2)

    types = [ir.TensorType(F64, (n, k)), ir.TensorType(F64, (k, m))]
    g = gradient(function_of("f", types, body), (0, 1))
    assert [op.name for op in g.operations()] == ["contract", "contract", "return"]


@st.composite
def random_contractions(draw: st.DrawFn) -> Case:
    """Contractions of any affine maps: strides, reversals, reads outside, shared dimensions."""
    rank = draw(st.integers(1, 4))
    extents = tuple(draw(st.lists(st.integers(1, 5), min_size=rank, max_size=rank)))
    shapes, maps = [], []
    for _ in range(draw(st.integers(1, 3))):
        exprs = draw(st.lists(random_exprs(extents), min_size=0, max_size=3))
        shapes.append(tuple(size for _, size in exprs))
        maps.append(AffineMap(rank, tuple(expr for expr, _ in exprs)))
    result_rank = draw(st.integers(0, rank))
    return Case("random", tuple(shapes), tuple(maps), extents, result_rank)


@st.composite
def random_exprs(draw: st.DrawFn, extents: tuple[int, ...]) -> tuple[AffineExpr, int]:
    """An expression and the size of the axis that it reads."""
    rank = len(extents)
    if draw(st.booleans()):
        dim = draw(st.integers(0, rank - 1))
        size = max(1, extents[dim] + draw(st.integers(-1, 2)))
        return ir.axis(dim, rank).shifted(draw(st.integers(-1, 1))), size
    coefficients = draw(st.lists(st.integers(-3, 4), min_size=rank, max_size=rank))
    return AffineExpr(tuple(coefficients), draw(st.integers(-4, 6))), draw(st.integers(1, 9))


@settings(max_examples=150, deadline=None)
@given(random_contractions(), st.integers(0, 2**32 - 1))
def test_random_contractions_agree_with_their_transpose(case: Case, seed: int) -> None:
    """<c, f(.., t, ..)> is <pullback of c, t>: the sum is linear in each operand."""
    generator = np.random.default_rng(seed)
    arguments = [generator.standard_normal(shape) for shape in case.shapes]
    function = case.function()
    module = ir.Module.of(function, vjp_function("g", function, range(len(arguments))))
    (value,) = ir.evaluate(module, "f", arguments)
    cotangent = generator.standard_normal(value.shape)
    pulled = run(module, "g", [*arguments, cotangent])
    outer = np.sum(cotangent * value)
    for argument, gradient_ in zip(arguments, pulled, strict=True):
        np.testing.assert_allclose(np.sum(argument * gradient_), outer, rtol=1e-9, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(random_contractions(), st.sampled_from(["max", "min", "prod"]), st.integers(0, 2**32 - 1))
def test_random_reductions_of_other_kinds(case: Case, kind: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    arguments = [generator.standard_normal(shape) for shape in case.shapes]
    function = replace(case, kind=kind).function()
    (value,) = ir.evaluate(ir.Module.of(function), "f", arguments)
    # Windows without a single term give an infinite extremum, which has no finite difference.
    assume(np.isfinite(value).all())
    check_function(function, arguments, 1, 1e-5)


def torch_gradients(function, arguments, reference):  # type: ignore[no-untyped-def]
    """Pairs of gradients, found and expected, of a function and the same function in PyTorch."""
    torch = pytest.importorskip("torch")
    tensors = [torch.tensor(a, requires_grad=True) for a in arguments]
    out = reference(torch.nn.functional, *tensors)
    cotangent = np.random.default_rng(9).standard_normal(tuple(out.shape))
    out.backward(torch.tensor(cotangent))
    wrt = list(range(len(arguments)))
    module = ir.Module.of(function, vjp_function("g", function, wrt))
    (value,) = ir.evaluate(module, "f", arguments)
    np.testing.assert_allclose(value, out.detach().numpy(), rtol=1e-9, atol=1e-12)
    found = run(module, "g", [*arguments, cotangent])
    return [(a, tensor.grad.numpy()) for a, tensor in zip(found, tensors, strict=True)]


CONV1D = [(1, 1, 1, 3), (2, 1, 1, 3), (3, 0, 1, 2), (1, 2, 2, 3), (2, 1, 3, 3), (5, 2, 1, 11)]


@pytest.mark.oracle
@pytest.mark.parametrize(("stride", "pad", "dilation", "taps"), CONV1D)
def test_conv1d_gradients_are_those_of_torch(
    stride: int, pad: int, dilation: int, taps: int
) -> None:
    case = conv1d(20, taps, stride, pad, dilation, "oracle")
    arguments = [np.random.default_rng(taps).standard_normal(shape) for shape in case.shapes]
    options = {"stride": stride, "padding": pad, "dilation": dilation}
    pairs = torch_gradients(case.function(), arguments, lambda f, x, k: f.conv1d(x, k, **options))
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.oracle
@pytest.mark.parametrize(("stride", "pad", "taps"), [(1, 1, 3), (2, 1, 3), (2, 0, 1), (3, 2, 5)])
def test_conv2d_gradients_are_those_of_torch(stride: int, pad: int, taps: int) -> None:
    case = conv2d(stride, pad, taps, size=8)
    arguments = [np.random.default_rng(taps).standard_normal(shape) for shape in case.shapes]
    options = {"stride": stride, "padding": pad}
    pairs = torch_gradients(case.function(), arguments, lambda f, x, k: f.conv2d(x, k, **options))
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.oracle
@pytest.mark.parametrize(("taps", "stride", "pad"), [(2, 2, 0), (3, 2, 1), (3, 1, 1), (3, 3, 0)])
def test_max_pool_gradients_are_those_of_torch(taps: int, stride: int, pad: int) -> None:
    case = pool("max", 9, taps, stride, pad)
    arguments = [np.random.default_rng(taps).standard_normal(shape) for shape in case.shapes]
    options = {"stride": stride, "padding": pad}
    pairs = torch_gradients(
        case.function(), arguments, lambda f, x: f.max_pool2d(x, taps, **options)
    )
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
