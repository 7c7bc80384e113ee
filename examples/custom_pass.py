"""A rewrite rule and an op of a user's own; no file of the project knows of them.

    python examples/custom_pass.py
    mapsto ir examples/custom_pass.mto:bumps --plugin examples/custom_pass.py \
        --passes default,product-of-exponentials,dce

The first prints the IR before and after the rewrite, in which one exponential is left of two; how
far native code is from the reference evaluator, and its gradient from a formula, both less than
1e-6; and how two wrong rewrites are caught and named.  It takes a second.  The second prints the
same IR from the command line.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

import mapsto as mt
from mapsto import ir
from mapsto.lowering.loops import Expression, apply, constant

PROGRAM = Path(__file__).with_suffix(".mto")


# A rewrite: the ops that it matches, and what it puts in their place.


@mt.rewrite
def product_of_exponentials(op: ir.Mul, rewriter: mt.Rewriter) -> ir.Value | None:
    """exp(x) * exp(y) = exp(x + y), where nothing else needs the factors."""
    first, second = (value.defining_op for value in op.operands)
    if not (isinstance(first, ir.Exp) and isinstance(second, ir.Exp)):
        return None
    if first is second or not all(map(rewriter.used_once, op.operands)):
        return None
    return rewriter.emit(ir.Exp, rewriter.emit(ir.Add, first.operands[0], second.operands[0]))


# An op: its meaning, its derivative, its native code.


class Squash(ir.FloatUnary):
    """x / (1 + |x|)."""

    name = "squash"

    def evaluate(self, *operands: ir.Array) -> Sequence[ir.Array]:
        (x,) = operands
        return (x / (1 + np.abs(x)),)

    def partials(self, build: ir.Builder, result: ir.Value) -> Sequence[ir.Value | None]:
        (x,) = self.operands
        root = build.emit(ir.Add, build.like(1, x), build.emit(ir.Abs, x))
        return [ir.reciprocal(build, build.emit(ir.Mul, root, root))]


@mt.scalar_rule(Squash)
def squash(x: Expression) -> Expression:
    """How native code computes an element of the result."""
    return x / (constant(1, x.type) + apply("abs", x))


# Two rewrites with a mistake.


@mt.rewrite
def wrong_value(op: ir.Exp, rewriter: mt.Rewriter) -> ir.Value:
    """exp(x) = 1 + x, which holds near 0 only."""
    (x,) = op.operands
    return rewriter.emit(ir.Add, rewriter.constant_like(1, x), x)


@mt.rewrite
def wrong_type(op: ir.Exp, rewriter: mt.Rewriter) -> ir.Value:
    """exp(x), but as an f16."""
    narrow = rewriter.emit(ir.Cast, *op.operands, dtype=ir.DType.F16)
    return rewriter.emit(ir.Exp, narrow)


def main() -> None:
    """Prints what the head of this file promises."""
    lib = mt.load(PROGRAM)
    passes = "default,product-of-exponentials,dce"
    bumps, slope = lib.bumps.with_passes(passes), mt.grad(lib.height).with_passes(passes)
    types = {"x": mt.f32["n"], "y": mt.f32["n"]}
    print("before:", lib.bumps.ir(**types), "after:", bumps.ir(**types), sep="\n")

    x, y = np.random.default_rng(0).normal(size=(2, 1000)).astype(np.float32)
    bell, root = np.exp(-x * x - y * y), 1 + np.abs(x)
    expected_slope = bell * (1 / root**2 - 2 * x * x / root)
    print(f"value: {np.abs(bumps(x, y) - bumps.reference(x, y)).max():.1e} from the reference")
    print(f"gradient: {np.abs(slope(x, y) - expected_slope).max():.1e} from the formula")

    for wrong in ("wrong-value", "wrong-type"):
        options = mt.Options(passes=f"default,{wrong}", check_values=True)
        try:
            mt.load(PROGRAM, options).bumps(x, y)
        except mt.PassError as error:
            print(f"caught: {error}")


if __name__ == "__main__":
    main()
