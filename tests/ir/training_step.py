"""The training step of a digits classifier, built by hand: MLP, cross entropy, Adam in place."""

from __future__ import annotations

from collections.abc import Sequence

from mapsto import ir
from mapsto.ir.core import Function, Module, SymbolReference, Value
from mapsto.ir.dims import Dim
from mapsto.ir.types import DType, TensorType

F32 = DType.F32
NAMES = ("w1", "b1", "w2", "b2")


DIGITS = [(64, 128), (128,), (128, 10), (10,)]
"""The shapes of the parameters."""


def dense(b: ir.Builder, x: Value, w: Value, bias: Value) -> Value:
    maps = [ir.projection((0, 2), 3), ir.projection((2, 1), 3)]
    z = ir.contract(b, [x, w], maps, (x.shape[0], w.shape[1], x.shape[1]), 2)
    return b.emit(ir.Add, z, b.emit(ir.Broadcast, bias, shape=z.shape, dims=(1,)))


def spread(b: ir.Builder, row: Value, like: Value) -> Value:
    return b.emit(ir.Broadcast, row, shape=like.shape, dims=(0,))


def cross_entropy(b: ir.Builder, logits: Value, labels: Value) -> Value:
    """The mean over rows of log(sum(exp(logits))) - logits[label]."""
    top = b.emit(ir.StopGradient, ir.reduce_axes(b, "max", logits, [1]))
    shifted = b.emit(ir.Sub, logits, spread(b, top, logits))
    total = ir.reduce_axes(b, "sum", b.emit(ir.Exp, shifted), [1])
    columns = b.emit(ir.Iota, axis=1, type=TensorType(DType.I32, logits.shape))
    chosen = b.emit(ir.Eq, columns, spread(b, labels, logits))
    picked = b.emit(ir.Select, chosen, shifted, b.like(0, logits))
    losses = b.emit(ir.Sub, b.emit(ir.Log, total), ir.reduce_axes(b, "sum", picked, [1]))
    mean = ir.reduce_axes(b, "sum", losses, [0])
    return b.emit(ir.Mul, mean, b.constant(1 / 64, F32))


def loss_function(batch: Dim, sizes: Sequence[tuple[int, ...]]) -> Function:
    types = [TensorType(F32, s) for s in sizes]
    types += [TensorType(F32, (batch, sizes[0][0])), TensorType(DType.I32, (batch,))]
    b = ir.Builder(ir.Block(types, [*NAMES, "x", "labels"]))
    w1, b1, w2, b2, x, labels = b.block.arguments
    z = dense(b, x, w1, b1)
    positive = b.emit(ir.Gt, z, b.like(0, z))
    hidden = b.emit(ir.Select, positive, z, b.like(0, z))
    return ir.finish_function("loss", b, [cross_entropy(b, dense(b, hidden, w2, b2), labels)])


def adam(b: ir.Builder, p: Value, g: Value, m: Value, v: Value, t: Value) -> list[Value]:
    """Adam as in the standard library, for one parameter; `t` counts steps from 1."""

    def scaled(x: Value, factor: float) -> Value:
        return b.emit(ir.Mul, x, b.like(factor, x))

    def corrected(x: Value, beta: float) -> Value:
        one = b.constant(1, F32)
        rest = b.emit(ir.Sub, one, b.emit(ir.Pow, b.constant(beta, F32), t))
        return b.emit(ir.Div, x, b.emit(ir.Broadcast, rest, shape=x.shape, dims=()))

    new_m = b.emit(ir.Add, scaled(m, 0.9), scaled(g, 0.1))
    new_v = b.emit(ir.Add, scaled(v, 0.999), scaled(b.emit(ir.Mul, g, g), 0.001))
    root = b.emit(ir.Sqrt, corrected(new_v, 0.999))
    step = b.emit(ir.Div, corrected(new_m, 0.9), b.emit(ir.Add, root, b.like(1e-8, root)))
    return [b.emit(ir.Sub, p, scaled(step, 1e-2)), new_m, new_v]


def training_step(batch: Dim = 64, sizes: Sequence[tuple[int, ...]] = DIGITS) -> Module:
    """Functions `loss` and `step`: parameters, moments, t, x, labels -> loss and all updated."""
    loss = loss_function(batch, sizes)
    parameters = [TensorType(F32, s) for s in sizes]
    types = [*parameters, *parameters, *parameters, TensorType(F32)]
    types += [argument.type for argument in loss.arguments[4:]]
    hints = [*NAMES, *(f"{k}_{n}" for k in "mv" for n in NAMES), "t", "x", "labels"]
    b = ir.Builder(ir.Block(types, hints))
    arguments = b.block.arguments
    p, m, v, t = arguments[:4], arguments[4:8], arguments[8:12], arguments[12]
    given = [*p, *arguments[13:], b.constant(1, F32)]
    results = (loss.results[0].type, *parameters)
    request = b.op(
        ir.Vjp,
        *given,
        callee=SymbolReference("loss"),
        results=results,
        wrt=(0, 1, 2, 3),
        outputs=(0,),
    )
    value, *gradients = request.results
    t2 = b.emit(ir.Add, t, b.constant(1, F32))
    updates = [adam(b, *args, t2) for args in zip(p, gradients, m, v, strict=True)]
    columns = [update[i] for i in range(3) for update in updates]
    aliases = tuple((1 + i, i) for i in range(13))
    step = ir.finish_function("step", b, [value, *columns, t2], {"aliases": aliases})
    return Module.of(loss, step)
