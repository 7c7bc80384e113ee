"""An example of every op is well-formed, keeps its text, and evaluates to what is declared."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from mapsto import ir
from mapsto.ir.attributes import attribute_problems
from mapsto.ir.core import Module, Operation, Trait, registered_ops
from mapsto.ir.parser import parse_module
from mapsto.ir.passes.autodiff import expand_differentiation
from mapsto.ir.printer import module_text
from mapsto.ir.types import DType, TensorType
from mapsto.ir.value_check import random_inputs
from mapsto.ir.verifier import verify

Values = Sequence[ir.Value]
F32, I32, I64, BOOL = DType.F32, DType.I32, DType.I64, DType.BOOL
OPS = {n: op for n, op in registered_ops().items() if op.__module__.startswith("mapsto.")}
ELEMENTWISE = sorted(n for n, op in OPS.items() if op.traits & Trait.ELEMENTWISE)


def tensor(*shape: ir.Dim, dtype: DType = F32) -> TensorType:
    return TensorType(dtype, shape)


# ---- one well-typed application of each op that is not elementwise


def contract(b: ir.Builder, x: ir.Value, y: ir.Value) -> list[ir.Value]:
    maps = [ir.projection((0, 2), 3), ir.projection((2, 1), 3)]
    return [ir.contract(b, [x, y], maps, (2, 4, 3), 2)]


def kernel(b: ir.Builder, x: ir.Value) -> list[ir.Value]:
    inner = ir.Builder(ir.Block([x.type], ["x"]))
    block = inner.returning(inner.emit(ir.Exp, *inner.block.arguments), inner.block.arguments[0])
    return list(b.op(ir.Kernel, x, regions=[ir.Region(block)]).results)


def call(b: ir.Builder, x: ir.Value) -> list[ir.Value]:
    callee = ir.SymbolReference("square")
    return [b.emit(ir.Call, x, callee=callee, results=(x.type,))]


def custom_call(b: ir.Builder, x: ir.Value) -> list[ir.Value]:
    callee, gradient = ir.SymbolReference("square"), ir.SymbolReference("product")
    return [b.emit(ir.CustomCall, x, callee=callee, results=(x.type,), gradient=gradient)]


def remat_call(b: ir.Builder, x: ir.Value) -> list[ir.Value]:
    callee = ir.SymbolReference("square")
    return [b.emit(ir.RematCall, x, callee=callee, results=(x.type,))]


def remat_tangent(b: ir.Builder, t: ir.Value, x: ir.Value) -> list[ir.Value]:
    callee = ir.SymbolReference("square")
    return [b.emit(ir.RematTangent, t, x, callee=callee, wrt=(0,), called=(x.type,))]


def print_(b: ir.Builder, x: ir.Value) -> list[ir.Value]:
    b.op(ir.Print, x, text="x = {}")
    return [x]


def assert_(b: ir.Builder, x: ir.Value) -> list[ir.Value]:
    b.op(ir.Assert, b.constant(True, BOOL), message="x is wrong")
    return [x]


def barrier(b: ir.Builder, x: ir.Value, y: ir.Value) -> list[ir.Value]:
    return list(b.op(ir.Barrier, x, y).results)


def custom_tangent(b: ir.Builder, t: ir.Value, x: ir.Value) -> list[ir.Value]:
    gradient = ir.SymbolReference("product")
    attributes = {"gradient": gradient, "wrt": (0,), "output": 0, "cotangents": (x.type,)}
    return [b.emit(ir.CustomTangent, t, x, **attributes)]


def scan(b: ir.Builder, x: ir.Value, xs: ir.Value) -> list[ir.Value]:
    def step(inner: ir.Builder, carried: Values, slices: Values) -> tuple[Values, Values]:
        total = inner.emit(ir.Add, *carried, *slices)
        return [total], [inner.emit(ir.Mul, total, x)]

    finals, outputs = ir.scan(b, step, [x], [xs], reverse=True)
    return [*finals, *outputs]


def partition(b: ir.Builder, w: ir.Value, x: ir.Value, y: ir.Value) -> list[ir.Value]:
    inner = ir.Builder(ir.Block([tensor(3), tensor(1, 1, 3), tensor(1, 4, 3)], ["w", "x", "y"]))
    row, part, more = inner.block.arguments
    wide = inner.emit(ir.Broadcast, row, shape=(1, 1, 3), dims=(2,))
    last = inner.emit(ir.Slice, more, starts=(0, 3, 0), sizes=(1, 1, 3), steps=(1, 1, 1))
    product = inner.emit(ir.Mul, inner.emit(ir.Add, part, last), wide)
    region = ir.Region(inner.returning(product))
    return list(b.op(ir.Partition, w, x, y, regions=[region], constants=1, outer=(2, 4)).results)


def while_(b: ir.Builder, x: ir.Value, limit: ir.Value) -> list[ir.Value]:
    def condition(inner: ir.Builder, carried: Values) -> Values:
        return [inner.emit(ir.Lt, carried[1], limit)]

    def step(inner: ir.Builder, carried: Values) -> Values:
        count = inner.emit(ir.Add, carried[1], inner.like(1, limit))
        return [inner.emit(ir.Mul, carried[0], x), count]

    return list(ir.while_loop(b, condition, step, [x, b.like(0, limit)]))


def if_(b: ir.Builder, condition: ir.Value, x: ir.Value) -> list[ir.Value]:
    return list(ir.branch(b, condition, lambda i: [i.emit(ir.Exp, x)], lambda _: [x]))


def derivative(record: type[Operation]) -> Callable[..., list[ir.Value]]:
    def body(b: ir.Builder, x: ir.Value, d: ir.Value) -> list[ir.Value]:
        attributes = {"callee": ir.SymbolReference("square"), "results": (x.type, x.type)}
        return list(b.op(record, x, d, **attributes, wrt=(0,), outputs=(0,)).results)

    return body


def one(record: type[Operation], **attributes: object) -> Callable[..., list[ir.Value]]:
    def body(b: ir.Builder, *operands: ir.Value) -> list[ir.Value]:
        return [b.emit(record, *operands, **attributes)]

    return body


X, INDEX = tensor(2, 3), tensor(4, dtype=I32)
ARRAY = ir.DenseArray(np.arange(6, dtype=np.float32).reshape(2, 3))
EXAMPLES: dict[str, tuple[Callable[..., list[ir.Value]], list[TensorType]]] = {
    "constant": (one(ir.Constant, value=ARRAY, type=X), []),
    "iota": (one(ir.Iota, axis=1, type=tensor(2, 3, dtype=I32)), []),
    "broadcast": (one(ir.Broadcast, shape=(2, 5, 3), dims=(0, 2)), [X]),
    "transpose": (one(ir.Transpose, permutation=(1, 0)), [X]),
    "reshape": (one(ir.Reshape, shape=(3, 2)), [X]),
    "slice": (one(ir.Slice, starts=(1, 2), sizes=(1, 3), steps=(1, -1)), [X]),
    "pad": (one(ir.Pad, low=(1, 0), high=(0, 2), value=1.5), [X]),
    "concat": (one(ir.Concat, axis=0), [X, X]),
    "contract": (contract, [X, tensor(3, 4)]),
    "gather": (one(ir.Gather, axes=(0,)), [tensor(5, 3), INDEX]),
    "scatter_add": (one(ir.ScatterAdd, axes=(0,), shape=(5, 3)), [tensor(4, 3), INDEX]),
    "scatter_max": (one(ir.ScatterMax, axes=(0,), shape=(5, 3)), [tensor(4, 3), INDEX]),
    "scatter_min": (one(ir.ScatterMin, axes=(0,), shape=(5, 3)), [tensor(4, 3), INDEX]),
    "dynamic_update": (
        one(ir.DynamicUpdate, axes=(1,)),
        [X, tensor(2, 1), tensor(dtype=I32)],
    ),
    "cumulative": (one(ir.Cumulative, kind="max", axis=1, reverse=True), [X]),
    "recurrence": (one(ir.Recurrence, axis=0), [X, X]),
    "argsort": (one(ir.ArgSort, axis=1, count=2, descending=True), [X]),
    "argmax": (one(ir.ArgMax, axis=1), [X]),
    "argmin": (one(ir.ArgMin, axis=0), [X]),
    "random": (one(ir.Random, stream=3, type=X), [tensor(dtype=I64)]),
    "kernel": (kernel, [X]),
    "scan": (scan, [X, tensor(4, 2, 3)]),
    "partition": (partition, [tensor(3), tensor(2, 4, 3), tensor(2, 4, 3)]),
    "while": (while_, [X, tensor(dtype=I32)]),
    "if": (if_, [tensor(dtype=BOOL), X]),
    "call": (call, [X]),
    "custom_call": (custom_call, [X]),
    "remat_call": (remat_call, [X]),
    "remat_tangent": (remat_tangent, [X, X]),
    "print": (print_, [X]),
    "assert": (assert_, [X]),
    "barrier": (barrier, [X, INDEX]),
    "custom_tangent": (custom_tangent, [X, X]),
    "jvp": (derivative(ir.Jvp), [X, X]),
    "vjp": (derivative(ir.Vjp), [X, X]),
}


def elementwise_module(record: type[Operation], dtype: DType) -> Module:
    types = [tensor(2, 3, dtype=dtype)] * (record.arity or 1)
    if record is ir.Select:
        types[0] = types[0].with_dtype(BOOL)
    attributes = {"dtype": DType.F64} if record is ir.Cast else {}
    return module_of(one(record, **attributes), types)


def module_of(body: Callable[..., list[ir.Value]], types: list[TensorType]) -> Module:
    """The function `f` of that body, with functions for it to refer to."""
    build = ir.Builder(ir.Block(types, [f"x{i}" for i in range(len(types))]))
    f = ir.finish_function("f", build, body(build, *build.block.arguments))
    return Module.of(f, multiplication("square", [X]), multiplication("product", [X, X]))


def multiplication(name: str, types: list[TensorType]) -> ir.Function:
    build = ir.Builder(ir.Block(types))
    arguments = build.block.arguments
    return ir.finish_function(name, build, [build.emit(ir.Mul, arguments[0], arguments[-1])])


def example(name: str) -> Module:
    if name in EXAMPLES:
        return module_of(*EXAMPLES[name])
    return elementwise_module(OPS[name], BOOL if BOOL in OPS[name].accepts else F32)


NAMES = sorted(OPS.keys() - {"return"})


def test_every_op_has_an_example() -> None:
    assert {*EXAMPLES, *ELEMENTWISE, "return"} == OPS.keys()


@pytest.mark.parametrize("name", NAMES)
def test_the_example_is_well_formed_and_round_trips(name: str) -> None:
    module = example(name)
    verify(module)
    (op, *_) = [op for op in module["f"].operations() if op.name == name]
    assert not list(attribute_problems(type(op), op.attributes))
    text = module_text(module)
    again = parse_module(text)
    verify(again)
    assert module_text(again) == text


TRANSPOSED = {"remat_tangent"}
"""Stands nowhere but in what is about to be transposed."""


@pytest.mark.parametrize("name", sorted({*NAMES} - TRANSPOSED))
def test_evaluation_gives_the_declared_types(name: str) -> None:
    check_evaluation(expand_differentiation(example(name)))


CASES = [(n, d) for n in ELEMENTWISE for d in DType if d in OPS[n].accepts or n == "select"]


@pytest.mark.parametrize(("name", "dtype"), CASES, ids=lambda x: str(x))
def test_evaluation_in_every_element_type(name: str, dtype: DType) -> None:
    check_evaluation(elementwise_module(OPS[name], dtype))


def check_evaluation(module: Module) -> None:
    function = module["f"]
    arguments = random_inputs([v.type for v in function.arguments], seed=0)
    results = ir.evaluate(module, "f", arguments)
    for value, array in zip(function.results, results, strict=True):
        assert array.dtype == value.dtype.numpy
        assert array.shape == value.shape


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_element_types_are_checked(name: str) -> None:
    for dtype in set(DType) - OPS[name].accepts:
        if name != "select":
            with pytest.raises(ir.TypeRuleError, match=f"{name} is not defined on {dtype}"):
                elementwise_module(OPS[name], dtype)
