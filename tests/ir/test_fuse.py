"""The structure of kernels: how many there are, what shares one, what is never computed twice."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from training_step import training_step

from mapsto import ir
from mapsto.ir.core import Function, Module, Value
from mapsto.ir.dims import symbol
from mapsto.ir.ops.contraction import Contract, contract, reduce_axes
from mapsto.ir.ops.control import Kernel
from mapsto.ir.passes.contractions import Contractions
from mapsto.ir.passes.cse import EliminateCommonSubexpressions
from mapsto.ir.passes.dce import EliminateDeadCode
from mapsto.ir.passes.differentiate import Differentiate
from mapsto.ir.passes.fuse import Fuse
from mapsto.ir.passes.inline import Inline
from mapsto.ir.stages import is_heavy
from mapsto.ir.types import DType, TensorType

F32 = DType.F32
n = symbol("n")


def build(body, *shapes) -> Function:
    """A function of f32 tensors of these shapes."""
    types = [TensorType(F32, s) for s in shapes]
    builder = ir.Builder(ir.Block(types, [f"x{i}" for i in range(len(types))]))
    results = body(builder, *builder.block.arguments)
    results = results if isinstance(results, list) else [results]
    return ir.finish_function("f", builder, results)


def kernels(function: Function, sizes=None) -> list[Kernel]:
    """The kernels of the function; checks that they compute what the function does."""
    module = Module.of(function)
    fused = Fuse().run(module)
    generator = np.random.default_rng(0)
    shapes = [[ir.dim_value(d, sizes or {"n": 3}) for d in a.shape] for a in function.arguments]
    arrays = [generator.normal(size=shape).astype(np.float32) for shape in shapes]
    expected = ir.evaluate(module, function.name, arrays)
    actual = ir.evaluate(fused, function.name, arrays)
    for left, right in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(left, right)
    operations = fused[function.name].block.operations
    assert {op.name for op in operations} <= {"kernel", "reshape", "constant", "return"}
    return [op for op in operations if isinstance(op, Kernel)]


def names(kernel: Kernel) -> Counter[str]:
    """How often each op occurs in a kernel."""
    return Counter(op.name for op in kernel.regions[0].block.operations)


def spread(b: ir.Builder, row: Value, like: Value, axis: int = 0) -> Value:
    return b.emit(ir.Broadcast, row, shape=like.shape, dims=(axis,))


def softmax(b: ir.Builder, x: Value) -> Value:
    top = reduce_axes(b, "max", x, [1])
    e = b.emit(ir.Exp, b.emit(ir.Sub, x, spread(b, top, x)))
    return b.emit(ir.Div, e, spread(b, reduce_axes(b, "sum", e, [1]), x))


def layer_norm(b: ir.Builder, x: Value, gain: Value) -> Value:
    count = b.constant(1 / 512, F32, (x.shape[0],))
    mean = b.emit(ir.Mul, reduce_axes(b, "sum", x, [1]), count)
    centered = b.emit(ir.Sub, x, spread(b, mean, x))
    square = b.emit(ir.Mul, centered, centered)
    variance = b.emit(ir.Mul, reduce_axes(b, "sum", square, [1]), count)
    scale = b.emit(ir.Rsqrt, b.emit(ir.Add, variance, b.like(1e-5, variance)))
    return b.emit(ir.Mul, b.emit(ir.Mul, centered, spread(b, scale, x)), spread(b, gain, x, 1))


def matmul(b: ir.Builder, x: Value, w: Value) -> Value:
    maps = [ir.projection((0, 2), 3), ir.projection((2, 1), 3)]
    return contract(b, [x, w], maps, (x.shape[0], w.shape[1], x.shape[1]), 2)


def test_elementwise_ops_are_one_kernel() -> None:
    def body(b, x, y):
        s = b.emit(ir.Add, x, y)
        return [b.emit(ir.Mul, s, x), b.emit(ir.Exp, s), b.emit(ir.Sub, s, y)]

    (kernel,) = kernels(build(body, (n, 64), (n, 64)))
    assert len(kernel.results) == 3


@pytest.mark.parametrize("rows", [4, 4096, n])
def test_softmax_is_one_kernel_with_one_exponential(rows) -> None:
    (kernel,) = kernels(build(softmax, (rows, 512)))
    assert names(kernel)["exp"] == 1


def test_softmax_along_columns_is_one_kernel() -> None:
    def body(b, x):
        top = reduce_axes(b, "max", x, [0])
        e = b.emit(ir.Exp, b.emit(ir.Sub, x, spread(b, top, x, 1)))
        return b.emit(ir.Div, e, spread(b, reduce_axes(b, "sum", e, [0]), x, 1))

    assert len(kernels(build(body, (64, 512)))) == 1


def test_layer_norm_is_one_kernel() -> None:
    assert len(kernels(build(layer_norm, (n, 512), (512,)))) == 1


def test_bias_activation_and_residual_join_a_contraction() -> None:
    def body(b, x, w, bias, r):
        z = matmul(b, x, w)
        z = b.emit(ir.Tanh, b.emit(ir.Add, z, spread(b, bias, z, 1)))
        return b.emit(ir.Add, z, r)

    (kernel,) = kernels(build(body, (n, 64), (64, 128), (128,), (n, 128)))
    assert len(kernel.results) == 1


def test_two_contractions_never_share_a_kernel() -> None:
    def body(b, x, w):
        return matmul(b, b.emit(ir.Exp, matmul(b, x, w)), w)

    first, second = kernels(build(body, (n, 64), (64, 64)))
    assert names(first) == {"contract": 1, "exp": 1, "return": 1}
    assert names(second) == {"contract": 1, "return": 1}


def test_cheap_work_on_an_argument_is_done_while_a_contraction_reads_it() -> None:
    def body(b, x, w):
        return matmul(b, b.emit(ir.Mul, x, b.like(1 / 16, x)), w)

    (kernel,) = kernels(build(body, (n, 64), (64, 128)))
    assert names(kernel)["mul"] == 1


def test_an_expensive_operand_of_a_contraction_is_computed_once() -> None:
    def body(b, x, w):
        return matmul(b, b.emit(ir.Exp, x), w)

    first, second = kernels(build(body, (n, 64), (64, 128)))
    assert (names(first)["exp"], names(second)["exp"]) == (1, 0)


def test_an_expensive_value_is_not_repeated_along_a_broadcast() -> None:
    """exp(b) is computed for each of the 512 columns, not for each element."""

    def body(b, x, c):
        return b.emit(ir.Add, x, spread(b, b.emit(ir.Exp, c), x, 1))

    assert [names(k)["exp"] for k in kernels(build(body, (n, 512), (512,)))] == [1, 0]


def test_a_small_contraction_is_a_reduction_among_others() -> None:
    def body(b, x, w):
        z = matmul(b, x, w)
        return b.emit(ir.Exp, z)

    assert len(kernels(build(body, (4, 8), (8, 3)))) == 1


def test_a_column_sum_joins_the_update_that_uses_it() -> None:
    def body(b, g, p):
        return b.emit(ir.Sub, p, reduce_axes(b, "sum", g, [0]))

    assert len(kernels(build(body, (n, 512), (512,)))) == 1


def test_a_reshape_that_merges_axes_is_a_view() -> None:
    def body(b, x, w):
        y = b.emit(ir.Exp, x)
        return matmul(b, b.emit(ir.Reshape, y, shape=(n, 784)), w)

    assert len(kernels(build(body, (n, 28, 28), (784, 64)))) == 2


def test_a_reshape_that_splits_an_axis_is_index_arithmetic() -> None:
    def body(b, x, y):
        split = b.emit(ir.Reshape, x, shape=(n, 4, 8))
        return b.emit(ir.Add, b.emit(ir.Exp, split), y)

    (kernel,) = kernels(build(body, (n, 32), (n, 4, 8)))
    assert names(kernel)["reshape"] == 1


def test_kernels_do_not_depend_on_each_other_in_a_circle() -> None:
    """The second elementwise op may not join the first around the contraction between them."""

    def body(b, x, w):
        first = b.emit(ir.Exp, x)
        second = b.emit(ir.Add, first, matmul(b, first, w))
        return [b.emit(ir.Mul, second, first), first]

    assert len(kernels(build(body, (n, 64), (64, 64)))) == 2


def test_results_have_memory_of_their_own() -> None:
    """What is returned twice is written twice; an argument and another view are copied."""

    def body(b, x):
        y = b.emit(ir.Exp, x)
        return [y, x, y]

    def views(b, x):
        y = b.emit(ir.Exp, x)
        return [y, b.emit(ir.Reshape, y, shape=(8 * n,))]

    assert [len(k.results) for k in kernels(build(body, (n, 8)))] == [2, 1]
    assert [len(k.results) for k in kernels(build(views, (n, 8)))] == [1, 1]


def optimized(module: Module) -> Module:
    for step in (
        Differentiate(),
        Inline(),
        Contractions(),
        EliminateCommonSubexpressions(),
        Contractions(),
        EliminateDeadCode(),
    ):
        module = step.run(module)
    return module


@pytest.mark.parametrize("batch", [64, n])
def test_the_training_step_of_an_mlp_takes_nine_kernels(batch) -> None:
    """Forward: two products and the softmax cross entropy with its gradient.  Backward: one product
    to the hidden layer.  Updates: one kernel for each parameter, with its gradient and Adam.  Loss
    and step count: one of scalars."""
    step = optimized(training_step(batch))["step"]
    fused = Fuse().run(Module.of(step))["step"]
    found = [op for op in fused.block.operations if isinstance(op, Kernel)]
    assert len(found) == 9
    heavy = [k for k in found if any(_is_product(op) for op in k.regions[0].block.operations)]
    assert len(heavy) == 5
    assert sum(names(k)["exp"] for k in found) == 1
    assert sum(names(k)["sqrt"] for k in found) == 4


def _is_product(op: ir.Operation) -> bool:
    return isinstance(op, Contract) and len(op.operands) == 2


def test_a_depthwise_convolution_is_one_kernel_with_what_follows() -> None:
    """Each result is a few products that no other shares: rows, not a packed product."""

    def body(b, x, k):
        window = ir.AffineMap(4, (ir.axis(0, 4), ir.axis(1, 4), ir.axis(2, 4) + ir.axis(3, 4)))
        y = contract(b, [x, k], [window, ir.projection([1, 3], 4)], (4, 32, 64, 3), 3)
        assert not is_heavy(y.owner)
        return reduce_axes(b, "max", b.emit(ir.Exp, y), [2])

    assert len(kernels(build(body, (4, 32, 66), (32, 3)))) == 1
