"""Contractions to schedule, read from plain buffers and stored negated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mapsto import ir
from mapsto.ir.ops.contraction import Contract
from mapsto.lowering.contraction_problem import ContractionProblem, analyze
from mapsto.lowering.indices import Index, from_dim
from mapsto.lowering.loops import (
    Buffer,
    Expression,
    Load,
    LoopFunction,
    Statement,
    all_of,
    apply,
    within,
)

__all__ = [
    "Plain",
    "arrays",
    "conv2d",
    "function_of",
    "problem",
    "product",
    "reference",
    "rounded_to_tf32",
]


@dataclass
class Plain:
    """Operands read from buffers by their maps, results stored as they are."""

    operands: Sequence[Buffer]
    maps: Sequence[ir.AffineMap]
    result: Buffer
    direct: bool = True
    blocks: int = 1

    def read(
        self, operand: int, indices: Sequence[Index], guard: Expression | None = None
    ) -> Expression:
        buffer, at = self.operands[operand], []
        for expr, extent in zip(self.maps[operand].results, buffer.shape, strict=True):
            position: Index = from_dim(expr.constant)
            for coefficient, index in zip(expr.coefficients, indices, strict=True):
                position = position + index * coefficient if coefficient else position
            at.append(position)
            if expr.single is None:
                guard = all_of(guard, within(position, from_dim(extent)))
        return Load(buffer, tuple(at), guard)

    def element(
        self, operand: int, place: Sequence[Index], inside: Expression | None = None
    ) -> Expression:
        return Load(self.operands[operand], tuple(place), inside)

    def is_direct(self, operand: int) -> bool:
        return self.direct

    def store(
        self, indices: Sequence[Index], value: Expression, guard: Expression | None
    ) -> Sequence[Statement]:
        return [self.result.store(tuple(indices), apply("neg", value), guard)]


def problem(
    shapes: Sequence[Sequence[int]],
    maps: Sequence[ir.AffineMap],
    extents: Sequence[int],
    rank: int,
    dtype: ir.DType = ir.DType.F32,
    direct: bool = True,
) -> ContractionProblem:
    types = [ir.TensorType(dtype, tuple(shape)) for shape in shapes]
    block = ir.Block(types)
    attributes = {"rank": rank, "extents": tuple(extents), "maps": tuple(maps)}
    op = Contract(block.arguments, attributes)
    buffers = [Buffer(f"x{i}", dtype, t.shape, readonly=True) for i, t in enumerate(types)]
    result = Buffer("y", dtype, tuple(extents[:rank]))
    found = analyze(op, Plain(buffers, maps, result, direct))
    assert found is not None
    return found


def function_of(found: ContractionProblem, body: Sequence[Statement]) -> LoopFunction:
    """The kernel with these statements."""
    access = found.access
    assert isinstance(access, Plain)
    return LoopFunction("kernel", (*access.operands, access.result), (), tuple(body))


def arrays(found: ContractionProblem) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    access = found.access
    assert isinstance(access, Plain)
    given = {b.name: random.normal(size=b.shape).astype(b.dtype.numpy) for b in access.operands}
    return {**given, "y": np.zeros(access.result.shape, access.result.dtype.numpy)}


def reference(found: ContractionProblem, given: dict[str, np.ndarray]) -> np.ndarray:
    return -found.op.evaluate(given["x0"], given["x1"])[0]


def product(m: int, n: int, k: int, layout: str = "nn", **options: object) -> ContractionProblem:
    first = ((k, m), [2, 0]) if layout[0] == "t" else ((m, k), [0, 2])
    second = ((n, k), [1, 2]) if layout[1] == "t" else ((k, n), [2, 1])
    maps = [ir.projection(first[1], 3), ir.projection(second[1], 3)]
    return problem([first[0], second[0]], maps, (m, n, k), 2, **options)  # type: ignore[arg-type]


def conv2d() -> ContractionProblem:
    """Result [n, o, p, q]; reduced c, r, s; stride 2, padding 1."""

    def window(outer: int, inner: int) -> ir.AffineExpr:
        return (ir.axis(outer, 7).scaled(2) + ir.axis(inner, 7)).shifted(-1)

    image = ir.AffineMap(7, (ir.axis(0, 7), ir.axis(4, 7), window(2, 5), window(3, 6)))
    weights = ir.projection([1, 4, 5, 6], 7)
    extents = (2, 5, 3, 3, 2, 3, 3)
    return problem([(2, 2, 6, 6), (5, 2, 3, 3)], [image, weights], extents, 4, direct=False)


def rounded_to_tf32(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of f32 rounded to 11 significant bits, halves away from zero."""

    def rounded(array: np.ndarray) -> np.ndarray:
        fraction, exponent = np.frexp(array.astype(np.float64))
        whole = np.trunc(fraction * 2**11 + np.copysign(0.5, fraction))
        return np.ldexp(whole, exponent - 11).astype(np.float32)

    return {name: rounded(array) for name, array in given.items()}
