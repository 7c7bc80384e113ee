"""Random towers of contractions and views: the pass keeps what they compute, reads outside and all.

Numbers are small integers, so sums are exact in every order and values compare exactly.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from mapsto import ir
from mapsto.ir.affine import AffineExpr, AffineMap
from mapsto.ir.core import Module
from mapsto.ir.ops.contraction import contract, reduce_axes
from mapsto.ir.passes.contractions import Contractions
from mapsto.ir.passes.cse import EliminateCommonSubexpressions
from mapsto.ir.passes.dce import EliminateDeadCode
from mapsto.ir.verifier import verify

F64 = ir.DType.F64
PROGRAMS = 150
MOST_ELEMENTS = 400
EXACT_BELOW = 2.0**40


class Tower:
    """A function under construction; each step uses values that exist."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        shapes = [self.shape() for _ in range(self.random.randint(1, 3))]
        self.build = ir.Builder(ir.Block([ir.TensorType(F64, shape) for shape in shapes]))
        self.values = list(self.build.block.arguments)

    def shape(self) -> tuple[int, ...]:
        return tuple(self.random.choice((1, 2, 3, 4)) for _ in range(self.random.randint(0, 3)))

    def pick(self) -> ir.Value:
        """A value, more likely a recent one."""
        recent = self.values[-3:]
        return self.random.choice(recent if self.random.random() < 0.7 else self.values)

    def step(self) -> None:
        steps: list[Callable[[], ir.Value | None]] = [
            self.contract,
            self.contract,
            self.reduce,
            self.transpose,
            self.broadcast,
            self.slice,
            self.pad,
            self.product,
            self.splat,
        ]
        value = self.random.choice(steps)()
        if value is not None:
            self.values.append(value)

    # ---- contractions

    def contract(self) -> ir.Value | None:
        operands = [self.pick() for _ in range(self.random.choice((1, 1, 2, 2, 3)))]
        rank = self.random.randint(0, 3)
        extents = [
            self.random.choice((1, 2, 3, 4)) for _ in range(rank + self.random.randint(0, 2))
        ]
        if np.prod(extents) > MOST_ELEMENTS:
            return None
        maps = [self.map(operand, extents) for operand in operands]
        kind = self.random.choice(("sum", "sum", "sum", "max", "min"))
        return contract(self.build, operands, maps, extents, rank, kind)

    def reduce(self) -> ir.Value:
        x = self.values[-1]
        axes = self.random.sample(range(x.type.rank), min(x.type.rank, 1))
        return reduce_axes(self.build, self.random.choice(("sum", "max")), x, axes)

    def map(self, operand: ir.Value, extents: list[int]) -> AffineMap:
        exprs = [self.expr(size, extents) for size in operand.shape if isinstance(size, int)]
        return AffineMap(len(extents), tuple(exprs))

    def expr(self, size: int, extents: list[int]) -> AffineExpr:
        """Mostly an index of the size of the axis; sometimes a window, or a read outside."""
        fitting = [d for d, extent in enumerate(extents) if extent == size]
        rank = len(extents)
        if fitting and self.random.random() < 0.7:
            return ir.axis(self.random.choice(fitting), rank)
        coefficients = [0] * rank
        for d in self.random.sample(range(rank), min(rank, self.random.randint(0, 2))):
            coefficients[d] = self.random.choice((1, 1, 2, -1))
        return AffineExpr(tuple(coefficients), self.random.randint(-1, 2))

    # ---- views

    def transpose(self) -> ir.Value:
        x = self.pick()
        permutation = tuple(self.random.sample(range(x.type.rank), x.type.rank))
        return self.build.emit(ir.Transpose, x, permutation=permutation)

    def broadcast(self) -> ir.Value | None:
        x = self.pick()
        rank = min(4, x.type.rank + self.random.randint(0, 2))
        dims = tuple(sorted(self.random.sample(range(rank), x.type.rank)))
        shape = [self.random.choice((1, 2, 3)) for _ in range(rank)]
        for d, size in zip(dims, x.shape, strict=True):
            shape[d] = size  # type: ignore[call-overload]
        if np.prod(shape) > MOST_ELEMENTS:
            return None
        return self.build.emit(ir.Broadcast, x, shape=tuple(shape), dims=dims)

    def slice(self) -> ir.Value:
        x = self.pick()
        sizes = [self.random.randint(1, size) for size in x.shape if isinstance(size, int)]
        starts = [self.random.randint(0, n - s) for n, s in zip(x.shape, sizes, strict=True)]  # type: ignore[operator]
        steps = (1,) * len(sizes)
        return self.build.emit(ir.Slice, x, starts=tuple(starts), sizes=tuple(sizes), steps=steps)

    def pad(self) -> ir.Value:
        x = self.pick()
        low, high = (tuple(self.random.randint(0, 1) for _ in x.shape) for _ in range(2))
        value = self.random.choice((0, 0, 1))
        return self.build.emit(ir.Pad, x, low=low, high=high, value=value)

    def product(self) -> ir.Value:
        x = self.pick()
        same = [y for y in self.values if y.type == x.type]
        return self.build.emit(ir.Mul, x, self.random.choice(same))

    def splat(self) -> ir.Value:
        return self.build.constant(self.random.choice((0, 1, 2, -1)), F64, self.shape())

    def module(self) -> Module:
        """The function `f` of some values, and `all` of all values."""
        chosen = [self.pick() for _ in range(self.random.randint(1, 3))]
        body = self.build.block
        functions = []
        for name, results in (("f", [*chosen, self.values[-1]]), ("all", self.values)):
            block = body.with_operations([*body.operations, ir.Return(results)])
            functions.append(ir.Function(name, block))
        return Module.of(*functions)


def arguments(module: Module, seed: int) -> list[np.ndarray]:
    numbers = np.random.default_rng(seed)
    return [numbers.integers(-2, 3, v.shape).astype(float) for v in module["f"].arguments]


@pytest.mark.parametrize("seed", range(PROGRAMS))
def test_the_pass_keeps_values(seed: int) -> None:
    check(seed)


def check(seed: int) -> None:
    tower = Tower(seed)
    for _ in range(tower.random.randint(2, 7)):
        tower.step()
    module = tower.module()
    given = arguments(module, seed)
    if not all(
        np.abs(array).max(initial=0) < EXACT_BELOW for array in ir.evaluate(module, "all", given)
    ):
        # A reduction over nothing but reads outside is infinite, and factors may not leave that.
        return
    expected = ir.evaluate(module, "f", given)
    for step in (Contractions(), EliminateCommonSubexpressions(), EliminateDeadCode()):
        module = step.run(module)
    verify(module)
    for before, after in zip(expected, ir.evaluate(module, "f", given), strict=True):
        np.testing.assert_array_equal(after + 0.0, before + 0.0)
